package vswitch_test

import (
	"encoding/binary"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	vswitch "github.com/vswitch/vswitch/switch"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
)

// held makes a held switch with ports whose queues hold so many frames, and the station i behind
// port i.
func held(t *testing.T, depths ...int) *rig {
	t.Helper()
	r := &rig{Switch: vswitch.New(vswitch.Config{Held: true})}
	for i, depth := range depths {
		p, err := r.AddPort(fmt.Sprintf("p%d", i))
		if err != nil {
			t.Fatal(err)
		}
		line := memory.New(memory.Options{Depth: depth})
		if err := p.Attach(line); err != nil {
			t.Fatal(err)
		}
		p.SetForwarding(true)
		r.ports, r.lines = append(r.ports, p), append(r.lines, line)
		r.FDB().Restore(fdb.MakeKey(1, uint64(station(i))), p.Number(), 0)
	}
	return r
}

// put puts frames for station to at port from.
func (r *rig) put(from, to, frames int) {
	for i := range uint32(frames) {
		r.lines[from].Put(0, memory.Packet{Wire: frame(station(to), station(from), i, 60)})
	}
}

// A machine's queue holds less than what waited for it during a pause. Nothing is lost while the
// machine takes its frames, and they come in order.
func TestBacklogWaitsForFullQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := held(t, 1000, 100)
		defer r.Close()
		r.put(0, 1, 1000)
		r.Resume()
		var got [][]byte
		for range 50 {
			r.lines[1].Drain(0, 50, func(p memory.Packet) { got = append(got, append([]byte{}, p.Wire...)) })
			time.Sleep(time.Millisecond)
		}
		if len(got) != 1000 {
			t.Fatalf("%d of 1000 frames came", len(got))
		}
		for i, b := range got {
			if n := binary.BigEndian.Uint32(b[14:]); n != uint32(i) {
				t.Fatalf("frame %d came in place %d", n, i)
			}
		}
		// Later, a full queue is a full queue.
		time.Sleep(time.Second)
		start := time.Now()
		r.put(0, 1, 1000)
		synctest.Wait()
		if n := r.ports[1].Stats().TX.Dropped[port.DropQueueFull]; n != 900 || time.Since(start) != 0 {
			t.Errorf("%d frames are dropped after %v, not 900 at once", n, time.Since(start))
		}
	})
}

// A machine that takes nothing delays the frames for others once, and never those of a port that
// sends none to it.
func TestStuckMachineCostsOneWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := held(t, 1000, 100, 1000, 1000)
		defer r.Close()
		r.put(0, 1, 500)
		r.put(0, 2, 100)
		r.put(3, 2, 100)
		start := time.Now()
		r.Resume()
		arrived := func(want int, after time.Duration) {
			t.Helper()
			time.Sleep(after - time.Since(start))
			synctest.Wait()
			if got := len(r.taken(2)); got != want {
				t.Errorf("%d frames came until %v, not %d", got, after, want)
			}
		}
		arrived(100, 0)
		arrived(0, 49*time.Millisecond)
		arrived(100, 50*time.Millisecond)
		r.put(0, 1, 500)
		r.put(3, 1, 500)
		r.put(0, 2, 100)
		arrived(100, 50*time.Millisecond)
		if n := r.ports[1].Stats().TX.Dropped[port.DropQueueFull]; n != 1400 {
			t.Errorf("%d frames are dropped, not 1400", n)
		}
	})
}

// A machine that takes one frame after another delays the frames of a port for others by 100 ms
// in all.
func TestPatienceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := held(t, 1000, 10, 1000)
		defer r.Close()
		r.put(0, 1, 500)
		r.put(0, 2, 100)
		r.Resume()
		for range 99 {
			time.Sleep(time.Millisecond)
			r.lines[1].Drain(0, 1, func(memory.Packet) {})
		}
		synctest.Wait()
		if n := len(r.taken(2)); n != 0 {
			t.Errorf("%d frames came too early", n)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if n := len(r.taken(2)); n != 100 {
			t.Errorf("%d of 100 frames came", n)
		}
	})
}
