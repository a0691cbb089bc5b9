// Package routing marks the packets of routing protocols, such as BGP and BFD: neighbours and the
// network treat them by their TTL and class. Any goroutine may call it.
package routing

import (
	"cmp"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// TTL is that of all packets. A neighbour may demand it, so that none from another network passes
	// for one of ours (RFC 5082, RFC 5881 section 5).
	TTL = 255

	// Class is CS6, that of routing: what fills the network must not end a session (RFC 4594 section 3.2).
	Class = 0xc0
)

// Mark sets TTL and class of what a socket sends, and the connections that it accepts. If one of them
// cannot be set, the other is.
func Mark(raw syscall.RawConn, ip6 bool) (err error) {
	level, ttl, class := unix.IPPROTO_IP, unix.IP_TTL, unix.IP_TOS
	if ip6 {
		level, ttl, class = unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, unix.IPV6_TCLASS
	}
	if e := raw.Control(func(fd uintptr) {
		err = cmp.Or(unix.SetsockoptInt(int(fd), level, ttl, TTL), unix.SetsockoptInt(int(fd), level, class, Class))
	}); e != nil {
		return e
	}
	return err
}
