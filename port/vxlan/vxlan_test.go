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
	"github.com/vswitch/vswitch/internal/test/testenv"
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

// TestConformance runs what each kind must pass, with IPv4 and IPv6 between the hosts.
func TestConformance(t *testing.T) {
	open := func(t *testing.T, local, other netip.Addr, udp uint16) porttest.Fixture {
		s := spec(t, vxlan.Settings{Local: setting.Addr{Addr: local}, Peers: vxlan.Peers{other.String()}, VNI: vnis(t, "100"), VXLANPort: udp})
		p := porttest.Open[port.Port](t, kind, s, new(port.Trace))
		return porttest.Fixture{Port: p, Peer: newRemote(t, other, local, udp, 100), MaxLen: 60_000, Silent: true}
	}
	t.Run("IPv4", func(t *testing.T) {
		porttest.Run(t, func(t *testing.T) porttest.Fixture {
			h := hosts(2)
			return open(t, h[0], h[1], udpPort())
		})
	})
	t.Run("IPv6", func(t *testing.T) {
		ns := testenv.NewNetns(t)
		local, other := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
		for _, a := range []netip.Addr{local, other} {
			ns.Run("ip", "addr", "add", a.String()+"/128", "dev", "lo", "nodad")
		}
		ns.Do(func() { awaitPath(t, local, other) })
		porttest.Run(t, func(t *testing.T) (f porttest.Fixture) {
			ns.Do(func() { f = open(t, local, other, 4789) })
			return f
		})
	})
}

// awaitPath waits until packets pass between two addresses, both ways: the kernel makes the
// routes of new IPv6 addresses in its own time.
func awaitPath(t *testing.T, a, b netip.Addr) {
	t.Helper()
	listen := func(at netip.Addr) *net.UDPConn {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 9)))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	ca, cb := listen(a), listen(b)
	defer ca.Close()
	defer cb.Close()
	for _, way := range [][2]*net.UDPConn{{ca, cb}, {cb, ca}} {
		testenv.Eventually(t, "packets pass", func() bool {
			to := way[1].LocalAddr().(*net.UDPAddr).AddrPort()
			if _, err := way[0].WriteToUDPAddrPort([]byte("?"), to); err != nil {
				return false
			}
			_ = way[1].SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			_, _, err := way[1].ReadFromUDPAddrPort(make([]byte, 1))
			return err == nil
		})
	}
}
