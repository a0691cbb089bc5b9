package mcast

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// parse reads the message of a frame, and enforces what its protocol demands of a
// receiver.
func parse(frame []byte) (message, Reason) {
	p, reason := decode(frame)
	if reason != Accepted {
		return message{}, reason
	}
	switch {
	case p.proto == protoPIM:
		return parsePIM(p)
	case p.family == IPv4 && p.proto == protoIGMP:
		return igmp.parse(p)
	case p.family == IPv6 && p.proto == protoICMPv6:
		return mld.parse(p)
	}
	return message{}, BadHeader
}

// protocol holds the differences between IGMP and MLD. Their messages mean the same,
// and have the same layout except for the length of addresses and the place of the
// first group.
type protocol struct {
	types     map[byte]messageType // the known ones
	group     int                  // offset of the group in a query, an old report and a leave
	everybody netip.Addr           // destination of a general query
	require   func(packet, kind) Reason

	// The maximum response code of a query. Codes that are not floating point in the
	// newest version mean the same in all versions.
	code func(b []byte) uint32
	bits int           // width of the code
	unit time.Duration // unit of the code
}

// messageType describes one type of message.
type messageType struct {
	kind    kind
	version int // as in message; a query's length decides
}

// parse reads a message of the protocol.
func (proto *protocol) parse(p packet) (message, Reason) {
	m := message{family: p.family, src: p.src}
	b := p.payload
	switch {
	case len(b) < 8:
		return m, BadLength
	case p.checksum() != 0:
		return m, BadChecksum
	case p.misled:
		return m, BadDestination
	}
	t, known := proto.types[b[0]]
	if !known { // RFC 4541 section 2.1.1: flooded, and its content is ignored
		return m, Accepted
	}
	if p.hopLimit != 1 {
		return m, BadHopLimit
	}
	if reason := proto.require(p, t.kind); reason != Accepted {
		return m, reason
	}
	m.kind, m.version = t.kind, t.version
	switch m.kind {
	case other, routerNotice, routerMessage:
		return m, Accepted
	case report3:
		m.count = int(binary.BigEndian.Uint16(b[6:]))
		var reason Reason
		m.records, reason = checkRecords(m.family, b[8:], m.count)
		return m, reason
	}

	behind := proto.group + m.family.addrLen()
	if len(b) < behind {
		return m, BadLength
	}
	group := addressAt(m.family, b[proto.group:])
	if m.kind == query {
		if reason := m.readQuery(proto.code(b), b[behind:], proto); reason != Accepted {
			return m, reason
		}
		if group.IsUnspecified() {
			if p.dst != proto.everybody { // RFC 3376 section 4.1.12, RFC 3810 section 5.1.15
				return m, BadDestination
			}
			return m, Accepted
		}
	}
	m.group = group
	switch {
	case !group.IsMulticast():
		return m, BadGroup
	case m.kind == query && p.dst != group && p.dst != proto.everybody:
		return m, BadDestination // the group's members do not receive it
	}
	return m, Accepted
}

// responseV1 is the response time of an IGMPv1 query, which has no field for it (RFC
// 2236 section 4).
const responseV1 = 10 * time.Second

// readQuery determines the version of a query by what follows the group (RFC 3376
// section 7.1, RFC 3810 section 8.1), and reads that.
func (m *message) readQuery(code uint32, b []byte, proto *protocol) Reason {
	switch {
	case len(b) == 0 && code == 0 && m.family == IPv4:
		m.version, m.maxResponse = 1, responseV1
	case len(b) == 0:
		m.version, m.maxResponse = 2, time.Duration(code)*proto.unit
	case len(b) >= 4:
		m.version, m.maxResponse = 3, time.Duration(decodeFloat(code, proto.bits))*proto.unit
		return m.readV3Query(b)
	default:
		return BadLength
	}
	return Accepted
}

// readV3Query reads the fields at the end of newer queries of both protocols: flags,
// robustness, interval and sources (RFC 3376 section 4.1, RFC 3810 section 5.1).
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

// parsePIM recognizes hellos (RFC 7761 section 4.9.2). Only routers speak PIM.
func parsePIM(p packet) (message, Reason) {
	m := message{family: p.family, kind: routerMessage, src: p.src}
	switch {
	case len(p.payload) < 4:
		return m, BadLength
	case p.misled:
		return m, BadDestination
	}
	const version, hello = 2, 0
	if p.payload[0] != version<<4|hello {
		return m, Accepted
	}
	switch {
	case p.checksum() != 0:
		return m, BadChecksum
	case p.hopLimit != 1:
		return m, BadHopLimit
	}
	m.kind = routerNotice
	return m, Accepted
}
