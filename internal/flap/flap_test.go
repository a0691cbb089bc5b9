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
	// The next window starts anew, at the port where the station is now.
	now = epoch.Add(Window)
	for i := range Moves {
		if v := d.Moved(now, s, 4); v.Flapping != (i == Moves-1) || v.Home != 4 {
			t.Errorf("move %d of the next window: %+v", i+1, v)
		}
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

func TestMemoryIsBounded(t *testing.T) {
	d, now := New(), epoch
	for i := range 3 * maxStations {
		v := d.Moved(now, Station{MAC: uint64(i)}, 0)
		if v.Log != (i < maxStations) {
			t.Fatalf("station %d: %+v", i, v)
		}
	}
	if len(d.stations) > maxStations {
		t.Errorf("%d stations are remembered", len(d.stations))
	}
	now = now.Add(Window)
	if v := d.Moved(now, Station{MAC: 1 << 40}, 0); !v.Log {
		t.Errorf("after a window: %+v", v)
	}
	if len(d.stations) != 1 {
		t.Errorf("%d stations are remembered after their window", len(d.stations))
	}
}
