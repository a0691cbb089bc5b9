package lag

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/vswitch/vswitch/internal/proto/lacp"
	"github.com/vswitch/vswitch/port"
)

// slot is the place of a member in a port, and a queue of it: a worker waits for the frames of
// each member. Ports have maxMembers of them, since a port's queues never change; a worker
// without member sleeps.
type slot struct {
	port     *Port
	index    int
	member   atomic.Pointer[member] // nil: none
	filled   chan struct{}          // has a value after member was set, or the port was paused
	collects atomic.Bool            // the member's frames count

	borrowed *member // of the last Recv; the worker's
}

// Recv implements port.Queue.
func (s *slot) Recv(frames []port.Frame) (int, error) {
	for {
		m := s.member.Load()
		if m == nil {
			if s.port.paused.Load() {
				return 0, port.ErrPaused
			}
			select {
			case <-s.filled:
			case <-s.port.closed:
				return 0, port.ErrClosed
			}
			continue
		}
		n, err := m.queue.Recv(frames)
		if errors.Is(err, port.ErrPaused) {
			return 0, err
		}
		if err != nil {
			// Its device is gone, or it was taken out. Another may follow.
			if !errors.Is(err, port.ErrClosed) {
				select {
				case s.port.ended <- m:
				case <-m.done:
				case <-s.port.closed:
				}
			}
			select {
			case <-m.done:
			case <-s.port.closed:
				return 0, port.ErrClosed
			}
			continue
		}
		s.borrowed = m
		s.judge(frames[:n])
		return n, nil
	}
}

// rouse has a Recv without member look again.
func (s *slot) rouse() {
	select {
	case s.filled <- struct{}{}:
	default:
	}
}

// judge decides which received frames must not be switched.
func (s *slot) judge(frames []port.Frame) {
	collects := s.collects.Load()
	for i := range frames {
		f := &frames[i]
		switch {
		case f.Drop != port.DropNone:
		case f.Dst == lacp.Address && binary.BigEndian.Uint16(f.Data[12:]) == lacp.EtherType:
			f.Drop = port.DropConsumed // the listener has it
		case !collects:
			f.Drop = port.DropStandby
		}
	}
}

// Release implements port.Queue.
func (s *slot) Release() {
	if m := s.borrowed; m != nil {
		s.borrowed = nil
		m.queue.Release()
	}
}

// table says by which member frames leave. It is never changed, only replaced.
type table struct {
	hash   Hash
	queues [maxMembers]port.Queue
	only   port.Queue // not nil: all frames leave by it
	drop   port.Drop  // why no frame leaves; DropNone: they do
	buckets
}

// spread is what one Send needs to sort frames by member.
type spread struct {
	outs [maxMembers][port.BatchSize]port.Out
	from [maxMembers][port.BatchSize]uint8 // where in the batch they come from
	n    [maxMembers]int
}

var spreads = sync.Pool{New: func() any { return new(spread) }}

// Send implements port.Queue. Frames of a flow leave by one member, in order.
func (s *slot) Send(out []port.Out) {
	if len(out) == 1 && out[0].Flags&port.ThisLink != 0 {
		if m := s.member.Load(); m != nil {
			m.queue.Send(out)
		} else {
			out[0].Drop = port.DropNoCarrier
		}
		return
	}
	for len(out) > 0 {
		n := min(len(out), port.BatchSize)
		t := s.port.table.Load()
		t.send(out[:n])
		if now := s.port.table.Load(); now != t {
			now.resend(out[:n])
		}
		s.port.doubt(out[:n])
		out = out[n:]
	}
}

// doubt has the members looked at if one did not take a frame: a full queue looks like a cable
// that was just pulled.
func (p *Port) doubt(out []port.Out) {
	for i := range out {
		if out[i].Drop == port.DropQueueFull {
			select {
			case p.doubts <- struct{}{}:
			default:
			}
			return
		}
	}
}

// resend sends what a member lost that was taken out meanwhile.
func (t *table) resend(out []port.Out) {
	for i := range out {
		if d := out[i].Drop; d == port.DropPortClosed || d == port.DropNoCarrier {
			t.send(out[i : i+1])
		}
	}
}

func (t *table) send(out []port.Out) {
	switch {
	case t.drop != port.DropNone:
		for i := range out {
			out[i].Drop = t.drop
		}
		return
	case t.only != nil:
		t.only.Send(out)
		return
	}
	p := spreads.Get().(*spread)
	for i := range out {
		m := t.buckets[t.hash.bucket(out[i].Frame)]
		n := p.n[m]
		p.outs[m][n], p.from[m][n] = out[i], uint8(i)
		p.n[m]++
	}
	for m, n := range p.n {
		if n == 0 {
			continue
		}
		sent := p.outs[m][:n]
		t.queues[m].Send(sent)
		for i := range sent {
			out[p.from[m][i]].Drop = sent[i].Drop
		}
		clear(sent) // keep no pointers to frames
		p.n[m] = 0
	}
	spreads.Put(p)
}
