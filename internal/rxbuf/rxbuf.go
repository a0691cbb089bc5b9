// Package rxbuf lends receive buffers to the port kinds that read from the kernel.
// A port rents one when it has frames and gives it back on Release, so that a
// thousand idle ports hold none. Any goroutine may call a Pool.
package rxbuf

import (
	"math"
	"sync"
	"sync/atomic"

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

	// Batches says that each buffer is a Slab, which its renter gives back after one batch and without
	// renting another meanwhile. LimitBatches bounds how many are in use at once.
	Batches bool

	mu      sync.Mutex
	free    []*T
	rented  int
	waiting int
	back    sync.Cond // signals that a buffer came back while somebody waits
}

// batches is how many buffers of each pool of batches may be in use at once.
var batches atomic.Int64

func init() { batches.Store(math.MaxInt64) }

// LimitBatches bounds the memory, in bytes, of all batches of a pool. Whoever rents one too many waits
// until another comes back. Two are always allowed.
func LimitBatches(bytes int) { batches.Store(int64(max(2, bytes/(port.BatchSize*Stride)))) }

// Rent returns a free buffer, or a new one if there is none.
func (p *Pool[T]) Rent() *T {
	p.mu.Lock()
	for p.Batches && int64(p.rented) >= batches.Load() {
		p.await()
	}
	p.rented++
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
	p.rented--
	if p.waiting > 0 {
		p.back.Signal()
	}
	p.mu.Unlock()
}

// await waits until a buffer comes back. The caller has locked p.mu.
func (p *Pool[T]) await() {
	p.back.L = &p.mu
	p.waiting++
	p.back.Wait()
	p.waiting--
}
