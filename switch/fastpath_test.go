package vswitch_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/fdb"
	vswitch "github.com/vswitch/vswitch/switch"
)

// hearing is a fast path that hears one station all the time, and tells so when asked.
type hearing struct {
	vswitch.FastPath // nothing else is called
	key              fdb.Key
	table            *fdb.Table
	asked, changed   atomic.Int64
}

func (h *hearing) Bind(t *fdb.Table)                             { h.table = t }
func (h *hearing) Publish([]vswitch.FastPort, vswitch.FastFlood) {}
func (h *hearing) Changed(fdb.Key)                               { h.changed.Add(1) }
func (h *hearing) Flushed(uint16)                                {}

func (h *hearing) Refresh() {
	h.asked.Add(1)
	h.table.Heard(h.key, 0, 0)
}

// A station that the fast path alone hears is not forgotten, with whatever ageing time and
// however that changes, and the fast path is not asked more often than that takes.
func TestFastPathIsAskedBeforeStationsAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hearing{key: fdb.MakeKey(1, 2)}
		sw := vswitch.New(vswitch.Config{FastPath: h})
		defer sw.Close()
		if _, err := sw.AddPort("vm0"); err != nil {
			t.Fatal(err)
		}
		sw.FDB().Learn(h.key, 0)
		h.changed.Store(0)
		for _, c := range []struct {
			aging  time.Duration
			atMost int64 // times in a minute
		}{{300 * time.Second, 13}, {2 * time.Second, 61}, {-1, 13}, {time.Second, 61}, {20 * time.Second, 31}} {
			sw.Refresh()
			sw.FDB().SetAging(c.aging)
			before := h.asked.Load()
			time.Sleep(time.Minute)
			synctest.Wait()
			if n := h.changed.Load(); n != 0 {
				t.Fatalf("with an ageing time of %v the station is forgotten", c.aging)
			}
			if n := h.asked.Load() - before; n > c.atMost {
				t.Errorf("with an ageing time of %v the fast path is asked %d times in a minute, want %d at most", c.aging, n, c.atMost)
			}
		}
	})
}
