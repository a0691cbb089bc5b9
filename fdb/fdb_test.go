package fdb

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// station is a key of VLAN 1 that differs for each i.
func station(i int) Key { return MakeKey(1, 0x5254_0000_0000+uint64(i)) }

func wantLearn(t *testing.T, tbl *Table, k Key, port uint16, want Outcome, wantOther uint16) {
	t.Helper()
	if o, other := tbl.Learn(k, port); o != want || other != wantOther {
		t.Fatalf("Learn(%v, %d) = %v, %d; want %v, %d", k, port, o, other, want, wantOther)
	}
}

func wantAt(t *testing.T, tbl *Table, k Key, want uint16) {
	t.Helper()
	if port, ok := tbl.Lookup(k); !ok || port != want {
		t.Fatalf("Lookup(%v) = %d, %v; want %d", k, port, ok, want)
	}
}

func wantGone(t *testing.T, tbl *Table, k Key) {
	t.Helper()
	if port, ok := tbl.Lookup(k); ok {
		t.Fatalf("Lookup(%v) = %d; want none", k, port)
	}
	if e, ok := tbl.Get(k); ok {
		t.Fatalf("Get(%v) = %+v; want none", k, e)
	}
}

func mustAdd(t *testing.T, tbl *Table, k Key, port uint16, kind Kind) {
	t.Helper()
	if err := tbl.Add(k, port, kind); err != nil {
		t.Fatal(err)
	}
}

func TestKey(t *testing.T) {
	k := MakeKey(4094, 0xffff_5254_12ab_cdef) // the upper 16 bits are no address
	if k.VLAN() != 4094 || k.MAC() != 0x5254_12ab_cdef {
		t.Errorf("VLAN %d, MAC %012x", k.VLAN(), k.MAC())
	}
	if got := k.String(); got != "52:54:12:ab:cd:ef vlan 4094" {
		t.Error(got)
	}
}

// Every field of a value keeps its largest content, and leaves the others alone.
func TestValueFields(t *testing.T) {
	if v := makeValue(7, 0xffff, genMask, stampMask); v != frozen-1 {
		t.Errorf("%064b leaves bits unused", v)
	}
	v := makeValue(Local, 0xffff, genMask, stampMask)
	if v.kind() != Local || v.port() != 0xffff || v.gen() != genMask || v.stamp() != stampMask || v.isFrozen() {
		t.Errorf("%064b", v)
	}
	for _, v := range []value{makeValue(Dynamic, 0, 0, 0), makeValue(0, 1, 0, 0), makeValue(0, 0, 1, 0), makeValue(0, 0, 0, 1), frozen} {
		if n := int(v.kind()) + int(v.port()) + int(v.gen()) + int(v.stamp()); v.isFrozen() != (n == 0) || n > 1 {
			t.Errorf("%064b", v)
		}
	}
}

func TestLearnMovesAndPins(t *testing.T) {
	tbl := New(Config{})
	a, b := station(1), MakeKey(2, station(1).MAC())
	wantGone(t, tbl, a)
	wantLearn(t, tbl, a, 3, Learned, NoPort)
	wantLearn(t, tbl, a, 3, Known, NoPort)
	wantGone(t, tbl, b) // the same address in another VLAN
	wantLearn(t, tbl, b, 4, Learned, NoPort)
	wantLearn(t, tbl, a, 5, Moved, 3)
	wantAt(t, tbl, a, 5)
	wantAt(t, tbl, b, 4)
	if tbl.Count(3) != 0 || tbl.Count(4) != 1 || tbl.Count(5) != 1 || tbl.Len() != 2 {
		t.Errorf("counts %d %d %d, len %d", tbl.Count(3), tbl.Count(4), tbl.Count(5), tbl.Len())
	}

	for i, kind := range []Kind{Sticky, Static, Local} {
		k := station(10 + i)
		wantLearn(t, tbl, k, 1, Learned, NoPort)
		mustAdd(t, tbl, k, 6, kind)
		at := uint16(6)
		if kind == Local {
			at = NoPort
		} else {
			wantLearn(t, tbl, k, 6, Known, NoPort)
		}
		wantAt(t, tbl, k, at)
		wantLearn(t, tbl, k, 7, Pinned, at)
		wantAt(t, tbl, k, at)
		if e, ok := tbl.Get(k); !ok || e != (Entry{Key: k, Port: at, Kind: kind}) {
			t.Errorf("%v: %+v, %v", kind, e, ok)
		}
	}
	check(t, tbl)
}

func TestRefused(t *testing.T) {
	tbl := New(Config{})
	for _, k := range []Key{0, MakeKey(1, 0), MakeKey(1, 0x0180_c200_0000), MakeKey(1, 0xffff_ffff_ffff)} {
		wantLearn(t, tbl, k, 1, Refused, NoPort)
		if err := tbl.Add(k, 1, Static); err == nil {
			t.Errorf("%v was added", k)
		}
		wantGone(t, tbl, k)
		if tbl.Delete(k) {
			t.Errorf("%v was there", k)
		}
	}
	wantLearn(t, tbl, station(1), NoPort, Refused, NoPort)
	for _, c := range []struct {
		port uint16
		kind Kind
	}{{NoPort, Static}, {1, 0}, {1, Local + 1}} {
		if err := tbl.Add(station(1), c.port, c.kind); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("Add at %d as %v: %v", c.port, c.kind, err)
		}
	}
	if tbl.Len() != 0 {
		t.Errorf("len %d", tbl.Len())
	}
	check(t, tbl)
}

func TestDeleteAndComeBack(t *testing.T) {
	tbl := New(Config{})
	for _, kind := range []Kind{Dynamic, Sticky, Static, Local} {
		mustAdd(t, tbl, station(1), 2, kind)
		if !tbl.Delete(station(1)) || tbl.Delete(station(1)) {
			t.Errorf("%v: Delete must find it once", kind)
		}
		wantGone(t, tbl, station(1))
		if tbl.Len() != 0 || tbl.Count(2) != 0 {
			t.Errorf("%v: len %d, count %d", kind, tbl.Len(), tbl.Count(2))
		}
	}
	wantLearn(t, tbl, station(1), 2, Learned, NoPort)
	check(t, tbl)
}

func TestFlush(t *testing.T) {
	tbl := New(Config{})
	fill := func() {
		for i, kind := range []Kind{Dynamic, Sticky, Static, Local} {
			mustAdd(t, tbl, station(i), 1, kind)
			mustAdd(t, tbl, station(10+i), 300, kind)
		}
	}
	fill()
	tbl.FlushPort(1)
	if tbl.Count(1) != 0 || tbl.Count(300) != 2 || tbl.Len() != 6 {
		t.Errorf("counts %d %d, len %d", tbl.Count(1), tbl.Count(300), tbl.Len())
	}
	wantGone(t, tbl, station(0))
	wantGone(t, tbl, station(1))
	wantAt(t, tbl, station(2), 1)
	wantAt(t, tbl, station(10), 300)
	wantLearn(t, tbl, station(0), 1, Learned, NoPort)
	tbl.FlushPort(77) // was never used
	check(t, tbl)

	fill()
	if n := tbl.Flush(func(e Entry) bool { return e.Port == 300 || e.Kind == Static }); n != 2 {
		t.Errorf("flushed %d", n)
	}
	wantGone(t, tbl, station(10))
	wantAt(t, tbl, station(12), 300)
	check(t, tbl)

	fill()
	tbl.SetLimit(300, 1)
	tbl.RemovePort(300)
	tbl.RemovePort(NoPort)
	for i := 10; i < 13; i++ {
		wantGone(t, tbl, station(i))
	}
	wantAt(t, tbl, station(13), NoPort)
	wantLearn(t, tbl, station(20), 300, Learned, NoPort)
	wantLearn(t, tbl, station(21), 300, Learned, NoPort) // the limit went too
	if got := len(slices.Collect(tbl.All())); got != tbl.Len() || got != 8-3+2 {
		t.Errorf("All gives %d, Len is %d", got, tbl.Len())
	}
	for range tbl.All() {
		break // All stops with its caller
	}
	check(t, tbl)
}

// A flush raises one number: what it removes stays in its slots, to be reclaimed.
func TestFlushPortTouchesNoSlot(t *testing.T) {
	tbl := New(Config{})
	const n = 5000
	for i := range n {
		wantLearn(t, tbl, station(i), 1, Learned, NoPort)
	}
	before := values(tbl)
	tbl.FlushPort(1)
	if !slices.Equal(before, values(tbl)) {
		t.Error("a slot changed")
	}
	if tbl.Len() != 0 || tbl.Count(1) != 0 || len(slices.Collect(tbl.All())) != 0 {
		t.Errorf("len %d, count %d", tbl.Len(), tbl.Count(1))
	}
	if got := tbl.Sweep(1 << 30); got != n {
		t.Errorf("reclaimed %d", got)
	}
	check(t, tbl)
}

func values(tbl *Table) (vs []value) {
	a := tbl.array.Load()
	for i := range a.slots {
		vs = append(vs, a.slots[i].load())
	}
	return vs
}

// A port's generation comes round after 2^22 flushes. By then nothing is left of
// the first time: halfway and at the end a flush takes out what is older.
func TestGenerationWraps(t *testing.T) {
	for _, gen := range []tally{genMask >> 1, genMask} {
		tbl := New(Config{})
		tbl.ports.use(1).tally.Store(uint64(gen << tallyShift))
		wantLearn(t, tbl, station(1), 1, Learned, NoPort)
		wantLearn(t, tbl, station(2), 2, Learned, NoPort)
		mustAdd(t, tbl, station(3), 1, Static)
		tbl.FlushPort(1)
		if got, want := tbl.ports.get(1).load().gen(), uint32(gen+1)&genMask; got != want {
			t.Errorf("generation %d, want %d", got, want)
		}
		if v := tbl.array.Load().find(station(1)).load(); v != 0 {
			t.Errorf("generation %d: %#x was left", gen, v)
		}
		wantAt(t, tbl, station(2), 2)
		wantAt(t, tbl, station(3), 1)
		wantLearn(t, tbl, station(1), 1, Learned, NoPort)
		check(t, tbl)
	}
}

func TestLimit(t *testing.T) {
	tbl := New(Config{Aging: 10 * time.Second})
	tbl.SetLimit(1, 2)
	wantLearn(t, tbl, station(1), 1, Learned, NoPort)
	wantLearn(t, tbl, station(2), 1, Learned, NoPort)
	wantLearn(t, tbl, station(3), 2, Learned, NoPort)
	wantLearn(t, tbl, station(4), 1, Limited, NoPort)
	wantLearn(t, tbl, station(3), 1, Limited, NoPort) // nor may one move in
	wantAt(t, tbl, station(3), 2)
	wantLearn(t, tbl, station(1), 1, Known, NoPort)
	mustAdd(t, tbl, station(5), 1, Static)
	mustAdd(t, tbl, station(6), 1, Sticky)
	if tbl.Count(1) != 3 {
		t.Errorf("count %d", tbl.Count(1))
	}

	// One that moves away makes room; so does one that came back too late,
	// even before Sweep met it.
	tbl.SetLimit(1, 3)
	wantLearn(t, tbl, station(2), 2, Moved, 1)
	wantLearn(t, tbl, station(4), 1, Learned, NoPort)
	tbl.Advance(10 * time.Second)
	wantLearn(t, tbl, station(4), 1, Learned, NoPort)
	tbl.SetLimit(1, 0)
	wantLearn(t, tbl, station(7), 1, Learned, NoPort)
	check(t, tbl)

	// What is not let in costs no slot, or a flood of it would wear the array out.
	tbl.SetLimit(1, 1)
	used := tbl.array.Load().used.Load()
	for i := range 1000 {
		wantLearn(t, tbl, station(100+i), 1, Limited, NoPort)
	}
	if got := tbl.array.Load().used.Load(); got != used {
		t.Errorf("%d slots went to stations that were not let in", got-used)
	}
}

func TestAddWhenFull(t *testing.T) {
	tbl := New(Config{Capacity: 4})
	mustAdd(t, tbl, station(0), 1, Static)
	mustAdd(t, tbl, station(1), 1, Sticky)
	mustAdd(t, tbl, station(2), 0, Local)
	wantLearn(t, tbl, station(3), 1, Learned, NoPort)
	mustAdd(t, tbl, station(4), 2, Static) // station 3 gives way
	wantGone(t, tbl, station(3))
	if err := tbl.Add(station(5), 2, Static); !errors.Is(err, ErrFull) {
		t.Errorf("got %v", err)
	}
	wantLearn(t, tbl, station(5), 2, Full, NoPort)
	mustAdd(t, tbl, station(0), 2, Sticky) // replacing needs no room
	if tbl.Len() != 4 || tbl.Stats().Evictions != 1 {
		t.Errorf("len %d, %+v", tbl.Len(), tbl.Stats())
	}
	check(t, tbl)
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		in       Config
		capacity int64
		aging    uint32
	}{
		{Config{}, 65536, 300},
		{Config{Capacity: -1, Aging: -1}, 65536, noAging},
		{Config{Capacity: 1 << 30, Aging: 1 << 62}, 1 << 20, 1_000_000},
		{Config{Capacity: 7, Aging: 1}, 7, 1},
		{Config{Aging: 10*time.Second + 1}, 65536, 11},
	} {
		tbl := New(c.in)
		if tbl.capacity != c.capacity || tbl.clock.load().aging() != c.aging {
			t.Errorf("%+v: capacity %d, ageing %d s", c.in, tbl.capacity, tbl.clock.load().aging())
		}
	}
}

func TestNames(t *testing.T) {
	var got []string
	for k := range Local + 2 {
		got = append(got, k.String())
	}
	for o := range Refused + 2 {
		got = append(got, o.String())
	}
	want := "kind(0) dynamic sticky static local kind(5) known learned moved pinned limited full busy refused outcome(8)"
	if strings.Join(got, " ") != want {
		t.Errorf("%q", got)
	}
}

// Neither Lookup nor Learn allocates, whatever it comes upon, but for a rebuild.
func TestNoAllocation(t *testing.T) {
	tbl := New(Config{Capacity: 200})
	next, now := 0, time.Duration(0)
	learn := func(k Key, port uint16, want Outcome) {
		if o, _ := tbl.Learn(k, port); o != want {
			t.Errorf("%v at %d: %v, want %v", k, port, o, want)
		}
	}
	mustAdd(t, tbl, station(1000), 1, Static)
	learn(station(1001), 1, Learned)
	learn(station(1002), 1, Learned)
	tbl.SetLimit(9, 1)
	learn(station(1003), 9, Learned)
	for _, c := range []struct {
		name string
		f    func()
	}{
		{"lookup", func() { tbl.Lookup(station(1001)) }},
		{"lookup of nothing", func() { tbl.Lookup(station(2000)) }},
		{"known", func() { learn(station(1001), 1, Known) }},
		{"refresh", func() { now += time.Second; tbl.Advance(now); learn(station(1001), 1, Known) }},
		{"static", func() { learn(station(1000), 1, Known) }},
		{"pinned", func() { learn(station(1000), 2, Pinned) }},
		{"move", func() { learn(station(1002), 1, Known); learn(station(1002), 2, Moved); learn(station(1002), 1, Moved) }},
		{"limited", func() { learn(station(2000), 9, Limited) }},
		{"new", func() { next++; learn(station(next), 3, Learned) }},
		{"sweep", func() { tbl.Sweep(0) }},
	} {
		if n := testing.AllocsPerRun(100, c.f); n != 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
	// The same with the table at its capacity: each evicts.
	if n := testing.AllocsPerRun(300, func() { next++; learn(station(next), 3, Learned) }); n != 0 {
		t.Errorf("new with eviction: %v allocations", n)
	}
	if s := tbl.Stats(); s.Rebuilds != 0 || s.Evictions < 200 {
		t.Errorf("%+v: the test did not do what it says", s)
	}
}

// Lookups stay short, whatever pattern the addresses have that somebody chose.
func TestProbesStayShort(t *testing.T) {
	t.Parallel()
	const n = 30_000
	for name, key := range map[string]func(i uint64) Key{
		"row":       func(i uint64) Key { return MakeKey(1, 0x0200_0000_0000+i) },
		"step 2^8":  func(i uint64) Key { return MakeKey(1, 0x0200_0000_0000+i<<8) },
		"step 2^16": func(i uint64) Key { return MakeKey(1, 0x0200_0000_0000+i<<16) },
		"step 2^24": func(i uint64) Key { return MakeKey(1, (0x0200_0000_0000+i<<24)&^(1<<40)) },
		"vlans":     func(i uint64) Key { return MakeKey(uint16(1+i%4094), 0x0200_0000_0000+i/4094) },
		"squares":   func(i uint64) Key { return MakeKey(1, (i*i*0x1_0001)&(1<<48-1)&^(1<<40)|2) },
	} {
		tbl := New(Config{})
		for i := range uint64(n) {
			tbl.Learn(key(i), 1)
		}
		a := tbl.array.Load()
		sum, worst := 0, 0
		for i := range a.slots {
			if k := Key(a.slots[i].key.Load()); k != 0 {
				probes := int((uint64(i)-a.home(k))&uint64(len(a.slots)-1)) + 1
				sum, worst = sum+probes, max(worst, probes)
			}
		}
		// 1.4 and 30 are usual.
		if mean := float64(sum) / float64(a.used.Load()); mean > 2 || worst > 200 {
			t.Errorf("%s: a station is found after %.2f probes, %d at most", name, mean, worst)
		}
	}
}
