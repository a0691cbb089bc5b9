package lacp

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/port"
)

// sim is two groups with a cable from each member of one to the same member of the other.
// Its time is its own.
type sim struct {
	t     *testing.T
	now   time.Time
	ends  [2]*Group
	cable [MaxMembers]bool
	seen  [2][MaxMembers]int // frames that each end sent
	lose  func(from, member int) bool
}

var start = time.Unix(1_000_000, 0)

func newSim(t *testing.T, a, b Config, members int) *sim {
	a.Key, b.Key = 1, 7
	s := &sim{t: t, now: start, ends: [2]*Group{New(a), New(b)}, lose: func(int, int) bool { return false }}
	for e, g := range s.ends {
		for i := range members {
			g.Add(s.now, i, port.MAC(0x020000000000+0x100*(e+1)+i))
		}
	}
	for i := range members {
		s.plug(i, true)
	}
	return s
}

func (s *sim) plug(i int, in bool) {
	s.cable[i] = in
	for _, g := range s.ends {
		g.SetUp(s.now, i, in)
	}
	s.deliver()
}

// deliver carries frames until none is under way.
func (s *sim) deliver() {
	s.t.Helper()
	for n := 0; ; n++ {
		if n > 1000 {
			s.t.Fatal("the two ends do not stop to talk")
		}
		idle := true
		for e, g := range s.ends {
			for _, o := range g.Sent() {
				s.seen[e][o.Member]++
				if len(o.Frame) != Len {
					s.t.Fatalf("a frame of %d bytes", len(o.Frame))
				}
				if s.cable[o.Member] && !s.lose(e, o.Member) {
					idle = false
					if err := s.ends[1-e].Receive(s.now, o.Member, o.Frame); err != nil {
						s.t.Fatal(err)
					}
				}
			}
		}
		if idle {
			return
		}
	}
}

// run lets time pass.
func (s *sim) run(d time.Duration) {
	s.t.Helper()
	for end, n := s.now.Add(d), 0; ; n++ {
		if n > 100_000 {
			s.t.Fatal("time does not pass")
		}
		next := end
		for _, g := range s.ends {
			if at := g.Tick(s.now); !at.IsZero() && at.Before(next) {
				next = at
			}
		}
		s.deliver()
		if next.Before(s.now) || next.Equal(s.now) && !s.now.Equal(end) {
			next = s.now // what was delivered made something due
		}
		if s.now.Equal(end) {
			return
		}
		s.now = next
	}
}

// want expects which members collect and distribute, such as "0 2".
func (s *sim) want(what string, end int, members string) {
	s.t.Helper()
	var c, d []string
	for i := range MaxMembers {
		if s.ends[end].Collects(i) {
			c = append(c, fmt.Sprint(i))
		}
		if s.ends[end].Distributes(i) {
			d = append(d, fmt.Sprint(i))
		}
	}
	if strings.Join(c, " ") != members || strings.Join(d, " ") != members {
		s.t.Errorf("%s: end %d collects by %v and distributes by %v, want %s", what, end, c, d, members)
	}
}

func (s *sim) wantBoth(what, members string) {
	s.t.Helper()
	s.want(what, 0, members)
	s.want(what, 1, members)
}

func config(n int) Config { return Config{System: port.MAC(0x020000000000 + n)} }

func fast(c Config) Config {
	c.Fast = true
	return c
}

// Members join together after the wait, leave with their cables, and come back.
func TestJoin(t *testing.T) {
	s := newSim(t, config(1), config(2), 3)
	s.run(1900 * time.Millisecond)
	s.wantBoth("too early", "")
	s.run(200 * time.Millisecond)
	s.wantBoth("after the wait", "0 1 2")
	s.plug(1, false)
	s.wantBoth("a cable is pulled", "0 2")
	s.run(time.Minute)
	s.plug(1, true)
	s.wantBoth("and plugged in again", "0 2")
	s.run(2100 * time.Millisecond)
	s.wantBoth("after the wait", "0 1 2")
	for e, g := range s.ends {
		m, ok := g.Member(1)
		other, _ := s.ends[1-e].Member(1)
		if diff := cmp.Diff(other.Actor, m.Partner); !ok || diff != "" {
			t.Errorf("end %d knows of its partner (-is +known)\n%s", e, diff)
		}
		const all = Active | Aggregation | Synchronized | Collecting | Distributing
		if m.Actor.State != all || m.Loop || m.Other || !m.Heard || !m.Selected || m.ActorChurn || m.PartnerChurn {
			t.Errorf("%+v", m)
		}
	}
	if _, ok := s.ends[0].Member(5); ok {
		t.Error("there is a member 5")
	}
	// One end gives a member up, and the other has it carry no more at once, if it hears of that.
	s.ends[0].Remove(s.now, 2)
	s.deliver()
	s.wantBoth("removed", "0 1")
	s.run(longTimeout + time.Second)
	s.wantBoth("nobody speaks by it", "0 1")
	s.lose = func(from, _ int) bool { return from == 0 }
	s.ends[0].Remove(s.now, 0)
	s.deliver()
	s.want("removed without a word", 0, "1")
	s.want("removed without a word", 1, "0 1")
	s.lose = func(int, int) bool { return false }
	s.run(longTimeout + time.Second)
	s.wantBoth("and found out", "1")
}

// With too few members in step neither end sends frames; with enough both do by all.
func TestMinLinks(t *testing.T) {
	a := config(1)
	a.MinLinks = 2
	s := newSim(t, a, config(2), 3)
	none := func(what string) {
		t.Helper()
		s.want(what, 0, "")
		for i := range MaxMembers { // it is ready to collect
			if s.ends[1].Distributes(i) {
				t.Errorf("%s: the other end sends by %d", what, i)
			}
		}
	}
	s.run(5 * time.Second)
	s.wantBoth("all are there", "0 1 2")
	s.plug(0, false)
	s.wantBoth("enough are there", "1 2")
	s.plug(2, false)
	none("one is there")
	if m, _ := s.ends[0].Member(1); !m.Few || m.Actor.State&Synchronized == 0 {
		t.Errorf("%+v", m)
	}
	s.run(longTimeout)
	none("one is there for long")
	s.ends[0].SetMinLinks(s.now, 1)
	s.deliver()
	s.wantBoth("one is enough", "1")
	s.ends[0].SetMinLinks(s.now, 2)
	s.deliver()
	none("one is no longer enough")
	s.plug(0, true)
	s.run(5 * time.Second)
	s.wantBoth("another is back", "0 1")
	s.lose = func(from, member int) bool { return member == 1 }
	s.run(longTimeout + time.Second)
	none("one is silent")
	if m, _ := s.ends[0].Member(1); m.Few {
		t.Errorf("a silent one waits for others: %+v", m)
	}
}

// PDUs come as often as the other end asks for.
func TestRates(t *testing.T) {
	s := newSim(t, fast(config(1)), config(2), 1)
	s.run(10 * time.Second)
	before := s.seen
	s.run(60 * time.Second)
	if a, b := s.seen[0][0]-before[0][0], s.seen[1][0]-before[1][0]; a != 2 || b != 60 {
		t.Errorf("in a minute the slow end is sent %d PDUs, the fast one %d; want 2 and 60", a, b)
	}
	s.ends[0].SetFast(s.now, false)
	s.ends[0].SetFast(s.now, false)
	s.run(time.Second)
	before = s.seen
	s.run(60 * time.Second)
	if b := s.seen[1][0] - before[1][0]; b != 2 {
		t.Errorf("an end that became slow is sent %d PDUs in a minute, want 2", b)
	}
	s.wantBoth("meanwhile", "0")
}

// A partner that falls silent loses the member at once when its time is over, and is
// forgotten 3 s later. It has it again when it speaks.
func TestSilence(t *testing.T) {
	for _, c := range []struct {
		fast  bool
		after time.Duration
	}{{true, shortTimeout}, {false, longTimeout}} {
		a := config(1)
		a.Fast = c.fast
		s := newSim(t, a, config(2), 2)
		s.run(5 * time.Second)
		s.wantBoth("at first", "0 1")
		s.lose = func(from, member int) bool { return from == 1 && member == 1 }
		period, began := c.after/3, s.now // the last PDU is up to a period old
		for s.ends[0].Collects(1) && s.now.Sub(began) < 2*c.after {
			s.run(100 * time.Millisecond)
		}
		if d := s.now.Sub(began); d < c.after-period || d > c.after+100*time.Millisecond {
			t.Errorf("found out after %v", d)
		}
		s.want("silent", 0, "0")
		if m, _ := s.ends[0].Member(1); !m.Heard || m.Actor.State&Expired == 0 {
			t.Errorf("expired: %+v", m)
		}
		s.run(shortTimeout)
		if m, _ := s.ends[0].Member(1); m.Heard || m.Actor.State&Defaulted == 0 || m.Partner != (Info{}) {
			t.Errorf("defaulted: %+v", m)
		}
		s.wantBoth("both know", "0") // its PDUs still reach the other end
		s.run(churnTime)
		if m, _ := s.ends[0].Member(1); !m.ActorChurn || !m.PartnerChurn {
			t.Errorf("churn: %+v", m)
		}
		s.lose = func(int, int) bool { return false }
		s.run(2*time.Second + slowPeriodic)
		s.wantBoth("it speaks again", "0 1")
		if m, _ := s.ends[0].Member(1); m.ActorChurn || m.PartnerChurn {
			t.Errorf("churn ended: %+v", m)
		}
	}
}

// A member that has never heard a partner tells it so, and is in no group, from the moment that its
// link comes up.
func TestNobodyThere(t *testing.T) {
	g := New(config(1))
	now := start
	g.Add(now, 0, 0x100)
	if m, _ := g.Member(0); m.Actor.State != Active|Aggregation|Defaulted {
		t.Errorf("before the link is up: %v", m.Actor.State)
	}
	g.SetUp(now, 0, true)
	for range 10 {
		if m, _ := g.Member(0); m.Heard || m.Selected || m.Actor.State&(Defaulted|Synchronized) != Defaulted {
			t.Fatalf("after %v: %+v", now.Sub(start), m)
		}
		now = now.Add(500 * time.Millisecond)
		g.Tick(now)
	}
}

// Who loses some PDUs loses nothing.
func TestLoss(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	s := newSim(t, fast(config(1)), fast(config(2)), 2)
	s.run(5 * time.Second)
	left := [2][2]int{}
	s.lose = func(from, member int) bool {
		if left[from][member] > 0 || r.IntN(2) == 0 {
			left[from][member] = (left[from][member] + 1) % 2
			return left[from][member] == 1
		}
		return false
	}
	for range 600 {
		s.run(time.Second)
		s.wantBoth("with losses", "0 1")
	}
}

// peer is a partner made by hand.
type peer struct {
	t    *testing.T
	g    *Group
	now  time.Time
	says [MaxMembers]Info
}

func (p *peer) say(i int) {
	m, ok := p.g.Member(i)
	if !ok {
		p.t.Fatal("no member")
	}
	if err := p.g.Receive(p.now, i, Append(nil, 2, PDU{p.says[i], m.Actor})); err != nil {
		p.t.Fatal(err)
	}
}

// talk has the partner speak by members once a second.
func (p *peer) talk(seconds int, members ...int) {
	for range seconds {
		p.now = p.now.Add(time.Second)
		p.g.Tick(p.now)
		for _, i := range members {
			p.say(i)
		}
		p.g.Sent()
	}
}

const inStep = Active | ShortTimeout | Aggregation | Synchronized | Collecting | Distributing

func newPeer(t *testing.T, members int) *peer {
	p := &peer{t: t, now: start, g: New(fast(config(1)))}
	for i := range members {
		p.g.Add(p.now, i, port.MAC(0x100+i))
		p.g.SetUp(p.now, i, true)
		p.says[i] = Info{0x8000, 0x0200000000aa, 5, 0x8000, uint16(i + 10), inStep}
	}
	return p
}

func (p *peer) want(what, members string) {
	p.t.Helper()
	(&sim{t: p.t, ends: [2]*Group{p.g}}).want(what, 0, members)
}

// Members that lead elsewhere stay out: to the fewer, to this end itself, or by a port that
// will not be one of several.
func TestPartners(t *testing.T) {
	p := newPeer(t, 4)
	p.talk(4, 0, 1, 2, 3)
	p.want("one partner", "0 1 2 3")

	p.says[0].System = 0x0200000000bb
	p.talk(1, 0, 1, 2, 3)
	p.want("the first leads to another", "1 2 3")
	if m, _ := p.g.Member(0); !m.Other || m.Selected || !m.Heard {
		t.Errorf("%+v", m)
	}
	p.says[1].Key++
	p.says[2].SystemPriority++
	p.talk(1, 0, 1, 2, 3)
	p.want("only the last is left", "3")
	p.g.SetUp(p.now, 3, false)
	p.talk(3, 0, 1, 2)
	p.want("the first of three is next", "0")
	p.says[2] = p.says[1]
	p.talk(3, 0, 1, 2)
	p.want("it keeps its partner", "0")
	p.g.SetUp(p.now, 0, false)
	p.talk(3, 1, 2)
	p.want("the other partner is next", "1 2")

	p.says[1].System = config(1).System
	p.talk(3, 1, 2)
	if m, _ := p.g.Member(1); !m.Loop {
		t.Errorf("%+v", m)
	}
	p.want("a loop", "2")

	p = newPeer(t, 3)
	p.says[1].State &^= Aggregation
	p.talk(4, 0, 1, 2)
	p.want("one of them is single", "0 2")
	p.says[0].State &^= Aggregation
	p.talk(4, 0, 1, 2)
	p.want("the first is single", "0")
}

// Each step of the partner's leads to one of this end's.
func TestSteps(t *testing.T) {
	p := newPeer(t, 1)
	p.says[0].State = Active | ShortTimeout | Aggregation
	state := func(what string, want State) {
		t.Helper()
		if m, _ := p.g.Member(0); m.Actor.State != Active|ShortTimeout|Aggregation|want {
			t.Errorf("%s: %v, want in addition %v", what, m.Actor.State, want)
		}
	}
	p.talk(2, 0)
	state("waiting", 0)
	p.talk(2, 0)
	state("attached", Synchronized)
	p.says[0].State |= Synchronized
	p.say(0)
	state("the partner is attached", Synchronized|Collecting)
	p.says[0].State |= Collecting
	p.say(0)
	state("the partner collects", Synchronized|Collecting|Distributing)
	p.says[0].State &^= Collecting
	p.say(0)
	state("no more", Synchronized|Collecting)
	p.says[0].State = inStep &^ Synchronized
	p.say(0)
	state("out of step", Synchronized)
	p.says[0].State = inStep
	p.say(0)
	m, _ := p.g.Member(0)
	m.Actor.Key++
	if err := p.g.Receive(p.now, 0, Append(nil, 2, PDU{p.says[0], m.Actor})); err != nil {
		t.Fatal(err)
	}
	state("it means another port", Synchronized)
	p.say(0)
	p.says[0].Port++
	p.say(0)
	state("it became another port", 0)
	p.talk(3, 0)
	state("which joins, too", Synchronized|Collecting|Distributing)
	p.says[0].State &^= Active
	p.say(0)
	state("a passive partner", Synchronized|Collecting|Distributing)
}

// However much a partner says, and whatever, the group answers with three PDUs a second at
// most, and the machines keep to their rules.
func TestHostile(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	p := newPeer(t, 3)
	sent, hour := [MaxMembers]map[int64]int{{}, {}, {}}, p.now.Add(time.Hour)
	for p.now.Before(hour) {
		p.now = p.now.Add(time.Duration(r.IntN(int(30 * time.Millisecond))))
		i := r.IntN(3)
		frame := Append(nil, 2, PDU{
			Info{uint16(r.IntN(3)), port.MAC(r.IntN(3)), uint16(r.IntN(2)), 0, uint16(r.IntN(3)), State(r.Uint32())},
			Info{0x8000, 0x020000000001, 0, 0x8000, uint16(i + 1), State(r.Uint32())},
		})
		switch r.IntN(10) {
		case 0:
			frame = frame[:r.IntN(len(frame))]
		case 1:
			frame[port.HeaderLen+r.IntN(60)] = byte(r.Uint32())
		case 2:
			p.g.SetUp(p.now, i, r.IntN(2) == 0)
		}
		_ = p.g.Receive(p.now, i, frame)
		if next := p.g.Tick(p.now); !next.IsZero() && !next.After(p.now) {
			t.Fatalf("the next tick is %v ago", p.now.Sub(next))
		}
		for _, o := range p.g.Sent() {
			sent[o.Member][p.now.Unix()]++
			if _, err := Parse(o.Frame); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 3 {
			m, _ := p.g.Member(i)
			if m.Actor.State&Distributing != 0 && m.Actor.State&Collecting == 0 || m.Actor.State&Collecting != 0 && m.Actor.State&Synchronized == 0 ||
				m.Actor.State&Collecting != 0 && (!m.Selected || m.Partner.State&Synchronized == 0 || m.Loop || m.Other) {
				t.Fatalf("%+v", m)
			}
		}
	}
	for i, seconds := range sent[:3] {
		for s, n := range seconds {
			if n > 2*txLimit { // of two windows
				t.Errorf("member %d sends %d PDUs in second %d", i, n, s)
			}
		}
		if m, _ := p.g.Member(i); m.Counters.Excess == 0 || m.Counters.Discarded == 0 {
			t.Errorf("%+v", m.Counters)
		}
	}
}

// A member hears ten frames of its partner in a second. It says that it is a port, by the numbers
// from one on.
func TestHeardInASecond(t *testing.T) {
	p := newPeer(t, 2)
	for range 30 {
		p.say(1)
	}
	for i, excess := range []uint64{0, 20} {
		if m, _ := p.g.Member(i); m.Counters.Excess != excess || m.Actor.Port != uint16(i+1) {
			t.Errorf("member %d is port %d, and left out %d frames, want %d", i, m.Actor.Port, m.Counters.Excess, excess)
		}
	}
	p.now = p.now.Add(time.Second)
	p.say(1)
	if m, _ := p.g.Member(1); m.Counters.Excess != 20 {
		t.Errorf("a second later: %d", m.Counters.Excess)
	}
}

// A member sends three PDUs in a second, however often the partner is wrong about it.
func TestSentInASecond(t *testing.T) {
	p := newPeer(t, 1)
	for second := range 3 {
		sent := len(p.g.Sent())
		for range 9 {
			if err := p.g.Receive(p.now, 0, Append(nil, 2, PDU{p.says[0], Info{}})); err != nil {
				t.Fatal(err)
			}
			p.g.Tick(p.now)
			sent += len(p.g.Sent())
		}
		if sent != 3 {
			t.Errorf("%d PDUs in second %d", sent, second)
		}
		p.now = p.now.Add(time.Second)
		p.g.Tick(p.now.Add(-1))
	}
}

// A frame is of a slow protocol by its address and its type, were there nothing behind them.
func TestIsSlow(t *testing.T) {
	b := Append(nil, 0x020000000009, PDU{})
	if !IsSlow(b) || !IsSlow(b[:14]) || IsSlow(b[:13]) {
		t.Error("a frame of a slow protocol is none, or a part of it is one")
	}
}

// Markers are answered as they came.
func TestMarker(t *testing.T) {
	p := newPeer(t, 1)
	p.g.Sent()
	marker := make([]byte, Len)
	body := header(marker, 0x0200000000aa, subtypeMarker)
	copy(body[2:], []byte{typeMarker, markerLen, 0, 10, 2, 0, 0, 0, 0, 0xaa, 1, 2, 3, 4})
	if err := p.g.Receive(p.now, 0, marker); err != nil {
		t.Fatal(err)
	}
	out := p.g.Sent()
	if len(out) != 1 || out[0].Member != 0 {
		t.Fatalf("%+v", out)
	}
	want := bytes.Clone(marker)
	copy(want[6:], port.MAC(0x100).HardwareAddr())
	want[port.HeaderLen+2] = typeResponse
	if !bytes.Equal(out[0].Frame, want) {
		t.Errorf("the answer is %x, want %x", out[0].Frame, want)
	}
	// A response is not answered, other slow protocols are none of its business.
	for _, frame := range [][]byte{want, marker[:60], append(bytes.Clone(marker[:port.HeaderLen]), 3)} {
		if err := p.g.Receive(p.now, 0, frame); err == nil {
			t.Errorf("%x is taken", frame)
		}
	}
	if out := p.g.Sent(); len(out) != 0 {
		t.Errorf("%+v", out)
	}
	if m, _ := p.g.Member(0); m.Counters != (Counters{Sent: 1, Received: 3, Discarded: 2, Markers: 1}) {
		t.Errorf("%+v", m.Counters)
	}
}

// An LACPDU looks as in 802.1AX-2014 figure 6-7.
func TestWire(t *testing.T) {
	const want = "0180c2000002 020000000009 8809 01 01" +
		"01 14 8000 0200000000aa 0021 00ff 0003 3d 000000" +
		"02 14 ffff 0200000000bb 0005 8000 0102 c5 000000" +
		"03 10 0000 000000000000000000000000" +
		"00 00" + "0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
	p := PDU{Info{0x8000, 0x0200000000aa, 0x21, 0xff, 3, 0x3d}, Info{0xffff, 0x0200000000bb, 5, 0x8000, 0x102, 0xc5}}
	b := Append(nil, 0x020000000009, p)
	if got := hex.EncodeToString(b); got != strings.ReplaceAll(want, " ", "") {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	got, err := Parse(b)
	if diff := cmp.Diff(p, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if got, want := p.Actor.State.String(), "active,aggregation,in_sync,collecting,distributing"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for what, spoil := range map[string]func([]byte) []byte{
		"cut off":            func(b []byte) []byte { return b[:50] },
		"of version 0":       func(b []byte) []byte { b[15] = 0; return b },
		"without an actor":   func(b []byte) []byte { b[16] = 2; return b },
		"short partner":      func(b []byte) []byte { b[37] = 19; return b },
		"of a group":         func(b []byte) []byte { b[20] = 1; return b },
		"to another address": func(b []byte) []byte { b[5] = 3; return b },
		"a marker":           func(b []byte) []byte { b[14] = 2; return b },
		"of another type":    func(b []byte) []byte { b[13]++; return b },
		"nothing":            func([]byte) []byte { return nil },
	} {
		if p, err := Parse(spoil(bytes.Clone(b))); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %+v, %v", what, p, err)
		}
	}
	b[15] = 2
	if _, err := Parse(b); err != nil {
		t.Errorf("of a later version: %v", err)
	}
}

// FuzzParse: what is understood reads the same when written again, and no frame upsets a
// group.
func FuzzParse(f *testing.F) {
	f.Add(Append(nil, 2, PDU{Info{1, 2, 3, 4, 5, inStep}, Info{0x8000, 0x020000000001, 0, 0x8000, 1, inStep}}))
	f.Add([]byte{})
	marker := make([]byte, Len)
	copy(header(marker, 2, subtypeMarker)[2:], []byte{typeMarker, markerLen})
	f.Add(marker)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b)
		if err == nil {
			if again, err := Parse(Append(nil, 2, p)); err != nil || again != p {
				t.Errorf("%+v becomes %+v, %v", p, again, err)
			}
		}
		g := New(config(1))
		g.Add(start, 0, 2)
		g.SetUp(start, 0, true)
		for i := range 5 {
			now := start.Add(time.Duration(i) * time.Second)
			_ = g.Receive(now, 0, b)
			g.Tick(now)
		}
		if n := len(g.Sent()); n > 5*txLimit {
			t.Errorf("%d frames", n)
		}
	})
}
