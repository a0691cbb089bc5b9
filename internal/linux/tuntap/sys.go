package tuntap

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// writev is writev(2) of two pieces. The wrapper in x/sys allocates.
func writev(fd int, iov *[2]unix.Iovec) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(iov)), uintptr(len(iov)))
	return errno
}
