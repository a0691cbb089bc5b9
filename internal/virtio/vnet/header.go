// Package vnet handles the virtio-net header (virtio 1.2, 5.1.6): its encoding, whether
// it fits its frame, and how it changes with a VLAN tag. It also does what the header
// leaves undone, checksums and segmentation, for ports that cannot. It allocates
// nothing and does no I/O; port kinds call it from their workers.
package vnet

import (
	"encoding/binary"

	"github.com/vswitch/vswitch/port"
)

// HeaderLen is the length of the header without num_buffers, in bytes, as
// AF_PACKET and TAP devices use it (struct virtio_net_hdr).
const HeaderLen = 10

// Decode reads the header in the first HeaderLen bytes of b, in host byte order, the
// default of the kernel's devices (see TUNSETVNETLE).
func Decode(b []byte) port.Offload {
	_ = b[HeaderLen-1]
	return port.Offload{
		Flags:      b[0],
		GSOType:    b[1],
		HdrLen:     binary.NativeEndian.Uint16(b[2:]),
		GSOSize:    binary.NativeEndian.Uint16(b[4:]),
		CsumStart:  binary.NativeEndian.Uint16(b[6:]),
		CsumOffset: binary.NativeEndian.Uint16(b[8:]),
	}
}

// Encode writes the header to the first HeaderLen bytes of b, in host byte order.
func Encode(b []byte, o port.Offload) {
	_ = b[HeaderLen-1]
	b[0], b[1] = o.Flags, o.GSOType
	binary.NativeEndian.PutUint16(b[2:], o.HdrLen)
	binary.NativeEndian.PutUint16(b[4:], o.GSOSize)
	binary.NativeEndian.PutUint16(b[6:], o.CsumStart)
	binary.NativeEndian.PutUint16(b[8:], o.CsumOffset)
}

// tagLen is the length of a VLAN tag.
const tagLen = 4

// Untag returns o for the frame after its outer tag was removed. ok is false if the
// checksum's coverage begins inside the tag.
func Untag(o port.Offload) (_ port.Offload, ok bool) {
	if o.Flags&port.NeedsCsum != 0 {
		if o.CsumStart < port.HeaderLen+tagLen {
			return o, false
		}
		o.CsumStart -= tagLen
	}
	if o.HdrLen >= tagLen {
		o.HdrLen -= tagLen
	}
	return o, true
}

// Tag returns o for the frame after n bytes of tags were inserted.
func Tag(o port.Offload, n int) port.Offload {
	if o.Flags&port.NeedsCsum != 0 {
		o.CsumStart += uint16(n)
	}
	if o.HdrLen != 0 {
		o.HdrLen += uint16(n)
	}
	return o
}

// maxCsumStart leaves room in the field for two inserted tags.
const maxCsumStart = 0xffff - 2*tagLen

// gsoByFrags is a segment size with another meaning inside the kernel (GSO_BY_FRAGS in
// include/linux/skbuff.h), which therefore refuses it.
const gsoByFrags = 0xffff

// Valid reports whether o fits a frame of n bytes: a known segmentation type with a
// size, and a checksum that lies inside the frame, where the type's protocol has it. An
// invalid header must not be passed on: the kernel refuses it
// (include/linux/virtio_net.h), but a guest may trust it.
func Valid(o port.Offload, n int) bool {
	needsCsum := o.Flags&port.NeedsCsum != 0
	if needsCsum {
		start := int(o.CsumStart)
		if start < port.HeaderLen || start > maxCsumStart || start+int(o.CsumOffset)+2 > n {
			return false
		}
	}
	if o.GSOType == port.GSONone {
		return true
	}
	if o.GSOSize == 0 || o.GSOSize == gsoByFrags {
		return false
	}
	switch o.GSOType {
	case port.GSOTCPv4, port.GSOTCPv6, port.GSOTCPv4 | port.GSOECN, port.GSOTCPv6 | port.GSOECN:
		return !needsCsum || o.CsumOffset == tcpCsum
	case port.GSOUDP:
		return !needsCsum || o.CsumOffset == udpCsum
	case port.GSOUDPL4:
		return needsCsum && o.CsumOffset == udpCsum
	}
	return false // ECN without a TCP type has no meaning
}
