package afpacket

import "golang.org/x/sys/unix"

// flags returns the interface's flags, IFF_UP and others (netdevice(7)), 0 if it is gone.
func flags(fd, ifindex int) uint16 {
	var r unix.Ifreq
	r.SetUint32(uint32(ifindex))
	if unix.IoctlIfreq(fd, unix.SIOCGIFNAME, &r) != nil ||
		unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, &r) != nil {
		return 0
	}
	return r.Uint16()
}

// mtu returns the interface's MTU in bytes, 0 if it is gone.
func mtu(fd, ifindex int) int {
	var r unix.Ifreq
	r.SetUint32(uint32(ifindex))
	if unix.IoctlIfreq(fd, unix.SIOCGIFNAME, &r) != nil ||
		unix.IoctlIfreq(fd, unix.SIOCGIFMTU, &r) != nil {
		return 0
	}
	return int(r.Uint32())
}
