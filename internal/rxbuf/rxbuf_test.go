package rxbuf

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

func TestStride(t *testing.T) {
	if Stride < vnet.HeaderLen+port.MaxFrame {
		t.Errorf("a slot of %d bytes cannot hold the longest frame", Stride)
	}
	if Stride%4096 == 0 || Stride%64 != 0 {
		t.Errorf("Stride is %d: it must be a multiple of the cache line and not of the page", Stride)
	}
	if got := len(Slab()); got != port.BatchSize*Stride {
		t.Errorf("a slab has %d bytes", got)
	}
}

// What was given back last is rented first, and only an empty pool makes more.
func TestPoolIsAStack(t *testing.T) {
	made := 0
	p := Pool[int]{New: func() *int { made++; n := made; return &n }}
	a, b := p.Rent(), p.Rent()
	p.Return(a)
	p.Return(b)
	if got := p.Rent(); got != b {
		t.Errorf("rented %d first, want the one returned last (%d)", *got, *b)
	}
	if got := p.Rent(); got != a {
		t.Errorf("rented %d next, want %d", *got, *a)
	}
	if made != 2 {
		t.Errorf("%d buffers were made for two in use", made)
	}
}

func TestPoolDoesNotAllocateWhenWarm(t *testing.T) {
	p := Pool[int]{New: func() *int { return new(int) }}
	p.Return(p.Rent())
	if n := testing.AllocsPerRun(100, func() { p.Return(p.Rent()) }); n != 0 {
		t.Errorf("%v allocations a round", n)
	}
}

// Of a pool of batches, as many are in use at once as the limit lets; whoever rents one more waits. Other pools
// are not limited.
func TestBatchesAreLimited(t *testing.T) {
	was := batches.Load()
	t.Cleanup(func() { batches.Store(was) })
	LimitBatches(3 * len(Slab()))
	synctest.Test(t, func(t *testing.T) {
		p := Pool[int]{Batches: true, New: func() *int { return new(int) }}
		var in, most atomic.Int64
		var renters sync.WaitGroup
		for range 10 {
			renters.Go(func() {
				for range 10 {
					b := p.Rent()
					n := in.Add(1)
					most.Store(max(most.Load(), n))
					time.Sleep(time.Second)
					in.Add(-1)
					p.Return(b)
				}
			})
		}
		renters.Wait()
		if most.Load() != 3 || len(p.free) != 3 || p.rented != 0 || p.waiting != 0 {
			t.Errorf("%d were in use at once, and %d are free; %d are rented, and %d wait", most.Load(), len(p.free), p.rented, p.waiting)
		}
		other := Pool[int]{New: func() *int { return new(int) }}
		for range 5 {
			other.Rent()
		}
	})
	if LimitBatches(0); batches.Load() != 2 {
		t.Errorf("without memory, %d are allowed", batches.Load())
	}
}
