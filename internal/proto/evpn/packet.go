package evpn

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/port"
)

const (
	typeRARP = 0x8035

	arpLen     = 28 // of IPv4 over Ethernet (RFC 826)
	arpRequest = 1
	arpReply   = 2
	rarpAsk    = 3 // RFC 903

	protoICMPv6  = 58
	solicitation = 135 // RFC 4861 section 4.3
	advert       = 136 // section 4.4
	neighLen     = 24  // of both without options
	sourceLink   = 1   // option: source link-layer address (section 4.6.1)
	targetLink   = 2

	flagRouter    = 0x80
	flagSolicited = 0x40
	flagOverride  = 0x20

	minFrame = 60
)

// message is what an ARP or neighbour message says.
type message struct {
	src    port.MAC
	from   netip.Addr // sender's address, for the answer
	has    netip.Addr // the address that src has; invalid: it says none
	tells  bool       // it says whether it is a router
	router bool       // it is one
	asks   netip.Addr // the address that it asks all stations for; invalid: none
}

// parse reads an untagged frame. ok is false if it is neither ARP nor neighbour discovery, or
// breaks their rules.
func parse(b []byte) (m message, ok bool) {
	if len(b) < port.HeaderLen {
		return m, false
	}
	m.src = port.MACFrom(b[6:])
	toGroup := b[0]&1 != 0
	switch binary.BigEndian.Uint16(b[12:]) {
	case eth.TypeARP:
		ok = m.arp(b[port.HeaderLen:], toGroup)
	case eth.TypeIPv6:
		ok = m.neighbour(b[port.HeaderLen:], toGroup)
	}
	return m, ok && m.src != 0 && !m.src.IsGroup()
}

var ethernetIPv4 = []byte{0, 1, 8, 0, 6, 4}

func (m *message) arp(b []byte, toGroup bool) bool {
	if len(b) < arpLen || !bytes.Equal(b[:6], ethernetIPv4) || port.MACFrom(b[8:]) != m.src {
		return false
	}
	op := binary.BigEndian.Uint16(b[6:])
	sender, target := netip.AddrFrom4([4]byte(b[14:])), netip.AddrFrom4([4]byte(b[24:]))
	if op != arpRequest && op != arpReply {
		return false
	}
	if !isHost(sender) {
		return true // a probe (RFC 5227): the answer must come from who has the address
	}
	m.from, m.has = sender, sender
	if op == arpRequest && toGroup && sender != target && isHost(target) {
		m.asks = target
	}
	return true
}

func (m *message) neighbour(b []byte, toGroup bool) bool {
	if len(b) < eth.IPv6HeaderLen || b[0]>>4 != 6 || b[6] != protoICMPv6 || b[7] != 255 {
		return false
	}
	src, dst := netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
	n := int(binary.BigEndian.Uint16(b[4:]))
	if n < neighLen || len(b) < eth.IPv6HeaderLen+n {
		return false
	}
	b = b[eth.IPv6HeaderLen : eth.IPv6HeaderLen+n]
	kind, target := b[0], netip.AddrFrom16([16]byte(b[8:]))
	if kind != solicitation && kind != advert || b[1] != 0 || checksum(src, dst, b) != 0 || !isHost(target) {
		return false
	}
	want := byte(sourceLink)
	if kind == advert {
		want = targetLink
	}
	link, ok := linkOption(b[neighLen:], want)
	if !ok {
		return false
	}
	if kind == advert {
		if link == 0 || link == m.src {
			m.has, m.tells, m.router = target, true, b[4]&flagRouter != 0
		}
		return true
	}
	if !isHost(src) {
		return true // duplicate address detection (RFC 4862 section 5.4)
	}
	if m.from = src; link == m.src {
		m.has = src
		if toGroup {
			m.asks = target
		}
	}
	return true
}

// isHost reports whether one station can have an address.
func isHost(a netip.Addr) bool {
	return a.IsGlobalUnicast() || a.IsLinkLocalUnicast()
}

// linkOption returns the link-layer address in the options of a neighbour message, 0 if there
// is none. ok is false if the options are malformed.
func linkOption(b []byte, want byte) (mac port.MAC, ok bool) {
	for len(b) > 0 {
		if len(b) < 8 || b[1] == 0 || len(b) < int(b[1])*8 {
			return 0, false
		}
		if b[0] == want && b[1] == 1 {
			mac = port.MACFrom(b[2:])
		}
		b = b[int(b[1])*8:]
	}
	return mac, true
}

// answer returns the reply that the station with mac would send.
func (m *message) answer(mac port.MAC, router bool) []byte {
	if m.asks.Is4() {
		return arp(m.src, mac, arpReply, mac, m.asks, m.src, m.from)
	}
	flags := byte(flagSolicited | flagOverride)
	if router {
		flags |= flagRouter
	}
	return neighbour(m.src, mac, m.asks, m.from, advert, flags, m.asks, targetLink)
}

// question returns a frame that asks one station whether it still has an address.
func question(self, mac port.MAC, ip netip.Addr) []byte {
	if ip.Is4() {
		return arp(mac, self, arpRequest, self, netip.IPv4Unspecified(), 0, ip)
	}
	return neighbour(mac, self, linkLocal(self), ip, solicitation, 0, ip, sourceLink)
}

// rarp returns the frame with which a station that has moved makes itself known.
func rarp(mac port.MAC) []byte {
	b := header(port.Broadcast, mac, typeRARP)
	return arpBody(b, rarpAsk, mac, netip.IPv4Unspecified(), mac, netip.IPv4Unspecified())
}

func arp(dst, src port.MAC, op uint16, sender port.MAC, senderIP netip.Addr, target port.MAC, targetIP netip.Addr) []byte {
	return arpBody(header(dst, src, eth.TypeARP), op, sender, senderIP, target, targetIP)
}

func arpBody(b []byte, op uint16, sender port.MAC, senderIP netip.Addr, target port.MAC, targetIP netip.Addr) []byte {
	b = append(b, ethernetIPv4...)
	b = binary.BigEndian.AppendUint16(b, op)
	b = append(append(b, sender.HardwareAddr()...), senderIP.AsSlice()...)
	b = append(append(b, target.HardwareAddr()...), targetIP.AsSlice()...)
	return append(b, make([]byte, minFrame-len(b))...)
}

func neighbour(dst, src port.MAC, from, to netip.Addr, kind, flags byte, target netip.Addr, option byte) []byte {
	b := header(dst, src, eth.TypeIPv6)
	b = append(b, 0x60, 0, 0, 0, 0, neighLen+8, protoICMPv6, 255)
	b = append(append(b, from.AsSlice()...), to.AsSlice()...)
	at := len(b)
	b = append(b, kind, 0, 0, 0, flags, 0, 0, 0)
	b = append(b, target.AsSlice()...)
	b = append(append(b, option, 1), src.HardwareAddr()...)
	binary.BigEndian.PutUint16(b[at+2:], checksum(from, to, b[at:]))
	return b
}

func header(dst, src port.MAC, etherType uint16) []byte {
	b := make([]byte, 0, 96)
	b = append(append(b, dst.HardwareAddr()...), src.HardwareAddr()...)
	return binary.BigEndian.AppendUint16(b, etherType)
}

// linkLocal returns the IPv6 link-local address of a MAC address (RFC 4291 appendix A).
func linkLocal(mac port.MAC) netip.Addr {
	h := mac.HardwareAddr()
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: h[0] ^ 2, h[1], h[2], 0xff, 0xfe, h[3], h[4], h[5]})
}

// checksum returns the checksum of an ICMPv6 message (RFC 4443 section 2.3): of one that has
// its checksum, 0 if it is right.
func checksum(src, dst netip.Addr, b []byte) uint16 {
	sum := uint32(len(b)) + protoICMPv6
	add := func(b []byte) {
		for ; len(b) > 1; b = b[2:] {
			sum += uint32(b[0])<<8 | uint32(b[1])
		}
		if len(b) > 0 {
			sum += uint32(b[0]) << 8
		}
	}
	add(src.AsSlice())
	add(dst.AsSlice())
	add(b)
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
