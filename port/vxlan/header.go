package vxlan

import (
	"cmp"
	"encoding/binary"

	"github.com/vswitch/vswitch/port"
)

// Encapsulation is the header of a port's packets. Empty is inVXLAN.
type Encapsulation string

// The encapsulations.
const (
	inVXLAN  Encapsulation = "vxlan"
	inGeneve Encapsulation = "geneve"
)

// Values implements setting.Enum.
func (Encapsulation) Values() []string { return []string{string(inVXLAN), string(inGeneve)} }

// kind returns the kernel's name for it.
func (e Encapsulation) kind() string { return string(cmp.Or(e, inVXLAN)) }

// number returns the encapsulation as other packages know it.
func (e Encapsulation) number() port.Encapsulation {
	if e == inGeneve {
		return port.Geneve
	}
	return port.VXLAN
}

// udpPort returns the port that IANA assigned.
func (e Encapsulation) udpPort() uint16 {
	if e == inGeneve {
		return 6081 // RFC 8926 section 3.3
	}
	return 4789 // RFC 7348 section 5
}

// headerLen is the length of a header in bytes, without Geneve's options. Both begin with four bytes that say
// what it is; then come the 24 bits of the VNI and 8 reserved ones (RFC 7348 section 5, RFC 8926
// section 3.4).
const headerLen = 8

// Parts of a header's first four bytes.
const (
	vxlanVNI      = 0x08 << 24 // the header has a VNI
	vxlanProtocol = 0x04 << 24 // what follows need not be Ethernet (VXLAN-GPE, draft-ietf-nvo3-vxlan-gpe)

	geneveVersion  = 0xc0 << 24
	geneveOptions  = 0x3f // in the first byte: their length, in four bytes each
	geneveControl  = 0x80 << 16
	geneveCritical = 0x40 << 16 // who does not know all options must drop the packet
	geneveEthernet = 0x6558     // what follows, in the last two bytes
)

// putHeader writes the header of a network to b.
func putHeader(b []byte, e port.Encapsulation, vni uint32) {
	_ = b[headerLen-1]
	first := uint32(vxlanVNI)
	if e == port.Geneve {
		first = geneveEthernet
	}
	binary.BigEndian.PutUint32(b, first)
	binary.BigEndian.PutUint32(b[4:], vni<<8)
}

// parseHeader returns the network and the frame of a datagram; ok is false if it is no
// Ethernet frame in a network. Reserved bits do not matter, nor do options that are not critical.
func parseHeader(b []byte, e port.Encapsulation) (vni uint32, frame []byte, ok bool) {
	if len(b) < headerLen {
		return 0, b, false
	}
	first, length := binary.BigEndian.Uint32(b), headerLen
	if e == port.Geneve {
		length += int(b[0]&geneveOptions) * 4
		ok = first&(geneveVersion|geneveControl|geneveCritical|0xffff) == geneveEthernet && len(b) >= length
	} else {
		ok = first&(vxlanVNI|vxlanProtocol) == vxlanVNI
	}
	if !ok {
		return 0, b, false
	}
	return binary.BigEndian.Uint32(b[4:]) >> 8, b[length:], true
}
