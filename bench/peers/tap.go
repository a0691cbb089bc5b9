package main

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// end is where a guest is connected. It is used by one thread at a time. A packet
// is a frame behind its virtio-net header (headerLen bytes).
type end interface {
	// write sends a packet, and tells whether it was taken. It does not wait.
	write(packet []byte) bool
	// read returns the next packet, valid until the next read, or nil if none is there.
	read() []byte
	// wait waits until there is a packet to read, and tells whether there is.
	wait(timeout time.Duration) bool
	close()
}

// tapEnd is the fd end of a TAP, as QEMU holds it.
type tapEnd struct {
	fd   int
	buf  []byte
	poll [1]unix.PollFd
}

// offloads is what the guests offer, as Linux guests on QEMU do.
const offloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN

func tapName(i int) string { return fmt.Sprintf("vm%d", i) }

// taps makes n TAPs in the namespace, up, and returns their fd ends. They are gone
// when these are closed.
func (l *lab) taps(ctx context.Context, n int) (ends []end, err error) {
	defer func() {
		if err != nil {
			closeAll(ends)
			ends = nil
		}
	}()
	var up strings.Builder
	for i := range n {
		var e *tapEnd
		l.do(func() { e, err = openTAP(tapName(i)) })
		if err != nil {
			return ends, fmt.Errorf("make TAP %s: %w", tapName(i), err)
		}
		ends = append(ends, e)
		fmt.Fprintf(&up, "link set %s up\n", tapName(i))
	}
	_, err = l.runInput(ctx, up.String(), "ip", "-batch", "-")
	return ends, err
}

func closeAll(ends []end) {
	for _, e := range ends {
		e.close()
	}
}

func openTAP(name string) (*tapEnd, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, headerLen)
	}
	if err == nil {
		err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	e := &tapEnd{fd: fd, buf: make([]byte, 1<<17)}
	e.poll[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	return e, nil
}

// RawSyscall leaves the Go scheduler out, which costs as much as a small frame does.
// These calls do not wait, so the scheduler is not needed.

func (e *tapEnd) write(packet []byte) bool {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(e.fd), uintptr(unsafe.Pointer(&packet[0])), uintptr(len(packet)))
	return errno == 0
}

func (e *tapEnd) read() []byte {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(e.fd), uintptr(unsafe.Pointer(&e.buf[0])), uintptr(len(e.buf)))
	if errno != 0 {
		return nil
	}
	return e.buf[:n]
}

func (e *tapEnd) wait(timeout time.Duration) bool {
	n, _ := unix.Poll(e.poll[:], int(timeout.Milliseconds())) // EINTR: the caller asks again
	return n > 0
}

func (e *tapEnd) close() { unix.Close(e.fd) }
