package mcast

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	testGMI  = 260 * time.Second // 2 * 125 s + 10 s, RFC 3376 section 8.4
	testLMQT = 2 * time.Second   // 2 * 1 s, section 8.11
)

// state is a membership in the notation of RFC 3376 section 6.4, with timers in
// seconds: "INCLUDE a=260", "EXCLUDE(260) a=260 b", where b is blocked.
func state(m Membership, ok bool) string {
	if !ok {
		return "NONE"
	}
	var b strings.Builder
	if b.WriteString("INCLUDE"); m.Exclude {
		b.Reset()
		fmt.Fprintf(&b, "EXCLUDE(%d)", m.Expires/time.Second)
	}
	for _, x := range m.Sources {
		fmt.Fprintf(&b, " %s", letter(x.Addr))
		if !x.Blocked {
			fmt.Fprintf(&b, "=%d", x.Expires/time.Second)
		}
	}
	return b.String()
}

// sourcesOf turns "a b" into addresses of the group's family.
func sourcesOf(group netip.Addr, letters string) (out []netip.Addr) {
	for _, l := range strings.Fields(letters) {
		if group.Is4() {
			out = append(out, netip.AddrFrom4([4]byte{10, 1, 0, l[0]}))
		} else {
			out = append(out, netip.AddrFrom16([16]byte{0: 0x20, 1: 0x01, 15: l[0]}))
		}
	}
	return out
}

func letter(a netip.Addr) string {
	b := a.AsSlice()
	return string(b[len(b)-1])
}

// TestTransitions has the rows of RFC 3376 sections 6.4.1 and 6.4.2, which are those
// of RFC 3810 sections 7.4.1 and 7.4.2. The state is reached by reports at time 0;
// 10 s later comes the record. GMI is 260 s, LMQT 2 s.
func TestTransitions(t *testing.T) {
	type row struct {
		name    string
		include string // IS_IN, after
		exclude string // IS_EX; "-": none
		typ     recordType
		sources string
		want    string
		asked   string // the queries sent: "G" for the group, else the sources
	}
	rows := []row{
		{"INCLUDE(A) IS_IN(B)", "a b", "-", isIn, "b c", "INCLUDE a=250 b=260 c=260", ""},
		{"INCLUDE(A) IS_EX(B)", "a b", "-", isEx, "b c", "EXCLUDE(260) b=250 c", ""},
		{"EXCLUDE(X,Y) IS_IN(A)", "a b", "y z", isIn, "b c y", "EXCLUDE(250) a=250 b=260 c=260 y=260 z", ""},
		{"EXCLUDE(X,Y) IS_EX(A)", "a b", "y z", isEx, "b c y", "EXCLUDE(260) b=250 c=260 y", ""},
		{"INCLUDE(A) ALLOW(B)", "a b", "-", allow, "b c", "INCLUDE a=250 b=260 c=260", ""},
		{"INCLUDE(A) BLOCK(B)", "a b", "-", block, "b c", "INCLUDE a=250 b=2", "b"},
		{"INCLUDE(A) TO_EX(B)", "a b", "-", toEx, "b c", "EXCLUDE(260) b=2 c", "b"},
		{"INCLUDE(A) TO_IN(B)", "a b", "-", toIn, "b c", "INCLUDE a=2 b=260 c=260", "a"},
		{"INCLUDE(A) TO_IN({})", "a b", "-", toIn, "", "INCLUDE a=2 b=2", "a b"},
		{"EXCLUDE(X,Y) ALLOW(A)", "a b", "y z", allow, "b c y", "EXCLUDE(250) a=250 b=260 c=260 y=260 z", ""},
		{"EXCLUDE(X,Y) BLOCK(A)", "a b", "y z", block, "b c y", "EXCLUDE(250) a=250 b=2 c=2 y z", "b c"},
		{"EXCLUDE(X,Y) TO_EX(A)", "a b", "y z", toEx, "b c y", "EXCLUDE(260) b=2 c=2 y", "b c"},
		{"EXCLUDE(X,Y) TO_IN(A)", "a b", "y z", toIn, "b c y", "EXCLUDE(2) a=2 b=260 c=260 y=260 z", "G, a"},
		{"EXCLUDE(X,Y) TO_IN({})", "a", "y", toIn, "", "EXCLUDE(2) a=2 y", "G, a"},

		{"nothing IS_IN({})", "", "-", isIn, "", "NONE", ""},
		{"nothing TO_IN({})", "", "-", toIn, "", "NONE", ""},
		{"nothing BLOCK(B)", "", "-", block, "a", "NONE", ""},
		{"nothing IS_EX({})", "", "-", isEx, "", "EXCLUDE(260)", ""},
		{"nothing TO_EX(B)", "", "-", toEx, "a", "EXCLUDE(260) a", ""},
		{"nothing ALLOW(B)", "", "-", allow, "a a", "INCLUDE a=260", ""},
	}
	for _, group := range addrs("239.1.2.3", "ff05::1:3") {
		for _, c := range rows {
			t.Run(group.String()+" "+c.name, func(t *testing.T) {
				r := filtering(t, VLANConfig{})
				if c.exclude != "-" {
					r.accept(3, reportFrame(rec{isEx, group, sourcesOf(group, c.exclude)}))
				}
				r.accept(3, reportFrame(rec{isIn, group, sourcesOf(group, c.include)}))
				r.pass(10 * time.Second)
				r.sent = nil
				r.accept(3, reportFrame(rec{c.typ, group, sourcesOf(group, c.sources)}))
				if got := state(r.of(3, group)); got != c.want {
					t.Errorf("%s, want %s", got, c.want)
				}
				var asked []string
				r.pass(0) // what is due now
				for _, q := range r.sent {
					if q.port != 3 || q.m.group != group || q.m.suppress || q.m.maxResponse != time.Second {
						t.Errorf("query %+v", q)
					}
					list := []string{}
					for i := range q.m.sources.len() {
						list = append(list, letter(q.m.sources.at(i)))
					}
					if slices.Sort(list); len(list) == 0 {
						list = []string{"G"}
					}
					asked = append(asked, strings.Join(list, " "))
				}
				if got := strings.Join(asked, ", "); got != c.asked {
					t.Errorf("asked for %q, want %q", got, c.asked)
				}
			})
		}
	}
}

// TestExpiry has RFC 3376 section 6.5: what the end of each timer does.
func TestExpiry(t *testing.T) {
	group := addr("239.1.2.3")
	at := func(r *rig, start, after time.Duration, want string) {
		t.Helper()
		r.to(start + after)
		if got := state(r.of(3, group)); got != want {
			t.Errorf("after %v: %s, want %s", after, got, want)
		}
	}
	t.Run("include", func(t *testing.T) {
		r := filtering(t, VLANConfig{})
		start := r.now
		r.accept(3, reportFrame(rec{isIn, group, sourcesOf(group, "a")}))
		r.pass(100 * time.Second)
		r.accept(3, reportFrame(rec{isIn, group, sourcesOf(group, "b")}))
		at(r, start, testGMI-time.Nanosecond, "INCLUDE a=0 b=100")
		at(r, start, testGMI, "INCLUDE b=100")
		r.mustGet(group, 3)
		at(r, start, testGMI+100*time.Second, "NONE")
		r.mustGet(group, flood)
	})
	t.Run("exclude to include", func(t *testing.T) {
		r := filtering(t, VLANConfig{})
		start := r.now
		r.accept(3, reportFrame(rec{isEx, group, sourcesOf(group, "y")}))
		r.pass(100 * time.Second)
		r.accept(3, reportFrame(rec{isIn, group, sourcesOf(group, "a")}))
		at(r, start, testGMI-time.Nanosecond, "EXCLUDE(0) a=100 y")
		at(r, start, testGMI, "INCLUDE a=100")
		r.mustGet(group, 3)
		at(r, start, testGMI+100*time.Second, "NONE")
	})
	t.Run("exclude, a source ends first", func(t *testing.T) {
		r := filtering(t, VLANConfig{})
		start := r.now
		r.accept(3, reportFrame(rec{isEx, group, nil}, rec{isIn, group, sourcesOf(group, "a")}))
		r.pass(100 * time.Second)
		r.accept(3, reportFrame(rec{isEx, group, sourcesOf(group, "a")}))
		at(r, start, testGMI, "EXCLUDE(100) a")
		at(r, start, testGMI+100*time.Second, "NONE")
		r.mustGet(group, flood)
	})
}

// naive is the tables of RFC 3376 section 6.4 written down with sets, and nothing else.
type naive struct {
	exclude bool
	group   int
	x       map[string]int // wanted, with timers; A in include mode
	y       map[string]bool
}

func (n *naive) record(typ recordType, list []string, asks bool) {
	const gmi, lmqt = int(testGMI / time.Second), int(testLMQT / time.Second)
	in := map[string]bool{}
	for _, s := range list {
		in[s] = true
	}
	was := *n
	was.x, was.y = map[string]int{}, map[string]bool{}
	for s, v := range n.x {
		was.x[s] = v
	}
	for s := range n.y {
		was.y[s] = true
	}
	ask := func(s string) {
		if asks {
			n.x[s] = min(n.x[s], lmqt)
		}
	}
	switch typ {
	case isIn, allow, toIn:
		for s := range in {
			n.x[s] = gmi
			delete(n.y, s)
		}
		if typ == toIn {
			for s := range was.x {
				if !in[s] {
					ask(s)
				}
			}
			if n.exclude && asks {
				n.group = min(n.group, lmqt)
			}
		}
	case isEx, toEx:
		n.x, n.y = map[string]int{}, map[string]bool{}
		for s := range in {
			timer, inX := was.x[s]
			switch {
			case inX:
				n.x[s] = timer
			case !was.exclude || was.y[s]:
				n.y[s] = true
			case typ == isEx:
				n.x[s] = gmi
			default:
				n.x[s] = was.group
			}
		}
		if typ == toEx {
			for s := range n.x {
				ask(s)
			}
		}
		n.exclude, n.group = true, gmi
	case block:
		for s := range in {
			_, inX := was.x[s]
			if was.exclude && !inX && !was.y[s] {
				n.x[s] = was.group
				inX = true
			}
			if inX {
				ask(s)
			}
		}
	}
}

func (n *naive) second() {
	for s := range n.x {
		if n.x[s]--; n.x[s] == 0 {
			delete(n.x, s)
			if n.exclude {
				n.y[s] = true
			}
		}
	}
	if n.exclude {
		if n.group--; n.group == 0 {
			n.exclude, n.y = false, map[string]bool{}
		}
	}
}

func (n *naive) String() string {
	if !n.exclude && len(n.x) == 0 {
		return "NONE"
	}
	s := "INCLUDE"
	if n.exclude {
		s = fmt.Sprintf("EXCLUDE(%d)", n.group)
	}
	for c := 'a'; c <= 'z'; c++ {
		if t, ok := n.x[string(c)]; ok {
			s += fmt.Sprintf(" %c=%d", c, t)
		}
		if n.y[string(c)] {
			s += fmt.Sprintf(" %c", c)
		}
	}
	return s
}

// TestRecordsAgainstTables runs random records and time past the Snooper and the
// tables.
func TestRecordsAgainstTables(t *testing.T) {
	for _, asks := range []bool{true, false} {
		for seed := range uint64(40) {
			rng := rand.New(rand.NewPCG(seed, 1))
			group := addrs("239.1.2.3", "ff05::1:3")[seed%2]
			r := newRig(t, VLANConfig{Querier: asks})
			n := naive{x: map[string]int{}, y: map[string]bool{}}
			var log []string
			for range 200 {
				if rng.IntN(3) > 0 {
					typ := recordType(1 + rng.IntN(6))
					var list []string
					for _, l := range strings.Split("abcdef", "") {
						if rng.IntN(3) == 0 {
							list = append(list, l)
						}
					}
					n.record(typ, list, asks)
					log = append(log, fmt.Sprint(typ, list))
					r.accept(3, reportFrame(rec{typ, group, sourcesOf(group, strings.Join(list, " "))}))
				} else {
					wait := []int{1, 2, 3, 50, 125, 260}[rng.IntN(6)]
					for range wait {
						n.second()
					}
					log = append(log, fmt.Sprint(wait, " s"))
					r.pass(time.Duration(wait) * time.Second)
				}
				m, ok := r.of(3, group)
				if got, want := state(m, ok), n.String(); got != want {
					t.Fatalf("seed %d, querier %v:\n%s\n%s\nafter %s", seed, asks, got, want, strings.Join(log, ", "))
				}
				ports := r.gets(group)
				if r.vlans[1].inst[IPv4].querier.filter && ok != slices.Equal(ports, []uint16{3}) {
					t.Fatalf("seed %d: %v, but the group goes to %v", seed, ok, ports)
				}
			}
		}
	}
}

// TestOlderHosts has RFC 3376 section 7.3.2 and RFC 3810 section 8.3.2: while an older
// host is present, what it cannot say is not believed of newer ones.
func TestOlderHosts(t *testing.T) {
	g4, g6 := addr("239.1.2.3"), addr("ff05::1:3")
	for _, c := range []struct {
		name   string
		older  []byte
		then   []byte
		want   string
		number int // the version shown
	}{
		{"IGMPv1, leave", oldReport(1, g4), leaveFrame(g4), "EXCLUDE(250)", 1},
		{"IGMPv1, TO_IN({})", oldReport(1, g4), reportFrame(rec{toIn, g4, nil}), "EXCLUDE(250)", 1},
		{"IGMPv1, BLOCK", oldReport(1, g4), reportFrame(rec{block, g4, sourcesOf(g4, "a")}), "EXCLUDE(250)", 1},
		{"IGMPv1, TO_EX loses its sources", oldReport(1, g4), reportFrame(rec{toEx, g4, sourcesOf(g4, "a")}), "EXCLUDE(260)", 1},
		{"IGMPv2, leave", oldReport(2, g4), leaveFrame(g4), "EXCLUDE(2)", 2},
		{"IGMPv2, TO_IN({})", oldReport(2, g4), reportFrame(rec{toIn, g4, nil}), "EXCLUDE(2)", 2},
		{"IGMPv2, BLOCK", oldReport(2, g4), reportFrame(rec{block, g4, sourcesOf(g4, "a")}), "EXCLUDE(250)", 2},
		{"IGMPv2, TO_EX loses its sources", oldReport(2, g4), reportFrame(rec{toEx, g4, sourcesOf(g4, "a")}), "EXCLUDE(260)", 2},
		{"MLDv1, done", oldReport(2, g6), leaveFrame(g6), "EXCLUDE(2)", 1},
		{"MLDv1, BLOCK", oldReport(2, g6), reportFrame(rec{block, g6, sourcesOf(g6, "a")}), "EXCLUDE(250)", 1},
		{"MLDv1, TO_EX loses its sources", oldReport(2, g6), reportFrame(rec{toEx, g6, sourcesOf(g6, "a")}), "EXCLUDE(260)", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := filtering(t, VLANConfig{})
			group := g4
			if c.number < 2 && strings.HasPrefix(c.name, "MLD") {
				group = g6
			}
			r.accept(3, c.older)
			r.pass(10 * time.Second)
			r.accept(3, c.then)
			m, ok := r.of(3, group)
			if got := state(m, ok); got != c.want || m.Version != c.number {
				t.Errorf("%s of version %d, want %s of version %d", got, m.Version, c.want, c.number)
			}
		})
	}
	t.Run("the older host goes", func(t *testing.T) {
		r := filtering(t, VLANConfig{})
		r.accept(3, oldReport(1, g4))
		r.pass(testGMI - time.Second)
		r.accept(3, reportFrame(rec{isEx, g4, nil}))
		r.accept(3, leaveFrame(g4))
		if got := state(r.of(3, g4)); got != "EXCLUDE(260)" {
			t.Errorf("while it is present: %s", got)
		}
		r.pass(time.Second)
		r.accept(3, leaveFrame(g4))
		if m, ok := r.of(3, g4); state(m, ok) != "EXCLUDE(2)" || m.Version != 3 {
			t.Errorf("after it is gone: %+v", m)
		}
	})
}

// TestLastMember follows the queries after a leave (RFC 3376 section 6.6.3).
func TestLastMember(t *testing.T) {
	group := addr("239.1.2.3")
	type q struct {
		At       time.Duration
		Sources  string
		Suppress bool
	}
	asked := func(r *rig, start time.Duration) (list []q) {
		for _, s := range r.sent {
			if !s.m.group.IsValid() {
				continue
			}
			var sources []string
			for i := range s.m.sources.len() {
				sources = append(sources, letter(s.m.sources.at(i)))
			}
			list = append(list, q{s.at - start, strings.Join(sources, ""), s.m.suppress})
		}
		return list
	}
	cfg := VLANConfig{Robustness: 3, LastMemberInterval: 500 * time.Millisecond}
	const ms = time.Millisecond
	t.Run("nobody answers", func(t *testing.T) {
		r := filtering(t, cfg)
		r.accept(3, oldReport(2, group))
		r.accept(4, oldReport(2, group))
		start := r.now
		r.accept(3, leaveFrame(group))
		r.to(start + 1500*ms - 1)
		r.mustGet(group, 3, 4)
		r.to(start + 1500*ms)
		r.mustGet(group, 4)
		if d := cmp.Diff([]q{{At: 0}, {At: 500 * ms}, {At: 1000 * ms}}, asked(r, start)); d != "" {
			t.Error(d)
		}
	})
	t.Run("another host answers", func(t *testing.T) {
		r := filtering(t, cfg)
		r.accept(3, oldReport(2, group))
		start := r.now
		r.accept(3, leaveFrame(group))
		r.pass(600 * ms)
		r.accept(3, oldReport(2, group))
		r.pass(10 * time.Second)
		r.mustGet(group, 3)
		if d := cmp.Diff([]q{{At: 0}, {At: 500 * ms}, {At: 1000 * ms, Suppress: true}}, asked(r, start)); d != "" {
			t.Error(d)
		}
	})
	t.Run("two leaves at once", func(t *testing.T) {
		r := filtering(t, cfg)
		r.accept(3, oldReport(2, group))
		start := r.now
		r.accept(3, leaveFrame(group))
		r.accept(3, leaveFrame(group))
		r.pass(10 * time.Second)
		if n := len(asked(r, start)); n != 3 {
			t.Errorf("%d queries: a host that leaves again and again has others asked as often", n)
		}
	})
	t.Run("sources, one answered", func(t *testing.T) {
		r := filtering(t, cfg)
		r.accept(3, reportFrame(rec{isIn, group, sourcesOf(group, "a b c")}))
		start := r.now
		r.accept(3, reportFrame(rec{block, group, sourcesOf(group, "a b")}))
		r.pass(100 * ms)
		r.accept(3, reportFrame(rec{isIn, group, sourcesOf(group, "a")}))
		r.pass(10 * time.Second)
		if d := cmp.Diff([]q{
			{At: 0, Sources: "ab"},
			{At: 500 * ms, Sources: "b"}, {At: 500 * ms, Sources: "a", Suppress: true},
			{At: 1000 * ms, Sources: "b"}, {At: 1000 * ms, Sources: "a", Suppress: true},
		}, asked(r, start)); d != "" {
			t.Error(d)
		}
		if got := state(r.of(3, group)); !strings.HasPrefix(got, "INCLUDE a=") || strings.Contains(got, "b") {
			t.Error(got)
		}
	})
	t.Run("a source is answered, the group is not", func(t *testing.T) {
		r := filtering(t, cfg)
		r.accept(3, reportFrame(rec{isEx, group, nil}, rec{isIn, group, sourcesOf(group, "a")}))
		start := r.now
		r.accept(3, reportFrame(rec{toIn, group, nil}))
		r.pass(100 * ms)
		r.accept(3, reportFrame(rec{isIn, group, sourcesOf(group, "a")}))
		r.pass(10 * time.Second)
		if d := cmp.Diff([]q{{At: 0}, {At: 0, Sources: "a"}, {At: 500 * ms}, {At: 1000 * ms}}, asked(r, start)); d != "" {
			t.Error(d)
		}
		if got := state(r.of(3, group)); got != "INCLUDE a=375" { // of 3 * 125 s + 10 s
			t.Error(got)
		}
	})
	t.Run("the clock is late", func(t *testing.T) {
		r := filtering(t, cfg)
		r.accept(3, reportFrame(rec{isEx, group, nil}, rec{isIn, group, sourcesOf(group, "a")}))
		start := r.now
		r.accept(3, reportFrame(rec{block, group, sourcesOf(group, "a")}))
		r.Advance(start + 20*time.Second)
		if d := cmp.Diff([]q{{At: 0, Sources: "a"}}, asked(r, start)); d != "" {
			t.Error(d)
		}
		if got := state(r.of(3, group)); got != "EXCLUDE(365) a" {
			t.Error(got)
		}
	})
	t.Run("another becomes the querier", func(t *testing.T) {
		r := filtering(t, cfg)
		r.accept(3, reportFrame(rec{isEx, group, nil}, rec{isIn, group, sourcesOf(group, "a")}))
		start := r.now
		r.accept(3, reportFrame(rec{toIn, group, nil}))
		r.pass(100 * ms)
		r.accept(7, queryFrom("10.0.0.0"))
		r.pass(10 * time.Second)
		if d := cmp.Diff([]q{{At: 0}, {At: 0, Sources: "a"}}, asked(r, start)); d != "" {
			t.Error(d)
		}
	})
	t.Run("an IGMPv2 querier cannot ask for sources", func(t *testing.T) {
		cfg := cfg
		cfg.IGMPVersion = 2
		r := filtering(t, cfg)
		start := r.now
		r.accept(3, reportFrame(rec{isIn, group, sourcesOf(group, "a")}))
		r.accept(3, reportFrame(rec{block, group, sourcesOf(group, "a")}))
		r.pass(10 * time.Second)
		r.mustGet(group, 3)
		if list := asked(r, start); len(list) != 0 {
			t.Error(list)
		}
		r.accept(3, oldReport(2, group))
		r.accept(3, leaveFrame(group))
		if r.pass(0); len(r.sent) == 0 || r.sent[len(r.sent)-1].m.version != 2 {
			t.Errorf("%+v", r.sent)
		}
	})
}

func TestFastLeave(t *testing.T) {
	for _, group := range addrs("239.1.2.3", "ff05::1:3") {
		r := filtering(t, VLANConfig{})
		r.SetPort(3, PortConfig{FastLeave: true})
		for _, c := range []struct{ join, leave []byte }{
			{oldReport(2, group), leaveFrame(group)},
			{reportFrame(rec{toEx, group, nil}), reportFrame(rec{toIn, group, nil})},
			{reportFrame(rec{allow, group, sourcesOf(group, "a b")}), reportFrame(rec{block, group, sourcesOf(group, "b a")})},
			{reportFrame(rec{allow, group, sourcesOf(group, "a b")}), reportFrame(rec{toIn, group, nil})},
		} {
			r.accept(4, reportFrame(rec{isEx, group, nil}))
			r.accept(3, c.join)
			r.mustGet(group, 3, 4)
			r.accept(3, c.leave)
			r.mustGet(group, 4)
			r.pass(testGMI)
		}
		for _, s := range r.sent {
			if s.m.group.IsValid() {
				t.Errorf("asked: %+v", s)
			}
		}
	}
}

// TestManySources has a host that asks for more sources than are kept: it gets the
// group as long as it asks, whichever sources it gives up.
func TestManySources(t *testing.T) {
	group := addr("239.1.2.3")
	for _, typ := range []recordType{isIn, allow, toIn} {
		r := newRigOf(t, Config{Sources: 4}, VLANConfig{Querier: true})
		r.to(20 * time.Second)
		r.accept(3, reportFrame(rec{typ, group, sourcesOf(group, "a b c d e f")}))
		if m, _ := r.of(3, group); len(m.Sources) != 4 || !m.Exclude {
			t.Errorf("%+v", m)
		}
		r.accept(3, reportFrame(rec{block, group, sourcesOf(group, "a b c d")}))
		r.pass(testGMI - time.Second)
		r.mustGet(group, 3)
		r.pass(time.Second)
		r.mustGet(group, flood)
	}
}
