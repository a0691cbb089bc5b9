package lacp

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// replace has another Group go on at an end.
func (s *sim) replace(end int) {
	s.t.Helper()
	b, err := json.Marshal(s.ends[end].Save(s.now))
	if err != nil {
		s.t.Fatal(err)
	}
	v := new(Saved)
	if err := json.Unmarshal(b, v); err != nil {
		s.t.Fatal(err)
	}
	if s.ends[end], err = Restore(s.now, v); err != nil {
		s.t.Fatal(err)
	}
}

// A Group that goes on in another process keeps its timers, and has nothing to say.
func TestSaved(t *testing.T) {
	for _, c := range []Config{config(1), fast(config(1))} {
		s := newSim(t, c, fast(config(2)), 3)
		s.run(1900 * time.Millisecond)
		s.replace(0)
		s.run(50 * time.Millisecond)
		s.wantBoth("too early", "")
		s.run(150 * time.Millisecond)
		s.wantBoth("after the wait", "0 1 2")
		s.run(10*time.Second + 300*time.Millisecond)
		before := s.seen
		s.replace(0)
		s.wantBoth("at once", "0 1 2")
		s.run(time.Millisecond)
		if s.seen != before {
			t.Errorf("it has said something: %v frames, before %v", s.seen, before)
		}
		for range 200 {
			s.run(time.Second)
			s.replace(0)
			s.wantBoth("later", "0 1 2")
		}
		s.lose = func(from, _ int) bool { return from == 1 }
		s.run(30 * time.Second)
		s.replace(0)
		s.run(100 * time.Second)
		s.want("the partner is silent", 0, "")
	}
}

// What is no state of a Group is refused.
func TestSavedRefused(t *testing.T) {
	for _, m := range [][]SavedMember{
		{{Index: -1}}, {{Index: MaxMembers}}, {{Index: 1}, {Index: 1}}, {{Mux: uint8(distributing) + 1}}, {{Receiver: uint8(current) + 1}},
	} {
		if _, err := Restore(start, &Saved{Members: m}); err == nil {
			t.Errorf("%+v is taken", m)
		}
	}
}

// What is restored is what was saved, at any time: also a timer that is due.
func TestSavedIsRestored(t *testing.T) {
	s := newSim(t, fast(config(1)), fast(config(2)), 3)
	for range 40 {
		s.run(100 * time.Millisecond)
		for _, late := range []time.Duration{0, 1, time.Second, time.Minute} {
			now := s.now.Add(late)
			want := s.ends[0].Save(now)
			g, err := Restore(now, want)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, g.Save(now)); diff != "" {
				t.Fatalf("%v late (-saved +restored):\n%s", late, diff)
			}
		}
	}
}

// Two states are alike if they differ in times and counters alone.
func TestLike(t *testing.T) {
	of := func(change func(s *Saved)) *Saved {
		s := &Saved{Config: config(1), Members: []SavedMember{{Index: 1, Up: true}, {Index: 2}}}
		change(s)
		return s
	}
	is := of(func(*Saved) {})
	for what, c := range map[string]struct {
		a, b *Saved
		want bool
	}{
		"none":             {nil, nil, true},
		"one and none":     {is, nil, false},
		"none and one":     {nil, is, false},
		"the same":         {is, of(func(*Saved) {}), true},
		"another time":     {is, of(func(s *Saved) { s.Members[0].Current, s.Members[0].Periodic = 1, 1 }), true},
		"other counters":   {is, of(func(s *Saved) { s.Members[0].Counters.Sent++ }), true},
		"a PDU is due":     {is, of(func(s *Saved) { s.Members[0].Transmit = true }), true},
		"another setting":  {is, of(func(s *Saved) { s.Config.Key++ }), false},
		"another partner":  {is, of(func(s *Saved) { s.Partner.Key++ }), false},
		"a member less":    {is, of(func(s *Saved) { s.Members = s.Members[:1] }), false},
		"a member is down": {is, of(func(s *Saved) { s.Members[0].Up = false }), false},
		"another state":    {is, of(func(s *Saved) { s.Members[1].Partner.State++ }), false},
		"another mux":      {is, of(func(s *Saved) { s.Members[1].Mux++ }), false},
	} {
		if got := c.a.Like(c.b); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}
