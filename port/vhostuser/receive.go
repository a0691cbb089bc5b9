package vhostuser

import (
	"runtime"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/internal/rxbuf"
	"github.com/vswitch/vswitch/internal/virtio/vhost"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// receiver takes frames from the guest's transmit queue. It copies them, because the
// guest can change its memory at any time and the switch reads more of a frame than its
// addresses. The guest gets its buffers back before the frames are forwarded. Of a
// super-frame only the head is copied here, and the guest waits for Release: the tail
// goes from memory to memory when it is sent.
type receiver struct {
	ring     *vhost.Ring
	arena    *arena
	announce atomic.Pointer[[rarpLen]byte]

	spin  time.Duration // how long to poll before sleeping
	slept bool          // since the last frames
}

// arena holds the frames of one batch, one after another. A batch ends when the next
// frame might not fit: batchBytes stay in the L2 cache until they are copied to their
// destination. Lent bytes count too, since the guest needs them back.
type arena struct {
	bytes [batchBytes + port.MaxFrame]byte
	tails [port.BatchSize]vhost.Loan
	lent  int // bytes of lent tails
}

const batchBytes = 256 << 10

// lendFrom is the length from which the tail of a super-frame is lent. Below it, a
// second copy costs less than keeping the buffers.
const lendFrom = 4096

var arenas = rxbuf.Pool[arena]{New: func() *arena { return new(arena) }}

// Recv implements port.Queue.
func (l *lane) Recv(frames []port.Frame) (int, error) {
	for since := time.Now(); ; {
		if n, err := l.Poll(frames); n > 0 || err != nil {
			return n, err
		}
		if l.Eager(time.Since(since)) {
			runtime.Gosched()
			continue
		}
		l.Wait()
		since = time.Now()
	}
}

// Poll implements port.Polled.
func (l *lane) Poll(frames []port.Frame) (int, error) {
	switch {
	case l.port.closed.Load():
		return 0, port.ErrClosed
	case l.port.paused.Load():
		return 0, port.ErrPaused
	case l.announce.Load() != nil:
		return l.announced(&frames[0]), nil
	}
	n := l.receive(frames, &l.port.acked)
	if n > 0 {
		if !l.slept {
			l.spin = maxSpin
		}
		l.slept = false
	}
	return n, nil
}

// Release implements port.Queue.
func (l *lane) Release() {
	if l.arena == nil {
		return
	}
	if l.arena.lent > 0 {
		l.takeBack()
	}
	arenas.Return(l.arena)
	l.arena = nil
}

// takeBack ends the loans of a batch.
func (r *receiver) takeBack() {
	clear(r.arena.tails[:r.arena.lent])
	r.arena.lent = 0
	if r.ring.Begin() {
		defer r.ring.End()
		r.ring.TakeBack()
		r.ring.Flush()
	}
}

// receive takes what the ring holds, without waiting.
func (r *receiver) receive(frames []port.Frame, acked *atomic.Uint64) (n int) {
	if !r.ring.TryBegin() { // a worker that polls does not wait for one ring
		return 0
	}
	defer r.ring.End()
	if !r.ring.HasWork() {
		return 0
	}
	how := layoutOf(acked.Load()) // negotiated before the ring started, but perhaps not before this call
	used, lent, kept := 0, 0, 0
	for n < len(frames) && used+lent <= batchBytes {
		if lent == 0 { // otherwise chains are kept, in order
			took, bytes := r.takeSingles(frames[n:], used, how.header)
			if n, used = n+took, used+bytes; took > 0 {
				continue
			}
		}
		c, parts, ok := r.ring.Next(kept, false)
		if !ok {
			break
		}
		r.rent()
		f := &frames[n]
		used += r.take(f, parts, kept, r.arena.bytes[used:], how.header)
		if r.arena.lent > 0 {
			kept = len(parts)
			r.ring.Keep(c)
		} else {
			r.ring.Use(c, 0)
		}
		if f.Tail != nil {
			lent += f.Tail.Len()
		}
		n++
	}
	r.ring.Flush()
	if !r.ring.Enabled() { // frames of a disabled ring are discarded
		for i := range frames[:n] {
			if f := &frames[i]; f.Drop == port.DropNone {
				f.Drop = port.DropPortDown
			}
		}
	}
	return n
}

// rent allocates room for the batch if there is none.
func (r *receiver) rent() {
	if r.arena == nil {
		r.arena = arenas.Rent()
		r.ring.Busy()
	}
}

// takeSingles takes the next frames as long as each lies in one buffer and is not to be
// lent. It returns their number, and how much of the room they take from used on.
func (r *receiver) takeSingles(frames []port.Frame, used, headerLen int) (n, bytes int) {
	singles := r.ring.Singles(false)
	if len(singles) == 0 {
		return 0, 0
	}
	r.rent()
	for n < min(len(singles), len(frames)) && used+bytes <= batchBytes {
		b := singles[n].Bytes
		if len(b) < maxHeader || len(b) >= lendFrom {
			break
		}
		header := [maxHeader]byte(b) // the shorter one is a prefix of it
		room := r.arena.bytes[used+bytes:][:len(b)-headerLen]
		copy(room, b[headerLen:])
		f := &frames[n]
		f.SetWire(room)
		if f.Drop == port.DropNone && header[0]|header[1] != 0 { // flags, gso_type
			setOffload(f, decode(header[:]), len(room))
		}
		bytes += inLines(len(room))
		n++
	}
	r.ring.UseSingles(singles[:n])
	return n, bytes
}

// take makes f the frame in the guest's buffers from first on, behind its virtio-net
// header. It returns how much of room the frame takes, where it lies from now on.
func (r *receiver) take(f *port.Frame, parts []vhost.Buffer, first int, room []byte, headerLen int) int {
	total := 0
	for i := range parts[first:] {
		total += len(parts[first+i].Bytes)
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
	at := fillFrom(header[:headerLen], parts, cursor{first, 0})
	o := decode(header[:])
	head := n
	if n >= lendFrom && o.IsGSO() {
		head = lentHead
	}
	at = fillFrom(room[:head], parts, at)
	f.SetWire(room[:head:head])
	if f.Drop != port.DropNone || !setOffload(f, o, n) {
		return 0
	}
	if head < n {
		loan := &r.arena.tails[r.arena.lent]
		r.arena.lent++
		r.ring.Lend(loan, at.part, at.offset, n-head)
		f.Tail = loan
	}
	return inLines(head)
}

// decode reads a virtio-net header written by a driver.
func decode(header []byte) port.Offload {
	o := vnet.Decode(header)
	o.Flags &= port.NeedsCsum // a driver may not set the others (virtio 1.2, 5.1.6.2)
	if o.Flags|o.GSOType == 0 {
		return port.Offload{}
	}
	return o
}

// setOffload records the work left undone in f, which has n bytes on the wire. If that
// cannot be true, the frame must be dropped, and ok is false.
func setOffload(f *port.Frame, o port.Offload, n int) (ok bool) {
	if o == (port.Offload{}) {
		return true
	}
	if ok = true; f.Tag.Present() {
		o, ok = vnet.Untag(o)
	}
	if !ok || !vnet.Valid(o, n-f.Tag.Len()) {
		f.Drop = port.DropBadOffload
		return false
	}
	f.Offload = o
	return true
}

// inLines rounds n bytes up to whole cache lines: frames that share a line would also
// share the wait for it.
func inLines(n int) int { return (n + 63) &^ 63 }

// lentHead is the part of a lent frame that is copied, with room for a tag that is
// removed.
const lentHead = port.MinHead + 4

// cursor is a position in a list of buffers.
type cursor struct{ part, offset int }

// fillFrom fills b from a position on, and returns the position behind it.
func fillFrom(b []byte, parts []vhost.Buffer, at cursor) cursor {
	for {
		n := copy(b, parts[at.part].Bytes[at.offset:])
		at.offset += n
		if b = b[n:]; len(b) == 0 {
			return at
		}
		at = cursor{at.part + 1, 0}
	}
}

// announced sets f to the frame that announces the guest's new place.
func (l *lane) announced(f *port.Frame) int {
	l.arena = arenas.Rent()
	f.SetWire(append(l.arena.bytes[:0], l.announce.Swap(nil)[:]...))
	return 1
}

const (
	// maxSpin bounds how long an empty ring is polled before sleeping: about what a
	// kick and the wake-up cost the guest and the switch together.
	maxSpin = 50 * time.Microsecond
	minSpin = 3 * time.Microsecond
)

// Eager implements port.Polled. While frames come at short intervals, the ring is polled for a
// bounded time; otherwise the worker sleeps until the guest kicks.
func (l *lane) Eager(idle time.Duration) bool {
	if l.spin >= minSpin && idle < l.spin || l.port.busy.Load() && l.receiver.ring.Ready() {
		return true
	}
	l.spin /= 2
	return false
}

// Wait implements port.Polled.
func (l *lane) Wait() {
	start := time.Now()
	l.receiver.ring.Wait()
	l.slept = true
	if time.Since(start) < maxSpin {
		l.spin = maxSpin // polling would have been shorter
	}
}
