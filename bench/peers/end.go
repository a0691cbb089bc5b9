package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// end is a guest's end of its connection. One thread at a time uses it. A packet is a frame
// behind its virtio-net header (headerLen bytes).
type end interface {
	// write queues a packet, which leaves with flush at the latest, and reports whether it
	// was accepted. It does not wait.
	write(packet []byte) bool
	flush()
	// read returns the next packet, valid until the next read, or nil if there is none.
	read() []byte
	// wait waits for a packet to read and reports whether there is one.
	wait(timeout time.Duration) bool
	close()
}

func closeAll(ends []end) {
	for _, e := range ends {
		e.close()
	}
}

// guestName returns the name of guest i.
func guestName(i int) string { return fmt.Sprintf("vm%d", i) }

// connect runs the switch in the lab with the work's guests connected and returns their ends,
// which the caller closes.
func (l *lab) connect(ctx context.Context, p peer, w work) (ends []end, err error) {
	if w.By == byVXLAN {
		return l.connectHosts(ctx, p)
	}
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

// socket returns the path of guest i's socket.
func (l *lab) socket(i int) string { return filepath.Join(l.dir, guestName(i)+".sock") }

// descriptor is what all ends share.
type descriptor struct {
	fd   int
	poll [1]unix.PollFd
}

func newDescriptor(fd int) descriptor {
	return descriptor{fd, [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}}
}

// RawSyscall bypasses the Go scheduler, which costs as much as a small frame and delays
// wake-ups: each guest has its own thread and P. A thread only sees the scheduler's signals,
// which ask threads that seem busy to yield.

func write(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), errno
}

func read(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), errno
}

func (d *descriptor) wait(timeout time.Duration) bool {
	left := unix.NsecToTimespec(timeout.Nanoseconds()) // the kernel updates it, see ppoll(2)
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&d.poll)), 1,
			uintptr(unsafe.Pointer(&left)), 0, 0, 0)
		if errno != unix.EINTR {
			return errno == 0 && n > 0
		}
	}
}

func (d *descriptor) close() { unix.Close(d.fd) }
