package snoop

import (
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/internal/feature/featuretest"
	"github.com/vswitch/vswitch/internal/proto/mcast"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
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
	for _, everywhere := range []string{"224.0.0.5", "ff02::1", "ff05::1%eth0"} {
		if (static{Group: netip.MustParseAddr(everywhere), VLAN: 1, Port: "vm0"}).Check() == nil {
			t.Errorf("%s is taken, and would not be in force", everywhere)
		}
	}
	if items.Possible(Settings{}) == nil || items.Possible(Settings{Snooping: true}) != nil {
		t.Error("groups need snooping, and nothing else")
	}
}

// The times of queries reach the machine; what cannot be is refused, and all goes with snooping.
func TestQueries(t *testing.T) {
	set := func(s Settings, patch setting.Patch) (Settings, error) {
		t.Helper()
		v, err := setting.Merge(s, patch)
		if err != nil {
			return s, err
		}
		return v.(Settings), v.(Settings).Check()
	}
	s, err := set(Settings{}, setting.Patch{
		"snooping": []byte("true"), "igmp_version": []byte("2"), "mld_version": []byte("1"), "mcast_robustness": []byte("3"),
		"query_interval": []byte(`"60s"`), "query_response_interval": []byte(`"5s"`), "last_member_interval": []byte(`"500ms"`),
		"last_member_count": []byte("4"), "startup_query_interval": []byte(`"10s"`), "startup_query_count": []byte("5"), "mcast_router_timeout": []byte(`"100s"`),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := mcast.VLANConfig{
		IGMPVersion: 2, MLDVersion: 1, Robustness: 3, QueryInterval: time.Minute, ResponseInterval: 5 * time.Second, LastMemberInterval: 500 * time.Millisecond,
		LastMemberCount: 4, StartupInterval: 10 * time.Second, StartupCount: 5, RouterTimeout: 100 * time.Second,
	}
	if got := s.config(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if off, err := set(s, setting.Patch{"snooping": []byte("false")}); err != nil || off != (Settings{}) {
		t.Errorf("without snooping: %+v, %v", off, err)
	}
	for text, patch := range map[string]setting.Patch{
		"--query-interval is for multicast snooping": {"query_interval": []byte(`"60s"`)},
		"less than the query interval":               {"snooping": []byte("true"), "query_response_interval": []byte(`"3m"`)},
	} {
		if _, err := set(Settings{}, patch); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want %q", err, text)
		}
	}
}

// A group of the state that is none is an error, and nothing changes: it would stay there, and be in force nowhere.
func TestRestoreRefuses(t *testing.T) {
	h := featuretest.New(t)
	h.Add(t, port.Spec{Name: "vm0"}, true)
	h.Do(func() {
		sn := start(h, Settings{Snooping: true})
		defer sn.Stop()
		const good = `{"group":"239.1.2.3","vlan":1,"port":"vm0"}`
		if err := sn.Restore(json.RawMessage("[" + good + "]")); err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{
			`{"group":null,"vlan":1,"port":"vm0"}`, `{"vlan":1,"port":"vm0"}`, `{"group":"10.0.0.1","vlan":1,"port":"vm0"}`,
			`{"group":"239.1.2.3","vlan":1,"port":null}`, `{"group":"239.1.2.3","port":"vm0"}`, `{"group":"239.1.2.3","vlan":4095,"port":"vm0"}`,
		} {
			if err := sn.Restore(json.RawMessage("[" + bad + "]")); err == nil {
				t.Errorf("%s is taken", bad)
			}
		}
		if b, err := sn.State(); string(b) != "["+good+"]" || err != nil {
			t.Errorf("kept is %s, %v", b, err)
		}
	})
}

// A switch that was stopped for longer than a membership lasts sends groups everywhere until their hosts have
// answered again: nobody has asked them meanwhile.
func TestAbsence(t *testing.T) {
	report, err := hex.DecodeString("01005e01020362b896575a1b080046c00020000040000102e9090a090001ef010203940400001600f8faef010203")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		h := featuretest.New(t)
		p := h.Add(t, port.Spec{Name: "vm0"}, true)
		var sn *snooping
		goes := func() (ports []uint16, flood bool) {
			h.Do(func() { ports, flood = sn.core.Table().Lookup(1, 0x01005e010203) })
			return ports, flood
		}
		join := func() {
			h.Do(func() { sn.Receive(p, vswitch.ControlFrame{VLAN: 1, Queue: vswitch.QueueGroups, Data: report}) })
		}
		h.Do(func() {
			sn = start(h, Settings{Snooping: true, Querier: true, Unregistered: Routers})
			sn.Configured(p)
			sn.Linked(p, true)
		})
		time.Sleep(20 * time.Second)
		join()
		if ports, flood := goes(); flood || len(ports) != 1 {
			t.Fatalf("a group that was joined goes to %v, everywhere %v", ports, flood)
		}
		h.Do(func() { sn.began = sn.began.Add(-time.Hour); sn.do(func() {}) })
		if _, flood := goes(); !flood {
			t.Error("after an absence the group does not go everywhere")
		}
		join()
		time.Sleep(20 * time.Second)
		if ports, flood := goes(); flood || len(ports) != 1 {
			t.Errorf("after the answer the group goes to %v, everywhere %v", ports, flood)
		}
		h.Do(sn.Stop)
	})
}
