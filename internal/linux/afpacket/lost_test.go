package afpacket

import (
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// small returns frames of which each needs a place of a ring.
func small(n int, flags port.OutFlags) []port.Out {
	out := make([]port.Out, n)
	for i := range out {
		f := new(port.Frame)
		f.SetStripped(tuntest.Ethernet(uint32(i), 60), 0)
		out[i] = port.Out{Frame: f, Flags: flags}
	}
	return out
}

// dropped counts the frames that were dropped, and expects one reason.
func dropped(t *testing.T, out []port.Out, why port.Drop) (n int) {
	t.Helper()
	for i := range out {
		switch out[i].Drop {
		case port.DropNone:
		case why:
			n++
		default:
			t.Fatalf("frame %d: %v, want %v", i, out[i].Drop, why)
		}
	}
	return n
}

// reach sends super-frames until the guest has one, takes all, and returns how many it sent: until the
// kernel has seen the guest, a queueing discipline loses them.
func reach(t *testing.T, p *Port, g *tuntest.Guest) (sent int) {
	t.Helper()
	wire, o := tuntest.TCP4(3000)
	testenv.Eventually(t, "super-frames reach the guest", func() bool {
		sent++
		tuntest.Send(p, wire, o)
		_, _, err := g.Recv(50 * time.Millisecond)
		return err == nil
	})
	drain(g)
	return sent
}

// drain takes what waits for the guest, and returns how much that is.
func drain(g *tuntest.Guest) (n int) {
	for {
		if _, _, err := g.Recv(100 * time.Millisecond); err != nil {
			return n
		}
		n++
	}
}

// pass sends n super-frames and waits until the guest has them: any of them could have been lost in silence.
func pass(t *testing.T, p *Port, g *tuntest.Guest, n int) {
	t.Helper()
	wire, o := tuntest.TCP4(3000)
	for range n {
		if d := tuntest.Send(p, wire, o); d != port.DropNone {
			t.Fatal(d)
		}
		if _, _, err := g.Recv(patience); err != nil {
			t.Fatal(err)
		}
	}
}

// A frame that a full ring refuses is told to its sender, and no frame that is lost in silence, though
// the device counts both alike, and one that is tried again twice.
func TestRefusedIsNotLost(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Do(func() {
		p := tap(t, "vm0")
		g := tuntest.Boot(t, "vm0", tuntest.TSO)
		reach(t, p, g)
		ns.Run("ip", "link", "set", "vm0", "txqueuelen", "100")
		before := p.Lost(0)
		pass(t, p, g, 20)
		out := small(300, 0)
		p.queues[0].Send(out)
		refused := dropped(t, out, port.DropQueueFull)
		if lost, got := p.Lost(0)-before, drain(g); refused < 200 || got+refused != len(out) || lost != 0 {
			t.Errorf("of %d frames %d came to a ring of 100, %d were refused, %d are said to be lost in silence", len(out), got, refused, lost)
		}
	})
}

// queuedTap makes a TAP with the kernel's own queueing discipline, behind which super-frames are lost in
// silence.
func queuedTap(t *testing.T, ns *testenv.Netns, name string) *Port {
	t.Helper()
	ns.Run("ip", "tuntap", "add", "dev", name, "mode", "tap")
	ns.Run("sysctl", "-qw", "net.ipv6.conf."+name+".disable_ipv6=1")
	ns.Run("ip", "link", "set", name, "up")
	l, err := link.ByName(name)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Open(Config{Ifindex: l.Index, Direct: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// Each frame comes, or is refused, or is lost in silence.
func TestLostBesideRefused(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Do(func() {
		p := queuedTap(t, ns, "vm0")
		g := tuntest.Boot(t, "vm0", tuntest.TSO)
		reach(t, p, g)
		ns.Run("ip", "link", "set", "vm0", "txqueuelen", "100")
		before := p.Lost(0)
		wire, o := tuntest.TCP4(3000)
		out := small(300, 0)
		for i := 200; i < len(out); i += 3 { // the ring is full within a call to the kernel
			out[i].Frame.SetStripped(wire, 0)
			out[i].Frame.Offload = o
		}
		p.queues[0].Send(out)
		refused := dropped(t, out, port.DropQueueFull)
		if lost, got := int(p.Lost(0)-before), drain(g); refused == 0 || lost == 0 || got+refused+lost != len(out) {
			t.Errorf("of %d frames %d came, %d were refused, %d are said to be lost in silence", len(out), got, refused, lost)
		}
	})
}

// A super-frame that the kernel cuts for the guest is one frame, however many of its segments are lost.
func TestLostOnce(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Do(func() {
		p := queuedTap(t, ns, "vm0")
		g := tuntest.Boot(t, "vm0", 0)
		ns.Run("ip", "link", "set", "vm0", "txqueuelen", "100")
		sent := reach(t, p, g)
		before := p.Lost(0)
		p.queues[0].Send(small(200, 0))
		wire, o := tuntest.TCP4(60_000)
		if d := tuntest.Send(p, wire, o); d != port.DropNone {
			t.Fatal(d)
		}
		if lost := p.Lost(0) - before; lost == 0 || lost > uint64(sent+1) {
			t.Errorf("%d frames are said to be lost of one, and of %d before", lost, sent)
		}
	})
}

// What the switch itself sends goes past the queue of a rate: the ring refuses it, not that queue.
func TestControlRefusedByTheRing(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Do(func() {
		p := tap(t, "vm0")
		g := tuntest.Boot(t, "vm0", tuntest.TSO)
		ns.Run("ip", "link", "set", "vm0", "txqueuelen", "100")
		if _, err := p.Shape(10_000_000_000); err != nil {
			t.Fatal(err)
		}
		reach(t, p, g)
		before := p.Lost(0)
		out := small(200, 0)
		p.queues[0].Send(out)
		if n := dropped(t, out, port.DropShaped); n != 0 {
			t.Fatalf("the queue of the rate refuses %d of 200 frames", n)
		}
		testenv.Eventually(t, "the ring is full and has lost frames", func() bool { return p.Lost(0)-before >= 100 })
		own := small(50, port.Control)
		p.queues[0].Send(own)
		if n := dropped(t, own, port.DropQueueFull); n != len(own) {
			t.Errorf("a full ring refuses %d of %d frames of the switch", n, len(own))
		}
		lost, got := int(p.Lost(0)-before), drain(g)
		if lost+got != len(out) {
			t.Errorf("of %d frames %d came, %d are said to be lost in silence", len(out), got, lost)
		}
		if n := p.Shaped(); n != 0 {
			t.Errorf("%d frames are said to be lost in the queue of the rate", n)
		}
	})
}
