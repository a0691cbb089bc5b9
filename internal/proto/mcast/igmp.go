package mcast

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/vswitch/vswitch/internal/packet/eth"
)

// IGMP message types (RFC 3376 section 4, RFC 4286 section 7).
const (
	igmpQuery         = 0x11
	igmpReport1       = 0x12
	igmpDVMRP         = 0x13
	igmpPIMv1         = 0x14
	igmpReport2       = 0x16
	igmpLeave         = 0x17
	igmpReport3       = 0x22
	igmpAdvertisement = 0x30
	igmpTermination   = 0x32
)

var igmp = protocol{
	types: map[byte]messageType{
		igmpQuery:         {kind: query},
		igmpReport1:       {report, 1},
		igmpReport2:       {report, 2},
		igmpLeave:         {leave, 2},
		igmpReport3:       {report3, 3},
		igmpAdvertisement: {kind: routerNotice},
		igmpTermination:   {kind: routerMessage},
		igmpDVMRP:         {kind: routerMessage},
		igmpPIMv1:         {kind: routerMessage},
	},
	group:     4,
	everybody: allSystems,
	require:   func(packet, kind) Reason { return Accepted },
	code:      func(b []byte) uint32 { return uint32(b[1]) },
	bits:      8,
	unit:      100 * time.Millisecond,
}

// queryFields is the content of one of our queries, in either protocol.
type queryFields struct {
	version     int        // as in message
	group       netip.Addr // invalid: a general query
	maxResponse time.Duration
	suppress    bool
	robustness  int
	interval    time.Duration
	sources     []netip.Addr
}

// appendV3 is the inverse of readV3Query.
func (q *queryFields) appendV3(b []byte) []byte {
	flags := byte(q.robustness)
	if q.suppress {
		flags |= 8
	}
	b = append(b, flags, byte(encodeFloat(uint32(q.interval/time.Second), 8)))
	b = binary.BigEndian.AppendUint16(b, uint16(len(q.sources)))
	for _, a := range q.sources {
		b = append(b, a.AsSlice()...)
	}
	return b
}

// igmpQueryFrame returns an IGMP query in an IPv4 packet with TTL 1, precedence
// Internetwork Control and Router Alert (RFC 3376 section 4, RFC 2113).
func igmpQueryFrame(mac uint64, src netip.Addr, q queryFields) []byte {
	dst, group := allSystems, netip.IPv4Unspecified()
	if q.group.IsValid() {
		dst, group = q.group, q.group
	}
	tenths := uint32(q.maxResponse / (100 * time.Millisecond))
	msg := append(make([]byte, 0, 12+4*len(q.sources)), igmpQuery, byte(tenths), 0, 0)
	msg = append(msg, group.AsSlice()...)
	if q.version == 3 {
		msg[1] = byte(encodeFloat(tenths, 8))
		msg = q.appendV3(msg)
	}
	binary.BigEndian.PutUint16(msg[2:], checksum(0, msg))

	const ipLen = eth.IPv4HeaderLen + 4
	b := appendEthernet(make([]byte, 0, headerLen+ipLen+len(msg)), groupMAC(dst), mac, eth.TypeIPv4)
	b = append(b, 0x46, 0xc0) // version 4, 6 words; precedence 6
	b = binary.BigEndian.AppendUint16(b, uint16(ipLen+len(msg)))
	b = append(b, 0, 0, 0x40, 0, 1, protoIGMP, 0, 0) // don't fragment; TTL 1
	b = append(b, src.AsSlice()...)
	b = append(b, dst.AsSlice()...)
	b = append(b, 0x94, 4, 0, 0)
	ip := b[headerLen:]
	binary.BigEndian.PutUint16(ip[10:], checksum(0, ip))
	return append(b, msg...)
}

func appendEthernet(b []byte, dst, src uint64, etherType uint16) []byte {
	b = binary.BigEndian.AppendUint64(b, dst<<16|src>>32)
	b = binary.BigEndian.AppendUint32(b, uint32(src))
	return binary.BigEndian.AppendUint16(b, etherType)
}
