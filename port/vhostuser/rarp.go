package vhostuser

import (
	"encoding/binary"

	"github.com/vswitch/vswitch/port"
)

// rarpLen is the shortest frame (802.3 clause 3.2.8), without FCS.
const rarpLen = 60

// rarp is the frame by which bridges learn where a station is now: a broadcast that asks
// for its own address (RFC 903). Back ends send it for guests that cannot
// (docs/interop/vhost-user.rst, VHOST_USER_SEND_RARP).
func rarp(mac [6]byte) (f [rarpLen]byte) {
	const etherTypeRARP, ethernet, ipv4, requestReverse = 0x8035, 1, 0x0800, 3
	b := append(f[:0], port.Broadcast.HardwareAddr()...)
	b = append(b, mac[:]...)
	for _, v := range []uint16{etherTypeRARP, ethernet, ipv4, 6<<8 | 4, requestReverse} {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	b = append(append(b, mac[:]...), 0, 0, 0, 0)
	b = append(b, mac[:]...)
	return f
}
