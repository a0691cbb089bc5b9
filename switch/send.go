package vswitch

import (
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
)

// Flood sends a control frame by every port that a flooded frame of its VLAN would leave
// by, had it come by c.Port; nil stands for the switch itself, whose frames also go to
// ports with NoFlood: it asks the stations there. See Send.
func (s *Switch) Flood(c ControlFrame) {
	s.emit(c, func(set *portSet, send func(*member)) {
		for _, to := range set.flood {
			if c.Port == nil || to.flags&(flags(Multicast)<<flagNoFloodShift) == 0 {
				send(to)
			}
		}
	})
}

// Send sends a control frame by those ports: one that OnControl was given and that goes
// on now, or one of the switch's own, with a nil Port. It obeys all that data does:
// VLANs, isolation, the spanning tree, mirrors; and its tag keeps the priority of c.Tag.
// What leaves counts as Injected. Any goroutine may call it; it does not wait, and what
// it cannot send is dropped.
func (s *Switch) Send(c ControlFrame, ports ...uint16) {
	s.emit(c, func(set *portSet, send func(*member)) {
		for _, number := range ports {
			if to := set.member(number); to != nil {
				send(to)
			}
		}
	})
}

// emit passes c through egress: each says by which ports.
func (s *Switch) emit(c ControlFrame, each func(set *portSet, send func(*member))) {
	set := s.ports.Load()
	from := &member{number: fdb.NoPort}
	if c.Port != nil {
		if from = set.member(c.Port.number); from == nil || from.port != c.Port {
			return
		}
	}
	var f port.Frame
	if f.SetStripped(c.Data, c.Tag); f.Drop != port.DropNone {
		return
	}
	f.VLAN = c.VLAN
	out := s.vecs.Get().(*outputs)
	out.begin(set, from, 0)
	out.control = c.Port == nil // what is passed on has no right of way
	out.mirroredIn(from, &f)
	sent := uint64(0)
	each(set, func(to *member) {
		if whyNot(&f, from, to) == port.DropNone {
			out.add(&f, to)
			sent++
		}
	})
	out.flush(0)
	s.injected.Add(sent + out.copies)
	s.vecs.Put(out)
}
