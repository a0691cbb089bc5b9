package l2test

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/port"
)

// overlay is switches on hosts of their own, which a network between them joins.
//
//	h1 ── p1 switch A up0 ══╗
//	h2 ── p1 switch B up0 ══╬══ the underlay
//	h3 ── p1 switch C up0 ══╝
type overlay struct {
	t        testing.TB
	underlay *testenv.Netns
	sites    []*lan
	hosts    []*host // one at each
	v6       bool
}

// newOverlay makes so many switches, without a port to the underlay yet.
func newOverlay(t testing.TB, sites, mtu int, v6 bool, flags ...string) *overlay {
	t.Helper()
	o := &overlay{t: t, underlay: quietNetns(t), v6: v6}
	ip(t, o.underlay, "link add br0 type bridge\nlink set br0 up\n")
	for range sites {
		l := newLAN(t, 1, flags...)
		o.join(l.ns, mtu)
		o.sites, o.hosts = append(o.sites, l), append(o.hosts, l.hosts[0])
	}
	return o
}

// address gives all hosts addresses. Until then they are silent.
func (o *overlay) address() {
	o.t.Helper()
	for _, l := range o.sites {
		l.address()
	}
}

// join connects a namespace to the underlay by a device ul0.
func (o *overlay) join(ns *testenv.Netns, mtu int) {
	o.t.Helper()
	n := len(o.sites) + 1
	ip(o.t, ns, fmt.Sprintf("link add ul0 mtu %d type veth peer name ul%d mtu %d netns %s\n", mtu, n, mtu, o.underlay.Name))
	ns.Run("sysctl", "-qw", "net.ipv6.conf.ul0.disable_ipv6=0")
	ip(o.t, ns, fmt.Sprintf("link set ul0 up\naddr add 192.0.2.%d/24 dev ul0\naddr add 2001:db8::%[1]d/64 dev ul0 nodad\n", n))
	ip(o.t, o.underlay, fmt.Sprintf("link set ul%d master br0\nlink set ul%[1]d up\n", n))
}

// vtep is the address of a site, from 0 on.
func (o *overlay) vtep(site int) string {
	if o.v6 {
		return fmt.Sprintf("2001:db8::%d", site+1)
	}
	return fmt.Sprintf("192.0.2.%d", site+1)
}

// mesh gives each switch a tunnel to all others.
func (o *overlay) mesh(settings string) {
	o.t.Helper()
	for i, l := range o.sites {
		var peers []string
		for j := range o.sites {
			if j != i {
				peers = append(peers, o.vtep(j))
			}
		}
		l.sw.ctl("add-port up0 --kind vxlan --local %s --peers %s %s", o.vtep(i), strings.Join(peers, ","), settings)
	}
}

// onPlanes runs a test with what carries the frames of tunnels by itself: a device of the kernel
// where the switch has a fast path; and with sockets.
func onPlanes(t *testing.T, test func(t *testing.T, plane string)) {
	for _, plane := range []string{"", "--data-plane sockets"} {
		t.Run("plane"+strings.ReplaceAll(plane, " ", ""), func(t *testing.T) {
			t.Parallel()
			test(t, plane)
		})
	}
}

// hasGeneve reports whether the kernel has devices of that kind.
func hasGeneve(ns *testenv.Netns) bool {
	if ns.Command("ip", "link", "add", "probe", "type", "geneve", "external").Run() != nil {
		return false
	}
	ns.Run("ip", "link", "del", "probe")
	return true
}

// TestOverlay: hosts at two switches reach each other through tunnels, by IPv4 and IPv6,
// in one network for all frames and in one by VLAN; TCP with super-frames too.
func TestOverlay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, settings, port string
		v6                   bool
	}{
		{"over IPv4", "--vni 100", "", false},
		{"over IPv6", "--vni 100 --vxlan-port 8472", "", true},
		{"by VLAN", "--vni 10=10010,20-29=10020-10029 --queues 2", "set-port p1 --access 25", false},
		{"sockets over IPv4", "--vni 100 --data-plane sockets", "", false},
		{"sockets over IPv6", "--vni 100 --data-plane sockets", "", true},
		{"Geneve over IPv4", "--vni 100 --encapsulation geneve", "", false},
		{"Geneve over IPv6", "--vni 100 --encapsulation geneve --vxlan-port 6082", "", true},
		{"Geneve by VLAN", "--vni 10=10010,20-29=10020-10029 --encapsulation geneve", "set-port p1 --access 25", false},
		{"sockets and Geneve over IPv4", "--vni 100 --data-plane sockets --encapsulation geneve", "", false},
		{"sockets and Geneve over IPv6", "--vni 100 --data-plane sockets --encapsulation geneve", "", true},
		{"sockets by VLAN", "--vni 10=10010,20-29=10020-10029 --queues 2 --data-plane sockets", "set-port p1 --access 25", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := newOverlay(t, 2, 1600, c.v6)
			inKernel := daemontest.FastPath() && !strings.Contains(c.settings, "sockets")
			if inKernel && strings.Contains(c.settings, "geneve") && !hasGeneve(o.underlay) {
				inKernel = false
				o.sites[0].sw.refuse("the kernel has no geneve", "add-port up0 --kind vxlan --local %s %s --data-plane kernel", o.vtep(0), c.settings)
			}
			o.mesh(c.settings)
			o.address()
			if c.port != "" {
				for _, l := range o.sites {
					l.sw.ctl("%s", c.port)
				}
			}
			a, b := o.sites[0], o.sites[1]
			a.wantPing(o.hosts[0], o.hosts[1], true)
			a.bulk(o.hosts[0], o.hosts[1], o.hosts[1].v4, 16<<20)
			b.bulk(o.hosts[1], o.hosts[0], o.hosts[0].v6, 16<<20)
			for _, l := range o.sites {
				p := l.sw.port("up0")
				if p.State != api.StateUp || p.Reason != "" {
					t.Errorf("up0 is %s: %s", p.State, p.Reason)
				}
				for _, why := range []port.Drop{port.DropUnknownVTEP, port.DropUnknownVNI, port.DropBadTunnel, port.DropTooBig, port.DropNoVTEP, port.DropIOError, port.DropNoRoute} {
					if n := l.sw.dropped("up0", why); n > 0 {
						t.Errorf("%d drops for %s", n, why)
					}
				}
				if inKernel {
					if off := p.FastPath.Off; len(off) > 0 || p.FastPath.Frames < p.RX.Frames/2 {
						t.Errorf("%d of %d frames from the tunnel stay in the kernel: %v", p.FastPath.Frames, p.RX.Frames, off)
					}
				}
				// The same hosts come in super-frames, not in small ones.
				if p.RX.Bytes/max(p.RX.Frames, 1) < 1500 && p.TX.Bytes < 10<<20 {
					t.Errorf("%d bytes in %d frames came through the tunnel", p.RX.Bytes, p.RX.Frames)
				}
			}
		})
	}
}

// TestOverlayFloods: a broadcast reaches each host once, also with spanning tree, in which
// tunnels take no part; a known station's frames go to its switch alone; and no frame goes
// from one tunnel to another.
func TestOverlayFloods(t *testing.T) {
	t.Parallel()
	onPlanes(t, testOverlayFloods)
}

func testOverlayFloods(t *testing.T, plane string) {
	o := newOverlay(t, 3, 1600, false, "--stp")
	o.mesh("--vni 10=10010,20=10020 " + plane)
	for _, l := range o.sites {
		l.sw.ctl("set-port p1 --access 10 --stp-edge on")
		testenv.Eventually(t, "p1 forwards", func() bool { return l.sw.part("p1") == "designated forwarding rstp" })
		if got := l.sw.part("up0"); got != "designated forwarding rstp" {
			t.Errorf("the tunnel is %s", got)
		}
	}
	all := &lan{t: t, sw: o.sites[0].sw, hosts: o.hosts}
	all.want(o.hosts[0], o.hosts[0].toAll(), o.hosts[1], o.hosts[2])
	// Once it has answered, it is known.
	back := &lan{t: t, sw: o.sites[1].sw, hosts: o.hosts}
	back.want(o.hosts[1], o.hosts[1].to(o.hosts[0]), o.hosts[0])
	before := o.sites[2].sw.port("up0").RX.Frames
	all.want(o.hosts[0], o.hosts[0].to(o.hosts[1]), o.hosts[1])
	if n := o.sites[2].sw.port("up0").RX.Frames - before; n > 0 {
		t.Errorf("%d frames for a known station reach a third switch", n)
	}
	// Another VLAN is another network.
	o.sites[1].sw.ctl("set-port p1 --access 20")
	all.want(o.hosts[0], o.hosts[0].toAll(), o.hosts[2])
}

// TestTwoOverlays: where two meshes join the same switches, a broadcast comes once by each, and
// goes from neither into the other.
func TestTwoOverlays(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		second := plane
		if plane == "" {
			second = "--vxlan-port 4790" // a device has its UDP port for all addresses
		}
		testTwoOverlays(t, plane, second)
	})
}

func testTwoOverlays(t *testing.T, first, second string) {
	o := newOverlay(t, 2, 1600, false)
	o.mesh("--vni 100 " + first)
	for i, l := range o.sites {
		l.sw.ctl("add-port up1 --kind vxlan --local 2001:db8::%d --peers 2001:db8::%d --vni 100 %s", i+1, 2-i, second)
	}
	both := &lan{t: t, sw: o.sites[0].sw, hosts: o.hosts}
	h1, h2 := o.hosts[0], o.hosts[1]
	if got := both.send(h1, h1.toAll(), h2, h2); len(got[h2]) != 2 || len(got[h1]) != 0 {
		t.Errorf("h2 gets it %d times, want 2; h1 %d times", len(got[h2]), len(got[h1]))
	}
	for _, name := range []string{"up0", "up1"} {
		if p := o.sites[0].sw.port(name); p.RX.Frames != 0 || p.TX.Frames != 1 {
			t.Errorf("%s has sent %d frames and received %d, want 1 and 0", name, p.TX.Frames, p.RX.Frames)
		}
	}
}

// TestOverlayRefuses: frames of a host that is no peer, or in another network, are dropped by
// name, and the port says whose they are.
func TestOverlayRefuses(t *testing.T) {
	t.Parallel()
	onPlanes(t, testOverlayRefuses)
}

func testOverlayRefuses(t *testing.T, plane string) {
	o := newOverlay(t, 2, 1600, false)
	a, b := o.sites[0], o.sites[1]
	a.sw.ctl("add-port up0 --kind vxlan --local 192.0.2.1 --peers 192.0.2.9 --vni 100 %s", plane)
	b.sw.ctl("add-port up0 --kind vxlan --local 192.0.2.2 --peers 192.0.2.1 --vni 100 %s", plane)
	stranger := &lan{t: t, sw: b.sw, hosts: o.hosts}
	stranger.want(o.hosts[1], o.hosts[1].toAll())
	testenv.Eventually(t, "the stranger's frame is counted", func() bool { return a.sw.dropped("up0", port.DropUnknownVTEP) > 0 })
	testenv.Eventually(t, "the reason names it", func() bool { return strings.Contains(a.sw.port("up0").Reason, "192.0.2.2") })
	a.sw.ctl("set-port up0 --peers 192.0.2.2")
	stranger.want(o.hosts[1], o.hosts[1].toAll(), o.hosts[0])
	b.sw.ctl("set-port up0 --vni 200")
	stranger.want(o.hosts[1], o.hosts[1].toAll())
	testenv.Eventually(t, "the other network's frame is counted", func() bool { return a.sw.dropped("up0", port.DropUnknownVNI) > 0 })
	a.sw.refuse("is in use", "add-port up1 --kind vxlan --local 192.0.2.1 --vni 300")
	// The address may come later.
	a.sw.ctl("add-port up2 --kind vxlan --local 192.0.2.77 --vni 300 --no-wait")
	if p := a.sw.port("up2"); p.State != api.StateWaiting || !strings.Contains(p.Reason, "192.0.2.77 is not on this host") {
		t.Errorf("up2 is %s: %s", p.State, p.Reason)
	}
}

// TestOverlayHomeless: a switch whose host loses the tunnel's address says so, and counts what it
// cannot send; all is well again once the host has the address.
func TestOverlayHomeless(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		o := newOverlay(t, 2, 1600, false)
		o.mesh("--vni 100 " + plane)
		o.address()
		a, h1, h2 := o.sites[0], o.hosts[0], o.hosts[1]
		a.wantPing(h1, h2, true)
		ip(t, a.ns, "addr del 192.0.2.1/24 dev ul0\n")
		testenv.Eventually(t, "the port says what is missing", func() bool {
			return strings.Contains(a.sw.port("up0").Reason, "192.0.2.1 is no longer on this host")
		})
		both := &lan{t: t, sw: a.sw, hosts: o.hosts}
		both.want(h1, h1.to(h2))
		testenv.Eventually(t, "what cannot be sent is counted", func() bool { return a.sw.dropped("up0", port.DropNoRoute) > 0 })
		ip(t, a.ns, "addr add 192.0.2.1/24 dev ul0\n")
		testenv.Eventually(t, "the port is well again", func() bool { return a.sw.port("up0").Reason == "" })
		a.wantPing(h1, h2, true)
	})
}

// TestOverlayTooBig: where the underlay takes no more than the hosts send, they are told, by
// IPv4 and IPv6, and TCP goes on; what has no one to tell is counted.
func TestOverlayTooBig(t *testing.T) {
	t.Parallel()
	onPlanes(t, testOverlayTooBig)
}

func testOverlayTooBig(t *testing.T, plane string) {
	o := newOverlay(t, 2, 1500, false)
	o.mesh("--vni 100 " + plane)
	o.address()
	a := o.sites[0]
	if mtu := a.sw.port("up0").MTU; mtu != 1450 {
		t.Errorf("the port's MTU is %d, want 1450", mtu)
	}
	h1, h2 := o.hosts[0], o.hosts[1]
	a.wantPing(h1, h2, true)
	for _, ping := range [][]string{{"-M", "do", "-s", "1472", h2.v4}, {"-M", "do", "-s", "1452", h2.v6}} {
		out, _ := h1.ns.Command("ping", append([]string{"-n", "-c", "3", "-i", "0.2", "-w", "10"}, ping...)...).CombinedOutput()
		if s := string(out); !strings.Contains(s, "1450") {
			t.Errorf("ping %v is not told of the MTU: %s", ping, s)
		}
	}
	if a.sw.dropped("up0", port.DropTooBig) == 0 {
		t.Error("nothing is counted")
	}
	a.bulk(h1, h2, h2.v4, 4<<20)
	a.bulk(h2, h1, h1.v6, 4<<20)
	// The path becomes narrower, which nobody tells the switch.
	for _, l := range o.sites {
		ip(t, l.ns, "link set ul0 mtu 1400\n")
	}
	a.bulk(h1, h2, h2.v4, 4<<20)
	testenv.Eventually(t, "the port's MTU follows", func() bool { return a.sw.port("up0").MTU == 1350 })
	a.bulk(h2, h1, h1.v4, 4<<20)
}

// TestOverlayKernel: a vxlan device of Linux, with a bridge and static entries, is a peer.
func TestOverlayKernel(t *testing.T) {
	t.Parallel()
	onPlanes(t, testOverlayKernel)
}

func testOverlayKernel(t *testing.T, plane string) {
	o := newOverlay(t, 1, 1600, false)
	a, h1 := o.sites[0], o.hosts[0]
	a.sw.ctl("add-port up0 --kind vxlan --local 192.0.2.1 --peers 192.0.2.2 --vni 10=10010 %s", plane)
	a.sw.ctl("set-port p1 --access 10")
	o.address()
	k, h := quietNetns(t), &host{number: uint16(hostCount.Add(1)), ns: quietNetns(t), port: "k"}
	o.join(k, 1600)
	ip(t, k, fmt.Sprintf(`link add br0 type bridge
link add vx0 type vxlan id 10010 local 192.0.2.2 dstport 4789 nolearning
link set vx0 master br0
link add p1 type veth peer name eth0 netns %s
link set p1 master br0
link set p1 up
link set vx0 up
link set br0 up
`, h.ns.Name))
	for _, mac := range []string{"00:00:00:00:00:00", h1.mac.String()} {
		if out, err := exec.Command("bridge", "-n", k.Name, "fdb", "append", mac, "dev", "vx0", "dst", "192.0.2.1").CombinedOutput(); err != nil {
			t.Fatalf("bridge fdb: %v: %s", err, out)
		}
	}
	ip(t, h.ns, "link set eth0 up\n")
	other := &lan{t: t, hosts: []*host{h}}
	other.address()
	a.wantPing(h1, h, true)
	a.bulk(h1, h, h.v4, 8<<20)
	a.bulk(h, h1, h1.v6, 8<<20)
}

// TestOverlayTakeover: while a switch is away, what is known goes on through its tunnel; the
// next one takes the tunnel over, and no host has to speak before it is reached.
func TestOverlayTakeover(t *testing.T) {
	t.Parallel()
	if !daemontest.FastPath() {
		t.Skip("without a fast path a tunnel carries nothing while the daemon is away")
	}
	o := newOverlay(t, 2, 1600, false)
	o.mesh("--vni 10=10010")
	for _, l := range o.sites {
		l.sw.ctl("set-port p1 --access 10")
	}
	o.address()
	a, h1, h2 := o.sites[0], o.hosts[0], o.hosts[1]
	a.wantPing(h1, h2, true)
	a.bulk(h1, h2, h2.v4, 1<<20)
	a.sw.Kill()
	for _, way := range [][2]*host{{h1, h2}, {h2, h1}} {
		if out, err := way[0].ns.Command("ping", "-n", "-c", "3", "-i", "0.1", "-w", "20", way[1].v4).CombinedOutput(); err != nil {
			t.Fatalf("while the switch is away: %v: %s", err, out)
		}
	}
	a.bulk(h1, h2, h2.v4, 1<<20)
	a.sw.Restart(t)
	testenv.Eventually(t, "the tunnel is up", func() bool { return a.sw.port("up0").State == api.StateUp })
	a.sw.wantEntry(h2.mac, 10, "up0")
	// Only the other switch gets it: it is not flooded.
	before := a.sw.port("up0")
	a.bulk(h2, h1, h1.v4, 1<<20)
	if p := a.sw.port("up0"); p.FastPath.Frames == before.FastPath.Frames || len(p.FastPath.Off) > 0 {
		t.Errorf("the tunnel is not in the kernel: %+v, before %+v", p.FastPath, before.FastPath)
	}
	a.sw.ctl("del-port up0")
	if out, err := a.ns.Command("ip", "link", "show", "up0").CombinedOutput(); err == nil {
		t.Errorf("its device stays: %s", out)
	}
}
