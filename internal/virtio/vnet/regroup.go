package vnet

import (
	"encoding/binary"

	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/port"
)

// Regroup reports whether the segments of a UDP tunnel can go to a port with caps as a
// few super-frames of UDP datagrams (GSOUDPL4): each datagram is one segment behind the
// outer headers, so segmenting the super-frame makes the same frames. NextGroup then
// replaces Next. The kernel and guests offer nothing better for a tunnel that does not
// come from their own device, and a super-frame of datagrams costs them far less than
// one frame after another. The datagrams of a super-frame have a checksum, so those of a
// tunnel without checksums get a correct one, which tunnels may have (RFC 7348 section 5).
func (s *Segmenter) Regroup(caps port.Caps) bool {
	const needs = port.CapUSO | port.CapCsum
	t := &s.outer
	if !t.on || s.shim.len != 0 || t.kind != eth.ProtoUDP || caps&needs != needs || s.count < 2 || !t.csum && t.routed {
		return false
	}
	start := t.l4 + udpHeaderLen
	s.datagram = s.headLen - start + s.size
	s.group = min(maxDatagrams, (maxIPLen-(start-t.ip))/s.datagram)
	t.on = s.group < 2 // otherwise its headers are written once per group, not per segment
	if !t.on && !t.csum {
		addresses := s.head[t.ip+eth.IPv4HeaderLen-8:][:8]
		if !t.ipv4 {
			addresses = s.head[t.ip+eth.IPv6HeaderLen-32:][:32]
		}
		t.pseudoSum = uint32(Sum(addresses)) + uint32(eth.ProtoUDP)
	}
	return !t.on
}

// Groups returns the number of super-frames that NextGroup makes.
func (s *Segmenter) Groups() int { return (s.count + s.group - 1) / s.group }

// GroupLen returns the length of the longest super-frame of NextGroup in bytes.
func (s *Segmenter) GroupLen() int {
	return s.outer.l4 + udpHeaderLen + min(s.group, s.count)*s.datagram
}

// NextGroup writes the next super-frame to dst, which holds at least GroupLen bytes,
// and returns its length and its offload; ok is false when none is left.
func (s *Segmenter) NextGroup(dst []byte) (n int, o port.Offload, ok bool) {
	if s.next == s.count {
		return 0, o, false
	}
	t := &s.outer
	start := t.l4 + udpHeaderLen
	segments := min(s.group, s.count-s.next)
	n = start
	for range segments {
		// A segment is written where the one before ends, with room for the outer
		// headers in front.
		at := n - start
		copy(s.saved[:start], dst[at:n])
		length, _ := s.Next(dst[at:])
		copy(dst[at:n], s.saved[:start])
		n = at + length
	}
	copy(dst, s.head[:start])
	t.csum = false // the sum of the pseudo header follows instead
	s.putOuter(dst[:start], n)
	t.id += uint16(segments - 1)
	binary.BigEndian.PutUint16(dst[t.l4+udpCsum:], fold(t.pseudoSum+uint32(n-t.l4)))
	o = port.Offload{Flags: port.NeedsCsum, HdrLen: uint16(start), CsumStart: uint16(t.l4), CsumOffset: udpCsum}
	if segments > 1 {
		o.GSOType, o.GSOSize = port.GSOUDPL4, uint16(s.datagram)
	}
	return n, o, true
}
