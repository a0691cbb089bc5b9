package tuntest

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/port"
)

// TunnelGuest is a Guest that segments what it sends in UDP tunnels (VXLAN, GENEVE) as
// little as anything else (VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO, Linux 6.17).
type TunnelGuest struct{ g *Guest }

// What a header says of tunnels (virtio 1.4, 5.1.6): GSO types, a flag, its length.
const (
	tunnelIPv4, tunnelIPv6 = 0x20, 0x40
	tunnelCsum             = 8
	tunnelHeaderLen        = 24

	tunnelOffloads = USO | 0x80 | 0x100 // TUN_F_UDP_TUNNEL_GSO, TUN_F_UDP_TUNNEL_GSO_CSUM
)

// BootTunnels is Boot of a TunnelGuest. It skips the test where the kernel has none.
func BootTunnels(t testing.TB, name string) TunnelGuest {
	t.Helper()
	g := Boot(t, name, None)
	conn, err := g.f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var setErr error
	if err := conn.Control(func(fd uintptr) {
		if setErr = unix.IoctlSetPointerInt(int(fd), unix.TUNSETVNETHDRSZ, tunnelHeaderLen); setErr == nil {
			setErr = unix.IoctlSetInt(int(fd), unix.TUNSETOFFLOAD, tunnelOffloads)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if errors.Is(setErr, unix.EINVAL) {
		t.Skip("this kernel's TAPs take no UDP tunnel segmentation (Linux 6.17)")
	}
	if setErr != nil {
		t.Fatal(setErr)
	}
	return TunnelGuest{g}
}

// Send transmits a super-frame in a UDP tunnel, whose outer UDP header, with a checksum
// or not, and inner IP header begin where it is said.
func (g TunnelGuest) Send(wire []byte, o port.Offload, outerV6, csum bool, outerTransport, innerNetwork int) error {
	if outerV6 {
		o.GSOType |= tunnelIPv6
	} else {
		o.GSOType |= tunnelIPv4
	}
	if csum {
		o.Flags |= tunnelCsum
	}
	b := packet(nil, o)
	b = append(b, make([]byte, tunnelHeaderLen-len(b))...)
	binary.LittleEndian.PutUint16(b[20:], uint16(outerTransport))
	binary.LittleEndian.PutUint16(b[22:], uint16(innerNetwork))
	_, err := g.g.f.Write(append(b, wire...))
	return err
}

// Plain transmits a frame that is whole.
func (g TunnelGuest) Plain(wire []byte) error {
	_, err := g.g.f.Write(append(make([]byte, tunnelHeaderLen), wire...))
	return err
}
