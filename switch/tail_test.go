package vswitch_test

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"

	vswitch "github.com/vswitch/vswitch/switch"

	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
)

// lender is a memory port that lends the tail of each super-frame, and takes such.
type lender struct {
	*memory.Port
	tails  [port.BatchSize]tail
	copied func() // called after each copy of a tail
	gone   bool   // no tail can be copied
	took   int    // frames that Send was given a tail of
}

func (l *lender) Caps() port.Caps      { return l.Port.Caps() | port.CapTail }
func (l *lender) Queues() []port.Queue { return []port.Queue{lenderQueue{l.Port.Queues()[0], l}} }

type lenderQueue struct {
	port.Queue
	l *lender
}

func (q lenderQueue) Recv(frames []port.Frame) (int, error) {
	n, err := q.Queue.Recv(frames)
	for i := range frames[:n] {
		if f := &frames[i]; f.Offload.IsGSO() && len(f.Data) > port.MinHead {
			q.l.tails[i] = tail{q.l, f.Data[port.MinHead:]}
			f.Data, f.Tail = f.Data[:port.MinHead:port.MinHead], &q.l.tails[i]
		}
	}
	return n, err
}

func (q lenderQueue) Send(out []port.Out) {
	for i := range out {
		if out[i].Frame.Tail == nil || q.l.take(&out[i]) {
			q.Queue.Send(out[i : i+1])
		}
	}
}

// take makes the frame whole.
func (l *lender) take(o *port.Out) bool {
	l.took++
	f, whole := *o.Frame, make([]byte, o.Frame.DataLen())
	if !f.CopyTo(whole, new([1][]byte)) {
		o.Drop = port.DropMemoryGone
		return false
	}
	f.Data, f.Tail = whole, nil
	o.Frame = &f
	return true
}

type tail struct {
	l    *lender
	rest []byte
}

func (t *tail) Len() int { return len(t.rest) }

func (t *tail) CopyTo(dst [][]byte) bool {
	if t.l.gone {
		return false
	}
	rest := t.rest
	for _, d := range dst {
		rest = rest[copy(d, rest):]
	}
	if t.l.copied != nil {
		t.l.copied()
	}
	return true
}

// tailRig has two lenders, then ports of the given caps. Few slots are soon warm.
func tailRig(t *testing.T, others ...port.Caps) (*rig, [2]*lender) {
	t.Helper()
	r := newRig(t, vswitch.Config{}, 0, memory.Options{})
	t.Cleanup(func() { r.Close() })
	var lenders [2]*lender
	attach := func(dev port.Port, line *memory.Port) {
		p, err := r.AddPort(fmt.Sprint("p", len(r.ports)))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Attach(dev); err != nil {
			t.Fatal(err)
		}
		p.SetForwarding(true)
		r.ports, r.lines = append(r.ports, p), append(r.lines, line)
	}
	for i := range lenders {
		lenders[i] = &lender{Port: memory.New(memory.Options{Depth: 16})}
		attach(lenders[i], lenders[i].Port)
	}
	for _, caps := range others {
		line := memory.New(memory.Options{Depth: 16, Caps: &caps})
		attach(line, line)
	}
	return r, lenders
}

// wantData expects the data of a super-frame at a line, in so many frames.
func wantData(t *testing.T, r *rig, line int, super []byte, frames int) {
	t.Helper()
	var joined tuntest.Joiner
	n := 0
	r.lines[line].Drain(0, 100, func(p memory.Packet) {
		n++
		if err := joined.Add(p.Wire, p.Offload); err != nil {
			t.Errorf("line %d: %v", line, err)
		}
	})
	if n != frames || frames > 0 && !bytes.Equal(joined.Data(), tuntest.TCPData(super)) {
		t.Errorf("line %d got %d frames with %d bytes of data, want %d", line, n, len(joined.Data()), frames)
	}
}

// wantBalance expects that every frame and copy is accounted for.
func wantBalance(t *testing.T, r *rig) {
	t.Helper()
	in, out := r.Injected(), uint64(0)
	for _, p := range r.ports {
		st := p.Stats()
		in += st.RX.Frames + st.RX.Copies
		out += st.TX.Frames + st.RX.Drops() + st.TX.Drops()
	}
	if in != out {
		t.Errorf("%d in, %d out", in, out)
	}
}

// TestTail: a super-frame whose payload its sender still has goes to a port that takes
// such as it is, and in one piece of the switch's own memory to the others.
func TestTail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, lenders := tailRig(t, port.CapsAll, port.CapsNone)
		super, o := tuntest.TCP4(20_000)
		segments := (20_000 - 54 + int(o.GSOSize) - 1) / int(o.GSOSize)
		put := func() {
			r.lines[0].Put(0, memory.Packet{Wire: super, Offload: o})
			synctest.Wait()
		}
		// Flooded: all are sent the one copy that those need who cannot.
		put()
		wantData(t, r, 1, super, 1)
		wantData(t, r, 2, super, 1)
		wantData(t, r, 3, super, segments)
		if lenders[1].took != 0 {
			t.Error("the switch has a copy and does not use it")
		}
		if st := r.ports[0].Stats(); st.RX.Bytes != 20_000 {
			t.Errorf("%d bytes came in", st.RX.Bytes)
		}
		// To the one station.
		r.pass(1, frame(tuntest.MACA, tuntest.MACB, 0, 60))
		put()
		wantData(t, r, 1, super, 1)
		if st := r.ports[1].Stats(); lenders[1].took != 1 || st.TX.Bytes != 2*20_000 {
			t.Errorf("%d tails, %d bytes went out", lenders[1].took, st.TX.Bytes)
		}
		// A port that must keep frames has them whole.
		r.configure(t, 1, vswitch.PortConfig{Shape: port.Rate{Bits: true, PerSecond: 1_000_000_000}})
		put()
		wantData(t, r, 1, super, 1)
		r.configure(t, 1, vswitch.PortConfig{})

		// What a mirror shows is what arrives, even if the sender changes it.
		changed := bytes.Clone(super)
		lenders[0].copied = func() {
			for i := range lenders[0].tails {
				clear(lenders[0].tails[i].rest)
			}
		}
		for _, m := range []vswitch.Mirror{{In: true}, {Out: true}, {In: true, SnapLen: 100}, {In: true, SnapLen: 1000}} {
			m.Name, m.To, m.Ports = "m", "p2", []string{"p0"}
			if m.Out {
				m.Ports = []string{"p1"}
			}
			if err := r.SetMirrors([]vswitch.Mirror{m}); err != nil {
				t.Fatal(err)
			}
			put()
			wantData(t, r, 1, changed, 1)
			if got := r.taken(2); len(got) != 1 || !bytes.HasPrefix(super, got[0]) || m.SnapLen != 0 && len(got[0]) != m.SnapLen {
				t.Errorf("mirror %+v: the copy is another", m)
			}
		}
		if err := r.SetMirrors(nil); err != nil {
			t.Fatal(err)
		}
		wantBalance(t, r)
	})
}

// TestTailWatched: a watch sees all that it reads of the super-frames that a port sends. Nobody
// else makes the switch copy what the port takes as it is.
func TestTailWatched(t *testing.T) {
	super, o := tuntest.TCP4(20_000)
	for name, c := range map[string]struct {
		watch vswitch.Watch
		seen  int  // frames
		whole bool // the switch makes them whole
	}{
		"what all send":           {vswitch.Watch{Out: true}, 1, true},
		"what it sends":           {vswitch.Watch{Ports: []string{"p1"}, Out: true}, 1, true},
		"what another sends":      {vswitch.Watch{Ports: []string{"p0"}, Out: true}, 0, false},
		"what is received":        {vswitch.Watch{Ports: []string{"p0"}, In: true}, 1, true},
		"what is lost":            {vswitch.Watch{Drops: true}, 0, false},
		"headers":                 {vswitch.Watch{Out: true, SnapLen: port.MinHead}, 1, false},
		"more than headers":       {vswitch.Watch{Out: true, SnapLen: port.MinHead + 1}, 1, true},
		"headers as they come in": {vswitch.Watch{In: true, SnapLen: port.MinHead}, 1, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			r, lenders := tailRig(t)
			var seen sights
			c.watch.See = seen.see
			r.Watch(&c.watch)
			r.lines[0].Put(0, memory.Packet{Wire: super, Offload: o})
			synctest.Wait()
			wantData(t, r, 1, super, 1)
			if whole := lenders[1].took == 0; whole != c.whole {
				t.Errorf("%s: the port is given a whole frame: %v", name, whole)
			}
			all := seen.take()
			if len(all) != c.seen {
				t.Errorf("%s: %d frames are seen", name, len(all))
			}
			for _, s := range all {
				if len(s.wire) < port.MinHead || !bytes.HasPrefix(super, s.wire) || c.whole && len(s.wire) != len(super) {
					t.Errorf("%s: %d bytes are seen", name, len(s.wire))
				}
			}
		})
	}
}

// TestTailGone: memory that its sender takes away loses the frame, at each output.
func TestTailGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, lenders := tailRig(t, port.CapsAll, port.CapsNone)
		lenders[0].gone = true
		super, o := tuntest.TCP4(20_000)
		for range 2 { // the second time by way of a shaper, and a mirror
			r.lines[0].Put(0, memory.Packet{Wire: super, Offload: o})
			synctest.Wait()
			for line := 1; line < 4; line++ {
				wantData(t, r, line, super, 0)
			}
			r.configure(t, 1, vswitch.PortConfig{Shape: port.Rate{PerSecond: 1000}})
			if err := r.SetMirrors([]vswitch.Mirror{{Name: "m", Ports: []string{"p0"}, In: true, To: "p2"}}); err != nil {
				t.Fatal(err)
			}
		}
		wantDrops(t, r, 1, port.DropMemoryGone, 2)
		wantDrops(t, r, 2, port.DropMemoryGone, 1) // the mirror had nothing to copy
		wantDrops(t, r, 3, port.DropMemoryGone, 2)
		wantBalance(t, r)
	})
}

func TestTailAllocs(t *testing.T) {
	if testenv.RaceEnabled {
		t.Skip("the race detector allocates; this runs without it")
	}
	r, _ := tailRig(t, port.CapsAll, port.CapsNone)
	super, o := tuntest.TCP4(4000)
	packet := []memory.Packet{{Wire: super, Offload: o}}
	var buf [8192]byte
	round := func() {
		r.lines[0].Put(0, packet...)
		for _, line := range []int{1, 2, 3, 3, 3} {
			if _, err := r.lines[line].Take(0, buf[:0]); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 20 {
		round()
	}
	if n := testing.AllocsPerRun(500, round); n != 0 {
		t.Errorf("%v allocations a round", n)
	}
}
