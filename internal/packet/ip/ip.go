// Package ip reads IP packets as strictly as a host that is about to believe them: a
// packet ends where its own length says, not where the frame ends, and every header up to
// the upper layer lies inside it. Package eth finds headers to segment by and does not
// look at lengths; use this one to decide by what a packet says. It allocates nothing and
// does no I/O; any goroutine may call it.
package ip

import "encoding/binary"

// Fault says why a packet cannot be read.
type Fault uint8

const (
	OK       Fault = iota
	Bad            // version, header length or packet length are wrong
	BadChain       // the IPv6 extension headers do not lead to an upper layer
)

// Part says which part of a packet a frame holds.
type Part uint8

const (
	Whole Part = iota
	First      // the first fragment, or an IPv6 packet with a fragment header and no other part
	Later      // another fragment: nothing of the upper layer's header is in it
)

// Protocol numbers (IANA).
const (
	ICMP   uint8 = 1
	IGMP   uint8 = 2
	TCP    uint8 = 6
	UDP    uint8 = 17
	ICMPv6 uint8 = 58
	PIM    uint8 = 103
	VRRP   uint8 = 112 // and CARP
)

// Extension headers (RFC 8200 section 4, RFC 7045).
const (
	hopByHop  = 0
	routing   = 43
	fragment  = 44
	auth      = 51
	options   = 60
	mobility  = 135
	hip       = 139
	shim6     = 140
	maxHeader = 8 // most extension headers
)

// Addr is an address as two numbers; an IPv4 address is mapped (RFC 4291 section 2.5.5.2).
type Addr struct{ Hi, Lo uint64 }

// mapped is the upper part of a mapped address, beside its Hi of 0.
const mapped = 0xffff << 32

// From4 reads the IPv4 address in the first 4 bytes of b.
func From4(b []byte) Addr { return Addr{0, mapped | uint64(binary.BigEndian.Uint32(b))} }

// Is4 reports whether a is an IPv4 address, or the IPv6 address that it is mapped to.
func (a Addr) Is4() bool { return a.Hi == 0 && a.Lo>>32 == 0xffff }

// From16 reads the IPv6 address in the first 16 bytes of b.
func From16(b []byte) Addr {
	return Addr{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

// Packet is an IP packet.
type Packet struct {
	Proto    uint8 // of Body; of a Later part, that of what was cut into fragments
	HopLimit uint8 // the time to live of IPv4
	Part     Part
	Src, Dst Addr

	// Body is the upper layer's header and what follows it, up to the end of the packet or
	// of the bytes given, whichever comes first. Short reports the latter.
	Body  []byte
	Short bool
}

// Parse4 reads the IPv4 packet that begins with b; n is how many bytes there are, which
// may be more than b holds.
func Parse4(b []byte, n int) (p Packet, fault Fault) {
	if len(b) < 20 {
		return p, Bad
	}
	head, length := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
	if b[0]>>4 != 4 || head < 20 || head > length || length > n || head > len(b) {
		return p, Bad
	}
	p = Packet{Proto: b[9], HopLimit: b[8], Src: From4(b[12:]), Dst: From4(b[16:])}
	switch f := binary.BigEndian.Uint16(b[6:]); {
	case f&0x1fff != 0:
		p.Part = Later
	case f&0x2000 != 0:
		p.Part = First
	}
	p.cut(b, head, length)
	return p, OK
}

// Parse6 reads the IPv6 packet that begins with b; n is how many bytes there are. All
// headers lie in the first most bytes of b.
func Parse6(b []byte, n, most int) (p Packet, fault Fault) {
	if len(b) < 40 {
		return p, Bad
	}
	length := 40 + int(binary.BigEndian.Uint16(b[4:]))
	if b[0]>>4 != 6 || length > n {
		return p, Bad
	}
	p = Packet{Proto: b[6], HopLimit: b[7], Src: From16(b[8:]), Dst: From16(b[24:])}
	at, end := 40, min(length, len(b), most)
	for headers := 0; isExtension(p.Proto); headers++ {
		if headers == maxHeader || at+8 > end || p.Proto == hopByHop && headers != 0 {
			return p, BadChain
		}
		h, size := b[at:], 8
		switch p.Proto {
		case fragment:
			if p.Part != Whole {
				return p, BadChain // a fragment of a fragment
			}
			p.Part = First
			if binary.BigEndian.Uint16(h[2:])&^7 != 0 {
				p.Part = Later
			}
		case auth:
			size = 4 * (int(h[1]) + 2)
		default:
			size = 8 * (int(h[1]) + 1)
		}
		if at+size > end {
			return p, BadChain
		}
		p.Proto, at = h[0], at+size
		if p.Part == Later {
			break
		}
	}
	p.cut(b, at, length)
	return p, OK
}

func isExtension(proto uint8) bool {
	switch proto {
	case hopByHop, routing, fragment, auth, options, mobility, hip, shim6:
		return true
	}
	return false
}

func (p *Packet) cut(b []byte, from, to int) {
	p.Short = to > len(b)
	p.Body = b[from:min(to, len(b))]
}
