package l2test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
)

// TestContainers connects two containers by veth ports.
//
//	web: eth0 ═══ web0 ┐
//	                   ┼ switch
//	db:  net1 ═══ db0  ┘
//
// They reach each other, also after the daemon was killed: the pairs stay. A container that dies leaves a port that waits for the next
// one of its name, unless the port is transient.
func TestContainers(t *testing.T) {
	t.Parallel()
	ns, web := quietNetns(t), testenv.NewNetns(t)
	db := ns.Name + "-db"
	netns := func(verb string) {
		t.Helper()
		if out, err := exec.Command("ip", "netns", verb, db).CombinedOutput(); err != nil {
			t.Fatalf("ip netns %s: %v: %s", verb, err, out)
		}
	}
	netns("add")
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", db).Run() }) // where the test ended before it did
	sw := startDaemon(t, ns, "--mtu", "1400")
	sw.refuse("name its network namespace with --netns", "add-port web0 --kind veth")
	sw.refuse("there is no network namespace", "add-port web0 --kind veth --netns no-such-namespace")
	sw.ctl("add-port web0 --kind veth --netns %s --address 192.0.2.1/24", web.Path())
	sw.ctl("add-port db0 --kind veth --netns %s --ifname net1 --address 192.0.2.2/24 --mac 02:00:00:00:00:0d", db)
	ping := func() {
		t.Helper()
		testenv.Eventually(t, "both ports are up", func() bool {
			return sw.port("web0").State == api.StateUp && sw.port("db0").State == api.StateUp
		})
		testenv.Eventually(t, "the containers reach each other", func() bool {
			return web.Command("ping", "-q", "-c", "3", "-i", "0.05", "-w", "3", "192.0.2.2").Run() == nil
		})
	}
	ping()
	if got := web.Run("ip", "neigh", "show", "192.0.2.2") + web.Run("ip", "link", "show", "eth0"); !strings.Contains(got, "02:00:00:00:00:0d") || !strings.Contains(got, "mtu 1400") {
		t.Errorf("the container web sees %s", got)
	}
	if daemontest.FastPath() {
		testenv.Eventually(t, "the kernel forwards between them", func() bool {
			ping()
			return sw.port("web0").FastPath.Frames > 0 && sw.port("db0").FastPath.Frames > 0
		})
	}
	index := ns.Run("cat", "/sys/class/net/web0/ifindex")
	sw.Kill()
	sw.Restart(t)
	ping()
	if got := ns.Run("cat", "/sys/class/net/web0/ifindex"); got != index {
		t.Errorf("the port stands on device %s, and on %s after a restart", index, got)
	}

	netns("del")
	testenv.Eventually(t, "it waits for the namespace", func() bool {
		p := sw.port("db0")
		return p.State == api.StateWaiting && strings.Contains(p.Reason, "there is no network namespace "+db)
	})
	netns("add")
	ping()
	// A transient port waits for its namespace until it is there, and goes with it.
	sw.ctl("set-port db0 --transient")
	gone := func() {
		t.Helper()
		testenv.Eventually(t, "the port is removed", func() bool { return !strings.Contains(sw.ctl("ports"), "db0") })
	}
	netns("del")
	gone()
	sw.ctl("add-port db0 --kind veth --netns %s --ifname net1 --address 192.0.2.2/24 --mac 02:00:00:00:00:0d --transient --no-wait", db)
	sw.AwaitState(t, "db0", api.StateWaiting)
	netns("add")
	ping()
	sw.Kill()
	sw.Restart(t)
	ping()
	// Also if that happens while there is no daemon.
	sw.Kill()
	netns("del")
	sw.Restart(t)
	gone()
	sw.ctl("del-port web0")
	if got := ns.Run("ip", "-o", "link") + web.Run("ip", "-o", "link"); strings.Contains(got, "veth") || strings.Contains(got, "eth0") {
		t.Errorf("left: %s", got)
	}
}
