package l2test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/port"
)

// machine reads the interfaces of a namespace.
type machine struct {
	*testenv.Netns
	t testing.TB
}

// device is what `ip link` shows of an interface.
type device struct {
	Ifindex int    `json:"ifindex"`
	Alias   string `json:"ifalias"`
	Link    struct {
		Kind string `json:"info_kind"`
	} `json:"linkinfo"`
}

func (h machine) device(name string) device {
	h.t.Helper()
	var list []device
	if err := json.Unmarshal([]byte(h.Run("ip", "-j", "-d", "link", "show", name)), &list); err != nil || len(list) != 1 {
		h.t.Fatalf("%s: %v", name, err)
	}
	return list[0]
}

// TestOneSwitchPerDevice has two switches on a host. The second takes no device of the
// first, whatever its kind, and names the first; devices that were there get their alias
// back.
func TestOneSwitchPerDevice(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "tuntap", "add", "dev", "old0", "mode", "tap")
	ns.Run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
	ns.Run("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "peer1")
	ns.Run("ip", "link", "set", "eth1", "alias", "uplink to rack 7")
	h := machine{ns, t}
	one, two := startDaemon(t, ns), startDaemon(t, ns)
	for _, d := range []struct{ name, kind, mark, before string }{
		{"vm0", "tap", "", ""},
		{"gw0", "host", "", ""},
		{"old0", "tap", " adopted", ""},
		{"eth0", "netdev", " adopted", ""},
		{"eth1", "netdev", " adopted: uplink to rack 7", "uplink to rack 7"},
	} {
		one.ctl("add-port %s --kind %s", d.name, d.kind)
		was := h.device(d.name)
		if want := "vswitch " + one.Name + d.mark; was.Alias != want {
			t.Errorf("%s of the first switch has the alias %q, want %q", d.name, was.Alias, want)
		}
		for _, kind := range []string{"tap", "host", "netdev"} {
			two.refuse("belongs to switch "+one.Name, "add-port %s --kind %s", d.name, kind)
		}
		if got := h.device(d.name); got != was {
			t.Errorf("%s after the second switch tried: %+v, was %+v", d.name, got, was)
		}
		one.ctl("del-port %s", d.name)
		if d.mark != "" || d.kind == "netdev" {
			if got := h.device(d.name).Alias; got != d.before {
				t.Errorf("%s is left with the alias %q, want %q", d.name, got, d.before)
			}
		}
		// What is free is anybody's.
		two.ctl("add-port %s --kind %s", d.name, d.kind)
	}
}

// TestOneSwitchPerName has two switches of one name in a network namespace, which the
// marks of devices cannot tell apart. The second gets no device until the first is gone,
// however that ends; ports without a device do no harm.
func TestOneSwitchPerName(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	h := machine{ns, t}
	one := startDaemon(t, ns)
	two := startDaemon(t, ns, "--name", one.Name)
	elsewhere := startDaemon(t, testenv.NewNetns(t), "--name", one.Name)
	two.ctl("add-port s0 --kind stream")
	one.ctl("add-port vm0")
	elsewhere.ctl("add-port vm0")
	was := h.device("vm0")
	for _, port := range []string{"vm0", "vm1", "gw0 --kind host", "vm0 --kind netdev"} {
		two.refuse("another switch called "+one.Name, "add-port %s", port)
	}
	sw, err := one.Client.Switch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out, err := two.Try("add-port", "vm0")
	if want := fmt.Sprintf("process %d with the control socket", sw.PID); err == nil || !strings.Contains(out, want) {
		t.Errorf("add-port: %v, %q, want %q", err, out, want)
	}
	if got := h.device("vm0"); got != was {
		t.Errorf("vm0 is %+v, was %+v", got, was)
	}
	one.Kill()
	two.ctl("add-port vm1")
	one.Restart(t)
	if p := one.port("vm0"); p.State != "waiting" || !strings.Contains(p.Reason, "another switch called "+one.Name) {
		t.Errorf("the first, once the second has devices: vm0 is %s (%s)", p.State, p.Reason)
	}
	two.Stop(t)
	one.AwaitState(t, "vm0", api.StateNoCarrier)
}

// TestForeignDevice has somebody else make devices under the names of ports while no
// daemon runs. They are used, and neither start nor del-port takes them away.
func TestForeignDevice(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	h := machine{ns, t}
	d := startDaemon(t, ns)
	names := []string{"vm0", "vm1", "gw0", "vm2"}
	for _, name := range names {
		kind := "tap"
		if name == "gw0" {
			kind = "host"
		}
		d.ctl("add-port %s --kind %s", name, kind)
	}
	d.Kill()
	for _, name := range names {
		ns.Run("sh", "-c", `mac=$(cat /sys/class/net/$0/address) && ip link del $0 && ip tuntap add dev $0 mode tap && ip link set $0 address $mac`, name)
	}
	ns.Run("ip", "link", "set", "vm1", "alias", "somebody else's")
	ns.Run("ip", "link", "set", "vm2", "alias", "vswitch other")
	was := map[string]device{}
	for _, name := range names {
		was[name] = h.device(name)
	}
	d.Restart(t)
	if p := d.port("vm2"); p.State != "waiting" {
		t.Errorf("the device of another switch: the port is %s (%s)", p.State, p.Reason)
	}
	for _, name := range names {
		d.ctl("del-port %s", name)
		if got := h.device(name); got != was[name] {
			t.Errorf("%s is left as %+v, was %+v", name, got, was[name])
		}
	}
}

// TestForeignQueues has somebody else make devices anew with another number of queues while no daemon
// runs: no machine could open them, so the ports wait and say why, until the devices are right.
func TestForeignQueues(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	d := startDaemon(t, ns)
	cases := []struct{ name, flags, wrong, right, reason string }{
		{"vm0", "", "multi_queue", "", "made for several queues"},
		{"vm1", "--queues 2", "", "multi_queue", "is there with one queue"},
		{"gw0", "--kind host", "multi_queue", "", "not a TAP of one queue"},
	}
	make := func(name, how string) {
		t.Helper()
		ns.Run("sh", "-c", "ip link del $0; ip tuntap add dev $0 mode tap "+how, name)
	}
	for _, c := range cases {
		d.ctl("add-port %s %s", c.name, c.flags)
	}
	d.Kill()
	for _, c := range cases {
		make(c.name, c.wrong)
	}
	d.Restart(t)
	for _, c := range cases {
		if p := d.port(c.name); p.State != api.StateWaiting || !strings.Contains(p.Reason, c.reason) {
			t.Errorf("%s is %s (%s), want %q", c.name, p.State, p.Reason, c.reason)
		}
	}
	d.Kill()
	for _, c := range cases {
		make(c.name, c.right)
	}
	d.Restart(t)
	for _, c := range cases {
		if p := d.port(c.name); p.State == api.StateWaiting {
			t.Errorf("%s waits (%s)", c.name, p.Reason)
		}
	}
}

// TestAliasOfEarlierVersion restarts a switch whose devices have aliases without its
// name, as earlier versions wrote them. A switch that knows nothing of such a device uses
// it, and leaves it in place.
func TestAliasOfEarlierVersion(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	h := machine{ns, t}
	one, two := startDaemon(t, ns), startDaemon(t, ns)
	one.ctl("add-port vm0")
	one.ctl("add-port gw0 --kind host")
	one.Kill()
	for _, name := range []string{"vm0", "gw0"} {
		ns.Run("ip", "link", "set", name, "alias", "vswitch ")
	}
	ns.Run("ip", "tuntap", "add", "dev", "vm1", "mode", "tap")
	ns.Run("ip", "link", "set", "vm1", "alias", "vswitch ")
	was := h.device("vm1")
	one.Restart(t)
	for _, name := range []string{"vm0", "gw0"} {
		if got := h.device(name).Alias; got != "vswitch "+one.Name {
			t.Errorf("%s has the alias %q", name, got)
		}
		two.refuse("belongs to switch "+one.Name, "add-port %s", name)
		one.ctl("del-port %s", name)
		if out, err := ns.Command("ip", "link", "show", name).CombinedOutput(); err == nil {
			t.Errorf("%s is left: %s", name, out)
		}
	}
	two.ctl("add-port vm1")
	two.ctl("del-port vm1")
	if got := h.device("vm1"); got != was {
		t.Errorf("vm1 is left as %+v, was %+v", got, was)
	}
}

// TestAliasChanged has others change or clear the alias of devices that the switch made, while it runs or
// not. It still knows them, also under another name, and removes them with their ports.
func TestAliasChanged(t *testing.T) {
	t.Parallel()
	for _, alias := range []string{"", "web server"} {
		t.Run("alias "+alias, func(t *testing.T) {
			t.Parallel()
			ns, container := testenv.NewNetns(t), testenv.NewNetns(t)
			h := machine{ns, t}
			d := startDaemon(t, ns)
			d.ctl("add-port vm0")
			d.ctl("add-port vm1")
			d.ctl("add-port vm2")
			d.ctl("add-port gw0 --kind host")
			d.ctl("add-port c0 --kind veth --netns %s", container.Path())
			d.ctl("add-port t0 --kind vxlan --local 127.0.0.1 --vni 100")
			names := []string{"vm0", "vm1", "vm2", "gw0", "c0"}
			if daemontest.FastPath() {
				names = append(names, "t0")
			}
			index := make(map[string]int)
			for _, name := range names {
				index[name] = h.device(name).Ifindex
			}
			change := func(names ...string) {
				t.Helper()
				for _, name := range names {
					ns.Run("ip", "link", "set", name, "alias", alias)
				}
			}
			change("vm0")
			d.ctl("del-port vm0")
			change("vm1")
			d.Kill()
			change(names[2:]...)
			ns.Run("ip", "link", "set", "vm2", "down", "name", "web")
			d.Restart(t)
			for _, name := range names[1:] {
				is := name
				if name == "vm2" {
					is = "web"
				}
				at := h.device(is)
				if at.Ifindex != index[name] {
					t.Errorf("%s has device %+v, not the former", name, at)
				}
				if want := cmp.Or(alias, "vswitch "+d.Name); at.Alias != want {
					t.Errorf("%s has the alias %q, want %q", name, at.Alias, want)
				}
				if p := d.port(name); p.State == api.StateWaiting {
					t.Errorf("%s waits: %s", name, p.Reason)
				}
				d.ctl("del-port %s", name)
			}
			if left := ns.Run("ip", "-br", "link"); strings.Count(left, "\n") > 0 {
				t.Errorf("left are %s", left)
			}
		})
	}
}

// TestDeviceIsTaken has others of the host take the device of a running port: the port is
// down and says who has it, none of its frames leaves with the switch's tags, and it is
// back by itself.
func TestDeviceIsTaken(t *testing.T) {
	t.Parallel()
	ns, container := testenv.NewNetns(t), testenv.NewNetns(t)
	ns.Run("ip", "link", "add", "br0", "type", "bridge")
	ns.Run("ip", "link", "set", "br0", "up")
	ns.Run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
	ns.Run("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "peer1")
	ns.Run("ip", "link", "add", "eth2", "type", "veth", "peer", "name", "peer2")
	ns.Run("ip", "link", "add", "eth3", "type", "veth", "peer", "name", "peer3")
	for i := range 4 {
		ns.Run("ip", "link", "set", fmt.Sprint("eth", i), "up")
		ns.Run("ip", "link", "set", fmt.Sprint("peer", i), "up")
	}
	d := startDaemon(t, ns)
	d.ctl("add-port vm0")
	d.ctl("add-port eth0 --kind netdev --exclusive")
	d.ctl("add-port eth1 --kind netdev")
	var guest *tuntest.Guest
	ns.Do(func() { guest = tuntest.Boot(t, "vm0", tuntest.TSO) })
	defer guest.Kill()
	for _, port := range []string{"vm0", "eth0", "eth1"} {
		d.AwaitState(t, port, api.StateUp)
		cases := []struct{ take, free, want string }{
			{"link set " + port + " master br0", "link set " + port + " nomaster", "bridge br0"},
			{"addr add 192.0.2.1/24 dev " + port, "addr del 192.0.2.1/24 dev " + port, "192.0.2.1/24"},
			{"link add link " + port + " name mv0 type macvlan", "link del mv0", "macvlan mv0"},
			{"link set " + port + " alias vswitch\u00a0other", "link set " + port + " alias vswitch\u00a0" + d.Name, "belongs to switch other"},
		}
		if daemontest.FastPath() { // else the switch gets the frames before a macvlan
			cases = append(cases, struct{ take, free, want string }{
				"link add link " + port + " name mv0 netns " + container.Path() + " type macvlan",
				"-n " + container.Name + " link del mv0", "a macvlan or the like",
			})
		}
		for _, c := range cases {
			shares := port == "eth1" && (c.want == "192.0.2.1/24" || strings.Contains(c.want, "macvlan"))
			runIP(ns, c.take)
			if shares {
				runIP(ns, c.free)
				continue
			}
			d.AwaitState(t, port, api.StateDown)
			if why := d.port(port).Reason; !strings.Contains(why, c.want) {
				t.Errorf("%s: reason %q, want %q", c.take, why, c.want)
			}
			runIP(ns, c.free)
			d.AwaitState(t, port, api.StateUp)
		}
	}
	if strings.Contains(d.Log(), "port=eth1 kind=netdev state=down was=up reason=\"the host has") {
		t.Error("a port that is shared with the host may not have addresses")
	}
	if daemontest.FastPath() {
		d.ctl("add-port lag0 --kind lag --members eth2,eth3 --lag-mode static")
		d.awaitMembers("lag0", "active active")
		ns.Run("ip", "link", "add", "link", "eth2", "name", "mv0", "type", "macvlan")
		d.awaitMembers("lag0", "down active")
		ns.Run("ip", "link", "del", "mv0")
		d.awaitMembers("lag0", "active active")
	}
	// What is taken is no port to begin with, and no setting makes it one.
	ns.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth1")
	d.refuse("the host has the address 192.0.2.1/24", "set-port eth1 --exclusive")
	d.ctl("del-port eth1")
	d.refuse("the host has the address 192.0.2.1/24", "add-port eth1 --kind netdev --exclusive")
	d.ctl("add-port eth1 --kind netdev")
	d.AwaitState(t, "eth1", api.StateUp)
}

// runIP runs a command of iproute2, whose words may have spaces that do not break.
func runIP(ns *testenv.Netns, line string) {
	words := strings.Fields(strings.ReplaceAll(line, "\u00a0", "\x00"))
	for i := range words {
		words[i] = strings.ReplaceAll(words[i], "\x00", " ")
	}
	ns.Run("ip", words...)
}

// TestOneDeviceOnePort tries to have one device as two ports: after a rename, by another
// name, and by another kind.
func TestOneDeviceOnePort(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
	ns.Run("ip", "link", "property", "add", "dev", "eth0", "altname", "enp9s0")
	d := startDaemon(t, ns)
	d.ctl("add-port vm0")
	d.ctl("add-port gw0 --kind host")
	d.ctl("add-port eth0 --kind netdev --exclusive")
	ns.Run("ip", "link", "set", "vm0", "down")
	ns.Run("ip", "link", "set", "vm0", "name", "vm9")
	ns.Run("ip", "link", "set", "gw0", "down")
	ns.Run("ip", "link", "set", "gw0", "name", "gw9")
	for _, c := range []struct{ name, kind, of string }{
		{"vm9", "tap", "vm0"}, {"vm9", "netdev", "vm0"}, {"vm9", "host", "vm0"},
		{"gw9", "host", "gw0"}, {"gw9", "netdev", "gw0"}, {"gw9", "tap", "gw0"},
		{"enp9s0", "netdev", "eth0"},
	} {
		d.refuse("is the device of port "+c.of+" already", "add-port %s --kind %s", c.name, c.kind)
	}
	// Nor is one free that came from another namespace, under whatever name.
	container := testenv.NewNetns(t)
	d.ctl("add-port gw1 --kind host --netns %s", container.Name)
	container.Run("ip", "link", "set", "gw1", "netns", ns.Path(), "name", "gw2")
	for _, kind := range []string{"tap", "netdev"} {
		d.refuse("gw2 is the device of another port", "add-port gw2 --kind %s", kind)
	}
	d.refuse("gw2 is the device of another port", "add-port lag0 --kind lag --members gw2")
	// A kind without a device is not concerned.
	d.ctl("add-port vm9 --kind stream")
	ns.Run("ip", "link", "set", "vm9", "up")
	d.AwaitState(t, "vm0", api.StateNoCarrier)
}

// TestTakenAfterCrash kills a switch whose state is lost. The next one tells devices that were
// there from those that a port made: it neither replaces nor deletes the former, whatever kind
// has their name next.
func TestTakenAfterCrash(t *testing.T) {
	t.Parallel()
	ns, container := testenv.NewNetns(t), testenv.NewNetns(t)
	h := machine{ns, t}
	ns.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "lo")
	ns.Run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
	ns.Run("ip", "link", "add", "eth1", "type", "vxlan", "id", "7", "dstport", "4790", "local", "192.0.2.1")
	d := startDaemon(t, ns)
	for _, c := range []struct{ name, other string }{
		{"eth0", "veth --netns " + container.Name},
		{"eth1", "vxlan --local 192.0.2.1 --vni 100 --data-plane kernel"},
	} {
		if !daemontest.FastPath() && c.name == "eth1" {
			continue // no port has a vxlan interface then
		}
		was := h.device(c.name)
		d.ctl("add-port %s --kind netdev", c.name)
		d.Restart(t, "--state", t.TempDir())
		d.refuse("there already", "add-port %s --kind %s", c.name, c.other)
		d.ctl("add-port lag0 --kind lag --members %s --lag-mode static", c.name)
		d.ctl("del-port lag0")
		if got := h.device(c.name); got != was {
			t.Errorf("%s is left as %+v, was %+v", c.name, got, was)
		}
	}
}

// TestMovedAway moves the device of a running machine to another namespace and back, also while the
// switch does not hear of it.
func TestMovedAway(t *testing.T) {
	t.Parallel()
	ns, elsewhere := testenv.NewNetns(t), testenv.NewNetns(t)
	d := startDaemon(t, ns)
	d.ctl("add-port vm0")
	d.ctl("add-port vm1")
	var guest *tuntest.Guest
	ns.Do(func() { guest = tuntest.Boot(t, "vm0", tuntest.TSO) })
	defer guest.Kill()
	d.AwaitState(t, "vm0", api.StateUp)
	for _, when := range []string{"running", "restarted", "away", "unheard"} {
		switch when {
		case "away":
			d.Kill()
		case "unheard":
			_ = syscall.Kill(d.PID(), syscall.SIGSTOP)
			flap(t, ns, "vm1")
		}
		ns.Run("ip", "link", "set", "vm0", "netns", elsewhere.Path())
		switch when {
		case "away":
			d.Restart(t)
		case "unheard":
			_ = syscall.Kill(d.PID(), syscall.SIGCONT)
		}
		testenv.Eventually(t, "the port says where its device is", func() bool {
			return strings.Contains(d.port("vm0").Reason, "was moved to another network namespace ("+elsewhere.Name+")")
		})
		if out, err := ns.Command("ip", "link", "show", "vm0").CombinedOutput(); err == nil {
			t.Errorf("%s: there is another vm0: %s", when, out)
		}
		if when == "restarted" {
			d.Restart(t)
		}
		elsewhere.Run("ip", "link", "set", "vm0", "netns", ns.Path())
		d.AwaitState(t, "vm0", api.StateUp)
	}
	d.ctl("del-port vm0 --force") // the machine still runs
	if out, err := ns.Command("ip", "link", "show", "vm0").CombinedOutput(); err == nil {
		t.Errorf("vm0 is left: %s", out)
	}
}

// flap changes a device until a watch of the namespace's interfaces has lost messages if nobody reads them.
func flap(t *testing.T, ns *testenv.Netns, name string) {
	t.Helper()
	var changes strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&changes, "link set %s mtu %d\n", name, 1400+i%2)
	}
	cmd := ns.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(changes.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestRenamedMeanwhile has devices renamed while no process of the switch runs, and in another
// namespace. Each port has its own device afterwards, not one that bears its name by now.
func TestRenamedMeanwhile(t *testing.T) {
	t.Parallel()
	ns, elsewhere := testenv.NewNetns(t), testenv.NewNetns(t)
	h := machine{ns, t}
	ns.Run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
	ns.Run("ip", "link", "set", "peer0", "up")
	ns.Run("ip", "link", "set", "eth0", "up")
	d := startDaemon(t, ns)
	d.ctl("add-port vm0")
	d.ctl("add-port vm1")
	d.ctl("add-port gw0 --kind host")
	d.ctl("add-port eth0 --kind netdev")
	var guest *tuntest.Guest
	ns.Do(func() { guest = tuntest.Boot(t, "vm0", tuntest.TSO) })
	defer guest.Kill()
	rename := func(from, to string) {
		ns.Run("ip", "link", "set", from, "down") // before Linux 6.2 it must be
		ns.Run("ip", "link", "set", from, "name", to)
		ns.Run("ip", "link", "set", to, "up")
	}
	was := map[string]device{}
	for _, name := range []string{"vm0", "vm1", "gw0", "eth0"} {
		was[name] = h.device(name)
	}
	elsewhere.Run("ip", "tuntap", "add", "dev", "gw1", "mode", "tap")
	d.ctl("add-port gw1 --kind host --netns %s", elsewhere.Path())
	d.Kill()
	for _, names := range [][2]string{{"vm0", "former0"}, {"vm1", "vm0"}, {"former0", "vm1"}, {"gw0", "gateway"}, {"eth0", "uplink"}} {
		rename(names[0], names[1])
	}
	ns.Run("ip", "tuntap", "add", "dev", "gw0", "mode", "tap") // somebody else's
	d.Restart(t)
	for _, c := range []struct {
		port, device string
		state        api.State
	}{
		{"vm0", "vm1", api.StateUp}, {"vm1", "vm0", api.StateNoCarrier}, {"gw0", "gateway", api.StateUp}, {"eth0", "uplink", api.StateUp},
	} {
		d.AwaitState(t, c.port, c.state)
		if p := d.port(c.port); p.Ifname != c.device || h.device(c.device).Ifindex != was[c.port].Ifindex {
			t.Errorf("port %s has the device %s, want %s", c.port, p.Ifname, c.device)
		}
	}
	d.AwaitState(t, "gw1", api.StateUp) // it was there before the port, in another namespace
	ns.Run("ip", "link", "set", "vm1", "netns", elsewhere.Path(), "name", "visitor")
	testenv.Eventually(t, "the port says where its device is", func() bool {
		return strings.Contains(d.port("vm0").Reason, "was moved to another network namespace")
	})
	elsewhere.Run("ip", "link", "set", "visitor", "netns", ns.Path(), "name", "returned")
	d.AwaitState(t, "vm0", api.StateUp)
	if p := d.port("vm0"); p.Ifname != "returned" {
		t.Errorf("port vm0 has the device %s", p.Ifname)
	}
	// What belongs to a port goes with it, and nothing else.
	guest.Kill()
	d.ctl("del-port vm0 --force")
	for _, name := range []string{"vm0", "gw0"} {
		h.device(name)
	}
	if out, err := ns.Command("ip", "link", "show", "returned").CombinedOutput(); err == nil {
		t.Errorf("the TAP of vm0 is left: %s", out)
	}
}

// TestMovedForGood removes the ports of devices that were moved to another namespace: there they have the
// alias, the MTU and the features from before.
func TestMovedForGood(t *testing.T) {
	t.Parallel()
	ns, elsewhere := testenv.NewNetns(t), testenv.NewNetns(t)
	for _, name := range []string{"eth1", "eth2", "eth3", "up1", "up2", "up3"} {
		ns.Run("ip", "link", "add", name, "type", "veth", "peer", "name", name+"p")
		ns.Run("ip", "link", "set", name+"p", "up")
		ns.Run("ip", "link", "set", name, "up")
		ns.Run("ethtool", "-K", name, "rx-gro-list", "on")
	}
	ns.Run("ip", "link", "set", "eth1", "alias", "rack 7")
	ns.Run("ip", "link", "set", "up1", "alias", "rack 8")
	ns.Run("ip", "tuntap", "add", "dev", "vm1", "mode", "tap")
	elsewhere.Run("ip", "link", "add", "spare", "type", "veth", "peer", "name", "spare1") // so that indexes are others
	d := startDaemon(t, ns, "--sandbox", "off")                                           // it enters the namespace
	nameless := exec.Command("unshare", "-n", "sleep", "infinity")
	if err := nameless.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nameless.Process.Kill(); _ = nameless.Wait() }()
	of := func(pid int) string {
		ns, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
		return ns
	}
	testenv.Eventually(t, "a namespace without a name", func() bool { return of(nameless.Process.Pid) != of(os.Getpid()) })
	to := map[string]string{"eth1": elsewhere.Path(), "eth2": elsewhere.Path(), "eth3": fmt.Sprint(nameless.Process.Pid)}
	for name, netns := range to {
		d.ctl("add-port %s --kind netdev --mtu 1400", name)
		ns.Run("ip", "link", "set", name, "netns", netns, "name", name+"x")
		testenv.Eventually(t, "the port says where its device is", func() bool {
			return strings.Contains(d.port(name).Reason, "was moved to another network namespace")
		})
	}
	returned := func(name, alias string) {
		t.Helper()
		out := elsewhere.Run("ip", "link", "show", name)
		if !strings.Contains(out, "mtu 1500") || !strings.Contains(out, alias) || alias == "" && strings.Contains(out, "alias") {
			t.Errorf("%s is left as %s", name, out)
		}
		if out := elsewhere.Run("ethtool", "-k", name); name != "vm1" && !strings.Contains(out, "rx-gro-list: on") {
			t.Errorf("%s is left with %s", name, out)
		}
	}
	d.ctl("del-port eth1")
	returned("eth1x", "alias rack 7")
	d.Restart(t) // it was moved before
	d.ctl("del-port eth2")
	returned("eth2x", "")
	d.ctl("add-port vm1 --mtu 9000")
	ns.Run("ip", "link", "set", "vm1", "netns", elsewhere.Path())
	testenv.Eventually(t, "the port says where its device is", func() bool {
		return strings.Contains(d.port("vm1").Reason, "was moved to another network namespace")
	})
	d.ctl("del-port vm1")
	returned("vm1", "")
	d.ctl("add-port up --kind lag --members up1,up2,up3 --lag-mode static --mtu 1400")
	ns.Run("ip", "link", "set", "up1", "netns", elsewhere.Path())
	d.ctl("set-port up --members up2,up3")
	returned("up1", "alias rack 8")
	ns.Run("ip", "link", "set", "up2", "netns", elsewhere.Path())
	d.ctl("del-port up")
	returned("up2", "")
	d.ctl("del-port eth3")
	out, err := exec.Command("nsenter", "-n", "-t", to["eth3"], "ip", "link", "show", "eth3x").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "alias vswitch") || !strings.Contains(d.Log(), "keeps the port's settings, and the alias") {
		t.Errorf("the log says nothing, and eth3 is left as %s, %v", out, err)
	}
}

// TestMarksStayInside has a bridge get the device of a machine that does not stop sending:
// from the first frame on, none comes out at the bridge with the switch's tags.
func TestMarksStayInside(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "link", "add", "br0", "type", "bridge")
	ns.Run("ip", "link", "add", "out", "type", "veth", "peer", "name", "seen")
	ns.Run("ip", "link", "set", "out", "master", "br0")
	for _, name := range []string{"br0", "out", "seen"} {
		ns.Run("ip", "link", "set", name, "up")
	}
	d := startDaemon(t, ns)
	d.ctl("add-port vm0")
	var guest *tuntest.Guest
	var out *tuntest.Station
	ns.Do(func() { guest, out = tuntest.Boot(t, "vm0", tuntest.TSO), tuntest.Listen(t, "seen") })
	defer guest.Kill()
	d.AwaitState(t, "vm0", api.StateUp)
	wire := tuntest.Broadcast(4999)
	var done atomic.Bool
	sent := make(chan error, 1)
	go func() {
		var err error
		for !done.Load() && err == nil {
			err = guest.Send(wire, port.Offload{})
			time.Sleep(50 * time.Microsecond)
		}
		sent <- err
	}()
	for range 3 {
		ns.Run("ip", "link", "set", "vm0", "master", "br0")
		d.AwaitState(t, "vm0", api.StateDown)
		ns.Run("ip", "link", "set", "vm0", "nomaster")
		d.AwaitState(t, "vm0", api.StateUp)
	}
	done.Store(true)
	if err := <-sent; err != nil {
		t.Error(err)
	}
	for n := 0; ; n++ {
		b, _, err := out.Recv(100 * time.Millisecond)
		if err != nil {
			break
		}
		if len(b) >= 18 && bytes.Equal(b[12:16], []byte{0x88, 0xa8, 0x0f, 0xff}) {
			t.Fatalf("frame %d at the bridge begins with %x", n, b[:24])
		}
	}
}
