package lacp

import (
	"encoding/json"
	"testing"
	"time"
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
