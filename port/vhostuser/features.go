package vhostuser

import (
	"github.com/vswitch/vswitch/internal/virtio/vhost"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// Features of a network device (virtio 1.2, 5.1.3).
const (
	netCsum          = 1 << 0
	netGuestCsum     = 1 << 1
	netMTU           = 1 << 3
	netGuestTSO4     = 1 << 7
	netGuestTSO6     = 1 << 8
	netGuestECN      = 1 << 9
	netGuestUFO      = 1 << 10
	netHostTSO4      = 1 << 11
	netHostTSO6      = 1 << 12
	netHostECN       = 1 << 13
	netHostUFO       = 1 << 14
	netMrgRxBuf      = 1 << 15
	netCtrlVQ        = 1 << 17
	netCtrlRx        = 1 << 18
	netGuestAnnounce = 1 << 21
	netMQ            = 1 << 22
	netGuestUSO4     = 1 << 54
	netGuestUSO6     = 1 << 55
	netHostUSO       = 1 << 56

	// offered are the features that the port has, or that the front end has and needs
	// permission to offer: the control queue is the front end's own.
	offered = netCsum | netGuestCsum | netMTU | netGuestTSO4 | netGuestTSO6 | netGuestECN | netGuestUFO |
		netHostTSO4 | netHostTSO6 | netHostECN | netHostUFO | netMrgRxBuf | netCtrlVQ | netCtrlRx |
		netGuestAnnounce | netMQ | netGuestUSO4 | netGuestUSO6 | netHostUSO
)

// capsOf returns the work that a guest accepts undone.
func capsOf(features uint64) (c port.Caps) {
	for _, f := range []struct {
		bits uint64
		cap  port.Caps
	}{
		{netGuestCsum, port.CapCsum},
		{netGuestCsum | netGuestTSO4, port.CapTSO4},
		{netGuestCsum | netGuestTSO6, port.CapTSO6},
		{netGuestCsum | netGuestECN, port.CapTSOECN},
		{netGuestCsum | netGuestUFO, port.CapUFO},
		{netGuestCsum | netGuestUSO4 | netGuestUSO6, port.CapUSO},
	} {
		if features&f.bits == f.bits {
			c |= f.cap
		}
	}
	return c
}

// layout describes how frames lie in the guest's buffers.
type layout struct {
	header int  // length of the virtio-net header
	merge  bool // a frame may span several chains of the receive queue
}

// maxHeader is the longest header: with num_buffers.
const maxHeader = vnet.HeaderLen + 2

func layoutOf(features uint64) layout {
	l := layout{header: vnet.HeaderLen, merge: features&netMrgRxBuf != 0}
	if features&(netMrgRxBuf|vhost.FeatureVersion1) != 0 {
		l.header = maxHeader
	}
	return l
}
