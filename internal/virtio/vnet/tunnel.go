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

	id        uint16
	ipSum     uint32 // IPv4 header without length, identification and checksum
	pseudoSum uint32 // UDP's pseudo header without length
}

const greHeaderLen = 4 // RFC 2784; the checksum and the field beside it take 4 more

// findTunnel finds the packet inside the tunnel p. Its transport header begins where
// the coverage of the checksum that o requests begins. findTunnel searches backwards
// from there for an IP header that ends there and whose packet ends with the frame. n
// is the frame's length.
func findTunnel(head []byte, n int, p eth.IPPacket, o port.Offload) (inner eth.IPPacket, ok bool) {
	l4, from := int(o.CsumStart), p.Transport
	switch p.Proto {
	case eth.ProtoTCP, eth.ProtoSCTP:
		return inner, false // these carry no packets
	case eth.ProtoUDP:
		from += udpHeaderLen
	case eth.ProtoGRE:
		from += greHeaderLen
	}
	// The sum of the outer header adds up only if its 16-bit words align with the inner
	// packet's.
	if l4 > len(head) || (l4-p.Transport)&1 != 0 {
		return inner, false
	}
	gso := o.GSOType &^ (port.GSOECN | port.GSOTunnel)
	if gso == port.GSOTCPv4 || gso == port.GSOUDPL4 {
		for at := l4 - eth.IPv4HeaderLen; at >= from && at >= l4-maxIPv4Header; at -= 4 {
			if inner, ok = eth.FindIPAt(head, at, 4); ok && inner.Transport == l4 && fills(head[at+2:], n-at) {
				return inner, true
			}
		}
	}
	if gso == port.GSOTCPv6 || gso == port.GSOUDPL4 {
		for at := l4 - eth.IPv6HeaderLen; at >= from; at -= 8 {
			if inner, ok = eth.FindIPAt(head, at, 6); ok && inner.Transport == l4 && fills(head[at+4:], n-at-eth.IPv6HeaderLen) {
				return inner, true
			}
		}
	}
	return inner, false
}

// maxIPv4Header is the longest IPv4 header in bytes (RFC 791 section 3.1).
const maxIPv4Header = 60

// fills reports whether a length field holds n, or 0 for a packet too long for it (RFC
// 2675, and the kernel's IPv4 super-frames of more than 64 KiB).
func fills(field []byte, n int) bool {
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
		t.id++
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
	sum := uint32(Sum(dst[t.l4:s.l4])) + uint32(^fold(s.pseudoSum+uint32(n-s.l4)))
	if t.kind == eth.ProtoUDP {
		binary.BigEndian.PutUint16(dst[t.l4+udpCsum:], complement(sum+t.pseudoSum+length))
		return
	}
	binary.BigEndian.PutUint16(dst[t.l4+greHeaderLen:], ^fold(sum))
}
