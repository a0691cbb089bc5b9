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

// What an administrator sees of a bridge that is not the root.
func TestStatus(t *testing.T) {
	b, _ := twoPorts(t)
	m := betterRoot()
	m.RootCost, m.Root, m.Bridge, m.Port = 7, 1, 2, 0x8009
	m.MaxAge, m.ForwardDelay, m.HelloTime = 10*256, 6*256, 1*256
	b.Receive(1, frameOf(m))
	b.Receive(1, []byte("no BPDU"))
	s := b.Status()
	if s.Root != 1 || s.Bridge != b.id || s.RootCost != 20007 || s.RootPort != 1 || s.HelloTime != 2 || s.MaxAge != 10 || s.ForwardDelay != 6 || len(s.Ports) != 2 {
		t.Errorf("%+v", s)
	}
	p := s.Ports[0]
	if p.Number != 1 || p.ID != 0x8001 || p.Role != RoleRoot || p.State != Forwarding || p.PathCost != 20000 || p.Edge || p.STP || p.Shared ||
		p.DesignatedRoot != 1 || p.DesignatedCost != 7 || p.DesignatedBridge != 2 || p.DesignatedPort != 0x8009 ||
		p.BPDUGuarded || p.RootGuarded || p.SelfLooped || p.Config != (PortConfig{Priority: 0x80}) || p.Invalid != 1 || p.Rx != (Counters{RST: 1}) {
		t.Errorf("the root port: %+v", p)
	}
	if p := s.Ports[1]; p.Number != 2 || p.Role != RoleDesignated || p.DesignatedRoot != 1 || p.DesignatedCost != 20007 || p.DesignatedBridge != b.id || p.DesignatedPort != 0x8002 ||
		p.Rx != (Counters{}) || p.Tx.RST == 0 || p.Tx.Config+p.Tx.TCN != 0 {
		t.Errorf("the other port: %+v", p)
	}

	// A neighbour that speaks STP, and has no claim to be the root.
	ticks(b, 5)
	old := BPDU{Type: TypeConfig, Root: 0xf000_0000_0000_0001, Bridge: 0xf000_0000_0000_0001, Port: 0x8001, MaxAge: 20 * 256, HelloTime: 2 * 256, ForwardDelay: 15 * 256}
	b.Receive(2, frameOf(old))
	b.Receive(2, frameOf(BPDU{Type: TypeTCN}))
	ticks(b, 3)
	p = b.Status().Ports[1]
	if !p.STP || p.Rx != (Counters{Config: 1, TCN: 1}) || p.Tx.Config == 0 {
		t.Errorf("STP: %+v", p)
	}
	// BPDU guard counts down.
	setPort(t, b, func(c *PortConfig) { c.BPDUGuard = true })
	b.Receive(1, frameOf(m))
	ticks(b, 100)
	if p := b.Status().Ports[0]; !p.BPDUGuarded || p.RecoverIn != 200 || p.Role != RoleDisabled || p.State != Discarding || !p.Config.BPDUGuard {
		t.Errorf("BPDU guard: %+v", p)
	}
}

// A neighbour's times are kept within what bridges use.
func TestHelloTimeOfANeighbour(t *testing.T) {
	for hello, want := range map[uint16]int{0: 1, 128: 1, 256: 1, 3 * 256: 3, 10 * 256: 10, 11 * 256: 10, 0xffff: 10} {
		b, _ := twoPorts(t)
		m := betterRoot()
		m.HelloTime = hello
		b.Receive(1, frameOf(m))
		if got := b.ports[0].portTimes.hello; got != want {
			t.Errorf("hello time %d/256 s counts as %d s, want %d", hello, got, want)
		}
	}
}

// Each event says something else.
func TestEventsAreToldApart(t *testing.T) {
	seen := make(map[string]EventKind)
	for kind := EventRoot; kind <= EventLoopedOver; kind++ {
		text := Event{Kind: kind, Root: 0x8000_0000_0000_0001, Role: RoleRoot}.String()
		if other, ok := seen[text]; ok || text == "" {
			t.Errorf("events %d and %d say %q", kind, other, text)
		}
		seen[text] = kind
	}
}
