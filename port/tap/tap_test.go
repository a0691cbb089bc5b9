package tap_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
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
	"github.com/vswitch/vswitch/port/porttest"
	"github.com/vswitch/vswitch/port/tap"
)

// kind is the kind of one switch.
var kind = of("sw0")

// of returns the kind of a switch.
func of(switchName string) port.Kind { return porttest.Kind(tap.New(tap.Options{Switch: switchName})) }

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// guest ── fd end [TAP] kernel end ── port under test
func TestConformance(t *testing.T) {
	for name, offloads := range map[string]int{"offloads": tuntest.USO, "bare": tuntest.None} {
		t.Run(name, func(t *testing.T) {
			ns := testenv.NewNetns(t)
			var serial atomic.Int32
			porttest.Run(t, func(t *testing.T) (f porttest.Fixture) {
				spec := port.Spec{Name: fmt.Sprintf("vm%d", serial.Add(1)), Settings: tap.Settings{MTU: 65521}}
				ns.Do(func() {
					p := open(t, spec, new(port.Trace))
					f = porttest.Fixture{Port: p, Peer: tuntest.Boot(t, spec.Name, offloads), MaxLen: 65535, Offloads: true}
				})
				return f
			})
		})
	}
}

// open opens a port in the calling thread's namespace.
func open(t *testing.T, spec port.Spec, trace *port.Trace) *tap.Port {
	t.Helper()
	return porttest.Open[*tap.Port](t, kind, spec, trace)
}

// refused expects Open to fail with one line that contains want, and to leave nothing.
func refused(t *testing.T, spec port.Spec, want string) {
	t.Helper()
	porttest.Refused(t, kind, spec, want)
}

// passes expects frames to go through the port in both directions.
func passes(t *testing.T, p port.Port, r *tuntest.Reader, g *tuntest.Guest) {
	t.Helper()
	hears(t, r, g, 1)
	if d := tuntest.Send(p, tuntest.Ethernet(2, 60), port.Offload{}); d != port.DropNone {
		t.Fatalf("to the guest: %v", d)
	}
	for {
		b, _, err := g.Recv(patience)
		if err != nil {
			t.Fatalf("the guest waits for a frame: %v", err)
		}
		if bytes.Equal(b, tuntest.Ethernet(2, 60)) {
			return
		}
	}
}

// hears expects a frame of the guest's to come in.
func hears(t *testing.T, r *tuntest.Reader, g *tuntest.Guest, number uint32) {
	t.Helper()
	if err := g.Send(tuntest.Ethernet(number, 60), port.Offload{}); err != nil {
		t.Fatal(err)
	}
	for {
		f, err := r.Next(patience)
		if err != nil {
			t.Fatalf("from the guest: %v", err)
		}
		if bytes.Equal(f.Data, tuntest.Ethernet(number, 60)) {
			return
		}
	}
}

// The machine may come after the port, go, and come back; a second one finds the
// device busy.
func TestGuestComesAndGoes(t *testing.T) {
	t.Parallel()
	testenv.NewNetns(t).Do(func() {
		p := open(t, port.Spec{Name: "vm0"}, new(port.Trace))
		r := tuntest.Read(t, p)
		for range 3 {
			g := tuntest.Boot(t, "vm0", tuntest.TSO)
			if _, err := tuntest.TryBoot("vm0", tuntest.TSO); !errors.Is(err, unix.EBUSY) {
				t.Errorf("a second guest: %v", err)
			}
			passes(t, p, r, g)
			g.Kill()
			nobody(t, p)
		}
	})
}

// nobody expects frames to be lost for want of a guest, once the kernel has seen
// that it is gone.
func nobody(t *testing.T, p port.Port) {
	t.Helper()
	out := make([]port.Out, 3)
	for deadline := time.Now().Add(patience); ; {
		for i := range out {
			out[i] = port.Out{Frame: new(port.Frame)}
			out[i].Frame.SetStripped(tuntest.Ethernet(9, 60), 0)
		}
		p.Queues()[0].Send(out)
		if out[0].Drop == port.DropNoCarrier && out[1].Drop == port.DropNoCarrier && out[2].Drop == port.DropNoCarrier {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("to nobody: %v, %v, %v", out[0].Drop, out[1].Drop, out[2].Drop)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A device that is there, with its guest, is used and left as it was.
func TestAdopt(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	for _, up := range []bool{false, true} {
		name := fmt.Sprintf("vm%t", up)
		ns.Run("ip", "tuntap", "add", "dev", name, "mode", "tap", "user", "1234")
		if up {
			ns.Run("ip", "link", "set", name, "up")
		}
		ns.Run("sysctl", "-w", "net.ipv4.conf."+name+".arp_ignore=2")
		ns.Run("ip", "addr", "add", "2001:db8::1/64", "dev", name)
		ns.Do(func() {
			g := tuntest.Boot(t, name, tuntest.TSO)
			spec, trace := port.Spec{Name: name, Settings: tap.Settings{MTU: 9000}}, port.Trace{}
			p := open(t, spec, &trace)
			if trace.Created || trace.Before == nil || trace.Before.Up != up || trace.Before.MTU != 1500 ||
				trace.Before.ARPIgnore != "2" || trace.Before.DisableIPv6 != "0" || trace.Ifname != name {
				t.Errorf("trace %+v, before %+v", trace, trace.Before)
			}
			passes(t, p, tuntest.Read(t, p), g)
			expect(t, name, func(l link.Link) bool { return l.Up && l.MTU == 9000 })
			p.Close()

			// Another process opens it again: what was before is not what is now.
			was := *trace.Before
			p = open(t, spec, &trace)
			if *trace.Before != was {
				t.Errorf("opened again, before is %+v", trace.Before)
			}
			p.Close()
			if err := kind.Delete(spec, trace); err != nil {
				t.Fatal(err)
			}
			expect(t, name, func(l link.Link) bool { return l.Up == up && l.MTU == 1500 && l.Owner == 1234 })
		})
		if got := ns.Run("sysctl", "-n", "net.ipv4.conf."+name+".arp_ignore", "net.ipv6.conf."+name+".disable_ipv6"); got != "2\n0" {
			t.Errorf("sysctls are left as %q", got)
		}
		if got := ns.Run("ip", "-6", "addr", "show", "dev", name); !strings.Contains(got, "2001:db8::1/64") {
			t.Errorf("addresses are left as %q", got)
		}
	}
}

func expect(t *testing.T, name string, ok func(link.Link) bool) {
	t.Helper()
	if l, err := link.ByName(name); err != nil || !ok(l) {
		t.Errorf("%s: %+v, %v", name, l, err)
	}
}

// What the switch made it removes, also under a running guest; and it stays when
// the switch only stops.
func TestMakeAndDelete(t *testing.T) {
	t.Parallel()
	testenv.NewNetns(t).Do(func() {
		spec, trace := port.Spec{Name: "vm0", Settings: tap.Settings{Owner: "1234"}}, port.Trace{}
		p := open(t, spec, &trace)
		if !trace.Created || trace.Before != nil || trace.Ifname != "vm0" {
			t.Errorf("trace %+v", trace)
		}
		g := tuntest.Boot(t, "vm0", tuntest.TSO)
		p.Close()
		expect(t, "vm0", func(l link.Link) bool { return l.Up })
		p = open(t, spec, &trace)
		passes(t, p, tuntest.Read(t, p), g)
		p.Close()
		for range 2 { // what is gone is no error
			if err := kind.Delete(spec, trace); err != nil {
				t.Fatal(err)
			}
			if _, err := link.ByName("vm0"); !errors.Is(err, link.ErrNotFound) {
				t.Fatalf("vm0 after Delete: %v", err)
			}
		}
		// One that was deleted by others is made again, one that others made waits.
		p = open(t, spec, &trace)
		p.Close()
		if !trace.Created {
			t.Errorf("made again: %+v", trace)
		}
		adopted := port.Trace{Ifname: "vm1"}
		if _, err := kind.Open(port.Spec{Name: "vm1"}, &adopted); !errors.Is(err, port.ErrGone) {
			t.Errorf("an adopted device that is gone: %v", err)
		}
	})
}

func TestMadeBefore(t *testing.T) {
	t.Parallel()
	testenv.NewNetns(t).Do(func() {
		porttest.MadeBefore(t, of, port.Spec{Name: "vm0"})
	})
}

// A device that the switch makes has no queue before its ring, until somebody gives it
// one; one that is there keeps what it has.
func TestQueueingDiscipline(t *testing.T) {
	t.Parallel()
	testenv.Tool(t, "tc")
	ns := testenv.NewNetns(t)
	ns.Run("ip", "tuntap", "add", "dev", "theirs", "mode", "tap")
	for _, spec := range []port.Spec{{Name: "ours"}, {Name: "several", Settings: tap.Settings{Queues: 4}}, {Name: "theirs"}} {
		ns.Do(func() {
			trace := port.Trace{}
			open(t, spec, &trace).Close()
			has := func(want bool) {
				t.Helper()
				if list := ns.Run("tc", "qdisc", "show", "dev", spec.Name, "root"); strings.Contains(list, "noqueue") != want {
					t.Errorf("%s has %q", spec.Name, list)
				}
			}
			has(spec.Name != "theirs")
			ns.Run("tc", "qdisc", "replace", "dev", spec.Name, "root", "pfifo")
			open(t, spec, &trace)
			has(false)
		})
	}
}

func TestOwner(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	for i, c := range []struct {
		spec         port.Spec
		owner, group string // as sysfs shows them; -1 is nobody in particular
	}{
		{port.Spec{}, "0", "-1"},
		{port.Spec{Settings: tap.Settings{Owner: "1234"}}, "1234", "-1"},
		{port.Spec{Settings: tap.Settings{Owner: "nobody"}}, "65534", "-1"},
		{port.Spec{Settings: tap.Settings{Group: "1235"}}, "-1", "1235"},
		{port.Spec{Settings: tap.Settings{Owner: "root", Group: "tty"}}, "0", "5"},
	} {
		c.spec.Name = fmt.Sprintf("vm%d", i)
		ns.Do(func() { open(t, c.spec, new(port.Trace)) })
		dir := "/sys/class/net/" + c.spec.Name
		if got := ns.Run("cat", dir+"/owner", dir+"/group"); got != c.owner+"\n"+c.group {
			t.Errorf("%+v: owner and group are %q", c.spec, got)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "tuntap", "add", "dev", "tun0", "mode", "tun")
	ns.Run("ip", "link", "add", "br0", "type", "bridge")
	ns.Run("ip", "tuntap", "add", "dev", "member", "mode", "tap")
	ns.Run("ip", "link", "set", "member", "master", "br0")
	ns.Run("ip", "tuntap", "add", "dev", "owned", "mode", "tap", "user", "1234")
	ns.Run("ip", "tuntap", "add", "dev", "mq0", "mode", "tap", "multi_queue")
	ns.Do(func() {
		refused(t, port.Spec{Name: "mq0"}, "give --queues N")
		refused(t, port.Spec{Name: "mq0", Settings: tap.Settings{Queues: 1}}, "give --queues N, two or more")
		refused(t, port.Spec{Name: "tun0"}, "tun0 is a tun, whose frames have no Ethernet header")
		refused(t, port.Spec{Name: "br0"}, "br0 is a bridge, not a TAP")
		refused(t, port.Spec{Name: "member"}, "belongs to a bridge")
		refused(t, port.Spec{Name: "owned", Settings: tap.Settings{Owner: "1235"}}, "another owner")
		refused(t, port.Spec{Name: "vm0", Settings: tap.Settings{Owner: "no-such-user"}}, `there is no user "no-such-user"`)
		expect(t, "owned", func(l link.Link) bool { return !l.Up })
	})
}

func TestCheck(t *testing.T) {
	porttest.Check(t, kind, []port.Spec{
		{Name: "vm0"}, {Name: "vm0", Settings: tap.Settings{MTU: 68, Owner: "root", Group: "0"}}, {Name: "vm0", Settings: tap.Settings{MTU: 65521}},
	}, []port.Spec{
		{Name: "sixteen-bytes-xx"}, {Name: "a/b"}, {},
		{Name: "vm0", Settings: tap.Settings{MTU: 67}}, {Name: "vm0", Settings: tap.Settings{MTU: 65522}}, {Name: "vm0", Settings: tap.Settings{MTU: -1}},
		{Name: "vm0", Settings: tap.Settings{Owner: "no-such-user"}}, {Name: "vm0", Settings: tap.Settings{Group: "no-such-group"}}, {Name: "vm0", Settings: tap.Settings{Owner: "4294967295"}},
		{Name: "vm0", Settings: tap.Settings{Queues: 257}}, {Name: "vm0", Settings: tap.Settings{Queues: -1}},
	})
}

// Without a right, the message names it and nothing is left.
func TestMissingRights(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	for _, c := range []struct {
		name       string
		capability int
	}{{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN}, {"CAP_NET_RAW", unix.CAP_NET_RAW}} {
		ns.Do(func() {
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var all [2]unix.CapUserData
			if err := unix.Capget(&header, &all[0]); err != nil {
				t.Fatal(err)
			}
			less := all
			less[0].Effective &^= 1 << c.capability
			if err := unix.Capset(&header, &less[0]); err != nil {
				t.Fatal(err)
			}
			defer unix.Capset(&header, &all[0])
			refused(t, port.Spec{Name: "vm0"}, c.name)
		})
	}
}

func TestNoTunDevice(t *testing.T) {
	testenv.Root(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // for good: the thread ends with its namespaces
		for _, do := range []func() error{
			func() error { return unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET) },
			func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
			func() error { return unix.Mount("none", "/dev/net", "tmpfs", 0, "") },
		} {
			if err := do(); err != nil {
				t.Error(err)
				return
			}
		}
		refused(t, port.Spec{Name: "vm0"}, "/dev/net/tun is missing; load the driver with `modprobe tun`")
	}()
	<-ended
}

// The host's own stack says nothing on a new TAP and answers nothing, though it has
// IPv6 on and an address that is asked for.
func TestHostIsSilent(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
	who := netip.MustParseAddr("192.0.2.1")

	// ask asks for the address again and again, for until the kernel has seen a
	// carrier it loses what the host says, and returns what the guest hears.
	ask := func(g *tuntest.Guest, wait time.Duration, heard func(b []byte) (enough bool)) {
		t.Helper()
		for deadline := time.Now().Add(wait); time.Now().Before(deadline); {
			if err := g.Send(tuntest.ARPRequest(who), port.Offload{}); err != nil {
				t.Fatal(err)
			}
			for {
				b, _, err := g.Recv(100 * time.Millisecond)
				if errors.Is(err, os.ErrDeadlineExceeded) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if heard(b) {
					return
				}
			}
		}
	}

	// The same TAP without the switch answers and speaks: the test can fail.
	ns.Run("ip", "tuntap", "add", "dev", "plain", "mode", "tap")
	ns.Run("ip", "link", "set", "plain", "up")
	ns.Do(func() {
		answered, spoke := false, false
		ask(tuntest.Boot(t, "plain", tuntest.TSO), patience, func(b []byte) bool {
			answered = answered || tuntest.IsARPReply(b, who)
			spoke = spoke || b[12] == 0x86 && b[13] == 0xdd
			return answered && spoke
		})
		if !answered || !spoke {
			t.Fatalf("a plain TAP: answered %t, spoke %t", answered, spoke)
		}
	})

	ns.Do(func() {
		p := open(t, port.Spec{Name: "vm0"}, new(port.Trace))
		ask(tuntest.Boot(t, "vm0", tuntest.TSO), 4*time.Second, func(b []byte) bool {
			t.Errorf("the host said % x", b)
			return false
		})
		// The switch has heard the guest all the same.
		f, err := tuntest.Read(t, p).Next(patience)
		if err != nil || !bytes.Equal(f.Data, tuntest.ARPRequest(who)) {
			t.Errorf("from the guest: % x, %v", f.Data, err)
		}
	})
}

func TestLinkEvents(t *testing.T) {
	t.Parallel()
	ns, elsewhere := testenv.NewNetns(t), testenv.NewNetns(t)
	start := func(name string) (p *tap.Port, r *tuntest.Reader, g *tuntest.Guest) {
		ns.Do(func() {
			p = open(t, port.Spec{Name: name}, new(port.Trace))
			r, g = tuntest.Read(t, p), tuntest.Boot(t, name, tuntest.TSO)
		})
		return p, r, g
	}
	gone := func(p *tap.Port, r *tuntest.Reader) {
		t.Helper()
		if err := r.End(t, patience); !errors.Is(err, port.ErrGone) {
			t.Errorf("Recv ended with %v", err)
		}
		if d := tuntest.Send(p, tuntest.Ethernet(9, 60), port.Offload{}); d != port.DropPortClosed {
			t.Errorf("Send: %v", d)
		}
	}

	p, r, g := start("vm0")
	passes(t, p, r, g)
	ns.Run("ip", "link", "set", "vm0", "down")
	if d := tuntest.Send(p, tuntest.Ethernet(3, 60), port.Offload{}); d != port.DropNoCarrier {
		t.Errorf("to a link that is down: %v", d)
	}
	ns.Run("ip", "link", "set", "vm0", "up")
	passes(t, p, r, g)
	ns.Run("ip", "link", "set", "vm0", "down")
	ns.Run("ip", "link", "set", "vm0", "name", "renamed")
	ns.Run("ip", "link", "set", "renamed", "up")
	passes(t, p, r, g)
	ns.Run("ip", "link", "del", "renamed")
	gone(p, r)

	// A link that is down when it is deleted tells its sockets nothing.
	p, r, g = start("vm1")
	passes(t, p, r, g)
	ns.Run("ip", "link", "set", "vm1", "down")
	if _, err := r.Next(time.Second / 2); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a link that is down: %v", err)
	}
	ns.Run("ip", "link", "del", "vm1")
	gone(p, r)

	p, r, g = start("vm2")
	passes(t, p, r, g)
	ns.Run("ip", "link", "set", "vm2", "netns", elsewhere.Path())
	gone(p, r)
}

// After a rename and a new start the port is found by its last name.
func TestRenamedWhileClosed(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Do(func() {
		spec, trace := port.Spec{Name: "vm0"}, port.Trace{}
		open(t, spec, &trace).Close()
		ns.Run("ip", "link", "set", "vm0", "down")
		ns.Run("ip", "link", "set", "vm0", "name", "renamed")
		trace.Ifname = "renamed"
		open(t, spec, &trace).Close()
		expect(t, "renamed", func(l link.Link) bool { return l.Up })
		if err := kind.Delete(spec, trace); err != nil {
			t.Fatal(err)
		}
		if got := porttest.Devices(t); got != "lo" {
			t.Errorf("left: %s", got)
		}
	})
}

func TestSet(t *testing.T) {
	t.Parallel()
	testenv.NewNetns(t).Do(func() {
		spec, trace := port.Spec{Name: "vm0"}, port.Trace{}
		p := open(t, spec, &trace)
		g := tuntest.Boot(t, "vm0", tuntest.TSO)
		if d := tuntest.Send(p, tuntest.Ethernet(1, 1515), port.Offload{}); d != port.DropTooBig {
			t.Errorf("1515 bytes at MTU 1500: %v", d)
		}
		jumbo := port.Spec{Name: "vm0", Settings: tap.Settings{MTU: 9000}}
		if err := kind.Set(p, spec, jumbo); err != nil {
			t.Fatal(err)
		}
		if d := tuntest.Send(p, tuntest.Ethernet(2, 9014), port.Offload{}); d != port.DropNone {
			t.Errorf("9014 bytes at MTU 9000: %v", d)
		}
		if b, _, err := g.Recv(patience); err != nil || !bytes.Equal(b, tuntest.Ethernet(2, 9014)) {
			t.Errorf("%d bytes arrived, %v", len(b), err)
		}
		if err := kind.Set(p, jumbo, spec); err != nil {
			t.Fatal(err)
		}
		expect(t, "vm0", func(l link.Link) bool { return l.MTU == 1500 })
		owned := port.Spec{Name: "vm0", Settings: tap.Settings{Owner: "1234"}}
		if err := kind.Set(p, spec, owned); err == nil {
			t.Error("another owner is taken while the port is open")
		}
	})
}

// Super-frames of 60,000 bytes pass whole to a guest that takes them and cut to one
// that does not, with and without a tag.
func TestSegmentation(t *testing.T) {
	t.Parallel()
	tag := port.MakeTag(port.TPIDCustomer, 100)
	testenv.NewNetns(t).Do(func() {
		whole, offload := tuntest.TCP4(60000)
		for i, c := range []struct {
			name     string
			offloads int
			tag      port.Tag
			pieces   int
		}{
			{"whole", tuntest.TSO, 0, 1}, {"whole, tagged", tuntest.TSO, tag, 1},
			{"cut", tuntest.None, 0, 42}, {"cut, tagged", tuntest.None, tag, 42},
			{"cut, checksum partial", tuntest.Csum, 0, 42},
		} {
			name := fmt.Sprintf("vm%d", i)
			p := open(t, port.Spec{Name: name}, new(port.Trace))
			g := tuntest.Boot(t, name, c.offloads)
			settle(t, p, g)
			wire, o := whole, offload
			if c.tag.Present() {
				wire = tuntest.Tagged(whole, c.tag)
			}
			// Offload speaks of the frame without the tag. Small frames before and
			// after it keep their places.
			small := tuntest.Ethernet(7, 60)
			for _, s := range []struct {
				wire []byte
				o    port.Offload
			}{{small, port.Offload{}}, {wire, o}, {small, port.Offload{}}} {
				if d := tuntest.Send(p, s.wire, s.o); d != port.DropNone {
					t.Fatalf("%s: %v", c.name, d)
				}
			}
			var got [][]byte
			var join tuntest.Joiner
			for range c.pieces + 2 {
				b, o, err := g.Recv(patience)
				if err != nil {
					t.Fatalf("%s: after %d frames: %v", c.name, len(got), err)
				}
				got = append(got, b)
				var f port.Frame
				f.SetWire(bytes.Clone(b))
				if tuntest.IsEthernet(f.Data) {
					continue
				}
				if f.Tag != c.tag {
					t.Fatalf("%s: a piece with tag %#x", c.name, f.Tag)
				}
				if c.pieces == 1 && (o.GSOType != port.GSOTCPv4 || o.GSOSize != 1448 || int(o.CsumStart) != 34+c.tag.Len()) {
					t.Errorf("%s: offload %+v", c.name, o)
				}
				if err := join.Add(f.Data, o); err != nil {
					t.Fatalf("%s: %v", c.name, err)
				}
			}
			if !bytes.Equal(got[0], small) || !bytes.Equal(got[len(got)-1], small) {
				t.Errorf("%s: the frames lost their order", c.name)
			}
			if join.Pieces != c.pieces || !bytes.Equal(join.Data(), tuntest.TCPData(whole)) {
				t.Errorf("%s: %d pieces with %d bytes", c.name, join.Pieces, len(join.Data()))
			}

			// And the other way, where they always come whole.
			o = offload
			if c.tag.Present() {
				o.CsumStart, o.HdrLen = o.CsumStart+4, o.HdrLen+4
			}
			if err := g.Send(wire, o); err != nil {
				t.Fatal(err)
			}
			f, err := tuntest.Read(t, p).Next(patience)
			if err != nil || !bytes.Equal(f.Data, whole) || f.Tag != c.tag || f.Drop != port.DropNone {
				t.Fatalf("%s, from the guest: %d bytes, tag %#x, drop %v, %v", c.name, len(f.Data), f.Tag, f.Drop, err)
			}
			if f.Offload.GSOType != port.GSOTCPv4 || f.Offload.GSOSize != 1448 || f.Offload.CsumStart != 34 || f.Offload.CsumOffset != 16 {
				t.Errorf("%s, from the guest: offload %+v", c.name, f.Offload)
			}
		}
	})
}

// settle waits until super-frames reach a guest that has just booted: until the
// kernel has seen the carrier, a device's queueing discipline loses them.
func settle(t *testing.T, p port.Port, g *tuntest.Guest) {
	t.Helper()
	wire, o := tuntest.TCP4(3000)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		tuntest.Send(p, wire, o)
		for got := false; ; got = true {
			if _, _, err := g.Recv(50 * time.Millisecond); err == nil {
				continue
			}
			if got {
				return
			}
			break
		}
	}
	t.Fatal("no super-frame reaches the guest")
}

// Frames that the port cannot read in time are counted, each once.
func TestOverrun(t *testing.T) {
	t.Parallel()
	testenv.NewNetns(t).Do(func() {
		p := open(t, port.Spec{Name: "vm0"}, new(port.Trace))
		g := tuntest.Boot(t, "vm0", tuntest.TSO)
		wire, o := tuntest.TCP4(60000)
		const sent = 400
		for range sent {
			if err := g.Send(wire, o); err != nil {
				t.Fatal(err)
			}
		}
		r := tuntest.Read(t, p)
		got := 0
		for {
			if _, err := r.Next(200 * time.Millisecond); err != nil {
				break
			}
			got++
		}
		lost := p.Overruns()
		if got == 0 || lost == 0 || uint64(got)+lost != sent {
			t.Errorf("%d frames came, %d were lost, of %d", got, lost, sent)
		}
		p.Close()
		if again := p.Overruns(); again != lost {
			t.Errorf("%d lost, %d after Close", lost, again)
		}
	})
}

// Whatever a guest that does not read has no room for is lost, and counted: by Send
// where the kernel tells it, else, for super-frames behind a queue, by Lost.
func TestLost(t *testing.T) {
	t.Parallel()
	for _, queue := range []bool{false, true} {
		t.Run(fmt.Sprintf("queue=%t", queue), func(t *testing.T) { testLost(t, queue) })
	}
}

func testLost(t *testing.T, queue bool) {
	ns := testenv.NewNetns(t)
	if queue {
		ns.Run("ip", "tuntap", "add", "dev", "vm0", "mode", "tap")
	}
	ns.Do(func() {
		p := open(t, port.Spec{Name: "vm0"}, new(port.Trace))
		g := tuntest.Boot(t, "vm0", tuntest.TSO)
		settle(t, p, g)
		if lost := p.Lost(0); lost != 0 {
			t.Fatalf("%d frames lost before any was", lost)
		}
		const room, sent = 100, 500
		ns.Run("ip", "link", "set", "vm0", "txqueuelen", strconv.Itoa(room))
		super, o := tuntest.TCP4(3000)
		out := make([]port.Out, sent)
		for i := range out {
			f := new(port.Frame)
			if i%3 == 0 {
				f.SetWire(super)
				f.Offload = o
			} else {
				f.SetWire(tuntest.Ethernet(uint32(i), 60))
			}
			out[i].Frame = f
		}
		p.Queues()[0].Send(out)
		told := 0
		for i := range out {
			switch out[i].Drop {
			case port.DropNone:
			case port.DropQueueFull:
				told++
			default:
				t.Fatalf("frame %d: %v", i, out[i].Drop)
			}
		}
		lost := int(p.Lost(0))
		got := 0
		for {
			if _, _, err := g.Recv(100 * time.Millisecond); err != nil {
				break
			}
			got++
		}
		if got != room || told == 0 || lost > 0 != queue || got+told+lost != sent {
			t.Errorf("of %d frames %d came, %d were refused, %d lost", sent, got, told, lost)
		}
		// What was lost stays lost, and is all that was.
		p.Queues()[0].Send(out[:3])
		p.Close()
		if again := p.Lost(0); int(again) != lost {
			t.Errorf("%d lost, later %d", lost, again)
		}
	})
}

func TestBadOffload(t *testing.T) {
	t.Parallel()
	testenv.NewNetns(t).Do(func() {
		p := open(t, port.Spec{Name: "vm0"}, new(port.Trace))
		tuntest.Boot(t, "vm0", tuntest.TSO)
		frame, good := tuntest.TCP4(1000)
		for name, change := range map[string]func(o *port.Offload){
			"checksum past the end":   func(o *port.Offload) { o.CsumStart = 999 },
			"unknown segmentation":    func(o *port.Offload) { o.GSOType = 9 },
			"segments of no size":     func(o *port.Offload) { o.GSOSize = 0 },
			"IPv6 said, IPv4 carried": func(o *port.Offload) { o.GSOType = port.GSOTCPv6 },
		} {
			o := good
			change(&o)
			if d := tuntest.Send(p, frame, o); d != port.DropBadOffload {
				t.Errorf("%s: %v", name, d)
			}
		}
		// A hint is not held against the frame.
		o := good
		o.HdrLen = 65535
		if d := tuntest.Send(p, frame, o); d != port.DropNone {
			t.Errorf("a hint past the end: %v", d)
		}
	})
}
