package fastpath

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	. "github.com/vswitch/vswitch/internal/packet/packettest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// tenant is what A may send behind port 0.
func tenant() *vswitch.FastGuard {
	return &vswitch.FastGuard{
		MACs: []port.MAC{macA}, VLANs: *vlans(1),
		Senders: []vswitch.FastSender{
			{VLAN: 1, MAC: macA, Addr: netip.MustParseAddr("10.0.0.1")},
			{MAC: macA, Addr: netip.MustParseAddr("fd00::1")},
		},
	}
}

// guardedRig has A behind port 0, which is guarded, and B behind port 1.
func guardedRig(t testing.TB, g *vswitch.FastGuard) *rig {
	t.Helper()
	r := newRig(t, 2)
	r.path.Guard(0, g)
	r.ports[0].Guarded = true
	r.publish(r.ports)
	r.learn(1, macA, 0)
	r.learn(1, macB, 1)
	r.onCPU(0)
	return r
}

// want has a frame come by port 0, so often that none of them is handed up for the log alone,
// and expects the decision; for a drop, that it is counted for the reason.
func (r *rig) want(what string, wire []byte, decision uint32, why port.Drop) {
	r.t.Helper()
	start := time.Now()
	for range 3 { // the flow is not known, then it is
		if decision != tcxDrop {
			if d := r.send(0, wire); d != decision {
				r.t.Errorf("%s: the decision is %d, want %d", what, d, decision)
			}
			continue
		}
		// Some of each second are handed up for the log.
		before := r.path.Counters(0)
		for d := uint32(tcxPass); d != tcxDrop; {
			if d = r.send(0, wire); d != tcxDrop && d != tcxPass {
				r.t.Fatalf("%s: the decision is %d", what, d)
			}
			if after := r.path.Counters(0); d == tcxPass && after != before {
				r.t.Fatalf("%s: handed up, and counted: %+v", what, after)
			}
			if time.Since(start) > time.Minute {
				r.t.Fatalf("%s: is not dropped", what)
			}
		}
		after := r.path.Counters(0)
		if n := after.RX.Dropped[why] - before.RX.Dropped[why]; n != 1 || after.RX.Frames-before.RX.Frames != 1 || after.RX.Bytes-before.RX.Bytes != uint64(len(wire)) {
			r.t.Errorf("%s: counts %+v, before %+v", what, after, before)
		}
	}
}

func ipv4(proto byte, payload []byte) []byte {
	return Eth(macB, macA, typeIPv4, IPv4("10.0.0.1", "10.0.0.2", proto, payload))
}

func ipv6(next byte, payload []byte) []byte {
	return Eth(macB, macA, typeIPv6, IPv6("fd00::1", "fd00::2", next, payload))
}

// poke returns a frame with other bytes at a place behind the Ethernet header.
func poke(wire []byte, at int, with ...byte) []byte {
	b := bytes.Clone(wire)
	copy(b[port.HeaderLen+at:], with)
	return b
}

// TestGuardVerdicts has frames come by a guarded port. What is plainly good is sent on, what is
// certainly bad is dropped for the reason that the switch would give, the rest is handed up.
func TestGuardVerdicts(t *testing.T) {
	t.Parallel()
	echo := append([]byte{8, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 24)...)
	echo6 := append([]byte{128, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 24)...)
	tcp, udp := tcpSegment(), udpDatagram()
	const none = port.DropNone
	r := guardedRig(t, tenant())
	for _, c := range []struct {
		name     string
		wire     []byte
		decision uint32
		why      port.Drop
	}{
		{"TCP", ipv4(6, tcp), tcxRedirect, none},
		{"UDP", ipv4(17, udp), tcxRedirect, none},
		{"echo", ipv4(1, echo), tcxRedirect, none},
		{"GRE", ipv4(47, udp), tcxRedirect, none},
		{"ESP", ipv4(50, udp), tcxRedirect, none},
		{"SCTP", ipv4(132, udp), tcxRedirect, none},
		{"a later fragment", Eth(macB, macA, typeIPv4, fragment4(IPv4("10.0.0.1", "10.0.0.2", 17, udp), 2)), tcxRedirect, none},
		{"a later fragment of IGMP", Eth(macB, macA, typeIPv4, fragment4(IPv4("10.0.0.1", "10.0.0.2", 2, udp), 0x2002)), tcxRedirect, none},
		{"don't fragment", Eth(macB, macA, typeIPv4, fragment4(IPv4("10.0.0.1", "10.0.0.2", 17, udp), 0x4000)), tcxRedirect, none},
		{"TCP in IPv6", ipv6(6, tcp), tcxRedirect, none},
		{"UDP in IPv6", ipv6(17, udp), tcxRedirect, none},
		{"echo in IPv6", ipv6(58, echo6), tcxRedirect, none},

		{"IPv4 options", Eth(macB, macA, typeIPv4, withOptions(IPv4("10.0.0.1", "10.0.0.2", 17, udp))), tcxPass, none},
		{"a first fragment", Eth(macB, macA, typeIPv4, fragment4(IPv4("10.0.0.1", "10.0.0.2", 17, udp), 0x2000)), tcxPass, none},
		{"IPv4, too long", poke(ipv4(17, udp), 2, 1, 0), tcxPass, none},
		{"IPv4, too short", poke(ipv4(17, udp), 2, 0, 19), tcxPass, none},
		{"IPv4, version 6", poke(ipv4(17, udp), 0, 0x65), tcxPass, none},
		{"UDP without header", Eth(macB, macA, typeIPv4, IPv4("10.0.0.1", "10.0.0.2", 17, udp[:7])), tcxPass, none},
		{"ICMP without type", Eth(macB, macA, typeIPv4, IPv4("10.0.0.1", "10.0.0.2", 1, nil)), tcxPass, none},
		{"to a DHCP client", ipv4(17, UDP(1000, 68, nil)), tcxPass, none},
		{"to a DHCP server", ipv4(17, UDP(68, 67, nil)), tcxPass, none},
		{"from a DHCP server", ipv4(17, UDP(67, 1000, nil)), tcxPass, none},
		{"to a DHCPv6 client", ipv6(17, UDP(1000, 546, nil)), tcxPass, none},
		{"to a DHCPv6 server", ipv6(17, UDP(546, 547, nil)), tcxPass, none},
		{"from a DHCPv6 server", ipv6(17, UDP(547, 1000, nil)), tcxPass, none},
		{"redirect", ipv4(1, append([]byte{5}, echo[1:]...)), tcxPass, none},
		{"router advertisement", ipv4(1, append([]byte{9}, echo[1:]...)), tcxPass, none},
		{"IGMP", ipv4(2, echo), tcxPass, none},
		{"PIM", ipv4(103, echo), tcxPass, none},
		{"VRRP", ipv4(112, echo), tcxPass, none},
		{"ICMPv6 in IPv4", ipv4(58, echo6), tcxPass, none},
		{"ICMP in IPv6", ipv6(1, echo), tcxPass, none},
		{"neighbour solicitation", ipv6(58, append([]byte{135}, echo6[1:]...)), tcxPass, none},
		{"MLD", ipv6(58, append([]byte{130}, echo6[1:]...)), tcxPass, none},
		{"redirect in IPv6", ipv6(58, append([]byte{137}, echo6[1:]...)), tcxPass, none},
		{"hop-by-hop", ipv6(0, Extension(17, udp)), tcxPass, none},
		{"destination options", ipv6(60, Extension(17, udp)), tcxPass, none},
		{"fragment of IPv6", ipv6(44, Fragment(17, 8, false, udp)), tcxPass, none},
		{"authentication header", ipv6(51, udp), tcxPass, none},
		{"IPv6, too long", poke(ipv6(17, udp), 4, 1, 0), tcxPass, none},
		{"IPv6, version 4", poke(ipv6(17, udp), 0, 0x40), tcxPass, none},
		{"IPv6 without upper header", Bare(macB, macA, typeIPv6, IPv6("fd00::1", "fd00::2", 59, nil)), tcxPass, none},
		{"UDP in IPv6 without header", ipv6(17, udp[:7]), tcxPass, none},
		{"ARP", Eth(macB, macA, typeARP, ARP(2, macA, "10.0.0.1", macB, "10.0.0.2")), tcxPass, none},
		{"RARP", Eth(macB, macA, 0x8035, ARP(3, macA, "0.0.0.0", macA, "0.0.0.0")), tcxPass, none},
		{"broadcast", Eth(Broadcast, macA, typeIPv4, IPv4("10.0.0.1", "255.255.255.255", 17, udp)), tcxPass, none},
		{"to a group", Eth(0x0100_5e00_0001, macA, typeIPv4, IPv4("10.0.0.1", "224.0.0.1", 17, udp)), tcxPass, none},
		{"to an unknown station", Eth(macC, macA, typeIPv4, IPv4("10.0.0.1", "10.0.0.3", 17, udp)), tcxPass, none},
		{"a tag for a priority", Tag(ipv4(17, udp), 0x8100_a000), tcxPass, none},

		{"another's IPv4 address", Eth(macB, macA, typeIPv4, IPv4("10.0.0.2", "10.0.0.2", 17, udp)), tcxDrop, port.DropGuardIPv4},
		{"another's, in a later fragment", Eth(macB, macA, typeIPv4, fragment4(IPv4("10.0.0.2", "10.0.0.2", 17, udp), 2)), tcxDrop, port.DropGuardIPv4},
		{"another's, broadcast", Eth(Broadcast, macA, typeIPv4, IPv4("10.0.0.2", "255.255.255.255", 17, udp)), tcxDrop, port.DropGuardIPv4},
		{"no IPv4 address", Eth(macB, macA, typeIPv4, IPv4("0.0.0.0", "10.0.0.2", 17, udp)), tcxDrop, port.DropGuardIPv4},
		{"another's IPv6 address", Eth(macB, macA, typeIPv6, IPv6("fd00::2", "fd00::2", 17, udp)), tcxDrop, port.DropGuardIPv6},
		{"no IPv6 address", Eth(macB, macA, typeIPv6, IPv6("::", "fd00::2", 17, udp)), tcxDrop, port.DropGuardIPv6},
		{"the IPv4 address, mapped", Eth(macB, macA, typeIPv6, IPv6("::ffff:10.0.0.1", "fd00::2", 17, udp)), tcxDrop, port.DropGuardIPv6},
		{"another's MAC", Eth(macB, macC, typeIPv4, IPv4("10.0.0.1", "10.0.0.2", 17, udp)), tcxDrop, port.DropGuardMAC},
		{"another's MAC in ARP", Eth(macB, macC, typeARP, ARP(2, macC, "10.0.0.1", macB, "10.0.0.2")), tcxDrop, port.DropGuardMAC},
		{"another's MAC, broadcast", Eth(Broadcast, macB, typeIPv4, IPv4("10.0.0.1", "255.255.255.255", 17, udp)), tcxDrop, port.DropGuardMAC},
		{"another's IPv4 address behind options", Eth(macB, macA, typeIPv4, withOptions(IPv4("10.0.0.2", "10.0.0.2", 17, udp))), tcxDrop, port.DropGuardIPv4},
		{"another's, in a first fragment", Eth(macB, macA, typeIPv4, fragment4(IPv4("10.0.0.2", "10.0.0.2", 17, udp), 0x2000)), tcxDrop, port.DropGuardIPv4},
		{"another's, to a DHCP client", Eth(macB, macA, typeIPv4, IPv4("10.0.0.2", "10.0.0.2", 17, UDP(67, 68, nil))), tcxDrop, port.DropGuardIPv4},
		{"nobody's, to a DHCP server", Eth(Broadcast, macA, typeIPv4, IPv4("0.0.0.0", "255.255.255.255", 17, UDP(68, 67, nil))), tcxPass, none},
		{"another's IPv6 address behind a header", Eth(macB, macA, typeIPv6, IPv6("fd00::2", "fd00::2", 0, Extension(17, udp))), tcxDrop, port.DropGuardIPv6},
		{"another's advertisement", Eth(macB, macA, typeIPv6, ICMPv6("fd00::2", "fd00::2", 136, ND("fd00::2"))), tcxDrop, port.DropGuardIPv6},
		{"nobody's solicitation", Eth(macB, macA, typeIPv6, ICMPv6("::", "ff02::1:ff00:1", 135, ND("fd00::1"))), tcxPass, none},
		{"another's address in ARP", Eth(macB, macA, typeARP, ARP(2, macA, "10.0.0.2", macB, "10.0.0.2")), tcxDrop, port.DropGuardARP},
		{"another's address in ARP, broadcast", Eth(Broadcast, macA, typeARP, ARP(1, macA, "10.0.0.2", 0, "10.0.0.2")), tcxDrop, port.DropGuardARP},
		{"another's MAC inside of ARP", Eth(macB, macA, typeARP, ARP(2, macC, "10.0.0.1", macB, "10.0.0.2")), tcxDrop, port.DropGuardARP},
		{"another operation of ARP", Eth(macB, macA, typeARP, ARP(3, macA, "10.0.0.1", macB, "10.0.0.2")), tcxDrop, port.DropGuardARP},
		{"a reply of nobody", Eth(macB, macA, typeARP, ARP(2, macA, "0.0.0.0", macB, "10.0.0.2")), tcxDrop, port.DropGuardARP},
		{"a probe", Eth(Broadcast, macA, typeARP, ARP(1, macA, "0.0.0.0", 0, "10.0.0.2")), tcxPass, none},
		{"odd ARP", poke(Eth(macB, macA, typeARP, ARP(2, macA, "10.0.0.2", macB, "10.0.0.2")), 4, 8), tcxPass, none},
		{"another EtherType", frame(macB, macA, 60), tcxDrop, port.DropGuardType},
		{"a length", Eth(macB, macA, 46, make([]byte, 46)), tcxDrop, port.DropGuardType},
		{"a tag", Tag(ipv4(17, udp), 0x8100_0005), tcxDrop, port.DropGuardTag},
		{"a service tag", Tag(ipv4(17, udp), 0x88a8_0000), tcxDrop, port.DropGuardTag},
		{"an old tag", Tag(ipv4(17, udp), 0x9100_0000), tcxDrop, port.DropGuardTag},
	} {
		r.want(c.name, c.wire, c.decision, c.why)
	}
	// A long frame in several pieces has only its first bytes in reach of the program; what
	// leaves segments to others without a checksum is the switch's.
	ctx := skb{Ifindex: uint32(r.ports[0].Device.Ifindex()), GSOSize: 1000}
	if d, _ := r.run(ipv4(6, append(tcp, make([]byte, 3000)...)), ctx); d != tcxPass {
		t.Errorf("segments without a checksum: %d", d)
	}
}

// What the settings of a guarded port change.
func TestGuardSettings(t *testing.T) {
	t.Parallel()
	udp := ipv4(17, udpDatagram())
	other := Eth(macB, macA, typeIPv4, IPv4("10.0.0.77", "10.0.0.2", 17, udpDatagram()))
	arp := Eth(macB, macA, typeARP, ARP(2, macA, "10.0.0.1", macB, "10.0.0.2"))
	for name, c := range map[string]struct {
		change   func(g *vswitch.FastGuard)
		wire     []byte
		decision uint32
		why      port.Drop
	}{
		"MAC only":               {func(g *vswitch.FastGuard) { g.MACOnly = true }, other, tcxRedirect, 0},
		"MAC only, ARP":          {func(g *vswitch.FastGuard) { g.MACOnly = true }, arp, tcxRedirect, 0},
		"MAC only, another type": {func(g *vswitch.FastGuard) { g.MACOnly = true }, frame(macB, macA, 60), tcxDrop, port.DropGuardType},
		"exceptions":             {func(g *vswitch.FastGuard) { g.Exceptions = true }, Eth(macB, macA, typeARP, ARP(1, macA, "10.0.0.2", 0, "10.0.0.2")), tcxPass, 0},
		"exceptions, plain":      {func(g *vswitch.FastGuard) { g.Exceptions = true }, other, tcxDrop, port.DropGuardIPv4},
		"exceptions, odd ARP":    {func(g *vswitch.FastGuard) { g.Exceptions = true }, Eth(macB, macA, typeARP, ARP(1, macC, "10.0.0.2", 0, "10.0.0.2")), tcxDrop, port.DropGuardARP},
		"more types":             {func(g *vswitch.FastGuard) { g.MoreTypes = true }, frame(macB, macA, 60), tcxPass, 0},
		"no MAC":                 {func(g *vswitch.FastGuard) { g.MACs = nil }, udp, tcxDrop, port.DropGuardMAC},
		"another VLAN":           {func(g *vswitch.FastGuard) { g.Senders[0].VLAN = 2 }, udp, tcxDrop, port.DropGuardIPv4},
		"another's address": {func(g *vswitch.FastGuard) {
			g.MACs, g.Senders[0].MAC = append(g.MACs, macC), macC
		}, udp, tcxDrop, port.DropGuardIPv4},
		"not yet":       {func(g *vswitch.FastGuard) { g.Senders[0].From = time.Now().Add(time.Hour) }, udp, tcxPass, 0},
		"for a while":   {func(g *vswitch.FastGuard) { g.Senders[0].Until = time.Now().Add(time.Hour) }, udp, tcxRedirect, 0},
		"since a while": {func(g *vswitch.FastGuard) { g.Senders[0].From = time.Now().Add(-time.Hour) }, udp, tcxRedirect, 0},
		"no longer":     {func(g *vswitch.FastGuard) { g.Senders[0].Until = time.Now().Add(-time.Hour) }, udp, tcxPass, 0},
		"in a prefix": {func(g *vswitch.FastGuard) {
			g.Prefixes = []vswitch.FastPrefix{{VLAN: 1, MAC: macA, Prefix: netip.MustParsePrefix("10.0.0.64/28")}}
		}, other, tcxRedirect, 0},
		"in a prefix for a while": {func(g *vswitch.FastGuard) {
			g.Prefixes = []vswitch.FastPrefix{{VLAN: 1, MAC: macA, Prefix: netip.MustParsePrefix("10.0.0.64/28"), Until: time.Now().Add(time.Hour)}}
		}, other, tcxRedirect, 0},
		"in a prefix no longer": {func(g *vswitch.FastGuard) {
			g.Prefixes = []vswitch.FastPrefix{{VLAN: 1, MAC: macA, Prefix: netip.MustParsePrefix("10.0.0.64/28"), Until: time.Now().Add(-time.Hour)}}
		}, other, tcxPass, 0},
		"in a prefix of every VLAN": {func(g *vswitch.FastGuard) {
			g.Prefixes = []vswitch.FastPrefix{{MAC: macA, Prefix: netip.MustParsePrefix("10.0.0.0/8")}}
		}, other, tcxRedirect, 0},
		"in a prefix of another VLAN": {func(g *vswitch.FastGuard) {
			g.Prefixes = []vswitch.FastPrefix{{VLAN: 2, MAC: macA, Prefix: netip.MustParsePrefix("10.0.0.64/28")}}
		}, other, tcxDrop, port.DropGuardIPv4},
		"in a prefix of another MAC": {func(g *vswitch.FastGuard) {
			g.Prefixes = []vswitch.FastPrefix{{VLAN: 1, MAC: macB, Prefix: netip.MustParsePrefix("10.0.0.64/28")}}
		}, other, tcxDrop, port.DropGuardIPv4},
		"beside a prefix": {func(g *vswitch.FastGuard) {
			g.Prefixes = []vswitch.FastPrefix{{VLAN: 1, MAC: macA, Prefix: netip.MustParsePrefix("10.0.0.80/28")}, {VLAN: 1, MAC: macA, Prefix: netip.MustParsePrefix("fd00::/64")}}
		}, other, tcxDrop, port.DropGuardIPv4},
		"in an IPv6 prefix": {func(g *vswitch.FastGuard) {
			g.Prefixes = []vswitch.FastPrefix{{VLAN: 1, MAC: macA, Prefix: netip.MustParsePrefix("fd00:0:0:8000::/49")}}
		}, Eth(macB, macA, typeIPv6, IPv6("fd00:0:0:ffff::1", "fd00::2", 17, udpDatagram())), tcxRedirect, 0},
		"more prefixes than the kernel has room for": {func(g *vswitch.FastGuard) {
			for i := range maxPrefixes + 1 {
				g.Prefixes = append(g.Prefixes, vswitch.FastPrefix{VLAN: 1, MAC: macA, Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i)}), 16)})
			}
		}, other, tcxPass, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := tenant()
			c.change(g)
			r := guardedRig(t, g)
			r.want(name, c.wire, c.decision, c.why)
		})
	}
}

// What is taken away counts at once, also for flows that the kernel remembers; and a port of
// which the kernel knows nothing is the switch's.
func TestGuardChanges(t *testing.T) {
	t.Parallel()
	r := guardedRig(t, nil)
	udp := ipv4(17, udpDatagram())
	r.want("nothing is known", udp, tcxPass, 0)
	r.path.Guard(0, tenant())
	r.want("the address is there", udp, tcxRedirect, 0)
	shorter := tenant()
	shorter.Senders = shorter.Senders[1:]
	r.path.Guard(0, shorter)
	r.want("it is gone", udp, tcxDrop, port.DropGuardIPv4)
	r.path.Guard(0, tenant())
	r.want("it is there again", udp, tcxRedirect, 0)
	brief := tenant()
	brief.Senders[0].Until = time.Now().Add(-time.Second)
	r.path.Guard(0, brief)
	r.want("its time is over", udp, tcxPass, 0)
	r.path.Guard(0, tenant())
	r.want("it has no end", udp, tcxRedirect, 0)
	r.path.Guard(0, nil)
	r.want("nothing is known any more", udp, tcxPass, 0)
	if n := entries(t, r.path.bpf.Bindings) + entries(t, r.path.bpf.Guards); n != 0 {
		t.Errorf("%d entries are left", n)
	}
	r.ports[0].Guarded = false
	r.publish(r.ports)
	r.want("it is not guarded", Eth(macB, macA, typeIPv4, IPv4("10.0.0.99", "10.0.0.2", 17, udpDatagram())), tcxRedirect, 0)
	// A remembered flow of a port that becomes guarded.
	r.path.Guard(0, tenant())
	r.ports[0].Guarded = true
	r.publish(r.ports)
	r.want("it is", Eth(macB, macA, typeIPv4, IPv4("10.0.0.99", "10.0.0.2", 17, udpDatagram())), tcxDrop, port.DropGuardIPv4)
}

// A slot that is given away has nothing of the port that had it.
func TestGuardSlot(t *testing.T) {
	t.Parallel()
	r := guardedRig(t, tenant())
	udp := ipv4(17, udpDatagram())
	r.want("before", udp, tcxRedirect, 0)
	r.publish(r.ports[1:])
	r.path.Release(0)
	if n := entries(t, r.path.bpf.Bindings) + entries(t, r.path.bpf.Guards); n != 0 {
		t.Errorf("%d entries are left", n)
	}
	// The port's device comes back, with what the port may send.
	r.publish(r.ports)
	r.table.FlushPort(0)
	r.learn(1, macA, 0)
	r.want("with a device again", udp, tcxRedirect, 0)
	// Another port gets the slot.
	r.publish(r.ports[1:])
	r.path.Release(0)
	r.ports[0].Number = 5
	r.publish(r.ports)
	r.table.FlushPort(0)
	r.learn(1, macA, 5)
	if d := r.send(0, udp); d != tcxPass {
		t.Errorf("another port that has the slot: %d", d)
	}
}

// The kernel is asked when it heard a sender.
func TestGuardHeard(t *testing.T) {
	t.Parallel()
	g := tenant()
	r := guardedRig(t, g)
	if ago, ok := r.path.GuardHeard(0, g.Senders[0]); ok {
		t.Errorf("heard %v ago, and sent nothing", ago)
	}
	r.want("sends", ipv4(17, udpDatagram()), tcxRedirect, 0)
	if ago, ok := r.path.GuardHeard(0, g.Senders[0]); !ok || ago > time.Minute {
		t.Errorf("heard %v ago, %v", ago, ok)
	}
	if _, ok := r.path.GuardHeard(0, g.Senders[1]); ok {
		t.Error("the other address was heard")
	}
	if _, ok := r.path.GuardHeard(1, g.Senders[0]); ok {
		t.Error("another port's was heard")
	}
}

// A flow of several addresses is checked frame by frame.
func TestGuardFlow(t *testing.T) {
	t.Parallel()
	r := guardedRig(t, tenant())
	r.ports[0].Drops = true // bad frames are handed up
	r.publish(r.ports)
	draw := rand.New(rand.NewPCG(1, 2))
	good := [][]byte{ipv4(17, udpDatagram()), ipv6(17, udpDatagram()), ipv4(6, tcpSegment())}
	bad := [][]byte{
		Eth(macB, macA, typeIPv4, IPv4("10.0.0.2", "10.0.0.2", 17, udpDatagram())),
		Eth(macB, macA, typeIPv6, IPv6("fd00::3", "fd00::2", 17, udpDatagram())),
		ipv4(17, UDP(67, 68, nil)), frame(macB, macA, 60),
	}
	for range 1000 {
		if draw.IntN(2) == 0 {
			if d := r.send(0, good[draw.IntN(len(good))]); d != tcxRedirect {
				t.Fatalf("a good frame gets %d", d)
			}
		} else if d := r.send(0, bad[draw.IntN(len(bad))]); d != tcxPass {
			t.Fatalf("a bad frame gets %d", d)
		}
	}
}

// What is sent to a port that learns is handed up if it may teach addresses, whoever sends it.
// What may be a query to a station, and comes by a port that no router is behind, is handed up, whether
// the flow is remembered or not.
func TestRouterGuard(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	r.ports[0].RouterGuard = true
	r.publish(r.ports)
	r.learn(1, macA, 0)
	r.learn(1, macB, 1)
	r.onCPU(0)
	ip := func(from, to port.MAC, kind uint16, at int, proto byte) []byte {
		b := frame(to, from, frameLen)
		b[12], b[13] = byte(kind>>8), byte(kind)
		b[at] = proto
		return b
	}
	for _, c := range []struct {
		name string
		wire []byte
		want uint32
	}{
		{"UDP", ip(macA, macB, 0x0800, 23, 17), tcxRedirect},
		{"IGMP", ip(macA, macB, 0x0800, 23, 2), tcxPass},
		{"TCP of IPv6", ip(macA, macB, 0x86dd, 20, 6), tcxRedirect},
		{"hop-by-hop options", ip(macA, macB, 0x86dd, 20, 0), tcxPass},
		{"ARP", ip(macA, macB, 0x0806, 20, 0), tcxRedirect},
		{"IGMP from the other side", ip(macB, macA, 0x0800, 23, 2), tcxRedirect},
	} {
		from := 0
		if c.name == "IGMP from the other side" {
			from = 1
		}
		for range 2 {
			if d := r.send(from, c.wire); d != c.want {
				t.Errorf("%s: %d, want %d", c.name, d, c.want)
			}
		}
	}
	// A tag inside the frame, beside which the kernel has none.
	for tci, want := range map[uint16]uint32{0xe000: tcxPass, 0xe005: tcxRedirect} {
		b := ip(macA, macB, 0x8100, 14, byte(tci>>8))
		b[15] = byte(tci)
		if d := r.execute(&ebpf.RunOptions{Data: b, Context: skb{Ifindex: uint32(r.ports[0].Device.Ifindex())}}); d != want {
			t.Errorf("behind a tag %#x: %d, want %d", tci, d, want)
		}
	}
}

func TestSnoop(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	r.ports[1].Snoop = true
	r.publish(r.ports)
	r.learn(1, macA, 0)
	r.learn(1, macB, 1)
	r.onCPU(0)
	for _, c := range []struct {
		name     string
		wire     []byte
		decision uint32
	}{
		{"UDP", ipv4(17, udpDatagram()), tcxRedirect},
		{"DHCP's ACK", ipv4(17, UDP(67, 68, nil)), tcxPass},
		{"UDP again, from another", Eth(macB, macA, typeIPv4, IPv4("10.0.0.9", "10.0.0.2", 17, udpDatagram())), tcxRedirect},
		{"DHCPv6's reply", ipv6(17, UDP(547, 546, nil)), tcxPass},
		{"ARP", Eth(macB, macA, typeARP, ARP(2, macA, "10.0.0.1", macB, "10.0.0.2")), tcxPass},
		{"extension header", ipv6(60, Extension(17, UDP(547, 546, nil))), tcxPass},
		{"TCP in IPv6", ipv6(6, tcpSegment()), tcxRedirect},
	} {
		for range 2 {
			if d := r.send(0, c.wire); d != c.decision {
				t.Errorf("%s: %d, want %d", c.name, d, c.decision)
			}
		}
	}
}

// At a guarded port a checksum that is left to others is the frame's own: that of a tunnel
// covers bytes that nobody checked.
func TestGuardChecksum(t *testing.T) {
	t.Parallel()
	r := guardedRig(t, tenant())
	from, to := r.plug(t, "vm0"), r.plug(t, "vm1")
	for _, c := range checksummed {
		wire := Bare(macB, macA, c.kind, c.body)
		for start := range len(wire) {
			for _, offset := range []int{4, 6, 16} {
				o := port.Offload{Flags: port.NeedsCsum, CsumStart: uint16(start), CsumOffset: uint16(offset)}
				packet := make([]byte, vnet.HeaderLen, vnet.HeaderLen+len(wire))
				vnet.Encode(packet, o)
				if _, err := unix.Write(from, append(packet, wire...)); err != nil {
					continue // the kernel itself refuses it
				}
				got := len(read(t, to))
				may := vnet.Valid(o, len(wire)) && vnet.PartialOuter(wire, len(wire), o)
				plain := c.kind != 0x8100 && c.kind != typeARP && wire[14] != 0x46 && binary.BigEndian.Uint16(wire[20:])&0x2000 == 0 &&
					(c.kind == typeIPv4 || wire[20] == 6 || wire[20] == 17)
				if got != 0 && !may || got == 0 && may && plain {
					t.Errorf("%s: a checksum at %d+%d: %d frames are sent on, and the switch would: %v", c.name, start, offset, got, may)
				}
			}
		}
	}
	if n := r.path.Counters(0).RX.Dropped[port.DropGuardOffload]; n == 0 {
		t.Error("nothing was dropped in the kernel")
	}
}

// BenchmarkGuardRestore is what a start with 1,000 guarded ports of 16 addresses each takes:
// the kernel gets them all once the ports are restored.
func BenchmarkGuardRestore(b *testing.B) {
	const ports, addresses = 1000, 16
	for b.Loop() {
		r := &rig{t: b, ns: testenv.NewNetns(b)}
		r.open(1024)
		for n := range ports {
			mac := crowdMAC(n)
			g := &vswitch.FastGuard{MACs: []port.MAC{mac}, VLANs: *vlans(1)}
			for i := range addresses {
				g.Senders = append(g.Senders, vswitch.FastSender{VLAN: 1, MAC: mac, Addr: netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), byte(i)})})
			}
			r.path.Guard(uint16(n), g)
			r.ports = append(r.ports, vswitch.FastPort{Number: uint16(n), Device: device{1<<20 + n, true}, From: true, To: true, Guarded: true, PVID: 1, Native: 1, VLANs: vlans(1)})
		}
		r.publish(r.ports)
		start := time.Now()
		r.start()
		b.ReportMetric(float64(time.Since(start).Milliseconds()), "ms/start")
		if n := entries(b, r.path.bpf.Bindings); n != ports*(addresses+1) {
			b.Fatalf("the kernel has %d bindings", n)
		}
	}
}

// What guarded ports may send outlives a process. The next one replaces it once its ports are
// there; until then nothing else is sent on.
func TestTakeOverGuarded(t *testing.T) {
	h := newHost(t)
	other := tenant()
	other.Senders[0].Addr = netip.MustParseAddr("10.0.0.9")
	own, next := ipv4(17, udpDatagram()), Eth(macB, macA, typeIPv4, IPv4("10.0.0.9", "10.0.0.2", 17, udpDatagram()))

	first := h.open(h.taps...)
	first.path.Guard(0, tenant())
	first.ports[0].Guarded = true
	first.publish(first.ports)
	first.start()
	first.learn(1, macA, 0)
	first.learn(1, macB, 1)
	first.want("with the first process", own, tcxRedirect, 0)
	first.want("another's, with the first process", next, tcxDrop, port.DropGuardIPv4)
	first.end()

	second := h.open(h.taps...)
	second.path.Guard(0, other)
	second.ports[0].Guarded = true
	second.publish(second.ports)
	if d := second.send(0, own); d != tcxRedirect {
		t.Errorf("before the second process has its ports: %d", d)
	}
	if d := second.send(0, next); d == tcxRedirect {
		t.Error("before the second process has its ports an address is in force that the first did not know")
	}
	second.start()
	second.want("with the second process", next, tcxRedirect, 0)
	second.want("what the first allowed", own, tcxDrop, port.DropGuardIPv4)
	if n := entries(t, second.path.bpf.Bindings); n != 3 {
		t.Errorf("%d entries, want 3", n)
	}
	second.end()

	third := h.open(h.taps...)
	third.publish(third.ports)
	third.start()
	if n := entries(t, third.path.bpf.Bindings) + entries(t, third.path.bpf.Guards); n != 0 {
		t.Errorf("%d entries are left of a port that is not guarded any more", n)
	}
}
