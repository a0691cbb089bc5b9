package afpacket

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/tuntap"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/rxbuf"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// tap makes a TAP that is up and attaches to it.
func tap(t testing.TB, name string) *Port {
	t.Helper()
	if err := tuntap.Create(name, "", tuntap.Access{Owner: 0, Group: tuntap.Anyone}, false); err != nil {
		t.Fatal(err)
	}
	// What the host itself sends, and the device loses while nobody has it open, would count as lost.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	l, err := link.ByName(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.SetUp(true); err != nil {
		t.Fatal(err)
	}
	p, err := Open(Config{Ifindex: l.Index, Direct: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// A super-frame between small ones leaves through another socket and keeps its place, in a
// vector longer than one call to the kernel.
func TestSendInOrder(t *testing.T) {
	t.Parallel()
	testenv.NewNetns(t).Do(func() {
		p := tap(t, "vm0")
		g := tuntest.Boot(t, "vm0", tuntest.TSO)
		super, o := tuntest.TCP4(20000)
		var out []port.Out
		for i := range 200 {
			f := new(port.Frame)
			if i%7 == 3 {
				f.SetStripped(super, 0)
				f.Offload = o
			} else {
				f.SetStripped(tuntest.Ethernet(uint32(i), 60), 0)
			}
			out = append(out, port.Out{Frame: f})
		}
		// Until the kernel has seen the guest, a queueing discipline loses what
		// does not go past it.
		for deadline := time.Now().Add(patience); ; {
			p.queues[0].Send(out[3:4])
			if b, _, err := g.Recv(50 * time.Millisecond); err == nil && len(b) == len(super) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("no super-frame reaches the guest")
			}
		}
		for {
			if _, _, err := g.Recv(100 * time.Millisecond); err != nil {
				break
			}
		}
		p.queues[0].Send(out)
		for i := range out {
			if out[i].Drop != port.DropNone {
				t.Fatalf("frame %d: %v", i, out[i].Drop)
			}
			var got []byte
			for {
				b, _, err := g.Recv(patience)
				if err != nil {
					t.Fatalf("frame %d: %v", i, err)
				}
				if b[12] != 0x86 || b[13] != 0xdd { // the host speaks IPv6 on this TAP
					got = b
					break
				}
			}
			if !bytes.Equal(got, out[i].Frame.Data) {
				t.Fatalf("frame %d: other bytes (%d of them)", i, len(got))
			}
		}
	})
}

// One bad frame in a vector is lost by itself, with its own reason.
func TestSendGoesOn(t *testing.T) {
	t.Parallel()
	testenv.NewNetns(t).Do(func() {
		p := tap(t, "vm0")
		tuntest.Boot(t, "vm0", tuntest.TSO)
		want := []port.Drop{port.DropNone, port.DropTooBig, port.DropNone, port.DropRunt, port.DropBadOffload, port.DropNone, port.DropTooBig}
		out := make([]port.Out, len(want))
		for i := range out {
			out[i].Frame = new(port.Frame)
			out[i].Frame.SetStripped(tuntest.Ethernet(uint32(i), 60), 0)
			switch want[i] {
			case port.DropTooBig:
				out[i].Frame.Data = tuntest.Ethernet(uint32(i), 1519)
			case port.DropRunt:
				out[i].Frame.Data = out[i].Frame.Data[:13]
			case port.DropBadOffload:
				out[i].Frame.Offload = port.Offload{Flags: port.NeedsCsum, CsumStart: 60}
			}
		}
		p.queues[0].Send(out)
		for i := range out {
			if out[i].Drop != want[i] {
				t.Errorf("frame %d: %v, want %v", i, out[i].Drop, want[i])
			}
		}
	})
}

// A frame that goes uncut may be as long as the device's MTU and one tag; the kernel
// allows no second one (packet_extra_vlan_len_allowed).
func TestTooBig(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "link", "add", "a0", "type", "veth", "peer", "name", "b0")
	ns.Run("ip", "link", "set", "b0", "up")
	ns.Run("ip", "link", "set", "a0", "up")
	ns.Do(func() {
		veth, err := link.ByName("a0")
		if err != nil {
			t.Fatal(err)
		}
		onVeth, err := Open(Config{Ifindex: veth.Index})
		if err != nil {
			t.Fatal(err)
		}
		defer onVeth.Close()
		onTap := tap(t, "vm0")
		tuntest.Boot(t, "vm0", tuntest.TSO)
		inner, outer := port.MakeTag(port.TPIDCustomer, 5), port.MakeTag(port.TPIDService, 6)
		super, o := tuntest.TCP4(60000)
		for _, c := range []struct {
			name string
			wire []byte
			o    port.Offload
			want port.Drop
		}{
			{"as long as the MTU", tuntest.Ethernet(1, 1514), port.Offload{}, port.DropNone},
			{"longer", tuntest.Ethernet(1, 1515), port.Offload{}, port.DropTooBig},
			{"with a C-tag", tuntest.Tagged(tuntest.Ethernet(1, 1514), inner), port.Offload{}, port.DropNone},
			{"longer, with a C-tag", tuntest.Tagged(tuntest.Ethernet(1, 1515), inner), port.Offload{}, port.DropTooBig},
			{"with an S-tag", tuntest.Tagged(tuntest.Ethernet(1, 1514), outer), port.Offload{}, port.DropTooBig},
			{"with two tags", tuntest.Tagged(tuntest.Tagged(tuntest.Ethernet(1, 1514), inner), outer), port.Offload{}, port.DropTooBig},
			{"two tags and room for them", tuntest.Tagged(tuntest.Tagged(tuntest.Ethernet(1, 1506), inner), outer), port.Offload{}, port.DropNone},
			{"to be cut", super, o, port.DropNone},
		} {
			for name, p := range map[string]*Port{"TAP": onTap, "veth": onVeth} {
				if d := tuntest.Send(p, c.wire, c.o); d != c.want {
					t.Errorf("%s, %s: %v, want %v", name, c.name, d, c.want)
				}
			}
		}
	})
}

// However far a sender says that the headers go, the kernel is told no more than they
// can take, and no more than there is.
func TestHint(t *testing.T) {
	r := runs.Get().(*run)
	super, o := tuntest.TCP4(60000)
	for _, c := range []struct{ length, hint, want int }{
		{60000, 54, 54}, {60000, 60000, maxHint}, {60000, 0xffff, maxHint}, {100, 0xffff, 100},
	} {
		f := new(port.Frame)
		f.SetStripped(super[:c.length], 0)
		f.Offload = o
		f.Offload.HdrLen = uint16(c.hint)
		r.n = 0
		if d := r.add(&port.Out{Frame: f}); d != port.DropNone {
			t.Fatal(d)
		}
		if got := vnet.Decode(r.heads[0][:]).HdrLen; int(got) != c.want {
			t.Errorf("hdr_len %d of %d bytes is passed on as %d, want %d", c.hint, c.length, got, c.want)
		}
	}
}

// After Send the pool keeps no pointer to a frame.
func TestSendForgets(t *testing.T) {
	testenv.NewNetns(t).Do(func() {
		p := tap(t, "vm0")
		f := new(port.Frame)
		f.SetStripped(tuntest.Ethernet(1, 600), 0)
		r := runs.Get().(*run)
		if d := r.add(&port.Out{Frame: f}); d != port.DropNone {
			t.Fatal(d)
		}
		if r.vectors[0][1].Base != &f.Data[12] {
			t.Fatal("the run does not point to the frame")
		}
		p.queues[0].flush(r, p.queues[0].plain)
		if r.n != 0 || r.vectors[0][1].Base != nil || r.outs[0] != nil {
			t.Error("the run still points to the frame")
		}
	})
}

// A port that waits for frames holds no buffer.
func TestIdleHoldsNoBuffer(t *testing.T) {
	testenv.NewNetns(t).Do(func() {
		made := 0
		old := batches.New
		defer func() { batches.New = old }()
		batches.New = func() *batch { made++; return old() }
		p := tap(t, "vm0")
		g := tuntest.Boot(t, "vm0", tuntest.TSO)
		frames := make([]port.Frame, port.BatchSize)
		for i := range 10 {
			if err := g.Send(tuntest.Ethernet(uint32(i), 60), port.Offload{}); err != nil {
				t.Fatal(err)
			}
			if _, err := p.queues[0].Recv(frames); err != nil {
				t.Fatal(err)
			}
			p.queues[0].Release()
		}
		if made > 1 {
			t.Errorf("%d buffers for one port", made)
		}
		if p.queues[0].rx.batch != nil {
			t.Error("the port holds a buffer after Release")
		}
	})
}

func TestDecode(t *testing.T) {
	const valid, known = unix.TP_STATUS_VLAN_VALID, unix.TP_STATUS_VLAN_TPID_VALID
	frame := tuntest.Ethernet(1, 60)
	tcp, o := tuntest.TCP4(1000)
	bad := o
	bad.CsumStart = 999
	for _, c := range []struct {
		name   string
		wire   []byte
		o      port.Offload
		status uint32
		tci    uint16
		tpid   uint16
		flags  int
		tag    port.Tag
		drop   port.Drop
	}{
		{"no tag", frame, port.Offload{}, 0, 100, 0x8100, 0, 0, port.DropNone},
		{"C-tag", frame, port.Offload{}, valid | known, 0x2064, 0x8100, 0, 0x8100_2064, port.DropNone},
		{"S-tag", tcp, o, valid | known, 200, 0x88a8, 0, 0x88a8_00c8, port.DropNone},
		{"tag of VID 0", frame, port.Offload{}, valid | known, 0, 0x8100, 0, 0x8100_0000, port.DropNone},
		{"type unsaid", frame, port.Offload{}, valid, 100, 0x1234, 0, 0x8100_0064, port.DropNone},
		{"cut off", frame, port.Offload{}, 0, 0, 0, unix.MSG_TRUNC, 0, port.DropOversize},
		{"runt", frame[:13], port.Offload{}, 0, 0, 0, 0, 0, port.DropRunt},
		{"bad offload", tcp, bad, 0, 0, 0, 0, 0, port.DropBadOffload},
	} {
		b := batches.Rent()
		slot := b.slab[rxbuf.Stride:]
		vnet.Encode(slot, c.o)
		copy(slot[vnet.HeaderLen:], c.wire)
		b.headers[1].N = uint32(vnet.HeaderLen + len(c.wire))
		b.headers[1].Flags = int32(c.flags)
		b.headers[1].Control = (*byte)(unsafe.Pointer(&b.control[1].Cmsghdr)) // another test's batch may have marks
		b.headers[1].SetControllen(40)
		b.control[1] = control{
			Cmsghdr: unix.Cmsghdr{Level: unix.SOL_PACKET, Type: unix.PACKET_AUXDATA},
			aux:     unix.TpacketAuxdata{Status: c.status, Vlan_tci: c.tci, Vlan_tpid: c.tpid},
		}
		var f port.Frame
		b.decode(1, &f)
		if f.Drop != c.drop || f.Tag != c.tag || !bytes.Equal(f.Data, c.wire) {
			t.Errorf("%s: drop %v, tag %#x, %d bytes", c.name, f.Drop, f.Tag, len(f.Data))
		}
		if c.drop == port.DropNone && f.Offload != c.o {
			t.Errorf("%s: offload %+v", c.name, f.Offload)
		}
		// A control message that did not come says nothing.
		b.headers[1].SetControllen(0)
		if b.decode(1, &f); f.Tag != 0 {
			t.Errorf("%s: a tag %#x out of nothing", c.name, f.Tag)
		}
		batches.Return(b)
	}
}

func TestOpenFails(t *testing.T) {
	testenv.NewNetns(t).Do(func() {
		before := testenv.OpenFiles(t)
		if _, err := Open(Config{Ifindex: 9999}); !errors.Is(err, port.ErrGone) {
			t.Errorf("an interface that is not there: %v", err)
		}
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var all [2]unix.CapUserData
		if err := unix.Capget(&header, &all[0]); err != nil {
			t.Fatal(err)
		}
		less := all
		less[0].Effective &^= 1 << unix.CAP_NET_RAW
		if err := unix.Capset(&header, &less[0]); err != nil {
			t.Fatal(err)
		}
		_, err := Open(Config{Ifindex: 1})
		if e := unix.Capset(&header, &all[0]); e != nil {
			t.Fatal(e)
		}
		if err == nil || !strings.Contains(err.Error(), "CAP_NET_RAW") {
			t.Errorf("without the capability: %v", err)
		}
		if after := testenv.OpenFiles(t); after > before {
			t.Errorf("%d files open before, %d after", before, after)
		}
	})
}
