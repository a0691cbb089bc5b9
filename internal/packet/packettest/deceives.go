package packettest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/vswitch/vswitch/port"
)

// Deceives returns how a frame would deceive a host that believes all of it, or "": it passes for
// one of another station than that with this MAC and these addresses, for a router's, or for a
// DHCP server's. gopacket reads the frame, as far as it looks into fragments; what is inside of
// tunnels is not looked at.
func Deceives(wire []byte, mac port.MAC, addresses ...string) string {
	own := func(b []byte) bool {
		a, ok := netip.AddrFromSlice(b)
		return ok && slices.ContainsFunc(addresses, func(text string) bool { return netip.MustParseAddr(text) == a })
	}
	isMAC := func(b []byte) bool { return bytes.Equal(b, mac.HardwareAddr()) }
	nobody := make([]byte, 4)
	packets, v6, to := 0, false, layers.UDPPort(0)
	for _, l := range gopacket.NewPacket(trimmed(wire), layers.LayerTypeEthernet, gopacket.Default).Layers() {
		switch l := l.(type) {
		case *layers.GRE, *layers.EtherIP:
			return ""
		case *layers.Ethernet:
			switch {
			case !isMAC(l.SrcMAC):
				return fmt.Sprint("from ", l.SrcMAC)
			case l.EthernetType == 0x8035 && len(l.Payload) >= 28 && (!isMAC(l.Payload[8:14]) || !bytes.Equal(l.Payload[14:18], nobody)):
				return fmt.Sprintf("RARP %x", l.Payload)
			}
		case *layers.LLC, *layers.SNAP:
			return "SNAP"
		case *layers.Dot1Q:
			if l.VLANIdentifier != 0 {
				return fmt.Sprint("in VLAN ", l.VLANIdentifier)
			}
		case *layers.ARP:
			probe := l.Operation == 1 && bytes.Equal(l.SourceProtAddress, nobody) && own(l.DstProtAddress)
			if !isMAC(l.SourceHwAddress) || !own(l.SourceProtAddress) && !probe {
				return fmt.Sprintf("ARP %+v", l)
			}
		case *layers.IPv4:
			if packets++; packets > 1 || l.SrcIP == nil {
				return "" // a packet in a packet, or options that gopacket gives up at
			}
			if !own(l.SrcIP) && (!l.SrcIP.IsUnspecified() || l.Protocol != layers.IPProtocolUDP && l.Protocol != layers.IPProtocolIGMP) {
				return fmt.Sprint("from ", l.SrcIP)
			}
			if l.FragOffset == 0 {
				if why := byRole(uint8(l.Protocol), l.Payload, false); why != "" {
					return why
				}
			}
		case *layers.IPv6:
			if packets++; packets > 1 {
				return ""
			}
			v6 = true
			if !own(l.SrcIP) && !l.SrcIP.IsUnspecified() {
				return fmt.Sprint("from ", l.SrcIP)
			}
		case *layers.IPv6Fragment:
			if v6 && l.FragmentOffset == 0 {
				return inFragment(uint8(l.NextHeader), l.Payload)
			}
			return ""
		case *layers.UDP:
			to = l.DstPort
			if why := byRole(17, l.Contents, v6); why != "" {
				return why
			}
		case *layers.DHCPv4:
			if to != 67 || v6 {
				return "" // gopacket looks at the other port, too
			}
			if l.Operation != layers.DHCPOpRequest || !isMAC(l.ClientHWAddr) || !l.RelayAgentIP.IsUnspecified() || !l.ClientIP.IsUnspecified() && !own(l.ClientIP.To4()) {
				return fmt.Sprintf("DHCP %x", l.Contents)
			}
			for _, o := range l.Options {
				if o.Type == 82 || o.Type == 61 && len(o.Data) == 7 && o.Data[0] == 1 && !isMAC(o.Data[1:]) {
					return fmt.Sprint("DHCP with ", o)
				}
			}
		case *layers.DHCPv6:
			if to == 547 && v6 && slices.Contains([]layers.DHCPv6MsgType{2, 7, 10, 12, 13}, l.MsgType) {
				return fmt.Sprint("DHCPv6 ", l.MsgType)
			}
		case *layers.TCP, *layers.IPSecESP:
			return ""
		case *layers.ICMPv6:
			if !v6 {
				return "" // gopacket looks for it in IPv4, too
			}
			if why := byRole(58, l.Contents, v6); why != "" {
				return why
			}
		case *layers.ICMPv6NeighborAdvertisement:
			if !own(l.TargetAddress) {
				return fmt.Sprint("advertisement of ", l.TargetAddress)
			}
			if why := options(l.Options, isMAC); why != "" {
				return why
			}
		case *layers.ICMPv6NeighborSolicitation:
			if why := options(l.Options, isMAC); why != "" {
				return why
			}
		case *layers.ICMPv6RouterSolicitation:
			if why := options(l.Options, isMAC); why != "" {
				return why
			}
		}
	}
	return ""
}

// trimmed returns a frame without what follows its IPv6 packet: gopacket takes that for a part of
// a packet that begins with a hop-by-hop header.
func trimmed(wire []byte) []byte {
	at := port.HeaderLen
	for len(wire) >= at && slices.Contains([]uint16{0x8100, 0x88a8}, binary.BigEndian.Uint16(wire[at-2:])) {
		at += 4
	}
	if len(wire) >= at+40 && binary.BigEndian.Uint16(wire[at-2:]) == 0x86dd {
		if end := at + 40 + int(binary.BigEndian.Uint16(wire[at+4:])); end > at+40 && end < len(wire) {
			return wire[:end]
		}
	}
	return wire
}

// options returns what is wrong with options of neighbour discovery.
func options(all layers.ICMPv6Options, isMAC func([]byte) bool) string {
	for _, o := range all {
		if (o.Type == layers.ICMPv6OptTargetAddress || o.Type == layers.ICMPv6OptSourceAddress) && !isMAC(o.Data) {
			return fmt.Sprintf("with the MAC %x", o.Data)
		}
	}
	return ""
}

// byRole returns the role of whoever sends an upper layer, if it is a router's or a server's.
func byRole(proto uint8, upper []byte, v6 bool) string {
	kind, from, to := -1, uint16(0), uint16(0)
	if len(upper) >= 1 {
		kind = int(upper[0])
	}
	if len(upper) >= 4 {
		from, to = binary.BigEndian.Uint16(upper), binary.BigEndian.Uint16(upper[2:])
	}
	switch {
	case proto == 17 && !v6 && (to == 68 || from == 67), proto == 17 && v6 && (to == 546 || from == 547):
		return fmt.Sprintf("a DHCP server's: UDP from %d to %d", from, to)
	case proto == 1 && !v6 && (kind == 5 || kind == 9), proto == 2 && !v6 && (kind == 0x11 || kind >= 0x30 && kind <= 0x32),
		proto == 58 && v6 && slices.Contains([]int{130, 134, 137, 138, 146, 147, 149, 151, 152, 153}, kind), proto == 103, proto == 112:
		return fmt.Sprintf("a router's: protocol %d, type %d", proto, kind)
	}
	return ""
}

// inFragment returns what is wrong with a first fragment.
func inFragment(next uint8, b []byte) string {
	for slices.Contains([]uint8{0, 43, 60, 135, 139, 140, 51}, next) {
		if len(b) < 2 {
			return "a fragment without an upper layer"
		}
		n := 8 * (int(b[1]) + 1)
		if next == 51 {
			n = 4 * (int(b[1]) + 2)
		}
		if n > len(b) {
			return "a fragment without an upper layer"
		}
		next, b = b[0], b[n:]
	}
	switch {
	case next == 58 && (len(b) == 0 || b[0] >= 130 && b[0] <= 137 || b[0] == 143 || b[0] >= 148 && b[0] <= 149 || b[0] >= 151 && b[0] <= 153):
		return fmt.Sprintf("ICMPv6 in fragments: %x", b)
	case next == 44, next == 17 && len(b) < 8:
		return "a fragment without an upper layer"
	}
	return byRole(next, b, true)
}
