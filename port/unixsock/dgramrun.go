package unixsock

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/mmsg"
	"github.com/vswitch/vswitch/port"
)

// dgramRun is a batch of frames for one sendmmsg.
type dgramRun struct {
	n       int
	outs    [port.BatchSize]*port.Out
	headers [port.BatchSize]mmsg.Header
	pieces  [port.BatchSize][2]unix.Iovec
	heads   [port.BatchSize][port.MaxHeader]byte
}

var dgramRuns = sync.Pool{New: func() any {
	r := new(dgramRun)
	for i := range r.headers {
		r.headers[i].Iov = &r.pieces[i][0]
		r.headers[i].SetIovlen(2)
	}
	return r
}}

// build fills r with the frames of out that a socket can take, for peer, and sets the
// drop reason of the others.
func (r *dgramRun) build(out []port.Out, peer *address) {
	for i := range out {
		o := &out[i]
		if o.Drop = refuse(o); o.Drop != port.DropNone {
			continue
		}
		head := r.heads[r.n][:]
		put(&r.pieces[r.n][0], head[:o.PutHeader(head)])
		put(&r.pieces[r.n][1], o.Frame.Data[12:])
		setPeer(&r.headers[r.n].Msghdr, peer)
		r.outs[r.n] = o
		r.n++
	}
}

// all records one drop reason for every frame.
func (r *dgramRun) all(why port.Drop) {
	for _, o := range r.outs[:r.n] {
		o.Drop = why
	}
}

// clear empties r. Pointers to frames must not stay: their memory may be unmapped and
// reused by the Go heap, which refuses pointers that it did not make.
func (r *dgramRun) clear() {
	for i := range r.n {
		r.pieces[i][1].Base = nil
		r.headers[i].Name = nil
	}
	clear(r.outs[:r.n])
	r.n = 0
}

// drainRun is a batch of frames from a backlog for one sendmmsg. Each port keeps one,
// so it is short.
type drainRun struct {
	headers [drainLen]mmsg.Header
	pieces  [drainLen][2]unix.Iovec
	ends    [drainLen]int // where the frame ends in the backlog
}

const drainLen = 16

func (r *drainRun) init() {
	for i := range r.headers {
		r.headers[i].Iov = &r.pieces[i][0]
	}
}

// build fills r with the first frames of q, for peer, and returns their number.
func (r *drainRun) build(q *backlog, peer *address) (n int) {
	for off := 0; n < drainLen && off < q.len(); n++ {
		length := q.frameLen(off)
		a, b := q.at(off+lengthLen, length)
		h := &r.headers[n]
		put(&r.pieces[n][0], a)
		h.SetIovlen(1)
		if len(b) > 0 {
			put(&r.pieces[n][1], b)
			h.SetIovlen(2)
		}
		setPeer(&h.Msghdr, peer)
		off += lengthLen + length
		r.ends[n] = off
	}
	return n
}
