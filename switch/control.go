package vswitch

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/port"
)

// Control frames are frames for the switch itself: BPDUs, probes, and messages of
// snooped protocols. A worker takes such a frame out of forwarding, copies it into a
// queue, and continues; one goroutine passes the queued frames to Config.OnControl.
// One guest's frames must not displace another's, so each port has its own lane in
// each queue:
//
//   - A lane always has room for laneMin frames of ordinary length. Beyond those, up
//     to laneMax, it may use a sixteenth of the free controlMemory, so that no number
//     of floods exhausts it.
//   - Lanes are served in rounds. Each round serves every lane that has frames once,
//     in the order of the queues: a flood waits for the first frame of every other lane.

// ControlFrame is a frame of a protocol that the switch speaks.
type ControlFrame struct {
	Port  *Port
	By    int // which of the port's queues received it
	Queue Queue
	VLAN  uint16   // 0 for protocols below VLANs
	Tag   port.Tag // the outer tag on arrival; 0: none
	Data  []byte   // the frame without its outer tag; valid during the call
}

// Queue selects where a control frame waits. Lower queues are served first.
type Queue uint8

const (
	QueueTree       Queue = iota // BPDUs: losing them turns the tree into a loop
	QueueGuard                   // frames a guarded port must not receive; only their first bytes
	QueueLoop                    // loop-detection probes
	QueueGroups                  // frames for which Groups.IsControl holds
	QueueResolution              // address resolution, see Port.SetResolution
	QueueLink                    // what neighbours say about a link (LLDP)
	numQueues
)

// turns is how many frames of a lane one round handles. A bridge sends up to ten BPDUs
// a second (802.1D-2004 table 17-1: the transmit hold count); one round takes them all.
var turns = [numQueues]int{QueueTree: 10, QueueGuard: 1, QueueLoop: 1, QueueGroups: 1, QueueResolution: 1, QueueLink: 1}

// Trap sends frames for one group address to OnControl instead of forwarding them.
// Traps apply before storm control, since a loop is when they are needed; their lane
// bounds them.
type Trap struct {
	Dst    port.MAC
	Type   uint16 // the EtherType behind the outer tag; 0: any
	Queue  Queue
	Tagged bool // for a reserved address (01:80:c2:00:00:0x): trap VLAN-tagged frames too
}

// matches reports whether the trap takes f, whatever its tag.
func (t *Trap) matches(f *port.Frame) bool {
	return t.Dst == f.Dst && (t.Type == 0 || t.Type == binary.BigEndian.Uint16(f.Data[12:]))
}

// SetTraps replaces the port's own traps to a queue. A port's own traps are tried in the
// order of their queues, before the traps of all ports. The switch keeps the slice.
func (p *Port) SetTraps(q Queue, traps []Trap) {
	s := p.sw
	s.mu.Lock()
	defer s.mu.Unlock()
	p.traps[q] = traps
	p.publish()
}

// SetTraps replaces the traps of all ports. The switch keeps the slice.
func (s *Switch) SetTraps(traps []Trap) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.traps = traps
	s.publish()
}

// trapsOf returns all traps of a port in the order they are tried. The caller holds sw.mu.
func (p *Port) trapsOf() []Trap {
	return append(slices.Concat(p.traps[:]...), p.sw.traps...)
}

const (
	laneMin = 2   // frames of up to laneFrame bytes that always have room in a lane
	laneMax = 256 // most frames that can wait in a lane

	// controlMemory bounds the bytes of all lanes' frames beyond laneMin.
	controlMemory = 4 << 20

	controlLen = 9216 // the longest control frame: a jumbo frame
	guardLen   = 64   // how much of a frame QueueGuard keeps
	laneFrame  = 1536 // an Ethernet frame
)

// bufferLens are the sizes of the buffers for control frames.
var bufferLens = [...]int{256, laneFrame, controlLen}

// control carries frames from the workers to the one goroutine that runs the protocols.
// Workers neither wait nor allocate.
type control struct {
	pools  [len(bufferLens)]sync.Pool // of *controlFrame
	handle func(ControlFrame)
	wake   chan struct{}      // holds a token while frames may be waiting
	idle   chan chan struct{} // each is closed once no frame is waiting

	mu    sync.Mutex
	free  int    // bytes left of controlMemory
	round uint64 // the current round
	now   [numQueues]laneList
	later [numQueues]laneList // lanes already served in this round
}

// lane holds the frames of one port that wait in one queue. control.mu guards all fields
// but waiting.
type lane struct {
	waiting    atomic.Int32 // frames
	port       *Port
	queue      Queue
	head, tail *controlFrame
	charged    int    // bytes of controlMemory in use
	round      uint64 // in which the lane was last served
	served     int    // frames in that round
	next       *lane  // in its laneList
}

type laneList struct{ head, tail *lane }

type controlFrame struct {
	by      uint16
	vlan    uint16
	tag     port.Tag
	charged int
	data    []byte // in buf
	next    *controlFrame

	class   int
	buf     []byte
	scratch [1][]byte
}

func (c *control) init(handle func(ControlFrame)) {
	for class, n := range bufferLens {
		c.pools[class].New = func() any { return &controlFrame{class: class, buf: make([]byte, n)} }
	}
	c.wake, c.idle = make(chan struct{}, 1), make(chan chan struct{})
	c.handle, c.free = handle, controlMemory
}

// run passes frames to handle until stop is closed.
func (c *control) run(stop <-chan struct{}) {
	var idle chan struct{}
	for {
		f, from, queue := c.next()
		if f == nil {
			if idle != nil {
				close(idle)
				idle = nil
			}
			select {
			case <-c.wake:
				continue
			case idle = <-c.idle:
				continue
			case <-stop:
				return
			}
		}
		if c.handle != nil {
			c.handle(ControlFrame{Port: from, By: int(f.by), Queue: queue, VLAN: f.vlan, Tag: f.tag, Data: f.data})
		}
		c.pools[f.class].Put(f)
		select {
		case <-stop:
			return
		default:
		}
	}
}

// AwaitControl returns when OnControl has returned for all control frames that wait, at most
// after the time within. It reports whether that is so.
func (s *Switch) AwaitControl(within time.Duration) bool {
	late := time.NewTimer(within)
	defer late.Stop()
	idle := make(chan struct{})
	select {
	case s.control.idle <- idle:
	case <-late.C:
		return false
	}
	select {
	case <-idle:
		return true
	case <-late.C:
		return false
	}
}

// punt takes f out of forwarding and queues a copy. vlan is 0 for protocols below VLANs.
func (w *worker) punt(f *port.Frame, from *Port, queue Queue, vlan uint16) port.Drop {
	c := &w.sw.control
	l := &from.lanes[queue]
	if l.waiting.Load() >= laneMax {
		return port.DropControlFull
	}
	size := f.DataLen()
	if queue == QueueGuard {
		size = min(size, guardLen)
	}
	class := 0
	for size > bufferLens[class] {
		if class++; class == len(bufferLens) {
			return port.DropOversize
		}
	}
	cf := c.pools[class].Get().(*controlFrame)
	cf.by, cf.vlan, cf.tag, cf.data = uint16(w.index), vlan, f.Tag, cf.buf[:size]
	if size <= len(f.Data) {
		copy(cf.data, f.Data)
	} else if !f.CopyTo(cf.data, &cf.scratch) {
		c.pools[class].Put(cf)
		return port.DropMemoryGone
	}
	if !c.push(l, cf) {
		c.pools[class].Put(cf)
		return port.DropControlFull
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return port.DropConsumed
}

// push appends f to a lane and reports whether there was room.
func (c *control) push(l *lane, f *controlFrame) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := l.waiting.Load()
	f.charged, f.next = 0, nil
	if n >= laneMin || len(f.buf) > laneFrame {
		f.charged = len(f.buf)
		if n >= laneMax || l.charged+f.charged > c.free/16 {
			return false
		}
	}
	l.charged += f.charged
	c.free -= f.charged
	l.waiting.Store(n + 1)
	if n != 0 {
		l.tail.next = f
		l.tail = f
		return true
	}
	l.head, l.tail = f, f
	c.list(l)
	return true
}

// next takes the next frame in turn; it returns nil when none waits.
func (c *control) next() (*controlFrame, *Port, Queue) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range 2 {
		for q := range c.now {
			l := c.now[q].pop()
			if l == nil {
				continue
			}
			f := l.head
			l.head = f.next
			l.waiting.Add(-1)
			l.charged -= f.charged
			c.free += f.charged
			if l.round != c.round {
				l.round, l.served = c.round, 0
			}
			l.served++
			if l.head != nil {
				c.list(l)
			}
			return f, l.port, l.queue
		}
		c.now, c.later = c.later, c.now
		c.round++
	}
	return nil, nil, 0
}

// list schedules a lane that has frames for this round, or for the next round if it has
// had its turns. The caller holds mu.
func (c *control) list(l *lane) {
	if l.round == c.round && l.served >= turns[l.queue] {
		c.later[l.queue].push(l)
		return
	}
	c.now[l.queue].push(l)
}

func (ls *laneList) push(l *lane) {
	l.next = nil
	if ls.head == nil {
		ls.head, ls.tail = l, l
		return
	}
	ls.tail.next = l
	ls.tail = l
}

func (ls *laneList) pop() *lane {
	l := ls.head
	if l != nil {
		ls.head = l.next
	}
	return l
}

// Transmit sends a frame that the switch originates through one port. data has no outer
// tag; the frame gets the tag with which the port carries vlan, or leaves as it is if
// vlan is 0. It counts as sent by the port, and in Injected. The target of a mirror sends
// nothing else. Any goroutine may call Transmit; it does not wait.
func (p *Port) Transmit(vlan uint16, data []byte) error {
	return p.transmit(vlan, data, 0, port.Control)
}

// TransmitBy is Transmit of a frame without a tag by one of the links that carry the port: the
// one of a queue (see port.ThisLink).
func (p *Port) TransmitBy(queue int, data []byte) error {
	return p.transmit(0, data, queue, port.Control|port.ThisLink)
}

func (p *Port) transmit(vlan uint16, data []byte, queue int, flags port.OutFlags) error {
	s := p.sw
	set := s.ports.Load()
	m := set.member(p.number)
	if m == nil || m.port != p {
		return fmt.Errorf("port %s is not forwarding", p.name)
	}
	if m.flags&flagMirrorTarget != 0 {
		return fmt.Errorf("port %s is the target of a mirror", p.name)
	}
	var f port.Frame
	f.SetStripped(data, 0)
	if f.Drop != port.DropNone {
		return fmt.Errorf("port %s: a frame of %d bytes is too short", p.name, len(data))
	}
	if queue >= len(m.queues) {
		return fmt.Errorf("port %s has no link %d", p.name, queue)
	}
	out := []port.Out{{Frame: &f, Flags: flags}}
	if vlan != 0 {
		if !m.vlans.Has(vlan) {
			return fmt.Errorf("port %s does not carry VLAN %d", p.name, vlan)
		}
		f.VLAN = vlan
		out[0].Tag, _ = retag(&f, m)
	}
	s.injected.Add(1)
	m.queues[queue].Send(out)
	lost := m.tx[0].count(out)
	if set.watches != nil && (lost || m.flags&flagWatchOut != 0) {
		set.showSent(p, out)
	}
	if out[0].Drop != port.DropNone {
		return fmt.Errorf("port %s dropped it: %v", p.name, out[0].Drop)
	}
	return nil
}

// Injected returns how many frames the switch originated: its ports sent or dropped
// them, but never received them.
func (s *Switch) Injected() uint64 { return s.injected.Load() }
