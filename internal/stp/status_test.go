package stp

import "testing"

// The time since a topology change runs until the next.
func TestSinceTopologyChange(t *testing.T) {
	b, _ := twoPorts(t)
	ticks(b, 7)
	if s := b.Status(); s.SinceTopologyChange != 7 || s.TopologyChanges != 0 {
		t.Errorf("no change: %d s since %d", s.SinceTopologyChange, s.TopologyChanges)
	}
	ticks(b, 60) // both ports forward
	n := b.Status().TopologyChanges
	b.Receive(1, frameOf(BPDU{Type: TypeTCN}))
	if s := b.Status(); s.SinceTopologyChange != 0 || s.TopologyChanges != n+1 {
		t.Errorf("a neighbour tells of one: %d s since %d", s.SinceTopologyChange, s.TopologyChanges)
	}
	ticks(b, 1)
	if s := b.Status(); s.SinceTopologyChange != 1 {
		t.Errorf("a second later: %d s", s.SinceTopologyChange)
	}
}
