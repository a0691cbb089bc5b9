package unixsock

import (
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/port"
)

// inlineLen is the longest payload that is copied beside its header instead of pointed
// to: for short frames, the copy costs less than another element of the vector.
const inlineLen = 256

// streamRun is a batch of frames for one sendmsg on a stream.
type streamRun struct {
	n    int
	outs [port.BatchSize]*port.Out
	ends [port.BatchSize]int // end of each frame on the stream, counted from the first one's length field

	hdr    unix.Msghdr
	pieces [2 * port.BatchSize]unix.Iovec
	stage  [port.BatchSize * (lengthLen + port.MaxHeader + inlineLen)]byte
}

var streamRuns = sync.Pool{New: func() any {
	r := new(streamRun)
	r.hdr.Iov = &r.pieces[0]
	return r
}}

// build fills r with the frames of out that a socket can take, and sets the drop reason
// of the others.
func (r *streamRun) build(out []port.Out) {
	pieces, used, total := 0, 0, 0
	open := -1 // start of the piece of stage being filled
	end := func() {
		if open >= 0 {
			put(&r.pieces[pieces], r.stage[open:used])
			pieces, open = pieces+1, -1
		}
	}
	for i := range out {
		o := &out[i]
		if o.Drop = refuse(o); o.Drop != port.DropNone {
			continue
		}
		if open < 0 {
			open = used
		}
		binary.BigEndian.PutUint32(r.stage[used:], uint32(o.Len()))
		used += lengthLen
		used += o.PutHeader(r.stage[used:])
		if rest := o.Frame.Data[12:]; len(rest) <= inlineLen {
			used += copy(r.stage[used:], rest)
		} else {
			end()
			put(&r.pieces[pieces], rest)
			pieces++
		}
		total += lengthLen + o.Len()
		r.outs[r.n], r.ends[r.n] = o, total
		r.n++
	}
	end()
	r.hdr.SetIovlen(pieces)
}

// all records one drop reason for every frame.
func (r *streamRun) all(why port.Drop) {
	for _, o := range r.outs[:r.n] {
		o.Drop = why
	}
}

// clear empties r. Pointers to frames must not stay: their memory may be unmapped and
// reused by the Go heap, which refuses pointers that it did not make.
func (r *streamRun) clear() {
	clear(r.pieces[:r.hdr.Iovlen])
	clear(r.outs[:r.n])
	r.n = 0
}
