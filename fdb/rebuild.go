package fdb

// isWorn reports whether the table's owner should replace the array now, before a worker
// has to: the array is close to its bound, or four times as large as its remaining entries
// need.
func (t *Table) isWorn(a *array) bool {
	size := len(a.slots)
	return int(a.used.Load()) > size/2 || size > minSlots && slotsFor(t.Len()+1) <= size/4
}

// tryRebuild replaces a for a caller that must not wait. It reports whether there is a new
// array to continue with.
func (t *Table) tryRebuild(a *array) bool {
	if !t.mu.TryLock() {
		return false
	}
	defer t.mu.Unlock()
	if t.array.Load() == a {
		t.rebuild()
	}
	return true
}

// rebuild copies the entries in force to a new array of the size they need. The caller
// holds mu. Rule 5 of slot.go says why nothing is lost meanwhile.
func (t *Table) rebuild() {
	old := t.array.Load()
	// The size follows from the frozen entries, not from Len, which changes concurrently.
	// One more leaves room for the caller's entry.
	next := newArray(slotsFor(t.freeze(old) + 1))
	for i := range old.slots {
		s := &old.slots[i]
		v := s.load() &^ frozen
		k := Key(s.key.Load())
		if !t.isAlive(v) {
			if v != 0 {
				t.release(v)
				t.observer.Changed(k)
			}
			continue
		}
		next.claim(k).value.Store(uint64(v))
	}
	t.array.Store(next)
	t.rebuilds.Add(1)
}

// freeze ends all writes to a, and returns the number of its entries in force.
func (t *Table) freeze(a *array) (live int) {
	for i := range a.slots {
		s := &a.slots[i]
		s.value.Or(uint64(frozen))
		if t.isAlive(s.load()) {
			live++
		}
	}
	return live
}
