package vnet

import (
	"encoding/binary"

	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/port"
)

// jumboLen is the length of the hop-by-hop header with the jumbo payload option (RFC
// 2675), which the kernel inserts into IPv6 packets of more than 64 KiB, in bytes.
const jumboLen = 8

// Split prepares to divide a super-frame longer than port.MaxFrame, such as BIG TCP
// makes (up to 512 KiB), into shorter super-frames. Offload then returns what is left
// to do to each: together they make the same segments as the long one. One no longer than a
// segment is none of them, but a frame with a partial checksum. Split handles only TCP with a
// partial checksum, also in a tunnel.
func (s *Segmenter) Split(data []byte, o port.Offload) error {
	s.Reset()
	head := s.head[:copy(s.head[:MaxHeader], data)]
	super, err := findSuper(head, len(data), o)
	if err != nil {
		return err
	}
	p, t := super.packet, head[super.packet.Transport:]
	if super.shim.len != 0 || p.Proto != eth.ProtoTCP || o.Flags&port.NeedsCsum == 0 {
		return ErrOffload
	}
	n := int(t[12]>>4) * 4
	if n < tcpHeaderLen || n > len(t) {
		return ErrHeaders
	}
	payload := data[p.Transport+n:]
	s.ipv4, s.ip, s.l4, s.partial = p.Version == 4, p.Header, p.Transport, true
	s.pseudoFromPartial(t[tcpCsum:], len(data)-s.l4)
	s.seq, s.flags = binary.BigEndian.Uint32(t[4:]), t[13]
	if h := head[s.ip:]; !s.ipv4 && isJumbo(h) {
		h[6] = h[eth.IPv6HeaderLen]
		copy(h[eth.IPv6HeaderLen:], h[eth.IPv6HeaderLen+jumboLen:])
		s.l4 -= jumboLen
	}
	headLen := s.l4 + n
	mss := int(o.GSOSize)
	if super.tunnel {
		s.setOuter(super.outer, len(data))
		s.outer.whole = headLen + mss
	}
	s.step = (port.MaxFrame - port.HeaderLen - headLen) / mss
	if s.step == 0 || len(payload) <= mss {
		return ErrSize
	}
	s.offload = port.Offload{
		Flags: port.NeedsCsum, GSOType: o.GSOType, GSOSize: o.GSOSize, HdrLen: uint16(headLen),
		CsumStart: uint16(s.l4), CsumOffset: tcpCsum,
	}
	return s.cut(tcpSegments, payload, len(payload), headLen, s.step*mss, maxSegments)
}

// isJumbo reports whether an IPv6 header is followed by the header of the jumbo payload
// option, with no other option in it.
func isJumbo(h []byte) bool {
	return len(h) >= eth.IPv6HeaderLen+jumboLen && h[6] == eth.ProtoHopByHop &&
		binary.BigEndian.Uint32(h[eth.IPv6HeaderLen:])&0x00ff_ffff == 0x00_c204 // no further 8 bytes; option 0xc2 of 4 bytes
}
