package l2test

import (
	"fmt"
	"testing"

	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/port"
)

// What tunnels do together with other features, on both data planes.
//
//	h1 ── p1 switch A up0 ══ up0 switch B p1 ── h2
//	h3 ── p2 ┘

// addHost puts another silent host behind a switch.
func (l *lan) addHost(name string, settings string) *host {
	l.t.Helper()
	h := &host{number: uint16(hostCount.Add(1)), ns: quietNetns(l.t), port: name}
	h.mac = 0x02_00_00_00_00_00 + port.MAC(h.number)
	ip(l.t, l.ns, fmt.Sprintf("link add %s type veth peer name eth0 address %s netns %s\nlink set %s up\n", name, h.mac, h.ns.Name, name))
	ip(l.t, h.ns, "link set eth0 up\n")
	h.ns.Do(func() { h.Station = tuntest.Listen(l.t, "eth0") })
	if daemontest.FastPath() {
		settings += " --exclusive"
	}
	l.sw.ctl("add-port %s --kind netdev %s", name, settings)
	l.hosts = append(l.hosts, h)
	l.awaitUp()
	return h
}

// newTwo makes two switches with a tunnel, whose hosts know each other.
func newTwo(t *testing.T, plane string, flags ...string) (o *overlay, all *lan) {
	t.Helper()
	o = newOverlay(t, 2, 1600, false, flags...)
	o.mesh("--vni 10=10010,20=10020 " + plane)
	for _, l := range o.sites {
		l.sw.ctl("set-port p1 --access 10")
	}
	all = &lan{t: t, sw: o.sites[0].sw, hosts: o.hosts}
	back := &lan{t: t, sw: o.sites[1].sw, hosts: o.hosts}
	all.want(o.hosts[0], o.hosts[0].toAll(), o.hosts[1])
	back.want(o.hosts[1], o.hosts[1].to(o.hosts[0]), o.hosts[0])
	all.want(o.hosts[0], o.hosts[0].to(o.hosts[1]), o.hosts[1])
	return o, all
}

// TestOverlayIsolation: an isolated tunnel and an isolated port exchange nothing.
func TestOverlayIsolation(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		o, all := newTwo(t, plane)
		h1, h2 := o.hosts[0], o.hosts[1]
		back := &lan{t: t, sw: o.sites[1].sw, hosts: o.hosts}
		o.sites[0].sw.ctl("set-port p1 --isolated")
		all.want(h1, h1.to(h2), h2)
		o.sites[0].sw.ctl("set-port up0 --isolated")
		all.wantDrop(h1, h1.to(h2), port.DropIsolated)
		all.want(h1, h1.toAll())
		back.want(h2, h2.to(h1))
		testenv.Eventually(t, "the tunnel counts it", func() bool { return o.sites[0].sw.dropped("up0", port.DropIsolated) > 0 })
		o.sites[0].sw.ctl("set-port up0 --isolated=off")
		all.want(h1, h1.to(h2), h2)
		back.want(h2, h2.to(h1), h1)
	})
}

// TestOverlayMirror: a mirror copies what comes and leaves by a tunnel, with the tag of its VLAN.
func TestOverlayMirror(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		o, all := newTwo(t, plane)
		h1, h2 := o.hosts[0], o.hosts[1]
		h3 := o.sites[0].addHost("p2", "")
		all.hosts = append(all.hosts, h3)
		back := &lan{t: t, sw: o.sites[1].sw, hosts: all.hosts}
		o.sites[0].sw.ctl("mirror add m0 --from up0 --to p2")
		all.wantTags(all.want(h1, h1.to(h2), h3, h2), customer(10))
		back.wantTags(back.want(h2, h2.to(h1), h3, h1), customer(10))
		all.want(h1, h1.toAll(), h2, h3)
		o.sites[0].sw.ctl("mirror del m0")
		all.want(h1, h1.to(h2), h2)
	})
}

// TestOverlayStorm: floods that come by a tunnel are limited like those of other ports; known
// stations are not.
func TestOverlayStorm(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		o, _ := newTwo(t, plane)
		a, h1, h2 := o.sites[0], o.hosts[0], o.hosts[1]
		a.sw.ctl("set-port up0 --storm-broadcast 10pps")
		const n = 200
		send := func(f frame) {
			for range n {
				wire, _ := f.wire()
				if err := h2.Send(wire, port.Offload{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		before := a.sw.port("up0").RX.Frames
		send(h2.toAll())
		testenv.Eventually(t, "all floods are counted", func() bool { return a.sw.port("up0").RX.Frames-before >= n })
		passed, lost := h1.countFrames(t), a.sw.dropped("up0", port.DropStormBroadcast)
		if passed == 0 || passed+lost != n || lost < n/2 {
			t.Errorf("of %d broadcasts %d pass and %d are lost", n, passed, lost)
		}
		before = a.sw.port("up0").RX.Frames
		send(h2.to(h1))
		testenv.Eventually(t, "all frames are counted", func() bool { return a.sw.port("up0").RX.Frames-before >= n })
		if passed := h1.countFrames(t); passed != n {
			t.Errorf("of %d frames to a known station %d pass", n, passed)
		}
	})
}

// TestOverlayGuard: a guarded port's machine cannot pass for a station behind a tunnel; what
// comes by the tunnel is trusted as its own switch's.
func TestOverlayGuard(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		o, all := newTwo(t, plane)
		h1, h2 := o.hosts[0], o.hosts[1]
		o.sites[0].sw.ctl("set-port p1 --guard on --guard-mac %s", h1.mac)
		o.address()
		o.sites[0].wantPing(h2, h1, false) // h1 has no address yet that it may use
		o.sites[0].sw.ctl("set-port p1 --guard-address %s --guard-address %s", h1.v4, h1.v6)
		o.sites[0].wantPing(h1, h2, true)
		o.sites[0].wantPing(h2, h1, true)
		all.want(h1, frame{dst: h2.mac, src: h2.mac + 0x100})
		testenv.Eventually(t, "what passes for another is dropped", func() bool {
			return o.sites[0].sw.dropped("p1", port.DropGuardMAC) > 0
		})
		o.sites[0].bulk(h1, h2, h2.v4, 1<<20)
	})
}

// TestOverlaySnooping: reports and queries go through the tunnel, so a group's frames go to the
// switches with members.
func TestOverlaySnooping(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		o := newOverlay(t, 2, 1600, false)
		o.mesh("--vni 100 " + plane)
		o.sites[0].sw.ctl("set --snooping --querier --unregistered routers")
		o.sites[1].sw.ctl("set --snooping --unregistered routers")
		o.address()
		h1, h2 := o.hosts[0], o.hosts[1]
		ip(t, h1.ns, "route add 224.0.0.0/4 dev eth0\n")
		g := group("239.1.0.2")
		member := h2.join(t, g)
		o.sites[0].sw.awaitMember("up0", g, "learned igmpv3")
		o.sites[1].sw.awaitMember("p1", g, "learned igmpv3")
		o.sites[0].sw.awaitFilter("ipv4")
		o.sites[1].sw.awaitFilter("ipv4")
		all := &lan{t: t, sw: o.sites[0].sw, hosts: o.hosts}
		stream := h1.toGroup(g)
		stream.size = 60 // the kernel's tunnel takes no shorter one for an IP packet
		all.awaitStream(h1, stream, h2)
		all.wantDatagram(h1, g, member)
		all.want(h1, h1.toGroup(group("239.9.9.9")))
	})
}

// TestOverlayTree: tunnels carry no BPDUs, and forward whatever the tree does.
func TestOverlayTree(t *testing.T) {
	t.Parallel()
	onPlanes(t, func(t *testing.T, plane string) {
		o := newOverlay(t, 2, 1600, false, "--stp")
		o.mesh("--vni 100 " + plane)
		for _, l := range o.sites {
			l.sw.ctl("set-port p1 --stp-edge on")
			testenv.Eventually(t, "p1 forwards", func() bool { return l.sw.part("p1") == "designated forwarding rstp" })
		}
		all := &lan{t: t, sw: o.sites[0].sw, hosts: o.hosts}
		all.want(o.hosts[0], o.hosts[0].toAll(), o.hosts[1])
		for i, l := range o.sites {
			if tree := l.sw.tree(); tree.Root != tree.Bridge {
				t.Errorf("switch %d follows another's tree: %+v", i, tree.Root)
			}
			if n := l.sw.port("up0").TX.Frames + l.sw.port("up0").RX.Frames; n != 1 {
				t.Errorf("switch %d: %d frames pass the tunnel, want the broadcast alone", i, n)
			}
		}
	})
}
