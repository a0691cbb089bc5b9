package veth_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/owner"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/porttest"
	"github.com/vswitch/vswitch/port/veth"
)

// kind is the kind of one switch.
var kind = of("sw0")

// of returns the kind of a switch.
func of(switchName string) port.Kind {
	return porttest.Kind(veth.New(veth.Options{Switch: switchName}))
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// port under test ── c1 ═══ veth ═══ eth1 (container) ── station
func TestConformance(t *testing.T) {
	here, there := testenv.NewNetns(t), testenv.NewNetns(t)
	there.Do(func() { // a container that says nothing by itself
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
	})
	var serial atomic.Int32
	porttest.Run(t, func(t *testing.T) (f porttest.Fixture) {
		n := serial.Add(1)
		spec := port.Spec{Name: fmt.Sprintf("c%d", n), Settings: veth.Settings{Netns: there.Name, Ifname: fmt.Sprintf("eth%d", n), MTU: 65521}}
		here.Do(func() { f.Port = open(t, spec, new(port.Trace)) })
		there.Do(func() { f.Peer = tuntest.Listen(t, fmt.Sprintf("eth%d", n)) })
		// An S-tag counts for the MTU. The station may be slow, and a veth does not
		// wait for it.
		f.MaxLen, f.Offloads, f.Silent = 65535-4, true, true
		return f
	})
}

// open opens a port in the calling thread's namespace.
func open(t *testing.T, spec port.Spec, trace *port.Trace) *veth.Port {
	t.Helper()
	return porttest.Open[*veth.Port](t, kind, spec, trace)
}

// container returns the spec of a port to a container with an address.
func container(netns string) port.Spec {
	return port.Spec{Name: "c0", Settings: veth.Settings{Netns: netns, Address: []string{"192.0.2.1/24"}}}
}

// The container's end is as the settings say, stays while the switch is away, and is found
// there again.
func TestContainer(t *testing.T) {
	t.Parallel()
	here, there := testenv.NewNetns(t), testenv.NewNetns(t)
	for _, name := range []string{there.Name, there.Path()} {
		here.Do(func() {
			spec := port.Spec{Name: "c0", Settings: veth.Settings{
				Netns: name, Ifname: "net1", MAC: 0x0200_0000_0009, MTU: 1400, Address: []string{"192.0.2.1/24", "2001:db8::1/64"},
			}}
			var trace port.Trace
			index := 0
			for range 2 {
				p := open(t, spec, &trace)
				if index == 0 {
					index = p.Ifindex()
				}
				found, _ := kind.(port.Finder).Find(spec, trace)
				if !trace.Created || p.Ifindex() != index || found != index {
					t.Errorf("trace %+v, ifindex %d after %d", trace, p.Ifindex(), index)
				}
				tuntest.Answers(t, p, tuntest.Read(t, p), "192.0.2.1")
				p.Close()
				got := there.Run("ip", "addr", "show", "dev", "net1")
				for _, want := range []string{"192.0.2.1/24", "2001:db8::1/64", "mtu 1400", "link/ether 02:00:00:00:00:09", ",UP"} {
					if !strings.Contains(got, want) {
						t.Errorf("no %s in %s", want, got)
					}
				}
				if l, err := link.ByName("c0"); err != nil || l.Alias != "vswitch sw0" || l.MTU != 1400 || !l.Up {
					t.Errorf("the switch's end: %+v, %v", l, err)
				}
				trace.Ifindex = 0 // as the next process reads it
			}
			for range 2 {
				if err := kind.Delete(spec, trace); err != nil {
					t.Fatal(err)
				}
			}
			if got := here.Run("ip", "-o", "link") + there.Run("ip", "-o", "link"); strings.Contains(got, "veth") || strings.Contains(got, "net1") {
				t.Errorf("left: %s", got)
			}
		})
	}
}

// netns runs `ip netns`.
func netns(t *testing.T, verb, name string) {
	t.Helper()
	if out, err := exec.Command("ip", "netns", verb, name).CombinedOutput(); err != nil {
		t.Fatalf("ip netns %s: %v: %s", verb, err, out)
	}
}

// A container that dies takes its pair along. The port waits for the next one of its name,
// also while something still holds what is left of the former.
func TestContainerDies(t *testing.T) {
	t.Parallel()
	here := testenv.NewNetns(t)
	name := here.Name + "-c"
	netns(t, "add", name)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() }) // where the test ended before it did
	spec := container(name)
	here.Do(func() {
		var trace port.Trace
		p := open(t, spec, &trace)
		r := tuntest.Read(t, p)
		tuntest.Answers(t, p, r, "192.0.2.1")
		netns(t, "del", name)
		if err := r.End(t, patience); !errors.Is(err, port.ErrGone) {
			t.Errorf("Recv ended with %v", err)
		}
		p.Close()
		if _, err := kind.Open(spec, &trace); !errors.Is(err, port.ErrGone) || !strings.Contains(err.Error(), "ip netns add") {
			t.Errorf("a missing namespace: %v", err)
		}
		if got := porttest.Devices(t); got != "lo" {
			t.Errorf("devices are left: %s", got)
		}

		netns(t, "add", name)
		p = open(t, spec, &trace)
		tuntest.Answers(t, p, tuntest.Read(t, p), "192.0.2.1")
		p.Close()
		held, err := os.Open("/run/netns/" + name)
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close()
		netns(t, "del", name)
		netns(t, "add", name)
		p = open(t, spec, &trace)
		tuntest.Answers(t, p, tuntest.Read(t, p), "192.0.2.1")
		p.Close()
		netns(t, "del", name)
		testenv.Eventually(t, "the pair is gone with the namespace", func() bool { return porttest.Devices(t) == "lo" })
		if err := kind.Delete(spec, trace); err != nil {
			t.Errorf("delete: %v", err)
		}
	})
}

// The switch takes no pair that it did not make, and leaves it in place.
func TestForeign(t *testing.T) {
	t.Parallel()
	here, there := testenv.NewNetns(t), testenv.NewNetns(t)
	here.Run("ip", "link", "add", "c0", "type", "veth", "peer", "name", "eth0", "netns", there.Path())
	here.Run("ip", "link", "add", "br0", "type", "bridge")
	here.Do(func() {
		spec := container(there.Name)
		porttest.Refused(t, kind, spec, "c0 is a veth that is there already; give the port another name, or attach the device with --kind netdev")
		if err := kind.Delete(spec, port.Trace{Created: true, Ifname: "c0"}); err != nil {
			t.Fatal(err)
		}
		if got := porttest.Devices(t); !strings.Contains(got, "c0") {
			t.Errorf("devices %s", got)
		}
		other := container(there.Name)
		other.Name = "br0"
		porttest.Refused(t, kind, other, "br0 is a bridge that is there already")
		other.Name = "c1"
		porttest.Refused(t, kind, other, "an interface eth0 is in network namespace "+there.Name+" already")
		other.Settings = veth.Settings{Netns: "/proc/version"}
		porttest.Refused(t, kind, other, "is not a network namespace")
		other.Settings = veth.Settings{Netns: "no-such-namespace"}
		if err := porttest.Refused(t, kind, other, "ip netns add"); !errors.Is(err, port.ErrGone) {
			t.Errorf("%v may not come", err)
		}
	})
}

func TestMadeBefore(t *testing.T) {
	t.Parallel()
	there := testenv.NewNetns(t)
	testenv.NewNetns(t).Do(func() { porttest.MadeBefore(t, of, container(there.Name)) })
}

// A switch that was killed after it had made a pair and before it had marked it knows the pair.
func TestUnsigned(t *testing.T) {
	t.Parallel()
	here, there := testenv.NewNetns(t), testenv.NewNetns(t)
	here.Do(func() {
		kind, spec := of("one"), container(there.Name)
		porttest.Open[port.Port](t, kind, spec, new(port.Trace)).Close()
		here.Run("ip", "link", "set", spec.Name, "down", "alias", "")
		made, err := owner.MadeBy("one")
		if err != nil || len(made) != 1 || made[0].Name != spec.Name {
			t.Errorf("made are %+v, %v", made, err)
		}
		if others, err := owner.MadeBy("two"); err != nil || len(others) != 0 {
			t.Errorf("another switch has made %+v, %v", others, err)
		}
		var trace port.Trace
		porttest.Open[port.Port](t, kind, spec, &trace).Close()
		if l, err := link.ByName(spec.Name); err != nil || !trace.Created || l.Index != made[0].Index || !owner.Marked(l, "one") {
			t.Errorf("the next daemon has %+v, %v, and notes %+v", l, err, trace)
		}
	})
}

// What fails half way is undone.
func TestUndo(t *testing.T) {
	t.Parallel()
	here, there := testenv.NewNetns(t), testenv.NewNetns(t)
	there.Run("sysctl", "-w", "net.ipv6.conf.default.disable_ipv6=1")
	here.Do(func() {
		spec := container(there.Name)
		spec.Settings = veth.Settings{Netns: there.Name, Address: []string{"192.0.2.1/24", "2001:db8::1/64"}}
		porttest.Refused(t, kind, spec, "2001:db8::1/64") // not where IPv6 is off
	})
}

func TestSet(t *testing.T) {
	t.Parallel()
	here, there := testenv.NewNetns(t), testenv.NewNetns(t)
	here.Do(func() {
		// The first address is the one the others of its subnet hang on.
		set := func(mtu int, address ...string) port.Spec {
			return port.Spec{Name: "c0", Settings: veth.Settings{Netns: there.Name, MTU: mtu, Address: address}}
		}
		spec := set(0, "192.0.2.1/24", "192.0.2.2/24")
		var trace port.Trace
		p := open(t, spec, &trace)
		r := tuntest.Read(t, p)
		next := set(9000, "192.0.2.2/24", "192.0.2.3/24")
		if err := kind.Set(p, spec, next); err != nil {
			t.Fatal(err)
		}
		tuntest.Answers(t, p, r, "192.0.2.3")
		mtus := func(want int) {
			t.Helper()
			near, err := link.ByName("c0")
			if far := there.Run("cat", "/sys/class/net/eth0/mtu"); err != nil || near.MTU != want || far != fmt.Sprint(want) {
				t.Errorf("MTU %d and %s, %v, want %d", near.MTU, far, err, want)
			}
		}
		mtus(9000)
		if got := there.Run("ip", "-o", "-4", "addr", "show", "dev", "eth0"); strings.Contains(got, "192.0.2.1/") || !strings.Contains(got, "192.0.2.2/") {
			t.Errorf("addresses: %s", got)
		}
		there.Run("sysctl", "-w", "net.ipv6.conf.eth0.disable_ipv6=1")
		if err := kind.Set(p, next, set(1400, "2001:db8::1/64")); err == nil {
			t.Error("an IPv6 address is taken where IPv6 is off")
		}
		mtus(9000)
		tuntest.Answers(t, p, r, "192.0.2.3")
		if err := kind.Set(p, next, spec); err != nil {
			t.Fatal(err)
		}
		mtus(1500)
		// Without an MTU of the port, it is the user's affair.
		there.Run("ip", "link", "set", "eth0", "mtu", "1300")
		here.Run("ip", "link", "set", "c0", "mtu", "1300")
		if err := kind.Set(p, spec, set(0, "192.0.2.9/24")); err != nil {
			t.Fatal(err)
		}
		mtus(1300)
		p.Close()
		p = open(t, spec, &trace)
		mtus(1300)
		there.Run("ip", "link", "set", "eth0", "netns", here.Path(), "name", "lost")
		if err := kind.Set(p, spec, next); !errors.Is(err, port.ErrGone) {
			t.Errorf("an end that is elsewhere: %v", err)
		}
	})
}

func TestCheck(t *testing.T) {
	spec := func(s veth.Settings) port.Spec { return port.Spec{Name: "c0", Settings: s} }
	porttest.Check(t, kind, []port.Spec{
		spec(veth.Settings{Netns: "x", Ifname: "eth1", MAC: 0x0200_0000_0001, MTU: 1400, Address: []string{"192.0.2.1/24", "fd00::1/64"}}),
		spec(veth.Settings{Netns: "/run/netns/x"}),
	}, []port.Spec{
		{Name: "c0"}, spec(veth.Settings{}), spec(veth.Settings{Netns: "x", Ifname: "a/b"}),
		spec(veth.Settings{Netns: "x", MTU: 67}), spec(veth.Settings{Netns: "x", Address: []string{"192.0.2.1"}}),
	})
}
