//go:build interop

package interop

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
)

// podman is Podman with an image and a network on a switch, all its own.
type podman struct {
	t  *testing.T
	ns *testenv.Netns
	sw *daemontest.Daemon
}

// startPodman starts a switch, whose host has the address 10.88.0.1, and gives Podman the network lab
// on it and the image box, which has busybox alone.
func startPodman(t *testing.T) *podman {
	t.Helper()
	testenv.Tool(t, "podman")
	testenv.Tool(t, "crun")
	ns := testenv.NewNetns(t)
	// Where Podman and plugins keep what is for the whole host.
	for _, dir := range []string{"/run", "/dev/shm", "/var/lib/containers", "/var/lib/cni"} {
		ns.Run("mkdir", "-p", dir)
		ns.Run("mount", "-t", "tmpfs", "tmpfs", dir)
	}
	ns.Run("mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
	p := &podman{t, ns, daemontest.Start(t, ns)}
	p.sw.Ctl(t, "add-port gw0 --kind host --address 10.88.0.1/24")

	dir := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "vswitch-cni"), "github.com/vswitch/vswitch/cmd/vswitch-cni").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	box := filepath.Join(dir, "box", "bin")
	if err := os.MkdirAll(box, 0o755); err != nil {
		t.Fatal(err)
	}
	ns.Run("cp", testenv.Tool(t, "busybox"), filepath.Join(box, "busybox"))
	for _, name := range []string{"ip", "ping", "sleep"} {
		if err := os.Symlink("busybox", filepath.Join(box, name)); err != nil {
			t.Fatal(err)
		}
	}
	ns.Run("mkdir", "/run/net.d")
	write(t, ns, "/run/net.d/lab.conflist", fmt.Sprintf(`{
		"cniVersion": "1.0.0", "name": "lab",
		"plugins": [{
			"type": "vswitch-cni", "socket": %q,
			"ipam": {"type": "host-local", "dataDir": "/run/ipam", "ranges": [[{"subnet": "10.88.0.0/24", "rangeStart": "10.88.0.10", "gateway": "10.88.0.1"}]],
				"routes": [{"dst": "0.0.0.0/0"}]}
		}]
	}`, p.sw.Socket()))
	// Limits that a container may have also where root may not raise its own.
	write(t, ns, "/run/containers.conf", fmt.Sprintf(`
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
cgroups = "disabled"
[network]
network_backend = "cni"
cni_plugin_dirs = [%q, "/usr/lib/cni"]
network_config_dir = "/run/net.d"
[engine]
runtime = "crun"
cgroup_manager = "cgroupfs"
events_logger = "none"
`, dir))
	if backend := p.run("info", "--format", "{{.Host.NetworkBackend}}"); backend != "cni" {
		t.Skipf("left out: this Podman has networks by %s alone", backend) // since version 5
	}
	t.Cleanup(func() { p.run("rm", "--force", "--all", "--time", "0") })
	image := filepath.Join(dir, "box.tar")
	ns.Run("tar", "-C", filepath.Dir(box), "-cf", image, ".")
	p.run("import", image, "box")
	return p
}

// run runs Podman.
func (p *podman) run(args ...string) string {
	p.t.Helper()
	return p.ns.Run("env", append([]string{"CONTAINERS_CONF=/run/containers.conf", "podman", "--storage-driver", "vfs"}, args...)...)
}

// start starts a container in a network.
func (p *podman) start(name, network string) {
	p.t.Helper()
	p.run("run", "--detach", "--name", name, "--network", network, "box", "/bin/sleep", "1000000")
}

// inspect returns what Podman says of a container in the network.
func (p *podman) inspect(name string) (id, address, mac string) {
	p.t.Helper()
	var all []struct {
		ID              string
		NetworkSettings struct {
			Networks map[string]struct{ IPAddress, MacAddress string }
		}
	}
	if err := json.Unmarshal([]byte(p.run("inspect", name)), &all); err != nil || len(all) != 1 {
		p.t.Fatalf("podman inspect %s: %v, %d containers", name, err, len(all))
	}
	in := all[0].NetworkSettings.Networks["lab"]
	return all[0].ID, in.IPAddress, in.MacAddress
}

// await waits until the switch has ports for these containers alone.
func (p *podman) await(names ...string) {
	p.t.Helper()
	want := make(map[string]bool)
	for _, name := range names {
		id, _, _ := p.inspect(name)
		want[id] = true
	}
	testenv.Eventually(p.t, fmt.Sprintf("there are ports for %v alone", names), func() bool {
		ports, err := p.sw.Client.Ports(p.t.Context())
		if err != nil {
			p.t.Fatal(err)
		}
		got := make(map[string]bool)
		for _, port := range ports {
			if labels, ok := port.Spec.Settings()["labels"].(map[string]any); ok {
				got[fmt.Sprint(labels["cni/container"])] = port.State == "up"
			}
		}
		return cmp.Equal(got, want)
	})
}

// ping has a container ping an address.
func (p *podman) ping(from, to string) {
	p.t.Helper()
	p.run("exec", from, "/bin/ping", "-c", "1", "-w", "60", to)
}

// Containers of Podman are on the switch from their start to their end, however they end.
func TestPodman(t *testing.T) {
	p := startPodman(t)
	p.start("one", "lab")
	p.start("two", "lab:interface_name=net7,mac=02:00:00:00:00:0c")
	p.await("one", "two")
	_, first, _ := p.inspect("one")
	_, second, mac := p.inspect("two")
	if got := p.run("exec", "two", "/bin/ip", "addr", "show", "net7"); mac != "02:00:00:00:00:0c" || !strings.Contains(got, mac) || !strings.Contains(got, second+"/24") {
		t.Errorf("Podman says that two has the addresses %s and %s, and in it is %s", mac, second, got)
	}
	p.ping("one", second)
	p.ping("two", first)
	p.ping("two", "10.88.0.1")
	p.ns.Run("ping", "-c", "1", "-w", "60", first)

	p.run("network", "disconnect", "lab", "two")
	p.await("one")
	p.run("network", "connect", "lab", "two")
	p.await("one", "two")
	_, second, _ = p.inspect("two")
	p.ping("one", second)

	p.run("restart", "--time", "0", "one")
	p.await("one", "two")
	p.ping("one", second)
	p.run("kill", "one") // it is dead, and Podman cleans up
	p.await("two")
	p.run("rm", "one")
	p.run("rm", "--force", "--time", "0", "two")
	p.await()

	// A container of which Podman knows no more leaves nothing either.
	p.start("one", "lab")
	p.await("one")
	var sandbox []struct{ NetworkSettings struct{ SandboxKey string } }
	if err := json.Unmarshal([]byte(p.run("inspect", "one")), &sandbox); err != nil {
		t.Fatal(err)
	}
	p.ns.Run("umount", sandbox[0].NetworkSettings.SandboxKey)
	p.ns.Run("rm", sandbox[0].NetworkSettings.SandboxKey)
	p.run("kill", "one")
	p.await()
	p.run("rm", "--force", "one")

	// A container that dies while the daemon is away has no port when the next comes.
	p.start("one", "lab")
	p.await("one")
	p.sw.Kill()
	p.run("rm", "--force", "--time", "0", "one")
	p.sw.Restart(t)
	p.start("two", "lab")
	p.await("two")
	p.ping("two", "10.88.0.1")
}
