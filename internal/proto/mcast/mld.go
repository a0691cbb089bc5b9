package mcast

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/vswitch/vswitch/internal/packet/eth"
)

// ICMPv6 message types (RFC 3810 section 5, RFC 4286 section 7).
const (
	mldQuery         = 130
	mldReport1       = 131
	mldDone          = 132
	mldReport2       = 143
	mldAdvertisement = 151
	mldSolicitation  = 152
	mldTermination   = 153
)

func isMLD(typ uint8) bool {
	return typ >= mldQuery && typ <= mldDone || typ == mldReport2 || typ >= mldAdvertisement && typ <= mldTermination
}

var mld = protocol{
	types: map[byte]messageType{
		mldQuery:         {kind: query},
		mldReport1:       {report, 2},
		mldDone:          {leave, 2},
		mldReport2:       {report3, 3},
		mldAdvertisement: {kind: routerNotice},
		mldSolicitation:  {kind: other},
		mldTermination:   {kind: routerMessage},
	},
	group:     8,
	everybody: allNodes,
	require:   requireMLD,
	code:      func(b []byte) uint32 { return uint32(binary.BigEndian.Uint16(b[4:])) },
	bits:      16,
	unit:      time.Millisecond,
}

// requireMLD checks what MLD requires beyond IGMP (RFC 3810 section 5): a Router Alert,
// without which a packet is not for routers, and a link-local source address. But a
// host that has no address yet reports its solicited-node group from ::, and snoopers
// must accept that (RFC 3590 section 4).
func requireMLD(p packet, k kind) Reason {
	fromHost := k == report || k == report3 || k == leave
	switch {
	case !p.alert:
		return NoRouterAlert
	case !p.src.IsLinkLocalUnicast() && !(fromHost && p.src.IsUnspecified()):
		return BadSource
	}
	return Accepted
}

// mldQueryFrame returns an MLD query in an IPv6 packet with hop limit 1 and Router
// Alert in a hop-by-hop header (RFC 3810 section 5, RFC 2711).
func mldQueryFrame(mac uint64, src netip.Addr, q queryFields) []byte {
	dst, group := allNodes, netip.IPv6Unspecified()
	if q.group.IsValid() {
		dst, group = q.group, q.group
	}
	ms := uint32(q.maxResponse / time.Millisecond)
	if q.version == 3 {
		ms = encodeFloat(ms, 16)
	}
	msg := append(make([]byte, 0, 28+16*len(q.sources)), mldQuery, 0, 0, 0, byte(ms>>8), byte(ms), 0, 0)
	msg = append(msg, group.AsSlice()...)
	if q.version == 3 {
		msg = q.appendV3(msg)
	}
	binary.BigEndian.PutUint16(msg[2:], checksum(pseudoSum(src, dst, protoICMPv6, len(msg)), msg))

	const hopLen = 8
	b := appendEthernet(make([]byte, 0, headerLen+eth.IPv6HeaderLen+hopLen+len(msg)), groupMAC(dst), mac, eth.TypeIPv6)
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(hopLen+len(msg)))
	b = append(b, eth.ProtoHopByHop, 1)
	b = append(b, src.AsSlice()...)
	b = append(b, dst.AsSlice()...)
	b = append(b, protoICMPv6, 0, 5, 2, 0, 0, 1, 0) // Router Alert 0, PadN
	return append(b, msg...)
}
