package fdb

const (
	// evictWindow bounds how many slots one Learn searches for a victim: 64 KiB of
	// memory, a few microseconds. After a search that finds none, the next frame's search
	// continues from there.
	evictWindow = 4096

	// evictSamples is the number of candidates of which the oldest is evicted. Even a few
	// come close to evicting by age, without an ordered list. The number is the same
	// however sparse the candidates are: with fewer in sparse stretches, those would
	// lose a larger part of their entries and end up empty.
	evictSamples = 3
)

type evictResult uint8

const (
	evictDone  evictResult = iota
	evictRaced             // the victim was heard or removed meanwhile
	evictNone              // the window has nothing to evict
)

// evict makes room for one entry at port in. It evicts an expired entry if it meets one,
// else an old entry of the port with the most Dynamic entries. So a port that floods the
// table with addresses soon displaces only its own.
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
		now := t.clock.load() // after v, or v could appear to come from the future
		if expired = now.expired(v) && t.isCurrent(v); expired {
			victim, last = s, v
			break
		}
		// A flushed entry is not counted, so evicting it would make no room.
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
	t.hand.Add(uint64(looked)) // only forward, even with concurrent searches

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

// richest returns the port with the most Dynamic entries, preferring in on a tie. Checking
// every port is cheap compared with searching for an entry of one.
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
