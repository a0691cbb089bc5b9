package unixsock

import (
	"encoding/binary"

	"github.com/vswitch/vswitch/internal/rxbuf"
	"github.com/vswitch/vswitch/port"
)

// backlogLen is the room for frames to a peer that is behind, in bytes, beyond what the
// kernel holds: some 300 frames of 1514 bytes, as deep as a NIC's ring. It exceeds the
// longest frame, so the rest of a frame that the kernel took in part always fits.
const backlogLen = 512 << 10

var backlogs = rxbuf.Pool[[backlogLen]byte]{New: func() *[backlogLen]byte { return new([backlogLen]byte) }}

// backlog is a bounded queue of frames in a stream's format, each behind its length. It
// rents its memory only while it holds something.
type backlog struct {
	buf  *[backlogLen]byte
	r, w uint // running positions; the bytes lie from r to w modulo backlogLen
}

func (q *backlog) len() int { return int(q.w - q.r) }

// put appends a frame in the stream's format, without its first skip bytes. It reports
// whether there was room.
func (q *backlog) put(o *port.Out, skip int) bool {
	if lengthLen+o.Len()-skip > backlogLen-q.len() {
		return false
	}
	if q.buf == nil {
		q.buf = backlogs.Rent()
	}
	var head [lengthLen + port.MaxHeader]byte
	binary.BigEndian.PutUint32(head[:], uint32(o.Len()))
	n := lengthLen + o.PutHeader(head[lengthLen:])
	q.write(head[min(skip, n):n])
	q.write(o.Frame.Data[12+max(skip-n, 0):])
	return true
}

func (q *backlog) write(b []byte) {
	for len(b) > 0 {
		n := copy(q.buf[q.w%backlogLen:], b)
		q.w += uint(n)
		b = b[n:]
	}
}

// bytes returns a copy of what the queue holds.
func (q *backlog) bytes() []byte {
	if q.buf == nil {
		return nil
	}
	a, b := q.at(0, q.len())
	return append(append([]byte{}, a...), b...)
}

// fill puts the bytes of another queue into an empty one, and reports whether there is room.
func (q *backlog) fill(b []byte) bool {
	if len(b) > backlogLen {
		return false
	}
	if len(b) > 0 {
		q.buf = backlogs.Rent()
		q.write(b)
	}
	return true
}

// whole reports whether the queue holds frames, each behind its length.
func (q *backlog) whole() bool {
	at := 0
	for at+lengthLen <= q.len() {
		n := q.frameLen(at)
		if n < port.HeaderLen || n > port.MaxFrame {
			return false
		}
		at += lengthLen + n
	}
	return at == q.len()
}

// at returns n bytes from offset off, in two pieces if they wrap around.
func (q *backlog) at(off, n int) (a, b []byte) {
	from := (int(q.r%backlogLen) + off) % backlogLen
	if from+n <= backlogLen {
		return q.buf[from:][:n], nil
	}
	return q.buf[from:], q.buf[:from+n-backlogLen]
}

// frameLen returns the length of the frame whose length field is at off.
func (q *backlog) frameLen(off int) int {
	var l [lengthLen]byte
	a, b := q.at(off, lengthLen)
	copy(l[copy(l[:], a):], b)
	return int(binary.BigEndian.Uint32(l[:]))
}

// skip removes n bytes.
func (q *backlog) skip(n int) {
	if q.r += uint(n); q.r == q.w {
		q.reset()
	}
}

func (q *backlog) reset() {
	if q.buf != nil {
		backlogs.Return(q.buf)
	}
	*q = backlog{}
}
