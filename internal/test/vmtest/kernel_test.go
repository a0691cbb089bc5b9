package vmtest_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/internal/test/vmtest"
)

// longTerm starts a guest with a long-term kernel, the switch's program and others.
func longTerm(t *testing.T, name string, programs ...string) (g *vmtest.Guest, vswitch string) {
	t.Helper()
	vswitch = daemontest.Binary(t)
	g = vmtest.Start(t, vmtest.Options{
		Name: name, Netns: testenv.NewNetns(t), Net: []string{"-nic", "none"},
		Kernel: "linux-image-6.12-cloud-amd64", Programs: append(programs, vswitch),
		// QEMU 7.2 emulates cmpxchg16b so that this kernel crashes.
		Machine: []string{"-cpu", "max,-cx16,-la57", "-m", "1024"},
	})
	g.Run(t, "mkdir -p /run /tmp && mount -t tmpfs run /run && mount -t bpf bpf /sys/fs/bpf")
	return g, vswitch
}

// TestKernel has the verifier of a long-term kernel check the programs of the fast path, which another kernel
// than this machine's may refuse. Where there is no package of it, the distribution's own does.
func TestKernel(t *testing.T) {
	t.Parallel()
	g, vswitch := longTerm(t, "kernel")
	g.Run(t, "%s run --ephemeral --fastpath require --sandbox off >/tmp/log 2>&1 &", vswitch)
	added := func() bool {
		_, err := g.TryRun("%s add-port vm0", vswitch)
		return err == nil
	}
	testenv.Eventually(t, "a port is added; the log is in the guest", func() bool {
		return added() || g.Run(t, "jobs | grep -q Running || cat /tmp/log") != ""
	})
	var about api.Switch
	if err := json.Unmarshal([]byte(g.Run(t, "%s show -o json || cat /tmp/log", vswitch)), &about); err != nil {
		t.Fatalf("%v; its log: %s", err, g.Run(t, "cat /tmp/log"))
	}
	if !about.FastPath.On {
		t.Errorf("%s: the fast path is %+v", g.Run(t, "uname -r"), about.FastPath)
	}
}

// TestOldKernel: on the distribution's kernel, which may be older than tcx, the switch says what is missing, and
// frames pass the daemon: small ones, and TCP in super-frames.
func TestOldKernel(t *testing.T) {
	t.Parallel()
	vswitch := daemontest.Binary(t)
	g := vmtest.Start(t, vmtest.Options{
		Name: "old", Netns: testenv.NewNetns(t), Net: []string{"-nic", "none"},
		Programs: []string{vswitch}, Machine: []string{"-cpu", "max", "-m", "1024"},
	})
	g.Run(t, "mkdir -p /run && mount -t tmpfs run /run && mount -t bpf bpf /sys/fs/bpf")
	g.Run(t, "%s run --ephemeral --sandbox off >/tmp/log 2>&1 &", vswitch)
	testenv.Eventually(t, "the daemon answers", func() bool { _, err := g.TryRun("%s health", vswitch); return err == nil })
	in := func(name, command string) string {
		return g.Run(t, "nsenter -t $(cat /tmp/%s) -n sh -c '%s'", name, command)
	}
	for i, name := range []string{"one", "two"} {
		g.Run(t, "unshare -n sleep 1000 & echo $! >/tmp/%s", name)
		testenv.Eventually(t, "the container has a network", func() bool {
			_, err := g.TryRun("[ $(readlink /proc/$(cat /tmp/%s)/ns/net) != $(readlink /proc/self/ns/net) ]", name)
			return err == nil
		})
		g.Run(t, "%s add-port %s --kind veth --netns /proc/$(cat /tmp/%[2]s)/ns/net", vswitch, name)
		in(name, fmt.Sprintf("ip addr add 10.0.0.%d/24 dev eth0 && ip link set eth0 up", i+1))
	}
	var about api.Switch
	if err := json.Unmarshal([]byte(g.Run(t, "%s show -o json", vswitch)), &about); err != nil {
		t.Fatal(err)
	}
	if f := about.FastPath; !f.On && !strings.Contains(f.Reason, "Linux 6.6") {
		t.Errorf("%s: the fast path is %+v", g.Run(t, "uname -r"), f)
	}
	in("one", "ping -c 3 10.0.0.2")
	g.Run(t, "nsenter -t $(cat /tmp/two) -n iperf3 --forceflush -s -1 >/tmp/iperf3 2>&1 &")
	testenv.Eventually(t, "the server listens", func() bool { _, err := g.TryRun("grep -q listening /tmp/iperf3"); return err == nil })
	const bytes = 20 << 20
	in("one", fmt.Sprintf("iperf3 -c 10.0.0.2 -w 256K -n %d", bytes+1<<20)) // what its socket holds when it ends is lost, so that is little
	testenv.Eventually(t, "the counters have the connection's bytes", func() bool {
		var p api.Port
		if err := json.Unmarshal([]byte(g.Run(t, "%s ports two -o json", vswitch)), &p); err != nil {
			t.Fatal(err)
		}
		return p.TX.Bytes > bytes && p.TX.Bytes/p.TX.Frames > 2*1514
	})
}
