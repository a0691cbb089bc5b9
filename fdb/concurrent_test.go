package fdb

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Each goroutine owns stations and ports, so it knows what the table must say of
// them, while the others' stations come and go and the array is replaced under
// all. A reader checks that no station is ever at a port of another owner.
func TestConcurrentOwners(t *testing.T) {
	const owners, kept, rounds = 4, 200, 8000
	tbl := New(Config{Aging: -1})
	var workers, watchers sync.WaitGroup
	done := make(chan struct{})

	for id := range owners {
		workers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(id), 0))
			at := map[Key]uint16{}
			for i := range rounds {
				k := station(r.IntN(kept)*owners + id)
				if i%4 == 0 { // one that wears out the array
					k = station((kept+i)*owners + id)
				}
				port := uint16(r.IntN(4)*owners + id)
				was, wasThere := at[k]
				o, other := tbl.Learn(k, port)
				for ; o == Busy; o, other = tbl.Learn(k, port) {
					runtime.Gosched()
				}
				switch {
				case !wasThere && o != Learned, wasThere && was == port && o != Known,
					wasThere && was != port && (o != Moved || other != was):
					t.Errorf("Learn(%v, %d) = %v, %d; it was at %d, %v", k, port, o, other, was, wasThere)
					return
				}
				at[k] = port
				if got, ok := tbl.Lookup(k); !ok || got != port {
					t.Errorf("Lookup(%v) = %d, %v after %v at %d", k, got, ok, o, port)
					return
				}
				if i%4 == 0 {
					if !tbl.Delete(k) {
						t.Errorf("Delete(%v): it was there", k)
					}
					delete(at, k)
				}
			}
			for k, port := range at {
				if got, ok := tbl.Lookup(k); !ok || got != port {
					t.Errorf("at the end Lookup(%v) = %d, %v; want %d", k, got, ok, port)
				}
			}
		})
	}
	watchers.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			k := station(i % (2 * kept * owners))
			if port, ok := tbl.Lookup(k); ok && uint64(port)%owners != k.MAC()%owners {
				t.Errorf("%v is at port %d, which another one owns", k, port)
			}
			if i%1000 == 0 {
				tbl.Sweep(100)
				for e := range tbl.All() {
					if uint64(e.Port)%owners != e.Key.MAC()%owners {
						t.Errorf("%v is at port %d, which another one owns", e.Key, e.Port)
					}
				}
			}
		}
	})
	workers.Wait()
	close(done)
	watchers.Wait()
	if tbl.Stats().Rebuilds < 5 {
		t.Errorf("%+v: too few rebuilds to show anything", tbl.Stats())
	}
	check(t, tbl)
}

// Everything at once on few stations in a table that is too small: at the end the
// counts agree with the slots, and no reader saw a port that never had the
// station.
func TestConcurrentChaos(t *testing.T) {
	const capacity, keys, ports, rounds = 40, 96, 8, 6000
	tbl := New(Config{Capacity: capacity, Aging: 5 * time.Second})
	key := func(r *rand.Rand) (Key, uint16) {
		k := r.IntN(keys)
		return station(k), uint16(k%4 + 4*r.IntN(ports/4))
	}
	var second atomic.Int64
	control := []func(r *rand.Rand){
		func(r *rand.Rand) { k, port := key(r); _ = tbl.Add(k, port, Dynamic+Kind(r.IntN(3))) },
		func(r *rand.Rand) { k, _ := key(r); tbl.Delete(k) },
		func(r *rand.Rand) { tbl.FlushPort(uint16(r.IntN(ports))) },
		func(r *rand.Rand) { tbl.RemovePort(uint16(r.IntN(ports))) },
		func(r *rand.Rand) { tbl.Flush(func(e Entry) bool { return e.Port == uint16(r.IntN(ports)) }) },
		func(r *rand.Rand) { tbl.SetLimit(uint16(r.IntN(ports)), r.IntN(20)) },
		func(r *rand.Rand) { tbl.SetAging(time.Duration(r.IntN(8)-1) * time.Second) },
		func(*rand.Rand) { tbl.Advance(time.Duration(second.Add(1)) * time.Second) },
		func(*rand.Rand) { tbl.Sweep(0) },
		func(*rand.Rand) { tbl.rebuildNow() },
	}
	var wg sync.WaitGroup
	for id := range 6 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(id), 1))
			for range rounds {
				k, port := key(r)
				switch n := r.IntN(40); {
				case id == 0 && n < 30:
					control[r.IntN(len(control))](r)
				case n < 20:
					if o, other := tbl.Learn(k, port); other != NoPort && uint64(other)%4 != k.MAC()%4 {
						t.Errorf("Learn(%v, %d) = %v, %d", k, port, o, other)
					}
				default:
					if port, ok := tbl.Lookup(k); ok && uint64(port)%4 != k.MAC()%4 {
						t.Errorf("Lookup(%v) = %d", k, port)
					}
				}
			}
		})
	}
	wg.Wait()
	check(t, tbl)

	// Whatever the races left, the next insertion brings the table within bounds.
	for port := range uint16(ports) {
		tbl.RemovePort(port)
	}
	for i := range 2 * capacity {
		wantLearn(t, tbl, station(keys+i), 1, Learned, NoPort)
	}
	if tbl.Len() != capacity {
		t.Errorf("len %d", tbl.Len())
	}
	check(t, tbl)
}

// What was there before is found at every moment of a rebuild, and a refresh that
// Learn reported is not lost in it.
func TestRebuildUnderReaders(t *testing.T) {
	const n, rebuilds, refreshes = 700, 150, 100
	tbl := New(Config{Aging: -1})
	for i := range n {
		wantLearn(t, tbl, station(i), uint16(i%7), Learned, NoPort)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for id := range 2 {
		wg.Go(func() {
			for i := id; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				k := i % n
				if port, ok := tbl.Lookup(station(k)); !ok || port != uint16(k%7) {
					t.Errorf("Lookup(%v) = %d, %v during a rebuild", station(k), port, ok)
					return
				}
			}
		})
	}
	var refreshed atomic.Int64
	wg.Go(func() { // the only one to move the clock and to refresh station 0
		for s := 1; ; s++ {
			select {
			case <-done:
				return
			default:
			}
			tbl.Advance(time.Duration(s) * time.Second)
			switch o, _ := tbl.Learn(station(0), 0); o {
			case Known:
				refreshed.Add(1)
				tbl.Sweep(1) // waits for a rebuild that is on its way
				if e, ok := tbl.Get(station(0)); !ok || e.Age != 0 {
					t.Errorf("%+v, %v: the refresh was lost", e, ok)
					return
				}
			case Busy:
			default:
				t.Errorf("Learn: %v", o)
				return
			}
		}
	})
	deadline := time.Now().Add(30 * time.Second)
	for i := 0; i < rebuilds || refreshed.Load() < refreshes && time.Now().Before(deadline); i++ {
		tbl.rebuildNow()
	}
	close(done)
	wg.Wait()
	if n := refreshed.Load(); n < refreshes {
		t.Errorf("only %d refreshes came through", n)
	}
	check(t, tbl)
}

// Many workers may learn on one port at once, as on one with several queues: the
// limit is never passed, and is reached.
func TestConcurrentLimit(t *testing.T) {
	const limit = 100
	tbl := New(Config{})
	tbl.SetLimit(1, limit)
	var learned atomic.Int64
	var wg sync.WaitGroup
	for id := range 4 {
		wg.Go(func() {
			for i := range 500 {
				if o, _ := tbl.Learn(station(i*4+id), 1); o == Learned {
					learned.Add(1)
				}
				if n := tbl.Count(1); n > limit {
					t.Errorf("the port has %d entries", n)
					return
				}
			}
		})
	}
	wg.Wait()
	if learned.Load() != limit || tbl.Count(1) != limit {
		t.Errorf("%d were learned, the port has %d", learned.Load(), tbl.Count(1))
	}
	check(t, tbl)
}

// Several who learn the same new stations agree on one slot for each.
func TestConcurrentSameKeys(t *testing.T) {
	const n = 3000
	tbl := New(Config{})
	var learned atomic.Int64
	var wg sync.WaitGroup
	start := make(chan struct{})
	for id := range 4 {
		wg.Go(func() {
			<-start
			for i := range n {
				for {
					o, _ := tbl.Learn(station(i), uint16(id))
					if o == Learned {
						learned.Add(1)
					}
					if o != Busy {
						break
					}
				}
			}
		})
	}
	close(start)
	wg.Wait()
	if learned.Load() != n || tbl.Len() != n {
		t.Errorf("%d were learned, the table has %d of %d", learned.Load(), tbl.Len(), n)
	}
	check(t, tbl)
}
