package daemon

import (
	"bytes"
	"crypto/sha256"
	"os"

	"github.com/vswitch/vswitch/port"
)

// ownMAC is the address that the switch itself speaks with. It is the same at each
// start, and another for every switch of a network: hosts differ by their machine
// id, the switches of a host by their control sockets.
func ownMAC(socket string) port.MAC {
	// A host without an id is told apart by nothing else that lasts.
	id, _ := os.ReadFile("/etc/machine-id")
	h := sha256.Sum256(append(append([]byte("vswitch\x00"), bytes.TrimSpace(id)...), "\x00"+socket...))
	// A locally administered address of one station (802-2014 clause 8.2.2).
	h[0] = h[0]&^0x03 | 0x02
	return port.MACFrom(h[:])
}
