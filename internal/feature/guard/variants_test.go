package guard_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"slices"

	"github.com/insomniacslk/dhcp/dhcpv4"

	. "github.com/vswitch/vswitch/internal/packet/packettest"
	"github.com/vswitch/vswitch/port"
)

// toV4 and toV6 are packets of A's to V, which the fast path forwards by itself if they are
// plain: next is the type of the payload's first header.
func toV4(proto byte, payload []byte) []byte {
	return Eth(macV, macA, tIPv4, IPv4("10.99.0.10", "10.99.0.11", proto, payload))
}

func toV6(next byte, payload []byte) []byte {
	return Eth(macV, macA, tIPv6, IPv6("fd99::10", "fd99::11", next, payload))
}

// poke returns a frame with other bytes at a place behind the Ethernet header.
func poke(wire []byte, at int, with ...byte) []byte {
	b := bytes.Clone(wire)
	copy(b[port.HeaderLen+at:], with)
	return b
}

// extension returns a header of 8 bytes more than the least, with padding.
func extension(next byte, more int, payload []byte) []byte {
	b := append([]byte{next, byte(more), 1, byte(4 + 8*more)}, make([]byte, 4+8*more)...)
	return append(b, payload...)
}

func icmp6(kind byte, body []byte) []byte {
	return ICMPv6("fd99::10", "fd99::11", kind, body)[40:]
}

// known has a station send a frame among others of the same flow, which the fast path remembers,
// and expects that it alone is dropped.
func (l *lab) known(what, reason string, wire []byte) {
	l.Helper()
	l.knownWith(what, reason, wire, port.Offload{})
}

func (l *lab) knownWith(what, reason string, wire []byte, o port.Offload) {
	l.Helper()
	before := l.dropped("vm0")
	own := [][]byte{toV4(17, UDP(1000, 2000, make([]byte, 64))), toV6(17, UDP(1000, 2000, make([]byte, 64)))}
	for _, b := range own {
		l.put("A", b)
	}
	if err := l.guests["A"].Send(wire, o); err != nil {
		l.Fatalf("%s: %v", what, err)
	}
	for name, frames := range l.settle("A") {
		for _, b := range frames {
			if i := slices.IndexFunc(own, func(o []byte) bool { return bytes.Equal(o, b) }); i >= 0 && name == "V" {
				own = slices.Delete(own, i, i+1)
			} else {
				l.Errorf("%s: %s got %x", what, name, b)
			}
		}
	}
	if len(own) != 0 {
		l.Errorf("%s: of A's own frames do not arrive %x", what, own)
	}
	l.countedAt("vm0", what, before, reason)
}

// variants are frames by which others' guards were passed, or that stand at the border of a
// rule.
var variants = []testCase{
	{"tags and types, variants", static, func(l *lab) {
		own := toV4(17, UDP(1000, 2000, make([]byte, 64)))
		l.known("a VLAN behind a priority", "guard_tag", Tag(Tag(own, 0x8100_0014), 0x8100_0000))
		l.known("a service tag behind a priority", "guard_tag", Tag(Tag(own, 0x88a8_0000), 0x8100_0000))
		l.known("0x9100 behind a priority", "guard_tag", Tag(Tag(own, 0x9100_0000), 0x8100_0000))
		l.known("a service tag without a VLAN", "guard_tag", Tag(own, 0x88a8_0000))
		l.known("VLAN 4095", "guard_tag", Tag(own, 0x8100_0fff))
		l.pass("a priority that may be dropped", "A", Tag(own, 0x8100_f000), "V")
		snap := func(inner ...byte) []byte { return append([]byte{0xaa, 0xaa, 3, 0, 0, 0}, inner...) }
		tagged := snap(append([]byte{0x81, 0, 0, 20, 8, 6}, ARP(2, macA, "10.99.0.1", macV, "10.99.0.11")...)...)
		l.known("a tag inside of SNAP", "guard_ethertype", Eth(macV, macA, uint16(len(tagged)), tagged))
		l.known("SNAP behind a priority", "guard_ethertype", Tag(Eth(macV, macA, uint16(len(tagged)), tagged), 0x8100_0000))
		plain := snap(append([]byte{8, 0}, own[14:]...)...)
		l.known("IPv4 in SNAP", "guard_ethertype", Eth(macV, macA, uint16(len(plain)), plain))
		for _, kind := range []uint16{0, 0x05ff, 0x0835, 0x8137, 0x8847, 0x8863, 0x8864, 0x888e, 0x88cc, 0x88e5, 0x88f7, 0x9000, 0xffff} {
			l.known(fmt.Sprintf("type %#04x", kind), "guard_ethertype", Eth(macV, macA, kind, own[14:]))
		}
		l.drop("LLDP", "guard_ethertype", "A", Eth(0x0180_c200_000e, macA, 0x88cc, make([]byte, 46)))
		l.drop("IPv4 to a reserved address from another", "guard_ipv4", "A", Eth(0x0180_c200_0000, macA, tIPv4, echo4("10.99.0.11", "10.99.0.12")))
		l.drop("from a group", "guard_mac", "A", Eth(macV, macA|1<<40, tIPv4, echo4("10.99.0.10", "10.99.0.11")))
		l.drop("from all", "guard_mac", "A", Eth(macV, Broadcast, tIPv4, echo4("10.99.0.10", "10.99.0.11")))
		l.drop("from nobody", "guard_mac", "A", Eth(macV, 0, tIPv4, echo4("10.99.0.10", "10.99.0.11")))
	}},
	{"ARP, variants", static, func(l *lab) {
		arp := func(dst port.MAC, p []byte) []byte { return Eth(dst, macA, tARP, p) }
		reply := ARP(2, macA, "10.99.0.10", macV, "10.99.0.11")
		l.pass("reply", "A", arp(macV, reply), "V")
		l.pass("with bytes behind it", "A", arp(macV, append(bytes.Clone(reply), ARP(2, macA, "10.99.0.1", macV, "10.99.0.11")...)), "V")
		for what, at := range map[string]struct {
			place int
			to    byte
		}{"hardware type 6": {1, 6}, "hardware type 256": {0, 1}, "hardware length 0": {4, 0}, "protocol length 16": {5, 16}, "protocol 0x0806": {3, 6}} {
			odd := bytes.Clone(reply)
			odd[at.place] = at.to
			l.known(what, "guard_malformed", arp(macV, odd))
		}
		for _, op := range []uint16{0, 3, 4, 8, 9, 10, 0x0100, 0x0200} {
			l.known(fmt.Sprint("operation ", op), "guard_arp", arp(macV, ARP(op, macA, "10.99.0.10", macV, "10.99.0.11")))
		}
		for _, a := range []string{"10.99.0.1", "255.255.255.255", "224.0.0.1", "127.0.0.1", "169.254.1.1"} {
			l.known("reply of "+a, "guard_arp", arp(macV, ARP(2, macA, a, macV, "10.99.0.11")))
			l.drop("request of "+a, "guard_arp", "A", arp(Broadcast, ARP(1, macA, a, 0, a)))
		}
		l.known("a unicast probe of another's", "guard_arp", arp(macV, ARP(1, macA, "0.0.0.0", 0, "10.99.0.11")))
		l.drop("a probe of nothing", "guard_arp", "A", arp(Broadcast, ARP(1, macA, "0.0.0.0", 0, "0.0.0.0")))
		l.known("from all", "guard_arp", arp(macV, ARP(2, Broadcast, "10.99.0.10", macV, "10.99.0.11")))
		l.known("behind a priority", "guard_arp", Tag(arp(macV, ARP(2, macA, "10.99.0.1", macV, "10.99.0.11")), 0x8100_2000))
		rarp := func(p []byte) []byte { return Eth(Broadcast, macA, 0x8035, p) }
		l.drop("RARP with an address", "guard_arp", "A", rarp(ARP(3, macA, "10.99.0.1", macA, "0.0.0.0")))
		l.drop("RARP for an address", "guard_arp", "A", rarp(ARP(3, macA, "0.0.0.0", macA, "10.99.0.1")))
		l.drop("RARP of two stations", "guard_arp", "A", rarp(ARP(3, macA, "0.0.0.0", macV, "0.0.0.0")))
		l.drop("RARP with ARP's operation", "guard_arp", "A", rarp(ARP(2, macA, "10.99.0.10", macV, "10.99.0.11")))
		l.drop("RARP, cut off", "guard_malformed", "A", Bare(Broadcast, macA, 0x8035, ARP(3, macA, "0.0.0.0", macA, "0.0.0.0")[:27]))
	}},
	{"IPv4, variants", static, func(l *lab) {
		udp := UDP(1000, 2000, make([]byte, 64))
		own := toV4(17, udp)
		l.pass("bytes behind the packet", "A", append(bytes.Clone(own), 1, 2, 3), "V")
		l.known("version 6", "guard_malformed", poke(own, 0, 0x65))
		l.known("a header of 16 bytes", "guard_malformed", poke(own, 0, 0x44))
		l.known("a header longer than the packet", "guard_malformed", poke(toV4(17, nil), 0, 0x4f))
		l.known("length 19", "guard_malformed", poke(own, 2, 0, 19))
		l.known("longer than the frame", "guard_malformed", poke(own, 2, 1, 0))
		l.known("another's, behind a header of 60 bytes", "guard_ipv4", Eth(macV, macA, tIPv4, withOptions(IPv4("10.99.0.1", "10.99.0.11", 17, udp), 40)))
		l.pass("options", "A", Eth(macV, macA, tIPv4, withOptions(IPv4("10.99.0.10", "10.99.0.11", 17, udp), 40)), "V")
		for _, a := range []string{"0.0.0.0", "127.0.0.1", "169.254.1.1", "224.0.0.5", "255.255.255.255", "10.99.0.255"} {
			l.known(a, "guard_ipv4", Eth(macV, macA, tIPv4, IPv4(a, "10.99.0.11", 17, udp)))
		}
		part := func(word uint16, proto byte, payload []byte) []byte {
			b := toV4(proto, payload)
			binary.BigEndian.PutUint16(b[20:], word)
			return b
		}
		l.pass("a later fragment", "A", part(8, 17, udp), "V")
		l.pass("a first fragment", "A", part(0x2000, 17, udp), "V")
		l.known("a later fragment of another's", "guard_ipv4", func() []byte {
			b := Eth(macV, macA, tIPv4, IPv4("10.99.0.1", "10.99.0.11", 17, udp))
			b[21] = 8
			return b
		}())
		l.known("a first fragment to a DHCP client", "guard_dhcp_server", part(0x2000, 17, UDP(1000, 68, make([]byte, 16))))
		l.known("a first fragment to a DHCP server", "guard_dhcp", part(0x2000, 17, UDP(68, 67, make([]byte, 16))))
		l.known("a first fragment of a redirect", "guard_router", part(0x2000, 1, append([]byte{5, 1}, make([]byte, 30)...)))
		l.known("a first fragment of a query", "guard_router", part(0x2000, 2, append([]byte{0x11}, make([]byte, 31)...)))
		l.known("a first fragment without ports", "guard_malformed", part(0x2000, 17, nil))
		l.known("a first fragment with half a header", "guard_malformed", part(0x2000, 17, udp[:4]))
		l.known("a first fragment without a type", "guard_malformed", part(0x2000, 1, nil))
		l.known("half a UDP header", "guard_malformed", toV4(17, udp[:4]))
		l.known("ports in the padding", "guard_malformed", append(toV4(17, nil)[:34], UDP(1000, 2000, make([]byte, 64))...))
		l.known("ICMP without a type", "guard_malformed", toV4(1, nil))
		for _, kind := range []byte{0x11, 0x13, 0x14, 0x30, 0x31, 0x32} {
			l.known(fmt.Sprintf("IGMP %#x", kind), "guard_router", toV4(2, append([]byte{kind}, make([]byte, 7)...)))
			l.known(fmt.Sprintf("IGMP %#x behind an option", kind), "guard_router",
				Eth(macV, macA, tIPv4, withOptions(IPv4("10.99.0.10", "224.0.0.1", 2, append([]byte{kind}, make([]byte, 7)...)), 4)))
		}
		for _, kind := range []byte{0x12, 0x17, 0x22} {
			l.pass(fmt.Sprintf("IGMP %#x", kind), "A", toV4(2, append([]byte{kind}, make([]byte, 7)...)), "V")
		}
		l.known("IGMP from nobody to a station", "guard_ipv4", Eth(macV, macA, tIPv4, IPv4("0.0.0.0", "10.99.0.11", 2, append([]byte{0x16}, make([]byte, 7)...))))
		l.drop("CARP", "guard_router", "A", Eth(0x0100_5e00_0012, macA, tIPv4, IPv4("10.99.0.10", "224.0.0.18", 112, append([]byte{0x21}, make([]byte, 35)...))))
		// A packet in a packet belongs to whoever takes it out.
		l.pass("IPv6 in IPv4", "A", toV4(41, IPv6("fd99::1", "fd99::11", 59, nil)), "V")
		l.pass("GRE", "A", toV4(47, append([]byte{0, 0, 8, 0}, IPv4("10.99.0.1", "10.99.0.11", 17, udp)...)), "V")
	}},
	{"a prefix, variants", "--guard-address 128.0.0.0/1 --guard-address 8000::/1 --guard-learn none", func(l *lab) {
		udp := UDP(1000, 2000, make([]byte, 64))
		from := func(a string) []byte { return Eth(macV, macA, tIPv4, IPv4(a, "10.99.0.11", 17, udp)) }
		from6 := func(a string) []byte { return Eth(macV, macA, tIPv6, IPv6(a, "fd99::11", 17, udp)) }
		l.pass("a station", "A", from("192.0.2.1"), "V")
		l.pass("a station of IPv6", "A", from6("fd99::1"), "V")
		l.drop("a group", "guard_ipv4", "A", from("239.1.1.1"))
		l.drop("all", "guard_ipv4", "A", from("255.255.255.255"))
		l.drop("a group of IPv6", "guard_ipv6", "A", from6("ff02::1"))
		l.drop("ARP of a group", "guard_arp", "A", Eth(macV, macA, tARP, ARP(2, macA, "224.0.0.1", macV, "10.99.0.11")))
		l.drop("advertisement of a group", "guard_nd", "A", Eth(macV, macA, tIPv6, ICMPv6("fd99::1", "fd99::11", 136, ND("ff02::1"))))
	}},
	{"DHCP, variants", "--guard-learn dhcp --guard-address 10.99.0.10", func(l *lab) {
		message := func(kind dhcpv4.MessageType, mods ...dhcpv4.Modifier) []byte {
			return message4(l, kind, 1, macA, mods...)
		}
		discover := message(dhcpv4.MessageTypeDiscover)
		from := func(src, dst string, udp []byte) []byte { return Eth(Broadcast, macA, tIPv4, IPv4(src, dst, 17, udp)) }
		change := func(at int, to ...byte) []byte {
			b := bytes.Clone(discover)
			copy(b[at:], to)
			return b
		}
		l.pass("broadcast flag", "A", client(macA, change(10, 0x80)), everybody...)
		l.pass("bytes behind the end", "A", client(macA, append(bytes.Clone(discover), 82, 1, 1)), everybody...)
		l.drop("a reply", "guard_dhcp", "A", client(macA, change(0, 2)))
		l.drop("another hardware type", "guard_dhcp", "A", client(macA, change(1, 6)))
		l.drop("a longer address", "guard_dhcp", "A", client(macA, change(2, 16)))
		l.drop("no cookie", "guard_malformed", "A", client(macA, change(236, 0)))
		l.drop("BOOTP", "guard_dhcp", "A", client(macA, append(bytes.Clone(discover[:240]), 255)))
		for _, kind := range []dhcpv4.MessageType{dhcpv4.MessageTypeOffer, dhcpv4.MessageTypeAck, dhcpv4.MessageTypeNak, 9, 10, 13} {
			l.drop("a client's "+kind.String(), "guard_dhcp", "A", client(macA, message(kind)))
		}
		l.drop("two types", "guard_malformed", "A", client(macA, append(bytes.Clone(discover[:240]), 53, 1, 1, 53, 1, 2, 255)))
		l.drop("an option beyond the end", "guard_malformed", "A", client(macA, append(bytes.Clone(discover[:240]), 53, 1, 1, 12, 9, 'a')))
		overload := func(in byte, at int, options ...byte) []byte {
			b := append(bytes.Clone(discover[:240]), 53, 1, 1, 52, 1, in, 255)
			copy(b[at:], append(options, 255))
			return b
		}
		l.drop("a relay's option in file", "guard_dhcp", "A", client(macA, overload(1, 108, 82, 1, 1)))
		l.drop("a relay's option in sname", "guard_dhcp", "A", client(macA, overload(2, 44, 82, 1, 1)))
		l.drop("another's identifier in file", "guard_dhcp", "A", client(macA, overload(3, 108, append([]byte{61, 7, 1}, macV.HardwareAddr()...)...)))
		l.drop("file that points at more", "guard_malformed", "A", client(macA, overload(1, 108, 52, 1, 2)))
		id := append([]byte{61, 2, 255, 1, 61, 7, 1}, macV.HardwareAddr()...)
		l.drop("two identifiers", "guard_dhcp", "A", client(macA, append(append(bytes.Clone(discover[:240]), 53, 1, 1), append(id, 255)...)))
		l.drop("DECLINE with another's address", "guard_dhcp", "A", client(macA, message(dhcpv4.MessageTypeDecline,
			dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 99, 0, 10))), dhcpv4.WithClientIP(net.IPv4(10, 99, 0, 11)))))
		l.drop("RELEASE of nothing", "guard_dhcp", "A", client(macA, message(dhcpv4.MessageTypeRelease)))
		l.drop("INFORM of another's", "guard_dhcp", "A", client(macA, message(dhcpv4.MessageTypeInform, dhcpv4.WithClientIP(net.IPv4(10, 99, 0, 11)))))
		l.drop("from any port, for another", "guard_dhcp", "A", from("10.99.0.10", "10.99.0.1", UDP(1068, 67, message4(l, dhcpv4.MessageTypeDiscover, 1, macV))))
		l.drop("from a server's port", "guard_dhcp_server", "A", from("10.99.0.10", "10.99.0.1", UDP(67, 67, discover)))
		l.drop("from nobody and any port", "guard_ipv4", "A", from("0.0.0.0", "255.255.255.255", UDP(1068, 67, discover)))
		l.drop("from nobody to one server", "guard_ipv4", "A", from("0.0.0.0", "10.99.0.1", UDP(68, 67, discover)))
		l.drop("from nobody, first fragment", "guard_ipv4", "A", poke(from("0.0.0.0", "255.255.255.255", UDP(68, 67, discover)), 6, 0x20))
		l.drop("from nobody, later fragment", "guard_ipv4", "A", poke(from("0.0.0.0", "255.255.255.255", UDP(68, 67, discover)), 7, 1))
		short := UDP(68, 67, discover)
		short[5]--
		l.drop("shorter than its packet", "guard_malformed", "A", from("0.0.0.0", "255.255.255.255", short))
		l.drop("behind options to a client", "guard_dhcp_server", "A", Eth(macV, macA, tIPv4, withOptions(IPv4("10.99.0.10", "10.99.0.11", 17, UDP(1000, 68, discover)), 8)))
	}},
	{"IPv6, variants", static, func(l *lab) {
		udp := UDP(1000, 2000, make([]byte, 64))
		own := toV6(17, udp)
		l.pass("bytes behind the packet", "A", append(bytes.Clone(own), 1, 2, 3), "V")
		l.known("version 4", "guard_malformed", poke(own, 0, 0x40))
		l.known("longer than the frame", "guard_malformed", poke(own, 4, 1, 0))
		l.known("no length", "guard_malformed", poke(own, 4, 0, 0))
		l.known("a jumbogram", "guard_ext_header", poke(toV6(0, append([]byte{17, 0, 0xc2, 4, 0, 1, 0, 0}, udp...)), 4, 0, 0))
		for _, a := range []string{"::", "::1", "::10.99.0.10", "::ffff:10.99.0.10", "ff02::1", localV, "fe80::1", "fd99::11", "64:ff9b::10.99.0.10"} {
			l.known(a, "guard_ipv6", Eth(macV, macA, tIPv6, IPv6(a, "fd99::11", 17, udp)))
		}
		for _, kind := range []byte{0, 43, 60, 135, 139, 140} {
			l.pass(fmt.Sprint("header ", kind), "A", toV6(kind, extension(17, 2, udp)), "V")
			l.known(fmt.Sprint("an advertisement behind header ", kind), "guard_router", toV6(kind, extension(58, 2, icmp6(134, make([]byte, 12)))))
			l.known(fmt.Sprint("header cut off ", kind), "guard_ext_header", toV6(kind, extension(17, 2, nil)[:16]))
		}
		l.known("an advertisement behind an authentication header", "guard_router", toV6(51, append([]byte{58, 4, 0, 0}, append(make([]byte, 20), icmp6(134, make([]byte, 12))...)...)))
		l.known("hop-by-hop behind another", "guard_ext_header", toV6(60, Extension(0, Extension(17, udp))))
		many := func(n int) []byte {
			b := Extension(17, udp)
			for range n - 1 {
				b = Extension(60, b)
			}
			return b
		}
		l.pass("eight headers", "A", toV6(60, many(8)), "V")
		l.known("nine headers", "guard_ext_header", toV6(60, many(9)))
		l.known("headers of 600 bytes", "guard_ext_header", toV6(60, extension(17, 70, udp)))
		l.pass("ESP", "A", toV6(50, make([]byte, 32)), "V")
		l.pass("no next header", "A", toV6(59, make([]byte, 32)), "V")

		l.pass("a later fragment", "A", toV6(44, Fragment(17, 64, false, udp)), "V")
		l.pass("a first fragment", "A", toV6(44, Fragment(17, 0, true, udp)), "V")
		l.pass("an atomic fragment", "A", toV6(44, Fragment(17, 0, false, udp)), "V")
		l.known("a later fragment of another's", "guard_ipv6", Eth(macV, macA, tIPv6, IPv6("fd99::1", "fd99::11", 44, Fragment(17, 64, false, udp))))
		l.known("a later fragment of nobody's", "guard_ipv6", Eth(macV, macA, tIPv6, IPv6("::", "fd99::11", 44, Fragment(58, 64, false, udp))))
		l.known("a fragment of a fragment", "guard_ext_header", toV6(44, Fragment(44, 0, true, Fragment(17, 0, true, udp))))
		l.known("a tiny first fragment", "guard_ext_header", toV6(44, Fragment(17, 0, true, udp[:4])))
		l.known("a first fragment of headers alone", "guard_ext_header", toV6(44, Fragment(60, 0, true, extension(58, 1, nil)[:8])))
		l.known("an atomic fragment to a DHCP server", "guard_dhcp", toV6(44, Fragment(17, 0, false, UDP(546, 547, []byte{1, 1, 2, 3}))))
		l.known("an atomic fragment to a DHCP client", "guard_dhcp_server", toV6(44, Fragment(17, 0, false, UDP(546, 546, []byte{7, 1, 2, 3}))))
		for _, kind := range []byte{130, 131, 132, 133, 134, 135, 136, 137, 143, 148, 149, 151, 152, 153} {
			l.known(fmt.Sprint("an atomic fragment of ICMPv6 ", kind), "guard_nd", toV6(44, Fragment(58, 0, false, icmp6(kind, make([]byte, 28)))))
			l.known(fmt.Sprint("a first fragment of ICMPv6 behind a header ", kind), "guard_nd", toV6(44, Fragment(60, 0, true, Extension(58, icmp6(kind, make([]byte, 28))))))
		}
		for _, kind := range []byte{130, 134, 137, 138, 146, 147, 149, 151, 152, 153} {
			l.known(fmt.Sprint("ICMPv6 ", kind), "guard_router", toV6(58, icmp6(kind, make([]byte, 28))))
		}
		l.known("PIM", "guard_router", toV6(103, make([]byte, 16)))
		l.known("VRRP", "guard_router", toV6(112, make([]byte, 16)))
		l.known("half an ICMPv6 header", "guard_malformed", toV6(58, []byte{128, 0}))
		l.known("half a UDP header", "guard_malformed", toV6(17, udp[:4]))
		for _, kind := range []byte{131, 132, 143} {
			l.pass(fmt.Sprint("MLD from nobody ", kind), "A", Eth(0x3333_0000_0016, macA, tIPv6, IPv6("::", "ff02::16", 0, Extension(58, ICMPv6("::", "ff02::16", kind, make([]byte, 20))[40:]))), everybody...)
		}
		l.drop("MLD query from nobody", "guard_ipv6", "A", Eth(allNodes, macA, tIPv6, ICMPv6("::", "ff02::1", 130, make([]byte, 20))))
		l.drop("UDP from nobody", "guard_ipv6", "A", Eth(0x3333_0001_0002, macA, tIPv6, IPv6("::", "ff02::1:2", 17, UDP(546, 547, []byte{1, 1, 2, 3}))))
	}},
	{"ND, variants", static, func(l *lab) {
		nd := func(kind byte, target string, options ...byte) []byte {
			return toV6(58, icmp6(kind, ND(target, options...)))
		}
		l.pass("advertisement", "A", nd(136, "fd99::10", LinkLayer(2, macA)...), "V")
		l.pass("advertisement without a MAC", "A", nd(136, "fd99::10"), "V")
		l.pass("solicitation of another", "A", nd(135, "fd99::11", LinkLayer(1, macA)...), "V")
		for _, target := range []string{"fd99::11", "fd99::1", localV, "::", "ff02::1", "::ffff:10.99.0.10", "fe80::1:2"} {
			l.known("advertisement of "+target, "guard_nd", nd(136, target, LinkLayer(2, macA)...))
		}
		l.known("the other option", "guard_nd", nd(136, "fd99::10", LinkLayer(1, macA)...))
		l.known("the other option of a solicitation", "guard_nd", nd(135, "fd99::11", LinkLayer(2, macA)...))
		l.known("the same option twice", "guard_nd", nd(136, "fd99::10", append(LinkLayer(2, macA), LinkLayer(2, macA)...)...))
		l.known("a longer option", "guard_nd", nd(136, "fd99::10", append([]byte{2, 2}, append(macA.HardwareAddr(), make([]byte, 8)...)...)...))
		l.known("an option cut off", "guard_malformed", nd(136, "fd99::10", 2, 2, 0x52, 0x54, 0, 0x99, 0, 0x0a))
		l.known("an option of one byte", "guard_malformed", nd(136, "fd99::10", 14))
		l.known("code 1", "guard_nd", poke(nd(136, "fd99::10"), 41, 1))
		l.known("hop limit 254", "guard_nd", poke(nd(135, "fd99::11"), 7, 254))
		l.known("cut off", "guard_malformed", toV6(58, icmp6(136, ND("fd99::10")[:19])))
		l.known("behind a header", "guard_nd", toV6(60, Extension(58, icmp6(136, ND("fd99::11", LinkLayer(2, macA)...)))))
		l.known("another's MAC behind a header", "guard_nd", toV6(60, Extension(58, icmp6(136, ND("fd99::10", LinkLayer(2, macV)...)))))
		l.known("a MAC in the padding", "guard_malformed", append(toV6(58, icmp6(136, ND("fd99::10")[:12])), LinkLayer(2, macA)...))
		rs := func(src string, options ...byte) []byte {
			return Eth(0x3333_0000_0002, macA, tIPv6, ICMPv6(src, "ff02::2", 133, append(make([]byte, 4), options...)))
		}
		l.pass("router solicitation of nobody", "A", rs("::"), everybody...)
		l.drop("router solicitation of nobody with a MAC", "guard_nd", "A", rs("::", LinkLayer(1, macA)...))
		l.drop("router solicitation with another's MAC", "guard_nd", "A", rs(localA, LinkLayer(1, macV)...))
		l.drop("advertisement of nobody", "guard_ipv6", "A", Eth(allNodes, macA, tIPv6, ICMPv6("::", "ff02::1", 136, ND("fd99::10"))))
		dad := func(dst, target string, options ...byte) []byte {
			return Eth(macV, macA, tIPv6, ICMPv6("::", dst, 135, ND(target, options...)))
		}
		l.drop("detection with a MAC", "guard_nd", "A", dad("ff02::1:ff00:10", "fd99::10", LinkLayer(1, macA)...))
		l.drop("detection at one station", "guard_nd", "A", dad("fd99::11", "fd99::10"))
		l.drop("detection at all", "guard_nd", "A", dad("ff02::1", "fd99::10"))
		l.drop("detection of another's, in its group", "guard_nd", "A", dad("ff02::1:ff00:11", "fd99::11"))
		l.drop("detection beside link-local addresses", "guard_nd", "A", solicitation("fe80:1::1234"))
		l.drop("detection beside link-local addresses", "guard_nd", "A", solicitation("fe90::1234"))
		l.drop("detection of a group", "guard_nd", "A", solicitation("ff02::1234"))
	}},
	{"DHCPv6, variants", static, func(l *lab) {
		to := func(from, to uint16, message []byte) []byte {
			return Eth(macV, macA, tIPv6, IPv6(localA, localV, 17, UDP(from, to, message)))
		}
		message := func(kind byte, options ...byte) []byte {
			return append([]byte{kind, 1, 2, 3, 0, 1, 0, 10, 0, 3, 0, 1, 0x52, 0x54, 0, 0x99, 0, 0xa}, options...)
		}
		ia := func(a string, options ...byte) []byte {
			b := append([]byte{0, 5, 0, byte(24 + len(options))}, Addr(a)...)
			b = append(append(b, 0, 0, 0, 0, 0, 0, 0, 0), options...)
			return append([]byte{0, 3, 0, byte(12 + len(b)), 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}, b...)
		}
		for _, kind := range []byte{1, 3, 4, 5, 6, 11, 36} {
			l.pass(fmt.Sprint("message ", kind), "A", to(546, 547, message(kind)), "V")
		}
		for _, kind := range []byte{2, 7, 10, 12, 13} {
			l.known(fmt.Sprint("message ", kind), "guard_dhcp_server", to(546, 547, message(kind)))
		}
		for _, kind := range []byte{0, 14, 255} {
			l.known(fmt.Sprint("message ", kind), "guard_dhcp", to(546, 547, message(kind)))
		}
		l.known("from a server's port", "guard_dhcp_server", to(547, 547, message(1)))
		l.known("from a server's port to any", "guard_dhcp_server", to(547, 1000, message(1)))
		l.known("to a client, from a client's port", "guard_dhcp_server", to(546, 546, message(7)))
		l.known("an option cut off", "guard_malformed", to(546, 547, message(1, 0, 3, 0, 40)))
		l.known("without a message", "guard_malformed", to(546, 547, nil))
		l.pass("RELEASE", "A", to(546, 547, message(8, ia("fd99::10")...)), "V")
		l.known("RELEASE of another's", "guard_dhcp", to(546, 547, message(8, ia("fd99::11")...)))
		l.known("DECLINE of another's", "guard_dhcp", to(546, 547, message(9, ia("fd99::11")...)))
		l.known("RELEASE of another's behind one's own", "guard_dhcp", to(546, 547, message(8, append(ia("fd99::10"), ia("fd99::11")...)...)))
		l.known("RELEASE of another's with a status", "guard_dhcp", to(546, 547, message(8, ia("fd99::11", 0, 13, 0, 2, 0, 1)...)))
		l.known("behind a header", "guard_dhcp_server", Eth(macV, macA, tIPv6, IPv6(localA, localV, 60, Extension(17, UDP(1000, 546, message(7))))))
	}},
}

var unfinishedVariants = []testCase{
	{"offloads, variants", static, func(l *lab) {
		tcp := append([]byte{4, 0, 8, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0}, make([]byte, 2000)...)
		udp := UDP(1000, 2000, make([]byte, 2000))
		need := func(start, offset uint16) port.Offload {
			return port.Offload{Flags: port.NeedsCsum, CsumStart: start, CsumOffset: offset}
		}
		cut := func(o port.Offload, as uint8) port.Offload {
			o.GSOType, o.GSOSize, o.HdrLen = as, 1000, o.CsumStart+20
			return o
		}
		for _, at := range []port.Offload{need(34, 6), need(34, 14), need(34, 18), need(36, 16), need(38, 16), need(54, 16)} {
			l.knownWith(fmt.Sprint("TCP, ", at), "guard_offload", toV4(6, tcp), at)
		}
		for _, at := range []port.Offload{need(34, 16), need(34, 2), need(42, 6)} {
			l.knownWith(fmt.Sprint("UDP, ", at), "guard_offload", toV4(17, udp), at)
		}
		l.knownWith("ICMP", "guard_offload", toV4(1, append([]byte{8, 0}, make([]byte, 62)...)), need(34, 2))
		l.knownWith("ICMPv6", "guard_offload", toV6(58, icmp6(128, make([]byte, 60))), need(54, 2))
		l.knownWith("UDP in IPv6, at IPv4's place", "guard_offload", toV6(17, udp), need(34, 6))
		l.knownWith("a later fragment", "guard_offload", poke(toV4(17, udp), 7, 8), need(34, 6))
		l.knownWith("an atomic fragment", "guard_offload", toV6(44, Fragment(17, 0, false, udp)), need(62, 6))
		l.knownWith("behind the packet", "guard_offload", append(toV4(17, UDP(1, 2, make([]byte, 40))), UDP(1, 2, make([]byte, 40))...), need(82, 6))
		vxlan := UDP(5000, 4789, append([]byte{8, 0, 0, 0, 0, 0, 7, 0}, toV4(17, udp)...))
		l.knownWith("inside of VXLAN", "guard_offload", toV4(17, vxlan), need(34+8+8+34, 6))
		l.knownWith("RARP", "guard_offload", l.mark(macA), need(34, 6))
		if l.name == "tap" { // whose kernel takes it; it refuses the reverse
			l.knownWith("IPv6 cut as IPv4", "guard_offload", toV6(6, tcp), cut(need(54, 16), port.GSOTCPv4))
		}
	}},
}

// withOptions returns an IPv4 packet with so many bytes of options that do nothing.
func withOptions(packet []byte, n int) []byte {
	b := append(bytes.Clone(packet[:20]), bytes.Repeat([]byte{1}, n)...)
	b[0] += byte(n / 4)
	b = append(b, packet[20:]...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}
