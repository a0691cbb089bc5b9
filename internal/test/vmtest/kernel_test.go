package vmtest_test

import (
	"encoding/json"
	"testing"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/internal/test/vmtest"
)

// TestKernel has the verifier of a long-term kernel check the programs of the fast path, which another kernel
// than this machine's may refuse. Where there is no package of it, the distribution's own does.
func TestKernel(t *testing.T) {
	t.Parallel()
	vswitch := daemontest.Binary(t)
	g := vmtest.Start(t, vmtest.Options{
		Name: "kernel", Netns: testenv.NewNetns(t), Net: []string{"-nic", "none"},
		Kernel: "linux-image-6.12-cloud-amd64", Programs: []string{vswitch},
		// QEMU 7.2 emulates cmpxchg16b so that this kernel crashes.
		Machine: []string{"-cpu", "max,-cx16,-la57", "-m", "1024"},
	})
	g.Run(t, "mkdir -p /run && mount -t tmpfs run /run && mount -t bpf bpf /sys/fs/bpf")
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
