// Package packettest writes frames for tests, layer by layer from the outside in, draws them, and
// judges what a host would believe of one. It shares no code with the parsers that it is for.
package packettest

import (
	"encoding/binary"
	"net/netip"

	"github.com/vswitch/vswitch/port"
)

// Broadcast is the address of all stations.
const Broadcast port.MAC = 0xffff_ffff_ffff

// Eth returns a frame of at least 60 bytes: what is short of them is padding.
func Eth(dst, src port.MAC, etherType uint16, payload []byte) []byte {
	b := Bare(dst, src, etherType, payload)
	if short := 60 - len(b); short > 0 {
		b = append(b, make([]byte, short)...)
	}
	return b
}

// Bare returns a frame without padding.
func Bare(dst, src port.MAC, etherType uint16, payload []byte) []byte {
	b := append(dst.HardwareAddr(), src.HardwareAddr()...)
	b = binary.BigEndian.AppendUint16(b, etherType)
	return append(b, payload...)
}

// Tag returns a frame with a tag behind its addresses.
func Tag(frame []byte, tag port.Tag) []byte {
	b := append([]byte{}, frame[:12]...)
	b = binary.BigEndian.AppendUint32(b, uint32(tag))
	return append(b, frame[12:]...)
}

// ARP returns an ARP packet.
func ARP(op uint16, sha port.MAC, spa string, tha port.MAC, tpa string) []byte {
	b := []byte{0, 1, 8, 0, 6, 4}
	b = binary.BigEndian.AppendUint16(b, op)
	b = append(append(b, sha.HardwareAddr()...), Addr(spa)...)
	return append(append(b, tha.HardwareAddr()...), Addr(tpa)...)
}

// Addr returns the bytes of an address.
func Addr(text string) []byte { return netip.MustParseAddr(text).AsSlice() }

// IPv4 returns an IPv4 packet.
func IPv4(src, dst string, proto byte, payload []byte) []byte {
	b := []byte{0x45, 0}
	b = binary.BigEndian.AppendUint16(b, uint16(20+len(payload)))
	b = append(b, 0x12, 0x34, 0, 0, 64, proto, 0, 0)
	b = append(append(b, Addr(src)...), Addr(dst)...)
	binary.BigEndian.PutUint16(b[10:], ^sum(0, b))
	return append(b, payload...)
}

// IPv6 returns an IPv6 packet with the hop limit 255. next is the type of the payload's first
// header.
func IPv6(src, dst string, next byte, payload []byte) []byte {
	b := []byte{0x60, 0, 0, 0}
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	b = append(b, next, 255)
	b = append(append(b, Addr(src)...), Addr(dst)...)
	return append(b, payload...)
}

// UDP returns a UDP datagram without a checksum.
func UDP(from, to uint16, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, from)
	b = binary.BigEndian.AppendUint16(b, to)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	return append(append(b, 0, 0), payload...)
}

// ICMPv6 returns an ICMPv6 packet in IPv6, with its checksum.
func ICMPv6(src, dst string, kind byte, body []byte) []byte {
	b := IPv6(src, dst, 58, append([]byte{kind, 0, 0, 0}, body...))
	c := ^sum(uint32(len(b)-40)+58, b[8:])
	binary.BigEndian.PutUint16(b[42:], c)
	return b
}

// ND returns the body of a neighbour solicitation or advertisement behind its checksum.
func ND(target string, options ...byte) []byte {
	return append(append(make([]byte, 4), Addr(target)...), options...)
}

// LinkLayer returns a link-layer address option of ND.
func LinkLayer(kind byte, mac port.MAC) []byte { return append([]byte{kind, 1}, mac.HardwareAddr()...) }

// Extension returns an extension header of 8 bytes with padding, in front of a payload whose
// first header is of type next.
func Extension(next byte, payload []byte) []byte {
	return append([]byte{next, 0, 1, 4, 0, 0, 0, 0}, payload...)
}

// Fragment returns a fragment header in front of a payload; offset is in bytes.
func Fragment(next byte, offset int, more bool, payload []byte) []byte {
	word := uint16(offset) &^ 7
	if more {
		word |= 1
	}
	b := binary.BigEndian.AppendUint16([]byte{next, 0}, word)
	return append(append(b, 0, 0, 0, 7), payload...)
}

// sum adds up b's 16-bit words and returns the folded sum.
func sum(s uint32, b []byte) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		s += uint32(b[len(b)-1]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
