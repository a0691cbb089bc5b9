package fdb

import (
	"fmt"
	"time"
)

// Outcome is the result of Learn.
type Outcome uint8

const (
	Known   Outcome = iota // the entry existed; it was refreshed
	Learned                // there was no entry; one was made
	Moved                  // the entry moved here from another port
	Pinned                 // the entry is Local, or Sticky or Static elsewhere; nothing changed
	Limited                // the port is at its limit; nothing changed
	Full                   // the table is full and no victim was found; nothing changed
	Busy                   // concurrent changes to the same place; the next frame will succeed
	Refused                // zero and group addresses, and NoPort, are not learned
)

func (o Outcome) String() string {
	switch o {
	case Known:
		return "known"
	case Learned:
		return "learned"
	case Moved:
		return "moved"
	case Pinned:
		return "pinned"
	case Limited:
		return "limited"
	case Full:
		return "full"
	case Busy:
		return "busy"
	case Refused:
		return "refused"
	}
	return fmt.Sprintf("outcome(%d)", uint8(o))
}

// Learn records that port received a frame from k. The second result is the port that k
// Moved from, or is Pinned to, and NoPort otherwise. A station already recorded in the
// current second costs no write.
func (t *Table) Learn(k Key, port uint16) (Outcome, uint16) {
	ps := t.ports.get(port)
	if ps == nil {
		return t.learn(k, port, 0)
	}
	// The value of a station that did not move, without its stamp.
	same := makeValue(Dynamic, port, ps.load().gen(), 0) >> stampBits

	a := t.array.Load()
	for i := a.home(k); ; i++ {
		s := a.at(i)
		switch Key(s.key.Load()) {
		case k:
			v := s.load()
			now := t.clock.load()
			if v>>stampBits == same && !now.expired(v) {
				fresh := v.stamped(now.stamp())
				if v == fresh || s.replace(v, fresh) {
					return Known, NoPort
				}
			}
			return t.learn(k, port, 0)
		case 0:
			return t.learn(k, port, 0)
		}
	}
}

// learnTries bounds the work of one Learn. A try makes room for the next one, or fails because
// another call changed the same station or took the room just made, so a few usually suffice.
const learnTries = 8

// learn is the slow path of Learn: all but refreshing a Dynamic entry at its port. The
// frame was received ago seconds ago.
func (t *Table) learn(k Key, port uint16, ago uint32) (Outcome, uint16) {
	if !k.isStation() || port == NoPort {
		return Refused, NoPort
	}
	for range learnTries {
		a := t.array.Load()
		s := a.find(k)
		var v value
		if s != nil {
			v = s.load()
		}
		if v.isFrozen() {
			return Busy, NoPort
		}

		outcome, from := Learned, NoPort
		if t.isAlive(v) {
			switch {
			case v.port() == port && v.kind() == Static:
				return Known, NoPort
			case v.port() == port:
				if ago > 0 || s.replace(v, v.stamped(t.clock.load().stamp())) {
					return Known, NoPort
				}
				continue
			case v.kind() != Dynamic:
				return Pinned, v.port()
			}
			outcome, from = Moved, v.port()
		} else if v != 0 {
			// An entry that is gone must not count against the port's limit.
			t.take(s, v)
			continue
		}

		switch t.put(a, s, v, k, port, Dynamic, ago, true) {
		case putDone:
			return outcome, from
		case putLimited:
			return Limited, NoPort
		case putNoRoom:
			switch t.evict(port, evictWindow) {
			case evictNone:
				return Full, NoPort
			case evictRaced:
				return Busy, NoPort
			}
		case putNoSlot:
			if !t.tryRebuild(a) {
				return Busy, NoPort
			}
		}
	}
	return Busy, NoPort
}

type putResult uint8

const (
	putDone    putResult = iota
	putRaced             // the slot changed meanwhile: look again
	putLimited           // the port is at its limit
	putNoRoom            // the table is at its capacity
	putNoSlot            // the array has no slot left to claim
)

// put replaces k's value v in slot s (nil if k has no slot) by one of kind at port. It
// raises counts before the slot changes and lowers them after, so that neither a port's
// limit nor the capacity is exceeded. It claims no slot for a station that is refused, so
// a flood of those costs no slots.
func (t *Table) put(a *array, s *slot, v value, k Key, port uint16, kind Kind, ago uint32, limited bool) putResult {
	var gen uint32
	if kind.ages() {
		var ok bool
		if gen, ok = t.ports.use(port).count(kind, limited); !ok {
			return putLimited
		}
	}
	next := makeValue(kind, port, gen, (t.clock.load().second()-ago)&stampMask)

	// An entry that replaces a counted one needs no room. If a flush of the old
	// entry's port comes in between, the table may hold one entry too many until the
	// next insertion evicts it.
	if n := t.total.Add(1); n > t.capacity && !t.isCurrent(v) {
		t.release(next)
		return putNoRoom
	}
	if s == nil {
		if s = a.claim(k); s == nil {
			t.release(next)
			return putNoSlot
		}
	}
	if !s.replace(v, next) {
		t.release(next)
		return putRaced
	}
	t.release(v)
	t.observer.Changed(k)
	return putDone
}

// Heard records that port received a frame from k the time ago earlier, for frames that
// the table's owner did not forward itself. It refreshes k's entry, even one that just
// expired, but makes none. It reports whether k has an entry at port.
func (t *Table) Heard(k Key, port uint16, ago time.Duration) bool {
	for {
		s := t.array.Load().find(k)
		if s == nil {
			return false
		}
		v, now := s.load(), t.clock.load()
		if v.port() != port || !t.isCurrent(v) {
			return false
		}
		age := uint32(ago / time.Second)
		if !v.kind().ages() || now.age(v) <= age {
			return t.isAlive(v)
		}
		if age >= now.aging() {
			return false
		}
		if v.isFrozen() {
			return true // the next call will refresh it
		}
		if s.replace(v, v.stamped(now.second()-age)) {
			return true
		}
	}
}

// Restore learns a station from a saved record: it was heard at port the time ago earlier.
// It reports whether the station has an entry at port now. Anything the table has heard
// itself takes precedence. A station older than the ageing time is not learned.
func (t *Table) Restore(k Key, port uint16, ago time.Duration) bool {
	if t.Heard(k, port, ago) {
		return true
	}
	age := uint32(min(ago, MaxAging) / time.Second)
	if _, known := t.Lookup(k); known || age >= t.clock.load().aging() {
		return false
	}
	outcome, _ := t.learn(k, port, age)
	return outcome == Learned || outcome == Known
}
