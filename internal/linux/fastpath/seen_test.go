package fastpath

import (
	"bytes"
	"fmt"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// show has a rig collect the copies that are shown.
func (r *rig) show() <-chan vswitch.FastCopy {
	all := make(chan vswitch.FastCopy, 1<<12)
	r.path.Show(func(c *vswitch.FastCopy) {
		one := *c
		one.Data = bytes.Clone(c.Data)
		all <- one
	})
	return all
}

// next returns the next copy.
func next(t testing.TB, copies <-chan vswitch.FastCopy) vswitch.FastCopy {
	t.Helper()
	select {
	case c := <-copies:
		return c
	case <-time.After(time.Minute):
		t.Fatal("no copy comes")
	}
	return vswitch.FastCopy{}
}

// TestSee has a frame from A come by port 0, for B behind port 1, of which copies are shown.
func TestSee(t *testing.T) {
	t.Parallel()
	wire := frame(macB, macA, frameLen)
	in := vswitch.FastCopy{Number: 0, Data: wire, Length: frameLen}
	out := vswitch.FastCopy{Kind: vswitch.CopyOut, Number: 1, Data: wire, Length: frameLen}
	lost := func(why port.Drop) vswitch.FastCopy { c := in; c.Drop = why; return c }
	customer := port.MakeTag(port.TPIDCustomer, 0x6001)
	for name, c := range map[string]struct {
		change func(r *rig)
		length int // of the frame; 0: that of wire
		gso    uint32
		want   uint32
		copies []vswitch.FastCopy
	}{
		"others":        {want: tcxRedirect, change: func(r *rig) { r.ports[0].SeeOut, r.ports[1].SeeIn, r.ports[2].SeeIn = true, true, true }},
		"what comes":    {want: tcxRedirect, copies: []vswitch.FastCopy{in}, change: func(r *rig) { r.ports[0].SeeIn = true }},
		"what leaves":   {want: tcxRedirect, copies: []vswitch.FastCopy{out}, change: func(r *rig) { r.ports[1].SeeOut = true }},
		"both":          {want: tcxRedirect, copies: []vswitch.FastCopy{in, out}, change: func(r *rig) { r.ports[0].SeeIn, r.ports[1].SeeOut = true, true }},
		"the beginning": {want: tcxRedirect, copies: []vswitch.FastCopy{{Data: wire[:20], Length: frameLen}}, change: func(r *rig) { r.ports[0].SeeIn, r.ports[0].SnapLen = true, 20 }},
		"with its tag": {want: tcxRedirect, copies: []vswitch.FastCopy{in, {Kind: vswitch.CopyOut, Number: 1, Data: wire, Length: frameLen, Tag: customer &^ 0x6000}}, change: func(r *rig) {
			r.ports[0].SeeIn, r.ports[1].SeeOut = true, true
			r.ports[1].Native, r.ports[1].TPID = 0, port.TPIDCustomer
			r.publish(r.ports)
			r.path.Settle()
		}},
		"beyond the rate": {want: tcxDrop, copies: []vswitch.FastCopy{lost(port.DropPoliced)}, change: func(r *rig) {
			r.ports[0].SeeIn, r.ports[1].SeeOut = true, true
			r.police(0, kilobyte, time.Second, time.Hour)
		}},
		"back": {want: tcxDrop, copies: []vswitch.FastCopy{lost(port.DropSamePort)}, change: func(r *rig) {
			r.ports[0].SeeIn, r.ports[0].SeeOut = true, true
			r.learn(1, macB, 0)
		}},
		"isolated": {want: tcxDrop, copies: []vswitch.FastCopy{lost(port.DropIsolated)}, change: func(r *rig) {
			r.ports[0].SeeIn, r.ports[0].Isolated, r.ports[1].Isolated = true, true, true
		}},
		"1514 bytes": {want: tcxRedirect, length: 1514, copies: []vswitch.FastCopy{{Data: frame(macB, macA, 1514), Length: 1514}}, change: func(r *rig) { r.ports[0].SeeIn = true }},

		"for a mirror": {want: tcxRedirect, copies: []vswitch.FastCopy{
			{Kind: vswitch.CopyMirrorIn, Data: wire[:30], Length: frameLen}, {Kind: vswitch.CopyMirrorOut, Number: 1, Data: wire, Length: frameLen},
		}, change: func(r *rig) {
			r.ports[0].CopyIn, r.ports[0].CopyLen, r.ports[1].CopyOut = true, 30, true
		}},
		"for a mirror, beyond the rate": {want: tcxDrop, copies: []vswitch.FastCopy{{Kind: vswitch.CopyMirrorIn, Data: wire, Length: frameLen, Drop: port.DropPoliced}}, change: func(r *rig) {
			r.ports[0].CopyIn, r.ports[1].CopyOut = true, true
			r.police(0, kilobyte, time.Second, time.Hour)
		}},
		"for a mirror, a super-frame without a place of its checksum": {want: tcxPass, gso: 10, change: func(r *rig) { r.ports[0].CopyIn = true }},
		"of a super-frame": {want: tcxRedirect, gso: 10, copies: []vswitch.FastCopy{in}, change: func(r *rig) { r.ports[0].SeeIn = true }},

		// What is handed up, the switch shows.
		"handed up": {want: tcxPass, change: func(r *rig) { r.ports[0].SeeIn, r.ports[1].SeeOut, r.ports[1].To = true, true, false }},
		"drops are watched": {want: tcxPass, change: func(r *rig) {
			r.ports[0].SeeIn, r.ports[0].Drops = true, true
			r.learn(1, macB, 0)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 3)
			copies := r.show()
			r.learn(1, macA, 0)
			r.learn(1, macB, 1)
			c.change(r)
			r.publish(r.ports)
			sent := wire
			if c.length != 0 {
				sent = frame(macB, macA, c.length)
			}
			if d, _ := r.run(sent, skb{Ifindex: uint32(r.ports[0].Device.Ifindex()), GSOSize: c.gso, GSOSegs: min(c.gso, 5)}); d != c.want {
				t.Errorf("the decision is %d, want %d", d, c.want)
			}
			// What comes behind it is seen for sure.
			r.ports[2].SeeIn, r.ports[2].To = true, true
			r.publish(r.ports)
			r.learn(1, macC, 2)
			if d := r.send(2, frame(macC, macC, frameLen)); d != tcxDrop {
				t.Fatalf("the last frame gets %d", d)
			}
			// Copies for captures and for mirrors come in no order.
			want := map[string]int{}
			for _, one := range append(c.copies, vswitch.FastCopy{Number: 2, Data: frame(macC, macC, frameLen), Length: frameLen, Drop: port.DropSamePort}) {
				want[fmt.Sprintf("%+v", one)]++
			}
			for range len(c.copies) + 1 {
				got := next(t, copies)
				if ago := time.Since(got.Time); ago < 0 || ago > time.Hour {
					t.Errorf("a copy is of %v", got.Time)
				}
				got.Time, got.To, got.Several = time.Time{}, 0, false
				if is := fmt.Sprintf("%+v", got); want[is] == 0 {
					t.Errorf("a copy is\n%s, want of\n%v", is, want)
				} else {
					want[is]--
				}
			}
		})
	}
}

// A copy of what is flooded is shown for each port where that is wanted, as it leaves there.
func TestSeeFlood(t *testing.T) {
	t.Parallel()
	r, guests := crowded(t)
	copies := r.show()
	r.ports[0].SeeIn, r.ports[1].SeeOut, r.ports[3].SeeOut = true, true, true
	r.ports[1].Native, r.ports[1].TPID = 0, port.TPIDCustomer
	r.publish(r.ports)
	wire := frame(port.Broadcast, macA, frameLen)
	if d := r.send(0, wire); d == tcxPass {
		t.Fatal("a broadcast is handed up")
	}
	want := map[string]bool{"0 false 0": true, "1 true 81000001": true, "3 true 0": true}
	for range 3 {
		c := next(t, copies)
		is := fmt.Sprintf("%d %t %x", c.Number, c.Kind == vswitch.CopyOut, uint32(c.Tag))
		if !want[is] || !bytes.Equal(c.Data, wire) {
			t.Errorf("a copy is %s: % x", is, c.Data)
		}
		delete(want, is)
	}
	if n := len(read(t, guests[2])); n != 1 {
		t.Errorf("a port that is not watched gets %d frames", n)
	}
}

// Copies for which there is no room are counted, and the next copy says how many they are.
// The frames themselves are sent on.
func TestSeeTooMuch(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	hold := make(chan struct{})
	var seen, missed atomic.Int64
	r.path.Show(func(c *vswitch.FastCopy) {
		<-hold
		missed.Add(int64(c.Missed))
		seen.Add(1)
	})
	r.learn(1, macA, 0)
	r.learn(1, macB, 1)
	r.ports[0].SeeIn = true
	r.publish(r.ports)
	wire := frame(macB, macA, 1000)
	send := func() {
		if d := r.send(0, wire); d != tcxRedirect {
			t.Fatalf("the decision is %d", d)
		}
	}
	const frames = 8000 // more than the ring holds
	for range frames {
		send()
	}
	close(hold)
	testenv.Eventually(t, "the reader is through", func() bool { return r.path.rings.open[ringCaptures].AvailableBytes() == 0 })
	send()
	testenv.Eventually(t, "all frames were seen or missed", func() bool { return seen.Load()+missed.Load() == frames+1 })
	if seen.Load() == 0 || missed.Load() == 0 {
		t.Errorf("%d frames were seen, %d missed", seen.Load(), missed.Load())
	}
}

// A ring is there only while somebody reads it. The next process does not find that of one which
// was killed.
func TestRingGoes(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	is := func(want bool) {
		t.Helper()
		var id uint32
		if err := r.path.bpf.Rings.Lookup(uint32(ringCaptures), &id); (err == nil) != want {
			t.Errorf("looking for a ring: %v", err)
		}
	}
	is(false)
	r.ports[0].SeeIn = true
	r.publish(r.ports)
	is(true)
	r.ports[0].SeeIn, r.ports[1].SeeOut = false, true
	r.publish(r.ports)
	is(true)
	r.ports[1].SeeOut = false
	r.publish(r.ports)
	is(false)
	r.ports[0].SeeIn = true
	r.publish(r.ports)
	r.path.Suspend()
	next := rings{bpf: &r.path.bpf}
	if err := next.clear(); err != nil {
		t.Fatal(err)
	}
	is(false)
	r.path.Continue() // the next process failed
	is(true)
}

// sampled is a rig whose port 0 is sampled, with stations A, B behind ports 0 and 1.
func sampled(t *testing.T, oneIn uint32) (*rig, <-chan vswitch.FastCopy) {
	r := newRig(t, 3)
	copies := r.show()
	r.learn(1, macA, 0)
	r.learn(1, macB, 1)
	r.ports[0].OneIn = oneIn
	r.publish(r.ports)
	return r, copies
}

// Of a million frames, one in so many is drawn, within three times the deviation that is due if
// each is drawn by itself.
func TestSampleRate(t *testing.T) {
	t.Parallel()
	const frames, oneIn, step = 1_000_000, 500, 50_000
	r := newRig(t, 2)
	var drawn, of, missed atomic.Int64
	r.path.Show(func(c *vswitch.FastCopy) {
		if c.Kind != vswitch.CopySample || c.To != 1 || !bytes.Equal(c.Data, frame(macB, macA, frameLen)) {
			t.Errorf("a sample is %+v", c)
		}
		drawn.Add(1)
		of.Add(int64(c.Of))
		missed.Add(int64(c.Missed))
	})
	r.learn(1, macA, 0)
	r.learn(1, macB, 1)
	r.ports[0].OneIn = oneIn
	r.publish(r.ports)
	r.onCPU(0)
	ring := r.path.rings.open[ringSamples]
	for range frames / step {
		r.repeat(0, frame(macB, macA, frameLen), step)
		testenv.Eventually(t, "the samples are read", func() bool { return ring.AvailableBytes() == 0 })
	}
	testenv.Eventually(t, "the frames were drawn from", func() bool { return of.Load() >= frames-2*oneIn })
	const want, deviation = float64(frames) / oneIn, 3 * 44.7 // sqrt(n p (1-p))
	if n := float64(drawn.Load()); math.Abs(n-want) > deviation || missed.Load() != 0 {
		t.Errorf("%.0f frames are drawn, and %d missed, want %.0f", n, missed.Load(), want)
	}
	sent := r.path.Counters(1).TX.Frames
	if sent < frames { // a signal has the kernel run some once more
		t.Errorf("%d frames were sent on", sent)
	}
	if uint64(of.Load()) > sent {
		t.Errorf("they are of %d frames, more than were sent", of.Load())
	}
}

// A sample says what becomes of the frame, which goes on.
func TestSampleOutcome(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(r *rig)
		dst    port.MAC // 0: B
		want   uint32
		sample vswitch.FastCopy
	}{
		"sent on": {want: tcxRedirect, sample: vswitch.FastCopy{To: 1}},
		"beyond the rate": {want: tcxDrop, sample: vswitch.FastCopy{To: fdb.NoPort, Drop: port.DropPoliced}, change: func(r *rig) {
			r.police(0, kilobyte, time.Second, time.Hour)
		}},
		"isolated": {want: tcxDrop, sample: vswitch.FastCopy{To: fdb.NoPort, Drop: port.DropIsolated}, change: func(r *rig) {
			r.ports[0].Isolated, r.ports[1].Isolated = true, true
		}},
		"back": {want: tcxDrop, dst: macA, sample: vswitch.FastCopy{To: fdb.NoPort, Drop: port.DropSamePort}},
		"to several": {want: tcxRedirect, dst: port.Broadcast, sample: vswitch.FastCopy{To: fdb.NoPort, Several: true}, change: func(r *rig) {
			r.flood.VLANs = *vlans(1)
		}},
		"to all, who are one": {want: tcxRedirect, dst: port.Broadcast, sample: vswitch.FastCopy{To: 2}, change: func(r *rig) {
			r.flood.VLANs = *vlans(1)
			r.ports[0].Isolated, r.ports[1].Isolated = true, true
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, copies := sampled(t, 1)
			if c.change != nil {
				c.change(r)
				r.publish(r.ports)
			}
			if c.dst == 0 {
				c.dst = macB
			}
			wire := frame(c.dst, macA, 300)
			if d := r.send(0, wire); d != c.want {
				t.Errorf("the decision is %d, want %d", d, c.want)
			}
			got, want := next(t, copies), c.sample
			want.Kind, want.Data, want.Length, want.Of, want.Time = vswitch.CopySample, wire[:256], 300, 1, got.Time
			if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
				t.Errorf("the sample is\n%+v, want\n%+v", got, want)
			}
		})
	}
}

// Of what is dropped for a reason some frames are shown, with the number of others. A flood for
// one reason hides no other.
func TestSeeDrops(t *testing.T) {
	t.Parallel()
	r, copies := sampled(t, 0)
	r.ports[0].SeeDrops = true
	r.publish(r.ports)
	r.onCPU(0)
	back, toB := frame(macA, macA, frameLen), frame(macB, macA, frameLen)
	var shown, others int
	sent := 0
	for deadline := time.Now().Add(time.Minute); shown < 3; {
		if d := r.send(0, back); d != tcxDrop {
			t.Fatalf("the decision is %d", d)
		}
		sent++
		select {
		case c := <-copies:
			if c.Kind != vswitch.CopyDrop || c.Drop != port.DropSamePort || !bytes.Equal(c.Data, back) || c.Number != 0 {
				t.Fatalf("it shows %+v", c)
			}
			shown++
			others += int(c.Of)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("of %d frames %d are shown", sent, shown)
		}
	}
	if shown+others > sent || shown+others < sent/3 {
		t.Errorf("%d frames are shown, and %d others, of %d", shown, others, sent)
	}
	r.ports[0].Isolated, r.ports[1].Isolated = true, true
	r.publish(r.ports)
	if d := r.send(0, toB); d != tcxDrop {
		t.Fatalf("the decision is %d", d)
	}
	for {
		if c := next(t, copies); c.Drop == port.DropIsolated {
			break
		}
	}
}
