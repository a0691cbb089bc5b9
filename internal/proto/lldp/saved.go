package lldp

import (
	"errors"
	"time"
)

// Saved is an Agent for another process, which goes on with it.
type Saved struct {
	Counters   Counters
	Fresh      bool `json:",omitempty"` // it has not begun
	Wait, Fast int
	Neighbors  []SavedNeighbor
}

// SavedNeighbor is a neighbour of a Saved Agent.
type SavedNeighbor struct {
	Frame     []byte // what it said last
	Age, Left time.Duration
}

// Save returns the Agent as it is.
func (a *Agent) Save(now time.Time) *Saved {
	s := &Saved{Counters: a.Counters, Fresh: !a.begun, Wait: max(0, a.wait), Fast: a.fast}
	for _, n := range a.Neighbors() {
		s.Neighbors = append(s.Neighbors, SavedNeighbor{Append(nil, 0, &n.PDU), now.Sub(n.Since), n.Until.Sub(now)})
	}
	return s
}

// Restore makes the Agent, which has sent and heard nothing, the one that was saved. What neighbours
// said is read as if it came by the port. After an error the Agent is as it was.
func (a *Agent) Restore(now time.Time, s *Saved) error {
	if s.Wait < 0 || s.Wait > interval || s.Fast < 0 || s.Fast > fast || len(s.Neighbors) > MaxNeighbors {
		return errors.New("it is the state of no LLDP agent")
	}
	neighbours := make(map[msap]*Neighbor)
	for _, n := range s.Neighbors {
		p, err := Parse(n.Frame)
		if err != nil {
			return err
		}
		if n.Age < 0 || n.Left > time.Duration(p.TTL)*time.Second {
			return errors.New("a neighbour has times that none has")
		}
		neighbours[msap{p.Chassis, p.Port}] = &Neighbor{PDU: *p, Since: now.Add(-n.Age), Until: now.Add(n.Left)}
	}
	a.Counters, a.begun, a.wait, a.fast, a.neighbours = s.Counters, !s.Fresh, s.Wait, s.Fast, neighbours
	return nil
}
