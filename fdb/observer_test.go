package fdb

import (
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// copier keeps a copy of a table by what it is told, as its users do: a key that
// changed is looked up, a port's flush takes the port's entries.
type copier struct {
	table *Table
	port  map[Key]uint16
	kind  map[Key]Kind
}

func (c *copier) Changed(k Key) {
	if k == 0 {
		panic("a slot that is no station's has changed")
	}
	if e, ok := c.table.Get(k); ok {
		c.port[k], c.kind[k] = e.Port, e.Kind
		return
	}
	delete(c.port, k)
	delete(c.kind, k)
}

func (c *copier) Flushed(port uint16) {
	maps.DeleteFunc(c.port, func(k Key, at uint16) bool { return at == port && c.kind[k].ages() })
}

// Whatever is done to a table, its observer's copy is the table, but for entries that
// have expired and were not reclaimed yet.
func TestObserverSeesAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const keys, ports = 40, 4
		c := &copier{port: map[Key]uint16{}, kind: map[Key]Kind{}}
		tbl := New(Config{Capacity: 24, Aging: 5 * time.Second, Observer: c})
		c.table = tbl
		var now time.Duration
		key := func(t *rapid.T) Key { return station(rapid.IntRange(0, keys-1).Draw(t, "station")) }
		port := func(t *rapid.T) uint16 { return uint16(rapid.IntRange(0, ports-1).Draw(t, "port")) }
		t.Repeat(map[string]func(*rapid.T){
			"learn": func(t *rapid.T) { tbl.Learn(key(t), port(t)) },
			"heard": func(t *rapid.T) {
				tbl.Heard(key(t), port(t), time.Duration(rapid.IntRange(0, 6).Draw(t, "ago"))*time.Second)
			},
			"add": func(t *rapid.T) {
				_ = tbl.Add(key(t), port(t), Kind(rapid.IntRange(int(Dynamic), int(Static)).Draw(t, "kind")))
			},
			"delete":  func(t *rapid.T) { tbl.Delete(key(t)) },
			"flush":   func(t *rapid.T) { p := port(t); tbl.Flush(func(e Entry) bool { return e.Port == p }) },
			"port":    func(t *rapid.T) { tbl.FlushPort(port(t)) },
			"remove":  func(t *rapid.T) { tbl.RemovePort(port(t)) },
			"limit":   func(t *rapid.T) { tbl.SetLimit(port(t), rapid.IntRange(0, 8).Draw(t, "limit")) },
			"sweep":   func(t *rapid.T) { tbl.Sweep(1 << 20) },
			"rebuild": func(t *rapid.T) { tbl.rebuildNow() },
			"time": func(t *rapid.T) {
				now += time.Duration(rapid.IntRange(0, 3).Draw(t, "seconds")) * time.Second
				tbl.Advance(now)
			},
			"": func(t *rapid.T) {
				for e := range tbl.All() {
					if at, ok := c.port[e.Key]; !ok || at != e.Port || c.kind[e.Key] != e.Kind {
						t.Fatalf("%+v: the copy has port %d (%v), kind %v", e, at, ok, c.kind[e.Key])
					}
				}
				for k, at := range c.port {
					s := tbl.array.Load().find(k)
					if s == nil || s.load().kind() == 0 || s.load().port() != at {
						t.Fatalf("%v: the copy has it at port %d, the table reclaimed it", k, at)
					}
				}
			},
		})
	})
}

// An entry that somebody else heard stays, is as old as when it was heard, and is
// neither made, nor moved, nor made older.
func TestHeard(t *testing.T) {
	tbl := New(Config{Aging: 10 * time.Second})
	k := station(1)
	if tbl.Heard(k, 1, 0) {
		t.Error("heard a station that is not there")
	}
	wantLearn(t, tbl, k, 1, Learned, NoPort)
	mustAdd(t, tbl, station(2), 1, Static)
	age := func() time.Duration { e, _ := tbl.Get(k); return e.Age }

	tbl.Advance(8 * time.Second)
	for _, c := range []struct {
		port uint16
		ago  time.Duration
		ok   bool
		age  time.Duration
	}{
		{2, 0, false, 8 * time.Second}, // another port's
		{1, 9 * time.Second, true, 8 * time.Second},
		{1, 3 * time.Second, true, 3 * time.Second},
		{1, 5 * time.Second, true, 3 * time.Second},
	} {
		if ok := tbl.Heard(k, c.port, c.ago); ok != c.ok || age() != c.age {
			t.Errorf("heard at %d %v ago: %v, age %v; want %v, %v", c.port, c.ago, ok, age(), c.ok, c.age)
		}
	}
	if !tbl.Heard(station(2), 1, 0) {
		t.Error("a static station was not found")
	}

	tbl.Advance(15 * time.Second) // 10 s old
	wantGone(t, tbl, k)
	if tbl.Heard(k, 1, 10*time.Second) {
		t.Error("heard as long ago as the ageing time, and there again")
	}
	if !tbl.Heard(k, 1, 2*time.Second) || age() != 2*time.Second {
		t.Errorf("heard before it was reclaimed: age %v, want 2 s", age())
	}
	tbl.FlushPort(1)
	if tbl.Heard(k, 1, 0) {
		t.Error("heard a station that was flushed")
	}
	check(t, tbl)
}
