package vxlan

import "encoding/binary"

// headerLen is the length of the VXLAN header in bytes (RFC 7348 section 5): flags, 24
// reserved bits, the VNI, 8 reserved bits.
const headerLen = 8

// Flags of the first byte.
const (
	flagVNI      = 0x08 // the header has a VNI
	flagProtocol = 0x04 // what follows need not be Ethernet (VXLAN-GPE, draft-ietf-nvo3-vxlan-gpe)
)

// putHeader writes the header of a network to b.
func putHeader(b []byte, vni uint32) {
	_ = b[headerLen-1]
	b[0], b[1], b[2], b[3] = flagVNI, 0, 0, 0
	binary.BigEndian.PutUint32(b[4:], vni<<8)
}

// parseHeader returns the network and the frame of a datagram; ok is false if it is no
// Ethernet frame in a network. Reserved bits do not matter.
func parseHeader(b []byte) (vni uint32, frame []byte, ok bool) {
	if len(b) < headerLen || b[0]&(flagVNI|flagProtocol) != flagVNI {
		return 0, b, false
	}
	return binary.BigEndian.Uint32(b[4:]) >> 8, b[headerLen:], true
}
