package main

import (
	"context"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// streamEnd is a guest at a unix socket, for QEMU's -netdev stream: each frame stands
// behind its length, 32 bits, big endian. What a guest sends before it looks at the
// other direction goes out by one call, so that the guest is not what is measured;
// what there is to read is read at once.
type streamEnd struct {
	descriptor
	out  []byte // what the socket has not taken
	in   []byte
	r, w int // in[r:w] was read and not handed out
}

const (
	lengthLen = 4

	// maxOut is how much waits for the socket: a window's bytes.
	maxOut = maxWindowBytes

	// streamBuffer is what a guest's socket holds, as the kernel accounts it: a
	// window of small frames takes eight times their bytes and more.
	streamBuffer = 4 << 20
)

// streams connects to sockets that the switch listens on.
func (l *lab) streams(ctx context.Context, paths []string) (ends []end, err error) {
	for _, path := range paths {
		var e *streamEnd
		err = l.poll(ctx, func() error {
			e, err = dialStream(path)
			return err
		})
		if err != nil {
			closeAll(ends)
			return nil, fmt.Errorf("connect to %s: %w", path, err)
		}
		ends = append(ends, e)
	}
	return ends, nil
}

func dialStream(path string) (*streamEnd, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, streamBuffer)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return newStreamEnd(fd), nil
}

func newStreamEnd(fd int) *streamEnd {
	// A header's room stays in front, for the first frame.
	return &streamEnd{descriptor: newDescriptor(fd), in: make([]byte, 1<<17), r: headerLen, w: headerLen}
}

func (e *streamEnd) write(packet []byte) bool {
	if len(e.out) >= maxOut {
		e.flush()
	}
	if len(e.out) >= maxOut {
		return false
	}
	frame := packet[headerLen:]
	e.out = binary.BigEndian.AppendUint32(e.out, uint32(len(frame)))
	e.out = append(e.out, frame...)
	return true
}

func (e *streamEnd) flush() {
	for len(e.out) > 0 {
		n, errno := write(e.fd, e.out)
		if errno != 0 {
			return
		}
		e.out = e.out[:copy(e.out, e.out[n:])]
	}
}

// read returns a frame behind headerLen bytes, which here say nothing.
func (e *streamEnd) read() []byte {
	if p := e.next(); p != nil {
		return p
	}
	if e.r > headerLen {
		e.w = headerLen + copy(e.in[headerLen:], e.in[e.r:e.w])
		e.r = headerLen
	}
	n, errno := read(e.fd, e.in[e.w:])
	if errno != 0 {
		return nil
	}
	e.w += n
	return e.next()
}

// next returns the next frame of what was read, nil if none is whole.
func (e *streamEnd) next() []byte {
	b := e.in[e.r:e.w]
	if len(b) < lengthLen {
		return nil
	}
	end := lengthLen + int(binary.BigEndian.Uint32(b))
	if end > len(b) {
		return nil
	}
	from := e.r + lengthLen - headerLen
	e.r += end
	return e.in[from:e.r]
}
