package vxlan

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/vswitch/vswitch/port"
)

// tunnel is what the ports of this kind have in common, whatever carries their frames:
// sockets (sockets.go) or a device of the kernel (device.go).
type tunnel struct {
	directory
	quit    chan struct{} // closed by Close
	tasks   sync.WaitGroup
	closed  atomic.Bool
	replies replies
	refusal refusal
	sent    atomic.Uint64 // frames, by a device
}

// openTunnel is implemented by the ports of this kind.
type openTunnel interface {
	port.Tunnel
	port.Overrun
	port.Noticer
	set(port.Spec) error
}

func (t *tunnel) init(local netip.Addr, e port.Encapsulation, udpPort uint16) {
	t.quit = make(chan struct{})
	t.directory.init(local, e, udpPort)
}
