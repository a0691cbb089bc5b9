package vswitch

import (
	"fmt"
	"sync"

	"github.com/vswitch/vswitch/port"
)

// ControlFrame is a frame of a protocol that the switch itself speaks.
type ControlFrame struct {
	Port *Port
	VLAN uint16 // 0 where the protocol stands below VLANs
	Data []byte // the frame without outer tag; valid during the call
}

const (
	// controlBacklog is how many control frames may wait, BPDUs and others
	// apart. A guest that sends more than are dealt with loses its own and
	// others': a few hundred are far more than any protocol needs, and little
	// memory.
	controlBacklog = 256
	// controlLen is the longest control frame: that of an Ethernet frame.
	controlLen = 1518
)

// control carries frames from the workers to the one goroutine that speaks the
// protocols, without making them wait or allocate.
type control struct {
	bpdus  chan *controlFrame // first: without them a tree becomes a loop
	frames chan *controlFrame // the others
	pool   sync.Pool
	handle func(ControlFrame)
}

type controlFrame struct {
	port *Port
	vlan uint16
	data []byte
	buf  [controlLen]byte
}

func (c *control) init(handle func(ControlFrame)) {
	c.bpdus, c.frames = make(chan *controlFrame, controlBacklog), make(chan *controlFrame, controlBacklog)
	c.pool.New = func() any { return new(controlFrame) }
	c.handle = handle
}

// run hands frames over until stop is closed.
func (c *control) run(stop <-chan struct{}) {
	for {
		var f *controlFrame
		select {
		case f = <-c.bpdus:
		default:
			select {
			case f = <-c.bpdus:
			case f = <-c.frames:
			case <-stop:
				return
			}
		}
		if c.handle != nil {
			c.handle(ControlFrame{Port: f.port, VLAN: f.vlan, Data: f.data})
		}
		c.pool.Put(f)
	}
}

// punt takes f out of forwarding and gives it to the protocols.
func (c *control) punt(f *port.Frame, from *member) port.Drop {
	if f.DataLen() > controlLen {
		return port.DropOversize
	}
	cf := c.pool.Get().(*controlFrame)
	cf.port, cf.vlan = from.port, f.VLAN
	queue := c.frames
	if f.Dst == stpGroup {
		cf.vlan, queue = 0, c.bpdus
	}
	cf.data = cf.buf[:copy(cf.buf[:], f.Data)]
	select {
	case queue <- cf:
		return port.DropConsumed
	default:
		c.pool.Put(cf)
		return port.DropControlFull
	}
}

// Transmit sends a frame of the switch's own by one port: data without outer tag,
// in a VLAN as the port carries it, or in VLAN 0 as it is. It counts as sent by
// the port, and in Injected. Any goroutine may call it; it does not wait.
func (p *Port) Transmit(vlan uint16, data []byte) error {
	s := p.sw
	m := s.ports.Load().member(p.number)
	if m == nil || m.port != p {
		return fmt.Errorf("port %s is not forwarding", p.name)
	}
	var f port.Frame
	f.SetStripped(data, 0)
	if f.Drop != port.DropNone {
		return fmt.Errorf("port %s: a frame of %d bytes is too short", p.name, len(data))
	}
	out := []port.Out{{Frame: &f}}
	if vlan != 0 {
		if !m.vlans.Has(vlan) {
			return fmt.Errorf("port %s does not carry VLAN %d", p.name, vlan)
		}
		f.VLAN = vlan
		out[0].Tag, _ = retag(&f, m)
	}
	s.injected.Add(1)
	m.queues[0].Send(out)
	m.tx[0].count(out)
	if out[0].Drop != port.DropNone {
		return fmt.Errorf("port %s dropped it: %v", p.name, out[0].Drop)
	}
	return nil
}

// Injected is how many frames of its own the switch handed to its ports: they
// leave, or are dropped, without having come in.
func (s *Switch) Injected() uint64 { return s.injected.Load() }
