// Package memory is a port kind without a device: its other end is Go code that puts
// frames in and takes frames out, for tests, simulation and embedding. Package port says
// who may call the port's methods; any goroutine may call the station's. Frames are copied
// in both directions. Only Recv and Take wait.
package memory

import (
	"slices"
	"sync"

	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// Options configure New. The zero Options are useful.
type Options struct {
	Depth  int        // frames that each queue holds per direction; 0: 512
	Queues int        // 0: one
	Caps   *port.Caps // nil: port.CapsAll
}

// Port is the switch's end, and includes the station's end.
type Port struct {
	caps   port.Caps
	queues []port.Queue
	lanes  []*lane
}

// New makes a port.
func New(o Options) *Port {
	p := &Port{caps: port.CapsAll}
	if o.Caps != nil {
		p.caps = *o.Caps
	}
	if o.Depth == 0 {
		o.Depth = 512
	}
	for range max(o.Queues, 1) {
		l := &lane{in: newRing(o.Depth), out: newRing(o.Depth)}
		p.lanes = append(p.lanes, l)
		p.queues = append(p.queues, l)
	}
	return p
}

// Queues implements port.Port.
func (p *Port) Queues() []port.Queue { return p.queues }

// Caps implements port.Port.
func (p *Port) Caps() port.Caps { return p.caps }

// Close implements port.Port. What the station has not taken yet stays there.
func (p *Port) Close() error {
	for _, l := range p.lanes {
		l.in.close()
		l.out.close()
	}
	return nil
}

// Pause implements port.Pausable.
func (p *Port) Pause() { p.pause(true) }

// Resume implements port.Pausable.
func (p *Port) Resume() { p.pause(false) }

func (p *Port) pause(on bool) {
	for _, l := range p.lanes {
		l.in.mu.Lock()
		l.in.paused = on
		l.in.more.Broadcast()
		l.in.mu.Unlock()
	}
}

// Packet is a frame as the station sees it: on the wire, its VLAN tags inline.
type Packet struct {
	Wire    []byte
	Offload port.Offload // offsets refer to Wire
}

// Put sends packets from the station through a queue of the port. It returns how many
// found room; it does not wait.
func (p *Port) Put(queue int, packets ...Packet) int { return p.lanes[queue].in.put(packets) }

// Take waits for the next packet that the switch sent to the station through a queue, and
// appends its bytes to buf. It returns port.ErrClosed once the port is closed and the
// queue empty.
func (p *Port) Take(queue int, buf []byte) (Packet, error) { return p.lanes[queue].out.take(buf) }

// Drain calls each for up to most packets that the station has not taken yet, and returns
// their number. It does not wait. A packet is valid during its call.
func (p *Port) Drain(queue, most int, each func(Packet)) int {
	return p.lanes[queue].out.drain(most, each)
}

// lane is one queue.
type lane struct {
	in, out *ring
	held    int // borrowed slots of in
}

// Recv implements port.Queue.
func (l *lane) Recv(frames []port.Frame) (int, error) {
	slots, err := l.in.borrow(len(frames))
	if err != nil {
		return 0, err
	}
	for i := range slots {
		s, f := l.in.at(i), &frames[i]
		f.SetWire(s.wire)
		f.Offload = s.offload
		if f.Tag.Present() {
			var ok bool
			if f.Offload, ok = vnet.Untag(s.offload); !ok {
				f.Drop = port.DropBadOffload
			}
		}
		if len(s.wire) > port.MaxFrame {
			f.Drop = port.DropOversize
		}
	}
	l.held = slots
	return slots, nil
}

// Release implements port.Queue.
func (l *lane) Release() {
	l.in.giveBack(l.held)
	l.held = 0
}

// Send implements port.Queue.
func (l *lane) Send(out []port.Out) { l.out.send(out) }

// ring is a bounded queue of frames that keeps its buffers.
type ring struct {
	mu     sync.Mutex
	more   sync.Cond // signalled when the ring is no longer empty, or closed
	slots  []slot
	head   uint // next to take
	tail   uint // next to fill
	closed bool
	paused bool // borrow takes nothing
}

type slot struct {
	wire    []byte
	offload port.Offload
}

func newRing(depth int) *ring {
	r := &ring{slots: make([]slot, depth)}
	r.more.L = &r.mu
	return r
}

// at returns the i-th slot from the head on.
func (r *ring) at(i int) *slot { return &r.slots[(r.head+uint(i))%uint(len(r.slots))] }

func (r *ring) len() int { return int(r.tail - r.head) }

// push returns the next slot to fill, or nil if there is none. The caller holds mu.
func (r *ring) push() *slot {
	if r.len() == len(r.slots) {
		return nil
	}
	r.tail++
	return r.at(r.len() - 1)
}

func (r *ring) put(packets []Packet) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0
	}
	for n := range packets {
		s := r.push()
		if s == nil {
			packets = packets[:n]
			break
		}
		s.wire = append(s.wire[:0], packets[n].Wire...)
		s.offload = packets[n].Offload
	}
	r.more.Signal()
	return len(packets)
}

func (r *ring) send(out []port.Out) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range out {
		o := &out[i]
		if r.closed {
			o.Drop = port.DropPortClosed
			continue
		}
		s := r.push()
		if s == nil {
			o.Drop = port.DropQueueFull
			continue
		}
		o.Drop = port.DropNone
		// The header goes straight to its place: a copy of what was just stored would wait
		// for the stores.
		s.wire = slices.Grow(s.wire[:0], port.MaxHeader+len(o.Frame.Data))
		head := s.wire[:port.MaxHeader]
		s.wire = append(head[:o.PutHeader(head)], o.Frame.Data[12:]...)
		off := o.Frame.Offload
		if int(off.HdrLen) > len(o.Frame.Data) { // a store without need would stall Tag's loads
			off.HdrLen = uint16(len(o.Frame.Data))
		}
		s.offload = vnet.Tag(off, o.TagLen())
	}
	r.more.Signal()
}

// wait returns when there is a frame. The caller holds mu.
func (r *ring) wait() error {
	for r.len() == 0 || r.paused {
		switch {
		case r.closed:
			return port.ErrClosed
		case r.paused:
			return port.ErrPaused
		}
		r.more.Wait()
	}
	return nil
}

// borrow waits for frames and returns how many, up to most, the caller may use until
// giveBack. Nothing can be borrowed from a closed ring.
func (r *ring) borrow(most int) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.wait(); err != nil {
		return 0, err
	}
	if r.closed {
		return 0, port.ErrClosed
	}
	return min(r.len(), most), nil
}

func (r *ring) giveBack(n int) {
	r.mu.Lock()
	r.head += uint(n)
	r.mu.Unlock()
}

func (r *ring) take(buf []byte) (Packet, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.wait(); err != nil {
		return Packet{}, err
	}
	s := r.at(0)
	r.head++
	return Packet{append(buf, s.wire...), s.offload}, nil
}

func (r *ring) drain(most int, each func(Packet)) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(r.len(), most)
	for i := range n {
		s := r.at(i)
		each(Packet{s.wire, s.offload})
	}
	r.head += uint(n)
	return n
}

func (r *ring) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.more.Broadcast()
}
