package flap

import (
	"testing"
	"time"
)

var epoch = time.Unix(0, 0)

func TestFlapping(t *testing.T) {
	d, s := New(), Station{VLAN: 1, MAC: 0x525400000001}
	now := epoch
	for i := range 12 {
		v := d.Moved(now, s, uint16(3+i%2))
		want := Verdict{Log: i < lines, Flapping: i == Moves-1, Home: 3}
		if v != want {
			t.Errorf("move %d: %+v, want %+v", i+1, v, want)
		}
		now = now.Add(Window / 12)
	}
	// The next window counts anew; the station is at home where it was.
	now = epoch.Add(Window)
	for i := range Moves {
		if v := d.Moved(now, s, 4); v.Flapping != (i == Moves-1) || v.Home != 3 {
			t.Errorf("move %d of the next window: %+v", i+1, v)
		}
	}
}

// A station is at home where it was first, however an intruder times its frames, until
// it stayed elsewhere for long.
func TestHome(t *testing.T) {
	const victim, intruder = 1, 2
	s := Station{1, 0x525400000001}
	for name, c := range map[string]struct {
		moves []time.Duration // of the station to and fro, the first from its home
		home  uint16
	}{
		"flaps at once":            {[]time.Duration{0, 1, 2, 3, 4}, victim},
		"claims a window's start":  {[]time.Duration{0, 100 * time.Millisecond, Window - 1, Window}, victim},
		"comes again much later":   {[]time.Duration{0, Settled - 1}, victim},
		"one move each Settled -1": {[]time.Duration{0, Settled - 1, 2 * (Settled - 1), 3 * (Settled - 1)}, victim},
		"moved for good":           {[]time.Duration{0, Settled}, intruder},
		"moved for good, and back": {[]time.Duration{0, Settled, 2 * Settled}, victim},
	} {
		d := New()
		var last Verdict
		for i, at := range c.moves {
			last = d.Moved(epoch.Add(at), s, uint16(victim+i%2))
		}
		if last.Home != c.home {
			t.Errorf("%s: home is port %d, want %d", name, last.Home, c.home)
		}
		if n := d.homes[c.home].Len(); n != 1 || len(d.homes) != 1 {
			t.Errorf("%s: %d stations at home there, %d homes", name, n, len(d.homes))
		}
	}
}

// A port that lost its link is nobody's home.
func TestForget(t *testing.T) {
	d, s, other := New(), Station{MAC: 1}, Station{MAC: 2}
	d.Moved(epoch, s, 1)
	d.Moved(epoch, other, 2)
	d.Forget(1)
	d.Forget(7)
	if v := d.Moved(epoch, s, 3); v.Home != 3 {
		t.Errorf("%+v", v)
	}
	if v := d.Moved(epoch, other, 3); v.Home != 2 {
		t.Errorf("%+v", v)
	}
	if len(d.stations) != 2 || len(d.homes) != 2 {
		t.Errorf("%d stations, %d homes", len(d.stations), len(d.homes))
	}
}

func TestSlowMovesDoNotFlap(t *testing.T) {
	d, now := New(), epoch
	for range 50 {
		if v := d.Moved(now, Station{MAC: 1}, 0); v.Flapping || !v.Log {
			t.Fatalf("%+v", v)
		}
		now = now.Add(Window/Moves + Window)
	}
}

func TestStationsAreToldApart(t *testing.T) {
	d := New()
	for i := range Moves - 1 {
		for _, s := range []Station{{1, 7}, {2, 7}, {1, 8}} {
			if v := d.Moved(epoch, s, 0); v.Flapping {
				t.Fatalf("%v flaps after %d moves", s, i+1)
			}
		}
	}
}

// A guest that makes up addresses pushes out its own; others' homes are remembered.
func TestMemoryIsBounded(t *testing.T) {
	const victim, guest, accomplice = 1, 2, 3
	d := New()
	d.Moved(epoch, Station{MAC: 1 << 40}, victim)
	for i := range 3 * maxStations {
		from := uint16(guest)
		if i%3 == 0 {
			from = accomplice
		}
		if v := d.Moved(epoch, Station{MAC: uint64(i)}, from); !v.Log || v.Home != from {
			t.Fatalf("station %d: %+v", i, v)
		}
		if n := len(d.stations); n > maxStations {
			t.Fatalf("%d stations are remembered", n)
		}
	}
	if v := d.Moved(epoch, Station{MAC: 1 << 40}, guest); v.Home != victim {
		t.Errorf("the victim's home is port %d", v.Home)
	}
	// The oldest went, in a port's own share.
	if a, b := d.homes[guest].Len(), d.homes[accomplice].Len(); a+b != maxStations-1 || a < maxStations/3 || b < maxStations/3 {
		t.Errorf("%d and %d stations", a, b)
	}
	newest := d.stations[Station{MAC: 3*maxStations - 1}]
	if newest == nil || d.stations[Station{MAC: 1}] != nil {
		t.Error("the newest is forgotten, or the oldest is not")
	}
	sum := 0
	for _, at := range d.homes {
		sum += at.Len()
	}
	if sum != len(d.stations) {
		t.Errorf("%d stations, of which %d are at home", len(d.stations), sum)
	}
}

// Who makes room for a station: the oldest of its own port if that has its share of the
// memory, else the oldest of the port that has most. Who moved last is not old.
func TestWhoIsForgotten(t *testing.T) {
	const many, few, newcomer = 1, 2, 3
	d := New()
	full := func() { // 4/5 at many, the rest at few
		for i := range 1024 {
			at := uint16(many)
			if i%5 == 4 {
				at = few
			}
			d.Moved(epoch, Station{MAC: uint64(i)}, at)
		}
		if len(d.stations) != 1024 {
			t.Fatalf("%d stations", len(d.stations))
		}
	}
	forgotten := func(want ...uint64) {
		t.Helper()
		for _, mac := range want {
			if d.stations[Station{MAC: mac}] != nil {
				t.Errorf("station %d is remembered", mac)
			}
		}
		if len(d.stations) != 1024 {
			t.Errorf("%d stations are remembered", len(d.stations))
		}
	}
	full()
	d.Moved(epoch, Station{MAC: 0}, newcomer) // it moves again: 1 is the oldest at many now, 4 at few
	d.Moved(epoch, Station{MAC: 1 << 40}, newcomer)
	forgotten(1)
	d.Moved(epoch, Station{MAC: 2 << 40}, few) // fewer than a third: many has to give
	forgotten(1, 2)
	d.Moved(epoch, Station{MAC: 3 << 40}, many)
	forgotten(1, 2, 3)
	if d.stations[Station{MAC: 0}] == nil || d.stations[Station{MAC: 4}] == nil {
		t.Error("others were forgotten")
	}
	// A port with exactly its share gives its own.
	d = New()
	for i := range 1024 {
		d.Moved(epoch, Station{MAC: uint64(i)}, uint16(i%2))
	}
	d.Moved(epoch, Station{MAC: 1 << 40}, 1)
	forgotten(1)
	// So it does though another has more than its share.
	d = New()
	for i := range 1024 {
		at := uint16(few)
		switch {
		case i < 400:
			at = many
		case i >= 400+1024/3:
			at = newcomer
		}
		d.Moved(epoch, Station{MAC: uint64(i)}, at)
	}
	d.Moved(epoch, Station{MAC: 1 << 40}, few)
	forgotten(400)
	if d.stations[Station{MAC: 0}] == nil {
		t.Error("a port that has more lost a station to one that has its share")
	}
}

// The numbers that docs and the log speak of.
func TestNumbers(t *testing.T) {
	d, s := New(), Station{MAC: 1}
	at := func(v time.Duration, from uint16) Verdict { return d.Moved(epoch.Add(v), s, from) }
	for i := range 4 {
		if v := at(time.Duration(i)*time.Second, 1); v.Flapping || v.Log != (i < 2) {
			t.Errorf("move %d: %+v", i+1, v)
		}
	}
	if v := at(10*time.Second-1, 1); !v.Flapping {
		t.Errorf("the fifth move in ten seconds: %+v", v)
	}
	if v := at(10*time.Second, 2); v.Home != 1 || !v.Log {
		t.Errorf("after ten seconds: %+v", v)
	}
	if v := at(310*time.Second-1, 2); v.Home != 1 {
		t.Errorf("in less than five minutes: %+v", v)
	}
	if v := at(610*time.Second-1, 2); v.Home != 2 {
		t.Errorf("after five minutes: %+v", v)
	}
}
