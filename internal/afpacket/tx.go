package afpacket

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/mmsg"
	"github.com/vswitch/vswitch/internal/vnet"
	"github.com/vswitch/vswitch/port"
)

// headLen is what stands before Data[12:] on output: the virtio-net header, the
// addresses, and the tags. It is always written anew: Data may be shared with a guest,
// and its addresses may no longer be those the frame was switched by.
const headLen = vnet.HeaderLen + port.MaxHeader

// maxHint bounds HdrLen, how much of a frame the kernel puts in one piece: enough for
// all headers. A sender's own hint could have it look for 64 KiB in one piece.
const maxHint = 256

// inline is up to which length a frame is copied behind its head: the kernel takes
// one piece on a shorter path than two, which for small frames costs more than the
// copy does.
const inline = 256

// run is a row of frames for one sendmmsg.
type run struct {
	n       int
	headers [port.BatchSize]mmsg.Header
	vectors [port.BatchSize][2]unix.Iovec
	heads   [port.BatchSize][headLen + inline]byte
	outs    [port.BatchSize]*port.Out
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
func (q *queue) Send(out []port.Out) {
	q.mu.RLock()
	if q.closed {
		q.mu.RUnlock()
		for i := range out {
			out[i].Drop = port.DropPortClosed
		}
		return
	}
	r := runs.Get().(*run)
	plain := q.plain
	if q.queued.Load() {
		plain = q.gso // small frames must not overtake super-frames
	}
	fd := plain
	for i := range out {
		o := &out[i]
		to := plain
		switch {
		case o.Control && q.control >= 0:
			to = q.control
		case o.Control:
			to = q.plain
		case o.Frame.Offload.IsGSO():
			to = q.gso
		}
		// What is pending for the other socket goes first: order holds.
		if r.n == len(r.headers) || to != fd {
			q.flush(r, fd)
			fd = to
		}
		o.Drop = r.add(o)
	}
	q.flush(r, fd)
	runs.Put(r)
	q.mu.RUnlock()
}

// add puts a frame into the run, or says why it cannot go.
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

// flush sends the run and empties it. The kernel stops at the first frame that it
// does not take and says so at the next call, which tries that frame again: then it
// is lost, the rest goes on.
func (q *queue) flush(r *run, fd int) {
	took, refused, stopped := 0, 0, 0 // stopped: 1 after a call that took less than all
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
		// A TAP whose ring is full and one that nobody holds say the same.
		if errno == unix.ENOBUFS && flags(fd, q.ifindex)&unix.IFF_RUNNING == 0 {
			for ; i < r.n; i++ {
				r.outs[i].Drop = port.DropNoCarrier
			}
			break
		}
		r.outs[i].Drop = reason(errno, r.outs[i].Frame)
		i++
	}
	if q.queued.Load() {
		refused = 0 // by the discipline, of which the device does not know
	}
	q.losses.count(took, refused, fd != q.plain)
	// Pointers to frames must not stay: their memory may be unmapped and given
	// to the Go heap, which refuses a pointer that it did not make.
	for i := range r.n {
		r.vectors[i][1].Base = nil
		r.outs[i] = nil
	}
	r.n = 0
}

func reason(errno unix.Errno, f *port.Frame) port.Drop {
	switch errno {
	case unix.ENOBUFS, unix.EAGAIN, unix.ENOMEM:
		return port.DropQueueFull
	case unix.EMSGSIZE:
		return port.DropTooBig
	case unix.ENETDOWN: // set down
		return port.DropNoCarrier
	case unix.ENXIO, unix.ENODEV: // deleted or moved away
		return port.DropPortClosed
	case unix.EINVAL:
		if f.Offload != (port.Offload{}) {
			return port.DropBadOffload
		}
	}
	return port.DropIOError
}
