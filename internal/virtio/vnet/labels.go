package vnet

import (
	"encoding/binary"

	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/port"
)

const (
	typeMPLS      = 0x8847
	typeMPLSGroup = 0x8848

	labelLen  = 4 // RFC 3032 section 2.1
	maxLabels = 16
)

// findPacket is eth.FindIP, but also finds an IP packet behind MPLS labels. What is behind
// them is what its version says, as routers guess (RFC 4928). labelled reports whether there
// are labels.
func findPacket(head []byte) (p eth.IPPacket, labelled, ok bool) {
	if p, ok = eth.FindIP(head); ok {
		return p, false, true
	}
	at := port.HeaderLen
	for tags := 0; tags < 2 && len(head) >= at && eth.IsTag(binary.BigEndian.Uint16(head[at-2:])); tags++ {
		at += tagLen
	}
	if len(head) < at {
		return
	}
	if t := binary.BigEndian.Uint16(head[at-2:]); t != typeMPLS && t != typeMPLSGroup {
		return
	}
	for range maxLabels {
		if len(head) <= at+labelLen {
			return
		}
		bottom := head[at+2]&1 != 0
		if at += labelLen; bottom {
			p, ok = eth.FindIPAt(head, at, head[at]>>4)
			return p, true, ok
		}
	}
	return
}
