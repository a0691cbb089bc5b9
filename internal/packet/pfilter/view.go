package pfilter

import (
	"encoding/binary"

	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/port"
)

// view is a frame as the terms of one evaluation see it. Headers are found once.
type view struct {
	frame *port.Frame
	data  []byte
	tag   port.Tag // the outer tag, if it is not in data

	etherType uint16 // behind any VLAN tags
	payload   int    // where the data of etherType begins; 0: the frame ends before it

	ip   eth.IPPacket
	seen seen
}

// seen says whether an evaluation has looked for the IP packet's headers.
type seen uint8

const (
	notYet seen = iota
	found
	missing
)

// maxTags is how many VLAN tags are skipped, as in eth.FindIP.
const maxTags = 8

// findPayload sets etherType and payload.
func (v *view) findPayload() {
	for at := port.HeaderLen; at <= port.HeaderLen+4*maxTags && at <= len(v.data); at += 4 {
		t := binary.BigEndian.Uint16(v.data[at-2:])
		if t != eth.TypeVLAN && t != eth.TypeQinQ {
			v.etherType, v.payload = t, at
			return
		}
	}
}

// is reports whether the frame has that EtherType and n bytes of its data.
func (v *view) is(etherType uint16, n int) bool {
	return v.payload != 0 && v.etherType == etherType && len(v.data)-v.payload >= n
}

// packet finds the IP packet's transport header.
func (v *view) packet() bool {
	if v.seen == notYet {
		v.seen = missing
		var ok bool
		switch {
		case v.is(eth.TypeIPv4, 0):
			v.ip, ok = eth.FindIPAt(v.data, v.payload, 4)
		case v.is(eth.TypeIPv6, 0):
			v.ip, ok = eth.FindIPAt(v.data, v.payload, 6)
		}
		if ok {
			v.seen = found
		}
	}
	return v.seen == found
}

// transport returns the bytes from the transport header on, which only the first fragment
// of a packet has.
func (v *view) transport() ([]byte, bool) {
	if !v.packet() || v.ip.Fragment && !v.firstFragment() {
		return nil, false
	}
	return v.data[v.ip.Transport:], true
}

// firstFragment reports whether a fragment begins with the transport header.
func (v *view) firstFragment() bool {
	at, mask := v.ip.Header+6, uint16(0x1fff)
	if v.ip.Version == 6 {
		// The fragment header, 8 bytes, is the last one before Transport.
		at, mask = v.ip.Transport-6, 0xfff8
	}
	return binary.BigEndian.Uint16(v.data[at:])&mask == 0
}

// carries reports whether proto is the packet's protocol or one of its IPv6 extension headers.
func (v *view) carries(proto uint8) bool {
	if !v.packet() {
		return false
	}
	if v.ip.Proto == proto {
		return true
	}
	if v.ip.Version == 4 {
		return false
	}
	next := v.data[v.ip.Header+6]
	for at := v.ip.Header + eth.IPv6HeaderLen; at < v.ip.Transport; {
		if next == proto {
			return true
		}
		n := 8
		if next != eth.ProtoFragment {
			n += int(v.data[at+1]) * 8
		}
		next, at = v.data[at], at+n
	}
	return false
}

// vlanTag returns the frame's VLAN tag that has depth others in front of it.
func (v *view) vlanTag(depth int) (port.Tag, bool) {
	if v.tag.Present() {
		if depth == 0 {
			return v.tag, true
		}
		depth--
	}
	// Only tags may stand before the one that is asked for.
	var tag port.Tag
	for at := 12; at <= 12+4*depth; at += 4 {
		if depth > maxTags || len(v.data) < at+6 {
			return 0, false
		}
		tag = port.Tag(binary.BigEndian.Uint32(v.data[at:]))
		if t := tag.TPID(); t != eth.TypeVLAN && t != eth.TypeQinQ {
			return 0, false
		}
	}
	return tag, true
}

// wireLen returns the frame's length with its tags.
func (v *view) wireLen() uint32 { return uint32(v.frame.DataLen() + v.tag.Len()) }

// wireByte returns a byte of the frame with its outer tag in place.
func (v *view) wireByte(at uint32) (byte, bool) {
	if v.tag.Present() && at >= 12 {
		if at < 16 {
			return byte(v.tag >> (8 * (15 - at))), true
		}
		at -= 4
	}
	if uint64(at) >= uint64(len(v.data)) {
		return 0, false
	}
	return v.data[at], true
}
