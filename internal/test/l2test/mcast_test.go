package l2test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

func group(s string) netip.Addr { return netip.MustParseAddr(s) }

// groupMAC is where frames to a group go (RFC 1112 section 6.4, RFC 2464 section 7).
func groupMAC(g netip.Addr) port.MAC {
	b := g.AsSlice()
	low := binary.BigEndian.Uint32(b[len(b)-4:])
	if g.Is4() {
		return 0x0100_5e00_0000 | port.MAC(low&0x7f_ffff)
	}
	return 0x3333_0000_0000 | port.MAC(low)
}

// toGroup makes a frame of a stream to a group; the switch looks at its address only.
func (h *host) toGroup(g netip.Addr, tags ...port.Tag) frame {
	f := frame{dst: groupMAC(g), src: h.mac, tags: tags, etherType: 0x800}
	if g.Is6() {
		f.etherType = 0x86dd
	}
	return f
}

// streamPort is the UDP port of streams.
const streamPort = 5004

// join has a program on the host join a group, and returns its socket.
func (h *host) join(t *testing.T, g netip.Addr) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	h.ns.Do(func() {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		c, err = net.ListenMulticastUDP("udp", eth0, net.UDPAddrFromAddrPort(netip.AddrPortFrom(g, streamPort)))
		if err != nil {
			t.Fatalf("join %s: %v", g, err)
		}
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// wantDatagram has a program on a host send to a group, and a member's get it.
func (l *lan) wantDatagram(from *host, g netip.Addr, member *net.UDPConn) {
	l.t.Helper()
	text := fmt.Sprintf("datagram %d", tokens.Add(1))
	from.ns.Do(func() {
		to := netip.AddrPortFrom(g, streamPort)
		source := from.v4
		if g.Is6() {
			to, source = netip.AddrPortFrom(g.WithZone("eth0"), streamPort), from.v6
		}
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(source), 0)))
		if err != nil {
			l.t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.WriteToUDPAddrPort([]byte(text), to); err != nil {
			l.t.Fatalf("send to %s: %v", g, err)
		}
	})
	member.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 100)
	n, _, err := member.ReadFromUDPAddrPort(buf)
	if err != nil || string(buf[:n]) != text {
		l.t.Errorf("a member of %s got %q, %v; want %q", g, buf[:n], err, text)
	}
}

func (d *daemon) mdb() api.MDB {
	d.t.Helper()
	mdb, err := d.Client.MDB(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	return mdb
}

// member is what `vswitch mdb list` says of a group on a port; "" if nothing.
func (d *daemon) member(name string, g netip.Addr) string {
	d.t.Helper()
	for _, e := range d.mdb().Groups {
		if e.Port == name && e.Group == g {
			return e.Type + " " + e.Protocol
		}
	}
	return ""
}

func (d *daemon) awaitMember(name string, g netip.Addr, want string) {
	d.t.Helper()
	got := ""
	defer func() {
		if d.t.Failed() {
			d.t.Logf("%s on %s is %q", g, name, got)
		}
	}()
	testenv.Eventually(d.t, fmt.Sprintf("%s on %s is %q", g, name, want), func() bool {
		got = d.member(name, g)
		return got == want
	})
}

// awaitFilter waits until hosts had the time to answer a querier of a family.
func (d *daemon) awaitFilter(families ...string) {
	d.t.Helper()
	testenv.Eventually(d.t, "multicast is filtered", func() bool {
		for _, q := range d.mdb().Queriers {
			if slices.Contains(families, q.Family) && !q.Filtering {
				return false
			}
		}
		return true
	})
}

// awaitStream waits until a stream goes to exactly those hosts: what is learned
// reaches the forwarding core a moment later. Then it checks once more.
func (l *lan) awaitStream(from *host, f frame, to ...*host) {
	l.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		got := l.send(from, f)
		if len(got) == len(to) && !slices.ContainsFunc(to, func(h *host) bool { return len(got[h]) != 1 }) {
			break
		}
	}
	l.want(from, f, to...)
}

// speakOld has a host's kernel speak the older protocols.
func (h *host) speakOld() {
	h.ns.Run("sysctl", "-qw", "net.ipv4.conf.all.force_igmp_version=2", "net.ipv6.conf.eth0.force_mld_version=1")
}

// TestSnooping has hosts join groups by programs' sockets, in all versions that
// Linux speaks: a member gets its stream and others do not, until it leaves.
// Neighbours find each other by IPv6 all the while.
//
//	h1 (sends)            ── p1 ┐
//	h2 (IGMPv3 and MLDv2) ── p2 ┼ switch, the querier
//	h3 (IGMPv2 and MLDv1) ── p3 ┤
//	h4                    ── p4 ┘
func TestSnooping(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 4, "--snooping", "--querier", "--unregistered", "routers")
	h1, h2, h3, h4 := l.hosts[0], l.hosts[1], l.hosts[2], l.hosts[3]
	h3.speakOld()
	l.address()
	ip(t, h1.ns, "route add 224.0.0.0/4 dev eth0\n")
	l.wantPing(h1, h2, true)

	new4, old4, new6, old6 := group("239.1.0.2"), group("239.1.0.3"), group("ff15::4:2"), group("ff15::4:3")
	in2, in3 := h2.join(t, new4), h3.join(t, old4)
	in2v6, in3v6 := h2.join(t, new6), h3.join(t, old6)
	l.sw.awaitMember("p2", new4, "learned igmpv3")
	l.sw.awaitMember("p3", old4, "learned igmpv2")
	l.sw.awaitMember("p2", new6, "learned mldv2")
	l.sw.awaitMember("p3", old6, "learned mldv1")
	l.sw.awaitFilter("ipv4", "ipv6")

	for _, c := range []struct {
		g      netip.Addr
		member *host
		socket *net.UDPConn
	}{{new4, h2, in2}, {old4, h3, in3}, {new6, h2, in2v6}, {old6, h3, in3v6}} {
		l.awaitStream(h1, h1.toGroup(c.g), c.member)
		l.want(c.member, c.member.toGroup(c.g))
		l.wantDatagram(h1, c.g, c.socket)
	}
	// Groups that nobody joined go nowhere, for there is no router; those of the
	// link go everywhere, and so do broadcasts.
	l.want(h1, h1.toGroup(group("239.9.9.9")))
	l.want(h1, h1.toGroup(group("ff15::9:9")))
	for _, g := range []string{"224.0.0.251", "ff02::1", "ff02::fb", "ff02::1:2"} {
		l.want(h1, h1.toGroup(group(g)), h2, h3, h4)
	}
	l.want(h1, h1.toAll(), h2, h3, h4)
	// Neighbour discovery anew.
	for _, h := range l.hosts {
		h.ns.Run("ip", "neigh", "flush", "all")
	}
	l.wantPing(h1, h2, true)
	l.wantPing(h3, h4, true)
	l.wantPing(h4, h2, true)

	// A second member gets the stream too; a leave ends it for the one alone.
	both := h4.join(t, new4)
	l.sw.awaitMember("p4", new4, "learned igmpv3")
	l.awaitStream(h1, h1.toGroup(new4), h2, h4)
	for _, c := range []*net.UDPConn{in2, in3, in2v6, in3v6} {
		c.Close()
	}
	l.sw.awaitMember("p2", new4, "")
	l.sw.awaitMember("p3", old4, "")
	l.sw.awaitMember("p2", new6, "")
	l.sw.awaitMember("p3", old6, "")
	l.awaitStream(h1, h1.toGroup(new4), h4)
	l.awaitStream(h1, h1.toGroup(old4))
	l.awaitStream(h1, h1.toGroup(new6))
	l.wantDatagram(h1, new4, both)

	// A port whose link goes is out of all groups.
	ip(t, h4.ns, "link set eth0 down\n")
	l.sw.awaitMember("p4", new4, "")
}

// TestSnoopingRouter has a router that asks: no switch need.
//
//	h1 ── p1 ┐
//	h2 ── p2 ┼ switch
//	h3 ── p3 ┤
//	h4 ── p4 ┘ (router)
func TestSnoopingRouter(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 4, "--snooping")
	h1, h2, h3, router := l.hosts[0], l.hosts[1], l.hosts[2], l.hosts[3]
	g, other := group("239.1.0.2"), group("239.1.0.9")
	h2.join(t, g)
	// Nobody asks: all is flooded.
	l.sw.awaitMember("p2", g, "learned igmpv3")
	l.want(h1, h1.toGroup(g), h2, h3, router)

	query := generalQuery(router.mac, "10.9.9.9")
	if err := router.Send(query, port.Offload{}); err != nil {
		t.Fatal(err)
	}
	for _, h := range []*host{h1, h2, h3} {
		if _, ok, err := h.receive(query[14:], time.Now().Add(5*time.Second)); err != nil || !ok {
			t.Errorf("%s does not hear the router's query: %v", h.port, err)
		}
	}
	l.sw.awaitFilter("ipv4")
	mdb := l.sw.mdb()
	if len(mdb.Routers) != 1 || mdb.Routers[0].Port != "p4" || mdb.Queriers[0].Address != "10.9.9.9" || mdb.Queriers[0].Port != "p4" {
		t.Errorf("routers %+v, queriers %+v", mdb.Routers, mdb.Queriers)
	}
	l.awaitStream(h1, h1.toGroup(g), h2, router)
	l.want(h1, h1.toGroup(other), h2, h3, router)

	// Reports go to the router alone, lest other hosts keep theirs back.
	drain(t, h1, h3, router)
	c := h3.join(t, other)
	l.sw.awaitMember("p3", other, "learned igmpv2") // as the router speaks
	if n := reports(t, router, other); n == 0 {
		t.Error("the router hears no report")
	}
	if n := reports(t, h1, other); n != 0 {
		t.Errorf("a host hears %d reports of another", n)
	}
	l.awaitStream(h1, h1.toGroup(other), h3, router)
	c.Close()
	ip(t, router.ns, "link set eth0 down\n")
	l.hosts = l.hosts[:3]
	testenv.Eventually(t, "the router is forgotten", func() bool { return len(l.sw.mdb().Routers) == 0 })
	l.awaitStream(h1, h1.toGroup(g), h2, h3)
}

// TestSnoopingVLANs is vlan_mcast: a group has members of their own in each VLAN.
//
//	h1 ── p1 (access 10)         ┐
//	h2 ── p2 (access 10)         ┼ switch, the querier
//	h3 ── p3 (access 20)         ┤
//	h4 ── p4 (trunk 10,20)       ┘
func TestSnoopingVLANs(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 4, "--snooping", "--querier")
	h1, h2, h3, h4 := l.hosts[0], l.hosts[1], l.hosts[2], l.hosts[3]
	l.sw.ctl("set-port p1 --access 10")
	l.sw.ctl("set-port p2 --access 10")
	l.sw.ctl("set-port p3 --access 20")
	l.sw.ctl("set-port p4 --trunk 10,20")
	g := group("239.1.0.2")
	h2.join(t, g)
	h3.join(t, g)
	l.sw.awaitMember("p2", g, "learned igmpv3")
	l.sw.awaitMember("p3", g, "learned igmpv3")
	l.sw.awaitFilter("ipv4")
	l.awaitStream(h1, h1.toGroup(g), h2)
	l.awaitStream(h4, h4.toGroup(g, customer(20)), h3)
	l.awaitStream(h4, h4.toGroup(g, customer(10)), h2)
	l.sw.ctl("mdb add %s p4 --vlan 10", g)
	l.awaitStream(h1, h1.toGroup(g), h2, h4)
	l.want(h3, h3.toGroup(g))
	l.sw.refuse("does not carry VLAN 20", "mdb add %s p1 --vlan 20", g)
}

// TestForgedQueries has a host that wants to be the querier, openly and by frames that
// only the switch hears: its members keep their group, in whatever VLAN they are.
//
//	h1 ── p1 ┐
//	h2 ── p2 ┼ switch, the querier
//	h3 ── p3 ┘ (hostile)
func TestForgedQueries(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 3, "--snooping", "--querier", "--querier-address", "10.9.0.200", "--unregistered", "routers")
	h1, h2, h3 := l.hosts[0], l.hosts[1], l.hosts[2]
	g := group("239.1.0.2")
	h2.join(t, g)
	l.sw.awaitMember("p2", g, "learned igmpv3")
	l.sw.awaitFilter("ipv4")
	l.awaitStream(h1, h1.toGroup(g), h2)

	dropped := func(why string) func() bool {
		return func() bool { return l.sw.mdb().Messages.Dropped[why] > 0 }
	}
	forge := func(query []byte) {
		if err := h3.Send(query, port.Offload{}); err != nil {
			t.Fatal(err)
		}
	}
	elsewhere := generalQuery(h3.mac, "10.9.0.1")
	copy(elsewhere[3:], []byte{0x7f, 0x7f, 0x7f})
	forge(elsewhere)
	testenv.Eventually(t, "a query to nobody is dropped", dropped("bad_destination"))
	l.sw.ctl("set-port p3 --mcast-router-guard on")
	forge(generalQuery(h3.mac, "10.9.0.1"))
	testenv.Eventually(t, "a query by a guarded port is dropped", dropped("router_guard"))
	// Nor does it pass in what hosts take for the same: with a priority, or to everybody.
	plain := generalQuery(h3.mac, "10.9.0.1")
	for _, c := range []struct {
		query []byte
		why   string
	}{
		{slices.Concat(plain[:12], []byte{0x81, 0, 0xe0, 0}, plain[12:]), "router_guard"},
		{slices.Concat(plain[:12], []byte{0x81, 0, 0xe0, 0, 0x81, 0, 0, 0}, plain[12:]), "router_guard"},
		{slices.Concat(bytes.Repeat([]byte{0xff}, 6), plain[6:]), "bad_destination"},
		{slices.Concat([]byte(h2.mac.HardwareAddr()), plain[6:]), "router_guard"}, // to a station, which would answer
	} {
		before := l.sw.mdb().Messages.Dropped[c.why]
		forge(c.query)
		testenv.Eventually(t, fmt.Sprintf("%x is dropped", c.query[:18]), func() bool { return l.sw.mdb().Messages.Dropped[c.why] > before })
	}
	if mdb := l.sw.mdb(); !mdb.Queriers[0].Own || mdb.Queriers[0].Address != "10.9.0.200" || len(mdb.Routers) != 0 {
		t.Errorf("queriers %+v, routers %+v", mdb.Queriers, mdb.Routers)
	}
	l.awaitStream(h1, h1.toGroup(g), h2)

	// A port that moves to another VLAN has its host asked there.
	l.sw.ctl("set-port p2 --access 10")
	testenv.Eventually(t, "the group is learned in VLAN 10", func() bool {
		groups := l.sw.mdb().Groups
		return len(groups) == 1 && groups[0].VLAN == 10 && groups[0].Group == g
	})
	l.sw.ctl("set-port p3 --mcast-router-guard off")
	forge(generalQuery(h3.mac, "10.9.0.1"))
	testenv.Eventually(t, "a query by a port without guard is believed", func() bool {
		q := l.sw.mdb().Queriers[0]
		return !q.Own && q.Address == "10.9.0.1" && q.Port == "p3"
	})
}

// TestMDB is mdb and mdb_max: groups that are set, and how many a port may join.
//
//	h1 ── p1 ┐
//	h2 ── p2 ┼ switch, the querier
//	h3 ── p3 ┘
func TestMDB(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 3, "--snooping", "--querier")
	h1, h2, h3 := l.hosts[0], l.hosts[1], l.hosts[2]
	g4, g6 := group("239.1.0.2"), group("ff15::4:2")
	l.sw.ctl("mdb add %s p2", g4)
	l.sw.ctl("mdb add %s p3", g6)
	l.sw.ctl("set-port p3 --mcast-router")
	l.sw.awaitFilter("ipv4", "ipv6")
	l.awaitStream(h1, h1.toGroup(g4), h2, h3)
	l.awaitStream(h1, h1.toGroup(g6), h3)
	l.sw.ctl("set-port p3 --mcast-router=false")
	l.awaitStream(h1, h1.toGroup(g4), h2)

	for _, bad := range []string{"224.0.0.5", "ff02::1", "ff01::5"} {
		l.sw.refuse("cannot be a static group", "mdb add %s p2", bad)
	}
	l.sw.refuse("is not a multicast group", "mdb add 10.0.0.1 p2")
	l.sw.refuse("no port p9", "mdb add %s p9", g4)
	l.sw.refuse("not static on port p3", "mdb del %s p3", g4)

	l.awaitStream(h1, h1.toGroup(g6), h3)
	l.sw.ctl("mdb del %s p3", g6)
	l.awaitStream(h1, h1.toGroup(g6), h2, h3)

	// A port that may join two groups joins no third; one that is set counts for
	// nothing.
	l.sw.ctl("set-port p2 --mcast-limit 2")
	var groups []netip.Addr
	for i := range 3 {
		g := group(fmt.Sprintf("239.2.0.%d", i))
		h2.join(t, g)
		groups = append(groups, g)
		if i < 2 {
			l.sw.awaitMember("p2", g, "learned igmpv3")
		}
	}
	testenv.Eventually(t, "the third group is refused", func() bool { return l.sw.mdb().Messages.Dropped["group_limit"] > 0 })
	if got := l.sw.member("p2", groups[2]); got != "" {
		t.Errorf("the third group is %q", got)
	}
	if got := l.sw.member("p2", g4); got != "static " {
		t.Errorf("the static group is %q", got)
	}

	// What was set is there after a crash.
	l.sw.Restart(t)
	l.awaitUp()
	if got := l.sw.member("p2", g4); got != "static " {
		t.Errorf("the static group is %q", got)
	}
	if got := l.sw.member("p3", g6); got != "" {
		t.Errorf("a group that was removed is %q", got)
	}
}

// generalQuery is an IGMPv2 query (RFC 2236 section 2) that asks for answers in a
// tenth of a second.
func generalQuery(from port.MAC, address string) []byte {
	b := append(groupMAC(group("224.0.0.1")).HardwareAddr(), from.HardwareAddr()...)
	b = append(b, 8, 0, 0x46, 0xc0, 0, 32, 0, 0, 0, 0, 1, 2, 0, 0)
	b = append(append(b, group(address).AsSlice()...), 224, 0, 0, 1, 0x94, 4, 0, 0)
	binary.BigEndian.PutUint16(b[24:], sum1071(b[14:38]))
	b = append(b, 0x11, 1, 0, 0, 0, 0, 0, 0)
	binary.BigEndian.PutUint16(b[40:], sum1071(b[38:]))
	return b
}

// sum1071 is the checksum of RFC 1071.
func sum1071(b []byte) uint16 {
	n := uint32(0)
	for ; len(b) > 1; b = b[2:] {
		n += uint32(binary.BigEndian.Uint16(b))
	}
	return ^uint16(n>>16 + n)
}

// drain takes all frames that hosts have got.
func drain(t *testing.T, hosts ...*host) {
	t.Helper()
	for _, h := range hosts {
		for {
			if _, _, err := h.Recv(time.Millisecond); errors.Is(err, os.ErrDeadlineExceeded) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// reports counts the IGMPv2 reports of a group among the frames that a host has got.
func reports(t *testing.T, h *host, g netip.Addr) (n int) {
	t.Helper()
	for {
		b, _, err := h.Recv(10 * time.Millisecond)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		if port.MACFrom(b) == groupMAC(g) && b[23] == 2 {
			n++
		}
	}
}

// TestSnoopingFast has a group of a snooped VLAN take the fast path to its member, and to
// another one at once.
//
//	a ── vm0 ┐
//	b ── vm1 ┤ switch
//	c ── vm2 ┘
func TestSnoopingFast(t *testing.T) {
	t.Parallel()
	p := newPair(t, "--snooping", "--querier")
	c := p.add(2)
	p.greet(c)
	g := group("239.1.2.3")
	p.sw.ctl("mdb add %s vm1", g)
	p.sw.awaitFilter("ipv4")
	// hears sends one frame to the group, and reports who hears it and whether the kernel
	// forwarded it.
	hears := func() string {
		t.Helper()
		wire := tuntest.Broadcast(streamPort)
		copy(wire, groupMAC(g).HardwareAddr())
		copy(wire[6:], p.a.mac.HardwareAddr())
		before := p.sw.port("vm0").FastPath.Frames
		if err := p.a.Send(wire, port.Offload{}); err != nil {
			t.Fatal(err)
		}
		who := ""
		for _, m := range []*vm{p.b, c} {
			for {
				got, _, err := m.Recv(50 * time.Millisecond)
				if errors.Is(err, os.ErrDeadlineExceeded) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if bytes.Equal(got, wire) {
					who += m.port + " "
				}
			}
		}
		return fmt.Sprint(who, p.sw.port("vm0").FastPath.Frames-before)
	}
	await := func(want string) {
		t.Helper()
		got := ""
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
			if got = hears(); got == want {
				return
			}
		}
		t.Errorf("a frame to the group is heard by, and forwarded in the kernel: %q, want %q", got, want)
	}
	await("vm1 1")
	p.sw.ctl("mdb add %s vm2", g)
	await("vm1 vm2 1")
	p.sw.ctl("mdb del %s vm1", g)
	await("vm2 1")
	p.sw.ctl("set --snooping=off")
	await("vm1 vm2 1")
}
