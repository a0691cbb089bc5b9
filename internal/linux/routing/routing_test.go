package routing

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMark(t *testing.T) {
	for _, c := range []struct {
		network            string
		level, hops, class int
	}{{"udp4", unix.IPPROTO_IP, unix.IP_TTL, unix.IP_TOS}, {"udp6", unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, unix.IPV6_TCLASS}} {
		s, err := net.ListenUDP(c.network, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		raw, err := s.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := Mark(raw, c.network == "udp6"); err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) {
			hops, _ := unix.GetsockoptInt(int(fd), c.level, c.hops)
			class, _ := unix.GetsockoptInt(int(fd), c.level, c.class)
			if hops != 255 || class != 0xc0 {
				t.Errorf("%s: TTL %d and class %#x", c.network, hops, class)
			}
		})
	}
}
