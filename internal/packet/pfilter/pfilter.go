// Package pfilter selects frames by a user's expression. Compile turns an expression in
// a part of pcap-filter(7)'s language into a Filter; it does no I/O. Any goroutine may
// call a Filter: it reads the given bytes, keeps none, allocates nothing, and has an
// answer for every input.
package pfilter

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/port"
)

// Filter reports whether a frame matches. frame begins with the destination address. If
// its outer VLAN tag was removed, tag holds it; otherwise tag is 0.
type Filter func(tag port.Tag, frame []byte) bool

// Grammar is the language as a command's help shows it.
const Grammar = `    arp, ip, ip6, tcp, udp, icmp, icmp6     frames of that protocol
    vlan [VID]                              with a VLAN tag, which is the outer one
    ether [src|dst] host MAC                of or to a station
    ether proto N                           of an EtherType, such as 0x88cc
    ether broadcast, ether multicast        to all, to a group
    [src|dst] host ADDRESS                  of or to an IP address, ARP included
    [src|dst] net ADDRESS/LENGTH            of or to a network
    [tcp|udp] [src|dst] port N              of or to a port of TCP or UDP
    EXPR and EXPR, EXPR or EXPR, not EXPR   not binds closest, then and, then or
    (EXPR)`

// side selects which of a frame's two addresses or ports to look at.
type side uint8

const (
	source side = 1 << iota
	destination
	either = source | destination
)

func allOf(f []Filter) Filter {
	return join(f, func(a, b Filter) Filter {
		return func(tag port.Tag, frame []byte) bool { return a(tag, frame) && b(tag, frame) }
	})
}

func anyOf(f []Filter) Filter {
	return join(f, func(a, b Filter) Filter {
		return func(tag port.Tag, frame []byte) bool { return a(tag, frame) || b(tag, frame) }
	})
}

func join(f []Filter, with func(a, b Filter) Filter) Filter {
	joined := f[0]
	for _, next := range f[1:] {
		joined = with(joined, next)
	}
	return joined
}

func not(f Filter) Filter { return func(tag port.Tag, frame []byte) bool { return !f(tag, frame) } }

func etherHost(mac port.MAC, s side) Filter {
	addr := [6]byte(mac.HardwareAddr())
	return func(_ port.Tag, frame []byte) bool {
		return len(frame) >= port.HeaderLen &&
			(s&destination != 0 && [6]byte(frame) == addr || s&source != 0 && [6]byte(frame[6:]) == addr)
	}
}

func etherProto(t uint16) Filter {
	return func(_ port.Tag, frame []byte) bool {
		got, _, ok := payload(frame)
		return ok && got == t
	}
}

func broadcast(_ port.Tag, frame []byte) bool {
	return len(frame) >= port.HeaderLen && port.MACFrom(frame) == port.Broadcast
}

func multicast(_ port.Tag, frame []byte) bool { return len(frame) >= port.HeaderLen && frame[0]&1 != 0 }

// vlanTag matches the outer tag's VID; anyVID stands for all.
func vlanTag(vid int) Filter {
	return func(tag port.Tag, frame []byte) bool {
		if !tag.Present() && len(frame) >= port.HeaderLen+4 {
			if t := binary.BigEndian.Uint16(frame[12:]); t == eth.TypeVLAN || t == eth.TypeQinQ {
				tag = port.Tag(binary.BigEndian.Uint32(frame[12:]))
			}
		}
		return tag.Present() && (vid == anyVID || tag.VID() == uint16(vid))
	}
}

const anyVID = -1

// maxTags is how many VLAN tags are skipped, as in eth.FindIP.
const maxTags = 8

// payload returns the EtherType behind any VLAN tags, and the data after it.
func payload(frame []byte) (etherType uint16, data []byte, ok bool) {
	for at := port.HeaderLen; at <= port.HeaderLen+4*maxTags && at <= len(frame); at += 4 {
		t := binary.BigEndian.Uint16(frame[at-2:])
		if t != eth.TypeVLAN && t != eth.TypeQinQ {
			return t, frame[at:], true
		}
	}
	return 0, nil, false
}

func ipProto(version, proto uint8) Filter {
	return func(_ port.Tag, frame []byte) bool {
		p, ok := eth.FindIP(frame)
		return ok && p.Proto == proto && (version == 0 || p.Version == version)
	}
}

// ipNet matches the addresses of IP packets and the protocol addresses of ARP packets
// for IPv4 (RFC 826).
func ipNet(net netip.Prefix, s side) Filter {
	length, at, arpAt := 16, 8, 0 // of the source address in its header
	if net.Addr().Is4() {
		length, at, arpAt = 4, 12, 14
	}
	want, bits := net.Masked().Addr().AsSlice(), net.Bits()
	within := func(addr []byte) bool {
		whole := bits / 8
		if !bytes.Equal(addr[:whole], want[:whole]) {
			return false
		}
		rest := uint(bits % 8)
		return rest == 0 || (addr[whole]^want[whole])>>(8-rest) == 0
	}
	matches := func(src, dst []byte) bool {
		return s&source != 0 && within(src) || s&destination != 0 && within(dst)
	}
	return func(_ port.Tag, frame []byte) bool {
		if p, ok := eth.FindIP(frame); ok {
			if p.Version == 4 != (length == 4) {
				return false
			}
			src := frame[p.Header+at:]
			return matches(src[:length], src[length:2*length])
		}
		t, arp, ok := payload(frame)
		if !ok || t != eth.TypeARP || length != 4 || len(arp) < arpLen || !bytes.Equal(arp[:6], arpIPv4) {
			return false
		}
		return matches(arp[arpAt:arpAt+4], arp[arpAt+10:arpAt+14])
	}
}

// ARP for IPv4 on Ethernet: its length in bytes, and its first bytes.
const arpLen = 28

var arpIPv4 = []byte{0, 1, 8, 0, 6, 4}

// l4Port matches the ports of TCP and UDP; proto 0 stands for both. Only the first
// fragment of a packet has them.
func l4Port(proto uint8, number uint16, s side) Filter {
	return func(_ port.Tag, frame []byte) bool {
		p, ok := eth.FindIP(frame)
		if !ok || p.Proto != eth.ProtoTCP && p.Proto != eth.ProtoUDP || proto != 0 && p.Proto != proto {
			return false
		}
		h := frame[p.Transport:]
		if len(h) < 4 || p.Fragment && !firstFragment(frame, &p) {
			return false
		}
		return s&source != 0 && binary.BigEndian.Uint16(h) == number ||
			s&destination != 0 && binary.BigEndian.Uint16(h[2:]) == number
	}
}

// firstFragment reports whether a fragment begins with the transport header.
func firstFragment(frame []byte, p *eth.IPPacket) bool {
	at, mask := p.Header+6, uint16(0x1fff)
	if p.Version == 6 {
		// The fragment header, 8 bytes, is the last one before Transport.
		at, mask = p.Transport-6, 0xfff8
	}
	return binary.BigEndian.Uint16(frame[at:])&mask == 0
}
