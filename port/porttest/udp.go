package porttest

import (
	"encoding/binary"

	"github.com/vswitch/vswitch/port"
)

// udp4 makes an IPv4 UDP frame of size bytes with a partial checksum, and the
// offload header that says so.
func udp4(size int) ([]byte, port.Offload) {
	b := body(0, size)
	binary.BigEndian.PutUint16(b[12:], 0x0800)
	ip, udp := b[14:34], b[34:]
	clear(ip)
	clear(udp[:8])
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(size-14))
	copy(ip[12:], []byte{192, 0, 2, 1, 192, 0, 2, 2})
	binary.BigEndian.PutUint16(ip[10:], ^fold(sum(0, ip)))
	binary.BigEndian.PutUint16(udp, 4000)
	binary.BigEndian.PutUint16(udp[2:], 4001)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	binary.BigEndian.PutUint16(udp[6:], fold(pseudo(b)))
	return b, port.Offload{Flags: port.NeedsCsum, CsumStart: 34, CsumOffset: 6}
}

// completeUDP4 does what udp4 left (RFC 768).
func completeUDP4(b []byte) {
	binary.BigEndian.PutUint16(b[40:], 0)
	binary.BigEndian.PutUint16(b[40:], ^fold(sum(pseudo(b), b[34:])))
}

// pseudo sums the pseudo header of RFC 768.
func pseudo(b []byte) uint32 {
	return sum(17+uint32(len(b)-34), b[26:34])
}

func sum(s uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
