package vswitch

import (
	"encoding/binary"

	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/port"
)

// Groups says which ports want which multicast frames, as learned by snooping (RFC 4541).
// It is immutable once passed to SetGroups. Workers call its functions, which must take
// no lock and allocate nothing.
type Groups struct {
	VLANs port.VLANSet // the snooped VLANs

	// IsControl reports whether data, to a group address of any kind, is a frame of a snooped
	// protocol, which goes to OnControl instead of being forwarded. It must not keep or change data.
	IsControl func(data []byte) bool

	// IsQuery reports whether data, to the address of a station, is a query of a snooped protocol
	// or may hide one; see Port.SetRouterGuard. It must not keep or change data. nil: none is.
	IsQuery func(data []byte) bool

	// Lookup returns the ports for frames to a group, router ports included, or reports
	// that such frames are flooded.
	Lookup func(vlan uint16, mac uint64) (ports []uint16, flood bool)

	// Each calls f for every group for which Lookup returns ports, and Rest returns what
	// Lookup does for the other groups of IPv4 or IPv6 in a VLAN. Lookup may flood some of
	// them whatever Rest says: 224.0.0.0/24 and, of IPv6, those whose MACs are the ones of
	// ff02::0-ff, of ff02::1:0/112 and of solicited-node groups. A fast path calls both,
	// once for each Groups; if they are nil, it leaves snooped groups to the switch.
	Each func(f func(vlan uint16, mac uint64, ports []uint16))
	Rest func(vlan uint16, ipv6 bool) (ports []uint16, flood bool)
}

// isIPGroup reports whether IP groups map to the address (RFC 1112 section 6.4, RFC 2464
// section 7). Hosts cannot join other multicast addresses.
func isIPGroup(mac port.MAC) bool { return mac>>23 == 0x0100_5e00_0000>>23 || mac>>32 == 0x3333 }

// isTunnelled reports whether a frame has the tag of a VLAN inside its VLAN. Such a frame
// belongs to a network that the switch carries, whose group members cannot be told from those
// here. A priority tag names no VLAN: hosts take what is behind it.
func isTunnelled(f *port.Frame) bool {
	if f.Opaque && f.Tag.VID() != 0 {
		return true
	}
	n := eth.Priorities(f.Data)
	inner := f.Data[12+n:]
	return eth.IsTag(binary.BigEndian.Uint16(inner)) && (len(inner) < 4 || binary.BigEndian.Uint16(inner[2:])&0xfff != 0)
}

// isLinkControl reports whether f goes to a well-known IPv6 group of link scope, ff02::/16
// (RFC 4291 section 2.7). Such groups carry link control, such as neighbour discovery and
// DHCPv6, and not all their members report. Groups of wider scope share the same MACs, so
// the check uses the packet's destination.
func isLinkControl(f *port.Frame) bool {
	const dst = port.HeaderLen + 24 // RFC 8200 section 3
	b := f.Data[eth.Priorities(f.Data):]
	return len(b) > dst+1 && binary.BigEndian.Uint16(b[12:]) == eth.TypeIPv6 &&
		binary.BigEndian.Uint16(b[dst:]) == 0xff02
}

// snoops reports whether f, to a group address of any kind, is of a network whose groups are
// known. A nil g knows none.
func (g *Groups) snoops(f *port.Frame) bool {
	return g != nil && g.VLANs.Has(f.VLAN) && !isTunnelled(f)
}

// isQuery reports whether f is a query to the address of a station.
func (g *Groups) isQuery(f *port.Frame) bool {
	return !f.Dst.IsGroup() && g.snoops(f) && g.IsQuery != nil && g.IsQuery(f.Data)
}

// SetRouterGuard sets whether queries to the address of a station that come by the port go to
// OnControl in QueueGroups instead of being forwarded, as those to groups do by any port. Only
// routers send such messages.
func (p *Port) SetRouterGuard(on bool) {
	s := p.sw
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.routerGuard != on {
		p.routerGuard = on
		p.publish()
	}
}

// multicast punts f if it is for the switch; otherwise it forwards f to the ports that
// want its group, or floods it if those are not known.
func (w *worker) multicast(out *outputs, f *port.Frame, from *member) (copies int, drop port.Drop) {
	for i := range from.traps {
		if t := &from.traps[i]; t.matches(f) {
			return 0, w.punt(f, from.port, t.Queue, f.VLAN)
		}
	}
	if from.flags&flagStorm != 0 {
		if drop := w.storm(f, from, Multicast); drop != port.DropNone {
			return 0, drop
		}
	}
	if from.flags&flagResolution != 0 && isResolution(f) {
		return 0, w.punt(f, from.port, QueueResolution, f.VLAN)
	}
	g := w.set.groups
	if !g.snoops(f) {
		return w.toAll(out, f, from, Multicast)
	}
	if g.IsControl(f.Data) {
		return 0, w.punt(f, from.port, QueueGroups, f.VLAN)
	}
	if !isIPGroup(f.Dst) {
		return w.toAll(out, f, from, Multicast)
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

// SetGroups replaces the multicast groups; with nil, all multicast is flooded.
func (s *Switch) SetGroups(g *Groups) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groups = g
	s.publish()
}
