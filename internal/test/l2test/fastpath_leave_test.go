package l2test

import (
	"slices"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/linux/owner"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
)

// TestFastDevicesLeft kills a switch with ports of all kinds that have devices. A start with another state, which
// has none of the ports, removes the devices that nobody uses, and veth pairs that are half made, with a mark or not yet; one with the state brings all
// ports back. `run --cleanup` leaves what a machine holds, what was there before, and devices of others. It refuses while the
// switch runs.
func TestFastDevicesLeft(t *testing.T) {
	t.Parallel()
	ns, container := quietNetns(t), testenv.NewNetns(t)
	ip(t, ns, "link set lo up\nlink add n0 type veth peer name x0\nlink set n0 up\nlink set x0 up\ntuntap add dev own0 mode tap\n")
	sw := startDaemon(t, ns)
	sw.ctl("add-port vm0")
	sw.ctl("add-port vm1")
	sw.ctl("add-port h0 --kind host --address 192.0.2.1/24")
	sw.ctl("add-port n0 --kind netdev")
	sw.ctl("add-port c0 --kind veth --netns %s --address 192.0.2.2/24", container.Path())
	sw.ctl("add-port up0 --kind vxlan --local 127.0.0.1 --peers 127.0.0.2 --vni 100 --data-plane kernel")
	ns.Do(func() { tuntest.Boot(t, "vm0", 0) })
	all := []string{"c0", "h0", "lo", "n0", "own0", "up0", "vm0", "vm1", "x0"}
	devices := func(when string, want ...string) {
		t.Helper()
		if got := strings.Fields(ns.Run("ls", "/sys/class/net")); !slices.Equal(got, want) {
			t.Errorf("%s there are %q, want %q; log:\n%s", when, got, want, sw.Log())
		}
	}
	refused := func() {
		t.Helper()
		out, err := sw.TryCleanup()
		if err == nil || strings.Count(out, "\n") != 1 {
			t.Errorf("run --cleanup of a switch that runs: %v, %q", err, out)
		}
	}
	refused()
	devices("beside the switch", all...)
	sw.Kill()
	devices("after a kill", all...)

	ip(t, ns, "link add half0 type veth peer name eth9 netns "+container.Name+"\nlink set half0 alias \"vswitch "+sw.Name+"\"\n"+
		"link add other0 type vxlan id 9 dstport 999 local 127.0.0.1\nlink set other0 alias \"vswitch another\"\n")
	// A device that is made but not marked yet has an address that tells of it.
	address := func(name string) (a string) {
		ns.Do(func() { a = owner.Address(sw.Name, name).String() })
		return a
	}
	for _, name := range []string{"c0", "up0"} {
		if got := strings.TrimSpace(ns.Run("cat", "/sys/class/net/"+name+"/address")); got != address(name) {
			t.Errorf("%s has the address %s, want %s", name, got, address(name))
		}
	}
	ns.Run("ip", "link", "add", "half1", "address", address("half1"), "type", "veth", "peer", "name", "eth8", "netns", container.Name)
	ns.Run("ip", "link", "add", "half2", "address", address("half2"), "type", "vxlan", "external", "dstport", "998")
	sw.Restart(t, "--state", t.TempDir())
	devices("after a start with another state", "c0", "lo", "n0", "other0", "own0", "vm0", "x0")
	for _, who := range []string{"interface=vm0 used_by=\"a machine\"", "interface=c0 used_by=\"a container\""} {
		if !strings.Contains(sw.Log(), who) {
			t.Errorf("the log does not say that a device stays, %s:\n%s", who, sw.Log())
		}
	}
	sw.Kill()
	sw.Restart(t)
	devices("after a start with the state", "c0", "h0", "lo", "n0", "other0", "own0", "up0", "vm0", "vm1", "x0")
	for _, name := range []string{"c0", "h0", "n0", "up0", "vm0"} {
		sw.AwaitState(t, name, api.StateUp)
	}
	refused()
	sw.Kill()
	sw.Cleanup(t)
	devices("after run --cleanup", "lo", "n0", "other0", "own0", "vm0", "x0")
	sw.Restart(t)
	for _, name := range []string{"c0", "h0", "n0", "up0", "vm0"} {
		sw.AwaitState(t, name, api.StateUp)
	}
	if got := ns.Run("ip", "addr", "show", "h0") + container.Run("ip", "addr", "show", "eth0"); !strings.Contains(got, "192.0.2.1/24") || !strings.Contains(got, "192.0.2.2/24") {
		t.Errorf("the addresses are gone: %s", got)
	}
}
