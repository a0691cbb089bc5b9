package vhostuser

import (
	"encoding/binary"

	"github.com/vswitch/vswitch/port"
)

// rarpLen is the length of the shortest frame (802.3 clause 3.2.8), without FCS.
const rarpLen = 60

// rarp returns the frame that shows bridges a station's new place: a broadcast that
// asks for its own address (RFC 903). Back ends send it for guests that cannot
// (docs/interop/vhost-user.rst, VHOST_USER_SEND_RARP).
func rarp(mac [6]byte) (f [rarpLen]byte) {
	const etherTypeRARP, ethernet, ipv4, requestReverse = 0x8035, 1, 0x0800, 3
	copy(f[0:], port.Broadcast.HardwareAddr())
	copy(f[6:], mac[:])
	for i, v := range []uint16{etherTypeRARP, ethernet, ipv4, 6<<8 | 4, requestReverse} {
		binary.BigEndian.PutUint16(f[12+2*i:], v)
	}
	copy(f[22:], mac[:]) // the sender's address
	copy(f[32:], mac[:]) // the requested one
	return f
}
