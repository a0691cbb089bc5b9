package upgradetest

import (
	"strings"
	"testing"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/port"
)

// A bond by LACP loses no frame while its switch is upgraded, and the other end sees every member
// carry frames all the time.
//
//	vm0 ── switch under test ═══ lag0, two cables, lag1 ═══ another switch ── vm1
func TestUpgradeLACP(t *testing.T) {
	testenv.Root(t)
	for name, flags := range map[string][]string{
		"fast path": nil,
		"slow path": {"--fastpath", "off"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := testenv.NewNetns(t)
			for _, c := range []string{"c0", "c1"} {
				ns.Run("ip", "link", "add", c, "type", "veth", "peer", "name", c+"p")
				ns.Run("ip", "link", "set", c, "up")
				ns.Run("ip", "link", "set", c+"p", "up")
			}
			start := func(number, members string) (*daemontest.Daemon, end) {
				sw := daemontest.Start(t, ns, flags...)
				t.Cleanup(func() { sw.Kill(); sw.Cleanup(t) })
				sw.Ctl(t, "add-port lag%s --kind lag --lacp-rate fast --members %s", number, members)
				return sw, kinds["tap"](t, sw, "vm"+number)
			}
			sw, vm0 := start("0", "c0,c1")
			far, vm1 := start("1", "c0p,c1p")
			members := func(sw *daemontest.Daemon, name string) string {
				var all []string
				for _, m := range sw.Port(t, name).Members {
					all = append(all, string(m.State))
				}
				return strings.Join(all, " ")
			}
			const carry = string(port.MemberActive + " " + port.MemberActive)
			testenv.Eventually(t, "LACP has joined the cables", func() bool {
				return members(sw, "lag0") == carry && members(far, "lag1") == carry
			})
			flows := []*flow{newFlow(vm0, vm1, mac(0), mac(1)), newFlow(vm1, vm0, mac(1), mac(0))}
			testenv.Eventually(t, "both stations are known", func() bool {
				flows[0].announce(t)
				flows[1].announce(t)
				return strings.Contains(sw.Ctl(t, "fdb list"), mac(1).String()) && strings.Contains(far.Ctl(t, "fdb list"), mac(0).String())
			})
			for _, f := range flows {
				f.start()
				t.Cleanup(f.stop)
				f.more(t, 20)
			}
			interruptions := func() int { return strings.Count(far.Log(), "a member carries no frames") }
			before := interruptions() // until both were joined
			for range 2 {
				sw.Upgrade(t)
				if is := members(sw, "lag0"); is != carry {
					t.Errorf("after the upgrade the members are %s", is)
				}
				for _, f := range flows {
					f.more(t, 30)
				}
			}
			wantAll(t, "upgrade", flows)
			if is := members(far, "lag1"); is != carry {
				t.Errorf("the other end sees %s", is)
			}
			// It would have told of a change.
			if n := interruptions() - before; n > 0 {
				t.Errorf("the other end has seen %d interruptions:\n%s", n, far.Log())
			}
		})
	}
}
