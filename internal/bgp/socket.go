package bgp

import (
	"net/netip"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	ttl   = 255  // that of all packets: a neighbour may demand it, so that none from another network passes for one of ours (RFC 5082)
	class = 0xc0 // CS6, that of routing: what fills the network must not end the sessions (RFC 4594 section 3.2)
)

// setPackets sets TTL and class of what a socket and its connections send. Where that is not possible, sessions go without.
func setPackets(network, _ string, raw syscall.RawConn) error {
	return raw.Control(func(fd uintptr) {
		if strings.HasSuffix(network, "6") {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, ttl)
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_TCLASS, class)
			return
		}
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, ttl)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS, class)
	})
}

// MaxPassword is the longest TCP MD5 password in bytes (TCP_MD5SIG_MAXKEYLEN).
const MaxPassword = len(unix.TCPMD5Sig{}.Key)

// setPassword sets the password of TCP MD5 signatures (RFC 2385) with a neighbour on a socket
// that listens; "" removes it.
func setPassword(of syscall.Conn, neighbor netip.Addr, password string) error {
	raw, err := of.SyscallConn()
	if err != nil {
		return err
	}
	return setRawPassword(raw, neighbor, password)
}

// setRawPassword is setPassword for a socket that is about to connect.
func setRawPassword(raw syscall.RawConn, neighbor netip.Addr, password string) (err error) {
	sig := unix.TCPMD5Sig{Keylen: uint16(min(len(password), MaxPassword))}
	copy(sig.Key[:], password)
	// Data begins after the family: a port, and before an IPv6 address a flow label.
	if neighbor.Is4() {
		sig.Addr.Family = unix.AF_INET
		copy(sig.Addr.Data[2:], neighbor.AsSlice())
	} else {
		sig.Addr.Family = unix.AF_INET6
		copy(sig.Addr.Data[6:], neighbor.AsSlice())
	}
	if e := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptTCPMD5Sig(int(fd), unix.IPPROTO_TCP, unix.TCP_MD5SIG, &sig)
	}); e != nil {
		return e
	}
	return err
}
