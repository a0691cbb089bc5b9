package vhostuser

import (
	"runtime"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/internal/rxbuf"
	"github.com/vswitch/vswitch/internal/vhost"
	"github.com/vswitch/vswitch/internal/vnet"
	"github.com/vswitch/vswitch/port"
)

// receiver takes frames from the guest's transmit queue. It copies them: the guest can
// change its memory at any time, and the switch looks at more of a frame than its
// addresses. The guest has its buffers back before the frames are on their way.
type receiver struct {
	ring     *vhost.Ring
	busy     bool // never sleep
	arena    *arena
	announce atomic.Pointer[[rarpLen]byte]

	spin time.Duration // how long to look for frames before sleeping
}

// arena holds the frames of one batch, one behind the other. A batch ends when the next
// frame might not fit: batchBytes stay in the L2 cache until they are copied to where
// they go.
type arena [batchBytes + port.MaxFrame]byte

const batchBytes = 128 << 10

var arenas = rxbuf.Pool[arena]{New: func() *arena { return new(arena) }}

// Recv implements port.Queue.
func (l *lane) Recv(frames []port.Frame) (int, error) {
	for {
		if l.port.closed.Load() {
			return 0, port.ErrClosed
		}
		if l.announce.Load() != nil {
			return l.announced(&frames[0]), nil
		}
		if n := l.receive(frames, layoutOf(l.port.acked.Load())); n > 0 {
			return n, nil
		}
		l.wait()
	}
}

// Release implements port.Queue.
func (l *lane) Release() {
	if l.arena != nil {
		arenas.Return(l.arena)
		l.arena = nil
	}
}

// receive takes what the ring has, without waiting.
func (r *receiver) receive(frames []port.Frame, how layout) (n int) {
	if !r.ring.Begin() {
		return 0
	}
	defer r.ring.End()
	drop := port.DropNone
	if !r.ring.Enabled() { // such a ring's frames are thrown away
		drop = port.DropPortDown
	}
	used := 0
	for n < len(frames) && used <= batchBytes {
		c, parts, ok := r.ring.Next(0, false)
		if !ok {
			break
		}
		if r.arena == nil {
			r.arena = arenas.Rent()
			r.ring.Busy()
		}
		f := &frames[n]
		used += take(f, parts, r.arena[used:], how.header)
		if f.Drop == port.DropNone {
			f.Drop = drop
		}
		r.ring.Use(c, 0)
		n++
	}
	r.ring.Flush()
	return n
}

// take makes f the frame in the guest's buffers, behind its virtio-net header, and
// returns how much of room it takes, where it lies from now on.
func take(f *port.Frame, parts []vhost.Buffer, room []byte, headerLen int) int {
	total := 0
	for i := range parts {
		total += len(parts[i].Bytes)
	}
	n := total - headerLen
	if n < 0 || n > port.MaxFrame {
		f.SetStripped(nil, 0)
		if n > 0 {
			f.Drop = port.DropOversize
		}
		return 0
	}
	var header [maxHeader]byte
	room = room[:0:n]
	skip := header[:headerLen]
	for i := range parts {
		b := parts[i].Bytes
		if len(skip) > 0 {
			h := copy(skip, b)
			skip, b = skip[h:], b[h:]
		}
		room = append(room, b...)
	}
	f.SetWire(room)
	if f.Drop != port.DropNone {
		return 0
	}
	o := vnet.Decode(header[:])
	o.Flags &= port.NeedsCsum // the others are not a driver's to set (virtio 1.2, 5.1.6.2)
	if o.Flags|o.GSOType == 0 {
		o = port.Offload{}
	}
	ok := true
	if f.Tag.Present() {
		o, ok = vnet.Untag(o)
	}
	if !ok || !vnet.Valid(o, len(f.Data)) {
		f.Drop = port.DropBadOffload
		return 0
	}
	f.Offload = o
	// Frames that began at the same offset in a line would share it.
	return (n + 63) &^ 63
}

// announced makes f the frame that tells where the guest is now.
func (l *lane) announced(f *port.Frame) int {
	l.arena = arenas.Rent()
	f.SetWire(append(l.arena[:0], l.announce.Swap(nil)[:]...))
	return 1
}

const (
	// maxSpin is how long an empty ring is looked at before sleeping: about what
	// a kick and the wake cost the guest and the switch together.
	maxSpin = 50 * time.Microsecond
	minSpin = 3 * time.Microsecond

	// looksPerClock spares the clock, which costs as much as a look.
	looksPerClock = 4
)

// wait returns when there may be something to receive. As long as frames come at short
// intervals it looks for them, for a bounded time; else it sleeps until the guest kicks.
func (l *lane) wait() {
	if l.look() {
		return
	}
	slept := time.Now()
	l.receiver.ring.Wait()
	if time.Since(slept) < maxSpin {
		l.spin = maxSpin // looking would have been shorter
	}
}

// look looks at the ring for a while and tells whether there is something.
func (l *lane) look() bool {
	if l.spin < minSpin && !l.busy {
		return false
	}
	ring := l.receiver.ring
	for start := time.Now(); l.busy && ring.Ready() || time.Since(start) < l.spin; {
		for range looksPerClock {
			if ring.HasWork() || l.port.closed.Load() || l.announce.Load() != nil {
				l.spin = maxSpin
				return true
			}
			runtime.Gosched()
		}
	}
	l.spin /= 2
	return false
}
