package stp_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/vswitch/vswitch/internal/proto/stp"
)

// transit is the most that a BPDU takes over a link of a random network, in ms.
const transit = 20

// randomNetwork draws up to eight bridges and links between them at random,
// parallel ones among them.
func randomNetwork(t *rapid.T, tb testing.TB) *network {
	n := newNetwork(tb, rapid.Uint64().Draw(t, "seed"))
	n.delay = func() int { return 1 + n.rng.IntN(transit) }
	bridges := rapid.IntRange(2, 8).Draw(t, "bridges")
	for range bridges {
		n.add(uint16(n.rng.IntN(3)) * 4096)
	}
	for range rapid.IntRange(1, 2*bridges).Draw(t, "links") {
		a := n.rng.IntN(bridges)
		b := (a + 1 + n.rng.IntN(bridges-1)) % bridges
		n.join(n.randomPort, n.nodes[a], n.nodes[b])
	}
	return n
}

func (n *network) randomPort(c *stp.PortConfig) {
	c.PathCost = uint32(1 + n.rng.IntN(4))
	c.Priority = uint8(n.rng.IntN(3)) * 16
}

// shake does something to the network that the tree must follow.
func (n *network) shake(t *rapid.T) string {
	l := n.links[n.rng.IntN(len(n.links))]
	x := n.nodes[n.rng.IntN(len(n.nodes))]
	switch rapid.SampledFrom([]string{"link", "power", "priority"}).Draw(t, "what") {
	case "link":
		l.set(!l.up)
		return "a link changed"
	case "power":
		if x.dead {
			x.revive()
			return "a bridge came"
		}
		x.kill()
		return "a bridge went"
	}
	x.config.Priority = uint16(n.rng.IntN(4)) * 4096
	if err := x.rstp.Configure(x.config); err != nil {
		t.Fatal(err)
	}
	return "a priority changed"
}

// roots is what each bridge takes for the root.
func (n *network) roots() (roots []stp.BridgeID) {
	for _, x := range n.nodes {
		if !x.dead {
			roots = append(roots, x.rstp.Status().Root)
		}
	}
	return roots
}

// settle lets ms pass and returns when the tree was last seen not to span, as ms
// from now, and why.
func (n *network) settle(ms int) (took int, err error) {
	for t := 0; t < ms; t += 100 {
		n.run(100)
		if e := n.spanning(); e != nil {
			took, err = t+100, e
		}
	}
	return took, err
}

// A network in which no BPDU is lost becomes a spanning tree, with one root, far
// within a forward delay. After a change it does so again, but bridges may tell each
// other old news first, for as many hops as max age allows and a second each once
// the transmit hold count is reached. No frame can go round on the way for longer than a BPDU
// is under way: a loop of 6 ms was seen where two crossed. If a root was lost, an agreement
// that crosses old news of it can close a loop until the news is aged, and the protocol has
// nothing against that.
func TestConverges(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := randomNetwork(rt, t)
		if took, err := n.settle(5000); took > 3000 || n.longestLoop > 0 {
			rt.Fatalf("at the start: took %d ms (%v), with a loop of %d ms", took, err, n.longestLoop)
		}
		for range 3 {
			before := n.roots()
			n.longestLoop = 0
			what := n.shake(rt)
			took, err := n.settle(40000)
			kept := slices.Equal(before, n.roots())
			if took > 35000 || kept && n.longestLoop > transit {
				rt.Fatalf("after %s: took %d ms (%v), with a loop of %d ms", what, took, err, n.longestLoop)
			}
		}
	})
}

// Lost and late BPDUs only delay the tree.
func TestConvergesAfterLoss(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := randomNetwork(rt, t)
		n.delay = func() int { return 1 + n.rng.IntN(900) }
		n.lose = func() bool { return n.rng.IntN(4) == 0 }
		for range 3 {
			n.run(10000)
			n.shake(rt)
		}
		n.lose = func() bool { return false }
		n.run(60000)
		if took, err := n.settle(10000); err != nil {
			rt.Fatalf("%d ms after 60 s: %v", took, err)
		}
	})
}

// Bridges on hubs, too, become a spanning tree, in two forward delays of RSTP and
// what AutoEdge waits for on a shared link.
func TestConvergesOnHubs(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := newNetwork(t, rapid.Uint64().Draw(rt, "seed"))
		for range 5 {
			n.add(0x8000)
		}
		for range rapid.IntRange(2, 5).Draw(rt, "hubs") {
			perm := n.rng.Perm(5)
			n.join(n.randomPort, n.nodes[perm[0]], n.nodes[perm[1]], n.nodes[perm[2]])
		}
		n.run(40000)
		if took, err := n.settle(10000); err != nil {
			rt.Fatalf("%d ms after 40 s: %v", took, err)
		}
	})
}

// ring is four bridges, b0 the root.
func ring(t *testing.T) *network {
	n := newNetwork(t, 1)
	for range 4 {
		n.add(0x8000)
	}
	for i := range 4 {
		n.join(nil, n.nodes[i], n.nodes[(i+1)%4])
	}
	n.run(6000)
	if err := n.spanning(); err != nil {
		t.Fatal(err)
	}
	return n
}

// Proposal and agreement (17.10), and the alternate port that takes over: a link in
// a ring comes and goes in a few message times, not forward delays.
func TestRapid(t *testing.T) {
	n := ring(t)
	for _, l := range n.links {
		for _, up := range []bool{false, true} {
			n.longestLoop = 0
			l.set(up)
			took, err := n.runUntil(5000, n.spanning)
			if err != nil || took > 100 || n.longestLoop > 0 {
				t.Errorf("link %v: took %d ms, loop of %d ms, %v", up, took, n.longestLoop, err)
			}
			n.run(10000)
		}
	}
	n.nodes[0].kill()
	if took, err := n.runUntil(60000, n.spanning); err != nil || took > 100 {
		t.Errorf("without the root: took %d ms, %v", took, err)
	}
}

// A link that carries frames one way only must not become a loop: the end that is
// not heard disputes (17.21.10) until it is heard again.
func TestOneWayLink(t *testing.T) {
	n := newNetwork(t, 1)
	for range 3 {
		n.add(0x8000)
	}
	n.join(nil, n.nodes[0], n.nodes[1])
	l := n.join(nil, n.nodes[1], n.nodes[2])
	n.join(nil, n.nodes[2], n.nodes[0])
	n.run(10000)
	l.oneWay = l.ends[0] // b1, which is designated there, is not heard
	n.run(30000)
	n.longestLoop = 0
	n.run(60000)
	if n.longestLoop > 0 {
		t.Errorf("a loop of %d ms", n.longestLoop)
	}
	if s := l.ends[0].state; s != stp.Discarding {
		t.Errorf("the end that is not heard is %v", s)
	}
	l.oneWay = nil
	n.run(10000)
	if err := n.spanning(); err != nil {
		t.Error(err)
	}
}

// A topology change flushes every port by which stations were learned that are
// elsewhere now, and no other; the link of an edge port is none (17.31).
func TestTopologyChangeFlushes(t *testing.T) {
	n := ring(t)
	// b0 is the root; b2 reaches it by b1, and its port 2, to b3, is alternate.
	edge := n.nodes[1].port(func(c *stp.PortConfig) { c.AdminEdge = true })
	n.nodes[1].b.SetLink(edge.number, true)
	n.run(10000)
	for _, x := range n.nodes {
		x.flushed = nil
	}
	n.links[0].set(false) // b0 to b1
	n.run(3000)
	if err := n.spanning(); err != nil {
		t.Fatal(err)
	}
	// Port 1 of b0 and b1 was on the link that is gone. What b2 knew was behind
	// its port 1, and what b3 knew of b1 and b2 was behind its port 2, to b0.
	for i, want := range []uint16{1, 1, 1, 2} {
		x := n.nodes[i]
		if slices.Sort(x.flushed); !slices.Equal(slices.Compact(x.flushed), []uint16{want}) {
			t.Errorf("%s flushed %v, want %d", x.name, x.flushed, want)
		}
	}
	for _, x := range n.nodes {
		x.flushed = nil
	}
	n.nodes[1].b.SetLink(edge.number, false)
	n.nodes[1].b.SetLink(edge.number, true)
	n.run(3000)
	for _, x := range n.nodes {
		for _, p := range x.flushed {
			if x != n.nodes[1] || p != edge.number {
				t.Errorf("an edge port's link made %s flush port %d", x.name, p)
			}
		}
	}
}

// With an 802.1D-1998 bridge in the ring, whoever is root, the tree takes that
// one's time: message age, and two forward delays.
func TestLegacyInRing(t *testing.T) {
	for _, c := range []struct {
		name   string
		legacy uint16
	}{{"root", 0}, {"leaf", 0xf000}, {"between", 0x8000}} {
		t.Run(c.name, func(t *testing.T) {
			n := newNetwork(t, 7)
			a, b := n.add(0x1000), n.add(0x9000)
			old := n.addLegacy(c.legacy)
			ab := n.join(nil, a, b)
			n.join(nil, b, old)
			n.join(nil, old, a)
			for _, up := range []bool{true, false, true} {
				ab.set(up)
				n.longestLoop = 0
				n.run(70000)
				if took, err := n.settle(20000); err != nil || n.longestLoop > 0 {
					t.Errorf("link %v: %v after 70 s and %d ms, loop of %d ms", up, err, took, n.longestLoop)
				}
			}
			for _, x := range []*node{a, b} {
				for _, p := range x.rstp.Status().Ports {
					toOld := p.Number == 2
					if p.STP != toOld {
						t.Errorf("%s port %d speaks STP: %v", x.name, p.Number, p.STP)
					}
					if toOld && p.Rx.Config == 0 && p.Rx.TCN == 0 {
						t.Errorf("%s port %d heard %+v", x.name, p.Number, p.Rx)
					}
				}
			}
		})
	}
}

// A neighbour that comes to know RSTP is answered in kind only when asked to
// (17.24, mcheck), or when it speaks RSTP first.
func TestMigration(t *testing.T) {
	n := newNetwork(t, 1)
	a, b := n.add(0), n.add(0x8000)
	n.join(nil, a, b)
	var buf [stp.FrameLen]byte
	old := stp.BPDU{Type: stp.TypeConfig, Root: 0x8000_5254_0000_00ff, Bridge: 0x8000_5254_0000_00ff, Port: 0x8001,
		MaxAge: 20 * 256, HelloTime: 2 * 256, ForwardDelay: 15 * 256}
	stpSpoken := func() bool { return a.rstp.Status().Ports[0].STP }
	n.run(10000)
	a.b.Receive(1, old.Put(&buf, [6]byte{}))
	if !stpSpoken() {
		t.Fatal("a Config BPDU was not answered in kind")
	}
	a.b.Receive(1, old.Put(&buf, [6]byte{}))
	sent := a.rstp.Status().Ports[0].Tx
	a.rstp.Recheck(1)
	if stpSpoken() {
		t.Fatal("mcheck did not bring RSTP back")
	}
	n.run(2500)
	if now := a.rstp.Status().Ports[0].Tx; now.RST <= sent.RST {
		t.Errorf("no RST BPDU was sent: %+v then %+v", sent, now)
	}
	n.run(10000)
	a.b.Receive(1, old.Put(&buf, [6]byte{}))
	if !stpSpoken() {
		t.Fatal("a Config BPDU was not answered in kind")
	}
	n.run(10000) // b hears STP, and speaks it too
	if b.rstp.Recheck(1); stpSpoken() && b.rstp.Status().Ports[0].STP {
		t.Fatal("nobody speaks RSTP")
	}
	b.kill()
	b.revive()
	n.run(10000)
	if stpSpoken() || b.rstp.Status().Ports[0].STP {
		t.Error("STP is spoken still after the link came anew")
	}
}
