package fdb

import (
	"math"
	"sync/atomic"
	"time"
)

const (
	// DefaultAging and MaxAging are from 802.1Q-2018 table 8-6.
	DefaultAging = 300 * time.Second
	MaxAging     = 1_000_000 * time.Second

	noAging = math.MaxUint32 // longer than any age
)

// clock holds the current second and the ageing time in seconds in one word: the data
// path loads both at once.
type clock struct{ word atomic.Uint64 }

type moment uint64 // aging<<32 | second

func makeMoment(second, aging uint32) moment { return moment(aging)<<32 | moment(second) }

func (c *clock) load() moment { return moment(c.word.Load()) }

func (m moment) second() uint32 { return uint32(m) }
func (m moment) aging() uint32  { return uint32(m >> 32) }
func (m moment) stamp() uint32  { return uint32(m) & stampMask }

// age returns how many seconds ago v was stamped; m must be loaded after v. It is correct
// up to 2^20-1 s. Sweep must reclaim an entry before that age; even MaxAging leaves it
// 48,575 s to do so.
func (m moment) age(v value) uint32 { return (uint32(m) - uint32(v)) & stampMask }

func (m moment) expired(v value) bool { return m.age(v) >= m.aging() }

// Advance sets the table's time: the time since a fixed moment of the caller's choice. The
// caller calls it about once a second, which is the resolution of ages. A time before the
// last one changes nothing.
func (t *Table) Advance(now time.Duration) {
	second := uint32(now / time.Second)
	for {
		m := t.clock.load()
		if now < 0 || second <= m.second() || t.clock.word.CompareAndSwap(uint64(m), uint64(makeMoment(second, m.aging()))) {
			return
		}
	}
}

// SetAging sets how long a silent station is remembered: rounded up to whole seconds,
// within 1 s and MaxAging; negative: for ever. It takes effect at once, for existing
// entries too.
func (t *Table) SetAging(d time.Duration) {
	t.mu.Lock() // so that no entry revives while the array is rebuilt
	defer t.mu.Unlock()
	aging := uint32(noAging)
	if d >= 0 {
		d = min(max(d, time.Second), MaxAging)
		aging = uint32((d + time.Second - 1) / time.Second)
	}
	for {
		m := t.clock.load()
		if t.clock.word.CompareAndSwap(uint64(m), uint64(makeMoment(m.second(), aging))) {
			return
		}
	}
}

// Aging returns how long a silent station is remembered, less than 0 for ever.
func (t *Table) Aging() time.Duration {
	if aging := t.clock.load().aging(); aging != noAging {
		return time.Duration(aging) * time.Second
	}
	return -1
}

// sweepCalls is the most calls that Sweep(0) takes to pass the table. Many short calls
// keep each one short.
const sweepCalls = 64

// Sweep reclaims the expired and flushed entries among the next slots of the table, and
// returns how many. Sweep(0) chooses the number of slots: called once a second, it passes
// the table in a quarter of the ageing time, at most 64 s. Sweep also replaces a worn
// array, so that Learn seldom has to.
func (t *Table) Sweep(slots int) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.array.Load()
	if slots <= 0 {
		calls := min(max(t.clock.load().aging()/4, 1), sweepCalls)
		slots = (len(a.slots) + int(calls) - 1) / int(calls)
	}
	for range min(slots, len(a.slots)) {
		s := a.at(t.sweepAt)
		t.sweepAt++
		if v := s.load(); v.kind() != 0 && !t.isAlive(v) && t.take(s, v) {
			n++
		}
	}
	if t.isWorn(a) {
		t.rebuild()
	}
	return n
}
