package vnet_test

import (
	"encoding/binary"
	"slices"

	"github.com/vswitch/vswitch/port"
)

const (
	protoTCP, protoUDP                        = 6, 17
	protoHopByHop, protoRouting, protoDestOpt = 0, 43, 60
)

// superFrame is a frame as a guest with offloads sends it. Its parts lie where it says,
// so that tests need not find them as the code under test does.
type superFrame struct {
	tags []port.Tag // inline, before the IP header

	v6      bool
	options []byte   // IPv4 options
	ext     []uint8  // IPv6 extension headers, by protocol number, in order
	last    [16]byte // the last destination, where ext has a routing header
	dfFlags uint16   // the IPv4 word with flags and fragment offset
	id      uint16

	proto      uint8
	tcpOptions []byte
	seq        uint32
	flags      uint8

	payload []byte
}

// l3, l4 and head are where the IP header, the transport header and the payload begin.
func (f *superFrame) l3() int { return 14 + 4*len(f.tags) }

func (f *superFrame) l4() int {
	if f.v6 {
		return f.l3() + 40 + 8*len(f.ext) + 16*f.routings()
	}
	return f.l3() + 20 + len(f.options)
}

func (f *superFrame) head() int {
	if f.proto == protoTCP {
		return f.l4() + 20 + len(f.tcpOptions)
	}
	return f.l4() + 8
}

func (f *superFrame) routings() (n int) {
	for _, p := range f.ext {
		if p == protoRouting {
			n++
		}
	}
	return n
}

func (f *superFrame) csumAt() int {
	if f.proto == protoTCP {
		return f.l4() + 16
	}
	return f.l4() + 6
}

// pseudo is the sum of the pseudo header for a transport header and payload of n bytes.
func (f *superFrame) pseudo(n int) uint16 {
	b := binary.BigEndian.AppendUint32(nil, uint32(n))
	b = append(b, 0, f.proto)
	if !f.v6 {
		return slowSum(append(b, 10, 1, 2, 3, 10, 4, 5, 6))
	}
	b = append(b, addr6(1)...)
	if f.routings() > 0 {
		return slowSum(append(b, f.last[:]...))
	}
	return slowSum(append(b, addr6(2)...))
}

func addr6(last byte) []byte {
	return []byte{0xfd, 0, 0xbe, 0xef, 0, 0, 0, 0, 0, 0, 0, 0, 0xca, 0xfe, 0, last}
}

// build makes the bytes, with the partial checksum that a guest leaves.
func (f *superFrame) build() []byte {
	b := []byte("\x52\x54\x00\x00\x00\x02\x52\x54\x00\x00\x00\x01")
	for _, tag := range f.tags {
		b = binary.BigEndian.AppendUint32(b, uint32(tag))
	}
	n := f.head() - f.l4() + len(f.payload)
	if f.v6 {
		chain := append(slices.Clone(f.ext), f.proto)
		b = append(b, 0x86, 0xdd, 0x6a, 0xbc, 0xde, 0xf0)
		b = binary.BigEndian.AppendUint16(b, uint16(f.l4()-f.l3()-40+n))
		b = append(b, chain[0], 64)
		b = append(append(b, addr6(1)...), addr6(2)...)
		for i, p := range f.ext {
			if p == protoRouting {
				// Type 4, one segment left; the last address comes first (RFC 8754).
				b = append(append(b, chain[i+1], 2, 4, 1, 0, 0, 0, 0), f.last[:]...)
			} else {
				b = append(b, chain[i+1], 0, 1, 4, 0, 0, 0, 0) // PadN
			}
		}
	} else {
		b = append(b, 0x08, 0x00, byte(0x45+len(f.options)/4), 0xb8)
		b = binary.BigEndian.AppendUint16(b, uint16(f.l4()-f.l3()+n))
		b = binary.BigEndian.AppendUint16(b, f.id)
		b = binary.BigEndian.AppendUint16(b, f.dfFlags)
		b = append(b, 64, f.proto, 0, 0, 10, 1, 2, 3, 10, 4, 5, 6)
		b = append(b, f.options...)
		binary.BigEndian.PutUint16(b[f.l3()+10:], ^slowSum(b[f.l3():]))
	}
	b = append(b, 0x04, 0xd2, 0x16, 0x2e) // ports
	if f.proto == protoTCP {
		b = binary.BigEndian.AppendUint32(b, f.seq)
		b = append(b, 1, 2, 3, 4, byte(0x50+len(f.tcpOptions)*4), f.flags, 0xff, 0xff)
		b = append(b, 0, 0, 0, 0)
		b = append(b, f.tcpOptions...)
	} else {
		b = binary.BigEndian.AppendUint16(b, uint16(n))
		b = append(b, 0, 0)
	}
	b = append(b, f.payload...)
	binary.BigEndian.PutUint16(b[f.csumAt():], f.pseudo(n))
	return b
}

// offload is the header that goes with build: segments of size bytes.
func (f *superFrame) offload(gso uint8, size int) port.Offload {
	return port.Offload{
		Flags: port.NeedsCsum, GSOType: gso, GSOSize: uint16(size), HdrLen: uint16(f.head()),
		CsumStart: uint16(f.l4()), CsumOffset: uint16(f.csumAt() - f.l4()),
	}
}

// tso is the segmentation type for the frame's TCP.
func (f *superFrame) tso() uint8 {
	if f.v6 {
		return port.GSOTCPv6
	}
	return port.GSOTCPv4
}

// pattern is a payload that repeats only after a prime number of bytes.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}
