package vnet

import (
	"encoding/binary"

	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/port"
)

const (
	typeMPLS      = 0x8847
	typeMPLSGroup = 0x8848
	typePPPoE     = 0x8864 // of a session

	labelLen  = 4 // RFC 3032 section 2.1
	maxLabels = 16

	// RFC 2516 section 4: the header, and behind it the protocol, which the length in
	// the header counts as well. Protocols: RFC 1332, RFC 5072.
	pppoeLen, pppLen = 6, 2
	pppoeLength      = 4 // offset of the length
	pppIPv4, pppIPv6 = 0x0021, 0x0057
)

// shim is what can stand between a frame's tags and an IP packet: MPLS labels, or the header
// of a PPPoE session. All segments of a super-frame repeat it; the length of PPPoE
// differs.
type shim struct {
	len   int // in bytes; 0: nothing is there
	pppoe int // where PPPoE's header begins; 0: it is none
}

// findPacket is eth.FindIP, but also finds an IP packet behind a shim. What is behind
// MPLS labels is what its version says, as routers guess (RFC 4928).
func findPacket(head []byte) (p eth.IPPacket, s shim, ok bool) {
	if p, ok = eth.FindIP(head); ok {
		return p, s, true
	}
	at := port.HeaderLen
	for tags := 0; tags < 2 && len(head) >= at && eth.IsTag(binary.BigEndian.Uint16(head[at-2:])); tags++ {
		at += tagLen
	}
	if len(head) < at {
		return
	}
	switch binary.BigEndian.Uint16(head[at-2:]) {
	case typeMPLS, typeMPLSGroup:
		for s.len < maxLabels*labelLen && len(head) > at+s.len+labelLen {
			bottom := head[at+s.len+2]&1 != 0
			if s.len += labelLen; bottom {
				p, ok = eth.FindIPAt(head, at+s.len, head[at+s.len]>>4)
				return p, s, ok
			}
		}
	case typePPPoE:
		s.len, s.pppoe = pppoeLen+pppLen, at
		if len(head) < at+s.len || head[at] != 0x11 || head[at+1] != 0 { // version and type; code
			return
		}
		version := uint8(0)
		switch binary.BigEndian.Uint16(head[at+pppoeLen:]) {
		case pppIPv4:
			version = 4
		case pppIPv6:
			version = 6
		}
		p, ok = eth.FindIPAt(head, at+s.len, version)
	}
	return p, s, ok
}

// putShim writes the shim's length into a segment of n bytes, whose headers are in dst.
func (s *Segmenter) putShim(dst []byte, n int) {
	binary.BigEndian.PutUint16(dst[s.shim.pppoe+pppoeLength:], uint16(n-s.shim.pppoe-pppoeLen))
}
