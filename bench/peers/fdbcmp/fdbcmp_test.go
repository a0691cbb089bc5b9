// Package fdbcmp has the forwarding database beside what a Go program would take in
// its place: the same work for all, reached through one interface.
//
//	go test -run '^$' -bench . -count 5 ./fdbcmp
package fdbcmp

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/puzpuzpuz/xsync/v4"

	"github.com/vswitch/vswitch/fdb"
)

// table is what a frame asks of a MAC table. Learn writes only what is new: a station,
// its port, or that it was heard in this second.
type table interface {
	Lookup(fdb.Key) (port uint16, ok bool)
	Learn(k fdb.Key, port uint16)
}

// The others keep port<<32 | second for a station. They age nothing, evict nothing and
// cannot flush a port, which fdb can.
func entry(port uint16) uint64   { return uint64(port)<<32 | second }
func portIn(entry uint64) uint16 { return uint16(entry >> 32) }

// second is the current one: no benchmark is about time.
const second = 1

type ours struct{ *fdb.Table }

func (t ours) Learn(k fdb.Key, port uint16) { t.Table.Learn(k, port) }

type syncMap struct{ m sync.Map }

func (t *syncMap) Lookup(k fdb.Key) (uint16, bool) {
	if e, ok := t.m.Load(k); ok {
		return portIn(e.(uint64)), true
	}
	return 0, false
}

func (t *syncMap) Learn(k fdb.Key, port uint16) {
	if e, ok := t.m.Load(k); !ok || e.(uint64) != entry(port) {
		t.m.Store(k, entry(port))
	}
}

type lockedMap struct {
	mu sync.RWMutex
	m  map[fdb.Key]uint64
}

func (t *lockedMap) Lookup(k fdb.Key) (uint16, bool) {
	t.mu.RLock()
	e, ok := t.m[k]
	t.mu.RUnlock()
	return portIn(e), ok
}

func (t *lockedMap) Learn(k fdb.Key, port uint16) {
	t.mu.RLock()
	e, ok := t.m[k]
	t.mu.RUnlock()
	if !ok || e != entry(port) {
		t.mu.Lock()
		t.m[k] = entry(port)
		t.mu.Unlock()
	}
}

type xsyncMap struct{ m *xsync.Map[fdb.Key, uint64] }

func (t xsyncMap) Lookup(k fdb.Key) (uint16, bool) {
	e, ok := t.m.Load(k)
	return portIn(e), ok
}

func (t xsyncMap) Learn(k fdb.Key, port uint16) {
	if e, ok := t.m.Load(k); !ok || e != entry(port) {
		t.m.Store(k, entry(port))
	}
}

var peers = []struct {
	name string
	make func() table
}{
	{"fdb", func() table { return ours{fdb.New(fdb.Config{})} }},
	{"sync.Map", func() table { return new(syncMap) }},
	{"RWMutex", func() table { return &lockedMap{m: make(map[fdb.Key]uint64)} }},
	{"xsync", func() table { return xsyncMap{xsync.NewMap[fdb.Key, uint64]()} }},
}

const (
	entries = 1 << 16
	ports   = 16
)

// stations are the entries' keys in an order of their own for each seed: in the order
// they were learned, the hardware would prefetch them.
func stations(seed uint64) []fdb.Key {
	keys := make([]fdb.Key, entries)
	for i := range keys {
		keys[i] = fdb.MakeKey(1, 0x5254_0000_0000+uint64(i))
	}
	rand.New(rand.NewPCG(seed, 0)).Shuffle(entries, func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	return keys
}

func portOf(k fdb.Key) uint16 { return uint16(k) % ports }

// compare times one operation on a full table of each peer, by 1, 2 and 4 goroutines.
// ns/op is wall time over all operations of all goroutines; cpu-ns/op is what all of
// them together worked, and suffers less from what else the machine does.
func compare(b *testing.B, op func(t table, k fdb.Key)) {
	keys := stations(2)
	for _, g := range []int{1, 2, 4} {
		for _, p := range peers {
			t := p.make()
			for _, k := range stations(1) {
				t.Learn(k, portOf(k))
			}
			b.Run(fmt.Sprintf("goroutines=%d/table=%s", g, p.name), func(b *testing.B) {
				runtime.GC()
				b.ReportAllocs()
				b.ResetTimer()
				before := cpuTime(b)
				var all sync.WaitGroup
				for id := range g {
					all.Go(func() {
						at := id * entries / g
						for range b.N / g {
							op(t, keys[at%entries])
							at++
						}
					})
				}
				all.Wait()
				b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

// cpuTime is what the process has used so far.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkLookup(b *testing.B) {
	compare(b, func(t table, k fdb.Key) {
		if port, ok := t.Lookup(k); !ok || port != portOf(k) {
			b.Errorf("%v: port %d, %t", k, port, ok)
		}
	})
}

// BenchmarkForward is what one frame asks for: Learn of its source, Lookup of its
// destination.
func BenchmarkForward(b *testing.B) {
	compare(b, func(t table, k fdb.Key) {
		t.Learn(k, portOf(k))
		dst := k ^ 1 // another of the stations
		if port, ok := t.Lookup(dst); !ok || port != portOf(dst) {
			b.Errorf("%v: port %d, %t", dst, port, ok)
		}
	})
}
