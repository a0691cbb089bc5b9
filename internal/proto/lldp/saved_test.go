package lldp

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// An Agent that was saved goes on with its neighbours and its timers.
func TestSaved(t *testing.T) {
	var a Agent
	odd := from("\xff\x00\x01\x02\x03\x04", 20) // no text
	for _, frame := range [][]byte{Append(nil, 1, sample()), odd} {
		if err := a.Receive(at(1), frame); err != nil {
			t.Fatal(err)
		}
	}
	sends(&a, 1, 3)
	b, err := json.Marshal(a.Save(at(3)))
	if err != nil {
		t.Fatal(err)
	}
	s := new(Saved)
	if err := json.Unmarshal(b, s); err != nil {
		t.Fatal(err)
	}
	var next Agent
	if err := next.Restore(at(3), s); err != nil {
		t.Fatal(err)
	}
	same := func(what string) {
		t.Helper()
		if diff := cmp.Diff(a.Neighbors(), next.Neighbors(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s (-former +next):\n%s", what, diff)
		}
		if a.Counters != next.Counters {
			t.Errorf("%s: counters %+v, not %+v", what, next.Counters, a.Counters)
		}
	}
	same("at once")
	if n := len(next.Neighbors()); n != 2 {
		t.Fatalf("%d neighbours", n)
	}
	if diff := cmp.Diff(sends(&a, 4, 60), sends(&next, 4, 60)); diff != "" {
		t.Errorf("sends (-former +next):\n%s", diff)
	}
	same("later")

	// One that has not begun begins in the next process.
	var fresh Agent
	if err := fresh.Restore(at(0), new(Agent).Save(at(0))); err != nil || fresh.Tick(at(0)) != Farewell {
		t.Errorf("it has begun, %v", err)
	}
}

// What no Agent has is refused, and changes nothing.
func TestSavedRefused(t *testing.T) {
	frame := from("\x02\x00\x00\x00\x00\x01", 20)
	for name, s := range map[string]Saved{
		"waits too long":     {Wait: interval + 1},
		"negative":           {Fast: -1},
		"greets too often":   {Fast: fast + 1},
		"no frame":           {Neighbors: []SavedNeighbor{{Frame: []byte("no")}}},
		"outlives its TTL":   {Neighbors: []SavedNeighbor{{Frame: frame, Left: 21 * time.Second}}},
		"from the future":    {Neighbors: []SavedNeighbor{{Frame: frame, Age: -1}}},
		"too many":           {Neighbors: make([]SavedNeighbor, MaxNeighbors+1)},
		"one is good, as is": {Neighbors: []SavedNeighbor{{Frame: frame}, {}}},
	} {
		var a Agent
		if err := a.Restore(at(0), &s); err == nil || len(a.Neighbors()) > 0 {
			t.Errorf("%s: %v, %d neighbours", name, err, len(a.Neighbors()))
		}
	}
}

// What an Agent has at most is taken.
func TestSavedAtMost(t *testing.T) {
	s := Saved{Wait: interval, Fast: fast}
	for i := range MaxNeighbors {
		s.Neighbors = append(s.Neighbors, SavedNeighbor{Frame: from(fmt.Sprint(i), 20), Left: 20 * time.Second})
	}
	var a Agent
	if err := a.Restore(at(0), &s); err != nil || len(a.Neighbors()) != MaxNeighbors {
		t.Errorf("%v, %d neighbours", err, len(a.Neighbors()))
	}
}

// FuzzRestore: whatever another process gives, an Agent has what one can have, or nothing.
func FuzzRestore(f *testing.F) {
	var a Agent
	if err := a.Receive(at(1), Append(nil, 1, sample())); err != nil {
		f.Fatal(err)
	}
	b, err := json.Marshal(a.Save(at(2)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, in []byte) {
		s := new(Saved)
		if json.Unmarshal(in, s) != nil {
			return
		}
		var a Agent
		if err := a.Restore(at(2), s); err != nil {
			return
		}
		if n := len(a.Neighbors()); n > MaxNeighbors {
			t.Errorf("%d neighbours", n)
		}
		if n := len(sends(&a, 2, 70000)); n < 70000/interval/2 {
			t.Errorf("it has sent %d PDUs", n)
		}
		if n := len(a.Neighbors()); n > 0 {
			t.Errorf("%d neighbours do not end", n)
		}
	})
}
