package vxlan_test

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/linux/fastpath"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/porttest"
	"github.com/vswitch/vswitch/port/vxlan"
	vswitch "github.com/vswitch/vswitch/switch"
)

// kind is that of a switch without a fast path.
var kind = porttest.Kind(vxlan.New(vxlan.Options{Switch: "sw0", NoKernel: "--fastpath off"}))

// plane is what carries the frames of a test's tunnel, and where the hosts are.
//
//	sockets   all hosts are addresses of the loopback
//	kernel    tunnel ── here ── ul0 ═══ ul1 ── there, with all other hosts
type plane struct {
	kind        port.Kind
	path        *fastpath.Path
	here, there *testenv.Netns
	t           testing.TB
}

// onEach runs a test on each data plane.
func onEach(t *testing.T, test func(t *testing.T, p *plane)) {
	t.Run("sockets", func(t *testing.T) { test(t, &plane{kind: kind}) })
	t.Run("kernel", func(t *testing.T) { test(t, newKernel(t)) })
}

// newKernel makes the namespaces, and the fast path of a switch.
func newKernel(t testing.TB) *plane {
	t.Helper()
	p := &plane{here: testenv.NewNetns(t), there: testenv.NewNetns(t), t: t}
	p.here.Run("ip", "link", "add", "ul0", "mtu", "65535", "type", "veth", "peer", "name", "ul1", "mtu", "65535", "netns", p.there.Name)
	for ns, dev := range map[*testenv.Netns]string{p.here: "ul0", p.there: "ul1"} {
		ns.Run("ip", "link", "set", dev, "up")
	}
	// What leaves has its checksums; a veth would hand over what it does not have yet.
	p.here.Run("ethtool", "-K", "ul0", "tx", "off")
	p.here.Do(func() {
		var err error
		p.path, err = fastpath.Open(fastpath.Options{Name: "sw0", Capacity: 64, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
		if err != nil {
			t.Fatal(err)
		}
	})
	p.path.Bind(fdb.New(fdb.Config{Capacity: 64, Observer: p.path}))
	t.Cleanup(p.path.Stop)
	p.kind = porttest.Kind(vxlan.New(vxlan.Options{
		Switch: "sw0",
		Kernel: func(ifindex int, local netip.Addr) (vxlan.Kernel, error) { return p.path.Tunnel(ifindex, local) },
	}))
	return p
}

// do runs f where the tunnel is; off where the other hosts are.
func (p *plane) do(f func()) {
	if p.here != nil {
		p.here.Do(f)
	} else {
		f()
	}
}

func (p *plane) off(f func()) {
	if p.there != nil {
		p.there.Do(f)
	} else {
		f()
	}
}

// hosts returns addresses, the first for the tunnel, that no other test has.
func (p *plane) hosts(n int, v6 bool) (all []netip.Addr) {
	if p.here == nil {
		return hosts(n)
	}
	a, bits := netip.MustParseAddr("192.0.2.1"), "/24"
	if v6 {
		a, bits = netip.MustParseAddr("2001:db8::1"), "/64"
	}
	for range n {
		ns, dev := p.there, "ul1"
		if len(all) == 0 {
			ns, dev = p.here, "ul0"
		}
		if v6 {
			ns.Run("sysctl", "-qw", "net.ipv6.conf."+dev+".disable_ipv6=0")
			ns.Run("ip", "addr", "add", a.String()+bits, "dev", dev, "nodad")
		} else {
			ns.Run("ip", "addr", "add", a.String()+bits, "dev", dev)
		}
		p.acquaint(ns, a)
		if v6 {
			// The kernel makes the route of a new address in its own time.
			testenv.Eventually(p.t, "the address is usable", func() bool {
				return ns.Run("ip", "-6", "route", "show", "table", "local", a.String()) != ""
			})
		}
		all = append(all, a)
		a = a.Next()
	}
	return all
}

// acquaint tells the other namespace which device has an address. What the kernel sends while it
// has yet to ask, it keeps; and what is sent while it lets that go may overtake it.
func (p *plane) acquaint(ns *testenv.Netns, a netip.Addr) {
	from, dev, peer := p.here, "ul0", "ul1"
	if ns == p.here {
		from, dev, peer = p.there, "ul1", "ul0"
	}
	mac := strings.TrimSpace(ns.Run("cat", "/sys/class/net/"+peer+"/address"))
	from.Run("ip", "neigh", "replace", a.String(), "lladdr", mac, "nud", "permanent", "dev", dev)
}

// open opens a port, and in the kernel has the fast path pass all frames, and those that it
// refuses, up to it.
func (p *plane) open(t testing.TB, s port.Spec) (tunnel port.Tunnel) {
	t.Helper()
	p.do(func() {
		tunnel = porttest.Open[port.Tunnel](t, p.kind, s, new(port.Trace))
		if p.path == nil {
			return
		}
		end, ok := tunnel.(port.KernelEnd)
		if !ok {
			t.Fatalf("no device carries the frames: %v", tunnel.(port.Substitute).Substitutes())
		}
		p.path.Publish([]vswitch.FastPort{{Number: 1, Device: end, Drops: true, Tunnel: true, VLANs: &port.AllVLANs}}, vswitch.FastFlood{})
		p.path.Start()
	})
	return tunnel
}

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

// TestConformanceKernel is TestConformance with a device.
func TestConformanceKernel(t *testing.T) {
	for name, v6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			porttest.Run(t, func(t *testing.T) (f porttest.Fixture) {
				p := newKernel(t)
				h := p.hosts(2, v6)
				s := spec(t, vxlan.Settings{Local: setting.Addr{Addr: h[0]}, Peers: vxlan.Peers{h[1].String()}, VNI: vnis(t, "100")})
				f = porttest.Fixture{MaxLen: 60_000, Silent: true}
				p.off(func() { f.Peer = newRemote(t, h[1], h[0], 4789, 100) })
				f.Port = p.open(t, s)
				return f
			})
		})
	}
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

// What a port on sockets is said to take is what it takes: the daemon refuses a port that does not fit,
// and dies of one that takes more.
func TestNeeds(t *testing.T) {
	for _, queues := range []int{1, 4} {
		ns := testenv.NewNetns(t)
		ns.Do(func() {
			s := spec(t, vxlan.Settings{Local: setting.Addr{Addr: netip.MustParseAddr("127.0.0.1")}, VNI: vnis(t, "100"), Queues: queues, DataPlane: vxlan.OnSockets})
			p := porttest.Open[port.Port](t, kind, s, new(port.Trace))
			var sockets, memory int
			for line := range strings.Lines(ns.Run("ss", "-HuamO")) {
				sockets++
				if _, rest, ok := strings.Cut(line, ",rb"); ok && strings.Contains(line, ":4789 ") {
					size, _, _ := strings.Cut(rest, ",")
					n, err := strconv.Atoi(size)
					if err != nil {
						t.Fatal(err)
					}
					memory += n
				}
			}
			const others = 3 // at most: what tells it of routes and devices
			for _, open := range []int{0, len(p.Queues())} {
				needs := kind.(port.Sized).Needs(s, open)
				if needs.Files < sockets || needs.Files > sockets+others || needs.Memory != memory || needs.Threads < 1 || needs.Threads > others {
					t.Errorf("with %d queues, %d of them open, it is said to take %+v; it has %d sockets, whose buffers take %d bytes", queues, open, needs, sockets, memory)
				}
			}
		})
	}
}
