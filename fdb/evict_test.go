package fdb

import (
	"testing"
	"time"
)

// A port that floods the table with addresses evicts what it learned itself. Quiet
// ports lose nothing, and still get new stations in.
func TestFloodEvictsItself(t *testing.T) {
	const capacity, quiet, flood = 1000, 100, 30000
	tbl := New(Config{Capacity: capacity})
	for i := range 3 * quiet {
		wantLearn(t, tbl, station(i), uint16(i%3), Learned, NoPort)
	}
	for i := range flood {
		wantLearn(t, tbl, MakeKey(1, 0x0200_0000_0000+uint64(i)), 7, Learned, NoPort)
		if tbl.Len() > capacity {
			t.Fatalf("%d entries, at most %d are allowed", tbl.Len(), capacity)
		}
	}
	for i := range 3 * quiet {
		wantAt(t, tbl, station(i), uint16(i%3))
	}
	if got := tbl.Count(7); got != capacity-3*quiet {
		t.Errorf("the flooding port has %d", got)
	}
	for i := range quiet {
		wantLearn(t, tbl, station(3*quiet+i), 1, Learned, NoPort)
	}
	if tbl.Count(0) != quiet || tbl.Count(1) != 2*quiet || tbl.Count(2) != quiet || tbl.Count(7) != capacity-4*quiet {
		t.Errorf("counts %d %d %d %d", tbl.Count(0), tbl.Count(1), tbl.Count(2), tbl.Count(7))
	}
	if s := tbl.Stats(); s.Evictions != flood-(capacity-3*quiet)+quiet || s.Rebuilds == 0 {
		t.Errorf("%+v", s)
	}
	check(t, tbl)
}

// Two that flood share what the quiet one leaves.
func TestFloodsShare(t *testing.T) {
	tbl := New(Config{Capacity: 900})
	for i := range 100 {
		wantLearn(t, tbl, station(i), 300, Learned, NoPort)
	}
	for i := range 3000 {
		wantLearn(t, tbl, station(1000+i), 1, Learned, NoPort)
	}
	for i := range 3000 {
		wantLearn(t, tbl, station(5000+i), 2, Learned, NoPort)
	}
	if tbl.Count(300) != 100 || tbl.Count(1) != 400 || tbl.Count(2) != 400 {
		t.Errorf("counts %d %d %d", tbl.Count(300), tbl.Count(1), tbl.Count(2))
	}
	check(t, tbl)
}

func TestOldestOfTheSampleGoes(t *testing.T) {
	tbl := New(Config{Capacity: evictSamples})
	for i := range evictSamples {
		tbl.Advance(time.Duration(i) * time.Second)
		wantLearn(t, tbl, station(i), 1, Learned, NoPort)
	}
	wantLearn(t, tbl, station(0), 1, Known, NoPort)
	for i := range 20 {
		tbl.Advance(time.Duration(evictSamples+i) * time.Second)
		wantLearn(t, tbl, station(evictSamples+i), 1, Learned, NoPort)
		if i == 0 {
			wantGone(t, tbl, station(1))
			wantAt(t, tbl, station(0), 1)
		}
	}
	for i := range evictSamples {
		wantAt(t, tbl, station(20+i), 1)
	}
}

func TestExpiredGoesFirst(t *testing.T) {
	tbl := New(Config{Capacity: 4, Aging: 10 * time.Second})
	wantLearn(t, tbl, station(0), 2, Learned, NoPort)
	tbl.Advance(10 * time.Second)
	for i := 1; i < 4; i++ {
		wantLearn(t, tbl, station(i), 1, Learned, NoPort)
	}
	wantLearn(t, tbl, station(4), 1, Learned, NoPort)
	for i := 1; i < 5; i++ {
		wantAt(t, tbl, station(i), 1)
	}
	if n := tbl.Stats().Evictions; n != 0 {
		t.Errorf("%d evictions of entries in force", n)
	}
	check(t, tbl)
}

// One search is bounded; those that follow go on where it ended, and find the one
// entry that may go.
func TestSearchGoesOn(t *testing.T) {
	const capacity = 16 * evictWindow / 8 * 3 // fills 16 windows to 3/8
	tbl := New(Config{Capacity: capacity})
	for i := range capacity - 1 {
		mustAdd(t, tbl, station(i), 1, Static)
	}
	wantLearn(t, tbl, station(capacity), 1, Learned, NoPort)
	windows := tbl.Stats().Slots / evictWindow
	if windows < 8 {
		t.Fatalf("%d windows", windows)
	}
	tries := 1
	for o, _ := tbl.Learn(station(capacity+1), 2); o != Learned; o, _ = tbl.Learn(station(capacity+1), 2) {
		if tries++; o != Full || tries > windows {
			t.Fatalf("try %d: %v", tries, o)
		}
	}
	wantGone(t, tbl, station(capacity))
	wantAt(t, tbl, station(capacity+1), 2)
	check(t, tbl)
}
