package fdb

import "fmt"

// Add adds an entry, replacing any existing one. The port's limit does not apply. If the
// table is full, Add evicts a Dynamic entry; if there is none, the error wraps ErrFull. A
// Local entry is always at NoPort.
func (t *Table) Add(k Key, port uint16, kind Kind) error {
	switch {
	case kind < Dynamic || kind > Local:
		return fmt.Errorf("add %v: there is no %v entry; use dynamic, sticky, static or local", k, kind)
	case !k.isStation():
		return fmt.Errorf("add %v: not the address of one station; use one that is neither zero nor multicast", k)
	case kind == Local:
		port = NoPort
	case port == NoPort:
		return fmt.Errorf("add %v: a %v entry needs a port; name one", k, kind)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		a := t.array.Load()
		s := a.find(k)
		var v value
		if s != nil {
			v = s.load()
		}
		switch t.put(a, s, v, k, port, kind, 0, false) {
		case putDone:
			return nil
		case putNoRoom:
			if t.evict(port, len(a.slots)) == evictNone {
				return fmt.Errorf("add %v: %w", k, ErrFull)
			}
		case putNoSlot:
			t.rebuild()
		}
	}
}

// Delete removes k's entry, of any kind, and reports whether there was one.
func (t *Table) Delete(k Key) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.array.Load().find(k)
	if s == nil {
		return false
	}
	for {
		v := s.load()
		alive := t.isAlive(v)
		if t.take(s, v) {
			return alive
		}
	}
}

// Flush removes the matching Dynamic and Sticky entries, and returns how many. match must
// not call the table's control methods.
func (t *Table) Flush(match func(Entry) bool) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.removeAll(func(k Key, v value) bool {
		return v.kind().ages() && t.isAlive(v) && match(t.entry(k, v))
	})
}

// removeAll takes the matching values out of their slots and returns how many. The caller
// holds mu.
func (t *Table) removeAll(match func(Key, value) bool) (n int) {
	a := t.array.Load()
	for i := range a.slots {
		s := &a.slots[i]
		for v := s.load(); v.kind() != 0 && match(Key(s.key.Load()), v); v = s.load() {
			if t.take(s, v) {
				n++
			}
		}
	}
	return n
}
