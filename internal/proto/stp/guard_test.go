package stp

import (
	"encoding/binary"
	"slices"
	"testing"
)

// frameOf is a BPDU of another bridge as it comes in.
func frameOf(m BPDU) []byte {
	var buf [FrameLen]byte
	return m.Put(&buf, [6]byte{0x52, 0x54, 0, 0, 0, 0x99})
}

// better is a BPDU of a bridge that is to be the root.
func betterRoot() BPDU {
	return BPDU{Type: TypeRST, Flags: roleDesignated | FlagProposal, Root: 1, Bridge: 1, Port: 0x8001,
		MaxAge: 20 * 256, HelloTime: 2 * 256, ForwardDelay: 15 * 256}
}

func setPort(t *testing.T, b *Bridge, set func(c *PortConfig)) {
	t.Helper()
	c := b.ports[0].cfg
	set(&c)
	if err := b.SetPort(1, c); err != nil {
		t.Fatal(err)
	}
}

func (r *recorder) has(kind EventKind) bool {
	return slices.ContainsFunc(r.events, func(e Event) bool { return e.Kind == kind && e.String() != "" })
}

func ticks(b *Bridge, n int) {
	for range n {
		b.Tick()
	}
}

func TestEdgePort(t *testing.T) {
	b, r := twoPorts(t)
	if r.states[1] != Discarding {
		t.Fatalf("%v at the start", r.states[1])
	}
	setPort(t, b, func(c *PortConfig) { c.AdminEdge = true })
	if r.states[1] != Forwarding || b.changes != 0 {
		t.Errorf("an edge port is %v, after %d topology changes", r.states[1], b.changes)
	}
	b.SetLink(1, false)
	if r.states[1] != Discarding {
		t.Errorf("without a link it is %v", r.states[1])
	}
	b.SetLink(1, true)
	if r.states[1] != Forwarding {
		t.Errorf("with a link again it is %v", r.states[1])
	}
	b.Receive(1, frameOf(betterRoot()))
	if s := b.Status(); s.Ports[0].Edge || s.Ports[0].Role != RoleRoot || s.RootPort != 1 {
		t.Errorf("a bridge was heard: %+v", s.Ports[0])
	}
}

func TestAutoEdge(t *testing.T) {
	b, r := twoPorts(t)
	setPort(t, b, func(c *PortConfig) { c.AutoEdge = true })
	ticks(b, migrateTime)
	if r.states[1] != Forwarding || !b.Status().Ports[0].Edge {
		t.Errorf("nobody is heard: %v", r.states[1])
	}
	// The other port waits for max age and a hello time, as 17.29.1 has it.
	if r.states[2] != Discarding {
		t.Errorf("no edge port: %v", r.states[2])
	}
	ticks(b, 20+2-migrateTime)
	if r.states[2] != Forwarding {
		t.Errorf("no edge port, later: %v", r.states[2])
	}
}

func TestBPDUGuard(t *testing.T) {
	b, r := twoPorts(t)
	setPort(t, b, func(c *PortConfig) { c.AdminEdge, c.BPDUGuard = true, true })
	b.Receive(1, frameOf(betterRoot()))
	s := b.Status()
	if p := s.Ports[0]; r.states[1] != Discarding || !p.BPDUGuarded || p.Role != RoleDisabled || p.RecoverIn != 300 || p.Rx.RST != 1 ||
		s.Root != s.Bridge || !r.has(EventBPDUGuard) {
		t.Fatalf("%v, %+v", r.states[1], s)
	}
	b.Receive(1, frameOf(betterRoot()))
	b.SetLink(1, false)
	b.SetLink(1, true)
	sent := len(r.sent)
	ticks(b, 299)
	if r.states[1] != Discarding || r.has(EventRecovered) || slices.Contains(r.by[sent:], 1) {
		t.Error("recovered before its time")
	}
	b.Tick()
	if r.states[1] != Forwarding || !r.has(EventRecovered) || b.Status().Ports[0].BPDUGuarded {
		t.Errorf("after its time it is %v", r.states[1])
	}
	b.Receive(1, frameOf(BPDU{Type: TypeTCN}))
	if r.states[1] != Discarding {
		t.Error("not tripped again")
	}
	b.Recover(1)
	if r.states[1] != Forwarding {
		t.Error("not recovered by hand")
	}

	cfg := b.cfg
	cfg.GuardRecovery = 0
	if err := b.Configure(cfg); err != nil {
		t.Fatal(err)
	}
	b.Receive(1, frameOf(betterRoot()))
	ticks(b, 1000)
	if r.states[1] != Discarding {
		t.Error("recovered, though it was never to")
	}
	setPort(t, b, func(c *PortConfig) { c.BPDUGuard = false })
	if r.states[1] != Forwarding {
		t.Error("the guard is off, the port is still")
	}
}

func TestRootGuard(t *testing.T) {
	b, r := twoPorts(t)
	setPort(t, b, func(c *PortConfig) { c.RootGuard = true })
	b.Receive(1, frameOf(betterRoot()))
	s := b.Status()
	if s.Root != s.Bridge || s.Ports[0].Role != RoleAlternate || !s.Ports[0].RootGuarded || r.states[1] != Discarding || !r.has(EventRootGuard) {
		t.Fatalf("%+v", s)
	}
	for range 10 {
		ticks(b, 2)
		b.Receive(1, frameOf(betterRoot()))
	}
	if r.states[1] != Discarding || r.has(EventRootGuardOver) {
		t.Error("given up while the better root is heard")
	}
	ticks(b, 6) // three hello times
	if s := b.Status(); s.Ports[0].RootGuarded || s.Ports[0].Role != RoleDesignated || !r.has(EventRootGuardOver) {
		t.Errorf("%+v", s.Ports[0])
	}
	// A worse one is let through.
	worse := betterRoot()
	worse.Root, worse.Bridge = ^BridgeID(0), ^BridgeID(0)
	b.Receive(1, frameOf(worse))
	if s := b.Status(); s.Ports[0].RootGuarded || s.Ports[0].Role != RoleDesignated {
		t.Errorf("%+v", s.Ports[0])
	}
}

func TestBPDUFilter(t *testing.T) {
	b, r := twoPorts(t)
	setPort(t, b, func(c *PortConfig) { c.BPDUFilter, c.BPDUGuard, c.AdminEdge = true, true, true })
	sent := len(r.sent)
	b.Receive(1, frameOf(betterRoot()))
	ticks(b, 10)
	if slices.Contains(r.by[sent:], 1) {
		t.Error("a BPDU was sent")
	}
	if s := b.Status(); s.Root != s.Bridge || s.Ports[0].Rx != (Counters{}) || r.states[1] != Forwarding {
		t.Errorf("a BPDU was heard: %+v", s)
	}
}

// A cable that leads back to the port it left would turn every frame round: the
// port does not forward as long as it hears itself.
func TestSelfLoop(t *testing.T) {
	b, r := twoPorts(t)
	setPort(t, b, func(c *PortConfig) { c.AdminEdge = true })
	back := func() {
		for i, m := range r.sent {
			if r.by[i] == 1 {
				b.Receive(1, frameOf(m))
			}
		}
		r.sent, r.by = nil, nil
	}
	ticks(b, 2)
	back()
	if r.states[1] != Discarding || !r.has(EventLooped) {
		t.Fatalf("%v, %+v", r.states[1], b.Status().Ports[0])
	}
	for range 100 {
		b.Tick()
		if back(); r.states[1] != Discarding || r.has(EventLoopedOver) {
			t.Fatalf("%v while it hears itself", r.states[1])
		}
	}
	if p := b.Status().Ports[0]; !p.SelfLooped || p.Looped < 50 {
		t.Errorf("%+v", p)
	}
	ticks(b, 10)
	if r.states[1] != Forwarding || !r.has(EventLoopedOver) || b.Status().Ports[0].SelfLooped {
		t.Errorf("%v, though the loop is gone", r.states[1])
	}
}

func TestSetAndRemovePort(t *testing.T) {
	b, r := twoPorts(t)
	b.Receive(1, frameOf(betterRoot()))
	second := betterRoot()
	second.Port = 0x8002
	b.Receive(2, frameOf(second))
	if s := b.Status(); s.RootPort != 1 || s.Ports[1].Role != RoleAlternate || s.RootCost != 20000 {
		t.Fatalf("%+v", s)
	}
	setPort(t, b, func(c *PortConfig) { c.PathCost = 20001 })
	if s := b.Status(); s.RootPort != 2 || r.states[2] != Forwarding || s.Ports[0].Role != RoleAlternate {
		t.Errorf("the other port is cheaper now: %+v", s)
	}
	b.RemovePort(2)
	if s := b.Status(); s.RootPort != 1 || len(s.Ports) != 1 || r.states[2] != Discarding || r.states[1] != Forwarding {
		t.Errorf("the other port is gone: %+v", s)
	}
	b.RemovePort(2)
	b.SetLink(2, true)
	b.Receive(2, frameOf(betterRoot()))
	if s := b.Status(); len(s.Ports) != 1 {
		t.Errorf("%+v", s)
	}
}

func TestConfigure(t *testing.T) {
	b, r := twoPorts(t)
	m := betterRoot()
	m.Root, m.Bridge = 0x1000_0000_0000_0001, 0x1000_0000_0000_0001
	b.Receive(1, frameOf(m))
	if s := b.Status(); s.RootPort != 1 || !r.has(EventRoot) {
		t.Fatalf("%+v", s)
	}
	r.sent = nil
	cfg := b.cfg
	cfg.Priority = 0
	if err := b.Configure(cfg); err != nil {
		t.Fatal(err)
	}
	if s := b.Status(); s.Root != s.Bridge || s.Root.Priority() != 0 || s.Ports[0].Role != RoleDesignated {
		t.Errorf("%+v", s)
	}
	if len(r.sent) == 0 || r.sent[0].Root != b.id {
		t.Errorf("the neighbours were told %+v", r.sent)
	}
}

// FuzzReceive: neighbours may send what they like, in any order and at any time; the
// machines come to rest, and what the owner was told agrees with the status.
func FuzzReceive(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3})
	seed := []byte{0xff}
	for _, s := range []string{rstFrame, configFrame, tcnFrame} {
		seed = append(append(seed, 0x10), unhex(f, s)[macLen+llcLen:]...)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, in []byte) {
		r := &recorder{states: map[uint16]State{}}
		b, err := New(testConfig(), r)
		if err != nil {
			t.Fatal(err)
		}
		const ports = 4
		for i := range uint16(ports) {
			cfg := DefaultPort()
			if len(in) > 0 {
				flags := in[0] >> i
				cfg.AdminEdge, cfg.BPDUGuard, cfg.RootGuard, cfg.Shared = flags&1 != 0, flags&2 != 0, flags&4 != 0, flags&8 != 0
			}
			if err := b.AddPort(i+1, cfg); err != nil {
				t.Fatal(err)
			}
			b.SetLink(i+1, true)
		}
		for len(in) > 0 {
			op := in[0]
			in = in[1:]
			number := uint16(op)%ports + 1
			switch op >> 4 {
			default:
				n := min(len(in), rstLen)
				frame := make([]byte, FrameLen)
				copy(frame, Group[:])
				binary.BigEndian.PutUint16(frame[12:], llcLen+rstLen)
				copy(frame[macLen:], "\x42\x42\x03")
				copy(frame[macLen+llcLen:], in[:n])
				if op&8 != 0 { // make it valid
					copy(frame[macLen+llcLen:], "\x00\x00\x02\x02")
				}
				in = in[n:]
				b.Receive(number, frame)
			case 8:
				b.Receive(number, in)
			case 9, 10, 11:
				b.Tick()
			case 12:
				b.SetLink(number, op&8 != 0)
			case 13:
				b.Recheck(number)
				b.Recover(number)
			case 14:
				cfg := b.cfg
				cfg.Priority = uint16(op&0xf) << 12
				if err := b.Configure(cfg); err != nil {
					t.Fatal(err)
				}
			case 15:
				b.RemovePort(number)
				if err := b.AddPort(number, DefaultPort()); err != nil {
					t.Fatal(err)
				}
			}
			consistent(t, b, r)
		}
	})
}

func consistent(t *testing.T, b *Bridge, r *recorder) {
	t.Helper()
	s := b.Status()
	roots := 0
	for _, p := range s.Ports {
		if r.states[p.Number] != p.State {
			t.Fatalf("port %d was set %v, its status is %v", p.Number, r.states[p.Number], p.State)
		}
		if p.State != Discarding && p.Role != RoleRoot && p.Role != RoleDesignated {
			t.Fatalf("port %d is %v and %v", p.Number, p.Role, p.State)
		}
		if (p.Role == RoleDisabled) != !b.port(p.Number).enabled() {
			t.Fatalf("port %d is %v", p.Number, p.Role)
		}
		if p.BPDUGuarded && p.Role != RoleDisabled || p.RootGuarded && p.Role == RoleRoot {
			t.Fatalf("a guard lets port %d be %v", p.Number, p.Role)
		}
		if p.Role == RoleRoot {
			roots++
			if p.Number != s.RootPort {
				t.Fatalf("port %d is root, and %d", p.Number, s.RootPort)
			}
		}
	}
	if roots > 1 || (s.RootPort == 0) != (roots == 0) || (s.RootPort == 0) != (s.Root == s.Bridge) {
		t.Fatalf("%d root ports: %+v", roots, s)
	}
	if s.Root > s.Bridge {
		t.Fatalf("the root %v is worse than the bridge %v", s.Root, s.Bridge)
	}
}

// What is no BPDU trips the guard like one, and does nothing to a port without it.
func TestBPDUGuardTakesAnything(t *testing.T) {
	valid := frameOf(betterRoot())
	edited := func(edit func(f []byte)) []byte {
		f := slices.Clone(valid)
		edit(f)
		return f
	}
	for name, frame := range map[string][]byte{
		"no BPDU":        []byte("no BPDU"),
		"empty":          {},
		"other LLC":      edited(func(f []byte) { f[14] = 0xaa }),
		"other protocol": edited(func(f []byte) { f[17] = 1 }),
		"other type":     edited(func(f []byte) { f[20] = 0x33 }),
		"too short":      edited(func(f []byte) { f[13] = 4 }),
		"EtherType":      edited(func(f []byte) { f[12] = 8 }),
		"from a group":   edited(func(f []byte) { f[6] |= 1 }),
		"other address":  edited(func(f []byte) { f[5] = 0xcd }),
	} {
		for call, receive := range map[string]func(*Bridge, uint16, []byte){"Receive": (*Bridge).Receive, "Guard": (*Bridge).Guard} {
			b, r := twoPorts(t)
			setPort(t, b, func(c *PortConfig) { c.AdminEdge = true })
			receive(b, 1, frame)
			if s := b.Status(); r.states[1] != Forwarding || s.Ports[0].Invalid != 1 || s.Ports[0].BPDUGuarded {
				t.Errorf("%s, %s: without the guard it is %v; %+v", name, call, r.states[1], s.Ports[0])
			}
			setPort(t, b, func(c *PortConfig) { c.BPDUGuard, c.BPDUFilter = true, true })
			receive(b, 1, frame)
			if r.states[1] != Forwarding {
				t.Errorf("%s, %s: the filter does not come before the guard", name, call)
			}
			setPort(t, b, func(c *PortConfig) { c.BPDUFilter = false })
			receive(b, 1, frame)
			if p := b.Status().Ports[0]; r.states[1] != Discarding || !p.BPDUGuarded || p.Invalid != 3 || !r.has(EventBPDUGuard) {
				t.Errorf("%s, %s: %v, %+v", name, call, r.states[1], p)
			}
		}
	}
	// The machines see nothing of what Guard is given.
	b, _ := twoPorts(t)
	b.Guard(1, valid)
	b.Guard(99, valid)
	if s := b.Status(); s.Root != s.Bridge || s.Ports[0].Rx.RST != 1 {
		t.Errorf("%+v", s)
	}
}

// Port 4,096 is one like the others: it can be the root port, whatever its priority, and
// hears itself.
func TestLastPort(t *testing.T) {
	for _, priority := range []uint8{0, 0x80, 0xf0} {
		r := &recorder{states: map[uint16]State{}}
		b, err := New(testConfig(), r)
		if err != nil {
			t.Fatal(err)
		}
		cfg := DefaultPort()
		cfg.Priority = priority
		for _, number := range []uint16{1, MaxPort - 1, MaxPort} {
			if err := b.AddPort(number, cfg); err != nil {
				t.Fatal(err)
			}
			b.SetLink(number, true)
		}
		ticks(b, 2)
		last := len(r.sent) - 1 // ports speak by ascending number
		m := r.sent[last]
		if r.by[last] != MaxPort || m.Port != PortID(priority)<<8 || m.Port.Number() != MaxPort {
			t.Errorf("port %d says it is %v", r.by[last], m.Port)
		}
		b.Receive(MaxPort, frameOf(m))
		if s := b.Status().Ports[2]; s.Looped != 1 || !s.SelfLooped || s.Number != MaxPort {
			t.Errorf("it does not hear itself: %+v", s)
		}
		b.Receive(MaxPort, frameOf(betterRoot()))
		if s := b.Status(); s.RootPort != MaxPort || s.Root == s.Bridge || s.Ports[2].Role != RoleRoot {
			t.Errorf("root port %d: %+v", s.RootPort, s.Ports[2])
		}
		next, err := Restore(testConfig(), map[uint16]PortConfig{1: cfg, MaxPort - 1: cfg, MaxPort: cfg}, b.Save(), r)
		if err != nil || next.Status().RootPort != MaxPort {
			t.Errorf("the next bridge is %v, %v", next, err)
		}
	}
}
