package afpacket

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// Mark is the tag that a program at the device's ingress puts in front of a frame that it
// punts. Sockets for all EtherTypes receive frames before that program runs, sockets
// bound to one EtherType after it (net/core/dev.c, __netif_receive_skb_core); the tag
// gives all punted frames one EtherType. VLAN 4095 is reserved (802.1Q-2018 table 9-2).
var Mark = port.MakeTag(port.TPIDService, 0xfff)

// bind makes the socket receive a device's frames: all, or only punted ones.
func (r *receiver) bind(ifindex int, punted bool) error {
	return unix.Bind(r.fd, &unix.SockaddrLinklayer{Protocol: protocol(punted), Ifindex: ifindex})
}

// protocol returns the EtherType that a socket receives, in network byte order.
func protocol(punted bool) uint16 {
	p := uint16(unix.ETH_P_ALL)
	if punted {
		p = Mark.TPID()
	}
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, p))
}

// isMarked reports whether f begins with the mark. The kernel removes the outer tag from
// every frame that comes from outside, so a marked frame was punted.
func isMarked(f *port.Frame) bool {
	return !f.Tag.Present() && len(f.Data) >= port.HeaderLen+4 && binary.BigEndian.Uint32(f.Data[12:]) == uint32(Mark)
}

// unmark removes the mark, and then the tag that the frame came with, which the mark
// pushed inline. o describes the frame before, the result the frame after; ok is false
// if o contradicts the frame.
func unmark(f *port.Frame, o port.Offload) (_ port.Offload, ok bool) {
	b := f.Data
	copy(b[4:16], b[:12])
	f.SetWire(b[4:])
	if o, ok = vnet.Untag(o); ok && f.Tag.Present() {
		o, ok = vnet.Untag(o)
	}
	return o, ok
}
