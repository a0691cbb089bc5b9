package stp_test

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/vswitch/vswitch/internal/proto/stp"
)

// A simulator of bridges and the links between them. Time is in milliseconds; each
// bridge ticks once a second at a moment of its own.

// bridge is what the simulator asks of one: this package's, or an older one.
type bridge interface {
	SetLink(port uint16, up bool)
	Receive(port uint16, frame []byte)
	Tick()
}

type network struct {
	tb    testing.TB
	rng   *rand.Rand
	now   int
	queue events
	seq   int
	nodes []*node
	links []*link

	delay func() int  // of one frame on a link
	lose  func() bool // whether one frame is lost

	sent func(from *node, port uint16, frame []byte)
	then func() // after each event

	changed                bool // what forwards, since loops were looked for
	loopSince, longestLoop int  // loopSince is -1 while there is none
}

type node struct {
	net    *network
	name   string
	b      bridge
	rstp   *stp.Bridge // b, unless it is an older one
	config stp.Config
	dead   bool
	ports  []*end // by number, from 1

	flushed []uint16
	events  []stp.Event
}

// end is a bridge's port, and the end of the link on it.
type end struct {
	node   *node
	number uint16
	link   *link
	state  stp.State
}

// link joins two ports, or more as a hub does.
type link struct {
	ends   []*end
	up     bool
	oneWay *end // frames from this end are lost
	last   int  // arrival of the last frame: a link keeps the order
}

type event struct {
	at, seq int
	do      func()
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	e := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return e
}

func newNetwork(tb testing.TB, seed uint64) *network {
	n := &network{tb: tb, rng: rand.New(rand.NewPCG(seed, 1)), loopSince: -1}
	n.delay = func() int { return 1 }
	n.lose = func() bool { return false }
	n.sent = func(*node, uint16, []byte) {}
	n.then = func() {}
	return n
}

func (n *network) after(ms int, do func()) {
	n.seq++
	heap.Push(&n.queue, event{n.now + ms, n.seq, do})
}

// run lets time pass.
func (n *network) run(ms int) {
	end := n.now + ms
	for len(n.queue) > 0 && n.queue[0].at <= end {
		e := heap.Pop(&n.queue).(event)
		n.now = e.at
		e.do()
		n.then()
		n.watchLoops()
	}
	n.now = end
}

// runUntil lets time pass until ok, and says how much; it gives up after limit.
func (n *network) runUntil(limit int, ok func() error) (int, error) {
	start, err := n.now, ok()
	for err != nil && n.now-start < limit {
		n.run(10)
		err = ok()
	}
	return n.now - start, err
}

func config(i int, priority uint16) stp.Config {
	c := stp.DefaultConfig([6]byte{0x52, 0x54, 0, 0, 0, byte(i + 1)})
	c.Priority = priority
	return c
}

func (n *network) add(priority uint16) *node {
	i := len(n.nodes)
	x := &node{net: n, name: fmt.Sprintf("b%d", i), config: config(i, priority)}
	b, err := stp.New(x.config, x)
	if err != nil {
		n.tb.Fatal(err)
	}
	x.b, x.rstp = b, b
	n.start(x)
	return x
}

func (n *network) addLegacy(priority uint16) *node {
	i := len(n.nodes)
	x := &node{net: n, name: fmt.Sprintf("legacy%d", i), config: config(i, priority)}
	x.b = newLegacy(x.config, x)
	n.start(x)
	return x
}

func (n *network) start(x *node) {
	n.nodes = append(n.nodes, x)
	var tick func()
	tick = func() {
		if !x.dead {
			x.b.Tick()
		}
		n.after(1000, tick)
	}
	n.after(n.rng.IntN(1000), tick)
}

// port adds a port to a bridge, on no link.
func (x *node) port(set func(*stp.PortConfig)) *end {
	e := &end{node: x, number: uint16(len(x.ports) + 1)}
	x.ports = append(x.ports, e)
	cfg := stp.DefaultPort()
	if set != nil {
		set(&cfg)
	}
	if x.rstp != nil {
		if err := x.rstp.AddPort(e.number, cfg); err != nil {
			x.net.tb.Fatal(err)
		}
	} else {
		x.b.(*legacy).addPort(e.number, cfg)
	}
	return e
}

// join links bridges by new ports; the link is up at once.
func (n *network) join(set func(*stp.PortConfig), nodes ...*node) *link {
	l := &link{}
	for _, x := range nodes {
		l.ends = append(l.ends, x.port(func(c *stp.PortConfig) {
			c.Shared = len(nodes) > 2
			if set != nil {
				set(c)
			}
		}))
	}
	for _, e := range l.ends {
		e.link = l
	}
	n.links = append(n.links, l)
	l.set(true)
	return l
}

func (l *link) set(up bool) {
	l.up = up
	l.ends[0].node.net.changed = true
	for _, e := range l.ends {
		if !e.node.dead {
			e.node.b.SetLink(e.number, up && l.alive())
		}
	}
}

// alive reports whether somebody is at the other end.
func (l *link) alive() bool {
	n := 0
	for _, e := range l.ends {
		if !e.node.dead {
			n++
		}
	}
	return n > 1
}

// kill takes a bridge away as a power cut does; revive brings it back.
func (x *node) kill() {
	x.dead = true
	for _, e := range x.ports {
		x.b.SetLink(e.number, false)
		if e.link != nil {
			e.link.set(e.link.up)
		}
	}
}

func (x *node) revive() {
	x.dead = false
	for _, e := range x.ports {
		if e.link != nil {
			e.link.set(e.link.up)
		}
	}
}

func (x *node) SendBPDU(port uint16, frame []byte) {
	if int(port) > len(x.ports) {
		x.net.tb.Fatalf("%s sends by port %d", x.name, port)
	}
	x.net.sent(x, port, frame)
	from := x.ports[port-1]
	l := from.link
	if l == nil || !l.up || x.dead || l.oneWay == from || x.net.lose() {
		return
	}
	frame = slices.Clone(frame)
	l.last = max(l.last, x.net.now+x.net.delay())
	x.net.after(l.last-x.net.now, func() {
		for _, to := range l.ends {
			if to != from && l.up && !to.node.dead {
				to.node.b.Receive(to.number, frame)
			}
		}
	})
}

func (x *node) SetState(port uint16, s stp.State) {
	if int(port) <= len(x.ports) { // not while it is added
		x.ports[port-1].state = s
		x.net.changed = true
	}
}

func (x *node) Flush(port uint16) { x.flushed = append(x.flushed, port) }
func (x *node) Event(e stp.Event) { x.events = append(x.events, e) }

// forwards reports whether frames go to or from the link by this end.
func (e *end) forwards() bool {
	return e.state == stp.Forwarding && e.link != nil && e.link.up && !e.node.dead
}

// trees joins what forwards into sets, bridges and links alike, and reports whether
// a frame could go round.
func (n *network) trees() (find func(any) any, loop bool) {
	parent := map[any]any{}
	find = func(a any) any {
		for parent[a] != nil {
			a = parent[a]
		}
		return a
	}
	for _, l := range n.links {
		for _, e := range l.ends {
			if !e.forwards() {
				continue
			}
			a, b := find(e.node), find(l)
			if a == b {
				loop = true
				continue
			}
			parent[a] = b
		}
	}
	return find, loop
}

func (n *network) watchLoops() {
	if n.loopSince >= 0 {
		n.longestLoop = max(n.longestLoop, n.now-n.loopSince)
	}
	if !n.changed {
		return
	}
	n.changed = false
	if _, loop := n.trees(); !loop {
		n.loopSince = -1
	} else if n.loopSince < 0 {
		n.loopSince = n.now
		n.longestLoop = max(n.longestLoop, 1)
	}
}

// spanning checks that the bridges that can reach each other do so by a tree, with
// the best of them as the root of all.
func (n *network) spanning() error {
	find, loop := n.trees()
	if loop {
		return fmt.Errorf("there is a loop")
	}
	for _, x := range n.nodes {
		if x.dead {
			continue
		}
		reach := n.reach(x)
		best := x
		for y := range reach {
			if y.config.Priority < best.config.Priority ||
				y.config.Priority == best.config.Priority && slices.Compare(y.config.Address[:], best.config.Address[:]) < 0 {
				best = y
			}
			if find(x) != find(y) {
				return fmt.Errorf("%s and %s are cut off from each other", x.name, y.name)
			}
		}
		if x.rstp == nil {
			continue
		}
		s := x.rstp.Status()
		if s.Root.Address() != best.config.Address {
			return fmt.Errorf("the root is %v to %s, not %s", s.Root, x.name, best.name)
		}
		if (s.RootPort == 0) != (x == best) {
			return fmt.Errorf("%s has root port %d; the root is %s", x.name, s.RootPort, best.name)
		}
		for _, p := range s.Ports {
			e := x.ports[p.Number-1]
			if e.state != p.State {
				return fmt.Errorf("%s port %d was set %v, its status is %v", x.name, p.Number, e.state, p.State)
			}
			if e.link == nil {
				continue
			}
			up := e.link.up && e.link.alive()
			if want := up && (p.Role == stp.RoleRoot || p.Role == stp.RoleDesignated); want != (p.State == stp.Forwarding) {
				return fmt.Errorf("%s port %d is %v and %v", x.name, p.Number, p.Role, p.State)
			}
		}
	}
	return nil
}

// reach is the set of bridges that links connect to x.
func (n *network) reach(x *node) map[*node]bool {
	seen := map[*node]bool{x: true}
	for todo := []*node{x}; len(todo) > 0; {
		y := todo[0]
		todo = todo[1:]
		for _, e := range y.ports {
			if e.link == nil || !e.link.up {
				continue
			}
			for _, other := range e.link.ends {
				if !other.node.dead && !seen[other.node] {
					seen[other.node] = true
					todo = append(todo, other.node)
				}
			}
		}
	}
	return seen
}
