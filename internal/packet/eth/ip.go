package eth

import "encoding/binary"

// Protocol numbers (IANA, Assigned Internet Protocol Numbers).
const (
	ProtoHopByHop    uint8 = 0
	ProtoTCP         uint8 = 6
	ProtoUDP         uint8 = 17
	ProtoRouting     uint8 = 43
	ProtoFragment    uint8 = 44
	ProtoGRE         uint8 = 47
	ProtoDestOptions uint8 = 60
	ProtoSCTP        uint8 = 132
)

// Lengths of headers without options, in bytes (RFC 791, RFC 8200).
const (
	IPv4HeaderLen = 20
	IPv6HeaderLen = 40
)

const (
	// headerLen is the length of an untagged Ethernet header.
	headerLen = 14

	// maxTags is how many VLAN tags are skipped, as in the kernel (VLAN_MAX_DEPTH in
	// include/linux/if_vlan.h).
	maxTags = 8

	// maxExtensions bounds the walk along IPv6 extension headers. RFC 8200 section 4.1
	// allows four kinds before the transport header, one of them twice.
	maxExtensions = 8
)

// IPPacket locates the parts of an IP packet in its frame. Offsets are in bytes from
// the destination address.
type IPPacket struct {
	Version  uint8 // 4 or 6
	Proto    uint8 // protocol of the header at Transport
	Fragment bool  // a part of a packet, or an IPv6 packet with a fragment header
	Routed   bool  // has an IPv6 routing header: the destination may be an intermediate one

	Header    int // the IP header
	ProtoAt   int // the octet that Proto was read from
	Transport int // what follows the IP header, its options and extension headers
}

// FindIP finds the IP packet in a frame, behind any VLAN tags. ok is false if there is
// none, or if its headers exceed the frame. FindIP checks neither the packet's length
// fields nor its checksum.
func FindIP(frame []byte) (p IPPacket, ok bool) {
	at := headerLen
	if len(frame) < at {
		return p, false
	}
	etherType := binary.BigEndian.Uint16(frame[at-2:])
	for tags := 0; etherType == TypeVLAN || etherType == TypeQinQ; tags++ {
		at += 4
		if tags == maxTags || len(frame) < at {
			return p, false
		}
		etherType = binary.BigEndian.Uint16(frame[at-2:])
	}
	switch etherType {
	case TypeIPv4:
		return FindIPAt(frame, at, 4)
	case TypeIPv6:
		return FindIPAt(frame, at, 6)
	}
	return p, false
}

// FindIPAt is FindIP for a packet of the given version, 4 or 6, whose header begins at
// an offset into the frame.
func FindIPAt(frame []byte, at int, version uint8) (p IPPacket, ok bool) {
	p.Header = at
	switch b := frame[at:]; {
	case version == 4 && len(b) >= IPv4HeaderLen && b[0]>>4 == 4:
		n := int(b[0]&0xf) * 4
		if n < IPv4HeaderLen || n > len(b) {
			return p, false
		}
		p.Version, p.Proto, p.ProtoAt, p.Transport = 4, b[9], at+9, at+n
		p.Fragment = binary.BigEndian.Uint16(b[6:])&0x3fff != 0 // more fragments, or an offset
		return p, true
	case version == 6 && len(b) >= IPv6HeaderLen && b[0]>>4 == 6:
		p.Version, p.Proto, p.ProtoAt, p.Transport = 6, b[6], at+6, at+IPv6HeaderLen
		return p, p.passExtensions(frame)
	}
	return p, false
}

// passExtensions moves Transport behind the IPv6 extension headers (RFC 8200 section
// 4). It stops at a fragment header, which hides the rest.
func (p *IPPacket) passExtensions(frame []byte) (ok bool) {
	for range maxExtensions {
		b := frame[p.Transport:]
		n := 8
		switch p.Proto {
		case ProtoHopByHop, ProtoRouting, ProtoDestOptions:
			if len(b) < n {
				return false
			}
			n += int(b[1]) * 8
		case ProtoFragment:
		default:
			return true
		}
		if len(b) < n {
			return false
		}
		end := p.Proto == ProtoFragment
		p.Fragment = p.Fragment || end
		p.Routed = p.Routed || p.Proto == ProtoRouting
		p.Proto, p.ProtoAt, p.Transport = b[0], p.Transport, p.Transport+n
		if end {
			return true
		}
	}
	return false
}
