package fdb

import (
	"testing"
	"time"
)

// An entry is in force until it is exactly as old as the ageing time, whether or
// not Sweep has come by; and stays right when the stamp's 20 bits wrap.
func TestExpiryIsExact(t *testing.T) {
	for _, start := range []time.Duration{0, 1, 1<<20 - 10, 1<<20 - 1, 1 << 20, 3<<20 - 5} {
		for _, aging := range []time.Duration{1, 10, 300, 1_000_000} {
			tbl := New(Config{Aging: aging * time.Second})
			tbl.Advance(start * time.Second)
			mustAdd(t, tbl, station(0), 1, Static)
			mustAdd(t, tbl, station(1), 1, Sticky)
			mustAdd(t, tbl, station(3), 1, Local)
			wantLearn(t, tbl, station(2), 1, Learned, NoPort)

			tbl.Advance((start+aging)*time.Second - 1)
			for k := range 3 {
				wantAt(t, tbl, station(k), 1)
			}
			if n := tbl.Sweep(1 << 30); n != 0 {
				t.Errorf("start %d, ageing %d: reclaimed %d too early", start, aging, n)
			}
			e, _ := tbl.Get(station(2))
			if want := (aging - 1) * time.Second; e.Age != want {
				t.Errorf("start %d, ageing %d: age %v, want %v", start, aging, e.Age, want)
			}

			tbl.Advance((start + aging) * time.Second)
			wantAt(t, tbl, station(0), 1)
			wantGone(t, tbl, station(1))
			wantGone(t, tbl, station(2))
			wantAt(t, tbl, station(3), NoPort)
			if n := tbl.Sweep(1 << 30); n != 2 {
				t.Errorf("start %d, ageing %d: reclaimed %d, want 2", start, aging, n)
			}
			if tbl.Len() != 2 || tbl.Count(1) != 0 {
				t.Errorf("start %d, ageing %d: len %d, count %d", start, aging, tbl.Len(), tbl.Count(1))
			}
			check(t, tbl)
		}
	}
}

func TestTrafficKeepsFresh(t *testing.T) {
	tbl := New(Config{Aging: 10 * time.Second})
	wantLearn(t, tbl, station(1), 1, Learned, NoPort)
	mustAdd(t, tbl, station(2), 1, Sticky)
	for s := range 50 {
		tbl.Advance(time.Duration(s) * 9 * time.Second)
		wantLearn(t, tbl, station(1), 1, Known, NoPort)
		wantLearn(t, tbl, station(2), 1, Known, NoPort)
		wantLearn(t, tbl, station(2), 2, Pinned, 1) // another port's traffic does not
	}
	tbl.Advance(49*9*time.Second + 10*time.Second)
	wantLearn(t, tbl, station(1), 1, Learned, NoPort)
	wantLearn(t, tbl, station(2), 2, Learned, NoPort) // once aged it may be learned anew
	if e, _ := tbl.Get(station(2)); e.Kind != Dynamic {
		t.Errorf("%+v", e)
	}
	check(t, tbl)
}

func TestSetAging(t *testing.T) {
	tbl := New(Config{Aging: -1})
	wantLearn(t, tbl, station(1), 1, Learned, NoPort)
	tbl.Advance(500_000 * time.Second)
	wantAt(t, tbl, station(1), 1)
	tbl.SetAging(500_001 * time.Second)
	wantAt(t, tbl, station(1), 1)
	tbl.SetAging(500_000 * time.Second)
	wantGone(t, tbl, station(1))
}

func TestTimeDoesNotGoBack(t *testing.T) {
	tbl := New(Config{Aging: 10 * time.Second})
	tbl.Advance(100 * time.Second)
	wantLearn(t, tbl, station(1), 1, Learned, NoPort)
	tbl.Advance(99 * time.Second)
	tbl.Advance(-time.Second)
	wantAt(t, tbl, station(1), 1)
	if e, _ := tbl.Get(station(1)); e.Age != 0 {
		t.Errorf("age %v", e.Age)
	}
}

// Sweep(0) once a second passes the whole table in a quarter of the ageing time,
// and in 64 s at most.
func TestSweepPassesInTime(t *testing.T) {
	for _, c := range []struct {
		aging time.Duration
		calls int
	}{{1, 1}, {4, 1}, {10, 2}, {100, 25}, {300, 64}, {-1, 64}} {
		tbl := New(Config{Aging: c.aging * time.Second})
		const n = minSlots / 2 // more would be worth a rebuild
		for i := range n {
			wantLearn(t, tbl, station(i), 1, Learned, NoPort)
		}
		tbl.FlushPort(1)
		got, calls := 0, 0
		for ; got < n && calls < 1000; calls++ {
			got += tbl.Sweep(0)
		}
		if got != n || calls > c.calls || calls < c.calls*3/4 {
			t.Errorf("ageing %d: reclaimed %d in %d calls, want %d in %d", c.aging, got, calls, n, c.calls)
		}
		check(t, tbl)
	}
}
