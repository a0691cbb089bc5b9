package fdb

import (
	"iter"
	"time"
)

// Lookup returns the port that k is behind; ok is false if k is unknown. An address of the
// switch itself is at NoPort.
func (t *Table) Lookup(k Key) (port uint16, ok bool) {
	a := t.array.Load()
	for i := a.home(k); ; i++ {
		s := a.at(i)
		switch Key(s.key.Load()) {
		case k:
			// isAlive, inlined by hand: a call would cost as much as the rest.
			v := s.load()
			if !v.kind().ages() {
				return v.port(), v.kind() != 0
			}
			return v.port(), !t.clock.load().expired(v) && t.ports.get(v.port()).load().gen() == v.gen()
		case 0:
			return NoPort, false
		}
	}
}

// isAlive reports whether v is an entry in force: neither gone, expired nor flushed. It is
// exact; Sweep only has to reclaim the slot.
func (t *Table) isAlive(v value) bool {
	kind := v.kind()
	if !kind.ages() {
		return kind != 0
	}
	return !t.clock.load().expired(v) && t.ports.get(v.port()).load().gen() == v.gen()
}

// Entry is one entry at the time it was read.
type Entry struct {
	Key  Key
	Port uint16
	Kind Kind

	// Age is the time since the station was last heard, in whole seconds; 0 for kinds
	// that do not age.
	Age time.Duration
}

func (t *Table) entry(k Key, v value) Entry {
	e := Entry{Key: k, Port: v.port(), Kind: v.kind()}
	if e.Kind.ages() {
		e.Age = time.Duration(t.clock.load().age(v)) * time.Second
	}
	return e
}

// Get returns k's entry.
func (t *Table) Get(k Key) (Entry, bool) {
	s := t.array.Load().find(k)
	if s == nil {
		return Entry{}, false
	}
	v := s.load()
	if !t.isAlive(v) {
		return Entry{}, false
	}
	return t.entry(k, v), true
}

// All yields the entries in no order. An entry that exists throughout is yielded once; one
// that is added, removed or changed meanwhile may be yielded in its earlier state.
func (t *Table) All() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		a := t.array.Load()
		for i := range a.slots {
			s := &a.slots[i]
			v := s.load()
			if t.isAlive(v) && !yield(t.entry(Key(s.key.Load()), v)) {
				return
			}
		}
	}
}
