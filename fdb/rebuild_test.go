package fdb

import (
	"fmt"
	"math/bits"
	"testing"
	"time"
)

func (t *Table) rebuildNow() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rebuild()
}

// Entries keep everything they have through growth, and the table becomes small
// again when they are gone.
func TestGrowsAndShrinks(t *testing.T) {
	tbl := New(Config{Aging: 1000 * time.Second})
	if got := tbl.Stats().Slots; got != minSlots {
		t.Errorf("an empty table has %d slots", got)
	}
	kinds := []Kind{Dynamic, Sticky, Static}
	const n = 12000 // in 32768 slots: not worn, but too large once they are gone
	for i := range n {
		tbl.Advance(time.Duration(i/100) * time.Second)
		mustAdd(t, tbl, station(i), uint16(i%5), kinds[i%3])
	}
	if s := tbl.Stats(); s.Rebuilds == 0 || s.Slots < n || s.Slots > 4*n {
		t.Errorf("%+v", s)
	}
	for i := range n {
		want := Entry{Key: station(i), Port: uint16(i % 5), Kind: kinds[i%3]}
		if want.Kind != Static {
			want.Age = time.Duration((n-1)/100-i/100) * time.Second
		}
		if e, ok := tbl.Get(station(i)); !ok || e != want {
			t.Fatalf("got %+v, %v; want %+v", e, ok, want)
		}
	}
	check(t, tbl)

	for p := range uint16(5) {
		tbl.RemovePort(p)
	}
	tbl.Sweep(0)
	if s := tbl.Stats(); s.Slots != minSlots || tbl.Len() != 0 {
		t.Errorf("%+v, len %d", s, tbl.Len())
	}
	check(t, tbl)
}

// Stations that come and go do not make the table grow.
func TestChurnStaysSmall(t *testing.T) {
	tbl := New(Config{})
	for i := range 50 * minSlots {
		wantLearn(t, tbl, station(i), 1, Learned, NoPort)
		if i >= 100 && !tbl.Delete(station(i-100)) {
			t.Fatalf("station %d is gone", i-100)
		}
	}
	if s := tbl.Stats(); s.Slots != minSlots || s.Rebuilds < 50 {
		t.Errorf("%+v", s)
	}
	check(t, tbl)
}

// Sweep replaces a worn array, so that no worker has to.
func TestSweepRebuildsAhead(t *testing.T) {
	tbl := New(Config{})
	for i := range minSlots/2 + 1 {
		wantLearn(t, tbl, station(i), 1, Learned, NoPort)
	}
	if n := tbl.Stats().Rebuilds; n != 0 {
		t.Fatalf("%d rebuilds", n)
	}
	tbl.Sweep(1)
	if s := tbl.Stats(); s.Rebuilds != 1 || s.Slots != 2*minSlots {
		t.Errorf("%+v", s)
	}
	tbl.Sweep(1)
	if n := tbl.Stats().Rebuilds; n != 1 {
		t.Error("a new array was replaced")
	}
	check(t, tbl)
}

// In a frozen array nothing can be written, and everything can be read.
func TestFrozen(t *testing.T) {
	tbl := New(Config{Capacity: 3})
	mustAdd(t, tbl, station(0), 4, Static)
	wantLearn(t, tbl, station(1), 1, Learned, NoPort)
	wantLearn(t, tbl, station(2), 1, Learned, NoPort)
	tbl.mu.Lock() // as a rebuild holds it
	defer tbl.mu.Unlock()
	if live := tbl.freeze(tbl.array.Load()); live != 3 {
		t.Errorf("%d entries in force", live)
	}
	tbl.Advance(time.Second)
	wantAt(t, tbl, station(0), 4)
	wantAt(t, tbl, station(1), 1)
	wantGone(t, tbl, station(3))
	wantLearn(t, tbl, station(1), 1, Busy, NoPort) // would be a refresh
	wantLearn(t, tbl, station(1), 2, Busy, NoPort) // a move
	wantLearn(t, tbl, station(3), 2, Busy, NoPort) // an eviction
	wantAt(t, tbl, station(1), 1)
	wantAt(t, tbl, station(2), 1)
	tbl.FlushPort(1)
	wantGone(t, tbl, station(1))
	wantLearn(t, tbl, station(1), 1, Busy, NoPort) // a new entry in its old slot
	wantLearn(t, tbl, station(3), 2, Busy, NoPort) // a new entry in a new slot
	if tbl.Len() != 1 || tbl.Count(1) != 0 || tbl.Count(2) != 0 {
		t.Errorf("len %d, counts %d and %d", tbl.Len(), tbl.Count(1), tbl.Count(2))
	}
}

// Addresses in a row, as hypervisors give them, or apart by any power of two, lie
// as random ones would: 1.5 probes on average at half load (Knuth volume 3, 6.4).
func TestHashSpreads(t *testing.T) {
	const size = 1 << 14
	sets := map[string]func(i uint64) Key{
		"VLANs of one MAC":       func(i uint64) Key { return MakeKey(uint16(i), 0x5254_0012_3456) },
		"MACs in VLANs in a row": func(i uint64) Key { return MakeKey(uint16(i%64), 0x5254_0000_0000+i/64) },
		"addresses reversed":     func(i uint64) Key { return MakeKey(1, bits.Reverse64(i)>>16) &^ groupBit },
	}
	for shift := range 27 {
		sets[fmt.Sprintf("MACs in steps of 2^%d", shift)] = func(i uint64) Key { return MakeKey(1, i<<shift&^uint64(groupBit)|1<<46) }
	}
	for name, key := range sets {
		a := newArray(size)
		seen := map[Key]bool{}
		for i := uint64(1); len(seen) < size/2 && i < 2*size; i++ {
			k := key(i)
			seen[k] = true
			if a.claim(k) == nil {
				t.Fatalf("%s: no slot for %v", name, k)
			}
		}
		sum, longest := 0, 0
		for k := range seen {
			probes := 1
			for i := a.home(k); Key(a.at(i).key.Load()) != k; i++ {
				probes++
			}
			sum += probes
			longest = max(longest, probes)
		}
		if len(seen) < size/4 {
			t.Errorf("%s: only %d keys", name, len(seen))
		}
		if mean := float64(sum) / float64(len(seen)); mean > 1.7 || longest > 100 {
			t.Errorf("%s: %.2f probes on average, %d at most", name, mean, longest)
		}
	}
}
