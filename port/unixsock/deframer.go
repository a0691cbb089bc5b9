package unixsock

import (
	"encoding/binary"
	"fmt"

	"github.com/vswitch/vswitch/internal/rxbuf"
	"github.com/vswitch/vswitch/port"
)

// lengthLen is the size of the field before each frame of a stream: the frame's length
// in bytes, 32 bits, big endian (QEMU net/stream.c, passt(1)).
const lengthLen = 4

// bufLen is how much of a stream is read at once: a batch of the longest frames that
// are not super-frames, and always at least one of the longest.
const bufLen = 128 << 10

var bufs = rxbuf.Pool[[bufLen]byte]{New: func() *[bufLen]byte { return new([bufLen]byte) }}

// deframer splits a stream into frames, in the memory it was read to.
type deframer struct {
	buf  *[bufLen]byte // nil while nothing is kept
	r, w int           // buf[r:w] was read but not returned
}

// lengthError is a length that no frame has: its sender speaks another protocol, and
// the start of the next frame is unknown.
type lengthError uint32

func (e lengthError) Error() string {
	return fmt.Sprintf("the peer announced a frame of %d bytes; they have %d to %d", uint32(e), port.HeaderLen, port.MaxFrame)
}

func (e lengthError) drop() port.Drop {
	if e < port.HeaderLen {
		return port.DropRunt
	}
	return port.DropOversize
}

// next returns the next complete frame, or nil if there is none. After an error there
// will be none.
func (d *deframer) next() ([]byte, error) {
	if d.w-d.r < lengthLen {
		return nil, nil
	}
	n := binary.BigEndian.Uint32(d.buf[d.r:])
	if n < port.HeaderLen || n > port.MaxFrame {
		return nil, lengthError(n)
	}
	from, to := d.r+lengthLen, d.r+lengthLen+int(n)
	if to > d.w {
		return nil, nil
	}
	d.r = to
	return d.buf[from:to:to], nil
}

// room returns where to read more to. It invalidates the frames that next returned and
// moves what is left to the front, so the rest of a frame always fits.
func (d *deframer) room() []byte {
	if d.buf == nil {
		d.buf = bufs.Rent()
	}
	if d.r > 0 {
		d.w = copy(d.buf[:], d.buf[d.r:d.w])
		d.r = 0
	}
	return d.buf[d.w:]
}

// tidy releases the memory if nothing is left in it.
func (d *deframer) tidy() {
	if d.r == d.w {
		d.reset()
	}
}

// reset discards what was not returned.
func (d *deframer) reset() {
	if d.buf != nil {
		bufs.Return(d.buf)
	}
	*d = deframer{}
}
