package main

import (
	"context"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// streamEnd is a guest at a unix socket, for QEMU's -netdev stream: each frame follows its
// length, 32 bits, big endian. What a guest sends before it checks the other direction goes
// out in one call, and all available input is read at once, so that the guest itself is not
// what is measured.
type streamEnd struct {
	descriptor
	out  []byte // what the socket has not accepted yet
	in   []byte
	r, w int // in[r:w] is read but not returned yet
}

const (
	lengthLen = 4

	// maxOut is how many bytes may wait for the socket: a window.
	maxOut = maxWindowBytes

	// streamBuffer is the buffer of a guest's socket as the kernel accounts it: a window of
	// small frames takes eight times its bytes and more.
	streamBuffer = 4 << 20
)

// streams connects to the switch's listening sockets.
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
	// Room for a header stays in front of the first frame.
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

// read returns a frame behind headerLen bytes, which have no meaning here.
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

// next returns the next complete frame of the input, or nil if there is none.
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
