package unixsock

import (
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/port"
)

// inlineLen is up to how many bytes of a frame are copied beside its header rather
// than pointed to: for short ones the copy costs less than another piece of the vector.
const inlineLen = 256

// streamRun is a row of frames for one sendmsg on a stream.
type streamRun struct {
	n    int
	outs [port.BatchSize]*port.Out
	ends [port.BatchSize]int // where on the stream the frame ends, from the first one's length on

	hdr    unix.Msghdr
	pieces [2 * port.BatchSize]unix.Iovec
	stage  [port.BatchSize * (lengthLen + port.MaxHeader + inlineLen)]byte
}

var streamRuns = sync.Pool{New: func() any {
	r := new(streamRun)
	r.hdr.Iov = &r.pieces[0]
	return r
}}

// build makes r the frames of out that a socket can take; the others are told why not.
func (r *streamRun) build(out []port.Out) {
	pieces, used, total := 0, 0, 0
	open := -1 // where the piece of stage that is being filled begins
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

// all notes that every frame is lost, and why.
func (r *streamRun) all(why port.Drop) {
	for _, o := range r.outs[:r.n] {
		o.Drop = why
	}
}

// clear empties r. Pointers to frames must not stay: their memory may be unmapped and
// given to the Go heap, which refuses a pointer that it did not make.
func (r *streamRun) clear() {
	clear(r.pieces[:r.hdr.Iovlen])
	clear(r.outs[:r.n])
	r.n = 0
}
