package loopguard

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/internal/feature/featuretest"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// What is remembered of probes is bounded by how long they are good.
func TestProbesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := featuretest.New(t)
		h.Add(t, port.Spec{Name: "up0"}, false)
		up1 := h.Add(t, port.Spec{Name: "up1"}, false)
		var g *guard
		h.Do(func() { g = start(h) })
		time.Sleep(20*time.Second + probeGap/2)
		synctest.Wait()
		h.Do(func() {
			if n, m := len(g.out), len(g.order); n > 8 || m > 8 || n < 6 {
				t.Errorf("%d probes are remembered, %d in order", n, m)
			}
			g.Linked(up1, true)
			g.Removed(up1)
			if len(g.suspect)+len(g.next) != 0 {
				t.Errorf("%v, %v", g.suspect, g.next)
			}
			g.Stop()
		})
		var last int
		h.Do(func() { last = len(g.order) })
		time.Sleep(10 * probeGap)
		synctest.Wait()
		h.Do(func() {
			if len(g.order) != last {
				t.Error("it goes on after its end")
			}
		})
	})
}

// Whatever comes to the group, a frame that was not sent as a probe does nothing.
func FuzzReceive(f *testing.F) {
	f.Add([]byte{}, uint16(1))
	f.Add(make([]byte, probeLen), uint16(0))
	f.Fuzz(func(t *testing.T, frame []byte, vlan uint16) {
		h := featuretest.New(t)
		p := h.Add(t, port.Spec{Name: "up0"}, false)
		h.Do(func() {
			g := start(h)
			g.send()
			g.Receive(p, vswitch.ControlFrame{VLAN: vlan, Data: frame})
			g.Stop()
		})
		if p.Why != "" {
			t.Fatalf("%x shuts a port", frame)
		}
	})
}
