package fdb

import (
	"fmt"
	"time"
)

// Outcome is what Learn did.
type Outcome uint8

const (
	Known   Outcome = iota // the entry was there; it is fresh again
	Learned                // there was none; now there is
	Moved                  // it was another port's; now it is this port's
	Pinned                 // it is Sticky or Static at another port, or Local; nothing changed
	Limited                // the port has as many entries as it may; nothing changed
	Full                   // nothing was found that would give way; nothing changed
	Busy                   // others are changing the same place; the next frame will do
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

// Learn notes that a frame from k came by port. The second result is the port
// that k was behind when it Moved, or is Pinned to, and NoPort otherwise.
// A station already noted in the current second costs no write.
func (t *Table) Learn(k Key, port uint16) (Outcome, uint16) {
	ps := t.ports.get(port)
	if ps == nil {
		return t.learn(k, port, 0)
	}
	// All of the value but its stamp, as it is for a station that stayed.
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

// learnTries bounds the work of one Learn. A try fails only because another call
// changed the same station or took the room just made, so one or two do.
const learnTries = 8

// learn is Learn for everything but a Dynamic entry that stays at its port, of a frame
// that came so many seconds ago.
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
			// What is gone must not count against the port's limit.
			if !t.take(s, v) {
				continue
			}
			v = 0
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

// put makes k's value, which is v in slot s (nil when it has none), one of kind
// at port. Counts are raised before the slot changes and lowered after, so that
// neither a port's limit nor the capacity is passed; and no slot is claimed for a
// station that is not let in, so a flood of those costs no slots.
func (t *Table) put(a *array, s *slot, v value, k Key, port uint16, kind Kind, ago uint32, limited bool) putResult {
	var gen uint32
	if kind.ages() {
		var ok bool
		if gen, ok = t.ports.use(port).count(kind, limited); !ok {
			return putLimited
		}
	}
	next := makeValue(kind, port, gen, (t.clock.load().second()-ago)&stampMask)

	// An entry that replaces one already counted needs no room. When a flush
	// of the old one's port comes in between, the table may have one entry too
	// many until the next insertion evicts it.
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

// Heard notes that a frame from k came by port so long ago, for one that somebody
// else forwarded, and tells whether k's entry is there: only an entry is refreshed,
// none is made. One that has just expired comes back.
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
			return true // the next time will do
		}
		if s.replace(v, v.stamped(now.second()-age)) {
			return true
		}
	}
}

// Restore learns a station that was heard at port so long ago, from what somebody kept,
// and reports whether it is there now. What the table itself has heard since holds; a
// station that is older than the ageing time is not learned.
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
