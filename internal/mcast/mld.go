package mcast

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/vswitch/vswitch/internal/eth"
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

func parseMLD(p packet) (message, Reason) {
	m := message{family: IPv6, src: p.src}
	b := p.payload
	switch {
	case len(b) < 8:
		return m, BadLength
	case checksum(pseudoSum(p.src, p.dst, protoICMPv6, len(b)), b) != 0:
		return m, BadChecksum
	case p.hopLimit != 1:
		return m, BadHopLimit
	case !p.alert: // RFC 3810 section 5: without, it is not for a router's ears
		return m, NoRouterAlert
	}
	typ := b[0]
	// A host that has no address yet reports its solicited-node group from ::,
	// and snoopers must hear it (RFC 3590 section 4).
	fromHost := typ == mldReport1 || typ == mldReport2 || typ == mldDone
	if !p.src.IsLinkLocalUnicast() && !(fromHost && p.src.IsUnspecified()) {
		return m, BadSource
	}
	switch typ {
	case mldAdvertisement:
		m.kind = routerNotice
		return m, Accepted
	case mldReport2:
		m.kind, m.version = report3, 3
		m.count = int(binary.BigEndian.Uint16(b[6:]))
		var reason Reason
		m.records, reason = checkRecords(IPv6, b[8:], m.count)
		return m, reason
	case mldQuery, mldReport1, mldDone:
	default:
		return m, Accepted
	}
	if len(b) < 24 {
		return m, BadLength
	}
	group := addressAt(IPv6, b[8:])
	switch typ {
	case mldReport1:
		m.kind, m.version = report, 2
	case mldDone:
		m.kind, m.version = leave, 2
	case mldQuery:
		m.kind = query
		if reason := m.readMLDQuery(b); reason != Accepted {
			return m, reason
		}
		if group.IsUnspecified() {
			if p.dst != allNodes { // RFC 3810 section 5.1.15
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

// readMLDQuery tells the versions of a query apart as RFC 3810 section 8.1 does,
// and reads what is behind the group.
func (m *message) readMLDQuery(b []byte) Reason {
	code := uint32(binary.BigEndian.Uint16(b[4:]))
	switch {
	case len(b) == 24:
		m.version, m.maxResponse = 2, time.Duration(code)*time.Millisecond
	case len(b) >= 28:
		m.version, m.maxResponse = 3, time.Duration(decodeFloat(code, 16))*time.Millisecond
		return m.readV3Query(b[24:])
	default:
		return BadLength
	}
	return Accepted
}

// mldQueryFrame makes an MLD query: in an IPv6 packet with hop limit 1 and Router
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
