package vxlan_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/porttest"
	"github.com/vswitch/vswitch/port/vxlan"
)

var kind = porttest.Kind(vxlan.New())

var serial atomic.Uint32

// hosts returns addresses of the loopback that no other test uses.
func hosts(n int) (all []netip.Addr) {
	pid := os.Getpid()
	for range n {
		all = append(all, netip.AddrFrom4([4]byte{127, byte(pid>>8) | 0x80, byte(pid), byte(serial.Add(1))}))
	}
	return all
}

// udpPort is the tunnels' in these tests; with it the addresses differ among two hundred.
func udpPort() uint16 { return uint16(4789 + serial.Load()/200) }

func vnis(t testing.TB, text string) (v vxlan.VNIs) {
	t.Helper()
	if err := v.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return v
}

// spec is that of a port between two hosts, checked and completed as the daemon does it.
func spec(t testing.TB, s vxlan.Settings) port.Spec {
	t.Helper()
	made, err := port.Catalog{Kinds: port.Kinds{kind}}.Spec("up0", "vxlan", setting.PatchOf(s))
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// remote is another VTEP, as a UDP socket.
type remote struct {
	t    testing.TB
	conn *net.UDPConn
	to   netip.AddrPort
	vni  uint32
}

func newRemote(t testing.TB, at, to netip.Addr, udpPort uint16, vni uint32) *remote {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, udpPort)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetReadBuffer(8 << 20)
	return &remote{t, c, netip.AddrPortFrom(to, udpPort), vni}
}

// header is a VXLAN header.
func header(vni uint32) []byte {
	return []byte{0x08, 0, 0, 0, byte(vni >> 16), byte(vni >> 8), byte(vni), 0}
}

// Send implements porttest.Peer.
func (r *remote) Send(wire []byte, _ port.Offload) error {
	_, err := r.conn.WriteToUDPAddrPort(append(header(r.vni), wire...), r.to)
	return err
}

// Recv implements porttest.Peer.
func (r *remote) Recv(timeout time.Duration) ([]byte, port.Offload, error) {
	_ = r.conn.SetReadDeadline(time.Now().Add(timeout))
	b := make([]byte, 1<<16)
	n, _, err := r.conn.ReadFromUDPAddrPort(b)
	if err != nil {
		return nil, port.Offload{}, err
	}
	if want := header(r.vni); n < 8 || string(b[:8]) != string(want) {
		return nil, port.Offload{}, fmt.Errorf("header % x, want % x", b[:min(n, 8)], want)
	}
	return b[8:n], port.Offload{}, nil
}

func TestPort(t *testing.T) {
	porttest.Run(t, func(t *testing.T) porttest.Fixture {
		h, udp := hosts(2), udpPort()
		s := spec(t, vxlan.Settings{Local: setting.Addr{Addr: h[0]}, Peers: vxlan.Peers{h[1].String()}, VNI: vnis(t, "100"), VXLANPort: udp})
		p := porttest.Open[port.Port](t, kind, s, new(port.Trace))
		return porttest.Fixture{Port: p, Peer: newRemote(t, h[1], h[0], udp, 100), MaxLen: 60_000, Silent: true}
	})
}
