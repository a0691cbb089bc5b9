// Package rxbuf lends receive buffers to the port kinds that read from the kernel.
// A port rents one when it has frames and gives it back on Release, so that a
// thousand idle ports hold none. Any goroutine may call a Pool.
package rxbuf

import (
	"sync"

	"github.com/vswitch/vswitch/internal/vnet"
	"github.com/vswitch/vswitch/port"
)

// Stride is the distance in bytes between the frames of one buffer. A slot holds
// the longest frame behind its virtio-net header. It is a multiple of the cache
// line but not of the page: frames that all began at the same page offset would
// compete for the same few sets of the L1 cache.
const Stride = (vnet.HeaderLen + port.MaxFrame + 63) &^ 63

// Slab makes memory for one batch, one slot a Stride. The allocation is large
// enough to come from the operating system untouched: pages that only ever see
// small frames cost one page a slot.
func Slab() []byte { return make([]byte, port.BatchSize*Stride) }

// Pool is a stack of free buffers. The one given back last is rented first, for
// it is the one in the cache. It never shrinks: it holds as many as were once in
// use at the same time. (A sync.Pool would forget them at each collection and
// have the kernel clear megabytes again.)
type Pool[T any] struct {
	New func() *T

	mu   sync.Mutex
	free []*T
}

// Rent takes a buffer, a new one when none is free.
func (p *Pool[T]) Rent() *T {
	p.mu.Lock()
	if n := len(p.free); n > 0 {
		b := p.free[n-1]
		p.free = p.free[:n-1]
		p.mu.Unlock()
		return b
	}
	p.mu.Unlock()
	return p.New()
}

// Return gives a rented buffer back.
func (p *Pool[T]) Return(b *T) {
	p.mu.Lock()
	p.free = append(p.free, b)
	p.mu.Unlock()
}
