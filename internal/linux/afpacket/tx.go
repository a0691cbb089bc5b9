package afpacket

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/mmsg"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// headLen is the length of what precedes Data[12:] on output: the virtio-net header, the
// addresses and the tags. Send always writes them anew: a guest may share Data, so its
// addresses may no longer be those by which the frame was switched.
const headLen = vnet.HeaderLen + port.MaxHeader

// maxHint bounds HdrLen, the part of a frame that the kernel makes contiguous: enough for
// all headers. A sender's own hint could make it allocate 64 KiB in one piece.
const maxHint = 256

// inline is the length up to which a frame is copied behind its head. The kernel has a
// shorter path for one piece than for two; for small frames it saves more than the copy
// costs.
const inline = 256

// run holds the frames for one sendmmsg.
type run struct {
	n       int
	headers [port.BatchSize]mmsg.Header
	vectors [port.BatchSize][2]unix.Iovec
	heads   [port.BatchSize][headLen + inline]byte
	outs    [port.BatchSize]*port.Out
	marks   [port.BatchSize]markMessage // of marked frames
}

var runs = sync.Pool{New: func() any {
	r := new(run)
	for i := range r.headers {
		r.headers[i].Iov = &r.vectors[i][0]
		r.vectors[i][0].Base = &r.heads[i][0]
	}
	return r
}}

// Send implements port.Queue.
func (q *queue) Send(out []port.Out) { q.send(out, nil) }

// send sends frames; marks are theirs, or nil.
func (q *queue) send(out []port.Out, marks []uint32) {
	q.mu.RLock()
	for q.shaping.grafting.Load() && len(out) > 0 && out[0].Flags&port.Control == 0 {
		q.await()
	}
	if q.closed {
		q.mu.RUnlock()
		for i := range out {
			out[i].Drop = port.DropPortClosed
		}
		return
	}
	r := runs.Get().(*run)
	plain := q.plain
	if q.isQueued() {
		plain = q.gso // small frames must not overtake super-frames
	}
	fd := plain
	for i := range out {
		o := &out[i]
		to := plain
		switch {
		case o.Flags&port.Control != 0 && q.control >= 0:
			to = q.control
		case o.Flags&port.Control != 0:
			to = q.plain
		case o.Frame.Offload.IsGSO():
			to = q.gso
		}
		// Frames pending for the other socket go first, to keep the order.
		if r.n == len(r.headers) || to != fd {
			q.flush(r, fd)
			fd = to
		}
		if o.Drop = r.add(o); o.Drop == port.DropNone && marks != nil {
			r.mark(marks[i])
		}
	}
	q.flush(r, fd)
	runs.Put(r)
	q.mu.RUnlock()
}

// add puts a frame into the run, or returns why it cannot be sent.
func (r *run) add(out *port.Out) port.Drop {
	f := out.Frame
	if len(f.Data) < port.HeaderLen {
		return port.DropRunt
	}
	o := f.Offload
	if o != (port.Offload{}) {
		if !vnet.Valid(o, len(f.Data)) {
			return port.DropBadOffload
		}
		o.HdrLen = uint16(min(int(o.HdrLen), len(f.Data), maxHint))
		o = vnet.Tag(o, out.TagLen())
	}
	head := r.heads[r.n][:]
	vnet.Encode(head, o)
	n := vnet.HeaderLen + out.PutHeader(head[vnet.HeaderLen:])
	v, h := &r.vectors[r.n], &r.headers[r.n].Msghdr
	if rest := f.Data[12:]; len(rest) <= inline {
		n += copy(head[n:], rest)
		h.SetIovlen(1)
	} else {
		v[1].Base = &rest[0]
		v[1].SetLen(len(rest))
		h.SetIovlen(2)
	}
	v[0].SetLen(n)
	r.outs[r.n] = out
	r.n++
	return port.DropNone
}

// flush sends the run and empties it. The kernel stops at the first frame that it does
// not accept and reports the error at the next call, which tries that frame again. If it
// fails again, it is dropped, and the rest is sent.
func (q *queue) flush(r *run, fd int) {
	took, refused, stopped := 0, 0, 0 // stopped: 1 after a call that did not take all
	shaped := q.shaping.on.Load() && (fd == q.gso || fd == q.control)
	for i := 0; i < r.n; {
		sent, errno := mmsg.Send(fd, r.headers[i:r.n])
		if errno == 0 {
			i, took, refused = i+sent, took+sent, refused+stopped
			stopped = min(r.n-i, 1)
			continue
		}
		if errno == unix.ENOBUFS {
			refused += 1 + stopped
		}
		stopped = 0
		// A TAP returns the same error if its ring is full and if nobody holds it.
		if errno == unix.ENOBUFS && flags(fd, q.ifindex)&unix.IFF_RUNNING == 0 {
			for ; i < r.n; i++ {
				r.outs[i].Drop = port.DropNoCarrier
			}
			break
		}
		r.outs[i].Drop = reason(errno, r.outs[i].Frame)
		if shaped && errno == unix.ENOBUFS {
			r.outs[i].Drop = port.DropShaped
		}
		i++
	}
	if shaped {
		q.shaping.told.Add(uint64(refused))
	}
	if q.isQueued() && fd != q.plain {
		refused = 0 // the discipline refused them; the device did not count that
	}
	q.losses.count(took, refused, fd != q.plain)
	// Keep no pointers to frames: their memory may be unmapped and reused by the Go
	// heap, which crashes on a pointer that it did not make.
	for i := range r.n {
		r.vectors[i][1].Base = nil
		r.outs[i] = nil
		r.headers[i].SetControllen(0)
	}
	r.n = 0
}

func reason(errno unix.Errno, f *port.Frame) port.Drop {
	switch errno {
	case unix.ENOBUFS, unix.EAGAIN, unix.ENOMEM:
		return port.DropQueueFull
	case unix.EMSGSIZE:
		return port.DropTooBig
	case unix.ENETDOWN: // the device is set down
		return port.DropNoCarrier
	case unix.ENXIO, unix.ENODEV: // the device was deleted or moved
		return port.DropPortClosed
	case unix.EINVAL:
		if f.Offload != (port.Offload{}) {
			return port.DropBadOffload
		}
	}
	return port.DropIOError
}
