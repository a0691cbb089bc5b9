package vmtest_test

import (
	"strings"
	"testing"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/internal/test/vmtest"
)

// TestKeepalivedGuests has two guarded guests share an address by keepalived. When keepalived
// ends in the one that has it, or that machine dies, the other has it and answers.
//
//	guest a, keepalived ⇄ vm0, guarded ─┐
//	guest b, keepalived ⇄ vm1, guarded ─┼─ vswitch
//	eth0, who asks      ⇄ s0 ───────────┘
func TestKeepalivedGuests(t *testing.T) {
	t.Parallel()
	testenv.Root(t)
	testenv.Tool(t, "keepalived")
	ns, asks := testenv.NewNetns(t), testenv.NewNetns(t)
	ns.Run("ip", "link", "add", "s0", "type", "veth", "peer", "name", "eth0", "netns", asks.Name)
	ns.Run("ip", "link", "set", "s0", "up")
	asks.Run("ip", "link", "set", "eth0", "up")
	asks.Run("ip", "addr", "add", "10.0.0.9/24", "dev", "eth0")
	sw := daemontest.Start(t, ns)
	sw.Ctl(t, "add-port s0 --kind netdev --exclusive")
	var guests []*vmtest.Guest
	for i := range 2 {
		o := guest(ns, i)
		o.Programs = []string{"keepalived"}
		sw.Ctl(t, "add-port %s --guard on --guard-mac %s --guard-address %s --guard-learn none --guard-pair vrrp:10=10.0.0.100", o.Tap, o.MAC, o.IP.Addr())
		guests = append(guests, vmtest.Start(t, o))
	}
	vmtest.Wait(t, guests...)
	a, b := guests[0], guests[1]
	start := func(g *vmtest.Guest, priority int, vmac string) {
		t.Helper()
		g.Run(t, `printf 'vrrp_instance v {\nstate BACKUP\ninterface eth0\nvirtual_router_id 10\npriority %d\nadvert_int 1\n%s\nvirtual_ipaddress {\n10.0.0.100/24\n}\n}\n' > /tmp/conf`, priority, vmac)
		g.Run(t, "mkdir -p /run; keepalived --dont-fork --log-console --vrrp --use-file=/tmp/conf --pid=/tmp/pid --vrrp_pid=/tmp/vrrp </dev/null >/tmp/log 2>&1 &")
	}
	has := func(g *vmtest.Guest) bool {
		t.Helper()
		return strings.Contains(g.Run(t, "ip -4 addr"), "10.0.0.100/")
	}
	reach := func(when string) {
		t.Helper()
		testenv.Eventually(t, "the address answers "+when, func() bool {
			return asks.Command("ping", "-n", "-q", "-c", "1", "-W", "1", "10.0.0.100").Run() == nil
		})
	}
	t.Cleanup(func() {
		for _, g := range guests {
			if t.Failed() {
				out, err := g.TryRun("cat /tmp/log; ip addr")
				t.Logf("guest %s: %v\n%s", g.Name, err, out)
			}
		}
	})

	// With the stations' own MACs.
	start(a, 100, "")
	testenv.Eventually(t, "guest a has the address", func() bool { return has(a) })
	start(b, 90, "")
	reach("at guest a")
	testenv.Eventually(t, "guest a alone has the address", func() bool { return has(a) && !has(b) })
	a.Run(t, "kill $(cat /tmp/pid)")
	testenv.Eventually(t, "guest b alone has the address", func() bool { return has(b) && !has(a) })
	reach("at guest b")
	b.Run(t, "kill $(cat /tmp/pid)")
	testenv.Eventually(t, "keepalived has ended", func() bool { return !has(b) })

	// With the virtual router's MAC, and a machine that dies without a word.
	start(a, 100, "use_vmac")
	testenv.Eventually(t, "guest a has the address", func() bool { return has(a) })
	start(b, 90, "use_vmac")
	reach("at guest a, by the virtual MAC")
	testenv.Eventually(t, "guest a alone has the address", func() bool { return has(a) && !has(b) })
	a.Kill()
	testenv.Eventually(t, "guest b has the address", func() bool { return has(b) })
	reach("at guest b, by the virtual MAC")
	for _, name := range []string{"vm0", "vm1"} {
		for why, n := range sw.Port(t, name).RX.Dropped {
			if strings.HasPrefix(why, "guard_") {
				t.Errorf("port %s dropped %d frames as %s", name, n, why)
			}
		}
	}
}
