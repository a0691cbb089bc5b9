package vswitch

import (
	"fmt"

	"github.com/vswitch/vswitch/port"
)

// Mirror copies frames of some ports or VLANs to a port (SPAN) or into a dedicated VLAN
// (RSPAN). It leaves the originals unchanged.
type Mirror struct {
	Name  string
	Ports []string     // sources
	VLANs port.VLANSet // also sources: these VLANs on all ports
	In    bool         // copy frames that a source receives
	Out   bool         // copy frames that a source sends

	// The target: a port, which then takes no other part in switching, or a VLAN.
	// Copies into a VLAN leave by every port that carries it tagged, with its tag in
	// front of the tag they had.
	To     string
	ToVLAN uint16

	SnapLen int // bytes of each frame to copy; 0: all

	// Filter reports whether to copy f, whose tag at the source is tag (0: none); nil
	// copies all. It must keep and change nothing of f.
	Filter func(f *port.Frame, tag port.Tag) bool
}

// tap is a mirror at one source, as workers see it.
type tap struct {
	*Mirror
	number int     // of the mirror
	at     *member // the source
	all    bool    // copies frames of every VLAN
	to     []*member
}

// SetMirrors replaces all mirrors. Sources and targets that do not exist yet, or do not
// forward, take part as soon as they do.
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

// addTaps adds the taps of all mirrors to the members of a new set.
func (s *Switch) addTaps(set *portSet) {
	set.mirrors = len(s.mirrors)
	for i := range s.mirrors {
		m := &s.mirrors[i]
		t := tap{Mirror: m, number: i}
		if m.To != "" {
			if p := s.byName[m.To]; p != nil {
				if to := set.member(p.number); to != nil {
					to.flags |= flagMirrorTarget
					to.mirrorTo |= uint8(1 << i)
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

// wants reports whether the mirror copies f, whose tag at the source is tag.
func (t *tap) wants(f *port.Frame, tag port.Tag) bool {
	return (t.all || t.VLANs.Has(f.VLAN)) && (t.Filter == nil || t.Filter(f, tag))
}

// mirroredIn records that mirrors copied a frame when it was received, before it waited
// for the control protocols.
func (o *outputs) mirroredIn(from *member, f *port.Frame) {
	for i := range from.mirrorIn {
		if t := &from.mirrorIn[i]; t.wants(f, f.Tag) {
			o.copied[t.number] = f
		}
	}
}

// mirrorIn copies a received frame. A frame dropped before its VLAN was known is copied
// only for its port; one with a false offload header, or that the port's guard refused, is not copied.
func (o *outputs) mirrorIn(from *member, f *port.Frame, drop port.Drop) {
	if f.Drop != port.DropNone || len(f.Data) < port.HeaderLen || drop.ByGuard() {
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
	o.mirror(from.mirrorIn, f, f.Tag, 0)
}

// mirror adds copies of f, as it looks with tag, to the vectors of the targets.
func (o *outputs) mirror(taps []tap, f *port.Frame, tag port.Tag, flags port.OutFlags) {
	for i := range taps {
		t := &taps[i]
		if o.copied[t.number] == f || !t.wants(f, tag) {
			continue
		}
		cp, cut := f, t.SnapLen != 0 && f.DataLen() > t.SnapLen
		// Flatten first: the observer must see the bytes that are sent, not later ones.
		if (!cut || t.SnapLen > len(f.Data)) && !o.done.flatten(f) {
			continue
		}
		if cut {
			cp = o.cut.copyOf(f)
			cp.Data, cp.Tail = f.Data[:t.SnapLen:t.SnapLen], nil
			cp.Offload = port.Offload{} // it does not apply to the truncated copy
		}
		o.copied[t.number] = f
		out := port.Out{Frame: cp, Tag: tag, Flags: flags}
		for _, to := range t.to {
			if to == t.at || whyNotCopy(t.Mirror, o.from, to) != port.DropNone {
				continue
			}
			if t.ToVLAN != 0 {
				out.Tag, out.Flags = port.MakeTag(to.tpid, t.ToVLAN), port.Push
			}
			o.put(out, to)
			o.copies++
		}
	}
}
