package rxbuf

import (
	"testing"

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
