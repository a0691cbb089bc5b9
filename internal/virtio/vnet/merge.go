package vnet

import (
	"encoding/binary"

	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/port"
)

// A Merger joins TCP segments that were received one after another to a super-frame, as
// the kernel's GRO does; it is the reverse of a Segmenter, which makes the same segments
// again but for their IPv4 identification. Each segment has the same headers as the one
// before where segmentation repeats them, and a right checksum: an error in one of them
// is not hidden from the receiver.
//
// The caller passes frames in order, Start for the first and Add for those behind it, and
// calls Finish before it uses the frame. One goroutine at a time uses a Merger. The zero
// Merger has no frame.
type Merger struct {
	frame *port.Frame // nil: none that a segment can follow

	ip, payload int // offsets in the frame
	l4          int
	ipv4        bool
	size        int // payload of each segment
	count       int
	next        uint32 // sequence number that must follow
	id          uint16 // identification of the last segment
	whole       bool   // nothing can follow: the last segment is short, or says so
}

// Flags with which a segment can be merged, and those that end a super-frame.
const (
	tcpACK     = 0x10
	mergeFlags = tcpACK | tcpPSH
)

// Start begins with a frame that has no offload. Data is in memory of the caller's, and
// segments that Add takes are moved behind it.
func (m *Merger) Start(f *port.Frame) {
	m.Finish()
	s, ok := findSegment(f.Data)
	if !ok || f.Offload != (port.Offload{}) || f.Tail != nil || f.Drop != port.DropNone {
		return
	}
	m.frame = f
	m.ip, m.l4, m.payload, m.ipv4 = port.HeaderLen, s.l4, s.payload, s.ipv4
	m.size, m.count = len(f.Data)-s.payload, 1
	m.next, m.id, m.whole = s.seq+uint32(m.size), s.id, s.flags&tcpPSH != 0
}

// Add appends the segment in f, which has the same tag, and reports whether it could. f's
// Data lies behind the frame's in the same array; if it is appended, what lay there is
// overwritten.
func (m *Merger) Add(f *port.Frame) bool {
	if m.frame == nil || m.whole || f.Drop != port.DropNone || f.Tag != m.frame.Tag || f.Dst != m.frame.Dst || f.Src != m.frame.Src {
		return false
	}
	data := m.frame.Data
	s, ok := findSegment(f.Data)
	n := len(f.Data) - s.payload
	if !ok || s.l4 != m.l4 || s.payload != m.payload || s.seq != m.next || n > m.size || !m.sameHeaders(data, f.Data) {
		return false
	}
	if end := len(data) + n; end-m.ip > maxIPLen || end > port.MaxFrame || end > cap(data) || m.count == maxSegments {
		return false
	}
	if m.ipv4 && s.id != m.id+1 && f.Data[m.ip+6]&0x40 == 0 { // without DF
		return false
	}
	if m.count == 1 && !checksumHolds(data, m.l4, m.ipv4) || !checksumHolds(f.Data, m.l4, m.ipv4) {
		return false
	}
	m.frame.Data = append(data, f.Data[s.payload:]...)
	m.frame.Data[m.l4+13] |= s.flags
	m.count++
	m.next, m.id, m.whole = m.next+uint32(n), s.id, n < m.size || s.flags&tcpPSH != 0
	return true
}

// Finish completes the frame's headers and offload.
func (m *Merger) Finish() {
	f := m.frame
	m.frame = nil
	if f == nil || m.count == 1 {
		return
	}
	h, length := f.Data, len(f.Data)-m.l4
	pseudo := uint32(eth.ProtoTCP) + uint32(length)
	f.Offload = port.Offload{
		Flags: port.NeedsCsum, GSOType: port.GSOTCPv6, HdrLen: uint16(m.payload), GSOSize: uint16(m.size),
		CsumStart: uint16(m.l4), CsumOffset: tcpCsum,
	}
	if m.ipv4 {
		f.Offload.GSOType = port.GSOTCPv4
		binary.BigEndian.PutUint16(h[m.ip+2:], uint16(len(h)-m.ip))
		clear(h[m.ip+10 : m.ip+12])
		binary.BigEndian.PutUint16(h[m.ip+10:], ^Sum(h[m.ip:m.l4]))
		pseudo += uint32(Sum(h[m.ip+12 : m.ip+20]))
	} else {
		binary.BigEndian.PutUint16(h[m.ip+4:], uint16(length))
		pseudo += uint32(Sum(h[m.ip+8 : m.ip+40]))
	}
	binary.BigEndian.PutUint16(h[m.l4+tcpCsum:], fold(pseudo))
}

// segment is what one segment adds to what all have in common.
type segment struct {
	l4, payload int
	ipv4        bool
	seq         uint32
	id          uint16
	flags       uint8
}

// findSegment returns the TCP segment that fills a frame; ok is false if it is none that
// can be merged.
func findSegment(data []byte) (s segment, ok bool) {
	if len(data) < port.HeaderLen+eth.IPv4HeaderLen+tcpHeaderLen {
		return s, false
	}
	ip := data[port.HeaderLen:]
	switch binary.BigEndian.Uint16(data[12:]) {
	case eth.TypeIPv4:
		// No options, no fragment, and no padding behind it.
		if ip[0] != 0x45 || ip[9] != eth.ProtoTCP || binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 || int(binary.BigEndian.Uint16(ip[2:])) != len(ip) {
			return s, false
		}
		s.l4, s.ipv4, s.id = port.HeaderLen+eth.IPv4HeaderLen, true, binary.BigEndian.Uint16(ip[4:])
	case eth.TypeIPv6:
		if ip[0]>>4 != 6 || ip[6] != eth.ProtoTCP || int(binary.BigEndian.Uint16(ip[4:])) != len(ip)-eth.IPv6HeaderLen {
			return s, false
		}
		s.l4 = port.HeaderLen + eth.IPv6HeaderLen
	default:
		return s, false
	}
	if len(data) < s.l4+tcpHeaderLen {
		return s, false
	}
	t := data[s.l4:]
	s.payload = s.l4 + int(t[12]>>4)*4
	s.seq, s.flags = binary.BigEndian.Uint32(t[4:]), t[13]
	return s, s.payload >= s.l4+tcpHeaderLen && s.payload < len(data) && s.flags&^mergeFlags == 0 && s.flags&tcpACK != 0 && t[12]&0xf == 0
}

// sameHeaders reports whether two segments have the same headers, but for lengths,
// identification, sequence number, flags and checksums. They have transport headers at the same
// place, so both are IPv4, or both IPv6.
func (m *Merger) sameHeaders(a, b []byte) bool {
	same := func(from, to int) bool { return string(a[from:to]) == string(b[from:to]) }
	if m.ipv4 {
		if !same(m.ip, m.ip+2) || !same(m.ip+6, m.ip+10) || !same(m.ip+12, m.l4) {
			return false
		}
	} else if !same(m.ip, m.ip+4) || !same(m.ip+6, m.l4) {
		return false
	}
	// Ports; acknowledgement and header length; window; urgent pointer and options.
	return same(m.l4, m.l4+4) && same(m.l4+8, m.l4+13) && same(m.l4+14, m.l4+16) && same(m.l4+18, m.payload)
}

// checksumHolds reports whether the checksums of a segment are right.
func checksumHolds(data []byte, l4 int, ipv4 bool) bool {
	ip, sum := data[port.HeaderLen:], uint32(eth.ProtoTCP)+uint32(len(data)-l4)
	if ipv4 {
		if Sum(ip[:eth.IPv4HeaderLen]) != 0xffff {
			return false
		}
		sum += uint32(Sum(ip[12:20]))
	} else {
		sum += uint32(Sum(ip[8:40]))
	}
	return fold(sum+uint32(Sum(data[l4:]))) == 0xffff
}
