package afpacket

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr of recvmmsg(2), which x/sys does not have.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32 // bytes received or sent
}

// recvmmsg receives up to len(h) messages and never waits.
func recvmmsg(fd int, h []mmsghdr) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&h[0])), uintptr(len(h)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// sendmmsg sends up to len(h) messages and never waits.
func sendmmsg(fd int, h []mmsghdr) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&h[0])), uintptr(len(h)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// flags returns the interface's flags, IFF_UP and others (netdevice(7)), 0 when it
// is gone.
func flags(fd, ifindex int) uint16 {
	var r unix.Ifreq
	r.SetUint32(uint32(ifindex))
	if unix.IoctlIfreq(fd, unix.SIOCGIFNAME, &r) != nil ||
		unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, &r) != nil {
		return 0
	}
	return r.Uint16()
}
