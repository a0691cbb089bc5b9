package fdb

import "testing"

// check holds a table that nobody changes to what slot.go and ports.go say: each
// key once and where its probe sequence finds it, and every count equal to
// what is in the slots.
func check(t testing.TB, tbl *Table) {
	t.Helper()
	a := tbl.array.Load()
	var used, total int64
	seen := map[Key]bool{}
	dynamic, sticky := map[uint16]int{}, map[uint16]int{}
	for i := range a.slots {
		s := &a.slots[i]
		k, v := Key(s.key.Load()), s.load()
		if k == 0 {
			if v != 0 {
				t.Errorf("slot %d: value %#x without a key", i, v)
			}
			continue
		}
		used++
		if seen[k] {
			t.Errorf("%v is there twice", k)
		}
		seen[k] = true
		if a.find(k) != s {
			t.Errorf("%v: its probe sequence does not lead to it", k)
		}
		if v.isFrozen() {
			t.Errorf("%v: frozen in the current array", k)
		}
		if !tbl.isCurrent(v) {
			continue
		}
		total++
		switch v.kind() {
		case Dynamic:
			dynamic[v.port()]++
		case Sticky:
			sticky[v.port()]++
		}
	}
	if got := a.used.Load(); got != used || got > a.bound {
		t.Errorf("used is %d of %d, %d slots are claimed", got, a.bound, used)
	}
	if got := tbl.total.Load(); got != total {
		t.Errorf("total is %d, there are %d entries", got, total)
	}
	for p := range 1 << 16 {
		s := tbl.ports.get(uint16(p))
		if s == nil {
			continue
		}
		if w := s.load(); w.dynamic() != dynamic[uint16(p)] || w.sticky() != sticky[uint16(p)] {
			t.Errorf("port %d counts %d dynamic and %d sticky, there are %d and %d",
				p, w.dynamic(), w.sticky(), dynamic[uint16(p)], sticky[uint16(p)])
		}
	}
}
