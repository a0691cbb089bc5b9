package vswitch_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	vswitch "github.com/vswitch/vswitch/switch"

	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
)

// While a switch is held, frames wait at their ports, those that it took are sent, and ports
// that are attached wait too. After Resume all of them go on in order.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, vswitch.Config{Held: true}, 2, memory.Options{})
		defer r.Close()
		next := uint32(0)
		put := func() {
			r.lines[0].Put(0, memory.Packet{Wire: frame(port.Broadcast, station(0), next, 60)})
			next++
		}
		arrived := func(want int) {
			t.Helper()
			synctest.Wait()
			if got := len(r.taken(1)); got != want {
				t.Errorf("%d frames arrived, not %d", got, want)
			}
		}
		if _, err := r.AddPort("without a device"); err != nil {
			t.Fatal(err)
		}
		put()
		arrived(0)
		if !r.Hold(time.Second) {
			t.Error("Hold of a switch that began so ran out of time")
		}
		r.Resume()
		arrived(1)
		for range 3 {
			put()
			arrived(1)
			if !r.Hold(time.Second) {
				t.Error("Hold ran out of time")
			}
			put()
			arrived(0)
			if !r.Hold(time.Second) {
				t.Error("Hold of a held switch ran out of time")
			}
			r.Resume()
			r.Resume()
			arrived(1)
		}
		r.Hold(time.Second)
		if err := r.ports[1].Detach(); err != nil {
			t.Fatal(err)
		}
		r.lines[1] = memory.New(memory.Options{})
		if err := r.ports[1].Attach(r.lines[1]); err != nil {
			t.Fatal(err)
		}
		put()
		arrived(0)
		r.Resume()
		arrived(1)
	})
}

// Hold waits for the frames of shaped ports.
func TestHoldWaitsForShapers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, vswitch.Config{}, 2, memory.Options{})
		defer r.Close()
		if err := r.ports[1].Configure(vswitch.PortConfig{Shape: port.Rate{PerSecond: 100}}); err != nil {
			t.Fatal(err)
		}
		const frames = 8
		for i := range uint32(frames) {
			r.lines[0].Put(0, memory.Packet{Wire: frame(port.Broadcast, station(0), i, 60)})
		}
		synctest.Wait()
		if r.Hold(time.Millisecond) {
			t.Error("Hold returned while frames waited")
		}
		if !r.Hold(time.Second) {
			t.Error("Hold ran out of time")
		}
		if got := len(r.taken(1)); got != frames {
			t.Errorf("%d of %d frames were sent", got, frames)
		}
	})
}

// leaver is a port that takes long to close.
type leaver struct {
	*memory.Port
	left int
}

func (l *leaver) Leave() error { l.left++; return errors.Join(errors.New("it is left"), l.Close()) }

// When the process ends, a port that takes long to close is left to the kernel. Others are closed.
func TestLeave(t *testing.T) {
	for _, ends := range []bool{false, true} {
		r := newRig(t, vswitch.Config{}, 1, memory.Options{})
		p, err := r.AddPort("slow")
		if err != nil {
			t.Fatal(err)
		}
		l := &leaver{Port: memory.New(memory.Options{})}
		if err := p.Attach(l); err != nil {
			t.Fatal(err)
		}
		end := r.Close
		if ends {
			end = r.Leave
		}
		if err := end(); (err != nil) != ends || (l.left == 1) != ends {
			t.Errorf("the process ends: %v; left %d times, %v", ends, l.left, err)
		}
		for i, line := range []*memory.Port{r.lines[0], l.Port} {
			if _, err := line.Queues()[0].Recv(make([]port.Frame, 1)); !errors.Is(err, port.ErrClosed) {
				t.Errorf("the process ends: %v; port %d is open: %v", ends, i, err)
			}
		}
	}
}
