// Package ndp reads the messages of IPv6 neighbour discovery (RFC 4861) over borrowed
// bytes. It allocates nothing and does no I/O; any goroutine may call it.
package ndp

import (
	"encoding/binary"
	"net/netip"

	"github.com/vswitch/vswitch/port"
)

// Message types (RFC 4861 section 4).
const (
	RouterSolicitation    uint8 = 133
	RouterAdvertisement   uint8 = 134
	NeighborSolicitation  uint8 = 135
	NeighborAdvertisement uint8 = 136
	Redirect              uint8 = 137
)

// Option types (RFC 4861 section 4.6).
const (
	SourceLinkLayer = 1
	TargetLinkLayer = 2
	prefixInfo      = 3
)

// maxPrefixes is how many prefixes of a router advertisement are read.
const maxPrefixes = 8

// Message is a message of neighbour discovery.
type Message struct {
	Type, Code uint8
	Target     netip.Addr // of a solicitation, advertisement or redirect

	// LinkLayers is the number of link-layer address options. The first of them:
	LinkLayers    int
	LinkLayerType uint8 // SourceLinkLayer or TargetLinkLayer
	LinkLayer     port.MAC
	Odd           bool // one of them is not as long as an Ethernet address needs

	prefixes [maxPrefixes]Prefix
	n        int
}

// Prefix is a prefix that a router advertises (RFC 4861 section 4.6.2).
type Prefix struct {
	netip.Prefix
	Autonomous bool   // hosts may form addresses in it
	Valid      uint32 // for so many seconds; all ones: for good
}

// Prefixes returns the first prefixes of a router advertisement.
func (m *Message) Prefixes() []Prefix { return m.prefixes[:m.n] }

// Parse reads an ICMPv6 message that begins at its type and ends with b. ok is false if it
// is none of neighbour discovery's, if it or an option is cut off, or if an option has the
// length 0.
func Parse(b []byte) (m Message, ok bool) {
	if len(b) < 8 {
		return m, false
	}
	m.Type, m.Code = b[0], b[1]
	fixed := 8
	switch m.Type {
	case RouterSolicitation:
	case RouterAdvertisement:
		fixed = 16
	case NeighborSolicitation, NeighborAdvertisement:
		fixed = 24
	case Redirect:
		fixed = 40
	default:
		return m, false
	}
	if len(b) < fixed {
		return m, false
	}
	if fixed >= 24 {
		m.Target = netip.AddrFrom16([16]byte(b[8:]))
	}
	for b = b[fixed:]; len(b) > 0; {
		if len(b) < 2 || b[1] == 0 || int(b[1])*8 > len(b) {
			return m, false
		}
		o := b[:int(b[1])*8]
		b = b[len(o):]
		switch o[0] {
		case SourceLinkLayer, TargetLinkLayer:
			if m.LinkLayers++; m.LinkLayers == 1 {
				m.LinkLayerType, m.LinkLayer = o[0], port.MACFrom(o[2:])
			}
			m.Odd = m.Odd || len(o) != 8
		case prefixInfo:
			if m.Type != RouterAdvertisement || len(o) != 32 || o[2] > 128 || m.n == maxPrefixes {
				continue
			}
			m.prefixes[m.n] = Prefix{
				Prefix:     netip.PrefixFrom(netip.AddrFrom16([16]byte(o[16:])), int(o[2])).Masked(),
				Autonomous: o[3]&0x40 != 0,
				Valid:      binary.BigEndian.Uint32(o[4:]),
			}
			m.n++
		}
	}
	return m, true
}
