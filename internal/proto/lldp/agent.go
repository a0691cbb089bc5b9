package lldp

import (
	"cmp"
	"slices"
	"time"

	"github.com/vswitch/vswitch/port"
)

// Timers in seconds, and what follows from them (802.1AB-2016 clause 9.2.5).
const (
	interval = 30 // between two PDUs
	hold     = 4  // intervals until a neighbour forgets the sender
	fast     = 4  // PDUs in a row, one a second, when a neighbour is new or may be

	// TTL is what an agent says of its own PDUs.
	TTL = interval*hold + 1
)

// MaxNeighbors is how many neighbours a port remembers. One is the rule; a hub or a switch
// that forwards the group makes more.
const MaxNeighbors = 16

// Neighbor is a port at the other end of a cable.
type Neighbor struct {
	PDU
	Since time.Time // first heard
	Until time.Time // forgotten then, unless heard again
}

// Counters count what an agent did since it was made (802.1AB-2016 clause 9.2.6).
type Counters struct {
	Sent      uint64 `json:"sent"`
	Received  uint64 `json:"received"`
	Discarded uint64 `json:"discarded"` // malformed
	Aged      uint64 `json:"aged"`      // neighbours that fell silent
	Refused   uint64 `json:"refused"`   // PDUs of neighbours for which there was no room
}

// Agent is the LLDP agent of one port. The zero Agent is one that has sent and heard
// nothing.
type Agent struct {
	Counters Counters

	begun      bool // neighbours have been told to forget who was here before
	wait       int  // seconds until the next PDU
	fast       int  // PDUs that follow each other in a second
	neighbours map[msap]*Neighbor
}

// Message is what an agent sends with a tick.
type Message int

// The messages of an agent.
const (
	Nothing Message = iota

	// Farewell is the PDU of Shutdown. An agent begins with it: a neighbour that knows the port from
	// a process that was killed forgets it, finds a new neighbour a second later, and so answers at
	// once.
	Farewell

	// Greeting is a PDU that a new neighbour is to hear. It names a MED device: before version 1.0.20
	// lldpd answers only a new neighbour that does, and others with its next PDU in up to 30 s. TIA-1057
	// has a switch speak of MED only while it knows of a MED endpoint, so no other PDU names it.
	Greeting

	Reminder // any other PDU
)

// msap identifies a neighbour (802.1AB-2016 clause 3: MAC service access point).
type msap struct{ chassis, port ID }

// Tick is called once a second and returns what the agent sends now. So no more than one PDU
// goes out in a second, as the transmit credit wants (clause 9.2.7.3).
func (a *Agent) Tick(now time.Time) Message {
	for id, n := range a.neighbours {
		if !now.Before(n.Until) {
			delete(a.neighbours, id)
			a.Counters.Aged++
		}
	}
	if !a.begun {
		a.begun, a.wait, a.fast = true, 1, fast
		a.Counters.Sent++
		return Farewell
	}
	if a.wait--; a.wait > 0 {
		return Nothing
	}
	a.wait = interval
	a.Counters.Sent++
	if a.fast == 0 {
		return Reminder
	}
	if a.fast--; a.fast > 0 {
		a.wait = 1
	}
	return Greeting
}

// Announce has a PDU sent with the next tick, since what it says has changed.
func (a *Agent) Announce() { a.wait = 0 }

// Receive takes a frame from the port.
func (a *Agent) Receive(now time.Time, frame []byte) error {
	a.Counters.Received++
	p, err := Parse(frame)
	if err != nil {
		a.Counters.Discarded++
		return err
	}
	id := msap{p.Chassis, p.Port}
	n := a.neighbours[id]
	switch {
	case p.TTL == 0:
		delete(a.neighbours, id)
		return nil
	case n == nil && len(a.neighbours) >= MaxNeighbors:
		a.Counters.Refused++
		return nil
	case n == nil:
		n = &Neighbor{Since: now}
		if a.neighbours == nil {
			a.neighbours = make(map[msap]*Neighbor)
		}
		a.neighbours[id] = n
		if a.fast == 0 { // it should hear of this port soon
			a.fast = fast
			a.wait = min(a.wait, 1)
		}
	}
	n.PDU, n.Until = *p, now.Add(time.Duration(p.TTL)*time.Second)
	return nil
}

// Reset has the agent begin again without neighbours, since the cable may lead elsewhere.
func (a *Agent) Reset() { a.neighbours, a.begun = nil, false }

// Neighbors returns the neighbours, those heard longest first.
func (a *Agent) Neighbors() []Neighbor {
	all := make([]Neighbor, 0, len(a.neighbours))
	for _, n := range a.neighbours {
		all = append(all, *n)
	}
	slices.SortFunc(all, func(x, y Neighbor) int {
		return cmp.Or(x.Since.Compare(y.Since), cmp.Compare(x.Chassis.Value, y.Chassis.Value), cmp.Compare(x.Port.Value, y.Port.Value))
	})
	return all
}

// Shutdown returns the frame that tells neighbours to forget a port (802.1AB-2016 clause
// 9.1.2).
func Shutdown(src port.MAC, p PDU) []byte {
	return Append(nil, src, &PDU{Chassis: p.Chassis, Port: p.Port})
}
