package vswitch_test

import (
	"testing"
	"testing/synctest"

	"github.com/vswitch/vswitch/port/memory"
	vswitch "github.com/vswitch/vswitch/switch"
)

// A guest that makes up moves does not hide that another station moved.
func TestMovesHaveShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		var to [4]int
		r := newRig(t, vswitch.Config{OnEvent: func(ev vswitch.Event) {
			<-gate
			to[ev.(vswitch.MACMoved).To]++
		}}, 4, memory.Options{Depth: 4096})
		defer r.Close()
		send := func(by, first, n int) {
			for i := range n {
				r.lines[by].Put(0, memory.Packet{Wire: frame(station(99999), station(first+i), 0, 60)})
			}
			synctest.Wait()
			for p := range r.lines {
				r.taken(p)
			}
		}
		send(1, 0, 3000)
		send(0, 0, 3000)
		send(2, 5000, 3)
		send(3, 5000, 3)
		close(gate)
		synctest.Wait()
		if to[0] < 64 || to[0] > 65 || to[1] != 0 || to[3] != 3 { // one may have been in the handler
			t.Errorf("moves reported by port: %v", to)
		}
		// What was reported makes room again.
		send(1, 0, 10)
		if to[1] != 10 {
			t.Errorf("%d of 10 moves are reported later", to[1])
		}
	})
}
