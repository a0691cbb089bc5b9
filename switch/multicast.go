package vswitch

import (
	"encoding/binary"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
)

// Groups says which ports want which multicast frames, as a snooping protocol
// found out (RFC 4541). It is not changed once it was given to SetGroups.
type Groups struct {
	vlans     port.VLANSet
	isControl func(data []byte) bool
	slots     []groupSlot // open addressing, a power of two, half empty
}

type groupSlot struct {
	key   fdb.Key // 0: empty
	ports []uint16
}

// Group is one entry: the ports that frames to MAC in VLAN go to, router ports
// among them. MAC 0 stands for groups of the VLAN that have no entry.
type Group struct {
	VLAN  uint16
	MAC   port.MAC
	Ports []uint16
}

// NewGroups makes a table for the VLANs on which multicast is snooped. Groups
// that have no entry there are flooded, unless MAC 0 has one. isControl tells the
// frames of the snooped protocols, which go to OnControl instead of being
// forwarded; it is called by workers and must not keep or change data.
func NewGroups(vlans port.VLANSet, isControl func(data []byte) bool, entries []Group) *Groups {
	size := 8
	for size < 2*len(entries) {
		size *= 2
	}
	g := &Groups{vlans: vlans, isControl: isControl, slots: make([]groupSlot, size)}
	for _, e := range entries {
		k := groupKey(e.VLAN, e.MAC)
		s := g.slot(k)
		s.key, s.ports = k, e.Ports
	}
	return g
}

// groupKey is never 0: a VLAN is not, and of the rest only MAC 0 is.
func groupKey(vlan uint16, mac port.MAC) fdb.Key { return fdb.MakeKey(vlan, uint64(mac)) }

// slot finds the slot of k, or the empty one where it belongs. The multiplier is
// 2^64 divided by the golden ratio; guests can only make entries up to a limit.
func (g *Groups) slot(k fdb.Key) *groupSlot {
	mask := uint64(len(g.slots) - 1)
	for i := uint64(k) * 0x9e3779b97f4a7c15 >> 32; ; i++ {
		if s := &g.slots[i&mask]; s.key == k || s.key == 0 {
			return s
		}
	}
}

// isIPGroup tells addresses that IP groups map to (RFC 1112 section 6.4, RFC 2464
// section 7) from other multicast, which no host joins.
func isIPGroup(mac port.MAC) bool { return mac>>23 == 0x0100_5e00_0000>>23 || mac>>32 == 0x3333 }

// isLinkLocalGroup tells the groups that are flooded whatever was joined: of
// 224.0.0.0/24 (RFC 4541 section 2.1.2) and ff02::1 (section 3). Solicited-node
// groups of IPv6 are flooded by having no entry.
func isLinkLocalGroup(mac port.MAC) bool {
	return mac>>8 == 0x0100_5e00_0000>>8 || mac == 0x3333_0000_0001
}

func isSolicitedNode(mac port.MAC) bool { return mac>>24 == 0x3333_ff }

// isTunnelled tells a frame that has a tag inside its VLAN. It is of a network that
// is carried through: who joined a group there cannot be told from who did here.
func isTunnelled(f *port.Frame) bool {
	tpid := binary.BigEndian.Uint16(f.Data[12:])
	return f.Opaque || tpid == port.TPIDCustomer || tpid == port.TPIDService
}

// multicast forwards f to the ports that want its group, where that is known, or
// takes what is for the switch itself.
func (w *worker) multicast(out *outputs, f *port.Frame, from *member) (copies int, drop port.Drop) {
	if f.Dst == w.sw.ownGroup {
		return 0, w.sw.control.punt(f, from)
	}
	g := w.set.groups
	if g == nil || !isIPGroup(f.Dst) || !g.vlans.Has(f.VLAN) || isTunnelled(f) {
		return w.flood(out, f, from, Multicast)
	}
	if g.isControl(f.Data) {
		return 0, w.sw.control.punt(f, from)
	}
	if isLinkLocalGroup(f.Dst) {
		return w.flood(out, f, from, Multicast)
	}
	s := g.slot(groupKey(f.VLAN, f.Dst))
	if s.key == 0 && !isSolicitedNode(f.Dst) {
		s = g.slot(groupKey(f.VLAN, 0))
	}
	if s.key == 0 {
		return w.flood(out, f, from, Multicast)
	}
	if from.flags&flagStorm != 0 {
		if drop := from.storm.allow(f, Multicast, w.now()); drop != port.DropNone {
			return 0, drop
		}
	}
	for _, number := range s.ports {
		if to := w.set.member(number); to != nil && whyNot(f, from, to) == port.DropNone {
			out.add(f, to)
			copies++
		}
	}
	if copies == 0 {
		return 0, port.DropNoDestination
	}
	return copies, port.DropNone
}

// SetGroups replaces what is known of multicast groups; nil floods all.
func (s *Switch) SetGroups(g *Groups) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groups = g
	s.publish()
}
