// Package flap finds stations that go back and forth between ports, as they do when
// two have one address or when there is a loop. It does no I/O: moves and the time
// go in, what to make of each comes out. A Detector belongs to one goroutine, and
// remembers a bounded number of stations, however many there are.
package flap

import "time"

const (
	// Window is how long the moves of a station are counted together, and
	// Moves how many of them in it are flapping: a machine that migrates, or
	// roams between access points, moves once or twice.
	Window = 10 * time.Second
	Moves  = 5

	// lines is how many moves of a station are worth a line each in a window.
	lines = 2

	// maxStations bounds what is remembered: a guest can make up addresses.
	maxStations = 1024

	// sweepGap is how often at most the memory is searched for what is over.
	sweepGap = time.Second
)

// Station is a VLAN and an address in it.
type Station struct {
	VLAN uint16
	MAC  uint64
}

// Verdict is what to make of a move.
type Verdict struct {
	Log      bool   // the move is worth a line
	Flapping bool   // with this move the station flaps; told once in a window
	Home     uint16 // the port it was behind before the first move in the window
}

// Detector counts moves by station.
type Detector struct {
	stations map[Station]*history
	swept    time.Time
}

type history struct {
	began time.Time
	moves int
	home  uint16
}

// New makes a detector that has seen nothing.
func New() *Detector { return &Detector{stations: make(map[Station]*history)} }

// Moved tells what to make of the move of a station, which was behind the port
// from. Where too many stations move for all to be remembered, it is nothing.
func (d *Detector) Moved(now time.Time, s Station, from uint16) Verdict {
	h := d.stations[s]
	switch {
	case h == nil:
		if len(d.stations) >= maxStations && !d.sweep(now) {
			return Verdict{}
		}
		h = new(history)
		d.stations[s] = h
		fallthrough
	case now.Sub(h.began) >= Window:
		*h = history{began: now, home: from}
	}
	h.moves++
	return Verdict{Log: h.moves <= lines, Flapping: h.moves == Moves, Home: h.home}
}

// sweep forgets the stations whose window is over, and tells whether there is room
// now.
func (d *Detector) sweep(now time.Time) bool {
	if now.Sub(d.swept) < sweepGap {
		return false
	}
	d.swept = now
	for s, h := range d.stations {
		if now.Sub(h.began) >= Window {
			delete(d.stations, s)
		}
	}
	return len(d.stations) < maxStations
}
