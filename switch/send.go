package vswitch

import (
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
)

// Flood sends a control frame through every port that would send a flooded multicast
// frame of its VLAN received from c.Port. A nil c.Port is the switch itself; its frames
// also go to ports with NoFlood, since they query the stations there. See Send.
func (s *Switch) Flood(c ControlFrame) {
	s.emit(c, func(set *portSet, send func(*member)) {
		for _, to := range set.flood {
			if c.Port == nil || to.flags&(flags(Multicast)<<flagNoFloodShift) == 0 {
				send(to)
			}
		}
	})
}

// Send sends a control frame through the given ports: either one that OnControl received
// and now passes on, or, with a nil Port, one that the switch originates. The frame obeys
// the rules for data (VLANs, isolation, spanning tree, mirrors), and its tag keeps the
// priority of c.Tag. Sent frames count as Injected. Any goroutine may call Send; it does
// not wait, and drops what it cannot send.
func (s *Switch) Send(c ControlFrame, ports ...uint16) {
	s.emit(c, func(set *portSet, send func(*member)) {
		for _, number := range ports {
			if to := set.member(number); to != nil {
				send(to)
			}
		}
	})
}

// emit passes c through egress. each calls send for each port.
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
	if c.Port == nil { // frames that are passed on get no precedence
		out.control = port.Control
	}
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
