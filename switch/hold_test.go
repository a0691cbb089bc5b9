package vswitch_test

import (
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
		put()
		arrived(0)
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
