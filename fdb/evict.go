package fdb

const (
	// evictWindow bounds how many slots one Learn looks at for a victim: 64 KiB
	// of memory, a few microseconds. A search that finds none goes on from
	// there at the next frame.
	evictWindow = 4096

	// evictSamples is of how many entries the oldest is taken. Few come close
	// to evicting by age, without a list to keep in order. It is the same
	// however far apart they lie: to settle for fewer where they are sparse
	// would take a larger part of them there and leave stretches with none.
	evictSamples = 3
)

type evictResult uint8

const (
	evictDone  evictResult = iota
	evictRaced             // the victim was heard or went meanwhile
	evictNone              // the window has nothing that may go
)

// evict makes room for one entry at port in: an expired entry if it meets one, else an
// old one of the port that has the most Dynamic entries. So a port that floods
// the table with addresses soon displaces its own only.
func (t *Table) evict(in uint16, window int) evictResult {
	a := t.array.Load()
	rich := t.richest(in)

	var victim *slot
	var last value
	var expired bool
	first, looked, samples := t.hand.Load(), 0, 0
	for looked < min(window, len(a.slots)) {
		s := a.at(first + uint64(looked))
		looked++
		v := s.load()
		if !v.kind().ages() {
			continue
		}
		now := t.clock.load() // after v, or v could seem to come from the future
		if expired = now.expired(v) && t.isCurrent(v); expired {
			victim, last = s, v
			break
		}
		// A flushed entry is not counted, so taking it out would make no room.
		if v.kind() != Dynamic || v.port() != rich || !t.isCurrent(v) {
			continue
		}
		if victim == nil || now.age(v) > now.age(last) {
			victim, last = s, v
		}
		if samples++; samples == evictSamples {
			break
		}
	}
	t.hand.Add(uint64(looked)) // forward only, also when others search at once

	switch {
	case victim == nil:
		return evictNone
	case last.isFrozen() || !t.take(victim, last):
		return evictRaced
	}
	if !expired {
		t.evictions.Add(1)
	}
	return evictDone
}

// richest returns the port with the most Dynamic entries, in when it is one of
// several. Looking at each port is cheap beside the search for one's entry.
func (t *Table) richest(in uint16) uint16 {
	best, most := in, 0
	if s := t.ports.get(in); s != nil {
		most = s.load().dynamic()
	}
	for p := range t.ports.high.Load() {
		if s := t.ports.get(uint16(p)); s != nil && s.load().dynamic() > most {
			best, most = uint16(p), s.load().dynamic()
		}
	}
	return best
}
