package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
)

// The runtime of the tests runs the test's own binary under the plugin's name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "vswitch-cni" {
		main()
		return
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // a plugin with the race detector would wait at its end
	daemontest.Main(m)
}

// runtime is a container runtime, with a network on a switch.
type runtime struct {
	*libcni.CNIConfig
	t    *testing.T
	sw   *daemontest.Daemon
	list *libcni.NetworkConfigList
	dir  string
}

// newRuntime starts a switch. more is added to the plugin's configuration.
func newRuntime(t *testing.T, version, more string) *runtime {
	t.Helper()
	r := &runtime{t: t, sw: daemontest.Start(t, testenv.NewNetns(t)), dir: t.TempDir()}
	self, err := os.Executable()
	if err == nil {
		err = os.Symlink(self, filepath.Join(r.dir, "vswitch-cni"))
	}
	if err != nil {
		t.Fatal(err)
	}
	// Not nil: then the library would make one when it needs it, also at two places at once.
	run := &invoke.DefaultExec{RawExec: &invoke.RawExec{Stderr: os.Stderr}}
	r.CNIConfig = libcni.NewCNIConfigWithCacheDir([]string{r.dir, "/usr/lib/cni"}, filepath.Join(r.dir, "cache"), run)
	r.configure(version, more)
	return r
}

func (r *runtime) configure(version, more string) {
	r.t.Helper()
	var err error
	r.list, err = libcni.ConfListFromBytes(fmt.Appendf(nil, `{
		"cniVersion": %q, "name": "lab",
		"plugins": [{"type": "vswitch-cni", "socket": %q, "dataDir": %q, "capabilities": {"mac": true}%s}]
	}`, version, r.sw.Socket(), filepath.Join(r.dir, "data"), more))
	if err != nil {
		r.t.Fatal(err)
	}
}

// ipam gives addresses of both families, by Debian's host-local.
func ipam(dir string) string {
	return fmt.Sprintf(`, "ipam": {"type": "host-local", "dataDir": %q,
		"ranges": [[{"subnet": "10.88.0.0/24"}], [{"subnet": "fd88::/64"}]], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}`, dir)
}

// container is a network namespace.
func container(ns *testenv.Netns, ifname string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: ns.Name, NetNS: ns.Path(), IfName: ifname}
}

func (r *runtime) add(c *libcni.RuntimeConf) *current.Result {
	r.t.Helper()
	got, err := r.AddNetworkList(r.t.Context(), r.list, c)
	if err != nil {
		r.t.Fatalf("add %s: %v", c.ContainerID, err)
	}
	result, err := current.NewResultFromResult(got)
	if err != nil {
		r.t.Fatal(err)
	}
	return result
}

func (r *runtime) del(c *libcni.RuntimeConf) {
	r.t.Helper()
	if err := r.DelNetworkList(r.t.Context(), r.list, c); err != nil {
		r.t.Fatalf("del %s: %v", c.ContainerID, err)
	}
}

// ports lists the names of the switch's ports.
func (r *runtime) ports() (names []string) {
	r.t.Helper()
	all, err := r.sw.Client.Ports(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, p := range all {
		names = append(names, p.Name)
	}
	return names
}

func ping(t *testing.T, from *testenv.Netns, to string) {
	t.Helper()
	testenv.Eventually(t, "a ping to "+to, func() bool {
		return from.Command("ping", "-q", "-c", "1", "-w", "2", to).Run() == nil
	})
}

// A container gets addresses, a route and a NIC under the name that the runtime says, reaches
// the gateway and another container, and everything goes with it.
func TestContainers(t *testing.T) {
	t.Parallel()
	testenv.Root(t)
	data := t.TempDir()
	r := newRuntime(t, "1.0.0", `, "mtu": 1400, "port": {"isolated": false, "description": "a container"}`+ipam(data))
	r.sw.Ctl(t, "add-port gw0 --kind host --address 10.88.0.1/24 --address fd88::1/64")
	one, two := testenv.NewNetns(t), testenv.NewNetns(t)
	first, second := container(one, "eth0"), container(two, "net1")
	first.CapabilityArgs = map[string]any{"mac": "02:00:00:00:00:0c"}

	result := r.add(first)
	name := portName(labels{"lab", one.Name, "eth0"})
	inside := result.Interfaces[1]
	if len(result.Interfaces) != 2 || result.Interfaces[0].Name != name || result.Interfaces[0].Sandbox != "" ||
		inside.Name != "eth0" || inside.Mac != "02:00:00:00:00:0c" || inside.Mtu != 1400 || inside.Sandbox != one.Path() {
		t.Errorf("interfaces %+v, %+v", result.Interfaces[0], inside)
	}
	if len(result.IPs) != 2 || *result.IPs[0].Interface != 1 || len(result.Routes) != 2 {
		t.Errorf("%+v", result)
	}
	if got := one.Run("ip", "addr", "show", "eth0"); !strings.Contains(got, result.IPs[0].Address.String()) ||
		!strings.Contains(got, "02:00:00:00:00:0c") || !strings.Contains(got, "mtu 1400") {
		t.Errorf("in the container: %s", got)
	}
	if got := one.Run("ip", "route", "get", "192.0.2.1") + one.Run("ip", "-6", "route", "get", "2001:db8::1"); !strings.Contains(got, "via 10.88.0.1") || !strings.Contains(got, "via fd88::1") {
		t.Errorf("routes in the container: %s", got)
	}
	if p := r.sw.Port(t, name); p.Kind != "veth" || p.Spec.Settings()["description"] != "a container" {
		t.Errorf("the port: %+v", p)
	}
	ping(t, one, "10.88.0.1")
	ping(t, one, "fd88::1")

	again := r.add(first)
	if diff := cmp.Diff(text(t, result), text(t, again)); diff != "" {
		t.Errorf("the second result (-first +second):\n%s", diff)
	}
	other := r.add(second)
	ping(t, one, other.IPs[0].Address.IP.String())
	check := func() error { return r.CheckNetworkList(t.Context(), r.list, first) }
	if err := check(); err != nil {
		t.Error(err)
	}

	// What is no longer as it was is found, and made anew.
	one.Run("ip", "addr", "del", result.IPs[0].Address.String(), "dev", "eth0")
	if err := check(); err == nil || !strings.Contains(err.Error(), "eth0 has lost its address") {
		t.Errorf("a lost address: %v", err)
	}
	if again = r.add(first); len(again.IPs) != 2 {
		t.Errorf("made anew: %+v", again)
	}
	if err := check(); err != nil {
		t.Error(err)
	}
	ping(t, one, "10.88.0.1")
	one.Run("ip", "-6", "route", "del", "default")
	if err := check(); err == nil || !strings.Contains(err.Error(), "the route to ::/0 is lost") {
		t.Errorf("a lost route: %v", err)
	}
	r.add(first)
	one.Run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:0d")
	if err := check(); err == nil || !strings.Contains(err.Error(), "eth0 has the address 02:00:00:00:00:0d, not 02:00:00:00:00:0c") {
		t.Errorf("another MAC address: %v", err)
	}
	r.add(first)
	one.Run("ip", "link", "set", "eth0", "name", "eth9")
	if err := check(); err == nil || !strings.Contains(err.Error(), "eth0") {
		t.Errorf("another name: %v", err)
	}
	r.add(first)
	if err := check(); err != nil {
		t.Error(err)
	}
	r.sw.Ctl(t, "del-port %s", name)
	if err := check(); err == nil || !strings.Contains(err.Error(), "there is no port") {
		t.Errorf("a lost port: %v", err)
	}
	r.add(first)
	ping(t, one, "10.88.0.1")

	for range 2 {
		r.del(first)
		r.del(second)
	}
	if got := r.ports(); !cmp.Equal(got, []string{"gw0"}) {
		t.Errorf("ports are left: %v", got)
	}
	if got := one.Run("ip", "-o", "link"); strings.Contains(got, "eth0") {
		t.Errorf("left in the container: %s", got)
	}
	for _, dir := range []string{filepath.Join(r.dir, "data"), filepath.Join(data, "lab")} {
		left, err := filepath.Glob(dir + "/*.*")
		if err != nil || len(left) != 0 && !strings.Contains(left[0], "last_reserved") {
			t.Errorf("left in %s: %v, %v", dir, left, err)
		}
	}
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A container that died without a word leaves no port. One that the runtime has forgotten leaves
// one, which DEL or GC removes. GC removes nothing else.
func TestGarbage(t *testing.T) {
	t.Parallel()
	testenv.Root(t)
	r := newRuntime(t, "1.1.0", "")
	r.sw.Ctl(t, "add-port vm0")
	var all []*libcni.RuntimeConf
	for i := range 4 {
		name := fmt.Sprintf("%s-%d", r.sw.Netns.Name, i)
		if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
			t.Fatalf("ip netns add: %v: %s", err, out)
		}
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
		c := &libcni.RuntimeConf{ContainerID: name, NetNS: "/run/netns/" + name, IfName: "eth0"}
		if result := r.add(c); len(result.IPs) != 0 || result.Interfaces[1].Mac == "" {
			t.Errorf("%+v", result)
		}
		all = append(all, c)
	}
	dead := all[0]
	if out, err := exec.Command("ip", "netns", "del", dead.ContainerID).CombinedOutput(); err != nil {
		t.Fatalf("ip netns del: %v: %s", err, out)
	}
	testenv.Eventually(t, "the port of the dead container is gone", func() bool { return len(r.ports()) == 4 })
	if err := r.CheckNetworkList(t.Context(), r.list, dead); err == nil {
		t.Error("a dead container is well")
	}
	r.del(dead)
	if out, err := exec.Command("ip", "netns", "add", dead.ContainerID).CombinedOutput(); err != nil {
		t.Fatalf("ip netns add: %v: %s", err, out)
	}
	r.add(dead) // the next of its name
	r.del(dead)
	// One whose end the runtime misses, too, leaves no port, but what the plugin keeps of it.
	r.add(dead)
	if out, err := exec.Command("ip", "netns", "del", dead.ContainerID).CombinedOutput(); err != nil {
		t.Fatalf("ip netns del: %v: %s", err, out)
	}
	testenv.Eventually(t, "the port of the next one is gone", func() bool { return len(r.ports()) == 4 })
	r.del(all[3])
	if got := r.ports(); len(got) != 3 {
		t.Errorf("ports %v", got)
	}
	// The runtime has lost its record of the second.
	if err := os.RemoveAll(filepath.Join(r.dir, "cache")); err != nil {
		t.Fatal(err)
	}
	valid := &libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: all[2].ContainerID, IfName: "eth0"}}}
	r.list.Name = "other"
	kept := func() int {
		all, err := filepath.Glob(filepath.Join(r.dir, "data", "*.json"))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	if err := r.GCNetworkList(t.Context(), r.list, valid); err != nil || len(r.ports()) != 3 || kept() != 3 {
		t.Errorf("of another network: %v, ports %v, results of %d", err, r.ports(), kept())
	}
	r.list.Name = "lab"
	// libcni collects nothing if it has no cache at all.
	if err := os.MkdirAll(filepath.Join(r.dir, "cache", "results"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := r.GCNetworkList(t.Context(), r.list, valid); err != nil {
		t.Fatal(err)
	}
	if got, want := r.ports(), []string{"vm0", portName(labels{"lab", all[2].ContainerID, "eth0"})}; !cmp.Equal(got, want) || kept() != 1 {
		t.Errorf("ports %v, want %v; results of %d", got, want, kept())
	}
}

// What is wrong is said with the codes of the specification, and leaves nothing.
func TestErrors(t *testing.T) {
	t.Parallel()
	testenv.Root(t)
	r := newRuntime(t, "1.1.0", "")
	c := container(testenv.NewNetns(t), "eth0")
	wantCode := func(what string, err error, code uint, words string) {
		t.Helper()
		var e *types.Error
		if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Error(), words) {
			t.Errorf("%s: %v, want code %d with %q", what, err, code, words)
		}
	}
	add := func() error { _, err := r.AddNetworkList(t.Context(), r.list, c); return err }
	if err := r.GetStatusNetworkList(t.Context(), r.list); err != nil {
		t.Errorf("status: %v", err)
	}
	r.configure("1.1.0", `, "port": {"netns": "x"}`)
	wantCode("a setting of ours", add(), types.ErrInvalidNetworkConfig, "port.netns follows from the attachment")
	r.configure("1.1.0", `, "port": {"frobnicate": 1}`)
	wantCode("an unknown setting", add(), types.ErrInvalidNetworkConfig, "frobnicate")
	r.configure("1.1.0", `, "mtu": 10`)
	wantCode("a setting out of range", add(), types.ErrInvalidNetworkConfig, "mtu: 10 is out of range")
	gone := *c
	gone.NetNS += "-gone"
	r.configure("1.1.0", "")
	_, err := r.AddNetworkList(t.Context(), r.list, &gone)
	wantCode("a container that is gone", err, types.ErrUnknownContainer, "the container is gone")
	r.configure("1.1.0", `, "ipam": {"type": "no-such-plugin"}`)
	if err := add(); err == nil || !strings.Contains(err.Error(), "no-such-plugin") {
		t.Errorf("a missing IPAM plugin: %v", err)
	}
	r.configure("1.1.0", "")
	r.sw.Ctl(t, "add-port %s", portName(labels{"lab", c.ContainerID, "eth0"}))
	if err := add(); err == nil || !strings.Contains(err.Error(), "is not this container's") {
		t.Errorf("a port of others: %v", err)
	}
	r.sw.Ctl(t, "del-port %s", portName(labels{"lab", c.ContainerID, "eth0"}))
	if got := r.ports(); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
	r.sw.Stop(t)
	wantCode("no switch", add(), types.ErrTryAgainLater, "the switch does not answer")
	wantCode("status without a switch", r.GetStatusNetworkList(t.Context(), r.list), types.ErrPluginNotAvailable, "the switch does not answer")
}

// TestAway has containers end while the daemon is away. The next call that finds it again removes
// their ports, before one of them comes back.
func TestAway(t *testing.T) {
	t.Parallel()
	testenv.Root(t)
	r := newRuntime(t, "1.1.0", "")
	var all []*libcni.RuntimeConf
	for range 4 {
		c := container(testenv.NewNetns(t), "eth0")
		r.add(c)
		all = append(all, c)
	}
	for _, next := range []struct {
		call string
		do   func()
		left int
	}{
		{"status", func() {
			if err := r.GetStatusNetworkList(t.Context(), r.list); err != nil {
				t.Error(err)
			}
		}, 3},
		{"del", func() { r.del(all[2]) }, 1},
		{"add", func() { r.add(all[3]) }, 1}, // the one that ended
	} {
		r.sw.Kill()
		ended := all[map[string]int{"status": 0, "del": 1, "add": 3}[next.call]]
		r.del(ended)
		r.del(ended) // twice is no error either
		r.sw.Restart(t)
		before := len(r.ports())
		next.do()
		if got := r.ports(); len(got) != next.left {
			t.Errorf("after %s there are %v, of %d ports before; want %d", next.call, got, before, next.left)
		}
	}
	// The port is the new one: it stays.
	r.add(all[0])
	if got := r.ports(); len(got) != 2 {
		t.Errorf("there are %v", got)
	}
	files, err := filepath.Glob(filepath.Join(r.dir, "data", "*"+laterSuffix))
	if err != nil || len(files) != 0 {
		t.Errorf("still waiting: %v, %v", files, err)
	}
}

// TestParallel has many ADDs at the same time, and as many DELs. No two get the same.
func TestParallel(t *testing.T) {
	t.Parallel()
	testenv.Root(t)
	data := t.TempDir()
	r := newRuntime(t, "1.0.0", ipam(data))
	const containers, each = 8, 5
	var all []*libcni.RuntimeConf
	for range containers {
		ns := testenv.NewNetns(t)
		for i := range each {
			all = append(all, container(ns, fmt.Sprintf("net%d", i)))
		}
	}
	// parallel does something for each attachment, all at the same time.
	parallel := func(do func(i int) error) {
		t.Helper()
		errs := make([]error, len(all))
		var running sync.WaitGroup
		for i := range all {
			running.Go(func() { errs[i] = do(i) })
		}
		running.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	results := make([]types.Result, len(all))
	parallel(func(i int) (err error) {
		results[i], err = r.AddNetworkList(t.Context(), r.list, all[i])
		return err
	})
	seen := make(map[string]bool)
	for _, one := range results {
		result, err := current.NewResultFromResult(one)
		if err != nil {
			t.Fatal(err)
		}
		for _, is := range []string{result.Interfaces[0].Name, result.Interfaces[1].Mac, result.IPs[0].Address.String(), result.IPs[1].Address.String()} {
			if seen[is] {
				t.Errorf("%s is given twice", is)
			}
			seen[is] = true
		}
	}
	if n := len(r.ports()); n != len(all) {
		t.Errorf("%d ports, want %d", n, len(all))
	}
	parallel(func(i int) error { return r.DelNetworkList(t.Context(), r.list, all[i]) })
	if got := r.ports(); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

// TestVersions has each version of the specification that the plugin speaks, with another plugin
// behind it, and refuses others.
func TestVersions(t *testing.T) {
	t.Parallel()
	testenv.Root(t)
	data := t.TempDir()
	r := newRuntime(t, "1.0.0", "")
	for _, version := range []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		with, addresses := ipam(data)+`}, {"type": "tuning", "mac": "02:00:00:00:00:0e"`, 2
		if version == "1.1.0" { // Debian's plugins do not speak it
			with, addresses = "", 0
		}
		r.configure(version, with)
		ns := testenv.NewNetns(t)
		c := container(ns, "eth0")
		var first, device string
		for n := range 2 { // a runtime may repeat an ADD
			got, err := r.AddNetworkList(t.Context(), r.list, c)
			if err != nil {
				t.Fatalf("%s: %v", version, err)
			}
			result, err := current.NewResultFromResult(got)
			if err != nil {
				t.Fatal(err)
			}
			if got.Version() != version || len(result.IPs) != addresses || len(result.Interfaces) != 2 || result.Interfaces[1].Sandbox != ns.Path() || (result.Interfaces[1].Mac == "02:00:00:00:00:0e") != (with != "") {
				t.Errorf("%s: the result has version %s, interfaces %+v, addresses %+v", version, got.Version(), result.Interfaces, result.IPs)
			}
			is, _, _ := strings.Cut(ns.Run("ip", "-o", "link", "show", "eth0"), ":")
			if n == 0 {
				first, device = result.Interfaces[0].Name, is
			} else if is != device {
				t.Errorf("%s: the second ADD made another device", version)
			} else if result.Interfaces[0].Name != first {
				t.Errorf("%s: the second port is %s, the first %s", version, result.Interfaces[0].Name, first)
			}
		}
		if version >= "0.4.0" {
			if err := r.CheckNetworkList(t.Context(), r.list, c); err != nil {
				t.Errorf("%s: %v", version, err)
			}
		}
		if version >= "1.1.0" {
			if err := r.GetStatusNetworkList(t.Context(), r.list); err != nil {
				t.Errorf("%s: %v", version, err)
			}
		}
		r.del(c)
		r.del(c)
		if got := r.ports(); len(got) != 0 {
			t.Errorf("%s: left: %v", version, got)
		}
	}
	for _, version := range []string{"0.2.0", "", "2.0.0"} {
		code, text := r.call("ADD", container(r.sw.Netns, "eth0"), fmt.Sprintf(`{"cniVersion": %q, "name": "lab", "type": "vswitch-cni"}`, version))
		if code != types.ErrIncompatibleCNIVersion {
			t.Errorf("version %q: %d: %s", version, code, text)
		}
	}
}

// call runs the plugin as a runtime would that checks nothing itself. It returns the code of the
// error; 0: none.
func (r *runtime) call(command string, c *libcni.RuntimeConf, config string) (code uint, text string) {
	r.t.Helper()
	cmd := exec.Command(filepath.Join(r.dir, "vswitch-cni"))
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID="+c.ContainerID, "CNI_NETNS="+c.NetNS, "CNI_IFNAME="+c.IfName, "CNI_PATH="+r.dir+":/usr/lib/cni")
	cmd.Stdin = strings.NewReader(config)
	out, err := cmd.Output()
	if err == nil {
		return 0, string(out)
	}
	var e types.Error
	if bad := json.Unmarshal(out, &e); bad != nil || e.Code == 0 {
		r.t.Errorf("%s with %s: %v, and no error as the specification has it: %s", command, config, err, out)
	}
	return e.Code, e.Error()
}

// TestHostile has the plugin refuse what a runtime should never pass on. Nothing is left of an ADD
// that fails, whatever fails of it.
func TestHostile(t *testing.T) {
	t.Parallel()
	testenv.Root(t)
	r := newRuntime(t, "1.1.0", "")
	good := *container(testenv.NewNetns(t), "eth0")
	config := func(more string) string {
		return fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "lab", "type": "vswitch-cni", "socket": %q, "dataDir": %q%s}`, r.sw.Socket(), filepath.Join(r.dir, "data"), more)
	}
	// An IPAM plugin that answers as told, and notes what it is asked.
	asked := filepath.Join(r.dir, "asked")
	script := "#!/bin/sh\necho $CNI_COMMAND >> " + asked + "\n[ $CNI_COMMAND != ADD ] || { sed -n 's/.*\"answer\": *\"\\(.*\\)\".*/\\1/p' | tr \\' \\\"; }\n"
	if err := os.WriteFile(filepath.Join(r.dir, "told-ipam"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	answer := func(text string) string {
		return config(fmt.Sprintf(`, "ipam": {"type": "told-ipam", "answer": "%s"}`, text))
	}
	or := func(a, b string) string {
		if a != "" {
			return a
		}
		return b
	}
	for _, c := range []struct {
		what   string
		with   libcni.RuntimeConf // in place of good, where it is set
		config string
	}{
		{"an ID that is a path", libcni.RuntimeConf{ContainerID: "../../etc"}, config("")},
		{"an ID that is too long", libcni.RuntimeConf{ContainerID: strings.Repeat("x", 300)}, config("")},
		{"a name that is a path", libcni.RuntimeConf{IfName: "../eth0"}, config("")},
		{"a name that is a folder", libcni.RuntimeConf{IfName: ".."}, config("")},
		{"a name that is too long", libcni.RuntimeConf{IfName: "eth0123456789abcdef"}, config("")},
		{"no namespace", libcni.RuntimeConf{NetNS: "/dev/null"}, config("")},
		{"a namespace that is a folder", libcni.RuntimeConf{NetNS: "/proc/self/ns"}, config("")},
		{"another kind of namespace", libcni.RuntimeConf{NetNS: "/proc/self/ns/mnt"}, config("")},
		{"no JSON", libcni.RuntimeConf{}, `{"cniVersion": `},
		{"a network that is a path", libcni.RuntimeConf{}, strings.Replace(config(""), `"lab"`, `"../lab"`, 1)},
		{"a network without name", libcni.RuntimeConf{}, strings.Replace(config(""), `"lab"`, `""`, 1)},
		{"a network of a long name", libcni.RuntimeConf{}, strings.Replace(config(""), `"lab"`, `"`+strings.Repeat("x", 300)+`"`, 1)},
		{"a switch that is a path", libcni.RuntimeConf{}, `{"cniVersion": "1.1.0", "name": "lab", "type": "vswitch-cni", "switch": "../../sw0"}`},
		{"settings that are none", libcni.RuntimeConf{}, config(`, "port": [1]`)},
		{"another kind of port", libcni.RuntimeConf{}, config(`, "port": {"kind": "tap"}`)},
		{"a MAC address that is none", libcni.RuntimeConf{}, config(`, "runtimeConfig": {"mac": "../x"}`)},
		{"a group address", libcni.RuntimeConf{}, config(`, "runtimeConfig": {"mac": "01:00:00:00:00:01"}`)},
		{"an MTU below zero", libcni.RuntimeConf{}, config(`, "mtu": -1`)},
		{"a result of others that is none", libcni.RuntimeConf{}, config(`, "prevResult": {"cniVersion": "1.1.0", "ips": [{"address": "x"}]}`)},
		{"no room for the result", libcni.RuntimeConf{}, strings.Replace(config(""), filepath.Join(r.dir, "data"), "/dev/null/x", 1)},
		{"an IPAM plugin that is a path", libcni.RuntimeConf{}, config(`, "ipam": {"type": "../told-ipam"}`)},
		{"no answer of IPAM", libcni.RuntimeConf{}, answer("")},
		{"no JSON of IPAM", libcni.RuntimeConf{}, answer("{")},
		{"no address of IPAM", libcni.RuntimeConf{}, answer("{'cniVersion': '1.1.0'}")},
		{"an address that is none", libcni.RuntimeConf{}, answer("{'cniVersion': '1.1.0', 'ips': [{'address': 'x'}]}")},
		{"an address of no host", libcni.RuntimeConf{}, answer("{'cniVersion': '1.1.0', 'ips': [{'address': 'ff02::1/64'}]}")},
		{"a route that leads nowhere", libcni.RuntimeConf{}, answer("{'cniVersion': '1.1.0', 'ips': [{'address': '10.88.0.9/24'}], 'routes': [{'dst': '0.0.0.0/0', 'gw': '192.0.2.1'}]}")},
	} {
		with := good
		with.ContainerID, with.NetNS, with.IfName = or(c.with.ContainerID, good.ContainerID), or(c.with.NetNS, good.NetNS), or(c.with.IfName, good.IfName)
		_ = os.Remove(asked)
		code, text := r.call("ADD", &with, c.config)
		if code == 0 || code == types.ErrTryAgainLater {
			t.Errorf("%s: %d: %s", c.what, code, text)
		}
		if got := r.ports(); len(got) != 0 {
			t.Errorf("%s: ports are left: %v", c.what, got)
		}
		if b, err := os.ReadFile(asked); err == nil && !strings.HasSuffix(string(b), "DEL\n") {
			t.Errorf("%s: the address is not given back: IPAM is asked\n%s", c.what, b)
		}
	}
	// What older runtimes say beside the configuration is heard.
	with := good
	with.Args = [][2]string{{"IgnoreUnknown", "1"}, {"MAC", "02:00:00:00:00:0c"}}
	r.configure("1.1.0", "")
	if inside := r.add(&with).Interfaces[1]; inside.Mac != "02:00:00:00:00:0c" {
		t.Errorf("inside is %+v", inside)
	}
	r.del(&with)
	// The plugin is well after all that, and IPAM's answers are heard.
	if code, text := r.call("ADD", &good, answer("{'cniVersion': '1.1.0', 'ips': [{'address': '10.88.0.9/24'}]}")); code != 0 || !strings.Contains(text, "10.88.0.9/24") {
		t.Errorf("%d: %s", code, text)
	}
	if code, text := r.call("CHECK", &good, config(`, "prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": "eth7", "sandbox": "x"}]}`)); code == 0 || !strings.Contains(text, "prevResult has no interface eth0") {
		t.Errorf("%d: %s", code, text)
	}
	for _, c := range []libcni.RuntimeConf{{ContainerID: "nobody", IfName: "eth0"}, good, good} {
		if code, text := r.call("DEL", &c, config("")); code != 0 {
			t.Errorf("DEL of %s: %d: %s", c.ContainerID, code, text)
		}
	}
	if got := r.ports(); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

// TestBusy has changes wait while the switch is busy with others, and no longer otherwise.
func TestBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy := &api.Error{Code: api.CodeBusy, Message: "another change"}
		var e *types.Error
		for _, code := range []string{api.CodeBusy, api.CodeConflict} { // what the daemon answers meanwhile
			if err := unavailable(&api.Error{Code: code}); !errors.As(err, &e) || e.Code != types.ErrTryAgainLater {
				t.Errorf("%s: %v", code, err)
			}
		}
		calls := 0
		if err := patiently(func() error {
			if calls++; calls < 5 {
				return busy
			}
			return nil
		}); err != nil || calls != 5 {
			t.Errorf("after %d calls: %v", calls, err)
		}
		begin := time.Now()
		if err := patiently(func() error { return busy }); err != busy || time.Since(begin) < patience {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		calls = 0
		other := errors.New("other")
		if err := patiently(func() error { calls++; return other }); err != other || calls != 1 {
			t.Errorf("another error is tried %d times: %v", calls, err)
		}
	})
}

// TestBehind has the plugin pass on what plugins before it did.
func TestBehind(t *testing.T) {
	first := types100(t, `{"interfaces": [{"name": "br0"}, {"name": "eth0", "sandbox": "/n"}], "ips": [{"address": "192.0.2.1/24", "interface": 1}]}`)
	own := types100(t, `{"interfaces": [{"name": "cni1"}, {"name": "net1", "sandbox": "/n"}], "ips": [{"address": "192.0.2.9/24", "interface": 1}], "dns": {"domain": "lab"}}`)
	a := &attachment{port: "cni1"}
	if got := a.behind(nil, own); got != own {
		t.Errorf("behind none: %+v", got)
	}
	all := a.behind(first, own)
	want := types100(t, `{"interfaces": [{"name": "br0"}, {"name": "eth0", "sandbox": "/n"}, {"name": "cni1"}, {"name": "net1", "sandbox": "/n"}],
		"ips": [{"address": "192.0.2.1/24", "interface": 1}, {"address": "192.0.2.9/24", "interface": 3}], "dns": {"domain": "lab"}}`)
	if diff := cmp.Diff(text(t, want), text(t, all)); diff != "" {
		t.Errorf("behind others (-want +got):\n%s", diff)
	}
	if got := a.behind(all, own); got != own {
		t.Errorf("behind its own answer: %+v", got)
	}
	if *own.IPs[0].Interface != 1 {
		t.Error("what is kept has changed")
	}
}

func types100(t *testing.T, text string) *current.Result {
	t.Helper()
	r := &current.Result{}
	if err := json.Unmarshal([]byte(text), r); err != nil {
		t.Fatal(err)
	}
	return r
}
