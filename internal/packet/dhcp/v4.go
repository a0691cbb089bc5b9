// Package dhcp reads messages of DHCP (RFC 2131) and DHCPv6 (RFC 8415) over borrowed
// bytes: what a guard needs of them. It allocates nothing and does no I/O; any goroutine
// may call it.
package dhcp

import (
	"encoding/binary"
	"net/netip"

	"github.com/vswitch/vswitch/port"
)

// Ports (IANA).
const (
	ServerPort  = 67
	ClientPort  = 68
	ClientPort6 = 546
	ServerPort6 = 547
)

// Type is the type of a DHCPv4 message (RFC 2132 section 9.6). The zero Type is BOOTP.
type Type uint8

const (
	Discover Type = 1 + iota
	Offer
	Request
	Decline
	Ack
	Nak
	Release
	Inform
)

// Values of Message.Op (RFC 2131 section 2).
const (
	BootRequest uint8 = 1
	BootReply   uint8 = 2
)

// Forever is a lease without an end, in seconds.
const Forever = 0xffff_ffff

// Message is a DHCPv4 message.
type Message struct {
	Op, HType, HLen uint8
	XID             uint32
	Client, Your    netip.Addr // ciaddr, yiaddr
	Relay           netip.Addr // giaddr
	MAC             port.MAC   // chaddr
	Type            Type

	Requested netip.Addr // option 50; the zero Addr: none
	Server    netip.Addr // option 54; the zero Addr: none
	Lease     uint32     // option 51, in seconds; 0: none

	Rapid bool // option 80: commit at once (RFC 4039)
	Agent bool // option 82: what a relay knows of the client (RFC 3046)

	// ClientID is the beginning of option 61; Identified is its length, 0 if there is none. It
	// was put together from so many Identifiers.
	ClientID    [7]byte
	Identified  int
	Identifiers int
}

// Offsets of fields, and the magic cookie before the options (RFC 2131 section 2, RFC 2132
// section 2).
const (
	atSName   = 44
	atFile    = 108
	atCookie  = 236
	atOptions = 240
	cookie    = 0x6382_5363
)

// Options that are read (RFC 2132).
const (
	optPad       = 0
	optRequested = 50
	optLease     = 51
	optOverload  = 52
	optType      = 53
	optServer    = 54
	optClientID  = 61
	optRapid     = 80
	optAgent     = 82
	optEnd       = 255
)

// value is the value of an option. Parts of an option that occurs more than once belong
// together (RFC 3396).
type value struct {
	n int
	b [7]byte
}

func (v *value) add(b []byte) {
	if v.n < len(v.b) {
		copy(v.b[v.n:], b)
	}
	v.n += len(b)
}

// Parse reads a message that ends with b. ok is false if it is cut off, if it is BOOTP with
// another kind of options, or if an option that is read has a length that it cannot have.
func Parse(b []byte) (m Message, ok bool) {
	if len(b) < atOptions || binary.BigEndian.Uint32(b[atCookie:]) != cookie {
		return m, false
	}
	m = Message{
		Op: b[0], HType: b[1], HLen: b[2], XID: binary.BigEndian.Uint32(b[4:]),
		Client: netip.AddrFrom4([4]byte(b[12:])), Your: netip.AddrFrom4([4]byte(b[16:])),
		Relay: netip.AddrFrom4([4]byte(b[24:])), MAC: port.MACFrom(b[28:]),
	}
	var o optionSet
	if !o.read(b[atOptions:]) {
		return m, false
	}
	// The fields file and sname hold options if option 52 says so, in this order (RFC 2131
	// section 4.1).
	overload := o.overload
	if o.overload.n > 1 || overload.b[0] > 3 || o.overload.n == 1 && overload.b[0] == 0 {
		return m, false
	}
	if overload.b[0]&1 != 0 && !o.read(b[atFile:atCookie]) || overload.b[0]&2 != 0 && !o.read(b[atSName:atFile]) {
		return m, false
	}
	if o.overload != overload { // options in these fields cannot point at more
		return m, false
	}
	m.Rapid, m.Agent = o.rapid, o.agent
	m.ClientID, m.Identified, m.Identifiers = o.clientID.b, o.clientID.n, o.clientIDs
	switch o.kind.n {
	case 0:
	case 1:
		m.Type = Type(o.kind.b[0])
	default:
		return m, false
	}
	switch o.lease.n {
	case 0:
	case 4:
		m.Lease = binary.BigEndian.Uint32(o.lease.b[:])
	default:
		return m, false
	}
	return m, addr(o.requested, &m.Requested) && addr(o.server, &m.Server)
}

func addr(v value, a *netip.Addr) bool {
	if v.n == 4 {
		*a = netip.AddrFrom4([4]byte(v.b[:4]))
	}
	return v.n == 0 || v.n == 4
}

type optionSet struct {
	kind, lease, requested, server, clientID, overload value
	clientIDs                                          int
	rapid, agent                                       bool
}

// read reads the options in b up to the end option, which may be missing.
func (o *optionSet) read(b []byte) bool {
	for len(b) > 0 {
		code := b[0]
		switch code {
		case optPad:
			b = b[1:]
			continue
		case optEnd:
			return true
		}
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return false
		}
		v := b[2 : 2+int(b[1])]
		b = b[2+len(v):]
		switch code {
		case optType:
			o.kind.add(v)
		case optLease:
			o.lease.add(v)
		case optRequested:
			o.requested.add(v)
		case optServer:
			o.server.add(v)
		case optClientID:
			o.clientID.add(v)
			o.clientIDs++
		case optOverload:
			o.overload.add(v)
		case optRapid:
			o.rapid = true
		case optAgent:
			o.agent = true
		}
	}
	return true
}
