package vnet

import (
	"encoding/binary"

	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/port"
)

// greCsum is the offset of the checksum in a GRE header that has one (RFC 2784 section
// 2.1).
const greCsum = 4

// Partial reports whether the checksum that o asks for is one that a frame of n bytes,
// which begins with data, has: that of TCP or UDP, of GRE, or of TCP or UDP inside a
// tunnel; also behind MPLS labels, or in a PPPoE session. Whoever completes a checksum
// writes two bytes of the frame after the switch has decided about it, so these must not be an
// address, or any other field that somebody checked. o must be Valid and ask for a checksum.
func Partial(data []byte, n int, o port.Offload) bool {
	if o.CsumOffset == sctpCsum {
		return false // it is no sum: see Settle
	}
	head := data[:min(len(data), MaxHeader)]
	p, _, ok := findPacket(head)
	switch {
	case !ok || p.Fragment:
		return false
	case p.Transport == int(o.CsumStart):
		return hasChecksum(head, n, p, o)
	}
	_, ok = findInner(head, n, p, o)
	return ok
}

// PartialOuter is Partial without tunnels: the checksum is that of the frame's own TCP or
// UDP header.
func PartialOuter(data []byte, n int, o port.Offload) bool {
	head := data[:min(len(data), MaxHeader)]
	p, ok := eth.FindIP(head)
	return ok && !p.Fragment && p.Proto != eth.ProtoGRE && p.Proto != eth.ProtoSCTP && p.Transport == int(o.CsumStart) && hasChecksum(head, n, p, o)
}

// Undone returns the offload of a frame that came without one, such as through a tunnel: a
// partial checksum if that of its TCP or UDP header is the bare sum of the pseudo header, as
// a sender on the same machine leaves it. A complete checksum of that value is right as well:
// to complete it writes the same again. If mtu is not 0 and a TCP segment makes a longer IP
// packet, it is a super-frame, of segments whose packets are no longer than mtu.
func Undone(data []byte, mtu int) (o port.Offload) {
	p, ok := eth.FindIP(data)
	if !ok || p.Fragment || p.Routed {
		return o
	}
	h, length, end := data[p.Header:], len(data)-p.Transport, 0
	addresses := h[12:20]
	if p.Version == 4 {
		end = int(binary.BigEndian.Uint16(h[2:]))
	} else {
		end = eth.IPv6HeaderLen + int(binary.BigEndian.Uint16(h[4:]))
		addresses = h[8:40]
	}
	at := udpCsum
	switch {
	case end != len(h): // the checksum does not cover what follows the packet
		return o
	case p.Proto == eth.ProtoTCP && length >= tcpHeaderLen:
		at = tcpCsum
	case p.Proto != eth.ProtoUDP || length < udpHeaderLen:
		return o
	}
	pseudo := uint32(Sum(addresses)) + uint32(p.Proto) + uint32(length)
	if binary.BigEndian.Uint16(data[p.Transport+at:]) == fold(pseudo) {
		o = port.Offload{Flags: port.NeedsCsum, CsumStart: uint16(p.Transport), CsumOffset: uint16(at)}
	}
	if p.Proto == eth.ProtoTCP && mtu != 0 && len(h) > mtu {
		payload := p.Transport + int(data[p.Transport+12]>>4)*4
		if size := mtu - (payload - p.Header); size > 0 {
			o.GSOType, o.GSOSize, o.HdrLen = port.GSOTCPv4, uint16(size), uint16(payload)
			if p.Version == 6 {
				o.GSOType = port.GSOTCPv6
			}
		}
	}
	return o
}

// hasChecksum reports whether o asks for the checksum of the header at p.Transport, and
// that header lies in the packet p, which lies in the frame of n bytes.
func hasChecksum(head []byte, n int, p eth.IPPacket, o port.Offload) bool {
	need := 0
	switch {
	case p.Fragment:
		return false
	case p.Proto == eth.ProtoTCP && o.CsumOffset == tcpCsum:
		need = tcpHeaderLen
	case p.Proto == eth.ProtoUDP && o.CsumOffset == udpCsum:
		need = udpHeaderLen
	case p.Proto == eth.ProtoGRE && o.CsumOffset == greCsum:
		need = greHeaderLen + 4
	case p.Proto == eth.ProtoSCTP && o.CsumOffset == sctpCsum:
		need = sctpHeaderLen
	default:
		return false
	}
	end := p.Header + int(binary.BigEndian.Uint16(head[p.Header+2:]))
	if p.Version == 6 {
		end = p.Header + eth.IPv6HeaderLen + int(binary.BigEndian.Uint16(head[p.Header+4:]))
	}
	if p.Transport+need > min(end, len(head)) || end > n {
		return false
	}
	return p.Proto != eth.ProtoGRE || head[p.Transport]&0x80 != 0
}
