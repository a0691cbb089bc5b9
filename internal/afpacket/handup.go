package afpacket

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/vnet"
	"github.com/vswitch/vswitch/port"
)

// Mark is the tag in front of a frame that a program at the device's ingress hands up.
// Sockets for all EtherTypes are given frames before that program, those bound to one
// after it (net/core/dev.c, __netif_receive_skb_core); with the tag all that is handed
// up has one EtherType. VLAN 4095 is reserved (802.1Q-2018 table 9-2).
var Mark = port.MakeTag(port.TPIDService, 0xfff)

// bind has the socket take a device's frames: all, or those handed up.
func (r *receiver) bind(ifindex int, handedUp bool) error {
	protocol := uint16(unix.ETH_P_ALL)
	if handedUp {
		protocol = Mark.TPID()
	}
	return unix.Bind(r.fd, &unix.SockaddrLinklayer{
		Protocol: binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, protocol)),
		Ifindex:  ifindex,
	})
}

// SetHandedUp changes Config.HandedUp of a Port with one queue.
func (p *Port) SetHandedUp(on bool) error {
	if len(p.queues) > 1 {
		return errors.New("a port with several queues stays as it was added; delete it and add it again")
	}
	r := &p.queues[0].rx
	p.mu.RLock() // Close does not take the socket away meanwhile
	defer p.mu.RUnlock()
	if p.closed {
		return port.ErrClosed
	}
	return r.bind(p.ifindex, on)
}

// isMarked tells whether f begins with the mark. The kernel takes the outer tag out of
// every frame that comes from outside, so such a frame was handed up.
func isMarked(f *port.Frame) bool {
	return !f.Tag.Present() && len(f.Data) >= port.HeaderLen+4 && binary.BigEndian.Uint32(f.Data[12:]) == uint32(Mark)
}

// unmark takes the mark off, and then the tag that the frame came with, which the mark
// pushed inline. o speaks of the frame as it was, the result of the frame as it is; ok
// is false where o contradicts it.
func unmark(f *port.Frame, o port.Offload) (_ port.Offload, ok bool) {
	b := f.Data
	copy(b[4:16], b[:12])
	f.SetWire(b[4:])
	if o, ok = vnet.Untag(o); ok && f.Tag.Present() {
		o, ok = vnet.Untag(o)
	}
	return o, ok
}
