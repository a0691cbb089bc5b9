package fdb

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
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

// benchTables are shared by the benchmarks that leave them as they are: filling
// 1 Mi entries takes longer than measuring them.
var benchTables = map[int]*Table{}

func filled(b *testing.B, n int) *Table {
	b.Helper()
	t := benchTables[n]
	if t == nil {
		t = New(Config{Capacity: n})
		for _, k := range stations(n, 1) {
			if o, _ := t.Learn(k, portOf(k)); o != Learned {
				b.Fatalf("learn %v: %v", k, o)
			}
		}
		benchTables[n] = t
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
		for _, g := range benchGoroutines {
			b.Run(fmt.Sprintf("entries=%s/goroutines=%d", sizeName(n), g), func(b *testing.B) { f(b, n, g) })
		}
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

// BenchmarkForward is what one frame costs: refresh its source, look up its
// destination.
func BenchmarkForward(b *testing.B) {
	matrix(b, func(b *testing.B, n, g int) {
		t, keys := filled(b, n), stations(n, 2)
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
