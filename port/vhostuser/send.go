package vhostuser

import (
	"encoding/binary"
	"errors"
	"sync/atomic"

	"github.com/vswitch/vswitch/internal/virtio/vhost"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// sender puts frames into the guest's receive queue. The ring's lock, from Begin to
// End, guards its fields.
type sender struct {
	ring   *vhost.Ring
	chains []filled
	room   [][]byte // for a frame's tail
}

// filled is a chain of the receive queue and the room in it.
type filled struct {
	chain vhost.Chain
	room  int
}

// maxParts bounds the buffers of one frame. A driver whose buffers are so small that
// this does not suffice would make senders search its ring in vain.
const maxParts = 1024

// Send implements port.Queue.
func (l *lane) Send(out []port.Out) {
	p := l.port
	drop := port.DropNoCarrier
	if p.closed.Load() {
		drop = port.DropPortClosed
	} else if active := *p.active.Load(); len(active) > 0 {
		// A guest that uses fewer queues gets all frames through those.
		to := active[l.index%len(active)]
		out = out[to.sender.send(out, &p.acked, int(p.mtu.Load())):]
	}
	for i := range out {
		out[i].Drop = drop
	}
}

// Where few frames are under way, guest and switch would wait for each other's whole batch. So the guest sees
// the first showFirst frames while the switch is with the rest: docs/design/datapath.md has the figures, with
// 32 that circulate. A rest of fewer than leastRest frames is not worth it. A guest that gets more than twice
// showFirst has enough to do.
const (
	showFirst = 16
	leastRest = 4
)

// send gives frames to the guest and returns how many it dealt with: all, unless the ring cannot be used. Of the
// others none arrived.
func (s *sender) send(out []port.Out, acked *atomic.Uint64, mtu int) (dealt int) {
	if !s.ring.Begin() {
		return 0
	}
	defer s.ring.End() // also after a fault
	if !s.ring.Enabled() {
		return 0
	}
	first := 0
	if len(out) >= showFirst+leastRest && len(out) <= 2*showFirst {
		first = showFirst
	}
	features := acked.Load() // as in receive
	how, caps := layoutOf(features), capsOf(features)
	var singles []vhost.Single // chains ahead; the first done of them hold a frame
	done := 0
	for i := range out {
		if i == first && i > 0 {
			s.ring.UseSingles(singles[:done])
			singles, done = nil, 0
			s.ring.Show()
			dealt = i
		}
		o := &out[i]
		if f := o.Frame; mtu > 0 && f.DataLen()-port.HeaderLen > mtu+4 && !f.Offload.IsGSO() {
			o.Drop = port.DropTooBig // even without counting the tag
			continue
		}
		if done == len(singles) {
			s.ring.UseSingles(singles)
			singles, done = s.ring.Singles(true), 0
		}
		if done < len(singles) && putSingle(o, &singles[done], how, caps) {
			o.Drop = port.DropNone
			done++
			continue
		}
		s.ring.UseSingles(singles[:done])
		singles, done = nil, 0
		if o.Drop = s.put(o, how, caps); o.Drop == port.DropNoCarrier {
			return dealt
		}
	}
	s.ring.UseSingles(singles[:done])
	s.ring.Flush()
	s.ring.ReadOn(len(out)) // the next batch likely has as many
	if !s.ring.Failed() {
		dealt = len(out)
	}
	return dealt
}

// putSingle gives a frame to the guest if all of the frame is here and fits one buffer.
// Otherwise the caller tries put, which also finds the reason for a drop.
func putSingle(o *port.Out, to *vhost.Single, how layout, caps port.Caps) bool {
	f, b := o.Frame, to.Bytes
	n := how.header + o.TagLen() + len(f.Data)
	if f.Tail != nil || len(f.Data) < port.HeaderLen || len(b) < max(n, maxHeader+port.MaxHeader) {
		return false
	}
	*(*[maxHeader]byte)(b) = [maxHeader]byte{}
	if f.Offload != (port.Offload{}) && !encode(b, o, caps) {
		return false
	}
	if how.header == maxHeader {
		binary.NativeEndian.PutUint16(b[vnet.HeaderLen:], 1)
	}
	at := how.header + o.PutHeader(b[how.header:])
	copy(b[at:], f.Data[12:])
	to.Written = uint32(n)
	return true
}

var errNoRoom = errors.New("a receive buffer without room for the header")

// put gives one frame to the guest. DropNoCarrier means that the ring is broken.
func (s *sender) put(o *port.Out, how layout, caps port.Caps) port.Drop {
	f := o.Frame
	if len(f.Data) < port.HeaderLen {
		return port.DropRunt
	}
	var head [maxHeader + port.MaxHeader]byte
	if f.Offload != (port.Offload{}) && !encode(head[:], o, caps) {
		return port.DropBadOffload
	}
	header := how.header + o.PutHeader(head[how.header:])
	mark := s.ring.Mark()
	parts, drop := s.gather(how, header+f.DataLen()-12)
	if drop != port.DropNone {
		return drop
	}
	if how.header == maxHeader {
		binary.NativeEndian.PutUint16(head[vnet.HeaderLen:], uint16(len(s.chains)))
	}
	if !s.fill(parts, head[:header], f.Data[12:], f.Tail) {
		s.ring.Rewind(mark)
		return port.DropMemoryGone
	}
	return port.DropNone
}

// encode writes a virtio-net header for the work left undone in a frame, and reports
// whether the driver accepts that.
func encode(header []byte, o *port.Out, caps port.Caps) bool {
	f, off := o.Frame, o.Frame.Offload
	// The driver may have changed since the switch called Caps.
	if off.Needs()&^caps != 0 || !vnet.Valid(off, f.DataLen()) {
		return false
	}
	if caps&port.CapCsum == 0 {
		off.Flags = 0 // not even DATA_VALID (virtio 1.2, 5.1.6.4.1)
	}
	off.HdrLen = uint16(min(int(off.HdrLen), len(f.Data)))
	vnet.Encode(header, vnet.Tag(off, o.TagLen()))
	return true
}

// gather takes enough chains from the ring for n bytes. If it cannot, the ring is as
// before.
func (s *sender) gather(how layout, n int) ([]vhost.Buffer, port.Drop) {
	mark := s.ring.Mark()
	s.chains = s.chains[:0]
	for have := 0; ; {
		c, parts, ok := s.ring.Next(have, true)
		if !ok {
			if s.ring.Failed() {
				return nil, port.DropNoCarrier
			}
			s.ring.Rewind(mark)
			return nil, port.DropQueueFull
		}
		room := 0
		for i := range parts[have:] {
			room += len(parts[have+i].Bytes)
		}
		if room == 0 || have == 0 && room < how.header {
			s.ring.Fail(errNoRoom)
			return nil, port.DropNoCarrier
		}
		s.chains = append(s.chains, filled{c, room})
		have, n = len(parts), n-room
		if n <= 0 {
			return parts, port.DropNone
		}
		if !how.merge || have > maxParts {
			s.ring.Rewind(mark)
			return nil, port.DropTooBig
		}
	}
}

// fill writes a frame to the gathered buffers and gives the chains back. If the tail is
// gone, it returns false and gives none back.
func (s *sender) fill(parts []vhost.Buffer, head, body []byte, tail port.Tail) bool {
	total := len(head) + len(body)
	for i := range parts {
		b := parts[i].Bytes
		n := copy(b, head)
		m := copy(b[n:], body)
		head, body = head[n:], body[m:]
		if b = b[n+m:]; tail != nil && len(b) > 0 {
			s.room = append(s.room, b)
		} else if n+m == 0 {
			break
		}
	}
	if tail != nil {
		total += tail.Len()
		if !s.fillTail(tail) {
			return false
		}
	}
	left := total
	for i := range parts {
		n := min(len(parts[i].Bytes), left)
		s.ring.Wrote(parts[i], n)
		left -= n
	}
	left = total
	for _, c := range s.chains {
		n := min(c.room, left)
		s.ring.Use(c.chain, uint32(n))
		left -= n
	}
	return true
}

func (s *sender) fillTail(tail port.Tail) bool {
	defer func() {
		clear(s.room) // as in Backend.refresh, also after a fault
		s.room = s.room[:0]
	}()
	return tail.CopyTo(s.room)
}
