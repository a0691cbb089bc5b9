package dhcp

import (
	"encoding/binary"
	"net/netip"
)

// Type6 is the type of a DHCPv6 message (RFC 8415 section 7.3, RFC 9686).
type Type6 uint8

const (
	Solicit6 Type6 = 1 + iota
	Advertise6
	Request6
	Confirm6
	Renew6
	Rebind6
	Reply6
	Release6
	Decline6
	Reconfigure6
	InformationRequest6
	RelayForward6
	RelayReply6

	AddrRegInform6 Type6 = 36
)

// maxLeases is how many addresses of a message are read.
const maxLeases = 16

// Message6 is a DHCPv6 message of a client or a server.
type Message6 struct {
	Type   Type6
	XID    uint32 // 24 bits
	Client []byte // DUID of the client, in the message; empty: none
	Rapid  bool   // commit at once

	// Failed reports whether the server refused all: a status other than success.
	Failed bool

	// More reports whether there are more addresses and prefixes than Leases returns, refused or
	// not.
	More bool

	leases [maxLeases]Lease6
	n      int
}

// Lease6 is an address or, as PD, a prefix in a message.
type Lease6 struct {
	netip.Prefix
	PD    bool
	Valid uint32 // in seconds; 0: no longer
}

// Leases returns the first addresses and prefixes of the message, without those that the
// server refused.
func (m *Message6) Leases() []Lease6 { return m.leases[:m.n] }

// Options that are read (RFC 8415 section 21).
const (
	opt6ClientID = 1
	opt6IANA     = 3
	opt6IATA     = 4
	opt6Addr     = 5
	opt6Status   = 13
	opt6Rapid    = 14
	opt6IAPD     = 25
	opt6Prefix   = 26
)

// Parse6 reads a message of a client or a server that ends with b. ok is false for relays'
// messages, and if the message or one of its options is cut off.
func Parse6(b []byte) (m Message6, ok bool) {
	if len(b) < 4 {
		return m, false
	}
	m.Type, m.XID = Type6(b[0]), binary.BigEndian.Uint32(b)&0xff_ffff
	if m.Type == RelayForward6 || m.Type == RelayReply6 {
		return m, false
	}
	for b = b[4:]; len(b) > 0; {
		code, v, rest, ok := option6(b)
		if !ok {
			return m, false
		}
		b = rest
		switch code {
		case opt6ClientID:
			if m.Client != nil || len(v) == 0 {
				return m, false
			}
			m.Client = v
		case opt6Rapid:
			m.Rapid = true
		case opt6Status:
			if len(v) < 2 {
				return m, false
			}
			m.Failed = m.Failed || v[0]|v[1] != 0
		case opt6IANA, opt6IAPD:
			if len(v) < 12 || !m.readIA(v[12:], code == opt6IAPD) {
				return m, false
			}
		case opt6IATA:
			if len(v) < 4 || !m.readIA(v[4:], false) {
				return m, false
			}
		}
	}
	return m, true
}

// option6 takes the first option from b.
func option6(b []byte) (code uint16, v, rest []byte, ok bool) {
	if len(b) < 4 {
		return 0, nil, nil, false
	}
	n := 4 + int(binary.BigEndian.Uint16(b[2:]))
	if n > len(b) {
		return 0, nil, nil, false
	}
	return binary.BigEndian.Uint16(b), b[4:n], b[n:], true
}

// readIA reads the options of an identity association.
func (m *Message6) readIA(b []byte, pd bool) bool {
	first := m.n
	for len(b) > 0 {
		code, v, rest, ok := option6(b)
		if !ok {
			return false
		}
		b = rest
		switch {
		case code == opt6Status:
			if len(v) < 2 {
				return false
			}
			if v[0]|v[1] != 0 {
				m.n, m.More = first, true
				return check6(b)
			}
		case code == opt6Addr && !pd:
			if len(v) < 24 || !m.add(netip.AddrFrom16([16]byte(v)), 128, false, v[20:], v[24:]) {
				return false
			}
		case code == opt6Prefix && pd:
			if len(v) < 25 || v[8] > 128 || !m.add(netip.AddrFrom16([16]byte(v[9:])), int(v[8]), true, v[4:], v[25:]) {
				return false
			}
		}
	}
	return true
}

// add adds a lease whose valid lifetime begins valid and whose own options are b.
func (m *Message6) add(a netip.Addr, bits int, pd bool, valid, b []byte) bool {
	refused := false
	for len(b) > 0 {
		code, v, rest, ok := option6(b)
		if !ok {
			return false
		}
		b = rest
		if code == opt6Status {
			if len(v) < 2 {
				return false
			}
			refused = refused || v[0]|v[1] != 0
		}
	}
	if refused || m.n == maxLeases {
		m.More = true
		return true
	}
	m.leases[m.n] = Lease6{netip.PrefixFrom(a, bits), pd, binary.BigEndian.Uint32(valid)}
	m.n++
	return true
}

// check6 reports whether the options in b are whole.
func check6(b []byte) bool {
	for len(b) > 0 {
		_, _, rest, ok := option6(b)
		if !ok {
			return false
		}
		b = rest
	}
	return true
}
