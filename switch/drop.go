package vswitch

import (
	"sync/atomic"

	"github.com/vswitch/vswitch/port"
)

// Counting. Each frame received raises rx.frames. If no copy of it was meant for
// any port it raises one drop counter of the port it came by; otherwise each copy
// raises tx.frames or one drop counter of the port it was meant for. rx.copies
// counts the copies beyond the first, of flooding and mirrors, and the segments
// beyond the first that a super-frame was cut into. With the frames that
// the switch itself sends, over all ports
//
//	Σ rx.frames + Σ rx.copies + injected = Σ tx.frames + Σ drops
//
// at any moment when no batch is on its way and no shaped port has frames waiting.

// rxCounters are written by one worker only, and read by anyone: atomic so that
// a reader sees whole numbers, stored instead of added since nobody else writes.
type rxCounters struct {
	_       [64]byte // no other's words on these cache lines
	frames  atomic.Uint64
	bytes   atomic.Uint64
	copies  atomic.Uint64
	dropped [port.NumDrops]atomic.Uint64
	_       [64]byte
}

func bump(c *atomic.Uint64, n uint64) { c.Store(c.Load() + n) }

func (c *rxCounters) received(frames, bytes uint64) {
	bump(&c.frames, frames)
	bump(&c.bytes, bytes)
}

func (c *rxCounters) copied(n uint64)    { bump(&c.copies, n) }
func (c *rxCounters) drop(why port.Drop) { bump(&c.dropped[why], 1) }

// txShards is into how many parts a port's transmit counters are split. Any
// worker may send to any port; with one part a worker the memory would grow with
// the square of the ports, with a few that are added to once per vector the
// workers seldom meet.
const txShards = 4

// txCounters are one shard of a port's transmit counters.
type txCounters struct {
	frames  atomic.Uint64
	bytes   atomic.Uint64
	dropped [port.NumDrops]atomic.Uint64
	_       [64]byte // the next shard starts on another cache line
}

// countedLater marks a frame that was taken over by a queue inside the switch,
// which counts what becomes of it.
const countedLater = port.NumDrops

// count adds what became of the frames of one vector.
func (c *txCounters) count(out []port.Out) {
	var frames, bytes uint64
	for i := range out {
		switch o := &out[i]; o.Drop {
		case port.DropNone:
			frames++
			bytes += uint64(o.Len())
		case countedLater:
		default:
			c.dropped[o.Drop].Add(1)
		}
	}
	if frames != 0 {
		c.frames.Add(frames)
		c.bytes.Add(bytes)
	}
}
