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
	for _, c := range []struct{ set, is time.Duration }{
		{0, DefaultAging}, {-5, -1}, {time.Millisecond, time.Second}, {time.Second + 1, 2 * time.Second}, {2 * MaxAging, MaxAging},
	} {
		if got := New(Config{Aging: c.set}).Aging(); got != c.is {
			t.Errorf("an ageing time of %v is %v, want %v", c.set, got, c.is)
		}
	}
	tbl := New(Config{Aging: -1})
	wantLearn(t, tbl, station(1), 1, Learned, NoPort)
	tbl.Advance(500_000 * time.Second)
	wantAt(t, tbl, station(1), 1)
	tbl.SetAging(500_001 * time.Second)
	wantAt(t, tbl, station(1), 1)
	tbl.SetAging(500_000 * time.Second)
	wantGone(t, tbl, station(1))
	tbl.SetAging(0) // unlike Config's, this is no default: it is the shortest
	if got := tbl.Aging(); got != time.Second {
		t.Errorf("an ageing time set to 0 is %v, want a second", got)
	}
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
		// Those that stay are enough, and all together few enough, that no rebuild is worth it.
		const slots, n, stay = 8 * minSlots, 3 * minSlots, minSlots
		tbl.array.Store(newArray(slots))
		for i := range n {
			wantLearn(t, tbl, station(i), 1, Learned, NoPort)
		}
		for i := range stay {
			mustAdd(t, tbl, station(n+i), 2, Static)
		}
		tbl.FlushPort(1)
		got, calls := 0, 0
		for range 10 {
			one := tbl.Sweep(1)
			if got += one; one > 1 {
				t.Errorf("ageing %d: %d reclaimed from one slot", c.aging, one)
			}
		}
		for ; got < n && calls < 1000; calls++ {
			got += tbl.Sweep(0)
		}
		if got != n || calls > c.calls || calls < c.calls-1 {
			t.Errorf("ageing %d: reclaimed %d in %d calls, want %d in %d", c.aging, got, calls, n, c.calls)
		}
		check(t, tbl)
	}
}

// A station that somebody kept is as old as it was; what the table has heard holds.
func TestRestore(t *testing.T) {
	for _, second := range []time.Duration{0, 100, 1<<20 + 5} {
		tbl := New(Config{Aging: 300 * time.Second})
		tbl.Advance(second * time.Second)
		wantLearn(t, tbl, station(1), 1, Learned, NoPort)
		wantLearn(t, tbl, station(2), 2, Learned, NoPort)
		tbl.SetLimit(3, 1)
		for _, c := range []struct {
			station int
			port    uint16
			ago     time.Duration
			ok      bool
			age     time.Duration // -1: not there
		}{
			{0, 1, 299 * time.Second, true, 299 * time.Second},
			{4, 1, 300 * time.Second, false, -1},
			{5, 1, 100 * time.Hour, false, -1},
			{6, 1, 2500 * time.Millisecond, true, 2 * time.Second},
			{1, 1, 200 * time.Second, true, 0},  // heard since
			{2, 1, 200 * time.Second, false, 0}, // heard since, at port 2
			{0, 1, 100 * time.Second, true, 100 * time.Second},
			{7, 3, time.Second, true, time.Second},
			{8, 3, time.Second, false, -1}, // beyond the port's limit
		} {
			age := time.Duration(-1)
			ok := tbl.Restore(station(c.station), c.port, c.ago)
			if e, known := tbl.Get(station(c.station)); known {
				age = e.Age
			}
			if ok != c.ok || age != c.age {
				t.Errorf("station %d, heard %v ago: %v, now of age %v; want %v, %v", c.station, c.ago, ok, age, c.ok, c.age)
			}
		}
		wantAt(t, tbl, station(2), 2)
		tbl.Advance((second + 1) * time.Second)
		wantAt(t, tbl, station(0), 1)
		tbl.Advance((second + 200) * time.Second)
		wantGone(t, tbl, station(0))
		check(t, tbl)
	}
	forever := New(Config{Aging: -1})
	if !forever.Restore(station(1), 1, 1<<62) {
		t.Error("a station that does not age is not learned")
	}
	if e, ok := forever.Get(station(1)); !ok || e.Age != MaxAging {
		t.Errorf("%+v %v", e, ok)
	}
}
