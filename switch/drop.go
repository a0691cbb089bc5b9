package vswitch

import (
	"math/bits"
	"sync/atomic"

	"github.com/vswitch/vswitch/port"
)

// Counting. Each received frame raises rx.frames. If no copy of it was meant for any
// port, it raises one drop counter of its ingress port; otherwise each copy raises
// tx.frames or one drop counter of its egress port. rx.copies counts the copies that
// flooding and mirrors add to the first, and the segments of a super-frame beyond the
// first. With the frames that the switch originates, over all ports
//
//	Σ rx.frames + Σ rx.copies + injected = Σ tx.frames + Σ drops
//
// whenever no batch is in flight and no shaped port has frames waiting.

// rxCounters have one writer, their worker, and any number of readers. They are atomic
// so that readers see whole numbers; a store suffices since nobody else writes.
type rxCounters struct {
	_       [64]byte // keeps other data off these cache lines
	frames  atomic.Uint64
	bytes   atomic.Uint64
	copies  atomic.Uint64
	dropped [port.NumDrops]atomic.Uint64
	batches [8]atomic.Uint64 // as BatchSizes
	_       [64]byte
}

func bump(c *atomic.Uint64, n uint64) { c.Store(c.Load() + n) }

func (c *rxCounters) received(frames, bytes uint64) {
	bump(&c.frames, frames)
	bump(&c.bytes, bytes)
	bump(&c.batches[bits.Len64(frames-1)%8], 1)
}

func (c *rxCounters) copied(n uint64)    { bump(&c.copies, n) }
func (c *rxCounters) drop(why port.Drop) { bump(&c.dropped[why], 1) }

// txShards is the number of shards of a port's transmit counters. Any worker may send to
// any port. One shard per worker would make memory grow with the square of the ports; a
// few shards, each updated once per vector, keep contention between workers rare.
const txShards = 4

// txCounters are one shard of a port's transmit counters.
type txCounters struct {
	frames  atomic.Uint64
	bytes   atomic.Uint64
	dropped [port.NumDrops]atomic.Uint64
	_       [64]byte // the next shard starts on another cache line
}

// countedLater marks a frame that a queue inside the switch took over. That queue counts
// the outcome.
const countedLater = port.NumDrops

// count adds the outcomes of one vector, and reports whether a frame was lost.
func (c *txCounters) count(out []port.Out) (lost bool) {
	var frames, bytes uint64
	for i := range out {
		switch o := &out[i]; o.Drop {
		case port.DropNone:
			frames++
			bytes += uint64(o.Len())
		case countedLater:
		default:
			c.dropped[o.Drop].Add(1)
			lost = true
		}
	}
	if frames != 0 {
		c.frames.Add(frames)
		c.bytes.Add(bytes)
	}
	return lost
}
