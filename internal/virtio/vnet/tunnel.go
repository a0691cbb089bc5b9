package vnet

import (
	"encoding/binary"

	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/port"
)

// outer is the tunnel around a Segmenter's packets: an IP header, and the tunnel's own
// headers in front of the inner packet. Of these, only the outer lengths, IPv4
// identification and checksums differ from segment to segment. Everything else is
// repeated, so the kind of tunnel does not matter: VXLAN, GENEVE with options, GRE,
// IPIP and the like.
type outer struct {
	on   bool
	ipv4 bool
	ip   int   // offsets of these headers
	l4   int   // the UDP or GRE header, or whatever follows the IP header
	kind uint8 // protocol of that header
	csum bool  // UDP or GRE with a checksum

	// A routing header or option may give another address, which a checksum would cover.
	routed bool

	// Of Split: a frame longer than that is a super-frame. What covers it has no checksum yet,
	// but UDP the sum of the pseudo header. 0: there are none.
	whole int

	id        uint16
	ipSum     uint32 // IPv4 header without length, identification and checksum
	pseudoSum uint32 // UDP's pseudo header without length
}

const greHeaderLen = 4 // RFC 2784; the checksum and the field beside it take 4 more

// Protocol numbers of packets and frames inside packets (RFC 2003, RFC 4213, RFC 4023, RFC 8986).
const (
	protoIPv4     uint8 = 4
	protoIPv6     uint8 = 41
	protoMPLS     uint8 = 137
	protoEthernet uint8 = 143
)

// findInner finds the packet inside the tunnel p of a frame of n bytes. Its transport header
// begins where the coverage of the checksum that o requests begins, so findInner searches
// backwards from there for an IP header that ends there: the kind of tunnel does not matter.
// What looks like such a header may be part of a MAC address, of a key or of an option; it is
// one only if the packet has what o says.
func findInner(head []byte, n int, p eth.IPPacket, o port.Offload) (inner eth.IPPacket, ok bool) {
	l4, from := int(o.CsumStart), p.Transport
	switch p.Proto {
	case eth.ProtoUDP:
		from += udpHeaderLen
	case eth.ProtoGRE:
		from += greHeaderLen
	case protoIPv4, protoIPv6, protoMPLS, protoEthernet:
	default:
		return inner, false
	}
	if l4 > len(head) {
		return inner, false
	}
	for at := l4 - eth.IPv4HeaderLen; at >= from && at >= l4-maxIPv4Header; at -= 4 {
		if inner, ok = eth.FindIPAt(head, at, 4); ok && inner.Transport == l4 && isOf(head, n, inner, o) {
			return inner, true
		}
	}
	for at := l4 - eth.IPv6HeaderLen; at >= from; at -= 8 {
		if inner, ok = eth.FindIPAt(head, at, 6); ok && inner.Transport == l4 && isOf(head, n, inner, o) {
			return inner, true
		}
	}
	return inner, false
}

// isOf reports whether o can be that of the packet p in a tunnel, in a frame of n bytes: it
// has the checksum, and if o is a super-frame's, its type, and ends with the frame.
func isOf(head []byte, n int, p eth.IPPacket, o port.Offload) bool {
	if !o.IsGSO() {
		return hasChecksum(head, n, p, o)
	}
	if p.Fragment {
		return false
	}
	switch o.GSOType &^ (port.GSOECN | port.GSOTunnel) {
	case port.GSOTCPv4:
		return p.Version == 4 && p.Proto == eth.ProtoTCP && fills(head, n, p)
	case port.GSOTCPv6:
		return p.Version == 6 && p.Proto == eth.ProtoTCP && fills(head, n, p)
	case port.GSOUDPL4:
		return p.Proto == eth.ProtoUDP && fills(head, n, p)
	}
	return false
}

// maxIPv4Header is the longest IPv4 header in bytes (RFC 791 section 3.1).
const maxIPv4Header = 60

// fills reports whether a packet ends where its frame of n bytes does. Its length is 0 if it is
// too long for the field (RFC 2675, and the kernel's IPv4 super-frames of more than 64 KiB).
func fills(head []byte, n int, p eth.IPPacket) bool {
	field, n := head[p.Header+2:], n-p.Header
	if p.Version == 6 {
		field, n = head[p.Header+4:], n-eth.IPv6HeaderLen
	}
	length := int(binary.BigEndian.Uint16(field))
	return length == n || length == 0 && n > maxIPLen
}

// setOuter prepares the tunnel p around the segments of a frame of n bytes.
func (s *Segmenter) setOuter(p eth.IPPacket, n int) {
	t := &s.outer
	*t = outer{on: true, ipv4: p.Version == 4, ip: p.Header, l4: p.Transport, kind: p.Proto}
	t.routed = p.Routed || t.ipv4 && t.l4-t.ip > eth.IPv4HeaderLen
	h := s.head[t.l4:]
	switch t.kind {
	case eth.ProtoUDP:
		// Without a checksum the field is zero (RFC 768, RFC 6935). With one, the
		// kernel put the sum of the pseudo header there, with the length of the
		// super-frame.
		sum := binary.BigEndian.Uint16(h[udpCsum:])
		t.csum = sum != 0
		t.pseudoSum = uint32(sum) + uint32(^fold(uint32(n-t.l4)))
		clear(h[4:8])
	case eth.ProtoGRE:
		t.csum = h[0]&0x80 != 0 // RFC 2784 section 2.1
		if t.csum {
			clear(h[4:8])
		}
	}
	if t.ipv4 {
		t.id, t.ipSum = fixIPv4(s.head[t.ip:t.l4])
	}
}

// fixIPv4 clears the fields of an IPv4 header that differ between segments, and returns
// the first identification and the sum over the rest.
func fixIPv4(h []byte) (id uint16, sum uint32) {
	id = binary.BigEndian.Uint16(h[4:])
	clear(h[2:6])
	clear(h[10:12])
	return id, uint32(Sum(h))
}

// putOuter writes the tunnel's headers of a segment of n bytes whose inner headers are
// in dst. The sum of a packet with a correct checksum is the complement of its pseudo
// header's, so the payload need not be read again.
func (s *Segmenter) putOuter(dst []byte, n int) {
	t := &s.outer
	h := dst[t.ip:]
	if t.ipv4 {
		length := n - t.ip
		binary.BigEndian.PutUint16(h[2:], uint16(length))
		binary.BigEndian.PutUint16(h[4:], t.id)
		binary.BigEndian.PutUint16(h[10:], ^fold(t.ipSum+uint32(length)+uint32(t.id)))
		t.id += uint16(s.step)
	} else {
		binary.BigEndian.PutUint16(h[4:], uint16(n-t.ip-eth.IPv6HeaderLen))
	}
	length := uint32(n - t.l4)
	if t.kind == eth.ProtoUDP {
		binary.BigEndian.PutUint16(dst[t.l4+4:], uint16(length))
	}
	if !t.csum {
		return
	}
	if t.whole != 0 && n > t.whole {
		if t.kind == eth.ProtoUDP {
			binary.BigEndian.PutUint16(dst[t.l4+udpCsum:], fold(t.pseudoSum+length))
		}
		return
	}
	sum := uint32(Sum(dst[t.l4:s.l4])) + uint32(^fold(s.pseudoSum+uint32(n-s.l4)))
	if t.kind == eth.ProtoUDP {
		binary.BigEndian.PutUint16(dst[t.l4+udpCsum:], complement(sum+t.pseudoSum+length))
		return
	}
	binary.BigEndian.PutUint16(dst[t.l4+greHeaderLen:], ^fold(sum))
}
