package vswitch

import (
	"encoding/binary"

	"github.com/vswitch/vswitch/internal/eth"
	"github.com/vswitch/vswitch/port"
)

// Groups says which ports want which multicast frames, as a snooping protocol
// found out (RFC 4541). It is not changed once it was given to SetGroups, and its
// functions are called by workers: they take no lock and allocate nothing.
type Groups struct {
	VLANs port.VLANSet // that are snooped

	// IsControl tells the frames of the snooped protocols, which go to OnControl
	// instead of being forwarded. It must not keep or change data.
	IsControl func(data []byte) bool

	// Lookup returns the ports that frames to a group go to, router ports among
	// them, or that they are flooded.
	Lookup func(vlan uint16, mac uint64) (ports []uint16, flood bool)
}

// isIPGroup tells addresses that IP groups map to (RFC 1112 section 6.4, RFC 2464
// section 7) from other multicast, which no host joins.
func isIPGroup(mac port.MAC) bool { return mac>>23 == 0x0100_5e00_0000>>23 || mac>>32 == 0x3333 }

// isTunnelled tells a frame that has a tag inside its VLAN. It is of a network that
// is carried through: who joined a group there cannot be told from who did here.
func isTunnelled(f *port.Frame) bool {
	tpid := binary.BigEndian.Uint16(f.Data[12:])
	return f.Opaque || tpid == port.TPIDCustomer || tpid == port.TPIDService
}

// isLinkControl reports whether f goes to one of the well-known IPv6 groups of link
// scope, ff02::/16 (RFC 4291 section 2.7): control of the link, as neighbour discovery
// and DHCPv6, not all of whose stations report. Groups of wider scope have the same
// MACs, so the packet's destination tells them apart.
func isLinkControl(f *port.Frame) bool {
	const dst = port.HeaderLen + 24 // RFC 8200 section 3
	return len(f.Data) > dst+1 && binary.BigEndian.Uint16(f.Data[12:]) == eth.TypeIPv6 &&
		binary.BigEndian.Uint16(f.Data[dst:]) == 0xff02
}

// multicast forwards f to the ports that want its group, where that is known, or
// takes what is for the switch itself.
func (w *worker) multicast(out *outputs, f *port.Frame, from *member) (copies int, drop port.Drop) {
	for i := range from.traps {
		if t := &from.traps[i]; t.Dst == f.Dst {
			return 0, w.sw.control.punt(f, from.port, t.Queue, f.VLAN)
		}
	}
	if from.flags&flagStorm != 0 {
		if drop := w.storm(f, from, Multicast); drop != port.DropNone {
			return 0, drop
		}
	}
	g := w.set.groups
	if g == nil || !isIPGroup(f.Dst) || !g.VLANs.Has(f.VLAN) || isTunnelled(f) {
		return w.toAll(out, f, from, Multicast)
	}
	if g.IsControl(f.Data) {
		return 0, w.sw.control.punt(f, from.port, QueueGroups, f.VLAN)
	}
	ports, flood := g.Lookup(f.VLAN, uint64(f.Dst))
	if flood || isLinkControl(f) {
		return w.toAll(out, f, from, Multicast)
	}
	for _, number := range ports {
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
