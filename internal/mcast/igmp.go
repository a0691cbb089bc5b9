package mcast

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/vswitch/vswitch/internal/eth"
)

// IGMP message types (RFC 3376 section 4, RFC 4286 section 7).
const (
	igmpQuery         = 0x11
	igmpReport1       = 0x12
	igmpReport2       = 0x16
	igmpLeave         = 0x17
	igmpReport3       = 0x22
	igmpAdvertisement = 0x30
)

// The response time meant by a query of IGMPv1, which has no field for it (RFC
// 2236 section 4).
const responseV1 = 10 * time.Second

func parseIGMP(p packet) (message, Reason) {
	m := message{family: IPv4, src: p.src}
	b := p.payload
	switch {
	case len(b) < 8:
		return m, BadLength
	case checksum(0, b) != 0:
		return m, BadChecksum
	}
	typ := b[0]
	switch typ {
	case igmpQuery, igmpReport1, igmpReport2, igmpLeave, igmpReport3, igmpAdvertisement:
	default: // RFC 4541 section 2.1.1: flooded, and nothing in it is used
		return m, Accepted
	}
	if p.hopLimit != 1 {
		return m, BadHopLimit
	}
	group := addressAt(IPv4, b[4:])
	switch typ {
	case igmpAdvertisement:
		m.kind = routerNotice
		return m, Accepted
	case igmpReport3:
		m.kind, m.version = report3, 3
		m.count = int(binary.BigEndian.Uint16(b[6:]))
		var reason Reason
		m.records, reason = checkRecords(IPv4, b[8:], m.count)
		return m, reason
	case igmpReport1:
		m.kind, m.version = report, 1
	case igmpReport2:
		m.kind, m.version = report, 2
	case igmpLeave:
		m.kind, m.version = leave, 2
	case igmpQuery:
		m.kind = query
		if reason := m.readIGMPQuery(b); reason != Accepted {
			return m, reason
		}
		if group.IsUnspecified() {
			if p.dst != allSystems { // RFC 3376 section 4.1.12
				return m, BadDestination
			}
			return m, Accepted
		}
	}
	m.group = group
	if !group.IsMulticast() {
		return m, BadGroup
	}
	return m, Accepted
}

// readIGMPQuery tells the versions of a query apart as RFC 3376 section 7.1 does,
// and reads what is behind the group.
func (m *message) readIGMPQuery(b []byte) Reason {
	code := uint32(b[1])
	switch {
	case len(b) == 8 && code == 0:
		m.version, m.maxResponse = 1, responseV1
	case len(b) == 8:
		m.version, m.maxResponse = 2, time.Duration(code)*100*time.Millisecond
	case len(b) >= 12:
		m.version, m.maxResponse = 3, time.Duration(decodeFloat(code, 8))*100*time.Millisecond
		return m.readV3Query(b[8:])
	default:
		return BadLength
	}
	return Accepted
}

// readV3Query reads what both protocols have at the end of their newer queries:
// flags, robustness, interval and sources (RFC 3376 section 4.1, RFC 3810 section 5.1).
func (m *message) readV3Query(b []byte) Reason {
	m.suppress = b[0]&8 != 0
	m.robustness = int(b[0] & 7)
	m.interval = time.Duration(decodeFloat(uint32(b[1]), 8)) * time.Second
	n := int(binary.BigEndian.Uint16(b[2:])) * m.family.addrLen()
	if 4+n > len(b) {
		return BadLength
	}
	m.sources = addresses{m.family, b[4 : 4+n]}
	return Accepted
}

// queryFields is what a query of ours says, in either protocol.
type queryFields struct {
	version     int        // as in message
	group       netip.Addr // invalid: a general query
	maxResponse time.Duration
	suppress    bool
	robustness  int
	interval    time.Duration
	sources     []netip.Addr
}

// appendV3 is the reverse of readV3Query.
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

// igmpQueryFrame makes an IGMP query: in an IPv4 packet with TTL 1, precedence
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
