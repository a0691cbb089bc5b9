package guard_test

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	. "github.com/vswitch/vswitch/internal/packet/packettest"
	"github.com/vswitch/vswitch/internal/proto/guard"
	"github.com/vswitch/vswitch/port"
)

// FuzzCheck: no frame passes that a receiver, here gopacket, takes for one of another
// station's, of a router's or of a DHCP server's.
func FuzzCheck(f *testing.F) {
	own := func(b []byte) bool {
		a, ok := netip.AddrFromSlice(b)
		return ok && (a == netip.MustParseAddr("10.99.0.10") || a == netip.MustParseAddr("fd99::10") || a == guard.LinkLocal(macA))
	}
	for _, wire := range [][]byte{
		from4(macA, "10.99.0.10"), from6("fd99::10"), garp(macA, "10.99.0.10"), probe(macA, "10.99.0.10"), detect(macA, "fd99::10"),
		request(macA, 1, "10.99.0.10"), Tag(garp(macA, "10.99.0.10"), 0x8100_0000), routerAdvert("fd98::", 60),
		Eth(Broadcast, macA, 0x0800, IPv4("10.99.0.10", "10.99.0.11", 17, UDP(67, 67, make([]byte, 240)))),
		Eth(macV, macA, 0x86dd, ICMPv6("fd99::10", "ff02::1", 136, ND("fd99::10", LinkLayer(2, macA)...))),
		Eth(macV, macA, 0x86dd, IPv6("fd99::10", "fd99::11", 0, Extension(60, Extension(17, UDP(546, 547, []byte{1, 0, 0, 0}))))),
		Eth(macV, macA, 0x86dd, IPv6("fd99::10", "fd99::11", 44, Fragment(17, 0, true, UDP(1, 2, make([]byte, 8))))),
		Eth(macV, macA, 0x0806, ARP(2, macA, "10.99.0.10", macV, "10.99.0.11")),
	} {
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		c := with(guard.Config{Addresses: addresses("10.99.0.10", "fd99::10")}, macA)
		table := guard.New(func() time.Time { return time.Unix(1_800_000_000, 0) }, nil)
		p := table.Guard(1, "vm0", c)
		frame := new(port.Frame)
		frame.SetWire(bytes.Clone(wire))
		frame.VLAN = 1
		if frame.Drop != port.DropNone {
			return
		}
		frame.Opaque = frame.Tag.Present() // as at a transparent port
		dry := p.Why(frame, port.DropNone)
		why := p.Check(frame, port.DropNone)
		if dry != why {
			t.Fatalf("%v, and without effect %v", why, dry)
		}
		_ = table.Watch().Check(frame, port.DropNone)
		if why != port.DropNone {
			return
		}
		packet := gopacket.NewPacket(wire, layers.LayerTypeEthernet, gopacket.Default)
		claims := false
		for _, l := range packet.Layers() {
			switch l := l.(type) {
			case *layers.GRE, *layers.EtherIP:
				return // a packet in a packet
			case *layers.Ethernet:
				if !bytes.Equal(l.SrcMAC, macA.HardwareAddr()) {
					t.Fatalf("from %v", l.SrcMAC)
				}
			case *layers.Dot1Q:
				if l.VLANIdentifier != 0 {
					t.Fatalf("in VLAN %d", l.VLANIdentifier)
				}
			case *layers.ARP:
				nobody := bytes.Equal(l.SourceProtAddress, make([]byte, 4))
				if !bytes.Equal(l.SourceHwAddress, macA.HardwareAddr()) || !own(l.SourceProtAddress) && !(nobody && own(l.DstProtAddress)) && l.Operation < 3 {
					t.Fatalf("ARP %+v", l)
				}
			case *layers.IPv4:
				if claims || l.SrcIP == nil {
					return // a packet in a packet, or options that gopacket gives up at
				}
				if claims = true; !own(l.SrcIP) && (!l.SrcIP.IsUnspecified() || l.Protocol != layers.IPProtocolUDP && l.Protocol != layers.IPProtocolIGMP) {
					t.Fatalf("from %v", l.SrcIP)
				}
			case *layers.IPv6:
				if claims {
					return
				}
				if claims = true; !own(l.SrcIP) && !l.SrcIP.IsUnspecified() {
					t.Fatalf("from %v", l.SrcIP)
				}
			case *layers.UDP:
				if l.DstPort == 68 || l.DstPort == 546 || l.SrcPort == 67 || l.SrcPort == 547 {
					t.Fatalf("a DHCP server's: %+v", l)
				}
				return
			case *layers.TCP:
				return
			case *layers.ICMPv4:
				if kind := l.TypeCode.Type(); kind == 5 || kind == 9 {
					t.Fatalf("a router's: %v", l.TypeCode)
				}
				return
			case *layers.ICMPv6RouterAdvertisement, *layers.ICMPv6Redirect:
				t.Fatalf("a router's: %+v", l)
			case *layers.ICMPv6NeighborAdvertisement:
				if !own(l.TargetAddress) {
					t.Fatalf("for %v", l.TargetAddress)
				}
				for _, o := range l.Options {
					if (o.Type == layers.ICMPv6OptTargetAddress || o.Type == layers.ICMPv6OptSourceAddress) && !bytes.Equal(o.Data, macA.HardwareAddr()) {
						t.Fatalf("with the MAC %x", o.Data)
					}
				}
			case *layers.ICMPv6NeighborSolicitation:
				for _, o := range l.Options {
					if o.Type == layers.ICMPv6OptSourceAddress && !bytes.Equal(o.Data, macA.HardwareAddr()) {
						t.Fatalf("with the MAC %x", o.Data)
					}
				}
			}
		}
	})
}
