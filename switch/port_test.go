package vswitch_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Settings that make no sense are refused, and leave those that were there.
func TestBadConfig(t *testing.T) {
	inRig(t, 2, func(t *testing.T, r *rig) {
		r.configure(t, 0, vswitch.PortConfig{LearnLimit: 1, VLAN: port.VLAN{Access: 10}})
		for want, c := range map[string]vswitch.PortConfig{
			"port p0: a burst of -1ns":     {PoliceBurst: -1},
			"port p0: a learn limit of -1": {LearnLimit: -1},
			"port p0: ":                    {VLAN: port.VLAN{Access: 4095}},
		} {
			if err := r.ports[0].Configure(c); err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%+v: %v", c, err)
			}
		}
		var f port.Frame
		f.SetWire(frame(port.Broadcast, station(0), 1, 60))
		if why := r.ports[0].Classify(&f); why != port.DropNone || f.VLAN != 10 {
			t.Errorf("%v, VLAN %d", why, f.VLAN)
		}
	})
}

// A tree's state is what was set last.
func TestTreeState(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		p := r.ports[0]
		if p.Tree() != vswitch.TreeForwarding || p.InTree() {
			t.Errorf("without a tree: %v, %v", p.Tree(), p.InTree())
		}
		for _, in := range []bool{true, false} {
			for _, state := range []vswitch.TreeState{vswitch.TreeDiscarding, vswitch.TreeLearning, vswitch.TreeForwarding} {
				for range 2 {
					if p.SetTree(state, in); p.Tree() != state || p.InTree() != in {
						t.Errorf("%v, %v; want %v, %v", p.Tree(), p.InTree(), state, in)
					}
				}
			}
		}
	})
}

// counted is a port's counters, each of which is n times another number.
func counted(n uint64) (st vswitch.PortStats) {
	st.Fast = 3 * n
	for i, c := range []*vswitch.Counters{&st.RX, &st.TX} {
		k := uint64(i + 1)
		c.Frames, c.Bytes, c.Copies = 5*n*k, 7*n*k, 11*n*k
		for why := range c.Dropped {
			c.Dropped[why] = n * (k + uint64(why))
		}
	}
	return st
}

// A port that goes on from a former process counts what that one counted, and what came since;
// what it has counted by itself already is in that.
func TestCountersGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, vswitch.Config{}, 2, memory.Options{})
		defer r.Close()
		put := func() {
			r.lines[0].Put(0, memory.Packet{Wire: frame(port.Broadcast, station(0), 1, 60)})
			synctest.Wait()
		}
		put()
		r.ports[0].Carry(counted(10))
		if got := r.ports[0].Stats(); got != counted(10) {
			t.Errorf("%+v, want %+v", got, counted(10))
		}
		put()
		want := counted(10)
		want.RX.Frames++
		want.RX.Bytes += 60
		if got := r.ports[0].Stats(); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		r.ports[1].Carry(vswitch.PortStats{}) // of fewer than it has counted
		if got := r.ports[1].Stats(); got.TX.Frames != 2 || got.TX.Bytes != 120 {
			t.Errorf("it counts %+v", got)
		}
		if c := counted(1).TX; c.Drops() != uint64(port.NumDrops)*2+uint64(port.NumDrops)*(uint64(port.NumDrops)-1)/2 {
			t.Errorf("%d drops in all", c.Drops())
		}

		r.CarryTotals(7, counted(2))
		if r.Injected() != 7 || r.Departed() != counted(2) {
			t.Errorf("%d injected, %+v of former ports", r.Injected(), r.Departed())
		}
		if err := r.RemovePort("p0"); err != nil {
			t.Fatal(err)
		}
		total := r.Departed()
		if total.RX.Frames != want.RX.Frames+counted(2).RX.Frames || total.RX.Bytes != want.RX.Bytes+counted(2).RX.Bytes || total.Fast != want.Fast+counted(2).Fast {
			t.Errorf("of former ports %+v", total)
		}
	})
}

// Batches count by their sizes, also those of a port that is gone.
func TestBatchSizes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, vswitch.Config{}, 2, memory.Options{})
		defer r.Close()
		want := vswitch.BatchSizes{}
		for _, c := range []struct{ frames, at int }{{1, 0}, {2, 1}, {3, 2}, {4, 2}, {5, 3}, {33, 6}, {64, 6}} {
			r.lines[0].Put(0, slices.Repeat([]memory.Packet{{Wire: frame(port.Broadcast, station(0), 1, 60)}}, c.frames)...)
			synctest.Wait()
			want.Batches[c.at]++
			want.Frames += uint64(c.frames)
			if got := r.BatchSizes(); got != want {
				t.Fatalf("after a batch of %d: %+v, want %+v", c.frames, got, want)
			}
		}
		if err := r.RemovePort("p0"); err != nil {
			t.Fatal(err)
		}
		if got := r.BatchSizes(); got != want {
			t.Errorf("without the port %+v, want %+v", got, want)
		}
	})
}

// The traps of all ports come after a port's own.
func TestTrapsOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const group, other = 0x0300_0000_0001, 0x0300_0000_0002
		var got []vswitch.ControlFrame
		r := newRig(t, vswitch.Config{
			Traps:     []vswitch.Trap{{Dst: other, Queue: vswitch.QueueTree}},
			OnControl: func(f vswitch.ControlFrame) { got = append(got, f) },
		}, 2, memory.Options{})
		defer r.Close()
		r.SetTraps([]vswitch.Trap{{Dst: group, Queue: vswitch.QueueLoop}})
		r.ports[0].SetTraps(vswitch.QueueLink, []vswitch.Trap{{Dst: group, Queue: vswitch.QueueLink}})
		for in := range 2 {
			for _, dst := range []port.MAC{group, other} {
				r.lines[in].Put(0, memory.Packet{Wire: frame(dst, station(in), 1, 60)})
				synctest.Wait()
			}
		}
		if len(got) != 2 || got[0].Queue != vswitch.QueueLink || got[0].Port != r.ports[0] || got[1].Queue != vswitch.QueueLoop || got[1].Port != r.ports[1] {
			t.Errorf("trapped are %+v", got)
		}
		if n := len(r.taken(0)) + len(r.taken(1)); n != 2 {
			t.Errorf("%d frames went on", n)
		}
	})
}

// A frame that the switch originates is refused by a target of a mirror, and where the device
// loses it the caller hears that, and a watch sees it.
func TestTransmitRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, vswitch.Config{}, 3, memory.Options{Depth: 1})
		defer r.Close()
		if err := r.SetMirrors([]vswitch.Mirror{{Name: "m", Ports: []string{"p0"}, In: true, To: "p2"}}); err != nil {
			t.Fatal(err)
		}
		wire := frame(port.Broadcast, station(9), 0, 60)
		if err := r.ports[2].Transmit(0, wire); err == nil || !strings.Contains(err.Error(), "target of a mirror") {
			t.Errorf("the target of a mirror: %v", err)
		}
		for link, want := range []string{"", "no link 1"} {
			if err := r.ports[0].TransmitBy(link, wire); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("by link %d: %v", link, err)
			}
		}
		var drops, sent sights
		r.Watch(&vswitch.Watch{Ports: []string{"p1"}, Drops: true, See: drops.see})
		for n := range 2 {
			err := r.ports[1].Transmit(0, wire)
			if full := err != nil && strings.Contains(err.Error(), "queue"); full != (n == 1) {
				t.Errorf("frame %d: %v", n, err)
			}
		}
		stop := r.Watch(&vswitch.Watch{Out: true, See: sent.see})
		r.taken(1)
		if err := r.ports[1].Transmit(0, wire); err != nil {
			t.Error(err)
		}
		stop()
		r.taken(1)
		if err := r.ports[1].Transmit(0, wire); err != nil {
			t.Error(err)
		}
		if d, s := drops.take(), sent.take(); len(d) != 1 || d[0].why != port.DropQueueFull || len(s) != 1 || s[0].why != port.DropNone {
			t.Errorf("seen are drops %+v and %+v", d, s)
		}
		if r.Injected() != 5 { // one of them by a link
			t.Errorf("%d injected", r.Injected())
		}
	})
}

// A frame from an address of the switch is told once until that is handled.
func TestOwnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, told := make(chan struct{}), 0
		r := newRig(t, vswitch.Config{OnEvent: func(ev vswitch.Event) {
			if ev != (vswitch.OwnAddress{Port: 1, VLAN: 1}) {
				t.Errorf("told %+v", ev)
			}
			told++
			<-gate
		}}, 2, memory.Options{Depth: 64})
		defer r.Close()
		if err := r.FDB().Add(fdb.MakeKey(1, uint64(station(7))), 0, fdb.Local); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			r.lines[1].Put(0, memory.Packet{Wire: frame(port.Broadcast, station(7), 1, 60)})
			synctest.Wait()
		}
		close(gate)
		synctest.Wait()
		if told != 2 { // one was in the handler
			t.Errorf("told %d times", told)
		}
	})
}

// slowPause is a port whose worker takes its time to see a pause.
type slowPause struct {
	*memory.Port
	resumed int
	gate    chan struct{}
	later   sync.WaitGroup // until it is paused for real
}

func (p *slowPause) Pause() { p.later.Go(func() { <-p.gate; p.Port.Pause() }) }

func (p *slowPause) Resume() { p.resumed++; p.Port.Resume() }

// A port that ends its work only after Hold has given up goes on by itself, once Resume was
// called; one that was detached meanwhile does not.
func TestResumeBeforeThePause(t *testing.T) {
	for _, what := range []string{"resumed", "held", "detached"} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, vswitch.Config{}, 2, memory.Options{})
			defer r.Close()
			dev := &slowPause{Port: memory.New(memory.Options{}), gate: make(chan struct{})}
			if err := r.ports[0].Detach(); err != nil {
				t.Fatal(err)
			}
			if err := r.ports[0].Attach(dev); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if r.Hold(time.Second) || time.Since(start) != time.Second {
				t.Errorf("%s: Hold returned after %v", what, time.Since(start))
			}
			r.Resume()
			switch what {
			case "held":
				if r.Hold(time.Second) {
					t.Error("Hold did not wait")
				}
			case "detached":
				done := make(chan error)
				go func() { done <- r.ports[0].Detach() }()
				synctest.Wait()
				defer func() {
					if err := <-done; err != nil {
						t.Error(err)
					}
				}()
			}
			close(dev.gate)
			dev.later.Wait()
			synctest.Wait()
			want := map[string]int{"resumed": 1, "held": 0, "detached": 0}[what]
			if dev.resumed != want {
				t.Errorf("%s: it was resumed %d times, want %d", what, dev.resumed, want)
			}
			dev.Put(0, memory.Packet{Wire: frame(port.Broadcast, station(0), 1, 60)})
			synctest.Wait()
			if n := len(r.taken(1)); n != want {
				t.Errorf("%s: %d frames came", what, n)
			}
		})
	}
}
