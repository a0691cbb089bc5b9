package fastpath

import (
	"math/rand/v2"
	"testing"

	"github.com/vswitch/vswitch/fdb"
)

// newStations is a table that no kernel has.
func newStations(capacity int) *stations {
	n := int(linesFor(capacity))
	return &stations{lines: make([]line, n), hash: newHash(n)}
}

// The table is a map, but for stations that find no place: then all places of their two
// lines are taken by others that are current.
func TestStations(t *testing.T) {
	t.Parallel()
	const keys, steps = 64, 10_000
	draw := rand.New(rand.NewPCG(1, 2))
	for _, capacity := range []int{1, 9, keys} {
		s := newStations(capacity)
		is := make(map[fdb.Key]bpfStation)
		current := func(k fdb.Key, st bpfStation) bool {
			if is[k] != st {
				t.Fatalf("%v is %+v in the table, was written as %+v", k, st, is[k])
			}
			return st.Generation != 0
		}
		refused := 0
		for range steps {
			k := fdb.MakeKey(1+uint16(draw.IntN(4)), uint64(crowdMAC(draw.IntN(keys/4))))
			switch draw.IntN(3) {
			case 0:
				s.delete(k)
				delete(is, k)
			default:
				st := bpfStation{Slot: uint16(draw.IntN(maxPorts)), Generation: uint16(draw.IntN(8)), Heard: draw.Uint32()}
				if s.put(k, st, current) {
					is[k] = st
					break
				}
				refused++
				for _, l := range s.of(k) {
					for i := range l.key {
						if other := fdb.Key(l.key[i].Load()); other == k || is[other].Generation == 0 {
							t.Fatalf("%v is refused, and its lines have %v", k, other)
						}
					}
				}
			}
			n := 0
			s.each(func(k fdb.Key, st bpfStation) {
				n++
				if is[k] != st {
					t.Fatalf("%v is %+v, want %+v", k, st, is[k])
				}
			})
			// Stations that were not current may have lost their places.
			for k, st := range is {
				if _, at := s.find(k); at == nil {
					if st.Generation != 0 {
						t.Fatalf("%v is gone", k)
					}
					delete(is, k)
				}
			}
			if n != len(is) {
				t.Fatalf("%d stations are given, %d are there", n, len(is))
			}
		}
		if capacity == 1 && refused == 0 {
			t.Error("none of so many was refused")
		}
	}
}

// All stations find places, whatever pattern their addresses have.
func TestStationsFit(t *testing.T) {
	t.Parallel()
	const capacity = 1 << 16
	for name, key := range map[string]func(n int) fdb.Key{
		"row":   func(n int) fdb.Key { return fdb.MakeKey(1, uint64(crowdMAC(n))) },
		"vlans": func(n int) fdb.Key { return fdb.MakeKey(uint16(1+n%4094), uint64(crowdMAC(n/4094))) },
		"steps": func(n int) fdb.Key { return fdb.MakeKey(1, uint64(crowdMAC(n<<8))) },
	} {
		s := newStations(capacity)
		refused := 0
		for n := range capacity {
			if !s.put(key(n), bpfStation{}, func(fdb.Key, bpfStation) bool { return true }) {
				refused++
			}
		}
		if refused > 0 {
			t.Errorf("%s: %d of %d find no place", name, refused, capacity)
		}
	}
}

// A station that a killed process left in two places is in none when it is deleted.
func TestStationDeletedTwice(t *testing.T) {
	t.Parallel()
	s := newStations(4)
	k := fdb.MakeKey(1, uint64(macA))
	for _, l := range s.of(k) {
		give(&l.key[0], &l.station[0], k, word(bpfStation{Slot: 1}))
	}
	s.delete(k)
	if _, at := s.find(k); at != nil {
		t.Errorf("%v is still in", k)
	}
}
