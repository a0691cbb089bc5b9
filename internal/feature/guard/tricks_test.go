package guard_test

import (
	"bytes"
	"fmt"
	"net"

	"github.com/insomniacslk/dhcp/dhcpv4"

	. "github.com/vswitch/vswitch/internal/packet/packettest"
	"github.com/vswitch/vswitch/port"
)

// tricks are frames of protocols that few hosts speak, or that say one thing to one reader and
// another to the next.
var tricks = []testCase{
	{"types and addresses, tricks", static, func(l *lab) {
		own := toV4(17, UDP(1000, 2000, make([]byte, 64)))
		for _, kind := range []uint16{0x22f0, 0x22f3, 0x6003, 0x894f, 0x8922, 0x9998, 0xa0ed, 0x80f3, 0x809b, 0x8138, 0xdd86, 0x0008} {
			l.known(fmt.Sprintf("type %#04x", kind), "guard_ethertype", Eth(macV, macA, kind, own[14:]))
		}
		snap := func(oui string, payload []byte) []byte {
			b := append(append([]byte{0xaa, 0xaa, 3}, oui...), payload...)
			return Eth(macV, macA, uint16(len(b)), b)
		}
		arp := append([]byte{8, 6}, ARP(2, macA, "10.99.0.1", macV, "10.99.0.11")...)
		l.known("ARP in SNAP of 802.1H", "guard_ethertype", snap("\x00\x00\xf8", arp))
		l.known("ARP in SNAP of Cisco", "guard_ethertype", snap("\x00\x00\x0c", arp))
		l.known("ARP in SNAP, behind a priority", "guard_ethertype", Tag(snap("\x00\x00\x00", arp), 0x8100_6000))
		l.known("a longer length than the frame has", "guard_ethertype", Eth(macV, macA, 0x05dc, own[14:]))
		l.nothing("as the router, to nobody", Eth(0, macT, tIPv4, own[14:]), port.Offload{})
		l.known("from the switch of a virtual router", "guard_mac", Eth(macV, 0x0000_5e00_0101, tIPv4, own[14:]))
		l.known("from its own MAC with the local bit turned", "guard_mac", Eth(macV, macA^0x0200_0000_0000, tIPv4, own[14:]))
		l.known("from its own MAC read backwards", "guard_mac", Eth(macV, 0x0a00_9900_5452, tIPv4, own[14:]))
	}},
	{"ARP, tricks", static, func(l *lab) {
		for _, hardware := range []byte{1, 19, 24, 27, 31} { // the first in the wrong order of bytes
			b := ARP(2, macA, "10.99.0.1", macV, "10.99.0.11")
			b[0], b[1] = 0, hardware
			if hardware == 1 {
				b[0], b[1] = 1, 0
			}
			l.known(fmt.Sprint("hardware type ", hardware), "guard_malformed", Eth(macV, macA, tARP, b))
		}
		l.known("a reply by nobody", "guard_arp", Eth(macV, macA, tARP, ARP(2, macA, "0.0.0.0", macV, "10.99.0.11")))
		l.known("a reply by nobody for itself", "guard_arp", Eth(macV, macA, tARP, ARP(2, macA, "0.0.0.0", macA, "10.99.0.10")))
		l.drop("a probe of another's in its name", "guard_arp", "A", Eth(Broadcast, macA, tARP, ARP(1, macA, "0.0.0.0", macV, "10.99.0.11")))
		l.drop("a probe by another's MAC", "guard_arp", "A", Eth(Broadcast, macA, tARP, ARP(1, macV, "0.0.0.0", 0, "10.99.0.10")))
		l.drop("a probe by no MAC", "guard_arp", "A", Eth(Broadcast, macA, tARP, ARP(1, 0, "0.0.0.0", 0, "10.99.0.10")))
		l.known("a proxy's answer for another subnet", "guard_arp", Eth(macV, macA, tARP, ARP(2, macA, "192.0.2.1", macV, "10.99.0.11")))
		l.known("an announcement as a reply to all", "guard_arp", Eth(Broadcast, macA, tARP, ARP(2, macA, "10.99.0.11", Broadcast, "10.99.0.11")))
		l.drop("RARP that asks for another", "guard_arp", "A", Eth(Broadcast, macA, 0x8035, ARP(3, macV, "0.0.0.0", macV, "0.0.0.0")))
		l.drop("RARP's answer", "guard_arp", "A", Eth(macV, macA, 0x8035, ARP(4, macA, "10.99.0.1", macV, "10.99.0.66")))
		l.drop("dynamic RARP", "guard_arp", "A", Eth(Broadcast, macA, 0x8035, ARP(5, macA, "0.0.0.0", macA, "0.0.0.0")))
	}},
	{"IPv4, tricks", static, func(l *lab) {
		udp := UDP(1000, 2000, make([]byte, 64))
		part := func(word uint16, proto byte, payload []byte) []byte {
			return poke(toV4(proto, payload), 6, byte(word>>8), byte(word))
		}
		l.known("a first part with a header of a client's port alone", "guard_dhcp_server", part(0x2000, 17, UDP(1000, 68, nil)))
		l.known("a first part of VRRP", "guard_router", part(0x2000, 112, make([]byte, 24)))
		l.known("a first part of PIM", "guard_router", part(0x6000, 103, make([]byte, 24)))
		l.pass("the last part that is possible", "A", part(0x1fff, 17, udp[:8]), "V")
		l.known("the last part that is possible, of another's", "guard_ipv4", Eth(macV, macA, tIPv4, poke(Eth(macV, macA, tIPv4, IPv4("10.99.0.11", "10.99.0.12", 17, udp)), 6, 0x1f, 0xff)[14:]))
		source := append([]byte{0x83, 11, 4}, append(Addr("10.99.0.12"), Addr("10.99.0.1")...)...) // RFC 791: loose source route
		routed := withOptions(IPv4("10.99.0.11", "10.99.0.12", 17, udp), 12)
		copy(routed[20:], source)
		l.known("another's by way of itself", "guard_ipv4", Eth(macV, macA, tIPv4, routed))
		l.known("a redirect to all", "guard_router", toV4(1, append([]byte{5, 0, 0, 0, 10, 99, 0, 10}, make([]byte, 28)...)))
		l.drop("a router's advertisement to its group", "guard_router", "A", Eth(0x0100_5e00_0001, macA, tIPv4, IPv4("10.99.0.10", "224.0.0.1", 1, []byte{9, 0, 0, 0, 1, 2, 0, 30, 10, 99, 0, 10, 0, 0, 0, 0})))
		l.drop("a query of version 1", "guard_router", "A", Eth(0x0100_5e00_0001, macA, tIPv4, IPv4("10.99.0.10", "224.0.0.1", 2, []byte{0x11, 0, 0, 0, 0, 0, 0, 0})))
		l.drop("a query that comes as a broadcast", "guard_router", "A", Eth(Broadcast, macA, tIPv4, IPv4("10.99.0.10", "224.0.0.1", 2, []byte{0x11, 10, 0, 0, 0, 0, 0, 0})))
		l.drop("the answer of a server that has a client's port", "guard_dhcp_server", "A", Eth(macV, macA, tIPv4, IPv4("10.99.0.10", "255.255.255.255", 17, UDP(68, 68, make([]byte, 300)))))
		l.pass("no time to live", "A", poke(toV4(17, udp), 8, 0), "V")
	}},
	{"IPv6, tricks", static, func(l *lab) {
		for _, kind := range []byte{154, 155, 157, 158} {
			l.known(fmt.Sprint("ICMPv6 ", kind), "guard_router", toV6(58, icmp6(kind, make([]byte, 28))))
			l.known(fmt.Sprint("a part of ICMPv6 ", kind), "guard_nd", toV6(44, Fragment(58, 0, true, icmp6(kind, make([]byte, 28)))))
		}
		inverse := append(make([]byte, 4), append(LinkLayer(1, macV), LinkLayer(2, macA)...)...) // RFC 3122
		l.known("an inverse solicitation", "guard_nd", toV6(58, icmp6(141, inverse)))
		l.known("an inverse advertisement", "guard_nd", toV6(58, icmp6(142, inverse)))
		l.known("an inverse advertisement behind a header", "guard_nd", toV6(60, Extension(58, icmp6(142, inverse))))
		l.known("an inverse advertisement in one part", "guard_nd", toV6(44, Fragment(58, 0, false, icmp6(142, inverse))))
		for _, a := range []string{"fe80::", "fe80::200:5eff:fe00:213", "fe80::200:5eff:fe00:5213", "fe80::fdff:ffff:ffff:fffe", "fe80::fdff:ffff:ffff:ff80"} {
			l.drop("detection of an address of many, "+a, "guard_nd", "A", solicitation(a))
		}
		detect := func(next byte, payload []byte) []byte {
			return Eth(0x3333_ff00_0011, macA, tIPv6, IPv6("::", "ff02::1:ff00:11", next, payload))
		}
		ask := ICMPv6("::", "ff02::1:ff00:11", 135, ND("fd99::11"))[40:]
		l.drop("another's detection behind options", "guard_nd", "A", detect(60, Extension(58, ask)))
		l.drop("another's detection in one part", "guard_nd", "A", detect(44, Fragment(58, 0, false, ask)))
		l.drop("another's detection behind a route", "guard_nd", "A", detect(43, Extension(58, ask)))
		l.known("an advertisement with another's MAC in a longer option first", "guard_nd",
			toV6(58, icmp6(136, ND("fd99::10", append([]byte{2, 2, 0x52, 0x54, 0, 0x99, 0, 0xb, 0, 0, 0, 0, 0, 0, 0, 0}, LinkLayer(2, macA)...)...))))
		l.known("an advertisement with MAC of zeros", "guard_nd", toV6(58, icmp6(136, ND("fd99::10", LinkLayer(2, 0)...))))
		l.known("an advertisement for all, to all", "guard_nd", toV6(58, icmp6(136, ND("ff02::1", LinkLayer(2, macA)...))))
		l.known("a redirect's option in an advertisement", "guard_nd", toV6(58, icmp6(136, ND("fd99::11", 4, 1, 0, 0, 0, 0, 0, 0))))
		l.known("a router's certificate path", "guard_router", toV6(58, icmp6(149, make([]byte, 12))))
	}},
	{"DHCP, tricks", "--guard-learn dhcp --guard-address 10.99.0.10", func(l *lab) {
		base := message4(l, dhcpv4.MessageTypeDiscover, 1, macA)[:240]
		message := func(options ...byte) []byte { return client(macA, append(bytes.Clone(base), append(options, 255)...)) }
		// elsewhere has further options in the fields for names.
		elsewhere := func(at int, there []byte, options ...byte) []byte {
			b := append(bytes.Clone(base), append(options, 255)...)
			copy(b[at:], append(there, 255))
			copy(b[12:], net.IPv4(10, 99, 0, 11).To4())
			return client(macA, b)
		}
		l.drop("a release in sname", "guard_dhcp", "A", elsewhere(44, []byte{53, 1, 7}, 52, 1, 2))
		l.drop("a release in file behind a discovery", "any", "A", elsewhere(108, []byte{53, 1, 7}, 53, 1, 1, 52, 1, 1))
		l.drop("overload in a way nobody knows", "any", "A", elsewhere(44, []byte{82, 2, 1, 0}, 53, 1, 1, 52, 1, 6))
		l.drop("overload of two bytes", "any", "A", elsewhere(44, []byte{82, 2, 1, 0}, 53, 1, 1, 52, 2, 0, 2))
		split := []byte{53, 1, 1, 61, 3, 1, 0x52, 0x54, 61, 4, 0, 0x99, 0, 0x0b}
		l.drop("another's identifier in halves", "guard_dhcp", "A", message(split...))
		l.drop("a type of two bytes", "guard_malformed", "A", message(53, 2, 1, 1))
		l.drop("no type but a release's", "guard_dhcp", "A", message(50, 4, 10, 99, 0, 11))
		l.drop("a relay's option between pads", "guard_dhcp", "A", message(0, 0, 53, 1, 1, 0, 82, 1, 7, 0))
		l.drop("in IPv4 to a client behind a whole header of options", "guard_dhcp_server", "A", Eth(macV, macA, tIPv4, withOptions(IPv4("10.99.0.10", "10.99.0.11", 17, UDP(67, 68, base)), 40)))
	}},
	{"DHCPv6, tricks", static, func(l *lab) {
		to := func(message ...byte) []byte {
			return Eth(macV, macA, tIPv6, IPv6(localA, localV, 17, UDP(546, 547, message)))
		}
		message := func(kind byte, options ...byte) []byte {
			return to(append([]byte{kind, 1, 2, 3, 0, 1, 0, 10, 0, 3, 0, 1, 0x52, 0x54, 0, 0x99, 0, 0xb}, options...)...)
		}
		prefix := append([]byte{0, 26, 0, 25, 0, 0, 0, 0, 0, 0, 0, 0, 56}, Addr("fd97::")...)
		delegated := append([]byte{0, 25, 0, byte(12 + len(prefix)), 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}, prefix...)
		l.known("RELEASE of another's prefix", "guard_dhcp", message(8, delegated...))
		l.known("DECLINE of another's prefix", "guard_dhcp", message(9, delegated...))
		temporary := append([]byte{0, 4, 0, 32, 0, 0, 0, 1, 0, 5, 0, 24}, append(Addr("fd99::11"), make([]byte, 8)...)...)
		l.known("RELEASE of another's temporary address", "guard_dhcp", message(8, temporary...))
		l.known("an address beyond its association", "guard_malformed", message(8, 0, 3, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 24))
		l.known("a query of DHCPv4", "guard_dhcp", to(20, 0, 0, 0))
		l.known("an answer of DHCPv4", "guard_dhcp", to(21, 0, 0, 0))
		l.known("a relay's, without hops", "guard_dhcp_server", to(12, 0, 0, 0))
		short := UDP(546, 547, []byte{1, 1, 2, 3, 0, 8, 0, 2, 0, 0})
		short[5] -= 6
		l.known("shorter than its packet", "guard_malformed", Eth(macV, macA, tIPv6, IPv6(localA, localV, 17, short)))
	}},
	{"a prefix that is configured, tricks", "--guard-address fd97::/48 --guard-address fd99::10 --guard-address 10.99.0.10 --guard-learn none", func(l *lab) {
		release := func(bits byte, a string) []byte {
			prefix := append([]byte{0, 26, 0, 25, 0, 0, 0, 0, 0, 0, 0, 0, bits}, Addr(a)...)
			b := append([]byte{8, 1, 2, 3, 0, 1, 0, 4, 0, 3, 0, 1, 0, 25, 0, byte(12 + len(prefix)), 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}, prefix...)
			return Eth(macV, macA, tIPv6, IPv6(localA, localV, 17, UDP(546, 547, b)))
		}
		l.pass("RELEASE of a part of it", "A", release(56, "fd97:0:0:100::"), "V")
		l.known("RELEASE of more", "guard_dhcp", release(47, "fd97::"))
		l.known("RELEASE beside it", "guard_dhcp", release(56, "fd97:0:1::"))
	}},
}

var unfinishedTricks = []testCase{
	{"offloads, tricks", static, func(l *lab) {
		forged := Eth(macV, macA, tIPv4, IPv4("10.99.0.1", "10.99.0.11", 17, UDP(1000, 2000, make([]byte, 3000))))
		reply := Eth(macV, macA, tARP, append(ARP(2, macA, "10.99.0.10", macV, "10.99.0.11"), make([]byte, 64)...))
		for i, o := range []port.Offload{
			{Flags: 2}, {Flags: 4, CsumStart: 1}, {Flags: 0xff}, {Flags: 2, CsumStart: 34, CsumOffset: 6}, {GSOSize: 1000, HdrLen: 42},
		} {
			l.nothing(fmt.Sprint("another's, ", i), forged, o)
		}
		for _, at := range []uint16{20, 22, 26, 28, 30, 36, 40} {
			for _, offset := range []uint16{0, 2, 6, 8, 16} {
				l.nothing(fmt.Sprint("a reply that wants a checksum at ", at, "+", offset), reply, port.Offload{Flags: port.NeedsCsum, CsumStart: at, CsumOffset: offset})
			}
		}
		// UDP whose checksum would be behind its header, or in front of it, or of the inner packet's.
		for _, offset := range []uint16{4, 5, 7, 8, 0xfffe} {
			l.nothing(fmt.Sprint("a sum in UDP at ", offset), toV4(17, UDP(1000, 2000, make([]byte, 64))), port.Offload{Flags: port.NeedsCsum, CsumStart: 34, CsumOffset: offset})
		}
		for _, offset := range []uint16{4, 12, 15, 17, 18} {
			l.nothing(fmt.Sprint("a sum in TCP at ", offset), toV4(6, append([]byte{4, 0, 8, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0}, make([]byte, 64)...)), port.Offload{Flags: port.NeedsCsum, CsumStart: 34, CsumOffset: offset})
		}
	}},
}
