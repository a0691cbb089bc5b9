// Package rxbuf lends receive buffers to the port kinds that read from the kernel.
// A port rents one when it has frames and gives it back on Release, so that a
// thousand idle ports hold none. Any goroutine may call a Pool.
package rxbuf

import (
	"sync"

	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// Stride is the distance in bytes between the frames of one buffer. A slot holds
// the longest frame behind its virtio-net header. It is a multiple of the cache
// line but not of the page: frames that all began at the same page offset would
// compete for the same few sets of the L1 cache.
const Stride = (vnet.HeaderLen + port.MaxFrame + 63) &^ 63

// Slab allocates memory for one batch, one slot per Stride. The allocation is large
// enough to come untouched from the operating system: slots that only ever hold
// small frames cost one page each.
func Slab() []byte { return make([]byte, port.BatchSize*Stride) }

// Pool is a stack of free buffers. It rents the buffer returned last, since that one
// is in the cache. It never shrinks: it holds as many as were ever in use at once.
// (A sync.Pool would forget them at each collection, and the kernel would clear
// megabytes again.)
type Pool[T any] struct {
	New func() *T

	mu   sync.Mutex
	free []*T
}

// Rent returns a free buffer, or a new one if there is none.
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
