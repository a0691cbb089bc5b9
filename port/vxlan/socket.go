package vxlan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/port"
)

const (
	// txSockets is how many source ports a tunnel uses. Hosts and routers between distribute
	// flows by them.
	txSockets = 16

	// socketBuffer is what the kernel may hold for a socket, in bytes as it accounts them. The
	// system's own limits (net.core.rmem_max and wmem_max) may be lower without rights.
	socketBuffer = 4 << 20
)

// newSocket makes a UDP socket that never waits, with the port's address and a port; 0: any
// that is free.
func newSocket(local netip.Addr, udpPort uint16, options ...func(fd int) error) (fd int, err error) {
	family := unix.AF_INET
	if local.Is6() {
		family = unix.AF_INET6
	}
	fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("make a UDP socket: %w", err)
	}
	for _, set := range options {
		if err := set(fd); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(local, udpPort))); err != nil {
		unix.Close(fd)
		return -1, bindError(err, local, udpPort)
	}
	return fd, nil
}

// bindError says why a socket cannot have an address and a port.
func bindError(err error, local netip.Addr, udpPort uint16) error {
	switch {
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return missing(local)
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("UDP port %d of %s is in use, perhaps by a vxlan device, a container network or another switch; choose another with --vxlan-port, the same at all hosts, or, where another port of this kind has it, give both --data-plane sockets", udpPort, local)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("UDP port %d is reserved for root; choose another with --vxlan-port, the same at all hosts", udpPort)
	}
	return fmt.Errorf("use UDP port %d of %s: %w", udpPort, local, err)
}

// missing is the error for an address that may come.
func missing(local netip.Addr) error {
	return port.Gone(fmt.Errorf("address %s is not on this host; give the host that address, or the port another one", local))
}

// isHere returns an error unless the host has an address.
func isHere(local netip.Addr) error {
	fd, err := newSocket(local, 0)
	if err == nil {
		err = unix.Close(fd)
	}
	return err
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// setName sets the address of a VTEP as the kernel takes it.
func (v *vtep) setName(udpPort uint16) {
	if v.addr.Is4() {
		n := (*unix.RawSockaddrInet4)(unsafe.Pointer(&v.name))
		n.Family, n.Addr = unix.AF_INET, v.addr.As4()
		v.length = unix.SizeofSockaddrInet4
	} else {
		v.name.Family, v.name.Addr = unix.AF_INET6, v.addr.As16()
		v.length = unix.SizeofSockaddrInet6
	}
	// Both have their port at the same place, in network byte order.
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&v.name.Port))[:], udpPort)
}

// sender returns the address in a name that the kernel wrote; invalid if it is none.
func sender(n *unix.RawSockaddrInet6) netip.Addr {
	switch n.Family {
	case unix.AF_INET:
		return netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(n)).Addr)
	case unix.AF_INET6:
		return netip.AddrFrom16(n.Addr)
	}
	return netip.Addr{}
}

// openSender makes a socket that sends. It sets "don't fragment": a VTEP must not fragment
// (RFC 7348 section 4.3).
func openSender(local netip.Addr) (int, error) {
	return newSocket(local, 0, func(fd int) error {
		bufferSize(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF)
		return dontFragment(fd, local)
	})
}

func dontFragment(fd int, local netip.Addr) error {
	if local.Is6() {
		return os.NewSyscallError("IPV6_MTU_DISCOVER", unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO))
	}
	return os.NewSyscallError("IP_MTU_DISCOVER", unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO))
}

// bufferSize sets a buffer's size, beyond the system's limit if the process may.
func bufferSize(fd, force, normal int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, socketBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, normal, socketBuffer) // or what the kernel allows
	}
}

// parcelFormat is the format of a tunnel's Parcel: the sockets that receive, in the order of their
// queues, and where stations are, as heritage. After a kill that is learned anew.
const parcelFormat = 1

// Give implements port.Giver. Two processes may have the sockets open: each datagram is received by
// one of them.
func (t *sockets) Give(bool) (*port.Parcel, error) {
	parcel, err := t.Last()
	if err == nil {
		parcel.Data, err = t.give()
	}
	return parcel, err
}

// LastChanged implements port.Lasting: it never does.
func (t *sockets) LastChanged() <-chan struct{} { return nil }

// Last implements port.Lasting.
func (t *sockets) Last() (*port.Parcel, error) {
	parcel := &port.Parcel{Format: parcelFormat}
	for _, q := range t.queues {
		var dup int
		var err error
		failed := q.raw.Control(func(fd uintptr) { dup, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
		if err := errors.Join(failed, err); err != nil {
			for _, fd := range parcel.Files {
				unix.Close(fd)
			}
			return nil, err
		}
		parcel.Files = append(parcel.Files, dup)
	}
	return parcel, nil
}

// receivers returns the sockets on the tunnel's UDP port: new ones, or those that are given.
func receivers(local netip.Addr, udpPort uint16, n int, from *port.Parcel) (files []*os.File, err error) {
	if from == nil {
		return openReceivers(local, udpPort, n)
	}
	if err := from.Check(parcelFormat, n); err != nil {
		return nil, err
	}
	for _, fd := range from.Files {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, err
		}
		files = append(files, os.NewFile(uintptr(dup), "vxlan"))
	}
	return files, nil
}

// openReceivers makes n sockets on the tunnel's UDP port. The kernel distributes senders'
// flows among them.
func openReceivers(local netip.Addr, udpPort uint16, n int) (files []*os.File, err error) {
	defer func() {
		if err != nil {
			for _, f := range files {
				f.Close()
			}
		}
	}()
	share := func(fd int) error {
		return os.NewSyscallError("SO_REUSEPORT", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	}
	receive := func(fd int) error {
		bufferSize(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF)
		_ = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) // Linux 5.0
		return nil
	}
	for i := range n {
		options := []func(int) error{receive}
		if i > 0 {
			options = append(options, share)
		}
		fd, err := newSocket(local, udpPort, options...)
		if err != nil {
			return files, err
		}
		files = append(files, os.NewFile(uintptr(fd), "vxlan"))
		// The first one shares its port only now, so that it did not get another switch's.
		if i == 0 && n > 1 {
			if err := share(fd); err != nil {
				return files, err
			}
		}
	}
	return files, nil
}

// routeMTU returns how long packets from a socket to an address may be: what the route's
// device takes, or less if routers said so. It connects the socket.
func routeMTU(fd int, to netip.Addr) (int, error) {
	if err := unix.Connect(fd, sockaddr(netip.AddrPortFrom(to, inVXLAN.udpPort()))); err != nil {
		return 0, err
	}
	if to.Is6() {
		return unix.GetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_MTU)
	}
	return unix.GetsockoptInt(fd, unix.SOL_IP, unix.IP_MTU)
}

// drops returns how many datagrams a socket has dropped because its buffer was full.
func drops(fd uintptr) uint64 {
	const skMemInfoDrops, vars = 8, 9 // include/uapi/linux/sock_diag.h
	var info [vars]uint32
	length := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return 0
	}
	return uint64(info[skMemInfoDrops])
}
