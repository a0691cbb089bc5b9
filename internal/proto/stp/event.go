package stp

import "fmt"

// EventKind is what happened.
type EventKind uint8

// The events. All except EventRoot concern a port.
const (
	EventRoot             EventKind = iota // the root bridge changed to Root
	EventRole                              // the port's role changed to Role
	EventTopologyDetected                  // the port started forwarding, so stations may have moved
	EventTopologyNotified                  // a neighbour reported such a change
	EventBPDUGuard                         // a BPDU arrived, and BPDU guard disabled the port
	EventRecovered                         // the port that BPDU guard disabled recovered
	EventRootGuard                         // a better root is kept out; the port does not forward
	EventRootGuardOver                     // the better root is no longer heard
	EventSTP                               // the neighbour does not speak RSTP; the port speaks STP
	EventRSTP                              // the port speaks RSTP again
	EventLooped                            // BPDUs return on the port that sent them; it does not forward
	EventLoopedOver                        // they no longer return
)

// Event is one thing that happened.
type Event struct {
	Kind EventKind
	Port uint16
	Role Role
	Root BridgeID
}

// String describes the event for a log, without the port.
func (e Event) String() string {
	switch e.Kind {
	case EventRoot:
		return fmt.Sprintf("root bridge is %v", e.Root)
	case EventRole:
		return fmt.Sprintf("role is %v", e.Role)
	}
	return [...]string{
		EventTopologyDetected: "topology changed here",
		EventTopologyNotified: "topology changed behind the port",
		EventBPDUGuard:        "disabled by BPDU guard; remove the bridge behind it",
		EventRecovered:        "enabled again after BPDU guard",
		EventRootGuard:        "blocked by root guard: a better root bridge is behind it",
		EventRootGuardOver:    "root guard has nothing to block any more",
		EventSTP:              "speaks STP: the neighbour knows no RSTP",
		EventRSTP:             "speaks RSTP",
		EventLooped:           "blocked, for it hears itself: remove the loop behind it",
		EventLoopedOver:       "hears itself no more",
	}[e.Kind]
}

func (b *Bridge) event(p *port, kind EventKind) {
	b.act.Event(Event{Kind: kind, Port: p.number, Role: p.role, Root: b.rootPriority.root})
}

func (b *Bridge) topologyChanged(p *port, kind EventKind) {
	b.changes++
	b.sinceChange = 0
	b.event(p, kind)
}

// report reports the changes since the last call, after the machines are stable.
func (b *Bridge) report() {
	if root := b.rootPriority.root; root != b.reportedRoot {
		b.reportedRoot = root
		b.act.Event(Event{Kind: EventRoot, Root: root})
	}
	for _, p := range b.ports {
		if p.role != p.reportedRole {
			p.reportedRole = p.role
			b.event(p, EventRole)
		}
		b.reportFlag(p, p.guardsRoot, &p.reportedGuard, EventRootGuard, EventRootGuardOver)
		b.reportFlag(p, !p.sendRSTP, &p.reportedSTP, EventSTP, EventRSTP)
		b.reportFlag(p, p.loopWhile != 0, &p.reportedLoop, EventLooped, EventLoopedOver)
	}
}

func (b *Bridge) reportFlag(p *port, now bool, before *bool, on, off EventKind) {
	if now == *before {
		return
	}
	*before = now
	if now {
		b.event(p, on)
	} else {
		b.event(p, off)
	}
}
