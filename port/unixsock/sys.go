package unixsock

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// sendmsg sends one message, or a part of it on a stream, and never waits. The wrapper
// in x/sys allocates.
func sendmsg(fd int, h *unix.Msghdr) (int, unix.Errno) {
	n, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(h)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	return int(n), errno
}

// connect is connect(2). The wrapper in x/sys takes no path that fills its field.
func connect(fd int, to *address) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&to.raw)), uintptr(to.len))
	return errno
}

// refuseRights makes the kernel refuse descriptors that a peer sends along (Linux 6.16;
// with older kernels the switch closes them). The switch takes none, and closing a
// foreign descriptor can take time.
func refuseRights(fd int) { _ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 0) }

// ready reports whether a descriptor is ready for events, or in error, now.
func ready(fd int, events int16) bool { return poll(fd, events, 0) }

// await waits until it is.
func await(fd int, events int16) { poll(fd, events, -1) }

// poll is poll(2) of one descriptor, for ms milliseconds, or forever if ms is negative.
func poll(fd int, events int16, ms int) bool {
	p := [1]unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		n, err := unix.Poll(p[:], ms)
		if err != unix.EINTR {
			return n > 0
		}
	}
}

// put makes v describe the bytes of b, which is not empty.
func put(v *unix.Iovec, b []byte) {
	v.Base = &b[0]
	v.SetLen(len(b))
}

// setPeer addresses the message h to peer.
func setPeer(h *unix.Msghdr, peer *address) {
	h.Name = (*byte)(unsafe.Pointer(&peer.raw))
	h.Namelen = peer.len
}
