package guard

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/internal/feature/featuretest"
	proto "github.com/vswitch/vswitch/internal/proto/guard"
	"github.com/vswitch/vswitch/port"
)

// begin guards a port of a host.
func begin(t *testing.T, s Settings) (h *featuretest.Host, p *featuretest.Port, g *guard) {
	h = featuretest.New(t)
	s.Guard = on
	p = h.Add(t, port.Spec{Name: "vm0", Sections: []any{s}}, true)
	h.Do(func() {
		g = start(h, nil)
		g.Configured(p)
	})
	return h, p, g
}

// What is learned is saved within a second, and what stays as it is is not saved again.
func TestLearnedIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, p, g := begin(t, Settings{MACs: []string{"52:54:00:00:00:01"}})
		saves := func() (n int) {
			time.Sleep(gap)
			synctest.Wait()
			h.Do(func() { n = h.Saves() })
			return n
		}
		saves() // the guard's beginning may be a change
		before := saves()
		if n := saves(); n != before {
			t.Errorf("nothing changed, and it was saved %d times", n-before)
		}
		h.Do(func() {
			g.table.Restore(p.Number(), proto.Binding{VLAN: port.DefaultVLAN, MAC: 0x5254_0000_0001, Prefix: netip.MustParsePrefix("192.0.2.7/32"), Source: proto.DHCP})
		})
		if n := saves(); n != before+1 {
			t.Errorf("an address was learned, and it was saved %d times", n-before)
		}
		if n := saves(); n != before+1 {
			t.Errorf("later it was saved %d times more", n-before-1)
		}
		h.Do(g.Stop)
	})
}

// Frames that are too many for whatever reasons shut the port down.
func TestShutdownForSeveralReasons(t *testing.T) {
	for _, c := range []struct {
		counts []uint64
		shut   bool
	}{{nil, false}, {[]uint64{4}, false}, {[]uint64{5}, true}, {[]uint64{3, 2}, true}, {[]uint64{2, 1, 1}, false}} {
		h, p, g := begin(t, Settings{MACs: []string{"52:54:00:00:00:01"}, Action: shutdown, Most: 5})
		events := []proto.Event{{Kind: proto.Bound, Port: "vm0", Count: 9}, {Kind: proto.Violation, Port: "vm1", Count: 9}}
		for i, n := range c.counts {
			events = append(events, proto.Event{Kind: proto.Violation, Port: "vm0", Reason: port.DropGuardMAC + port.Drop(i), Count: n})
		}
		h.Do(func() {
			g.shut(events)
			g.Stop()
		})
		if (p.Why != "") != c.shut {
			t.Errorf("after %v frames: %q", c.counts, p.Why)
		}
	}
}
