package fdb

import (
	"sync"
	"testing"
	"time"
)

// together runs f n times at once.
func together(n int, f func(i int)) {
	start := make(chan struct{})
	var running sync.WaitGroup
	for i := range n {
		running.Go(func() { <-start; f(i) })
	}
	close(start)
	running.Wait()
}

// Workers that learn the same stations at the same moment meet at the same slots.
func TestLearnTogether(t *testing.T) {
	t.Parallel()
	const keys = 300
	for range 300 {
		tbl := New(Config{})
		together(4, func(i int) {
			for k := range keys {
				tbl.Learn(station(k), uint16(i))
			}
		})
		check(t, tbl)
		if tbl.Len() != keys || t.Failed() {
			t.Fatalf("%d entries of %d stations", tbl.Len(), keys)
		}
	}
}

// A port that is flushed while it learns has its counts right.
func TestFlushTogether(t *testing.T) {
	t.Parallel()
	tbl := New(Config{})
	for range 100 {
		together(3, func(i int) {
			for k := range 500 {
				if i == 0 {
					tbl.FlushPort(1)
				} else {
					tbl.Learn(station(500*i+k), 1)
				}
			}
		})
	}
	check(t, tbl)
}

// A station that is heard while the table is rebuilt is there.
func TestHeardFrozen(t *testing.T) {
	tbl := New(Config{})
	wantLearn(t, tbl, station(1), 1, Learned, NoPort)
	tbl.Advance(10 * time.Second)
	tbl.freeze(tbl.array.Load())
	if !tbl.Heard(station(1), 1, time.Second) {
		t.Error("a station in an array that is being replaced is not there")
	}
}

// An array is replaced when it is four times as large as one for another entry would be.
func TestWornAtTheBound(t *testing.T) {
	const size = 4096
	bound := minSlots / loadDen * roomNum // the most entries of the smallest array
	for entries, want := range map[int]bool{bound - 1: true, bound: false} {
		tbl := New(Config{})
		tbl.array.Store(newArray(size))
		for i := range entries {
			wantLearn(t, tbl, station(i), 1, Learned, NoPort)
		}
		if got := tbl.isWorn(tbl.array.Load()); got != want {
			t.Errorf("an array of %d slots with %d entries is worn: %v", size, entries, got)
		}
	}
}

// A station last heard longer ago than the ageing time is not there, however old the
// table takes it for.
func TestHeardTooLongAgo(t *testing.T) {
	tbl := New(Config{Aging: 10 * time.Second})
	wantLearn(t, tbl, station(1), 1, Learned, NoPort)
	tbl.Advance(30 * time.Second)
	if tbl.Heard(station(1), 1, 15*time.Second) {
		t.Error("a station that was silent for 15 s is there, with an ageing time of 10 s")
	}
}

// Who claims a slot that another call has claimed meanwhile shares it if it is for the same key.
func TestClaimedMeanwhile(t *testing.T) {
	var s slot
	for _, c := range []struct {
		key            Key
		claimed, isFor bool
	}{{station(1), true, true}, {station(1), false, true}, {station(2), false, false}} {
		if claimed, isFor := s.claim(c.key); claimed != c.claimed || isFor != c.isFor || Key(s.key.Load()) != station(1) {
			t.Errorf("%v: claimed %v, for it %v", c.key, claimed, isFor)
		}
	}
}

// Each part of an array's secret has a share in where a key's probes begin.
func TestHashTakesTheWholeSecret(t *testing.T) {
	a := newArray(minSlots)
	for i := range a.seed {
		was := a.home(station(1))
		a.seed[i] ^= 1 << 40
		if a.home(station(1)) == was {
			t.Errorf("word %d is not used", i)
		}
	}
	for range 64 {
		if b := newArray(minSlots); b.seed[1]&1 == 0 || a.seed == b.seed {
			t.Error("two arrays have one secret, or it loses bits")
		}
	}
}

// A station that is heard while it is restored is as old as the table has it.
func TestHeardMeanwhile(t *testing.T) {
	tbl := New(Config{})
	wantLearn(t, tbl, station(1), 1, Learned, NoPort)
	tbl.Advance(10 * time.Second)
	outcome, _ := tbl.learn(station(1), 1, 1)
	if e, ok := tbl.Get(station(1)); outcome != Known || !ok || e.Age != 10*time.Second {
		t.Errorf("%v, now of age %v", outcome, e.Age)
	}
}

// A value that changed meanwhile is not taken out of its slot, nor out of the counts.
func TestTakenMeanwhile(t *testing.T) {
	tbl := New(Config{})
	wantLearn(t, tbl, station(1), 1, Learned, NoPort)
	s := tbl.array.Load().find(station(1))
	was := s.load()
	wantLearn(t, tbl, station(1), 2, Moved, 1)
	if tbl.take(s, was) {
		t.Error("a value was taken that is not there")
	}
	wantAt(t, tbl, station(1), 2)
	check(t, tbl)
}

// An array that is full counts no slots but those claimed.
func TestFullArrayCountsItsSlots(t *testing.T) {
	tbl := New(Config{})
	a := tbl.array.Load()
	for i := range int(a.bound) {
		wantLearn(t, tbl, station(i), 1, Learned, NoPort)
	}
	tbl.mu.Lock() // no Learn can rebuild
	for i := range 10 {
		wantLearn(t, tbl, station(int(a.bound)+i), 1, Busy, NoPort)
	}
	tbl.mu.Unlock()
	check(t, tbl)
	wantLearn(t, tbl, station(int(a.bound)), 1, Learned, NoPort)
	check(t, tbl)
}
