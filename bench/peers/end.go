package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// end is where a guest is connected. It is used by one thread at a time. A packet
// is a frame behind its virtio-net header (headerLen bytes).
type end interface {
	// write sends a packet, at the latest with flush, and tells whether it was taken.
	// It does not wait.
	write(packet []byte) bool
	flush()
	// read returns the next packet, valid until the next read, or nil if none is there.
	read() []byte
	// wait waits until there is a packet to read, and tells whether there is.
	wait(timeout time.Duration) bool
	close()
}

func closeAll(ends []end) {
	for _, e := range ends {
		e.close()
	}
}

// guestName is what guest i is called.
func guestName(i int) string { return fmt.Sprintf("vm%d", i) }

// connect runs the switch in the lab with the work's guests connected, and returns
// their ends, which the caller closes.
func (l *lab) connect(ctx context.Context, p peer, w work) (ends []end, err error) {
	places := make([]string, w.Ports)
	open := l.taps
	for i := range places {
		places[i] = guestName(i)
		if w.By == byStream {
			places[i], open = l.socket(i), l.streams
		}
	}
	first := w.By == byTAP && !p.makesTAPs()
	if first {
		if ends, err = open(ctx, places); err != nil {
			return nil, err
		}
	}
	if err := p.attach(ctx, l, w.By, places); err != nil {
		closeAll(ends)
		return nil, err
	}
	if first {
		return ends, nil
	}
	return open(ctx, places)
}

// socket is where guest i has its socket.
func (l *lab) socket(i int) string { return filepath.Join(l.dir, guestName(i)+".sock") }

// descriptor is what ends have in common.
type descriptor struct {
	fd   int
	poll [1]unix.PollFd
}

func newDescriptor(fd int) descriptor {
	return descriptor{fd, [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}}
}

// RawSyscall leaves the Go scheduler out, which costs as much as a small frame does, and
// delays those who wake up: each guest has a thread and a P of its own. Only its
// signals are seen, by which it asks threads that seem to be busy to give way.

func write(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), errno
}

func read(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), errno
}

func (d *descriptor) wait(timeout time.Duration) bool {
	left := unix.NsecToTimespec(timeout.Nanoseconds()) // the kernel keeps it, see ppoll(2)
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&d.poll)), 1,
			uintptr(unsafe.Pointer(&left)), 0, 0, 0)
		if errno != unix.EINTR {
			return errno == 0 && n > 0
		}
	}
}

func (d *descriptor) close() { unix.Close(d.fd) }
