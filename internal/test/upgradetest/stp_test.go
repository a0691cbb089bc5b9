package upgradetest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
)

// part is what a port is in its tree.
func part(t *testing.T, sw *daemontest.Daemon, name string) string {
	t.Helper()
	tree, err := sw.Client.STP(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range tree.Ports {
		if p.Port == name {
			return fmt.Sprint(p.Role, " ", p.State)
		}
	}
	return ""
}

// A switch in a spanning tree is upgraded while frames pass its uplink, and loses none: no port
// waits for the tree, and the other bridge hears of nothing.
//
//	vm0 ── switch under test ═══ two cables, one of them blocked ═══ root ── vm1
func TestUpgradeSTP(t *testing.T) {
	testenv.Root(t)
	for name, flags := range map[string][]string{
		"fast path": {"--stp"},
		"slow path": {"--stp", "--fastpath", "off"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := testenv.NewNetns(t)
			for _, c := range []string{"c0", "c1"} {
				ns.Run("ip", "link", "add", c, "type", "veth", "peer", "name", c+"p")
				ns.Run("ip", "link", "set", c, "up")
				ns.Run("ip", "link", "set", c+"p", "up")
			}
			start := func(number, suffix string, flags ...string) (*daemontest.Daemon, end) {
				sw := daemontest.Start(t, ns, flags...)
				t.Cleanup(func() { sw.Kill(); sw.Cleanup(t) })
				for _, c := range []string{"c0", "c1"} {
					sw.Ctl(t, "add-port %s --kind netdev --exclusive", c+suffix)
				}
				return sw, kinds["tap"](t, sw, "vm"+number)
			}
			sw, vm0 := start("0", "", flags...)
			root, vm1 := start("1", "p", append([]string{"--stp-priority", "4096"}, flags...)...)
			parts := func() string {
				return strings.Join([]string{part(t, sw, "c0"), part(t, sw, "c1"), part(t, sw, "vm0"), part(t, root, "c0p"), part(t, root, "c1p")}, ", ")
			}
			const want = "root forwarding, alternate discarding, designated forwarding, designated forwarding, designated forwarding"
			testenv.Eventually(t, "the tree spans", func() bool { return parts() == want })
			flows := []*flow{newFlow(vm0, vm1, mac(0), mac(1)), newFlow(vm1, vm0, mac(1), mac(0))}
			testenv.Eventually(t, "both stations are known", func() bool {
				flows[0].announce(t)
				flows[1].announce(t)
				return strings.Contains(sw.Ctl(t, "fdb list"), mac(1).String()) && strings.Contains(root.Ctl(t, "fdb list"), mac(0).String())
			})
			for _, f := range flows {
				f.start()
				t.Cleanup(f.stop)
				f.more(t, 20)
			}
			const change = "role is"
			seen := strings.Count(root.Log(), change)
			for range 2 {
				sw.Upgrade(t)
				if is := parts(); is != want {
					t.Errorf("after the upgrade: %s", is)
				}
				for _, f := range flows {
					f.more(t, 30)
				}
			}
			wantAll(t, "upgrade", flows)
			if n := strings.Count(root.Log(), change); n != seen {
				t.Errorf("the other bridge has noticed:\n%s", root.Log())
			}
			// The tree still works.
			ns.Run("ip", "link", "set", "c0", "down")
			testenv.Eventually(t, "the other cable takes over", func() bool { return part(t, sw, "c1") == "root forwarding" })
		})
	}
}
