// Package mmsg has the system calls for many messages at once, recvmmsg(2) and
// sendmmsg(2), which x/sys lacks. Its functions never wait, allocate nothing, and are
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

// Recv receives up to len(h) messages and returns how many came. With none there the
// error is EAGAIN.
func Recv(fd int, h []Header) (int, unix.Errno) {
	return call(unix.SYS_RECVMMSG, fd, h, unix.MSG_DONTWAIT)
}

// Peek is Recv of messages that stay where they are; N says how long they are, even where
// there is less room for them.
func Peek(fd int, h []Header) (int, unix.Errno) {
	return call(unix.SYS_RECVMMSG, fd, h, unix.MSG_DONTWAIT|unix.MSG_PEEK|unix.MSG_TRUNC)
}

// Send sends up to len(h) messages and returns how many went. It stops at the first that
// fails; an error is only that of h[0].
func Send(fd int, h []Header) (int, unix.Errno) {
	return call(unix.SYS_SENDMMSG, fd, h, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

func call(number uintptr, fd int, h []Header, flags uintptr) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(number, uintptr(fd), uintptr(unsafe.Pointer(&h[0])), uintptr(len(h)), flags, 0, 0)
	return int(n), errno
}
