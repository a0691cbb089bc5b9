package mcast

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// kind is what a message means to a snooper, in either protocol.
type kind uint8

const (
	other         kind = iota // unknown or irrelevant type: flooded
	query                     // general, for a group, or for a group and sources
	report                    // v1, v2: one group
	leave                     // v2
	report3                   // v3: records
	routerNotice              // announces a router: PIM hello, or RFC 4286 advertisement
	routerMessage             // another that only routers send: flooded
)

// message is one IGMP, MLD or PIM message. IGMP's version numbers stand for both
// protocols: MLDv1 is version 2, MLDv2 is version 3.
type message struct {
	family  Family
	kind    kind
	version int
	src     netip.Addr
	group   netip.Addr // invalid in a general query and in report3

	// Fields of a query.
	maxResponse time.Duration
	suppress    bool          // the S flag
	robustness  int           // 0: not given
	interval    time.Duration // 0: not given
	sources     addresses

	records []byte // of report3, checked; walked by nextRecord
	count   int
}

// addresses is a list of addresses in wire format.
type addresses struct {
	family Family
	b      []byte
}

func (a addresses) len() int { return len(a.b) / a.family.addrLen() }

func (a addresses) at(i int) netip.Addr { return addressAt(a.family, a.b[i*a.family.addrLen():]) }

func addressAt(f Family, b []byte) netip.Addr {
	if f == IPv4 {
		return netip.AddrFrom4([4]byte(b))
	}
	return netip.AddrFrom16([16]byte(b))
}

// recordType is the type of a group record (RFC 3376 section 4.2.12, RFC 3810
// section 5.2.12).
type recordType uint8

const (
	isIn  recordType = 1
	isEx  recordType = 2
	toIn  recordType = 3
	toEx  recordType = 4
	allow recordType = 5
	block recordType = 6
)

// record is one group record of a report.
type record struct {
	typ     recordType
	group   netip.Addr
	sources addresses
}

// nextRecord removes the first record from b. Its layout is the same in both protocols
// except for the length of addresses.
func nextRecord(f Family, b []byte) (r record, rest []byte, ok bool) {
	n := 4 + f.addrLen()
	if len(b) < n {
		return r, nil, false
	}
	sources := int(binary.BigEndian.Uint16(b[2:])) * f.addrLen()
	end := n + sources + int(b[1])*4 // auxiliary data, skipped
	if len(b) < end {
		return r, nil, false
	}
	r = record{typ: recordType(b[0]), group: addressAt(f, b[4:]), sources: addresses{f, b[n : n+sources]}}
	return r, b[end:], true
}

// checkRecords walks count records at the front of b, so that later walks cannot fail,
// and returns them without what follows.
func checkRecords(f Family, b []byte, count int) ([]byte, Reason) {
	rest := b
	for range count {
		r, next, ok := nextRecord(f, rest)
		if !ok {
			return nil, BadLength
		}
		if !r.group.IsMulticast() {
			return nil, BadGroup
		}
		rest = next
	}
	return b[:len(b)-len(rest)], Accepted
}

// decodeFloat decodes a code of the given width. The upper half of the codes is
// floating point with a 3-bit exponent (RFC 3376 sections 4.1.1 and 4.1.7 with 8 bits,
// RFC 3810 section 5.1.3 with 16).
func decodeFloat(code uint32, bits int) uint32 {
	top := uint32(1) << (bits - 1)
	if code < top {
		return code
	}
	mantissaBits := bits - 4
	mantissa := code&(1<<mantissaBits-1) | 1<<mantissaBits
	exponent := code >> mantissaBits & 7
	return mantissa << (exponent + 3)
}

// encodeFloat is the inverse, rounded down to a value that has a code.
func encodeFloat(v uint32, bits int) uint32 {
	top := uint32(1) << (bits - 1)
	if v < top {
		return v
	}
	mantissaBits := bits - 4
	for exponent := range uint32(8) {
		if m := v >> (exponent + 3); m < 2<<mantissaBits {
			return top | exponent<<mantissaBits | m&(1<<mantissaBits-1)
		}
	}
	return 2*top - 1
}
