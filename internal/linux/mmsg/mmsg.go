// Package mmsg wraps recvmmsg(2) and sendmmsg(2), which transfer many messages in one
// system call and which x/sys lacks. Its functions never wait, allocate nothing, and are
// safe for concurrent use on different headers.
package mmsg

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Header is struct mmsghdr.
type Header struct {
	unix.Msghdr
	N uint32 // bytes received or sent
}

// Recv receives up to len(h) messages and returns their number. If there are none, the
// error is EAGAIN.
func Recv(fd int, h []Header) (int, unix.Errno) {
	return call(unix.SYS_RECVMMSG, fd, h, unix.MSG_DONTWAIT)
}

// Peek is Recv, but the messages stay in the queue; N is their full length, even if the
// buffer is shorter.
func Peek(fd int, h []Header) (int, unix.Errno) {
	return call(unix.SYS_RECVMMSG, fd, h, unix.MSG_DONTWAIT|unix.MSG_PEEK|unix.MSG_TRUNC)
}

// Send sends up to len(h) messages and returns how many it sent. It stops at the first that
// fails and returns an error only if that is h[0].
func Send(fd int, h []Header) (int, unix.Errno) {
	return call(unix.SYS_SENDMMSG, fd, h, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

func call(number uintptr, fd int, h []Header, flags uintptr) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(number, uintptr(fd), uintptr(unsafe.Pointer(&h[0])), uintptr(len(h)), flags, 0, 0)
	return int(n), errno
}
