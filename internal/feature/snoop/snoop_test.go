package snoop

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
)

func TestCheck(t *testing.T) {
	addr := func(s string) setting.Addr { return setting.Addr{Addr: netip.MustParseAddr(s)} }
	for _, c := range []struct {
		set  Settings
		want string
	}{
		{Settings{}, ""},
		{Settings{Snooping: true, Querier: true, QuerierAddress: addr("192.0.2.1"), Unregistered: Routers}, ""},
		{Settings{Querier: true}, "give --snooping as well"},
		{Settings{Unregistered: Flood}, "give --snooping as well"},
		{Settings{Snooping: true, QuerierAddress: addr("192.0.2.1")}, "give --querier as well"},
		{Settings{Snooping: true, Querier: true, QuerierAddress: addr("fe80::1")}, "not an IPv4 address"},
		{Settings{Snooping: true, Querier: true, QuerierAddress: addr("239.1.2.3")}, "queries cannot come from"},
		{Settings{Snooping: true, Querier: true, QuerierAddress: addr("0.0.0.0")}, "queries cannot come from"},
	} {
		if err := c.set.Check(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.set, err, c.want)
		}
	}
	for _, c := range []struct {
		set PortSettings
		ok  bool
	}{
		{PortSettings{Router: true}, true},
		{PortSettings{Router: true, RouterGuard: port.AutoOff}, true},
		{PortSettings{RouterGuard: port.AutoOn}, true},
		{PortSettings{Router: true, RouterGuard: port.AutoOn}, false},
	} {
		if err := c.set.Check(nil); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.set, err)
		}
	}
}

// Groups of a configuration need an address, a port, and snooping.
func TestItems(t *testing.T) {
	v, err := setting.Merge(static{}, setting.Patch{"group": []byte(`"::ffff:239.1.2.3"`), "port": []byte(`"vm0"`)})
	if err != nil {
		t.Fatal(err)
	}
	g := v.(static)
	if g.ID() != "group 239.1.2.3 vlan 1 port vm0" || g.Check() != nil {
		t.Errorf("%s: %v", g.ID(), g.Check())
	}
	if (static{Group: g.Group}).Check() == nil || (static{Port: "vm0"}).Check() == nil {
		t.Error("a group without a port or an address is taken")
	}
	if items.Possible(Settings{}) == nil || items.Possible(Settings{Snooping: true}) != nil {
		t.Error("groups need snooping, and nothing else")
	}
}
