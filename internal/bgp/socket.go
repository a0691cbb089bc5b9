package bgp

import (
	"net/netip"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/routing"
)

// mark gives what a socket and its connections send the TTL and the class of routing. Where that is not
// possible, sessions go without.
func mark(network, _ string, raw syscall.RawConn) error {
	_ = routing.Mark(raw, strings.HasSuffix(network, "6"))
	return nil
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
