package host_test

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/host"
	"github.com/vswitch/vswitch/port/porttest"
)

// kind is the kind of one switch.
var kind = of("sw0")

// of returns the kind of a switch.
func of(switchName string) port.Kind {
	return porttest.Kind(host.New(host.Options{Switch: switchName}))
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// port under test ── fd end [TAP] kernel end ── station
func TestConformance(t *testing.T) {
	ns := testenv.NewNetns(t)
	var serial atomic.Int32
	porttest.Run(t, func(t *testing.T) (f porttest.Fixture) {
		spec := port.Spec{Name: fmt.Sprintf("host%d", serial.Add(1)), Settings: host.Settings{MTU: 65521}}
		ns.Do(func() {
			p := open(t, spec, new(port.Trace))
			// An S-tag counts for the MTU at the other end. The host takes what
			// the port sends at once, or loses it itself.
			f = porttest.Fixture{Port: p, Peer: tuntest.Listen(t, spec.Name), MaxLen: 65535 - 4, Offloads: true, Silent: true}
		})
		return f
	})
}

// open opens a port in the calling thread's namespace.
func open(t *testing.T, spec port.Spec, trace *port.Trace) *host.Port {
	t.Helper()
	return porttest.Open[*host.Port](t, kind, spec, trace)
}

// The host end has its addresses in the namespace it is for, keeps them while the
// switch is away, and is found there again.
func TestNetns(t *testing.T) {
	t.Parallel()
	here, there := testenv.NewNetns(t), testenv.NewNetns(t)
	for _, name := range []string{there.Name, there.Path()} {
		here.Do(func() {
			spec := port.Spec{Name: "gw0", Settings: host.Settings{Netns: name, Address: []string{"192.0.2.1/24", "2001:db8::1/64"}, MTU: 1400}}
			var trace port.Trace
			for range 2 {
				p := open(t, spec, &trace)
				if !trace.Created || p.Ifindex() != 0 {
					t.Errorf("trace %+v, ifindex %d", trace, p.Ifindex())
				}
				tuntest.Answers(t, p, tuntest.Read(t, p), "192.0.2.1")
				p.Close()
				if got := there.Run("ip", "-o", "addr", "show", "dev", "gw0"); !strings.Contains(got, "192.0.2.1/24") || !strings.Contains(got, "2001:db8::1/64") {
					t.Errorf("addresses: %s", got)
				}
				if got := there.Run("cat", "/sys/class/net/gw0/mtu"); got != "1400" {
					t.Errorf("MTU %s", got)
				}
			}
			if _, err := link.ByName("gw0"); !errors.Is(err, link.ErrNotFound) {
				t.Errorf("gw0 is in the switch's own namespace: %v", err)
			}
			for range 2 {
				if err := kind.Delete(spec, trace); err != nil {
					t.Fatal(err)
				}
			}
			if got := there.Run("ip", "-o", "link"); strings.Contains(got, "gw0") {
				t.Errorf("left: %s", got)
			}
		})
	}
}

// A namespace that is deleted takes the port with it, though the port holds a piece
// of it; one that is missing may come.
func TestNetnsDeleted(t *testing.T) {
	t.Parallel()
	here := testenv.NewNetns(t)
	name := here.Name + "-gone"
	netns := func(verb string) error { return exec.Command("ip", "netns", verb, name).Run() }
	if err := netns("add"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netns("del") }) // where the test ended before it did
	spec := port.Spec{Name: "gw0", Settings: host.Settings{Netns: name, Address: []string{"192.0.2.1/24"}}}
	here.Do(func() {
		var trace port.Trace
		p := open(t, spec, &trace)
		r := tuntest.Read(t, p)
		tuntest.Answers(t, p, r, "192.0.2.1")
		if err := netns("del"); err != nil {
			t.Fatal(err)
		}
		if err := r.End(t, patience); !errors.Is(err, port.ErrGone) {
			t.Errorf("Recv ended with %v", err)
		}
		p.Close()
		if _, err := kind.Open(spec, &trace); !errors.Is(err, port.ErrGone) || !strings.Contains(err.Error(), "ip netns add") {
			t.Errorf("a missing namespace: %v", err)
		}
		if err := kind.Delete(spec, trace); err != nil {
			t.Errorf("delete: %v", err)
		}
	})
}

// What the host sends while nothing reads the port waits, for longer than a restart takes.
func TestQueue(t *testing.T) {
	testenv.NewNetns(t).Do(func() {
		p := open(t, port.Spec{Name: "host0"}, new(port.Trace))
		s := tuntest.Listen(t, "host0")
		wire := append(port.Broadcast.HardwareAddr(), 2, 0, 0, 0, 0, 1, 0x88, 0xb5)
		wire = append(wire, make([]byte, 46)...)
		const sent = 4000
		for range sent {
			if err := s.Send(wire, port.Offload{}); err != nil {
				t.Fatal(err)
			}
		}
		q := p.Queues()[0]
		var frames [port.BatchSize]port.Frame
		for n := 0; n < sent; {
			got, err := q.Recv(frames[:])
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range frames[:got] {
				if f.Src == 0x0200_0000_0001 {
					n++
				}
			}
			q.Release()
		}
	})
}

// Addresses that a TAP had before stay, also those that a port gives it.
func TestAdoptAddresses(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "tuntap", "add", "dev", "tap0", "mode", "tap")
	for _, a := range []string{"198.51.100.1/24", "203.0.113.1/24"} {
		ns.Run("ip", "addr", "add", a, "dev", "tap0")
	}
	ns.Run("ip", "addr", "add", "2001:db8::1/64", "dev", "tap0", "nodad")
	has := func(want ...string) {
		t.Helper()
		var got []string
		for line := range strings.Lines(ns.Run("ip", "-o", "addr", "show", "dev", "tap0")) {
			if a := strings.Fields(line)[3]; !strings.HasPrefix(a, "fe80:") {
				got = append(got, a)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("the TAP has %q, want %q", got, want)
		}
	}
	with := func(all ...string) port.Spec {
		return port.Spec{Name: "tap0", Settings: host.Settings{Address: all}}
	}
	ns.Do(func() {
		from, trace := with("192.0.2.1/24", "198.51.100.1/24", "2001:db8::1/64"), port.Trace{}
		p := open(t, from, &trace)
		has("192.0.2.1/24", "198.51.100.1/24", "2001:db8::1/64", "203.0.113.1/24")
		to := with("192.0.2.2/24", "203.0.113.1/24")
		if err := kind.Set(p, from, to); err != nil {
			t.Fatal(err)
		}
		has("192.0.2.2/24", "198.51.100.1/24", "2001:db8::1/64", "203.0.113.1/24")
		p.Close()
		open(t, to, &trace).Close()
		if err := kind.Delete(to, trace); err != nil {
			t.Fatal(err)
		}
		has("198.51.100.1/24", "2001:db8::1/64", "203.0.113.1/24")
	})
}

// A TAP that is there is used and left as it was; while somebody holds it, it is busy.
func TestAdopt(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "tuntap", "add", "dev", "tap0", "mode", "tap")
	ns.Run("ip", "addr", "add", "198.51.100.1/24", "dev", "tap0")
	ns.Do(func() {
		spec, trace := port.Spec{Name: "tap0", Settings: host.Settings{MTU: 9000, Address: []string{"192.0.2.1/24"}}}, port.Trace{}
		p := open(t, spec, &trace)
		if trace.Created || trace.Before == nil || trace.Before.Up || trace.Before.MTU != 1500 {
			t.Errorf("trace %+v, before %+v", trace, trace.Before)
		}
		tuntest.Answers(t, p, tuntest.Read(t, p), "192.0.2.1")
		if _, err := tuntest.TryBoot("tap0", tuntest.TSO); !errors.Is(err, unix.EBUSY) {
			t.Errorf("a second holder: %v", err)
		}
		p.Close()
		if err := kind.Delete(spec, trace); err != nil {
			t.Fatal(err)
		}
		l, err := link.ByName("tap0")
		if err != nil || l.Up || l.MTU != 1500 {
			t.Errorf("left as %+v, %v", l, err)
		}
		if got := ns.Run("ip", "-o", "-4", "addr", "show", "dev", "tap0"); strings.Contains(got, "192.0.2.1") || !strings.Contains(got, "198.51.100.1/24") {
			t.Errorf("addresses left: %s", got)
		}

		tuntest.Boot(t, "tap0", tuntest.TSO)
		porttest.Refused(t, kind, spec, "another process holds tap0")
	})
}

// Not in parallel: a process that another test starts holds all devices until it has
// closed what it does not inherit.
func TestMadeBefore(t *testing.T) {
	testenv.NewNetns(t).Do(func() {
		porttest.MadeBefore(t, of, port.Spec{Name: "gw0"})
	})
}

// What fails half way is undone.
func TestUndo(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "tuntap", "add", "dev", "tun0", "mode", "tun")
	ns.Run("sysctl", "-w", "net.ipv6.conf.default.disable_ipv6=1")
	ns.Do(func() {
		for _, c := range []struct {
			spec port.Spec
			want string
		}{
			// The second address cannot be had where IPv6 is off.
			{port.Spec{Name: "gw0", Settings: host.Settings{Address: []string{"192.0.2.1/24", "2001:db8::1/64"}}}, "2001:db8::1/64"},
			{port.Spec{Name: "tun0"}, "tun0 is a tun, whose frames have no Ethernet header"},
			{port.Spec{Name: "gw0", Settings: host.Settings{Netns: "/proc/version"}}, "is not a network namespace"},
		} {
			porttest.Refused(t, kind, c.spec, c.want)
		}
	})
}

func TestSet(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Do(func() {
		// The first address is the one the others of its subnet hang on.
		spec := port.Spec{Name: "gw0", Settings: host.Settings{Address: []string{"192.0.2.1/24", "192.0.2.2/24"}}}
		p := open(t, spec, new(port.Trace))
		r := tuntest.Read(t, p)
		next := port.Spec{Name: "gw0", Settings: host.Settings{Address: []string{"192.0.2.2/24", "192.0.2.3/24"}, MTU: 9000}}
		if err := kind.Set(p, spec, next); err != nil {
			t.Fatal(err)
		}
		tuntest.Answers(t, p, r, "192.0.2.3")
		if got := ns.Run("ip", "-o", "-4", "addr", "show", "dev", "gw0"); strings.Contains(got, "192.0.2.1/") || !strings.Contains(got, "192.0.2.2/") {
			t.Errorf("addresses: %s", got)
		}
		if err := kind.Set(p, next, spec); err != nil {
			t.Fatal(err)
		}
		if l, err := link.ByName("gw0"); err != nil || l.MTU != 1500 {
			t.Errorf("%+v, %v", l, err)
		}
	})
}

func TestCheck(t *testing.T) {
	porttest.Check(t, kind, []port.Spec{
		{Name: "gw0", Settings: host.Settings{Netns: "x", MTU: 1400, Address: []string{"192.0.2.1/24", "fd00::1/64"}}},
	}, []port.Spec{
		{}, {Name: "sixteen-bytes-xx"}, {Name: "gw0", Settings: host.Settings{MTU: 67}}, {Name: "gw0", Settings: host.Settings{MTU: 65522}},
		{Name: "gw0", Settings: host.Settings{Address: []string{"192.0.2.1"}}}, {Name: "gw0", Settings: host.Settings{Address: []string{"192.0.2.1/33"}}},
		{Name: "gw0", Settings: host.Settings{Address: []string{"host.example/24"}}}, {Name: "gw0", Settings: host.Settings{Address: []string{"0.0.0.0/0"}}},
	})
}

func TestLinkEvents(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Do(func() {
		p := open(t, port.Spec{Name: "gw0", Settings: host.Settings{Address: []string{"192.0.2.1/24"}}}, new(port.Trace))
		r := tuntest.Read(t, p)
		ns.Run("ip", "link", "set", "gw0", "down")
		if d := tuntest.Send(p, tuntest.Ethernet(1, 60), port.Offload{}); d != port.DropNoCarrier {
			t.Errorf("to a link that is down: %v", d)
		}
		ns.Run("ip", "link", "set", "gw0", "up")
		tuntest.Answers(t, p, r, "192.0.2.1")
		if l, err := link.ByIndex(p.Ifindex()); err != nil || l.Name != "gw0" {
			t.Errorf("%+v, %v", l, err)
		}
		ns.Run("ip", "link", "del", "gw0")
		if err := r.End(t, patience); !errors.Is(err, port.ErrGone) {
			t.Errorf("Recv ended with %v", err)
		}
		if d := tuntest.Send(p, tuntest.Ethernet(2, 60), port.Offload{}); d != port.DropPortClosed {
			t.Errorf("to a device that is gone: %v", d)
		}
	})
}

// The host takes super-frames whole and leaves its own uncut, tagged or not.
func TestSegmentation(t *testing.T) {
	t.Parallel()
	testenv.NewNetns(t).Do(func() {
		p := open(t, port.Spec{Name: "gw0"}, new(port.Trace))
		r, s := tuntest.Read(t, p), tuntest.Listen(t, "gw0")
		whole, offload := tuntest.TCP4(60000)
		for _, tag := range []port.Tag{0, port.MakeTag(port.TPIDCustomer, 100)} {
			wire, o := whole, offload
			if tag.Present() {
				wire = tuntest.Tagged(whole, tag)
				o.CsumStart, o.HdrLen = o.CsumStart+4, o.HdrLen+4
			}
			if d := tuntest.Send(p, wire, offload); d != port.DropNone {
				t.Fatal(d)
			}
			b, got, err := s.Recv(patience)
			if err != nil || !bytes.Equal(b, wire) || got.GSOType != o.GSOType || got.GSOSize != o.GSOSize || got.CsumStart != o.CsumStart {
				t.Errorf("tag %#x: %d bytes arrived, %+v, %v", tag, len(b), got, err)
			}
			if err := s.Send(wire, o); err != nil {
				t.Fatal(err)
			}
			for {
				f, err := r.Next(patience)
				if err != nil {
					t.Fatalf("tag %#x: from the host: %v", tag, err)
				}
				if f.Src != tuntest.MACA {
					continue // the host's own
				}
				if !bytes.Equal(f.Data, whole) || f.Tag != tag || f.Drop != port.DropNone || f.Offload.GSOSize != 1448 || f.Offload.CsumStart != 34 {
					t.Errorf("tag %#x: from the host %d bytes, tag %#x, %+v, %v", tag, len(f.Data), f.Tag, f.Offload, f.Drop)
				}
				break
			}
		}
	})
}
