// Package brief describes a frame in one line, as tcpdump does: addresses, VLAN tags, the
// protocol and the ports. It does no I/O, and has an answer for every input.
package brief

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/port"
)

// Append appends the description of a frame to b: data is as much of it as there is, tags in
// place, and length its length on the wire.
func Append(b, data []byte, length int) []byte {
	if len(data) < port.HeaderLen {
		return fmt.Appendf(b, "%d bytes, shorter than an Ethernet header", length)
	}
	b = fmt.Appendf(b, "%v > %v", port.MACFrom(data[6:]), port.MACFrom(data))
	at := port.HeaderLen
	t := binary.BigEndian.Uint16(data[at-2:])
	for (t == eth.TypeVLAN || t == eth.TypeQinQ) && at+4 <= len(data) {
		b = append(b, " vlan "...)
		b = strconv.AppendUint(b, uint64(binary.BigEndian.Uint16(data[at:])&0xfff), 10)
		at += 4
		t = binary.BigEndian.Uint16(data[at-2:])
	}
	b = append(b, ' ')
	switch rest := data[at:]; {
	case t == eth.TypeIPv4 || t == eth.TypeIPv6:
		b = appendIP(b, data, at, t)
	case t == eth.TypeARP && len(rest) >= 28:
		b = appendARP(b, rest)
	case t <= 1500 && len(rest) >= 3 && rest[0] == 0x42:
		b = append(b, "STP"...)
	case t <= 1500 && len(rest) >= 2:
		b = fmt.Appendf(b, "LLC %#02x > %#02x", rest[1]&^1, rest[0])
	default:
		b = appendName(b, uint64(t), etherTypes[t], "type %#04x")
	}
	return fmt.Appendf(b, " len %d", length)
}

// etherTypes are the names of EtherTypes.
var etherTypes = map[uint16]string{
	eth.TypeARP: "ARP", eth.TypeVLAN: "802.1Q", eth.TypeQinQ: "802.1ad", 0x8035: "RARP", 0x88cc: "LLDP", 0x8847: "MPLS", 0x8863: "PPPoE discovery", 0x8864: "PPPoE", 0x88e5: "MACsec", 0x9000: "loopback",
}

// protocols are the names of protocols of IP.
var protocols = map[uint8]string{
	1: "icmp", 2: "igmp", 4: "ipip", 6: "tcp", 17: "udp", 41: "ipv6", 47: "gre", 50: "esp", 51: "ah", 58: "icmp6", 89: "ospf", 103: "pim", 112: "vrrp", 132: "sctp",
}

// appendName appends a name, or the number if it has none.
func appendName(b []byte, number uint64, name, format string) []byte {
	if name == "" {
		return fmt.Appendf(b, format, number)
	}
	return append(b, name...)
}

func appendARP(b, arp []byte) []byte {
	from, to := netip.AddrFrom4([4]byte(arp[14:])), netip.AddrFrom4([4]byte(arp[24:]))
	switch binary.BigEndian.Uint16(arp[6:]) {
	case 1:
		return fmt.Appendf(b, "ARP who has %v, tell %v", to, from)
	case 2:
		return fmt.Appendf(b, "ARP %v is at %v", from, port.MACFrom(arp[8:]))
	}
	return append(b, "ARP"...)
}

// appendIP describes the IP packet whose header begins at an offset.
func appendIP(b, data []byte, at int, t uint16) []byte {
	version := uint8(4)
	if t == eth.TypeIPv6 {
		version = 6
	}
	b = append(b, "IPv"...)
	b = append(b, '0'+version, ' ')
	p, ok := eth.FindIPAt(data, at, version)
	if !ok {
		return append(b, "without a whole header"...)
	}
	var src, dst netip.Addr
	if version == 4 {
		src, dst = netip.AddrFrom4([4]byte(data[at+12:])), netip.AddrFrom4([4]byte(data[at+16:]))
	} else {
		src, dst = netip.AddrFrom16([16]byte(data[at+8:])), netip.AddrFrom16([16]byte(data[at+24:]))
	}
	h := data[p.Transport:]
	hasPorts := p.Proto == eth.ProtoTCP || p.Proto == eth.ProtoUDP || p.Proto == eth.ProtoSCTP
	if !hasPorts || p.Fragment || len(h) < 4 {
		b = fmt.Appendf(b, "%v > %v ", src, dst)
	} else {
		b = fmt.Appendf(b, "%v > %v ", netip.AddrPortFrom(src, binary.BigEndian.Uint16(h)), netip.AddrPortFrom(dst, binary.BigEndian.Uint16(h[2:])))
	}
	b = appendName(b, uint64(p.Proto), protocols[p.Proto], "proto %d")
	switch {
	case p.Fragment:
		b = append(b, " fragment"...)
	case p.Proto == eth.ProtoTCP && len(h) >= 14:
		b = appendFlags(append(b, ' '), h[13])
	case p.Proto == 1 && len(h) >= 1:
		b = appendName(append(b, ' '), uint64(h[0]), icmp[h[0]], "type %d")
	case p.Proto == 58 && len(h) >= 1:
		b = appendName(append(b, ' '), uint64(h[0]), icmp6[h[0]], "type %d")
	}
	return b
}

// appendFlags appends TCP's flags as tcpdump does; a dot is ACK.
func appendFlags(b []byte, flags byte) []byte {
	n := len(b)
	for i, c := range []byte("FSRP.UEW") {
		if flags>>i&1 != 0 {
			b = append(b, c)
		}
	}
	if len(b) == n {
		return append(b, "none"...)
	}
	return b
}

var (
	icmp = map[uint8]string{0: "echo reply", 3: "unreachable", 5: "redirect", 8: "echo request", 11: "time exceeded"}

	icmp6 = map[uint8]string{
		1: "unreachable", 2: "packet too big", 3: "time exceeded", 128: "echo request", 129: "echo reply", 130: "listener query", 131: "listener report",
		133: "router solicitation", 134: "router advertisement", 135: "neighbor solicitation", 136: "neighbor advertisement", 143: "listener report",
	}
)
