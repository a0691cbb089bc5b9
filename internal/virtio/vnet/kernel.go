package vnet

import (
	"encoding/binary"

	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/port"
)

// Settle does the work in data that the kernel's sender left undone and the header cannot
// express, and returns the remaining offload. The header must be Valid, except that a
// GSOUDPL4 frame may have no partial checksum:
//
//   - A partial SCTP checksum is a CRC32c. Completing it by the header would write the
//     internet checksum over it, so Settle completes it.
//   - UDP datagrams that GRO merged as a list of packets (`ethtool -K DEV rx-gro-list on`)
//     have complete checksums, which do not survive segmentation. Settle gives them the
//     partial checksum of a super-frame.
func Settle(data []byte, o port.Offload) (port.Offload, bool) {
	switch {
	case o.Flags&port.NeedsCsum != 0:
		if o.CsumOffset == sctpCsum && !o.IsGSO() && completeSCTP(data, o) {
			return port.Offload{}, true
		}
	case o.GSOType == port.GSOUDPL4:
		p, _, ok := findPacket(data)
		if !ok || p.Fragment || p.Routed || p.Proto != eth.ProtoUDP || len(data) < p.Transport+udpHeaderLen {
			return o, false
		}
		o = needsCsum(o, p.Transport, udpCsum)
		binary.BigEndian.PutUint16(data[p.Transport+udpCsum:], pseudo(data, p))
	}
	return o, Valid(o, len(data))
}

func needsCsum(o port.Offload, start, offset int) port.Offload {
	o.Flags |= port.NeedsCsum
	o.CsumStart, o.CsumOffset = uint16(start), uint16(offset)
	return o
}

// pseudo is the sum of the pseudo header of a packet that ends with its frame.
func pseudo(data []byte, p eth.IPPacket) uint16 {
	addresses := data[p.Header+12 : p.Header+20]
	if p.Version == 6 {
		addresses = data[p.Header+8 : p.Header+40]
	}
	return fold(uint32(Sum(addresses)) + uint32(p.Proto) + uint32(len(data)-p.Transport))
}

// Guess returns the offload of a super-frame whose type the header of a packet socket
// cannot express: a UDP datagram to be fragmented (UFO), SCTP, or TCP that a device
// merged (LRO). All that is known is whether its checksum is partial. Its segments get
// the size that fits mtu with all tags, of which the outer one is not in data, but no more than every
// Ethernet takes. ok is false if the frame is none of these, or is SCTP inside a UDP tunnel, which must not be mistaken
// for a datagram to be fragmented.
func Guess(data []byte, tag port.Tag, partial bool, mtu int) (o port.Offload, ok bool) {
	p, _, ok := findPacket(data[:min(len(data), MaxHeader)])
	if !ok || p.Fragment {
		return o, false
	}
	room := min(mtu, ethernetMTU) - tag.Len() - (p.Transport - port.HeaderLen)
	offset := 0
	switch p.Proto {
	case eth.ProtoUDP:
		if tunnelsSCTP(data, p) {
			return o, false
		}
		o.GSOType, offset = port.GSOUDP, udpCsum
		if p.Version == 6 {
			room -= fragHeaderLen
		}
		room &^= 7
	case eth.ProtoTCP:
		if len(data) < p.Transport+tcpHeaderLen {
			return o, false
		}
		o.GSOType, offset = port.GSOTCPv4, tcpCsum
		if p.Version == 6 {
			o.GSOType = port.GSOTCPv6
		}
		room -= int(data[p.Transport+12]>>4) * 4
	case eth.ProtoSCTP:
		o.GSOType, partial = port.GSOSCTP, false
		room -= sctpHeaderLen
	default:
		return o, false
	}
	if room <= 0 {
		return o, false
	}
	o.GSOSize = uint16(room)
	if partial {
		o = needsCsum(o, p.Transport, offset)
	}
	return Inspect(data, len(data), o)
}

// maxShim is the most that can lie between the headers of a UDP tunnel and the IP
// packet in it, in bytes: GENEVE with all its options (RFC 8926), an Ethernet header,
// two tags.
const maxShim = 8 + 63*4 + port.HeaderLen + 2*tagLen

// tunnelsSCTP reports whether a UDP datagram holds an SCTP packet that ends where the
// datagram ends, behind any other headers.
func tunnelsSCTP(data []byte, p eth.IPPacket) bool {
	from := p.Transport + udpHeaderLen
	for at := from; at <= from+maxShim && at+eth.IPv4HeaderLen < len(data); at += 2 {
		version := data[at] >> 4
		if version != 4 && version != 6 {
			continue
		}
		if inner, ok := eth.FindIPAt(data, at, version); ok && inner.Proto == eth.ProtoSCTP && fills(data, len(data), inner) {
			return true
		}
	}
	return false
}

// ethernetMTU is the largest payload that every Ethernet takes, in bytes.
const ethernetMTU = 1500
