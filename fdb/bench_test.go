package fdb

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The matrix: sizes from what fits the L1 cache to what fits none, goroutines up
// to what a host with eight busy ports has. ns/op is wall time over all
// operations of all goroutines.
var (
	benchSizes      = []int{1 << 10, 1 << 16, 1 << 20}
	benchGoroutines = []int{1, 2, 4, 8}
)

const benchPorts = 16

func sizeName(n int) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%dMi", n>>20)
	}
	return fmt.Sprintf("%dKi", n>>10)
}

// stations are n keys of VLAN 1 with QEMU's prefix, in an order of their own for
// each seed: in the order they were learned, the hardware would prefetch them.
func stations(n int, seed uint64) []Key {
	keys := make([]Key, n)
	for i := range keys {
		keys[i] = MakeKey(1, 0x5254_0000_0000+uint64(i))
	}
	rand.New(rand.NewPCG(seed, 0)).Shuffle(n, func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	return keys
}

func portOf(k Key) uint16 { return uint16(k) % benchPorts }

// benchTables are shared by the benchmarks that leave their entries as they are:
// filling 1 Mi takes longer than measuring them.
var benchTables = map[int]*Table{}

func filled(b *testing.B, n int) *Table {
	b.Helper()
	if benchTables[n] == nil {
		benchTables[n] = fill(b, n, n, -1)
	}
	return benchTables[n]
}

func fill(b *testing.B, n, capacity int, aging time.Duration) *Table {
	b.Helper()
	t := New(Config{Capacity: capacity, Aging: aging})
	for _, k := range stations(n, 1) {
		if o, _ := t.Learn(k, portOf(k)); o != Learned {
			b.Fatalf("learn %v: %v", k, o)
		}
	}
	return t
}

// spread divides b.N operations among g goroutines and times them.
func spread(b *testing.B, g int, f func(id, ops int)) {
	b.Helper()
	runtime.GC()
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for id := range g {
		ops := b.N / g
		if id < b.N%g {
			ops++
		}
		wg.Go(func() { f(id, ops) })
	}
	wg.Wait()
	b.StopTimer()
}

func matrix(b *testing.B, f func(b *testing.B, n, g int)) {
	for _, n := range benchSizes {
		row(b, n, f)
	}
}

// matrix64Ki is for what differs little from another benchmark.
func matrix64Ki(b *testing.B, f func(b *testing.B, n, g int)) { row(b, 1<<16, f) }

func row(b *testing.B, n int, f func(b *testing.B, n, g int)) {
	for _, g := range benchGoroutines {
		b.Run(fmt.Sprintf("entries=%s/goroutines=%d", sizeName(n), g), func(b *testing.B) { f(b, n, g) })
	}
}

// walk calls f for ops keys of keys, beginning at another one in each goroutine.
func walk(keys []Key, id, ops int, f func(Key)) {
	for at := id * len(keys) / 8; ops > 0; ops-- {
		f(keys[at&(len(keys)-1)])
		at++
	}
}

func BenchmarkLookup(b *testing.B) {
	matrix(b, func(b *testing.B, n, g int) {
		t, keys := filled(b, n), stations(n, 2)
		spread(b, g, func(id, ops int) {
			walk(keys, id, ops, func(k Key) {
				if port, ok := t.Lookup(k); !ok || port != portOf(k) {
					b.Errorf("%v: port %d, %v", k, port, ok)
				}
			})
		})
	})
}

// BenchmarkLearnKnown is Learn of a station that stays at its port, as of nearly
// every frame's source: no write.
func BenchmarkLearnKnown(b *testing.B) {
	matrix(b, func(b *testing.B, n, g int) {
		t, keys := filled(b, n), stations(n, 2)
		for _, k := range keys { // all in the current second
			t.Learn(k, portOf(k))
		}
		spread(b, g, func(id, ops int) {
			walk(keys, id, ops, func(k Key) {
				if o, _ := t.Learn(k, portOf(k)); o != Known {
					b.Errorf("%v: %v", k, o)
				}
			})
		})
	})
}

// BenchmarkLearnRefresh is Learn of a station not heard in the current second: one
// CAS. A new second begins whenever each station was refreshed once.
func BenchmarkLearnRefresh(b *testing.B) {
	matrix64Ki(b, func(b *testing.B, n, g int) {
		t, keys := filled(b, n), stations(n, 2)
		second := t.clock.load().second()
		spread(b, g, func(id, ops int) {
			left := 0
			walk(keys, id, ops, func(k Key) {
				if left--; id == 0 && left < 0 {
					left = n / g
					second++
					t.Advance(time.Duration(second) * time.Second)
				}
				// Two that refresh one station at once may both be late.
				if o, _ := t.Learn(k, portOf(k)); o != Known && o != Busy {
					b.Errorf("%v: %v", k, o)
				}
			})
		})
	})
}

// benchNext numbers stations that were never seen before.
var benchNext atomic.Uint64

// BenchmarkLearnNew is Learn of a station never seen before in a table at its
// capacity, half of it the flooding ports' own: each evicts one, inserts one, and
// bears its part of the rebuilds, which is what B/op shows. It repeats what was
// Busy, as a rebuild makes it.
func BenchmarkLearnNew(b *testing.B) {
	tables := map[int]*Table{}
	matrix(b, func(b *testing.B, n, g int) {
		flood := func(t *Table, id, ops int) {
			port := uint16(benchPorts + id)
			for last := benchNext.Add(uint64(ops)); ops > 0; ops-- {
				k := MakeKey(1, 0x0200_0000_0000+last-uint64(ops))
				o, _ := t.Learn(k, port)
				for ; o == Busy; o, _ = t.Learn(k, port) {
					runtime.Gosched()
				}
				if o != Learned {
					b.Errorf("Learn: %v", o)
				}
			}
		}
		if tables[n] == nil {
			tables[n] = fill(b, n/2, n, -1)
		}
		t := tables[n]
		for id := range 8 { // what an earlier run with more goroutines left
			t.FlushPort(uint16(benchPorts + id))
		}
		for id := range g {
			flood(t, id, (n/2+g-1)/g)
		}
		spread(b, g, func(id, ops int) { flood(t, id, ops) })
		if t.Len() != n {
			b.Errorf("%d entries, not %d", t.Len(), n)
		}
	})
}

// BenchmarkAge is Sweep over a full table of which every other entry has expired;
// an operation is one entry passed.
func BenchmarkAge(b *testing.B) {
	const aging, slice = 10, 1024
	tables, before := map[int]*Table{}, map[int]func(){}
	matrix(b, func(b *testing.B, n, g int) {
		if tables[n] == nil {
			t := fill(b, n, n, aging*time.Second)
			t.Advance((aging - 1) * time.Second)
			for _, k := range stations(n, 1)[n/2:] {
				t.Learn(k, portOf(k))
			}
			t.Advance(aging * time.Second)
			tables[n], before[n] = t, snapshot(t)
		}
		t := tables[n]
		slots := len(t.array.Load().slots)
		runtime.GC()
		b.ReportAllocs()
		b.ResetTimer()
		for passed := 0; passed < b.N; passed += n {
			b.StopTimer()
			before[n]()
			entries := min(n, b.N-passed)
			var reclaimed atomic.Int64
			var wg sync.WaitGroup
			b.StartTimer()
			for range g {
				wg.Go(func() {
					for left := slots / n * entries / g; left > 0; left -= slice {
						reclaimed.Add(int64(t.Sweep(min(slice, left))))
					}
				})
			}
			wg.Wait()
			if entries == n && reclaimed.Load() != int64(n/2) {
				b.Fatalf("reclaimed %d of %d", reclaimed.Load(), n/2)
			}
		}
	})
}

// snapshot returns a function that puts the entries of t back as they are now, for
// which Learn would take longer than what is measured.
func snapshot(t *Table) (restore func()) {
	a, vs, total := t.array.Load(), values(t), t.total.Load()
	var tallies [benchPorts]uint64
	for p := range tallies {
		tallies[p] = t.ports.get(uint16(p)).tally.Load()
	}
	return func() {
		for i, v := range vs {
			a.slots[i].value.Store(uint64(v))
		}
		for p, w := range tallies {
			t.ports.get(uint16(p)).tally.Store(w)
		}
		t.total.Store(total)
		t.sweepAt = 0
	}
}

// BenchmarkForward is what one frame asks of the table: Learn its source, look up
// its destination.
func BenchmarkForward(b *testing.B) {
	matrix64Ki(b, func(b *testing.B, n, g int) {
		t, keys := filled(b, n), stations(n, 2)
		for _, k := range keys { // all in the current second
			t.Learn(k, portOf(k))
		}
		spread(b, g, func(id, ops int) {
			src := keys[0]
			walk(keys, id, ops, func(dst Key) {
				if o, _ := t.Learn(src, portOf(src)); o != Known {
					b.Errorf("%v: %v", src, o)
				}
				if port, ok := t.Lookup(dst); !ok || port != portOf(dst) {
					b.Errorf("%v: port %d, %v", dst, port, ok)
				}
				src = dst
			})
		})
	})
}
