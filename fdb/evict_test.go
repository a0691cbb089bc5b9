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

// However long ports flood, their entries stay spread over the table, so that a
// search finds one soon: in 32 stretches of it they vary as a random choice does.
func TestVictimsStaySpread(t *testing.T) {
	const capacity, slots, pool, floods, stretches = 128, 1 << 13, 1 << 12, 30_000, 32
	tbl := New(Config{Capacity: capacity})
	tbl.array.Store(newArray(slots)) // as large as if it held others too
	for i := range floods {          // from few enough stations that no rebuild mixes them
		wantLearn(t, tbl, station(i%pool), 1, Learned, NoPort)
	}
	a := tbl.array.Load()
	var count [stretches]int
	for i := range a.slots {
		if a.slots[i].load().kind() == Dynamic {
			count[i*stretches/len(a.slots)]++
		}
	}
	const mean = capacity / stretches
	sum := 0
	for _, n := range count {
		sum += (n - mean) * (n - mean)
	}
	if ratio := float64(sum) / (stretches - 1) / mean; ratio > 2 { // 0.8 is usual
		t.Errorf("variance is %.1f times the mean: %v", ratio, count)
	}
}

// Of a port's entries the older ones go, though not strictly in order: were age not
// looked at, half of the victims would be of the younger half.
func TestOldGoFirst(t *testing.T) {
	const half, evictions = 600, 200
	tbl := New(Config{Capacity: 2 * half})
	for i := range 2 * half {
		if i == half {
			tbl.Advance(time.Minute)
		}
		wantLearn(t, tbl, station(i), 1, Learned, NoPort)
	}
	for i := range evictions {
		wantLearn(t, tbl, station(2*half+i), 1, Learned, NoPort)
	}
	young := evictions
	for i := half; i < 2*half+evictions; i++ {
		if _, ok := tbl.Lookup(station(i)); ok {
			young--
		}
	}
	young += half // there were half+evictions of them
	if young > evictions/3 {
		t.Errorf("%d of %d victims were young", young, evictions)
	}
}

// An expired entry that the search meets goes before one in force, whosever it is.
func TestExpiredGoesFirst(t *testing.T) {
	const capacity, live = 6000, 10
	tbl := New(Config{Capacity: capacity, Aging: 10 * time.Second})
	for i := range capacity - live {
		wantLearn(t, tbl, station(live+i), 2, Learned, NoPort)
	}
	tbl.Advance(10 * time.Second)
	for i := range live + 5 {
		k := station(i)
		if i >= live {
			k = station(capacity + i)
		}
		wantLearn(t, tbl, k, 1, Learned, NoPort)
	}
	for i := range live {
		wantAt(t, tbl, station(i), 1)
	}
	if n := tbl.Stats().Evictions; n != 0 || tbl.Len() != capacity {
		t.Errorf("%d evictions of entries in force, len %d", n, tbl.Len())
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
	full := 0
	for i := range 6 {
		tries := 1
		for o, _ := tbl.Learn(station(capacity+1+i), 2); o != Learned; o, _ = tbl.Learn(station(capacity+1+i), 2) {
			if tries++; o != Full || tries > windows+1 {
				t.Fatalf("try %d: %v", tries, o)
			}
		}
		full += tries - 1
		wantGone(t, tbl, station(capacity+i))
		wantAt(t, tbl, station(capacity+1+i), 2)
	}
	if full == 0 {
		t.Error("a search is not bounded: each found the one entry that may go at once")
	}
	check(t, tbl)
}

// A flushed entry makes no room, expired or not: eviction passes it by, however many
// there are, so each new station finds its place with one eviction.
func TestFlushedIsNoVictim(t *testing.T) {
	const capacity, flushed = 300, 200 // all together leaves no need for a rebuild
	for _, later := range []time.Duration{0, time.Minute} {
		tbl := New(Config{Capacity: capacity, Aging: time.Minute})
		for i := range flushed {
			wantLearn(t, tbl, station(i), 1, Learned, NoPort)
		}
		tbl.FlushPort(1)
		tbl.Advance(later)
		for i := range capacity - flushed {
			wantLearn(t, tbl, station(flushed+i), 1, Learned, NoPort)
		}
		for i := range flushed {
			mustAdd(t, tbl, station(5000+i), 2, Static)
		}
		if s := tbl.Stats(); tbl.Len() != capacity || s.Rebuilds != 0 {
			t.Fatalf("%d entries, %+v", tbl.Len(), s)
		}
		for i := range 20 {
			wantLearn(t, tbl, station(2*capacity+i), 1, Learned, NoPort)
			if s := tbl.Stats(); s.Evictions != uint64(i+1) || tbl.Len() != capacity {
				t.Fatalf("%d entries after %d more, %+v", tbl.Len(), i+1, s)
			}
		}
		check(t, tbl)
	}
}

// A search goes over the slots from where the last one ended, and takes the oldest of the first
// three entries of the port that has most, or the first one expired.
func TestVictim(t *testing.T) {
	const capacity = 300
	tbl := New(Config{Capacity: capacity, Aging: 1000 * time.Second})
	for i := range capacity - 20 {
		tbl.Advance(time.Duration(i) * time.Second)
		wantLearn(t, tbl, station(i), 1, Learned, NoPort)
	}
	for i := range 20 {
		wantLearn(t, tbl, station(capacity+i), 2, Learned, NoPort)
	}
	a, now := tbl.array.Load(), tbl.clock.load()
	met := 0 // expired
	for n := range 250 {
		if n == 200 {
			tbl.Advance(1250 * time.Second) // most of those that are left are expired now
			now = tbl.clock.load()
		}
		begin := tbl.hand.Load()
		want, looked, samples, expired := (*slot)(nil), uint64(0), 0, false
		for ; looked < 400 && samples < 3 && !expired; looked++ {
			s := a.at(begin + looked)
			switch v := s.load(); {
			case v == 0:
			case now.expired(v):
				want, expired = s, true
			case v.port() == 1:
				if samples++; want == nil || now.age(v) > now.age(want.load()) {
					want = s
				}
			}
		}
		evictions := tbl.Stats().Evictions
		if expired {
			met++
		} else {
			evictions++
		}
		if r := tbl.evict(2, 400); r != evictDone || want.load() != 0 || tbl.hand.Load() != begin+looked || tbl.Stats().Evictions != evictions {
			t.Fatalf("victim %d: %v, of slots %d to %d; the search went on to %d", n, r, begin, begin+looked, tbl.hand.Load())
		}
	}
	if met == 0 {
		t.Error("no search met an expired entry")
	}
	check(t, tbl)
}
