package trace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/port"
)

// typeExperimental is the EtherType of local experiments (802-2014 clause 9.2.4).
const typeExperimental uint16 = 0x88b5

// minFrame is the least length of a frame without FCS (802.3 clause 3.2.8).
const minFrame = 60

// build makes a frame that is what words say: nothing, or arp, icmp, tcp or udp, which two
// addresses may follow. VLAN 0 is no tag.
func build(from, to port.MAC, vlan uint16, words []string) ([]byte, error) {
	b := append(to.HardwareAddr(), from.HardwareAddr()...)
	if vlan != 0 {
		b = binary.BigEndian.AppendUint32(b, uint32(port.MakeTag(port.TPIDCustomer, vlan)))
	}
	if len(words) == 0 {
		return padded(binary.BigEndian.AppendUint16(b, typeExperimental)), nil
	}
	if len(words) != 1 && len(words) != 3 {
		return nil, fmt.Errorf("after %s come two addresses, as in: arp 10.0.0.1 10.0.0.2", words[0])
	}
	src, dst := netip.MustParseAddrPort("192.0.2.1:4000"), netip.MustParseAddrPort("192.0.2.2:80")
	if len(words) == 3 {
		var err error
		if src, err = address(words[1], 4000); err == nil {
			dst, err = address(words[2], 80)
		}
		if err == nil && src.Addr().Is4() != dst.Addr().Is4() {
			err = errors.New("one of the addresses is of IPv4, the other of IPv6")
		}
		if err != nil {
			return nil, err
		}
	}
	switch words[0] {
	case "arp":
		if !src.Addr().Is4() {
			return nil, errors.New("arp is for IPv4 addresses; use icmp for IPv6 ones")
		}
		b = binary.BigEndian.AppendUint16(b, eth.TypeARP)
		b = append(b, 0, 1, 8, 0, 6, 4, 0, 1)
		b = append(append(b, from.HardwareAddr()...), src.Addr().AsSlice()...)
		return padded(append(append(b, 0, 0, 0, 0, 0, 0), dst.Addr().AsSlice()...)), nil
	case "icmp":
		if src.Addr().Is4() {
			return padded(appendIP(b, src, dst, 1, []byte{8, 0, 0, 0, 0, 1, 0, 1})), nil
		}
		return padded(appendIP(b, src, dst, 58, []byte{128, 0, 0, 0, 0, 1, 0, 1})), nil
	case "tcp":
		h := make([]byte, 20)
		h[12], h[13] = 5<<4, 2 // a SYN
		return padded(appendIP(b, src, dst, eth.ProtoTCP, withPorts(h, src, dst))), nil
	case "udp":
		h := make([]byte, 8)
		h[5] = 8
		return padded(appendIP(b, src, dst, eth.ProtoUDP, withPorts(h, src, dst))), nil
	}
	return nil, fmt.Errorf("%q is no frame; write arp, icmp, tcp or udp, and two addresses if they matter", words[0])
}

// address reads ADDRESS or ADDRESS:PORT.
func address(text string, usual uint16) (netip.AddrPort, error) {
	if a, err := netip.ParseAddrPort(text); err == nil && a.Addr().Zone() == "" {
		return a, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.AddrPort{}, fmt.Errorf("%q is no address; write it as 10.0.0.1, or 10.0.0.1:80 with a port", text)
	}
	return netip.AddrPortFrom(a, usual), nil
}

func withPorts(h []byte, src, dst netip.AddrPort) []byte {
	binary.BigEndian.PutUint16(h, src.Port())
	binary.BigEndian.PutUint16(h[2:], dst.Port())
	return h
}

// appendIP appends an IP packet with its EtherType. Its checksums are not computed: the switch
// looks at none.
func appendIP(b []byte, src, dst netip.AddrPort, proto uint8, payload []byte) []byte {
	if src.Addr().Is4() {
		b = binary.BigEndian.AppendUint16(b, eth.TypeIPv4)
		b = append(b, 0x45, 0, 0, byte(eth.IPv4HeaderLen+len(payload)), 0, 0, 0, 0, 64, proto, 0, 0)
	} else {
		b = binary.BigEndian.AppendUint16(b, eth.TypeIPv6)
		b = append(b, 0x60, 0, 0, 0, 0, byte(len(payload)), proto, 64)
	}
	b = append(append(b, src.Addr().AsSlice()...), dst.Addr().AsSlice()...)
	return append(b, payload...)
}

// padded returns b with zeros up to the least length of a frame.
func padded(b []byte) []byte { return append(b, make([]byte, max(0, minFrame-len(b)))...) }
