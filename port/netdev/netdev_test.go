package netdev_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/netdev"
	"github.com/vswitch/vswitch/port/porttest"
)

// kind is the kind of one switch.
var kind = of("sw0")

// of returns the kind of a switch.
func of(switchName string) port.Kind {
	return porttest.Kind(netdev.New(netdev.Options{Switch: switchName}))
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// port under test ── sw0 ═══ veth ═══ peer0 ── station
func TestConformance(t *testing.T) {
	ns := testenv.NewNetns(t)
	var serial atomic.Int32
	porttest.Run(t, func(t *testing.T) (f porttest.Fixture) {
		n := serial.Add(1)
		spec, peer := port.Spec{Name: fmt.Sprintf("sw%d", n)}, fmt.Sprintf("peer%d", n)
		veth(ns, spec.Name, peer, 65521)
		ns.Do(func() {
			// An S-tag counts for the MTU. The station may be slow, and a veth
			// does not wait for it.
			f = porttest.Fixture{Port: open(t, spec, new(port.Trace)), Peer: tuntest.Listen(t, peer), MaxLen: 65535 - 4, Offloads: true, Silent: true}
		})
		return f
	})
}

// What puts received frames together for good is off while the device is a port, whoever
// opens it, and on again afterwards.
func TestUnwantedFeatures(t *testing.T) {
	t.Parallel()
	testenv.Tool(t, "ethtool")
	ns := testenv.NewNetns(t)
	veth(ns, "sw0", "peer0", 1500)
	on := func(want bool) {
		t.Helper()
		if got := strings.Contains(ns.Run("ethtool", "-k", "sw0"), "rx-gro-list: on"); got != want {
			t.Fatalf("rx-gro-list is on: %v, want %v", got, want)
		}
	}
	ns.Run("ethtool", "-K", "sw0", "rx-gro-list", "on")
	ns.Do(func() {
		spec := port.Spec{Name: "sw0"}
		var trace port.Trace
		if _, err := kind.Open(port.Spec{Name: "sw0", Settings: netdev.Settings{MTU: 1 << 30}}, &trace); err == nil {
			t.Fatal("an MTU of 1 Gi is taken")
		}
		on(true)
		open(t, spec, &trace).Close()
		on(false)
		if trace.Before.Features != "rx-gro-list" {
			t.Errorf("the trace has %q", trace.Before.Features)
		}
		open(t, spec, &trace).Close()
		on(false)
		if err := kind.Delete(spec, trace); err != nil {
			t.Fatal(err)
		}
		on(true)
		// What is off stays off.
		ns.Run("ethtool", "-K", "sw0", "rx-gro-list", "off")
		trace = port.Trace{}
		open(t, spec, &trace).Close()
		if err := kind.Delete(spec, trace); err != nil || trace.Before.Features != "" {
			t.Fatalf("%v, the trace has %q", err, trace.Before.Features)
		}
		on(false)
	})
}

// veth makes a cable between two interfaces and sets both ends up.
func veth(ns *testenv.Netns, a, b string, mtu int) {
	ns.Run("ip", "link", "add", a, "mtu", fmt.Sprint(mtu), "type", "veth", "peer", "name", b, "mtu", fmt.Sprint(mtu))
	ns.Run("ip", "link", "set", a, "up")
	ns.Run("ip", "link", "set", b, "up")
}

// open opens a port in the calling thread's namespace.
func open(t *testing.T, spec port.Spec, trace *port.Trace) netdev.Port {
	t.Helper()
	return porttest.Open[netdev.Port](t, kind, spec, trace)
}

// passes expects frames to go through the port in both directions. It sends again,
// for until the kernel has seen a carrier an interface loses what it is given.
func passes(t *testing.T, p port.Port, r *tuntest.Reader, s *tuntest.Station) {
	t.Helper()
	in, out := tuntest.Ethernet(1, 60), tuntest.Ethernet(2, 60)
	tuntest.Insist(t, "from the station", func() error { return s.Send(in, port.Offload{}) }, func(wait time.Duration) (bool, error) {
		f, err := r.Next(wait)
		return bytes.Equal(f.Data, in), err
	})
	tuntest.Insist(t, "to the station", func() error {
		if d := tuntest.Send(p, out, port.Offload{}); d != port.DropNone {
			return errors.New(d.String())
		}
		return nil
	}, func(wait time.Duration) (bool, error) {
		b, _, err := s.Recv(wait)
		return bytes.Equal(b, out), err
	})
}

// The interface takes frames for all addresses while the port is open, is otherwise
// left alone, and keeps its settings.
func TestPromiscuous(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	veth(ns, "sw0", "peer0", 1500)
	ns.Do(func() {
		promiscuity := func() string {
			_, rest, _ := strings.Cut(ns.Run("ip", "-d", "link", "show", "sw0"), "promiscuity ")
			n, _, _ := strings.Cut(rest, " ")
			return n
		}
		spec, trace := port.Spec{Name: "sw0", Settings: netdev.Settings{MTU: 9000}}, port.Trace{}
		p := open(t, spec, &trace)
		if got := promiscuity(); got != "1" {
			t.Errorf("open: promiscuity %s", got)
		}
		if l, err := link.ByName("sw0"); err != nil || l.MTU != 9000 {
			t.Errorf("%+v, %v", l, err)
		}
		if trace.Created || trace.Before == nil || trace.Before.MTU != 1500 {
			t.Errorf("trace %+v, before %+v", trace, trace.Before)
		}
		passes(t, p, tuntest.Read(t, p), tuntest.Listen(t, "peer0"))
		p.Close()
		if got := promiscuity(); got != "0" {
			t.Errorf("closed: promiscuity %s", got)
		}
		if err := kind.Delete(spec, trace); err != nil {
			t.Fatal(err)
		}
		if l, err := link.ByName("sw0"); err != nil || l.MTU != 1500 || !l.Up {
			t.Errorf("left as %+v, %v", l, err)
		}
	})
}

// The MTU of a port without one is its user's affair: it stays when the port is opened again, or set otherwise.
func TestOwnMTU(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	veth(ns, "sw0", "peer0", 1500)
	ns.Do(func() {
		spec, trace := port.Spec{Name: "sw0", Settings: netdev.Settings{}}, port.Trace{}
		with := func(s netdev.Settings) port.Spec { return port.Spec{Name: "sw0", Settings: s} }
		want := func(mtu int, what string) {
			t.Helper()
			if l, err := link.ByName("sw0"); err != nil || l.MTU != mtu {
				t.Errorf("%s: MTU %d, %v; want %d", what, l.MTU, err, mtu)
			}
		}
		open(t, spec, &trace).Close()
		ns.Run("ip", "link", "set", "sw0", "mtu", "1400")
		p := open(t, spec, &trace)
		want(1400, "opened again")
		for _, c := range []struct {
			from, to netdev.Settings
			mtu      int
		}{
			{netdev.Settings{}, netdev.Settings{Exclusive: true}, 1400},
			{netdev.Settings{Exclusive: true}, netdev.Settings{MTU: 1300}, 1300},
			{netdev.Settings{MTU: 1300}, netdev.Settings{}, 1500},
		} {
			if err := kind.Set(p, with(c.from), with(c.to)); err != nil {
				t.Fatal(err)
			}
			want(c.mtu, fmt.Sprintf("%+v after %+v", c.to, c.from))
		}
	})
}

// The host stack takes part in the LAN until the port is exclusive.
func TestExclusive(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	veth(ns, "sw0", "peer0", 1500)
	ns.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "sw0")
	who := netip.MustParseAddr("192.0.2.1")
	ns.Do(func() {
		s := tuntest.Listen(t, "peer0")
		answers := func(wait time.Duration) bool {
			t.Helper()
			if err := s.Send(tuntest.ARPRequest(who), port.Offload{}); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(wait); ; {
				b, _, err := s.Recv(time.Until(deadline))
				if err != nil {
					return false
				}
				if tuntest.IsARPReply(b, who) {
					return true
				}
			}
		}
		spec, trace := port.Spec{Name: "sw0"}, port.Trace{}
		exclusive := port.Spec{Name: "sw0", Settings: netdev.Settings{Exclusive: true}}

		p := open(t, spec, &trace)
		if !answers(patience) {
			t.Error("the host does not answer by a port that is shared")
		}
		ns.Run("ip", "addr", "add", "2001:db8::1/64", "dev", "sw0")
		if err := kind.Set(p, spec, exclusive); err != nil {
			t.Fatal(err)
		}
		if answers(300 * time.Millisecond) {
			t.Error("the host answers by an exclusive port")
		}
		passes(t, p, tuntest.Read(t, p), s)
		if err := kind.Set(p, exclusive, spec); err != nil {
			t.Fatal(err)
		}
		if got := ns.Run("ip", "-6", "addr", "show", "dev", "sw0"); !strings.Contains(got, "2001:db8::1/64") {
			t.Errorf("shared again, it has the addresses %q", got)
		}
		if !answers(patience) {
			t.Error("the host does not answer by a port that is shared again")
		}
		p.Close()

		p = open(t, exclusive, &trace)
		if answers(300 * time.Millisecond) {
			t.Error("the host answers by a port that was opened exclusive")
		}
		p.Close()
		if err := kind.Delete(exclusive, trace); err != nil {
			t.Fatal(err)
		}
		if !answers(patience) {
			t.Error("the host does not answer after the port is gone")
		}
	})
}

// Addresses that the device was given while the host took part come back, too.
func TestStaticIPv6ComesBack(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	veth(ns, "eth0", "eth1", 1500)
	ns.Do(func() {
		spec := port.Spec{Name: "eth0"}
		var trace port.Trace
		p := open(t, spec, &trace)
		ns.Run("ip", "addr", "add", "2001:db8::1/64", "dev", "eth0")
		exclusive := port.Spec{Name: "eth0", Settings: netdev.Settings{Exclusive: true}}
		if err := kind.Set(p, spec, exclusive); err != nil {
			t.Fatal(err)
		}
		l, err := link.ByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		a := netip.MustParsePrefix("2001:db8::1/64")
		if has, err := l.HasAddress(a); has || err != nil {
			t.Errorf("an exclusive port's device has an address: %v", err)
		}
		trace.Before = p.Trace().Before
		if err := cmp.Or(p.Close(), kind.Delete(exclusive, trace)); err != nil {
			t.Fatal(err)
		}
		if has, err := l.HasAddress(a); !has || err != nil {
			t.Errorf("the address did not come back: %v", err)
		}
	})
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	veth(ns, "member", "peer0", 1500)
	ns.Run("ip", "link", "add", "br0", "type", "bridge")
	ns.Run("ip", "link", "set", "member", "master", "br0")
	ns.Run("ip", "tuntap", "add", "dev", "tun0", "mode", "tun")
	ns.Do(func() {
		for _, c := range []struct {
			spec port.Spec
			want string
			gone bool
		}{
			{port.Spec{Name: "eth9"}, "interface eth9 is not there", true},
			{port.Spec{Name: "lo"}, "loopback", false},
			{port.Spec{Name: "member"}, "belongs to a bridge or bond", false},
			{port.Spec{Name: "tun0"}, "no Ethernet interface", false},
			{port.Spec{Name: "peer0", Settings: netdev.Settings{MTU: 70000}}, "does not take an MTU of 70000", false},
		} {
			if err := porttest.Refused(t, kind, c.spec, c.want); errors.Is(err, port.ErrGone) != c.gone {
				t.Errorf("%+v: gone is %t", c.spec, !c.gone)
			}
		}
	})
}

func TestCheck(t *testing.T) {
	porttest.Check(t, kind, []port.Spec{{Name: "eth0", Settings: netdev.Settings{MTU: 9000, Exclusive: true}}}, []port.Spec{
		{}, {Name: "a/b"}, {Name: "eth0", Settings: netdev.Settings{MTU: -1}},
		{Name: "eth0", Settings: netdev.Settings{Queues: 65}}, {Name: "eth0", Settings: netdev.Settings{Queues: -1}},
	})
}

// An interface that is down when the port opens works once it is up; one that is
// deleted ends the port.
func TestLinkEvents(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "link", "add", "sw0", "type", "veth", "peer", "name", "peer0")
	ns.Run("ip", "link", "set", "peer0", "up")
	ns.Do(func() {
		p := open(t, port.Spec{Name: "sw0"}, new(port.Trace))
		r, s := tuntest.Read(t, p), tuntest.Listen(t, "peer0")
		if d := tuntest.Send(p, tuntest.Ethernet(1, 60), port.Offload{}); d != port.DropNoCarrier {
			t.Errorf("to a link that is down: %v", d)
		}
		if l, err := link.ByName("sw0"); err != nil || l.Up {
			t.Errorf("the port set it up: %+v, %v", l, err)
		}
		ns.Run("ip", "link", "set", "sw0", "up")
		passes(t, p, r, s)
		ns.Run("ip", "link", "del", "sw0")
		if err := r.End(t, patience); !errors.Is(err, port.ErrGone) {
			t.Errorf("Recv ended with %v", err)
		}
		if d := tuntest.Send(p, tuntest.Ethernet(2, 60), port.Offload{}); d != port.DropPortClosed {
			t.Errorf("to a device that is gone: %v", d)
		}
	})
}
