package guard_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	. "github.com/vswitch/vswitch/internal/packet/packettest"
	"github.com/vswitch/vswitch/internal/proto/guard"
	"github.com/vswitch/vswitch/port"
)

// Of each kind of frame a station may send the honest ones, and no others.
func TestHonest(t *testing.T) {
	const (
		ours, theirs   = "10.99.0.10", "10.99.0.11"
		ours6, theirs6 = "fd99::10", "fd99::11"
		badARP         = port.DropGuardARP
		malformed      = port.DropGuardMalformed
		router         = port.DropGuardRouter
		server         = port.DropGuardServer
		dhcp           = port.DropGuardDHCP
	)
	arp := func(op uint16, sha port.MAC, spa string, tha port.MAC, tpa string) []byte {
		return Eth(Broadcast, macA, 0x0806, ARP(op, sha, spa, tha, tpa))
	}
	rarp := func(op uint16, sha port.MAC, spa string, tha port.MAC, tpa string) []byte {
		return Eth(Broadcast, macA, 0x8035, ARP(op, sha, spa, tha, tpa))
	}
	v4 := func(src, dst string, proto byte, body ...byte) []byte {
		return Bare(macV, macA, 0x0800, IPv4(src, dst, proto, body))
	}
	igmp := func(src, dst string, kind byte) []byte { return v4(src, dst, 2, kind, 0, 0, 0, 224, 1, 2, 3) }
	v6 := func(src, dst string, proto byte, body ...byte) []byte {
		return Bare(macV, macA, 0x86dd, IPv6(src, dst, proto, body))
	}
	icmp6 := func(src, dst string, kind byte, body []byte) []byte {
		return Bare(macV, macA, 0x86dd, ICMPv6(src, dst, kind, body))
	}
	set := func(wire []byte, at int, value byte) []byte {
		wire[at] = value
		return wire
	}
	const hopLimit, code = 14 + 7, 14 + 40 + 1
	client := func(src, dst string, from, to uint16) []byte {
		return v4(src, dst, 17, UDP(from, to, dhcp4(1, 1, 1, macA, "0.0.0.0", "0.0.0.0"))...)
	}
	group := "ff02::1:ff00:10"
	toGroup := func(dst port.MAC, src, group string, body []byte) []byte {
		return Eth(dst, macA, 0x86dd, ICMPv6(src, group, 135, body))
	}
	for _, c := range []struct {
		what string
		wire []byte
		why  port.Drop
	}{
		// ARP (RFC 826, RFC 5227)
		{"ARP request", arp(1, macA, ours, 0, theirs), none},
		{"ARP reply", arp(2, macA, ours, macV, theirs), none},
		{"ARP of another operation", arp(3, macA, ours, macV, theirs), badARP},
		{"ARP of operation 0", arp(0, macA, ours, macV, theirs), badARP},
		{"ARP with another sender MAC", arp(1, macV, ours, 0, theirs), badARP},
		{"ARP with another's address", arp(2, macA, theirs, macV, ours), badARP},
		{"ARP probe for its address", arp(1, macA, "0.0.0.0", 0, ours), none},
		{"ARP probe for another's", arp(1, macA, "0.0.0.0", 0, theirs), badARP},
		{"ARP reply from nobody", arp(2, macA, "0.0.0.0", macV, ours), badARP},
		{"ARP about another kind of hardware", set(arp(1, macA, ours, 0, theirs), 15, 6), malformed},

		// RARP, as VMMs announce a guest that moved
		{"RARP announcement", rarp(3, macA, "0.0.0.0", macA, "0.0.0.0"), none},
		{"RARP reply", rarp(4, macA, "0.0.0.0", macA, "0.0.0.0"), badARP},
		{"RARP from another MAC", rarp(3, macV, "0.0.0.0", macA, "0.0.0.0"), badARP},
		{"RARP about another MAC", rarp(3, macA, "0.0.0.0", macV, "0.0.0.0"), badARP},
		{"RARP with a sender", rarp(3, macA, ours, macA, "0.0.0.0"), badARP},
		{"RARP with a target", rarp(3, macA, "0.0.0.0", macA, theirs), badARP},
		{"RARP about another kind of hardware", set(rarp(3, macA, "0.0.0.0", macA, "0.0.0.0"), 15, 6), malformed},

		// IPv4
		{"TCP", v4(ours, theirs, 6, make([]byte, 20)...), none},
		{"IPv4 from another's address", v4(theirs, ours, 6, make([]byte, 20)...), ipv4},
		{"IPv4 from nobody", v4("0.0.0.0", theirs, 6, make([]byte, 20)...), ipv4},
		{"IPv4 that is longer than the frame", set(v4(ours, theirs, 6, make([]byte, 20)...), 17, 41), malformed},
		{"echo request", v4(ours, theirs, 1, 8, 0, 0, 0), none},
		{"ICMP redirect", v4(ours, theirs, 1, 5, 0, 0, 0), router},
		{"ICMP between redirect and router advertisement", v4(ours, theirs, 1, 6, 0, 0, 0), none},
		{"ICMP router advertisement", v4(ours, theirs, 1, 9, 0, 0, 0), router},
		{"ICMP router solicitation", v4(ours, theirs, 1, 10, 0, 0, 0), none},
		{"ICMP without a type", v4(ours, theirs, 1), malformed},
		{"ICMP of one octet", v4(ours, theirs, 1, 8), none},
		{"PIM", v4(ours, "224.0.0.13", 103, 0x20, 0, 0, 0), router},
		{"VRRP", v4(ours, "224.0.0.18", 112, 0x31, 1, 100, 1), router},
		{"IGMPv1 report", igmp(ours, "224.1.2.3", 0x12), none},
		{"IGMPv2 report", igmp(ours, "224.1.2.3", 0x16), none},
		{"IGMPv2 leave", igmp(ours, "224.0.0.2", 0x17), none},
		{"IGMPv3 report", igmp(ours, "224.0.0.22", 0x22), none},
		{"IGMP query", igmp(ours, "224.0.0.1", 0x11), router},
		{"IGMP of another type", igmp(ours, "224.0.0.1", 0x13), router},
		{"IGMP router advertisement", igmp(ours, "224.0.0.106", 0x30), router},
		{"IGMP without a type", v4(ours, "224.0.0.1", 2), malformed},
		{"IGMP of one octet", v4(ours, "224.0.0.1", 2, 0x16), none},
		{"IGMP report from nobody", igmp("0.0.0.0", "224.1.2.3", 0x16), none}, // RFC 3376 section 4.2.13
		{"IGMP report from nobody to the last group", igmp("0.0.0.0", "239.255.255.255", 0x16), none},
		{"IGMP report from nobody to no group", igmp("0.0.0.0", "240.0.0.0", 0x16), ipv4},
		{"IGMP report from nobody to a station", igmp("0.0.0.0", "223.255.255.255", 0x16), ipv4},
		{"IGMP report from another", igmp(theirs, "224.1.2.3", 0x16), ipv4},

		// DHCP (RFC 2131)
		{"DHCP discover", client("0.0.0.0", "255.255.255.255", 68, 67), none},
		{"DHCP discover from its address", client(ours, "255.255.255.255", 68, 67), none},
		{"DHCP discover to one server", client("0.0.0.0", theirs, 68, 67), ipv4},
		{"DHCP discover from another port", client("0.0.0.0", "255.255.255.255", 69, 67), ipv4},
		{"DHCP discover from another's address", client(theirs, "255.255.255.255", 68, 67), ipv4},
		{"from a server's port", v4(ours, theirs, 17, UDP(67, 1000, nil)...), server},
		{"to a client's port", v4(ours, theirs, 17, UDP(1000, 68, nil)...), server},
		{"from a client's port", v4(ours, theirs, 17, UDP(68, 1000, nil)...), none},
		{"UDP", v4(ours, theirs, 17, UDP(1000, 1001, nil)...), none},
		{"UDP of seven octets", v4(ours, theirs, 17, UDP(1000, 1001, nil)[:7]...), malformed},
		{"to a server's port, no DHCP", v4(ours, theirs, 17, UDP(1000, 67, []byte{1, 1, 6})...), malformed},
		{"DHCPv6 to a server, no message", v6(ours6, "ff02::1:2", 17, UDP(546, 547, []byte{1, 0, 0})...), malformed},
		{"DHCPv6 solicit", v6(ours6, "ff02::1:2", 17, UDP(546, 547, []byte{1, 0, 0, 1})...), none},
		{"DHCPv6 reply", v6(ours6, "ff02::1:2", 17, UDP(546, 547, []byte{7, 0, 0, 1})...), server},
		{"DHCPv6 of an unknown type", v6(ours6, "ff02::1:2", 17, UDP(546, 547, []byte{200, 0, 0, 1})...), dhcp},
		{"from a DHCPv6 server's port", v6(ours6, theirs6, 17, UDP(547, 1000, nil)...), server},
		{"to a DHCPv6 client's port", v6(ours6, theirs6, 17, UDP(1000, 546, nil)...), server},
		{"UDP of seven octets in IPv6", v6(ours6, theirs6, 17, UDP(1000, 1001, nil)[:7]...), malformed},

		// IPv6
		{"TCP in IPv6", v6(ours6, theirs6, 6, make([]byte, 20)...), none},
		{"IPv6 from another's address", v6(theirs6, ours6, 6, make([]byte, 20)...), ipv6},
		{"IPv6 from nobody", v6("::", theirs6, 6, make([]byte, 20)...), ipv6},
		{"UDP from nobody", v6("::", theirs6, 17, UDP(1000, 1001, nil)...), ipv6},
		{"IPv6 from a mapped address", v6("::ffff:10.99.0.10", theirs6, 6, make([]byte, 20)...), ipv6},
		{"PIM in IPv6", v6(ours6, "ff02::d", 103, 0x20, 0, 0, 0), router},
		{"PIM in IPv6 from nobody", v6("::", "ff02::d", 103, 0x20, 0, 0, 0), ipv6},
		{"VRRP in IPv6", v6(ours6, "ff02::12", 112, 0x31, 1, 100, 1), router},
		{"VRRP in IPv6 from nobody", v6("::", "ff02::12", 112, 0x31, 1, 100, 1), ipv6},
		{"echo request in IPv6", icmp6(ours6, theirs6, 128, nil), none},
		{"echo request in IPv6 from nobody", icmp6("::", theirs6, 128, nil), ipv6},
		{"ICMPv6 of three octets", v6(ours6, theirs6, 58, 128, 0, 0), malformed},
		{"MLD report from nobody", icmp6("::", "ff02::5", 131, make([]byte, 20)), none}, // RFC 3590
		{"MLDv2 report from nobody", icmp6("::", "ff02::16", 143, make([]byte, 20)), none},
		{"MLD done from nobody", icmp6("::", "ff02::2", 132, make([]byte, 20)), none},
		{"echo request in IPv6 from nobody to a group", icmp6("::", "ff02::5", 128, nil), ipv6},
		{"MLD report from nobody to a station", icmp6("::", theirs6, 131, make([]byte, 20)), ipv6},
		{"inverse solicitation", icmp6(ours6, "ff02::1", 141, make([]byte, 20)), nd},
		{"inverse advertisement", icmp6(ours6, "ff02::1", 142, make([]byte, 20)), nd},

		// Neighbour discovery (RFC 4861, RFC 4862)
		{"router solicitation", icmp6(ours6, "ff02::2", 133, append(make([]byte, 4), LinkLayer(1, macA)...)), none},
		{"router solicitation from nobody", icmp6("::", "ff02::2", 133, make([]byte, 4)), none},
		{"router solicitation from nobody that has a MAC", icmp6("::", "ff02::2", 133, append(make([]byte, 4), LinkLayer(1, macA)...)), nd},
		{"solicitation", icmp6(ours6, theirs6, 135, ND(theirs6, LinkLayer(1, macA)...)), none},
		{"solicitation by another MAC", icmp6(ours6, theirs6, 135, ND(theirs6, LinkLayer(1, macV)...)), nd},
		{"solicitation with a target's MAC", icmp6(ours6, theirs6, 135, ND(theirs6, LinkLayer(2, macA)...)), nd},
		{"solicitation with two MACs", icmp6(ours6, theirs6, 135, ND(theirs6, append(LinkLayer(1, macA), LinkLayer(1, macA)...)...)), nd},
		{"solicitation that was routed", set(icmp6(ours6, theirs6, 135, ND(theirs6)), hopLimit, 254), nd},
		{"solicitation with a code", set(icmp6(ours6, theirs6, 135, ND(theirs6)), code, 1), nd},
		{"advertisement", icmp6(ours6, theirs6, 136, ND(ours6, LinkLayer(2, macA)...)), none},
		{"advertisement by another MAC", icmp6(ours6, theirs6, 136, ND(ours6, LinkLayer(2, macV)...)), nd},
		{"advertisement with a source's MAC", icmp6(ours6, theirs6, 136, ND(ours6, LinkLayer(1, macA)...)), nd},
		{"advertisement of another's address", icmp6(ours6, theirs6, 136, ND(theirs6, LinkLayer(2, macA)...)), nd},
		{"advertisement of a mapped address", icmp6(ours6, theirs6, 136, ND("::ffff:10.99.0.10", LinkLayer(2, macA)...)), nd},
		{"detection", toGroup(0x3333_ff00_0010, "::", group, ND(ours6)), none},
		{"detection with a MAC", toGroup(0x3333_ff00_0010, "::", group, ND(ours6, LinkLayer(1, macA)...)), nd},
		{"detection in another group", toGroup(0x3333_ff00_0010, "::", "ff02::1:ff00:11", ND(ours6)), nd},
		{"detection in another group of Ethernet", toGroup(0x3333_ff00_0011, "::", group, ND(ours6)), nd},
	} {
		b := newBench(t, guard.Config{Addresses: addresses(ours, ours6), Learn: guard.LearnDHCP})
		b.Guard(2, "vm1", with(guard.Config{Addresses: addresses(theirs, theirs6)}, macV))
		b.want(t, c.what, c.wire, c.why)
		if dry := b.a.Why(frameOf(c.wire), none); dry != c.why {
			t.Errorf("%s: %v, without effect %v", c.what, c.why, dry)
		}
	}
}

// A station may pass for a virtual router that it is one of (RFC 9568 section 7.3): it sends the
// virtual router's address from either MAC, and advertisements with the virtual MAC from its own.
func TestVirtualRouter(t *testing.T) {
	const vmac, other port.MAC = 0x0000_5e00_0101, 0x5254_0099_00aa
	v4 := func(mac port.MAC, src string, proto byte) []byte {
		return Eth(Broadcast, mac, 0x0800, IPv4(src, "224.0.0.18", proto, make([]byte, 20)))
	}
	v6 := func(mac port.MAC, src string, proto byte) []byte {
		return Eth(Broadcast, mac, 0x86dd, IPv6(src, "ff02::12", proto, make([]byte, 20)))
	}
	const tcp, vrrp = 6, 112
	for _, c := range []struct {
		what          string
		wire          []byte
		pair, virtual port.Drop // with the address as a pair, and as a virtual router's
	}{
		{"its address", v4(macA, "10.99.0.10", tcp), none, none},
		{"its advertisement", v4(macA, "10.99.0.10", vrrp), port.DropGuardRouter, none},
		{"the router's address from the router's MAC", v4(vmac, "10.99.0.1", tcp), none, none},
		{"the router's address from its own MAC", v4(macA, "10.99.0.1", tcp), ipv4, none},
		{"the router's address from its second MAC", v4(other, "10.99.0.1", tcp), ipv4, ipv4},
		{"an advertisement from the router's MAC", v4(vmac, "10.99.0.10", vrrp), ipv4, none},
		{"an advertisement from the second MAC", v4(other, "10.99.0.10", vrrp), ipv4, ipv4},
		{"an advertisement from another's address", v4(vmac, "10.99.0.11", vrrp), ipv4, ipv4},
		{"traffic from the router's MAC with its own address", v4(vmac, "10.99.0.10", tcp), ipv4, ipv4},
		{"the router's address from its own MAC, IPv6", v6(macA, "fd99::1", tcp), ipv6, none},
		{"an advertisement from the router's MAC, IPv6", v6(vmac, "fd99::10", vrrp), ipv6, none},
		{"an advertisement from another's address, IPv6", v6(vmac, "fd99::11", vrrp), ipv6, ipv6},
		{"traffic from the router's MAC with its own address, IPv6", v6(vmac, "fd99::10", tcp), ipv6, ipv6},
	} {
		for _, vrrp := range []bool{false, true} {
			var pairs []guard.Pair
			for _, a := range addresses("10.99.0.1", "fd99::1") {
				pairs = append(pairs, guard.Pair{MAC: vmac, Address: a, VRRP: vrrp})
			}
			b := newBench(t, guard.Config{MACs: []port.MAC{macA, other}, Addresses: addresses("10.99.0.10", "fd99::10"), Pairs: pairs})
			want := c.pair
			if vrrp {
				want = c.virtual
			}
			b.want(t, fmt.Sprintf("%s (of a virtual router: %v)", c.what, vrrp), c.wire, want)
		}
	}
}

// What a frame claims is in the event about it, also where ARP or ND claim it for another.
func TestClaimed(t *testing.T) {
	for what, c := range map[string]struct {
		wire []byte
		mac  port.MAC
		a    string
	}{
		"IPv4":             {from4(macA, "10.99.0.11"), 0, "10.99.0.11"},
		"IPv4 of nothing":  {Bare(Broadcast, macA, 0x0800, IPv4("10.99.0.11", "10.99.0.1", 6, nil)), 0, "10.99.0.11"},
		"IPv6":             {from6("fd99::11"), 0, "fd99::11"},
		"ARP":              {Eth(Broadcast, macA, 0x0806, ARP(2, macV, "10.99.0.11", macT, "10.99.0.1")), macV, "10.99.0.11"},
		"ARP probe":        {probe(macA, "10.99.0.11"), macA, "10.99.0.11"},
		"ND advertisement": {Eth(macT, macA, 0x86dd, ICMPv6("fd99::10", "fd99::1", 136, ND("fd99::11", LinkLayer(2, macV)...))), macV, "fd99::11"},
		"ND redirect":      {Eth(macT, macA, 0x86dd, ICMPv6("fd99::10", "fd99::1", 137, append(ND("fd99::11"), Addr("fd99::12")...))), 0, "fd99::10"},
		"another MAC":      {Eth(macT, macV, 0x0800, IPv4("10.99.0.11", "10.99.0.1", 6, make([]byte, 20))), 0, "10.99.0.11"},
	} {
		b := newBench(t, guard.Config{Addresses: addresses("10.99.0.10", "fd99::10")})
		f := frameOf(c.wire)
		why := check(b.a, f)
		events, _ := b.Tick()
		if len(events) != 1 {
			t.Errorf("%s: %v, %+v", what, why, events)
			continue
		}
		if ev := events[0]; ev.Reason != why || ev.VLAN != 1 || ev.MAC != f.Src || ev.Claimed != c.mac || ev.Address.String() != c.a {
			t.Errorf("%s: %+v", what, ev)
		}
	}
}

// DHCPv6 messages that give up addresses name those of the station (RFC 9915 section 18.2.7).
func TestGivenUp(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnPD})
	send := func(what string, mac port.MAC, kind, xid byte, prefix string, why port.Drop) {
		t.Helper()
		b.want(t, what, Eth(0x3333_0001_0002, mac, 0x86dd, IPv6(guard.LinkLocal(mac).String(), "ff02::1:2", 17, UDP(546, 547, dhcp6(kind, xid, prefix, 0)))), why)
	}
	const second = macA + 1
	b.a = b.Guard(1, "vm0", with(guard.Config{Learn: guard.LearnPD, MACs: []port.MAC{macA, second}}, macA))
	x := netip.MustParsePrefix("fd97::/56")
	b.Restore(1, guard.Binding{VLAN: 1, MAC: macA, Prefix: x, Source: guard.PD})
	const release, decline = 8, 9
	send("a prefix of another", macA, release, 1, "fd98::/56", port.DropGuardDHCP)
	send("more than its own", macA, release, 2, "fd97::/48", port.DropGuardDHCP)
	send("that of its neighbour at the port", second, release, 3, "fd97::/56", port.DropGuardDHCP)
	send("more than its own", macA, decline, 4, "fd97::/55", port.DropGuardDHCP)
	if got := b.bound("vm0"); got != "fd97::" {
		t.Errorf("bound: %s", got)
	}
	send("a part of it", macA, release, 5, "fd97::/64", none)
	if got := b.bound("vm0"); got != "fd97::" {
		t.Errorf("bound after a part of it was released: %s", got)
	}
	send("its own", macA, release, 6, "fd97::/56", none)
	if got := b.bound("vm0"); got != "" {
		t.Errorf("bound: %s", got)
	}
}

// A user may give a port any address that no settings give to another.
func TestAdd(t *testing.T) {
	const other = macV + 1
	two := port.VLANSet{}
	two.Add(1)
	two.Add(2)
	three := port.VLANSet{}
	three.Add(3)
	wide := func(prefix string, vlan uint16) guard.Address {
		return guard.Address{Prefix: netip.MustParsePrefix(prefix), VLAN: vlan}
	}
	for what, c := range map[string]struct {
		number, vlan uint16
		mac          port.MAC
		a            string
		ok           bool
	}{
		"a free one":                              {1, 1, macA, "10.99.0.20", true},
		"in its second VLAN":                      {1, 2, macA, "10.99.0.20", true},
		"of IPv6":                                 {1, 1, macA, "fd99::20", true},
		"at a port without a guard":               {9, 1, macA, "10.99.0.20", false},
		"with another's MAC":                      {1, 1, macV, "10.99.0.20", false},
		"in a VLAN that the port does not carry":  {1, 3, macA, "10.99.0.20", false},
		"a group":                                 {1, 1, macA, "224.0.0.5", false},
		"that of all":                             {1, 1, macA, "255.255.255.255", false},
		"none":                                    {1, 1, macA, "0.0.0.0", false},
		"a group of IPv6":                         {1, 1, macA, "ff02::1", false},
		"what it has":                             {1, 1, macA, "10.99.0.10", true},
		"what it has, for another MAC":            {2, 1, other, "10.98.0.1", false},
		"another's":                               {2, 1, macV, "10.99.0.10", false},
		"what another has learned":                {2, 1, macV, "10.99.0.30", true},
		"in its own prefix":                       {2, 1, macV, "10.97.0.1", true},
		"in another's prefix":                     {1, 1, macA, "10.97.0.1", false},
		"in another's prefix in its own VLAN":     {1, 2, macA, "10.96.0.1", false},
		"in another's prefix in another VLAN":     {1, 1, macA, "10.96.0.1", true},
		"in a prefix of a port in another VLAN":   {1, 1, macA, "10.95.0.1", true},
		"beside another's prefix":                 {1, 1, macA, "10.97.1.0", true},
		"a protected one, which nobody may learn": {1, 1, macA, "10.99.0.1", true},
		"in a pair of another, which share":       {1, 1, macA, "10.94.0.1", true},
	} {
		b := newBench(t, guard.Config{VLANs: two, Learn: guard.LearnDHCP, Addresses: addresses("10.99.0.10")}, "10.99.0.1/32")
		b.Guard(2, "vm1", guard.Config{MACs: []port.MAC{macV, other}, VLANs: two, Addresses: append(addresses("10.98.0.1"), wide("10.97.0.0/24", 0), wide("10.96.0.0/24", 2)), Pairs: []guard.Pair{{MAC: macT, Address: wide("10.94.0.1/32", 0)}}})
		b.Guard(3, "vm2", guard.Config{MACs: []port.MAC{macT}, VLANs: three, Addresses: []guard.Address{wide("10.95.0.0/24", 0)}})
		b.Restore(1, guard.Binding{VLAN: 1, MAC: macA, Prefix: netip.MustParsePrefix("10.99.0.30/32"), Source: guard.DHCP})
		err := b.Add(c.number, c.vlan, c.mac, netip.MustParseAddr(c.a))
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", what, err)
		}
		has := 0
		for _, x := range b.Bindings() {
			if x.MAC == c.mac && (x.VLAN == c.vlan || x.VLAN == 0) && x.Source == guard.Static && x.Prefix.IsSingleIP() && x.Prefix.Addr().String() == c.a {
				has++
			}
		}
		if (has == 1) != c.ok {
			t.Errorf("%s: %d bindings", what, has)
		}
	}

	// As many as a port can have; more are refused with the reason.
	b := newBench(t, guard.Config{})
	n := 0
	for ; ; n++ {
		if err := b.Add(1, 1, macA, netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)})); err != nil {
			break
		}
	}
	if n != 255 { // and the link-local one
		t.Errorf("added %d", n)
	}
	if n := b.Delete(1, netip.Addr{}); n != 0 {
		t.Errorf("%d that a user added were deleted as learned", n)
	}
	if n := b.Delete(1, netip.MustParseAddr("10.1.0.7")); n != 1 {
		t.Errorf("deleted %d", n)
	}
	b.Clear(1)
	if got := b.bound("vm0"); got != "" {
		t.Errorf("left: %s", got)
	}
}

// An address may be formed as long as one of the prefixes lasts that it is in.
func TestLongestPrefix(t *testing.T) {
	for _, c := range []struct {
		what     string
		prefixes []string
		valid    []uint32
		want     time.Duration // 0: for good
	}{
		{"one", []string{"fd98::/64"}, []uint32{600}, 600 * time.Second},
		{"the longer one first", []string{"fd98::/64", "fd98::/48"}, []uint32{900, 600}, 900 * time.Second},
		{"the longer one last", []string{"fd98::/64", "fd98::/48"}, []uint32{600, 900}, 900 * time.Second},
		{"another prefix", []string{"fd98::/64", "fd98:0:0:1::/64"}, []uint32{600, 900}, 600 * time.Second},
		{"one that is over", []string{"fd98::/48", "fd98::/64"}, []uint32{5, 600}, 590 * time.Second},
		{"one for good", []string{"fd98::/48"}, []uint32{0xffff_ffff}, 0},
		{"one for good, last", []string{"fd98::/64", "fd98::/48"}, []uint32{600, 0xffff_ffff}, 0},
		{"one for good, first", []string{"fd98::/48", "fd98::/64"}, []uint32{0xffff_ffff, 600}, 0},
	} {
		b := newBench(t, guard.Config{Learn: guard.LearnSLAAC})
		for i, x := range c.prefixes {
			b.trusted(t, routerAdvert(x, c.valid[i]))
		}
		want := c.want
		if c.valid[0] == 5 {
			b.now = b.now.Add(10 * time.Second)
		}
		b.want(t, c.what, detect(macA, "fd98::10"), none)
		for _, x := range b.Bindings() {
			if x.Source != guard.SLAAC {
				continue
			}
			if got := x.Expiry; want == 0 && !got.IsZero() || want != 0 && !got.Equal(b.now.Add(want)) {
				t.Errorf("%s: until %v, now is %v", c.what, got, b.now)
			}
		}
	}
	b := newBench(t, guard.Config{Learn: guard.LearnSLAAC})
	b.trusted(t, routerAdvert("fd98::/64", 5))
	b.now = b.now.Add(5 * time.Second)
	b.want(t, "in a prefix that has just ended", detect(macA, "fd98::10"), nd)
}

// routed are prefixes in which nobody forms addresses by himself.
func TestNotAutonomous(t *testing.T) {
	for prefix, edit := range map[string]func(wire []byte){
		"fd98::/64": func(wire []byte) { wire[14+40+4+12+3] = 0x80 }, // on the link, not autonomous (RFC 4862 section 5.5.3)
		"fe80::/64": func([]byte) {},
		"ff02::/64": func([]byte) {},
		"::/0":      func([]byte) {},
	} {
		b := newBench(t, guard.Config{Learn: guard.LearnSLAAC})
		wire := routerAdvert(prefix, 3600)
		edit(wire)
		b.trusted(t, wire)
		b.want(t, prefix, detect(macA, "fd98::10"), nd)
		b.want(t, prefix+": a link-local one", detect(macA, "fe80::1234"), none)
		b.pass(2 * time.Second)
		for _, x := range b.Bindings() {
			if !x.Expiry.IsZero() {
				t.Errorf("%s: %+v ends", prefix, x)
			}
		}
	}
}

// full guards ports with n learned addresses in all, 256 each, of 10.0.0.0/8. Their numbers begin
// with 100.
func (b *bench) full(n int) {
	for i := 0; i < n; i += 256 {
		number := uint16(100 + i/256)
		mac := macT + port.MAC(number)<<8
		b.Guard(number, fmt.Sprint("full", number), with(guard.Config{Learn: guard.LearnDHCP, Limit: 256}, mac))
		var all []guard.Binding
		for j := i; j < min(i+256, n); j++ {
			a := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 10<<24|uint32(j+256))))
			all = append(all, guard.Binding{VLAN: 1, MAC: mac, Prefix: netip.PrefixFrom(a, 32), Source: guard.DHCP})
		}
		b.Restore(number, all...)
	}
}

// A table keeps 65536 bindings, of addresses and prefixes together.
func TestMostBindings(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnDHCP | guard.LearnPD | guard.LearnSLAAC})
	b.full(65535)
	x := netip.MustParsePrefix("fd97::/56")
	b.Restore(1, guard.Binding{VLAN: 1, MAC: macA, Prefix: x, Source: guard.PD})
	b.want(t, "in the last that there is room for", from6("fd97::1"), none)

	full := func(what string) {
		t.Helper()
		b.Tick()
		b.want(t, what, request(macA, 1, "192.0.2.1"), none)
		b.trusted(t, ack(macA, 1, "192.0.2.1", 60))
		b.want(t, what+": a lease", from4(macA, "192.0.2.1"), ipv4)
		b.want(t, what+": detection", detect(macA, "fe80::1"), nd)
	}
	full("one more")
	if got := b.Counts(1)[guard.NoRoom]; got != 2 {
		t.Errorf("counted %d", got)
	}
	b.Delete(1, x.Addr())
	b.want(t, "request", request(macA, 1, "192.0.2.1"), none)
	b.trusted(t, ack(macA, 1, "192.0.2.1", 60))
	b.want(t, "when there is room", from4(macA, "192.0.2.1"), none)
	b.Restore(1, guard.Binding{VLAN: 1, MAC: macA, Prefix: x, Source: guard.PD})
	b.want(t, "a prefix beyond it", from6("fd97::1"), ipv6)
}

// The switch asks for 256 addresses at a time, for each but once.
func TestMostQuestions(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnDHCP | guard.LearnSLAAC | guard.LearnARP, Limit: 300})
	const most = 256
	b.full(most + 1)
	disputed := func(i int) {
		a := netip.AddrFrom4([4]byte{10, 0, byte((i + 256) >> 8), byte(i)}).String()
		b.want(t, "request", request(macA, uint32(i), a), none)
		b.trusted(t, ack(macA, uint32(i), a, 3600))
		b.now = b.now.Add(100 * time.Millisecond) // for the limit of requests
	}
	disputed(0)
	disputed(0) // a second time
	for i := 1; i < most-1; i++ {
		disputed(i)
	}
	// Of announcements, one more has room.
	b.want(t, "an announcement", garp(macA, "192.0.2.1"), port.DropGuardARP)
	disputed(most)
	if got := b.bound("vm0"); got != "192.0.2.1" {
		t.Errorf("bound: %s", got)
	}
	events, asks := b.Tick()
	others, seen := 0, make(map[netip.Addr]bool)
	for _, ask := range asks {
		seen[ask.Address] = true
		if ask.Others {
			others++
		}
	}
	if len(asks) != most || len(seen) != most || others != 1 {
		t.Errorf("asked %d times for %d addresses, %d of all others", len(asks), len(seen), others)
	}
	events = slices.DeleteFunc(events, func(ev guard.Event) bool { return ev.Kind == guard.Violation })
	if len(events) != 256 {
		t.Errorf("%d events", len(events))
	}

	// They are due still, but for the announcement's, so one more may be asked for, and no second.
	b.Delete(1, netip.Addr{})
	b.want(t, "an announcement", garp(macA, "192.0.2.2"), port.DropGuardARP)
	if got := b.bound("vm0"); got != "192.0.2.2" {
		t.Errorf("bound: %s", got)
	}
	b.Delete(1, netip.Addr{})
	b.want(t, "another", garp(macA, "192.0.2.3"), port.DropGuardARP)
	if got := b.bound("vm0"); got != "" {
		t.Errorf("bound: %s", got)
	}
	if got := b.Counts(1)[guard.NoRoom]; got != 1 {
		t.Errorf("counted %d", got)
	}
	b.pass(2 * time.Second)
	if n := len(b.Learned(1)); n != most-1 {
		t.Errorf("%d addresses of silent stations", n)
	}
}
