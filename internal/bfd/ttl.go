package bfd

import (
	"encoding/binary"
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/routing"
)

// mark gives what a socket sends the TTL that the neighbour demands, and the class of routing.
func mark(c *net.UDPConn, ip6 bool) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return routing.Mark(raw, ip6)
}

// receiveTTL has a socket tell the TTL or hop limit of what it receives.
func receiveTTL(c *net.UDPConn, ip6 bool) error {
	if ip6 {
		return setOption(c, unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1)
	}
	return setOption(c, unix.IPPROTO_IP, unix.IP_RECVTTL, 1)
}

func setOption(c *net.UDPConn, level, option, value int) (err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, value) }); e != nil {
		return e
	}
	return err
}

// ttlOf returns the TTL or hop limit in the control messages of a packet; 0: there is none.
func ttlOf(oob []byte) int {
	all, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for _, m := range all {
		ip4 := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_TTL
		ip6 := m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_HOPLIMIT
		if (ip4 || ip6) && len(m.Data) >= 4 {
			return int(binary.NativeEndian.Uint32(m.Data))
		}
	}
	return 0
}
