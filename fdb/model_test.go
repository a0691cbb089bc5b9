package fdb

import (
	"errors"
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// model is the table as a plain map: entries stay in it, expired or not, until
// they are reclaimed, because till then they count.
type model struct {
	entries map[Key]modelEntry
	limit   map[uint16]int
	now     time.Duration
	aging   time.Duration // < 0 is never
}

type modelEntry struct {
	port  uint16
	kind  Kind
	stamp time.Duration
}

func newModel(aging time.Duration) *model {
	return &model{entries: map[Key]modelEntry{}, limit: map[uint16]int{}, aging: aging}
}

func (m *model) alive(e modelEntry) bool {
	return !e.kind.ages() || m.aging < 0 || m.now-e.stamp < m.aging
}

func (m *model) get(k Key) (modelEntry, bool) {
	e, ok := m.entries[k]
	return e, ok && m.alive(e)
}

func (m *model) count(port uint16, kinds ...Kind) (n int) {
	for _, e := range m.entries {
		for _, kind := range kinds {
			if e.port == port && e.kind == kind {
				n++
			}
		}
	}
	return n
}

func (m *model) reclaim() (n int) {
	for k, e := range m.entries {
		if !m.alive(e) {
			delete(m.entries, k)
			n++
		}
	}
	return n
}

func (m *model) drop(match func(Key, modelEntry) bool) (n int) {
	for k, e := range m.entries {
		if match(k, e) {
			delete(m.entries, k)
			n++
		}
	}
	return n
}

// learn is Learn in a table that has room.
func (m *model) learn(k Key, port uint16) (Outcome, uint16) {
	if !k.isStation() {
		return Refused, NoPort
	}
	outcome, other := Learned, NoPort
	e, ok := m.get(k)
	switch {
	case !ok:
		delete(m.entries, k)
	case e.port == port:
		e.stamp = m.now
		m.entries[k] = e
		return Known, NoPort
	case e.kind != Dynamic:
		return Pinned, e.port
	default:
		outcome, other = Moved, e.port
	}
	if n := m.limit[port]; n > 0 && m.count(port, Dynamic, Sticky) >= n {
		return Limited, NoPort
	}
	m.entries[k] = modelEntry{port, Dynamic, m.now}
	return outcome, other
}

func (m *model) add(k Key, port uint16, kind Kind) {
	if kind == Local {
		port = NoPort
	}
	m.entries[k] = modelEntry{port, kind, m.now}
}

// What the operations choose from: few enough that they meet each other.
var (
	genKey = rapid.Custom(func(t *rapid.T) Key {
		mac := rapid.SampledFrom([]uint64{0, 0x0100_0000_0001, 2, 3, 4, 5, 6, 7, 8, 9, 0xfeff_ffff_ffff}).Draw(t, "mac")
		return MakeKey(uint16(rapid.IntRange(1, 2).Draw(t, "vlan")), mac)
	})
	genPort = rapid.SampledFrom([]uint16{0, 1, 2, 300, NoPort - 1})
	genKind = rapid.SampledFrom([]Kind{Dynamic, Dynamic, Sticky, Static, Local})
)

// sameEntries reports whether the table gives just what the model has, by each of
// the ways to ask.
func (m *model) sameEntries(t *rapid.T, tbl *Table) {
	want := map[Key]Entry{}
	for k, e := range m.entries {
		if !m.alive(e) {
			if port, ok := tbl.Lookup(k); ok {
				t.Fatalf("Lookup(%v) = %d; it has expired", k, port)
			}
			continue
		}
		w := Entry{Key: k, Port: e.port, Kind: e.kind}
		if e.kind.ages() {
			w.Age = m.now - e.stamp
		}
		want[k] = w
		if port, ok := tbl.Lookup(k); !ok || port != e.port {
			t.Fatalf("Lookup(%v) = %d, %v; want %d", k, port, ok, e.port)
		}
		if got, ok := tbl.Get(k); !ok || got != w {
			t.Fatalf("Get(%v) = %+v, %v; want %+v", k, got, ok, w)
		}
	}
	got := map[Key]Entry{}
	for e := range tbl.All() {
		if _, twice := got[e.Key]; twice {
			t.Fatalf("All gives %v twice", e.Key)
		}
		got[e.Key] = e
	}
	if !maps.Equal(got, want) {
		t.Fatalf("All gives %v; want %v", got, want)
	}
	if tbl.Len() != len(m.entries) {
		t.Fatalf("Len is %d, want %d", tbl.Len(), len(m.entries))
	}
	for _, port := range []uint16{0, 1, 2, 300, NoPort - 1} {
		if got, want := tbl.Count(port), m.count(port, Dynamic, Sticky); got != want {
			t.Fatalf("Count(%d) is %d, want %d", port, got, want)
		}
	}
}

// Random operations of every sort leave the table and the map alike.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(300 * time.Second)
		tbl := New(Config{})
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { m.sameEntries(t, tbl) },
			"Learn": func(t *rapid.T) {
				k, port := genKey.Draw(t, "key"), genPort.Draw(t, "port")
				want, wantOther := m.learn(k, port)
				if o, other := tbl.Learn(k, port); o != want || other != wantOther {
					t.Fatalf("Learn(%v, %d) = %v, %d; want %v, %d", k, port, o, other, want, wantOther)
				}
			},
			"Add": func(t *rapid.T) {
				k, port, kind := genKey.Draw(t, "key"), genPort.Draw(t, "port"), genKind.Draw(t, "kind")
				if err := tbl.Add(k, port, kind); (err == nil) != k.isStation() {
					t.Fatalf("Add(%v, %d, %v): %v", k, port, kind, err)
				}
				if k.isStation() {
					m.add(k, port, kind)
				}
			},
			"Delete": func(t *rapid.T) {
				k := genKey.Draw(t, "key")
				_, want := m.get(k)
				delete(m.entries, k)
				if got := tbl.Delete(k); got != want {
					t.Fatalf("Delete(%v) = %v; want %v", k, got, want)
				}
			},
			"FlushPort": func(t *rapid.T) {
				port := genPort.Draw(t, "port")
				m.drop(func(_ Key, e modelEntry) bool { return e.port == port && e.kind.ages() })
				tbl.FlushPort(port)
			},
			"RemovePort": func(t *rapid.T) {
				port := genPort.Draw(t, "port")
				m.drop(func(_ Key, e modelEntry) bool { return e.port == port })
				delete(m.limit, port)
				tbl.RemovePort(port)
			},
			"FlushVLAN": func(t *rapid.T) {
				vlan := uint16(rapid.IntRange(1, 2).Draw(t, "vlan"))
				want := m.drop(func(k Key, e modelEntry) bool { return k.VLAN() == vlan && e.kind.ages() && m.alive(e) })
				if got := tbl.Flush(func(e Entry) bool { return e.Key.VLAN() == vlan }); got != want {
					t.Fatalf("flushed %d, want %d", got, want)
				}
			},
			"SetLimit": func(t *rapid.T) {
				port, n := genPort.Draw(t, "port"), rapid.IntRange(-1, 4).Draw(t, "n")
				m.limit[port] = n
				tbl.SetLimit(port, n)
			},
			"SetAging": func(t *rapid.T) {
				m.aging = time.Duration(rapid.SampledFrom([]int{-1, 1, 10, 300, 1_000_000}).Draw(t, "seconds")) * time.Second
				tbl.SetAging(m.aging)
			},
			"Advance": func(t *rapid.T) {
				m.now += time.Duration(rapid.SampledFrom([]int{0, 1, 9, 10, 150, 300}).Draw(t, "seconds")) * time.Second
				tbl.Advance(m.now)
			},
			"Sweep": func(*rapid.T) { m.reclaim(); tbl.Sweep(1 << 30) },
			"Rebuild": func(*rapid.T) {
				m.reclaim()
				tbl.rebuildNow()
			},
		})
		m.sameEntries(t, tbl)
		m.reclaim()
		tbl.Sweep(1 << 30)
		m.sameEntries(t, tbl)
	})
}

// At the capacity, each new entry costs one other: an expired one, or a Dynamic one of a port
// that has the most of them, the new one's own port if that is among these. Nothing
// else is ever lost, and it fails only when there is neither.
func TestModelEviction(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		capacity := rapid.IntRange(1, 8).Draw(t, "capacity")
		aging := time.Duration(rapid.SampledFrom([]int{-1, 10}).Draw(t, "aging")) * time.Second
		m := newModel(aging)
		tbl := New(Config{Capacity: capacity, Aging: aging})

		// insert makes room in the model as the table did and reports whether
		// there should have been any.
		insert := func(t *rapid.T, k Key, port uint16) bool {
			if _, ok := m.entries[k]; ok || len(m.entries) < capacity {
				return true
			}
			most, expired := 0, 0
			for _, e := range m.entries {
				most = max(most, m.count(e.port, Dynamic))
				if !m.alive(e) {
					expired++
				}
			}
			if most == 0 && expired == 0 {
				return false
			}
			var lost []Key
			for k := range m.entries {
				if !tbl.holds(k) {
					lost = append(lost, k)
				}
			}
			if len(lost) != 1 {
				t.Fatalf("%d entries went for one", len(lost))
			}
			e := m.entries[lost[0]]
			switch {
			case !m.alive(e):
			case e.kind != Dynamic || m.count(e.port, Dynamic) != most:
				t.Fatalf("%v went: %+v", lost[0], e)
			case e.port != port && m.count(port, Dynamic) == most:
				t.Fatalf("%v of port %d went, but port %d has as many", lost[0], e.port, port)
			}
			delete(m.entries, lost[0])
			return true
		}

		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { m.sameEntries(t, tbl) },
			"Learn": func(t *rapid.T) {
				k, port := genKey.Filter(Key.isStation).Draw(t, "key"), genPort.Draw(t, "port")
				o, other := tbl.Learn(k, port)
				want, wantOther := Full, NoPort
				if insert(t, k, port) {
					want, wantOther = m.learn(k, port)
				}
				if o != want || other != wantOther {
					t.Fatalf("Learn(%v, %d) = %v, %d; want %v, %d", k, port, o, other, want, wantOther)
				}
			},
			"Add": func(t *rapid.T) {
				k, port := genKey.Filter(Key.isStation).Draw(t, "key"), genPort.Draw(t, "port")
				kind := genKind.Draw(t, "kind")
				err := tbl.Add(k, port, kind)
				if kind == Local {
					port = NoPort
				}
				if insert(t, k, port) {
					m.add(k, port, kind)
				} else if !errors.Is(err, ErrFull) {
					t.Fatalf("Add(%v): %v", k, err)
				}
			},
			"Delete": func(t *rapid.T) {
				k := genKey.Draw(t, "key")
				delete(m.entries, k)
				tbl.Delete(k)
			},
			"Advance": func(t *rapid.T) {
				m.now += time.Duration(rapid.SampledFrom([]int{1, 9, 10}).Draw(t, "seconds")) * time.Second
				tbl.Advance(m.now)
			},
			"FlushPort": func(t *rapid.T) {
				port := genPort.Draw(t, "port")
				m.drop(func(_ Key, e modelEntry) bool { return e.port == port && e.kind.ages() })
				tbl.FlushPort(port)
			},
		})
	})
}

// holds reports whether k has an entry that counts, expired or not.
func (t *Table) holds(k Key) bool {
	s := t.array.Load().find(k)
	return s != nil && t.isCurrent(s.load())
}
