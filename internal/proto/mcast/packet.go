package mcast

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
)

// Family is the version of IP, and so the protocol: IGMP or MLD.
type Family uint8

const (
	IPv4 Family = iota
	IPv6
)

func (f Family) String() string {
	switch f {
	case IPv4:
		return "ipv4"
	case IPv6:
		return "ipv6"
	}
	return fmt.Sprintf("family(%d)", uint8(f))
}

// addrLen is the length of an address in bytes.
func (f Family) addrLen() int {
	if f == IPv4 {
		return 4
	}
	return 16
}

const (
	headerLen  = 14 // of an untagged Ethernet frame
	maxHeaders = 8  // bound on the IPv6 extension headers walked

	protoIGMP   = 2 // IANA protocol numbers
	protoICMPv6 = 58
	protoPIM    = 103

	ipv4Prefix     = 0x0100_5e00_0000 // and 23 bits of the group, RFC 1112 section 6.4
	ipv4PrefixMask = 0xffff_ff80_0000
	ipv6Prefix     = 0x3333_0000_0000 // and 32 bits of the group, RFC 2464 section 7
	ipv6PrefixMask = 0xffff_0000_0000
)

// IsControl reports whether a frame, without its VLAN's tag, must go to Receive: an IGMP, MLD
// or PIM message to a group address, or one that may hide it where hosts would find it. Such
// a frame is none that Receive accepts. IsControl allocates nothing and costs one comparison
// for a frame that is not multicast.
func IsControl(frame []byte) bool {
	if len(frame) < headerLen+10 || frame[0]&1 == 0 {
		return false
	}
	n := eth.Priorities(frame)
	typ, b := binary.BigEndian.Uint16(frame[12+n:]), frame[headerLen+n:]
	switch typ {
	case eth.TypeIPv4:
		return len(b) > 9 && (b[9] == protoIGMP || b[9] == protoPIM)
	case eth.TypeIPv6:
		x := walkIPv6(b)
		return x.odd != Accepted && x.odd != Fragmented || x.proto == protoPIM || x.proto == protoICMPv6 && len(x.payload) > 0 && isMLD(x.payload[0])
	}
	return eth.IsTag(typ) && n == eth.MaxPriorities*4
}

// IsQuery reports whether a frame to the address of a station, without its VLAN's tag, is a query
// or may hide one. Hosts answer such queries (RFC 3376 section 4.1.12, RFC 3810 section 5.1.15),
// and one of an old version silences their leaves for minutes; but no querier is elected by them.
// So it is for ports where no router is believed. IsQuery allocates nothing.
func IsQuery(frame []byte) bool {
	if len(frame) < headerLen+10 || frame[0]&1 != 0 {
		return false
	}
	n := eth.Priorities(frame)
	typ, b := binary.BigEndian.Uint16(frame[12+n:]), frame[headerLen+n:]
	switch typ {
	case eth.TypeIPv4:
		if len(b) < eth.IPv4HeaderLen || b[9] != protoIGMP {
			return false
		}
		const fragmented = 0x3fff // MF and the offset
		at := int(b[0]&0xf) * 4
		return binary.BigEndian.Uint16(b[6:])&fragmented != 0 || at < len(b) && b[at] == igmpQuery
	case eth.TypeIPv6:
		// Without the Router Alert of hop-by-hop options it is none (RFC 3810 section 5).
		if len(b) < eth.IPv6HeaderLen || b[6] != eth.ProtoHopByHop {
			return false
		}
		x := walkIPv6(b)
		return x.odd != Accepted || x.proto == protoICMPv6 && len(x.payload) > 0 && x.payload[0] == mldQuery
	}
	return eth.IsTag(typ) && n == eth.MaxPriorities*4
}

// extensions are what walkIPv6 finds.
type extensions struct {
	proto   uint8 // of payload; none if there is nothing to find
	payload []byte
	alert   bool   // MLD's Router Alert is among them
	odd     Reason // why no message may stand behind them; Accepted: one may
}

const (
	none        = 255 // reserved as a protocol
	protoAH     = 51
	fragmentLen = 8 // of a fragment header

	routed  = BadHeader // the checksum may cover another destination
	tooMany = BadHeader
)

// walkIPv6 skips the extension headers that hosts skip on the way to an MLD message (RFC
// 8200 section 4).
func walkIPv6(b []byte) (x extensions) {
	if len(b) < eth.IPv6HeaderLen {
		return extensions{proto: none}
	}
	x.proto, x.payload = b[6], b[eth.IPv6HeaderLen:]
	for range maxHeaders {
		b := x.payload
		n := fragmentLen
		switch x.proto {
		default:
			return x
		case eth.ProtoHopByHop, eth.ProtoDestOptions, eth.ProtoRouting, eth.ProtoFragment, protoAH:
			if len(b) < 8 {
				return extensions{proto: none, odd: Truncated}
			}
		}
		switch x.proto {
		case eth.ProtoFragment:
			if binary.BigEndian.Uint16(b[2:])&^7 != 0 {
				return extensions{proto: none, odd: Fragmented} // of what the first fragment begins
			}
			x.odd = cmp.Or(x.odd, Fragmented)
		case protoAH:
			n = 4 * (int(b[1]) + 2) // RFC 4302 section 2.2
		default:
			n = 8 + int(b[1])*8
		}
		if n > len(b) {
			return extensions{proto: none, odd: Truncated}
		}
		switch x.proto {
		case eth.ProtoHopByHop:
			x.alert = x.alert || hasMLDAlert(b[2:n])
		case eth.ProtoRouting:
			x.odd = routed
		}
		x.proto, x.payload = b[0], b[n:]
	}
	return extensions{proto: none, odd: tooMany}
}

// hasMLDAlert reports whether options hold a Router Alert with value 0 (RFC 2711
// section 2.1).
func hasMLDAlert(options []byte) bool {
	for len(options) > 0 {
		if options[0] == 0 { // Pad1
			options = options[1:]
			continue
		}
		if len(options) < 2 || 2+int(options[1]) > len(options) {
			return false
		}
		n := 2 + int(options[1])
		if options[0] == 5 && n == 4 && options[2] == 0 && options[3] == 0 {
			return true
		}
		options = options[n:]
	}
	return false
}

// packet is a well-formed IP packet; payload is what IP carries.
type packet struct {
	family   Family
	proto    uint8
	hopLimit uint8
	alert    bool // has MLD's Router Alert
	misled   bool // the frame went to the MAC of another group than the packet's
	src, dst netip.Addr
	payload  []byte
}

// decode reads the packet of a frame for which IsControl holds.
func decode(frame []byte) (p packet, reason Reason) {
	if len(frame) < headerLen {
		return p, Truncated
	}
	n := eth.Priorities(frame)
	b := frame[headerLen+n:]
	switch binary.BigEndian.Uint16(frame[12+n:]) {
	case eth.TypeIPv4:
		p, reason = decodeIPv4(b)
	case eth.TypeIPv6:
		p, reason = decodeIPv6(b)
	default:
		return p, BadHeader
	}
	// Hosts receive what their NIC admits, by MAC. A query to all systems that went to
	// a MAC nobody listens to would count as sent, but nobody would answer.
	p.misled = reason == Accepted && (!p.dst.IsMulticast() || groupMAC(p.dst) != binary.BigEndian.Uint64(frame)>>16)
	return p, reason
}

func decodeIPv4(b []byte) (p packet, _ Reason) {
	if len(b) < eth.IPv4HeaderLen {
		return p, Truncated
	}
	n, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
	switch {
	case b[0]>>4 != 4 || n < eth.IPv4HeaderLen || total < n:
		return p, BadHeader
	case total > len(b):
		return p, Truncated
	case checksum(0, b[:n]) != 0:
		return p, BadIPChecksum
	case binary.BigEndian.Uint16(b[6:])&0x3fff != 0: // more fragments, or an offset
		return p, Fragmented
	}
	p = packet{
		family: IPv4, proto: b[9], hopLimit: b[8],
		src: netip.AddrFrom4([4]byte(b[12:])), dst: netip.AddrFrom4([4]byte(b[16:])),
		payload: b[n:total],
	}
	// RFC 1122 section 3.2.1.3: neither a group nor broadcast is a source.
	if p.src.IsMulticast() || p.src == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return p, BadSource
	}
	return p, Accepted
}

func decodeIPv6(b []byte) (p packet, _ Reason) {
	if len(b) < eth.IPv6HeaderLen {
		return p, Truncated
	}
	total := eth.IPv6HeaderLen + int(binary.BigEndian.Uint16(b[4:]))
	switch {
	case b[0]>>4 != 6:
		return p, BadHeader
	case total > len(b):
		return p, Truncated
	}
	p = packet{
		family: IPv6, hopLimit: b[7],
		src: netip.AddrFrom16([16]byte(b[8:])), dst: netip.AddrFrom16([16]byte(b[24:])),
	}
	x := walkIPv6(b[:total])
	p.proto, p.payload, p.alert = x.proto, x.payload, x.alert
	if p.src.IsMulticast() { // RFC 4291 section 2.7
		return p, BadSource
	}
	return p, x.odd
}

// checksum returns 0 if the payload's checksum is right. For IPv6 it covers a pseudo
// header too.
func (p *packet) checksum() uint16 {
	var pseudo uint32
	if p.family == IPv6 {
		pseudo = pseudoSum(p.src, p.dst, p.proto, len(p.payload))
	}
	return checksum(pseudo, p.payload)
}

// pseudoSum returns the sum over the pseudo header of RFC 8200 section 8.1.
func pseudoSum(src, dst netip.Addr, proto uint8, length int) uint32 {
	return uint32(proto) + uint32(length) + uint32(vnet.Sum(src.AsSlice())) + uint32(vnet.Sum(dst.AsSlice()))
}

// checksum returns the Internet checksum of b added to sum (RFC 1071): 0 for a message
// whose checksum is right.
func checksum(sum uint32, b []byte) uint16 {
	sum += uint32(vnet.Sum(b))
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum + sum>>16)
}

// groupMAC returns the destination MAC of a group's frames (RFC 1112 section 6.4, RFC
// 2464 section 7).
func groupMAC(group netip.Addr) uint64 {
	if group.Is4() {
		return ipv4Prefix | uint64(macKey(group))
	}
	return ipv6Prefix | uint64(macKey(group))
}

// macKey returns the part of a group that is in its MAC: its lower 23 or 32 bits.
func macKey(group netip.Addr) uint32 {
	if group.Is4() {
		a := group.As4()
		return binary.BigEndian.Uint32(a[:]) &^ 0xff80_0000
	}
	a := group.As16()
	return binary.BigEndian.Uint32(a[12:])
}

// tracked reports whether a group has members in the sense of RFC 4541. The control
// groups of a link have none, they always flood: 224.0.0.0/24 (section 2.1.2), the
// well-known IPv6 groups of link scope, ff02::/16 (RFC 4291 section 2.7), solicited-
// node groups among them, and the scopes below, for which MLD sends no reports (RFC
// 3810 section 6).
func tracked(group netip.Addr) bool {
	if group.Is4() {
		a := group.As4()
		return a[0]>>4 == 0xe && (a[0] != 224 || a[1] != 0 || a[2] != 0)
	}
	a := group.As16()
	return a[0] == 0xff && a[1]&0xf >= 2 && a[1] != 2
}

var (
	allSystems = netip.AddrFrom4([4]byte{224, 0, 0, 1})
	allNodes   = netip.IPv6LinkLocalAllNodes()
)
