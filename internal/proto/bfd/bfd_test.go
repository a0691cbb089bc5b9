package bfd

import (
	"encoding/hex"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// pair is two ends and the packets between them, in a time of its own.
type pair struct {
	t    *testing.T
	now  time.Time
	ends [2]*Session
	sent [2][]Packet
	air  []flight
	lose func(from int) bool
}

type flight struct {
	at   time.Time
	to   int
	text [PacketLen]byte
}

const delay = 5 * time.Millisecond

func newPair(t *testing.T, configs ...Config) *pair {
	rng := rand.New(rand.NewPCG(1, 2))
	p := &pair{t: t, now: time.Unix(1000, 0), lose: func(int) bool { return false }}
	for i, c := range configs {
		c.Discriminator, c.Random = uint32(i+1), rng.Float64
		c.Send = func(q Packet) {
			p.sent[i] = append(p.sent[i], q)
			if !p.lose(i) {
				p.air = append(p.air, flight{p.now.Add(delay), 1 - i, q.Put()})
			}
		}
		p.ends[i] = New(c)
	}
	return p
}

// run lets d pass.
func (p *pair) run(d time.Duration) {
	for end := p.now.Add(d); p.now.Before(end); p.now = p.now.Add(time.Millisecond) {
		for len(p.air) > 0 && !p.now.Before(p.air[0].at) {
			f := p.air[0]
			p.air = p.air[1:]
			q, err := Parse(f.text[:])
			if err != nil {
				p.t.Fatalf("%+v: %v", q, err)
			}
			p.ends[f.to].Receive(p.now, q)
		}
		for _, e := range p.ends {
			if !p.now.Before(e.Next()) {
				e.Advance(p.now)
			}
		}
	}
}

func (p *pair) want(when string, a, b State) {
	p.t.Helper()
	if p.ends[0].State() != a || p.ends[1].State() != b {
		p.t.Errorf("%s: %v and %v, want %v and %v", when, p.ends[0].State(), p.ends[1].State(), a, b)
	}
}

var usual = Config{Interval: 300 * time.Millisecond, Mult: 3}

// Both ends come up within two slow intervals, then speak at the agreed one, with jitter.
func TestUp(t *testing.T) {
	p := newPair(t, usual, Config{Interval: 500 * time.Millisecond, Mult: 5})
	p.run(2 * time.Second)
	p.want("at the start", Up, Up)
	if a, b := p.ends[0].Detection(), p.ends[1].Detection(); a != 2500*time.Millisecond || b != 1500*time.Millisecond {
		t.Errorf("detection times are %v and %v", a, b)
	}
	p.sent = [2][]Packet{}
	p.run(100 * time.Second)
	for i, sent := range p.sent {
		if n := len(sent); n < 200 || n > 270 { // 500 ms, less up to a quarter
			t.Errorf("end %d sent %d packets in 100 s", i, n)
		}
		for _, q := range sent {
			if q.Poll || q.Final || q.State != Up || q.Your == 0 || q.MinTX != p.ends[i].cfg.Interval {
				t.Fatalf("end %d sent %+v", i, q)
			}
		}
	}
}

// A neighbour that falls silent is noticed within the detection time; it hears so, and the
// session comes back.
func TestSilence(t *testing.T) {
	p := newPair(t, usual, usual)
	p.run(3 * time.Second)
	p.want("at the start", Up, Up)
	p.lose = func(from int) bool { return from == 1 }
	p.run(650 * time.Millisecond)
	p.want("after two lost packets", Up, Up)
	p.run(300 * time.Millisecond)
	p.want("after three", Down, Down)
	if a, b := p.ends[0].Why(), p.ends[1].Why(); a != DetectionExpired || b != NeighborSignaled {
		t.Errorf("it went down because of %d and %d", a, b)
	}
	p.sent = [2][]Packet{}
	p.run(20 * time.Second)
	if n := len(p.sent[0]); n < 19 || n > 28 {
		t.Errorf("%d packets in 20 s without a session, want one a second", n)
	}
	p.lose = func(int) bool { return false }
	p.run(3 * time.Second)
	p.want("when it speaks again", Up, Up)
}

// Single losses harm nothing.
func TestLoss(t *testing.T) {
	p := newPair(t, usual, usual)
	p.run(3 * time.Second)
	n := 0
	p.lose = func(int) bool { n++; return n%3 == 0 }
	p.run(60 * time.Second)
	p.want("with losses", Up, Up)
}

// An end that begins anew is heard, though its neighbour still thinks the session up.
func TestRestart(t *testing.T) {
	p := newPair(t, usual, usual)
	p.run(3 * time.Second)
	c := p.ends[1].cfg
	c.Discriminator = 77
	p.ends[1] = New(c)
	p.run(delay + 2*time.Millisecond)
	if p.ends[0].State() == Up || p.ends[0].Why() != NeighborSignaled {
		t.Errorf("the other end is %v, %d", p.ends[0].State(), p.ends[0].Why())
	}
	p.run(3 * time.Second)
	p.want("afterwards", Up, Up)
}

// AdminDown ends the session and is no failure to detect.
func TestAdminDown(t *testing.T) {
	p := newPair(t, usual, usual)
	p.run(3 * time.Second)
	s := p.ends[0]
	s.Receive(p.now, Packet{State: AdminDown, Mult: 3, My: 2, Your: 1, MinTX: time.Second, MinRX: time.Second})
	if s.State() != Down || s.Why() != NeighborSignaled || s.Remote() != AdminDown {
		t.Errorf("it is %v, %d", s.State(), s.Why())
	}
}

// Packets for another session, or that want none, are heeded.
func TestReceive(t *testing.T) {
	p := newPair(t, usual, usual)
	p.run(3 * time.Second)
	s := p.ends[0]
	s.Receive(p.now, Packet{State: Down, Mult: 3, My: 2, Your: 99})
	if s.State() != Up {
		t.Error("a packet for another session counts")
	}
	for name, q := range map[string]Packet{
		"demand":      {State: Up, Mult: 250, My: 2, Your: 1, MinTX: time.Second, MinRX: time.Second, Demand: true},
		"no periodic": {State: Up, Mult: 250, My: 2, Your: 1, MinTX: time.Second},
	} {
		s.Receive(p.now, q)
		p.lose = func(int) bool { return true }
		p.air, p.sent = nil, [2][]Packet{}
		end := p.now.Add(10 * time.Second)
		for now := p.now; now.Before(end); now = now.Add(10 * time.Millisecond) {
			s.Advance(now)
		}
		if n := len(p.sent[0]); n != 0 || s.State() != Up {
			t.Errorf("%s: %d packets, %v", name, n, s.State())
		}
		p.sent = [2][]Packet{}
		q.Poll = true
		s.Receive(p.now, q)
		if len(p.sent[0]) != 1 || !p.sent[0][0].Final || p.sent[0][0].Poll {
			t.Errorf("%s: a poll is answered with %+v", name, p.sent[0])
		}
	}
}

// The neighbour's wish for fewer packets holds at once, and that for more.
func TestInterval(t *testing.T) {
	p := newPair(t, usual, usual)
	p.run(3 * time.Second)
	s := p.ends[0]
	for _, c := range []struct{ rx, least, most time.Duration }{
		{10 * time.Second, 7500 * time.Millisecond, 10 * time.Second}, {time.Millisecond, 225 * time.Millisecond, 300 * time.Millisecond},
	} {
		s.Receive(p.now, Packet{State: Up, Mult: 3, My: 2, Your: 1, MinTX: time.Minute, MinRX: c.rx})
		if in := s.Next().Sub(p.now); in < c.least || in > c.most {
			t.Errorf("the neighbour wants a packet in %v at least; the next is sent in %v", c.rx, in)
		}
	}
}

// The state machine (RFC 5880 section 6.8.6). Whoever comes up asks by a poll whether the neighbour
// has heard of the shorter interval, until it answers or the session ends (sections 6.5, 6.8.3).
func TestStates(t *testing.T) {
	for _, c := range []struct{ is, hears, want State }{
		{Down, AdminDown, Down}, {Down, Down, Init}, {Down, Init, Up}, {Down, Up, Down},
		{Init, AdminDown, Down}, {Init, Down, Init}, {Init, Init, Up}, {Init, Up, Up},
		{Up, AdminDown, Down}, {Up, Down, Down}, {Up, Init, Up}, {Up, Up, Up},
	} {
		var sent []Packet
		cfg := usual
		cfg.Discriminator, cfg.Random, cfg.Send = 1, rand.Float64, func(p Packet) { sent = append(sent, p) }
		s := New(cfg)
		now := time.Unix(1000, 0)
		hear := func(p Packet) {
			p.Mult, p.My, p.Your, p.MinTX, p.MinRX = 3, 2, 1, time.Second, time.Second
			now = now.Add(time.Millisecond)
			s.Receive(now, p)
		}
		last := func() Packet { return sent[len(sent)-1] }
		switch c.is {
		case Init:
			hear(Packet{State: Down})
		case Up:
			hear(Packet{State: Init})
			if p := last(); p.State != Up || !p.Poll {
				t.Errorf("up: sent %+v", p)
			}
		}
		if s.State() != c.is {
			t.Fatalf("it is %v, not %v", s.State(), c.is)
		}
		was, before := len(sent), s.State()
		hear(Packet{State: c.hears})
		if s.State() != c.want || (len(sent) != was) != (before != c.want) {
			t.Errorf("%v hears %v: it is %v, and sent %+v", c.is, c.hears, s.State(), sent[was:])
		}
		now = s.Next()
		s.Advance(now)
		if p := last(); p.State != c.want || p.Poll != (c.want == Up) || p.Final {
			t.Errorf("%v hears %v: sent %+v", c.is, c.hears, p)
		}
		if c.want != Up {
			continue
		}
		hear(Packet{State: Up, Final: true})
		now = s.Next()
		s.Advance(now)
		if p := last(); p.Poll {
			t.Errorf("after the answer: sent %+v", p)
		}
	}
}

// The packet on the wire (RFC 5880 section 4.1).
func TestWire(t *testing.T) {
	for _, c := range []struct {
		p    Packet
		want string
	}{
		{Packet{State: Up, Poll: true, Mult: 3, My: 1, Your: 2, MinTX: 300 * time.Millisecond, MinRX: time.Second}, "20e00318" + "00000001" + "00000002" + "000493e0" + "000f4240" + "00000000"},
		{Packet{State: Down, Diagnostic: NeighborSignaled, Mult: 5, My: 0x01020304}, "23400518" + "01020304" + "00000000" + "00000000" + "00000000" + "00000000"},
		{Packet{State: Init, Diagnostic: DetectionExpired, Final: true, Demand: true, Mult: 1, My: 1, Your: 2}, "21920118" + "00000001" + "00000002" + "00000000" + "00000000" + "00000000"},
		{Packet{State: AdminDown, Mult: 1, My: 1}, "20000118" + "00000001" + "00000000" + "00000000" + "00000000" + "00000000"},
	} {
		b := c.p.Put()
		if got := hex.EncodeToString(b[:]); got != c.want {
			t.Errorf("%+v: %s, want %s", c.p, got, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := Packet{State: Up, Mult: 3, My: 1, Your: 2}
	for name, spoil := range map[string]func(b []byte) []byte{
		"short":            func(b []byte) []byte { return b[:23] },
		"version":          func(b []byte) []byte { b[0] = 2 << 5; return b },
		"length":           func(b []byte) []byte { b[3] = 23; return b },
		"longer than that": func(b []byte) []byte { b[3] = 25; return b },
		"authentication":   func(b []byte) []byte { b[1] |= 0x04; return b },
		"multipoint":       func(b []byte) []byte { b[1] |= 0x01; return b },
		"multiplier":       func(b []byte) []byte { b[2] = 0; return b },
		"no discriminator": func(b []byte) []byte { clear(b[4:8]); return b },
		"nobody's":         func(b []byte) []byte { clear(b[8:12]); return b },
		"poll and final":   func(b []byte) []byte { b[1] |= 0x20 | 0x10; return b },
	} {
		b := good.Put()
		if _, err := Parse(spoil(b[:])); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
}

// What is read is what another implementation reads, and is written the same again.
func FuzzParse(f *testing.F) {
	for _, p := range []Packet{{State: Up, Mult: 3, My: 1, Your: 2, MinTX: time.Second, MinRX: 300 * time.Millisecond, Poll: true}, {State: Down, Mult: 1, My: 9, Diagnostic: NeighborSignaled}} {
		b := p.Put()
		f.Add(b[:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b)
		if err != nil {
			return
		}
		var other layers.BFD
		if err := other.DecodeFromBytes(b[:b[3]], gopacket.NilDecodeFeedback); err != nil {
			if b[3] == PacketLen {
				t.Fatalf("the other refuses it: %v", err)
			}
			return // what follows the mandatory part is nothing that both read
		}
		want := Packet{
			Diagnostic: Diagnostic(other.Diagnostic), State: State(other.State), Poll: other.Poll, Final: other.Final, Demand: other.Demand,
			Mult: uint8(other.DetectMultiplier), My: uint32(other.MyDiscriminator), Your: uint32(other.YourDiscriminator),
			MinTX: time.Duration(other.DesiredMinTxInterval) * time.Microsecond, MinRX: time.Duration(other.RequiredMinRxInterval) * time.Microsecond,
		}
		if diff := cmp.Diff(want, p); diff != "" {
			t.Errorf("(-other +this):\n%s", diff)
		}
		text := p.Put()
		if again, err := Parse(text[:]); err != nil || again != p {
			t.Errorf("written and read again: %+v, %v", again, err)
		}
	})
}
