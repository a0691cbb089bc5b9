package vswitch

import (
	"fmt"

	"github.com/vswitch/vswitch/port"
)

// Mirror copies frames of some ports or VLANs to a port (SPAN) or into a VLAN of
// its own (RSPAN). The originals are not touched.
type Mirror struct {
	Name  string
	Ports []string     // sources
	VLANs port.VLANSet // sources too: these VLANs on all ports
	In    bool         // frames that come in by a source
	Out   bool         // frames that leave by it

	// Where copies go: a port, which then takes no other part in switching, or
	// a VLAN, as whose frames they leave by every port that carries it tagged,
	// in front of the tag they had.
	To     string
	ToVLAN uint16

	SnapLen int // bytes of a frame that are copied; 0 is all

	// Filter chooses the frames that are copied, by the tag that they have at the
	// source, 0 for none, and Frame.Data; nil is all.
	Filter func(tag port.Tag, data []byte) bool
}

// tap is a mirror as workers see it, at one source.
type tap struct {
	*Mirror
	number int     // of the mirror
	at     *member // the source
	all    bool    // whatever the VLAN
	to     []*member
}

// SetMirrors replaces all mirrors. Sources and targets that are not there, or not
// forwarding, take part as soon as they are.
func (s *Switch) SetMirrors(mirrors []Mirror) error {
	names := map[string]bool{}
	for i := range mirrors {
		m := &mirrors[i]
		switch {
		case m.Name == "" || names[m.Name]:
			return fmt.Errorf("mirror %q: a mirror needs a name of its own", m.Name)
		case len(m.Ports) == 0 && m.VLANs.Len() == 0:
			return fmt.Errorf("mirror %s copies from nowhere; name ports or VLANs", m.Name)
		case !m.In && !m.Out:
			return fmt.Errorf("mirror %s copies no direction; use in, out or both", m.Name)
		case (m.To == "") == (m.ToVLAN == 0):
			return fmt.Errorf("mirror %s needs one target, a port or a VLAN", m.Name)
		case m.ToVLAN > port.MaxVID:
			return fmt.Errorf("mirror %s: %w", m.Name, port.CheckVID(int(m.ToVLAN)))
		case m.ToVLAN != 0 && m.VLANs.Has(m.ToVLAN):
			return fmt.Errorf("mirror %s copies VLAN %d into itself; use another VLAN", m.Name, m.ToVLAN)
		case m.SnapLen < 0 || m.SnapLen > 0 && m.SnapLen < port.HeaderLen:
			return fmt.Errorf("mirror %s: %d bytes do not hold a header; use %d or more, or 0 for all", m.Name, m.SnapLen, port.HeaderLen)
		}
		for _, p := range m.Ports {
			if p == m.To {
				return fmt.Errorf("mirror %s copies port %s to itself; use another port", m.Name, p)
			}
		}
		names[m.Name] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mirrors = mirrors
	s.publish()
	return nil
}

// addTaps gives the members of a new set what the mirrors ask of them.
func (s *Switch) addTaps(set *portSet) {
	set.mirrors = len(s.mirrors)
	for i := range s.mirrors {
		m := &s.mirrors[i]
		t := tap{Mirror: m, number: i}
		if m.To != "" {
			if p := s.byName[m.To]; p != nil {
				if to := set.member(p.number); to != nil {
					to.flags |= flagMirrorTarget
					t.to = []*member{to}
				}
			}
		} else {
			for _, to := range set.flood {
				if to.vlans.Has(m.ToVLAN) {
					t.to = append(t.to, to)
				}
			}
		}
		if len(t.to) == 0 {
			continue
		}
		sources := map[uint16]bool{}
		for _, name := range m.Ports {
			if p := s.byName[name]; p != nil {
				sources[p.number] = true
			}
		}
		for _, from := range set.flood {
			t.at, t.all = from, sources[from.number]
			if !t.all && m.VLANs.Len() == 0 {
				continue
			}
			if m.In {
				from.flags |= flagMirrorIn
				from.mirrorIn = append(from.mirrorIn, t)
			}
			if m.Out {
				from.flags |= flagMirrorOut
				from.mirrorOut = append(from.mirrorOut, t)
			}
		}
	}
}

// wants reports whether the mirror copies f, which has a tag at the source.
func (t *tap) wants(f *port.Frame, tag port.Tag) bool {
	return (t.all || t.VLANs.Has(f.VLAN)) && (t.Filter == nil || t.Filter(tag, f.Data))
}

// mirroredIn notes that mirrors copied a frame when it came in, before it waited to be
// passed on.
func (o *outputs) mirroredIn(from *member, f *port.Frame) {
	for i := range from.mirrorIn {
		if t := &from.mirrorIn[i]; t.wants(f, f.Tag) {
			o.copied[t.number] = f
		}
	}
}

// mirrorIn copies a frame that came in. One that was refused before its VLAN was
// known is copied for its port only; one whose offload header lies is copied for nobody.
func (o *outputs) mirrorIn(from *member, f *port.Frame, drop port.Drop) {
	if f.Drop != port.DropNone || len(f.Data) < port.HeaderLen {
		return
	}
	switch drop {
	case port.DropNone, port.DropPoliced:
	default:
		if !inspect(f) {
			return
		}
		f.VLAN = 0
	}
	o.mirror(from.mirrorIn, f, f.Tag, false)
}

// mirror puts copies of f, as it looks with tag, into the vectors of the targets.
func (o *outputs) mirror(taps []tap, f *port.Frame, tag port.Tag, push bool) {
	for i := range taps {
		t := &taps[i]
		if o.copied[t.number] == f || !t.wants(f, tag) {
			continue
		}
		cp, cut := f, t.SnapLen != 0 && f.DataLen() > t.SnapLen
		// Whoever watches sees what is sent, not what it was changed to.
		if (!cut || t.SnapLen > len(f.Data)) && !o.done.flatten(f) {
			continue
		}
		if cut {
			cp = o.cut.copyOf(f)
			cp.Data, cp.Tail = f.Data[:t.SnapLen:t.SnapLen], nil
			cp.Offload = port.Offload{} // it says nothing of what is left
		}
		o.copied[t.number] = f
		out := port.Out{Frame: cp, Tag: tag, Push: push}
		for _, to := range t.to {
			if to == t.at || whyNotCopy(t.Mirror, o.from, to) != port.DropNone {
				continue
			}
			if t.ToVLAN != 0 {
				out.Tag, out.Push = port.MakeTag(to.tpid, t.ToVLAN), true
			}
			o.put(out, to)
			o.copies++
		}
	}
}
