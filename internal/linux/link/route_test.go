package link

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/internal/test/testenv"
)

func TestAddRoute(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "link", "add", "a0", "address", "02:00:00:00:00:0a", "type", "veth", "peer", "name", "b0")
	ns.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "a0")
	ns.Run("ip", "addr", "add", "2001:db8::1/64", "dev", "a0", "nodad")
	ns.Run("ip", "link", "set", "a0", "up")
	ns.Run("ip", "link", "set", "b0", "up")
	ns.Do(func() {
		l, err := ByName("a0")
		if err != nil {
			t.Fatal(err)
		}
		if mac, err := l.HardwareAddr(); err != nil || mac.String() != "02:00:00:00:00:0a" {
			t.Errorf("its address is %v, %v", mac, err)
		}
		for _, c := range []struct {
			route Route
			show  []string // of `ip route`
			want  string
		}{
			{Route{To: netip.MustParsePrefix("0.0.0.0/0"), Via: net.ParseIP("192.0.2.254")}, []string{"route", "show", "default"}, "default via 192.0.2.254 dev a0"},
			{Route{To: netip.MustParsePrefix("::/0"), Via: net.ParseIP("2001:db8::2")}, []string{"-6", "route", "show", "default"}, "default via 2001:db8::2 dev a0"},
			{Route{To: netip.MustParsePrefix("198.51.100.7/24"), Metric: 7, MTU: 1300}, []string{"route", "show", "198.51.100.0/24"}, "198.51.100.0/24 dev a0 metric 7 mtu 1300"},
			{Route{To: netip.MustParsePrefix("203.0.113.0/24"), Table: 99, Scope: 253}, []string{"route", "show", "table", "99"}, "203.0.113.0/24 dev a0"},
		} {
			for range 2 { // what is there already is no error
				if err := l.AddRoute(c.route); err != nil {
					t.Fatal(err)
				}
			}
			if got := ns.Run("ip", c.show...); !strings.Contains(got, c.want) {
				t.Errorf("ip %v shows %q, want %q", c.show, got, c.want)
			}
		}
		if err := l.AddRoute(Route{To: netip.MustParsePrefix("198.51.100.0/24"), Via: net.ParseIP("203.0.113.9")}); err == nil || !strings.Contains(err.Error(), "add a route to 198.51.100.0/24 by a0") {
			t.Errorf("by a gateway out of reach: %v", err)
		}
	})
}
