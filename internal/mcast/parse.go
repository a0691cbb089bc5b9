package mcast

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// parse reads the message of a frame, and holds it to what its protocol demands
// of a receiver.
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

// protocol is what IGMP and MLD have different. Their messages mean the same things,
// and have the same layout but for the length of addresses and where the first
// group is.
type protocol struct {
	types     map[byte]messageType // those that are known
	group     int                  // where a query, an old report and a leave have their group
	everybody netip.Addr           // whom a general query goes to
	require   func(packet, kind) Reason

	// The maximum response code of a query. The numbers that are not floating point
	// in the newest version are the same in all.
	code func(b []byte) uint32
	bits int           // of it
	unit time.Duration // in which it is
}

// messageType is what one type of message is.
type messageType struct {
	kind    kind
	version int // as in message; of a query its length tells
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
	if !known { // RFC 4541 section 2.1.1: flooded, and nothing in it is used
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
		return m, BadDestination // the group's members do not hear it
	}
	return m, Accepted
}

// The response time meant by a query of IGMPv1, which has no field for it (RFC
// 2236 section 4).
const responseV1 = 10 * time.Second

// readQuery tells the versions of a query apart by what is behind the group (RFC 3376
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

// parsePIM finds hellos (RFC 7761 section 4.9.2). Only routers speak PIM.
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
