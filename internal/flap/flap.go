// Package flap finds stations that go back and forth between ports, as they do when
// two have one address or when there is a loop. It does no I/O: moves and the time
// go in, what to make of each comes out. A Detector belongs to one goroutine, and
// remembers a bounded number of stations, however many there are.
package flap

import (
	"container/list"
	"time"
)

const (
	// Window is how long the moves of a station are counted together, and
	// Moves how many of them in it are flapping: a machine that migrates, or
	// roams between access points, moves once or twice.
	Window = 10 * time.Second
	Moves  = 5

	// Settled is how long a station must stay behind a port, without a move, to be
	// at home there: as long as a bridge remembers a station that is silent
	// (802.1Q-2018 table 8-6). Until then it is at home where it was, so nobody
	// gets an address by claiming it at the right moment.
	Settled = 300 * time.Second

	// lines is how many moves of a station are worth a line each in a window.
	lines = 2

	// maxStations bounds what is remembered: a guest can make up addresses. Beyond
	// it the port that most stations are at home at loses its oldest.
	maxStations = 1024
)

// Station is a VLAN and an address in it.
type Station struct {
	VLAN uint16
	MAC  uint64
}

// Verdict is what to make of a move.
type Verdict struct {
	Log      bool   // the move is worth a line
	Flapping bool   // with this move the station flaps; said once in a window
	Home     uint16 // the port where it was Settled, or was seen first
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

// New makes a detector that has seen nothing.
func New() *Detector {
	return &Detector{stations: make(map[Station]*history), homes: make(map[uint16]*list.List)}
}

// Moved returns what to make of the move of a station, which was behind the port
// from.
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

// Forget says that no station is at home behind a port any more: its link went down, so
// they may come up elsewhere.
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

// leave takes h from its home.
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

// oldest returns what makes room for a station at home behind a port: the oldest of that
// port if it has its share, else of the port that has most.
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
