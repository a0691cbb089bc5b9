// Package flap detects stations that go back and forth between ports, as they do when
// two share one address or when there is a loop. It does no I/O: moves and the time go
// in, a verdict on each comes out. A Detector belongs to one goroutine and remembers a
// bounded number of stations.
package flap

import (
	"container/list"
	"time"
)

const (
	// Window is the time over which a station's moves are counted, and Moves the number
	// within it that counts as flapping: a machine that migrates, or roams between
	// access points, moves once or twice.
	Window = 10 * time.Second
	Moves  = 5

	// Settled is how long a station must stay behind a port, without a move, to be at
	// home there: as long as a bridge remembers a silent station (802.1Q-2018 table
	// 8-6). Until then it keeps its old home, so nobody gets an address by claiming it
	// at the right moment.
	Settled = 300 * time.Second

	// lines is the number of a station's moves per window that are logged one by one.
	lines = 2

	// maxStations bounds the stations remembered, since a guest can make up addresses.
	// Beyond it, the port that is home to the most stations loses its oldest.
	maxStations = 1024
)

// Station is a VLAN and an address in it.
type Station struct {
	VLAN uint16
	MAC  uint64
}

// Verdict is what to do about a move.
type Verdict struct {
	Log      bool   // the move is worth a line
	Flapping bool   // the station flaps since this move; set once per window
	Home     uint16 // the port where it was Settled, or first seen
}

// Detector counts moves by station.
type Detector struct {
	stations map[Station]*history
	homes    map[uint16]*list.List // of *history by home, the one that moved last at the back
}

type history struct {
	station Station
	began   time.Time // the window
	moved   time.Time // last
	moves   int       // in the window
	home    uint16
	at      *list.Element // of homes[home]
}

// New returns a detector that has seen nothing.
func New() *Detector {
	return &Detector{stations: make(map[Station]*history), homes: make(map[uint16]*list.List)}
}

// Moved returns the verdict on a station's move away from the port from.
func (d *Detector) Moved(now time.Time, s Station, from uint16) Verdict {
	h := d.stations[s]
	switch {
	case h == nil:
		if len(d.stations) >= maxStations {
			d.drop(d.oldest(from))
		}
		h = &history{station: s, began: now}
		d.stations[s] = h
		d.settle(h, from)
	case now.Sub(h.moved) >= Settled && h.home != from:
		d.leave(h)
		d.settle(h, from)
	default:
		d.homes[h.home].MoveToBack(h.at)
	}
	if now.Sub(h.began) >= Window {
		h.began, h.moves = now, 0
	}
	h.moved = now
	h.moves++
	return Verdict{Log: h.moves <= lines, Flapping: h.moves == Moves, Home: h.home}
}

// Forget ends the home of every station behind a port: its link went down, so they may
// appear elsewhere.
func (d *Detector) Forget(port uint16) {
	if at := d.homes[port]; at != nil {
		for e := at.Front(); e != nil; e = e.Next() {
			delete(d.stations, e.Value.(*history).station)
		}
		delete(d.homes, port)
	}
}

// settle makes a port the home of h.
func (d *Detector) settle(h *history, port uint16) {
	at := d.homes[port]
	if at == nil {
		at = list.New()
		d.homes[port] = at
	}
	h.home, h.at = port, at.PushBack(h)
}

// leave removes h from its home.
func (d *Detector) leave(h *history) {
	at := d.homes[h.home]
	if at.Remove(h.at); at.Len() == 0 {
		delete(d.homes, h.home)
	}
}

func (d *Detector) drop(h *history) {
	d.leave(h)
	delete(d.stations, h.station)
}

// oldest returns the station to evict for a new one behind a port: the oldest of that
// port if it has its share, otherwise of the port that has the most.
func (d *Detector) oldest(port uint16) *history {
	most := d.homes[port]
	if most == nil || most.Len() < maxStations/len(d.homes) {
		for _, at := range d.homes {
			if most == nil || at.Len() > most.Len() {
				most = at
			}
		}
	}
	return most.Front().Value.(*history)
}
