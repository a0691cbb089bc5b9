package vswitch

import (
	"encoding/binary"

	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/port"
)

// SetResolution sets whether the port's messages of address resolution, ARP and neighbour
// discovery, go to OnControl in QueueResolution. Those to all stations, to a group, or to an
// address of the switch are taken out of forwarding; who takes them floods what it does not
// answer. Of those to a known station a copy goes there, if there is room. Storm control comes
// before.
func (p *Port) SetResolution(on bool) {
	s := p.sw
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.resolution != on {
		p.resolution = on
		p.publish()
	}
}

// isResolution reports whether f is an ARP message, or a neighbour solicitation or
// advertisement (RFC 4861 section 4), of the stations of its VLAN, and not of a machine's own behind a tag.
func isResolution(f *port.Frame) bool {
	const (
		next, hops, kind = port.HeaderLen + 6, port.HeaderLen + 7, port.HeaderLen + eth.IPv6HeaderLen

		icmpv6, solicitation, advertisement = 58, 135, 136
	)
	switch b := f.Data; binary.BigEndian.Uint16(b[12:]) {
	case eth.TypeARP:
		return !isTunnelled(f)
	case eth.TypeIPv6:
		return len(b) > kind && b[next] == icmpv6 && b[hops] == 255 && (b[kind] == solicitation || b[kind] == advertisement) && !isTunnelled(f)
	}
	return false
}
