package guard_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	. "github.com/vswitch/vswitch/internal/packet/packettest"
	"github.com/vswitch/vswitch/port"
)

// EtherTypes and groups.
const (
	tIPv4 = 0x0800
	tARP  = 0x0806
	tIPv6 = 0x86dd

	allNodes port.MAC = 0x3333_0000_0001
)

// everybody are the stations that get what A floods.
var everybody = []string{"V", "T", "B"}

func echo4(src, dst string) []byte {
	return IPv4(src, dst, 1, append([]byte{8, 0, 0, 0, 0, 1, 0, 1}, make([]byte, 24)...))
}
func echo6(src, dst string) []byte { return ICMPv6(src, dst, 128, []byte{0, 1, 0, 1, 1, 2, 3, 4}) }

func own4() []byte { return Eth(Broadcast, macA, tIPv4, echo4("10.99.0.10", "255.255.255.255")) }
func own6() []byte { return Eth(allNodes, macA, tIPv6, echo6("fd99::10", "ff02::1")) }

// from4 is a broadcast from an IPv4 address.
func from4(src string) []byte { return Eth(Broadcast, macA, tIPv4, echo4(src, "255.255.255.255")) }

// garp announces an address.
func garp(mac port.MAC, a string) []byte {
	return Eth(Broadcast, mac, tARP, ARP(1, mac, a, 0, a))
}

// solicitation is one of duplicate address detection.
func solicitation(target string) []byte {
	b := Addr(target)
	group := fmt.Sprintf("ff02::1:ff%02x:%02x%02x", b[13], b[14], b[15])
	return Eth(port.MAC(0x3333_ff00_0000)|port.MAC(binary.BigEndian.Uint32(b[12:])&0xffffff), macA, tIPv6, ICMPv6("::", group, 135, ND(target)))
}

// redirected returns a frame to another station.
func redirected(wire []byte, dst port.MAC) []byte {
	return append(dst.HardwareAddr(), wire[6:]...)
}

func advert(dst port.MAC, target string, mac port.MAC) []byte {
	return Eth(dst, macA, tIPv6, ICMPv6("fd99::10", "ff02::1", 136, ND(target, LinkLayer(2, mac)...)))
}

// routerAdvert is a router advertisement with a prefix in which hosts form addresses.
func routerAdvert(src string, prefix string) []byte {
	body := append([]byte{64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4, 64, 0xc0, 0, 0, 14, 16, 0, 0, 14, 16, 0, 0, 0, 0}, Addr(prefix)...)
	return ICMPv6(src, "ff02::1", 134, body)
}

// lease is what a DHCP server gives.
func message4(t testing.TB, kind dhcpv4.MessageType, xid uint32, mac port.MAC, mods ...dhcpv4.Modifier) []byte {
	t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{
		dhcpv4.WithHwAddr(mac.HardwareAddr()), dhcpv4.WithMessageType(kind),
		dhcpv4.WithTransactionID(dhcpv4.TransactionID(binary.BigEndian.AppendUint32(nil, xid))),
	}, mods...)...)
	if err != nil {
		t.Fatal(err)
	}
	return m.ToBytes()
}

// client is a broadcast to DHCP servers.
func client(mac port.MAC, message []byte) []byte {
	return Eth(Broadcast, mac, tIPv4, IPv4("0.0.0.0", "255.255.255.255", 17, UDP(68, 67, message)))
}

// reply is a DHCP server's broadcast.
func reply(mac port.MAC, src string, message []byte) []byte {
	message[0] = 2
	return Eth(Broadcast, mac, tIPv4, IPv4(src, "255.255.255.255", 17, UDP(67, 68, message)))
}

func ack(t testing.TB, xid uint32, a string, lease time.Duration) []byte {
	return message4(t, dhcpv4.MessageTypeAck, xid, macA, dhcpv4.WithYourIP(net.ParseIP(a)), dhcpv4.WithLeaseTime(uint32(lease.Seconds())),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 99, 0, 1))))
}

func request(t testing.TB, xid uint32, a string) []byte {
	return message4(t, dhcpv4.MessageTypeRequest, xid, macA, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.ParseIP(a))))
}

// obtain has A get an address from T by DHCP.
func (l *lab) obtain(a string, lease time.Duration) {
	l.Helper()
	l.xids++
	l.pass("DISCOVER", "A", client(macA, message4(l, dhcpv4.MessageTypeDiscover, l.xids, macA)), everybody...)
	l.pass("OFFER", "T", reply(macT, "10.99.0.1", message4(l, dhcpv4.MessageTypeOffer, l.xids, macA, dhcpv4.WithYourIP(net.ParseIP(a)))), "A", "V", "B")
	l.pass("REQUEST", "A", client(macA, request(l, l.xids, a)), everybody...)
	l.pass("ACK", "T", reply(macT, "10.99.0.1", ack(l, l.xids, a, lease)), "A", "V", "B")
}

// testCase is what a guarded port lets pass and drops. All frames come from A unless said.
type testCase struct {
	name  string
	flags string // of A's port
	do    func(l *lab)
}

var cases = []testCase{
	{"IPv4 of one's own", static, func(l *lab) {
		l.pass("unicast", "A", Eth(macV, macA, tIPv4, echo4("10.99.0.10", "10.99.0.11")), "V")
		l.pass("broadcast", "A", own4(), everybody...)
		l.pass("to an unknown station", "A", Eth(0x5254_0099_00ff, macA, tIPv4, echo4("10.99.0.10", "10.99.0.99")), everybody...)
	}},
	{"another's MAC", static, func(l *lab) {
		l.drop("unicast", "guard_mac", "A", Eth(macB, macV, tIPv4, echo4("10.99.0.10", "10.99.0.12")))
		l.at(macV, "vm1")
	}},
	{"many MACs", static, func(l *lab) {
		before := l.dropped("vm0")["guard_mac"]
		for i := range 2000 {
			l.put("A", Eth(Broadcast, 0x0200_0000_0000+port.MAC(i), tIPv4, echo4("10.99.0.10", "255.255.255.255")))
			if i%100 == 99 {
				if got := l.settle("A"); len(got) != 0 {
					l.Errorf("%v arrived", got)
				}
			}
		}
		if n := l.dropped("vm0")["guard_mac"] - before; n != 2000 {
			l.Errorf("%d dropped", n)
		}
		if out := l.sw.Ctl(l, "fdb list"); strings.Contains(out, "02:00:00:00:0") {
			l.Errorf("the switch learned:\n%s", out)
		}
	}},
	{"other EtherTypes", static, func(l *lab) {
		l.drop("local experiment", "guard_ethertype", "A", Eth(Broadcast, macA, 0x88b5, make([]byte, 46)))
		snap := append([]byte{0xaa, 0xaa, 3, 0, 0, 0, 8, 6}, ARP(1, macA, "10.99.0.10", 0, "10.99.0.10")...)
		l.drop("SNAP", "guard_ethertype", "A", Eth(Broadcast, macA, uint16(len(snap)), snap))
		l.drop("SNAP with another length", "guard_ethertype", "A", Eth(Broadcast, macA, 0x05dc, snap))
		l.drop("BPDU", "guard_ethertype", "A", Eth(0x0180_c200_0000, macA, 38, append([]byte{0x42, 0x42, 3}, make([]byte, 35)...)))
	}},
	{"one EtherType more", static + " --guard-ethertypes 0x88b5", func(l *lab) {
		l.pass("local experiment", "A", Eth(Broadcast, macA, 0x88b5, make([]byte, 46)), everybody...)
		l.drop("another", "guard_ethertype", "A", Eth(Broadcast, macA, 0x88b6, make([]byte, 46)))
	}},
	{"tags", static, func(l *lab) {
		l.drop("VLAN", "guard_tag", "A", Tag(own4(), 0x8100_0014))
		l.drop("service VLAN", "guard_tag", "A", Tag(own4(), 0x88a8_0014))
		l.drop("two priorities", "guard_tag", "A", Tag(Tag(own4(), 0x8100_0000), 0x8100_0000))
		l.drop("0x9100", "guard_tag", "A", Tag(own4(), 0x9100_0000))
		l.drop("behind a priority", "guard_ipv4", "A", Tag(from4("10.99.0.11"), 0x8100_e000))
		l.drop("ARP behind a priority", "guard_arp", "A", Tag(garp(macA, "10.99.0.1"), 0x8100_0000))
		l.pass("priority", "A", Tag(own4(), 0x8100_e000), everybody...)
	}},
	{"ARP of one's own", static, func(l *lab) {
		l.pass("request", "A", Eth(Broadcast, macA, tARP, ARP(1, macA, "10.99.0.10", 0, "10.99.0.11")), everybody...)
		l.pass("unicast request", "A", Eth(macV, macA, tARP, ARP(1, macA, "10.99.0.10", macV, "10.99.0.11")), "V")
		l.pass("announcement", "A", garp(macA, "10.99.0.10"), everybody...)
		l.pass("announcement by reply", "A", Eth(Broadcast, macA, tARP, ARP(2, macA, "10.99.0.10", Broadcast, "10.99.0.10")), everybody...)
		l.pass("probe", "A", Eth(Broadcast, macA, tARP, ARP(1, macA, "0.0.0.0", 0, "10.99.0.10")), everybody...)
	}},
	{"ARP for others", static, func(l *lab) {
		l.drop("announcement", "guard_arp", "A", Eth(Broadcast, macA, tARP, ARP(2, macA, "10.99.0.11", Broadcast, "10.99.0.11")))
		l.drop("reply to one station", "guard_arp", "A", Eth(macV, macA, tARP, ARP(2, macA, "10.99.0.1", macV, "10.99.0.11")))
		l.drop("request", "guard_arp", "A", Eth(Broadcast, macA, tARP, ARP(1, macA, "10.99.0.1", 0, "10.99.0.11")))
		l.drop("with another's MAC", "guard_arp", "A", Eth(Broadcast, macA, tARP, ARP(2, macV, "10.99.0.10", Broadcast, "10.99.0.10")))
		l.drop("probe", "guard_arp", "A", Eth(Broadcast, macA, tARP, ARP(1, macA, "0.0.0.0", 0, "10.99.0.11")))
		l.drop("probe by reply", "guard_arp", "A", Eth(Broadcast, macA, tARP, ARP(2, macA, "0.0.0.0", 0, "10.99.0.10")))
	}},
	{"odd ARP", static, func(l *lab) {
		odd := func(at int, to byte) []byte {
			b := ARP(1, macA, "10.99.0.10", 0, "10.99.0.10")
			b[at] = to
			return Eth(Broadcast, macA, tARP, b)
		}
		l.drop("hardware length", "guard_malformed", "A", odd(4, 8))
		l.drop("protocol", "guard_malformed", "A", odd(2, 0x86))
		l.drop("operation", "guard_arp", "A", odd(7, 3))
		l.drop("InARP", "guard_arp", "A", odd(7, 8))
	}},
	{"RARP", static, func(l *lab) {
		l.pass("announcement", "A", Eth(Broadcast, macA, 0x8035, ARP(3, macA, "0.0.0.0", macA, "0.0.0.0")), everybody...)
		l.drop("another's", "guard_arp", "A", Eth(Broadcast, macA, 0x8035, ARP(3, macV, "0.0.0.0", macV, "0.0.0.0")))
		l.drop("reply", "guard_arp", "A", Eth(Broadcast, macA, 0x8035, ARP(4, macA, "10.99.0.1", macV, "10.99.0.11")))
	}},
	{"IPv4 of others", static, func(l *lab) {
		l.drop("unicast", "guard_ipv4", "A", Eth(macB, macA, tIPv4, echo4("10.99.0.11", "10.99.0.12")))
		for _, a := range []string{"10.99.0.11", "0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"} {
			l.drop(a, "guard_ipv4", "A", from4(a))
		}
		l.drop("to a DHCP server", "guard_ipv4", "A", Eth(Broadcast, macA, tIPv4, IPv4("10.99.0.11", "255.255.255.255", 17, UDP(68, 67, message4(l, dhcpv4.MessageTypeDiscover, 9, macA)))))
		later := IPv4("10.99.0.11", "10.99.0.12", 17, make([]byte, 32))
		later[7] = 4
		l.drop("a later fragment", "guard_ipv4", "A", Eth(Broadcast, macA, tIPv4, later))
	}},
	{"groups", static, func(l *lab) {
		l.pass("mDNS", "A", Eth(0x0100_5e00_00fb, macA, tIPv4, IPv4("10.99.0.10", "224.0.0.251", 17, UDP(5353, 5353, make([]byte, 12)))), everybody...)
		igmp := func(src, dst string, kind byte) []byte {
			return Eth(0x0100_5e01_0203, macA, tIPv4, IPv4(src, dst, 2, append([]byte{kind, 0, 0, 0}, Addr("239.1.2.3")...)))
		}
		l.pass("report", "A", igmp("10.99.0.10", "239.1.2.3", 0x16), everybody...)
		l.pass("report from nobody", "A", igmp("0.0.0.0", "239.1.2.3", 0x16), everybody...)
		l.drop("query", "guard_router", "A", igmp("10.99.0.10", "224.0.0.1", 0x11))
		l.drop("query from nobody", "guard_router", "A", igmp("0.0.0.0", "224.0.0.1", 0x11))
	}},
	{"routers of IPv4", static, func(l *lab) {
		icmp := func(kind byte) []byte {
			return IPv4("10.99.0.10", "10.99.0.11", 1, append([]byte{kind, 1}, make([]byte, 34)...))
		}
		l.drop("redirect", "guard_router", "A", Eth(macV, macA, tIPv4, icmp(5)))
		l.drop("advertisement", "guard_router", "A", Eth(Broadcast, macA, tIPv4, icmp(9)))
		l.drop("PIM", "guard_router", "A", Eth(0x0100_5e00_000d, macA, tIPv4, IPv4("10.99.0.10", "224.0.0.13", 103, make([]byte, 20))))
		l.drop("VRRP", "guard_router", "A", Eth(0x0100_5e00_0012, macA, tIPv4, IPv4("10.99.0.10", "224.0.0.18", 112, make([]byte, 20))))
		options := append([]byte{0x46, 0, 0, 60, 0, 0, 0, 0, 64, 1, 0, 0}, append(append(Addr("10.99.0.10"), Addr("10.99.0.11")...), 148, 4, 0, 0, 5, 1)...)
		l.drop("redirect behind options", "guard_router", "A", Eth(macV, macA, tIPv4, append(options, make([]byte, 34)...)))
	}},
	{"DHCP clients", "--guard-learn dhcp", func(l *lab) {
		l.pass("DISCOVER", "A", client(macA, message4(l, dhcpv4.MessageTypeDiscover, 1, macA)), everybody...)
		l.drop("another's", "guard_dhcp", "A", client(macA, message4(l, dhcpv4.MessageTypeDiscover, 1, 0x5254_0001_0203)))
		l.drop("by a relay", "guard_dhcp", "A", client(macA, message4(l, dhcpv4.MessageTypeDiscover, 1, macA, dhcpv4.WithRelay(net.IPv4(10, 99, 0, 10)))))
		l.drop("with what a relay adds", "guard_dhcp", "A", client(macA, message4(l, dhcpv4.MessageTypeDiscover, 1, macA, dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionRelayAgentInformation, []byte{1, 1, 1})))))
		id := append([]byte{1}, macV.HardwareAddr()...)
		l.drop("another's identifier", "guard_dhcp", "A", client(macA, message4(l, dhcpv4.MessageTypeDiscover, 1, macA, dhcpv4.WithOption(dhcpv4.OptClientIdentifier(id)))))
		l.pass("opaque identifier", "A", client(macA, message4(l, dhcpv4.MessageTypeDiscover, 1, macA, dhcpv4.WithOption(dhcpv4.OptClientIdentifier([]byte{255, 1, 2, 3})))), everybody...)
		l.drop("a renewal of another's address", "guard_dhcp", "A", client(macA, message4(l, dhcpv4.MessageTypeRequest, 1, macA, dhcpv4.WithClientIP(net.IPv4(10, 99, 0, 11)))))
		l.drop("RELEASE of another's address", "guard_dhcp", "A", client(macA, message4(l, dhcpv4.MessageTypeRelease, 1, macA, dhcpv4.WithClientIP(net.IPv4(10, 99, 0, 11)))))
		l.drop("DECLINE of another's address", "guard_dhcp", "A", client(macA, message4(l, dhcpv4.MessageTypeDecline, 1, macA, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 99, 0, 11))))))
		l.drop("cut off", "guard_malformed", "A", client(macA, message4(l, dhcpv4.MessageTypeDiscover, 1, macA)[:200]))
	}},
	{"DHCP servers", static, func(l *lab) {
		for _, kind := range []dhcpv4.MessageType{dhcpv4.MessageTypeOffer, dhcpv4.MessageTypeAck, dhcpv4.MessageTypeNak} {
			l.drop(kind.String(), "guard_dhcp_server", "A", reply(macA, "10.99.0.10", message4(l, kind, 1, macV)))
		}
		m := message4(l, dhcpv4.MessageTypeAck, 1, macV)
		m[0] = 2
		l.drop("from another port", "guard_dhcp_server", "A", Eth(Broadcast, macA, tIPv4, IPv4("10.99.0.10", "255.255.255.255", 17, UDP(1067, 68, m))))
		first := IPv4("10.99.0.10", "255.255.255.255", 17, UDP(67, 68, m))
		first[6] = 0x20
		l.drop("in fragments", "guard_dhcp_server", "A", Eth(Broadcast, macA, tIPv4, first))
	}},
	{"a lease", "--guard-learn dhcp", func(l *lab) {
		l.drop("before", "guard_ipv4", "A", own4())
		l.obtain("10.99.0.10", time.Minute)
		l.pass("IPv4", "A", own4(), everybody...)
		l.pass("ARP", "A", garp(macA, "10.99.0.10"), everybody...)
		l.drop("another's", "guard_ipv4", "A", from4("10.99.0.11"))
		if out := l.sw.Ctl(l, "guard list vm0"); !strings.Contains(out, "10.99.0.10") || !strings.Contains(out, "dhcp") {
			l.Errorf("guard list:\n%s", out)
		}
		// A renewal goes from station to station.
		l.xids++
		renew := message4(l, dhcpv4.MessageTypeRequest, l.xids, macA, dhcpv4.WithClientIP(net.IPv4(10, 99, 0, 10)))
		l.pass("renewal", "A", Eth(macT, macA, tIPv4, IPv4("10.99.0.10", "10.99.0.1", 17, UDP(68, 67, renew))), "T")
		a := ack(l, l.xids, "10.99.0.10", time.Hour)
		a[0] = 2
		l.pass("its ACK", "T", Eth(macA, macT, tIPv4, IPv4("10.99.0.1", "10.99.0.10", 17, UDP(67, 68, a))), "A")
		if all := l.list("vm0"); len(all) != 2 || !slices.ContainsFunc(all, func(b binding) bool { return b.Address == "10.99.0.10" && b.ExpiresS > 1000 }) {
			l.Errorf("after the renewal: %+v", all)
		}
	}},
	{"a lease that is released", "--guard-learn dhcp", func(l *lab) {
		l.obtain("10.99.0.10", time.Minute)
		l.pass("before", "A", own4(), everybody...)
		m := message4(l, dhcpv4.MessageTypeRelease, 1, macA, dhcpv4.WithClientIP(net.IPv4(10, 99, 0, 10)))
		l.pass("RELEASE", "A", Eth(macT, macA, tIPv4, IPv4("10.99.0.10", "10.99.0.1", 17, UDP(68, 67, m))), "T")
		l.drop("after", "guard_ipv4", "A", own4())
	}},
	{"a lease that ends", "--guard-learn dhcp", func(l *lab) {
		l.obtain("10.99.0.10", 2*time.Second)
		before := l.dropped("vm0")["guard_ipv4"]
		eventually(l, "the lease ends", func() bool {
			l.put("A", own4())
			l.settle("A")
			return l.dropped("vm0")["guard_ipv4"] != before
		})
	}},
	{"a lease by a neighbour", "--guard-learn dhcp", func(l *lab) {
		l.set("V", "--guard-address 10.99.0.11 --guard-learn none")
		defer l.sw.Ctl(l, "set-port vm1 --guard off")
		l.xids++
		l.pass("REQUEST", "A", client(macA, request(l, l.xids, "10.99.0.1")), everybody...)
		l.drop("ACK", "guard_dhcp_server", "V", reply(macV, "10.99.0.11", ack(l, l.xids, "10.99.0.1", time.Minute)))
		l.drop("IPv4", "guard_ipv4", "A", from4("10.99.0.1"))
	}},
	{"a lease nobody asked for", "--guard-learn dhcp", func(l *lab) {
		l.xids++
		l.pass("ACK", "T", reply(macT, "10.99.0.1", ack(l, l.xids, "10.99.0.10", time.Minute)), "A", "V", "B")
		l.drop("IPv4", "guard_ipv4", "A", own4())
		l.pass("REQUEST", "A", client(macA, request(l, l.xids, "10.99.0.10")), everybody...)
		l.pass("NAK", "T", reply(macT, "10.99.0.1", message4(l, dhcpv4.MessageTypeNak, l.xids, macA)), "A", "V", "B")
		l.drop("IPv4 after a NAK", "guard_ipv4", "A", own4())
	}},
	{"IPv6 of one's own", static, func(l *lab) {
		l.pass("unicast", "A", Eth(macV, macA, tIPv6, echo6("fd99::10", "fd99::11")), "V")
		l.pass("link-local", "A", Eth(macV, macA, tIPv6, echo6(localA, localV)), "V")
		l.pass("group", "A", own6(), everybody...)
	}},
	{"IPv6 of others", static, func(l *lab) {
		l.drop("unicast", "guard_ipv6", "A", Eth(macB, macA, tIPv6, echo6("fd99::11", "fd99::12")))
		for _, a := range []string{"fd99::11", localV, "::1", "ff02::1", "::ffff:10.99.0.10", "::"} {
			l.drop(a, "guard_ipv6", "A", Eth(allNodes, macA, tIPv6, echo6(a, "ff02::1")))
		}
	}},
	{"ND", static, func(l *lab) {
		l.pass("detection", "A", solicitation("fd99::10"), everybody...)
		l.drop("detection of another's", "guard_nd", "A", solicitation("fd99::11"))
		l.drop("detection of another's link-local", "guard_nd", "A", func() []byte {
			b := solicitation(localV)
			b[54+8+15] = 1 // its group no longer fits
			return b
		}())
		l.pass("advertisement", "A", advert(allNodes, "fd99::10", macA), everybody...)
		l.drop("advertisement of another's", "guard_nd", "A", advert(allNodes, "fd99::11", macA))
		l.drop("unicast advertisement of another's", "guard_nd", "A", advert(macB, "fd99::11", macA))
		l.drop("another's MAC", "guard_nd", "A", advert(allNodes, "fd99::10", macV))
		nd := func(kind byte, src string, options ...byte) []byte {
			return Eth(allNodes, macA, tIPv6, ICMPv6(src, "ff02::1", kind, ND("fd99::10", options...)))
		}
		two := append(LinkLayer(2, macA), LinkLayer(2, macV)...)
		l.drop("two MACs", "guard_nd", "A", nd(136, "fd99::10", two...))
		nonce := append([]byte{14, 1, 0, 0, 0, 0, 0, 0}, LinkLayer(2, macV)...)
		l.drop("another's MAC behind a nonce", "guard_nd", "A", nd(136, "fd99::10", nonce...))
		l.drop("an option without length", "guard_malformed", "A", nd(136, "fd99::10", 14, 0, 0, 0, 0, 0, 0, 0))
		l.drop("solicitation with another's MAC", "guard_nd", "A", nd(135, "fd99::10", LinkLayer(1, macV)...))
		l.pass("solicitation", "A", nd(135, "fd99::10", LinkLayer(1, macA)...), everybody...)
		hops := advert(allNodes, "fd99::10", macA)
		hops[21] = 64
		l.drop("from afar", "guard_nd", "A", hops)
		l.drop("atomic fragment", "guard_nd", "A", Eth(allNodes, macA, tIPv6, IPv6("fd99::10", "ff02::1", 44,
			Fragment(58, 0, false, append([]byte{136, 0, 0, 0}, ND("fd99::10", LinkLayer(2, macA)...)...)))))
	}},
	{"routers of IPv6", static, func(l *lab) {
		ra := routerAdvert(localA, "fd66::")
		l.drop("advertisement", "guard_router", "A", Eth(allNodes, macA, tIPv6, ra))
		l.drop("behind a hop-by-hop header", "guard_router", "A", Eth(allNodes, macA, tIPv6, IPv6(localA, "ff02::1", 0, Extension(58, ra[40:]))))
		l.drop("behind two", "guard_router", "A", Eth(allNodes, macA, tIPv6, IPv6(localA, "ff02::1", 0, Extension(60, Extension(58, ra[40:])))))
		l.drop("in fragments", "guard_nd", "A", Eth(allNodes, macA, tIPv6, IPv6(localA, "ff02::1", 44, Fragment(58, 0, true, ra[40:72]))))
		l.drop("a first fragment without a header", "guard_ext_header", "A", Eth(allNodes, macA, tIPv6, IPv6(localA, "ff02::1", 44, Fragment(60, 0, true, []byte{58, 1, 1, 4, 0, 0, 0, 0}))))
		l.drop("a header in the padding", "guard_ext_header", "A", Eth(allNodes, macA, tIPv6, append(IPv6(localA, "ff02::1", 44, Fragment(58, 0, true, nil)), 8, 0, 0, 0, 0, 0, 0, 0)))
		l.drop("redirect", "guard_router", "A", Eth(macV, macA, tIPv6, ICMPv6(localA, localV, 137, make([]byte, 36))))
		l.drop("MLD query", "guard_router", "A", Eth(allNodes, macA, tIPv6, ICMPv6(localA, "ff02::1", 130, make([]byte, 20))))
		l.pass("solicitation", "A", Eth(0x3333_0000_0002, macA, tIPv6, ICMPv6(localA, "ff02::2", 133, append(make([]byte, 4), LinkLayer(1, macA)...))), everybody...)
		l.pass("MLD report", "A", Eth(0x3333_0000_0016, macA, tIPv6, IPv6("::", "ff02::16", 0, Extension(58, append([]byte{143, 0, 0, 0}, make([]byte, 24)...)))), everybody...)
	}},
	{"DHCPv6", static, func(l *lab) {
		message := func(kind byte) []byte {
			return []byte{kind, 1, 2, 3, 0, 1, 0, 10, 0, 3, 0, 1, 0x52, 0x54, 0, 0x99, 0, 0xa}
		}
		l.pass("Solicit", "A", Eth(0x3333_0001_0002, macA, tIPv6, IPv6(localA, "ff02::1:2", 17, UDP(546, 547, message(1)))), everybody...)
		for _, kind := range []byte{2, 7, 10} {
			l.drop(fmt.Sprint("message ", kind), "guard_dhcp_server", "A", Eth(macV, macA, tIPv6, IPv6(localA, localV, 17, UDP(547, 546, message(kind)))))
		}
		l.drop("Reply from another port", "guard_dhcp_server", "A", Eth(macV, macA, tIPv6, IPv6(localA, localV, 17, UDP(1547, 546, message(7)))))
		l.drop("Relay-forward", "guard_dhcp_server", "A", Eth(0x3333_0001_0002, macA, tIPv6, IPv6(localA, "ff02::1:2", 17, UDP(546, 547, message(12)))))
	}},
	{"a DHCP server", static + " --guard-allow dhcp-server", func(l *lab) {
		l.pass("OFFER", "A", reply(macA, "10.99.0.10", message4(l, dhcpv4.MessageTypeOffer, 1, macV)), everybody...)
		l.drop("from another's address", "guard_ipv4", "A", reply(macA, "10.99.0.1", message4(l, dhcpv4.MessageTypeOffer, 1, macV)))
	}},
	{"a router", static + " --guard-allow router", func(l *lab) {
		l.pass("advertisement", "A", Eth(allNodes, macA, tIPv6, routerAdvert(localA, "fd66::")), everybody...)
		l.drop("from another's address", "guard_ipv6", "A", Eth(allNodes, macA, tIPv6, routerAdvert(localT, "fd66::")))
		ra := routerAdvert(localA, "fd66::")[40:]
		l.drop("with another's MAC", "guard_nd", "A", Eth(allNodes, macA, tIPv6, IPv6(localA, "ff02::1", 58, append(bytes.Clone(ra), LinkLayer(1, macT)...))))
		l.drop("in fragments", "guard_nd", "A", Eth(allNodes, macA, tIPv6, IPv6(localA, "ff02::1", 44, Fragment(58, 0, false, ra))))
		l.drop("from afar", "guard_nd", "A", poke(Eth(allNodes, macA, tIPv6, routerAdvert(localA, "fd66::")), 7, 64))
		l.drop("a DHCP server's OFFER", "guard_dhcp_server", "A", reply(macA, "10.99.0.10", message4(l, dhcpv4.MessageTypeOffer, 1, macV)))
		l.drop("VRRP", "guard_router", "A", Eth(0x0100_5e00_0012, macA, tIPv4, IPv4("10.99.0.10", "224.0.0.18", 112, make([]byte, 20))))
		l.pass("a query", "A", Eth(0x0100_5e00_0001, macA, tIPv4, IPv4("10.99.0.10", "224.0.0.1", 2, append([]byte{0x11}, make([]byte, 7)...))), everybody...)
		l.drop("a query of nobody", "guard_ipv4", "A", Eth(Broadcast, macA, tIPv4, IPv4("0.0.0.0", "10.99.0.11", 2, append([]byte{0x11}, make([]byte, 7)...))))
	}},
	{"a pair", static + " --guard-pair 00:00:5e:00:01:0a=10.99.0.100", func(l *lab) {
		virtual := port.MAC(0x0000_5e00_010a)
		l.pass("announcement", "A", garp(virtual, "10.99.0.100"), everybody...)
		l.pass("IPv4", "A", Eth(Broadcast, virtual, tIPv4, echo4("10.99.0.100", "255.255.255.255")), everybody...)
		l.drop("another's address", "guard_ipv4", "A", Eth(Broadcast, virtual, tIPv4, echo4("10.99.0.11", "255.255.255.255")))
		l.drop("the station's own address", "guard_ipv4", "A", Eth(Broadcast, virtual, tIPv4, echo4("10.99.0.10", "255.255.255.255")))
		l.drop("its address from the station", "guard_ipv4", "A", from4("10.99.0.100"))
		l.drop("another MAC", "guard_mac", "A", garp(0x0000_5e00_010b, "10.99.0.100"))
	}},
	{"a virtual router", static + " --guard-pair vrrp:10=10.99.0.100", func(l *lab) {
		virtual := port.MAC(0x0000_5e00_010a)
		vrrp := func(mac port.MAC, src string) []byte {
			return Eth(0x0100_5e00_0012, mac, tIPv4, IPv4(src, "224.0.0.18", 112, make([]byte, 20)))
		}
		l.pass("advertisement", "A", vrrp(virtual, "10.99.0.10"), everybody...)
		l.pass("advertisement by the station's MAC", "A", vrrp(macA, "10.99.0.10"), everybody...)
		l.drop("advertisement of another", "guard_ipv4", "A", vrrp(virtual, "10.99.0.11"))
		l.pass("announcement", "A", garp(virtual, "10.99.0.100"), everybody...)
		l.pass("announcement by the station's MAC", "A", garp(macA, "10.99.0.100"), everybody...)
		l.drop("no VRRP", "guard_ipv4", "A", Eth(Broadcast, virtual, tIPv4, echo4("10.99.0.10", "255.255.255.255")))
	}},
	{"an address that is formed", "--guard-learn slaac", func(l *lab) {
		const formed = "fd98::1234"
		frame := Eth(allNodes, macA, tIPv6, echo6(formed, "ff02::1"))
		l.drop("before the prefix is known", "guard_nd", "A", solicitation(formed))
		l.pass("the router", "T", Eth(allNodes, macT, tIPv6, routerAdvert(localT, "fd98::")), "A", "V", "B")
		l.drop("before detection", "guard_ipv6", "A", frame)
		l.drop("detection in another prefix", "guard_nd", "A", solicitation("fd97::1234"))
		l.drop("detection that only T hears", "guard_nd", "A", redirected(solicitation(formed), macT))
		l.drop("detection that all hear, but no group", "guard_nd", "A", redirected(solicitation(formed), Broadcast))
		l.drop("before detection still", "guard_ipv6", "A", frame)
		l.pass("detection", "A", solicitation(formed), everybody...)
		eventually(l, "the address is bound", func() bool {
			l.put("A", frame)
			return len(l.settle("A")) == 3
		})
	}},
	{"what others object to", "--guard-learn slaac", func(l *lab) {
		const formed = "fd98::5678"
		l.pass("the router", "T", Eth(allNodes, macT, tIPv6, routerAdvert(localT, "fd98::")), "A", "V", "B")
		l.pass("detection", "A", solicitation(formed), everybody...)
		l.pass("objection", "V", Eth(allNodes, macV, tIPv6, ICMPv6(formed, "ff02::1", 136, ND(formed, LinkLayer(2, macV)...))), "A", "T", "B")
		l.drop("detection again", "guard_nd", "A", solicitation(formed))
	}},
	{"a first use", "--guard-learn arp", func(l *lab) {
		probe := Eth(Broadcast, macA, tARP, ARP(1, macA, "0.0.0.0", 0, "10.99.0.10"))
		l.drop("a probe that only T hears", "guard_arp", "A", redirected(probe, macT))
		l.drop("IPv4 before", "guard_ipv4", "A", own4())
		l.pass("a probe", "A", probe, everybody...)
		l.drop("a probe of another address", "guard_arp", "A", Eth(Broadcast, macA, tARP, ARP(1, macA, "0.0.0.0", 0, "10.99.0.11")))
		eventually(l, "the address is bound", func() bool {
			l.put("A", own4())
			return len(l.settle("A")) == 3
		})
		l.drop("another's", "guard_ipv4", "A", from4("10.99.0.11"))
	}},
	{"cut off", static, func(l *lab) {
		l.drop("IPv4", "guard_malformed", "A", Bare(macV, macA, tIPv4, echo4("10.99.0.10", "10.99.0.11")[:19]))
		l.drop("IPv6", "guard_malformed", "A", Bare(macV, macA, tIPv6, echo6("fd99::10", "fd99::11")[:39]))
		l.drop("ARP", "guard_malformed", "A", Bare(macV, macA, tARP, ARP(1, macA, "10.99.0.10", 0, "10.99.0.10")[:27]))
	}},
	{"MAC alone", "--guard mac", func(l *lab) {
		l.pass("another's address", "A", from4("10.99.0.11"), everybody...)
		l.drop("another's MAC", "guard_mac", "A", Eth(macB, macV, tIPv4, echo4("10.99.0.10", "10.99.0.12")))
	}},
}

// unfinished are frames with an offload header, at ports whose frames have one.
var unfinished = []testCase{
	{"unfinished checksums", static, func(l *lab) {
		need := func(start, offset uint16) port.Offload {
			return port.Offload{Flags: port.NeedsCsum, CsumStart: start, CsumOffset: offset}
		}
		l.dropWith("over the ARP sender", "guard_offload", "A", garp(macA, "10.99.0.10"), need(22, 6))
		l.dropWith("over the IPv4 source", "guard_offload", "A", own4(), need(20, 8))
		l.dropWith("over the ND target", "guard_offload", "A", advert(allNodes, "fd99::10", macA), need(54, 8))
		udp := Eth(Broadcast, macA, tIPv4, IPv4("10.99.0.10", "255.255.255.255", 17, UDP(1000, 2000, make([]byte, 64))))
		l.dropWith("over the ports", "guard_offload", "A", udp, need(34, 2))
		if err := l.guests["A"].Send(udp, need(34, 6)); err != nil {
			l.Fatal(err)
		}
		if got := l.settle("A"); len(got) != 3 {
			l.Errorf("UDP's own checksum: %v", got)
		}
	}},
}

// at checks where the switch knows a station.
func (l *lab) at(mac port.MAC, port string) {
	l.Helper()
	for _, line := range strings.Split(l.sw.Ctl(l, "fdb list"), "\n") {
		if f := strings.Fields(line); len(f) > 2 && f[0] == mac.String() && f[2] != port {
			l.Errorf("%v is known at %s, want %s", mac, f[2], port)
		}
	}
}

func TestCases(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		l := newLab(t, k)
		all := slices.Concat(cases, variants, hostile, tricks)
		if k.offloads {
			all = slices.Concat(all, unfinished, unfinishedVariants, unfinishedHostile, unfinishedTricks)
		}
		for _, c := range all {
			t.Run(c.name, func(t *testing.T) {
				l.TB = t
				l.set("A", c.flags)
				c.do(l)
			})
		}
	})
}
