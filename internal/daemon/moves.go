package daemon

import (
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/flap"
	vswitch "github.com/vswitch/vswitch/switch"
)

// moves looks after stations that were learned behind another port than before:
// it logs them within bounds, names those that flap, and holds these at one port
// for a while where that was asked for.
type moves struct {
	seen  atomic.Uint64 // moves; those beyond the switch's backlog are not reported
	flaps atomic.Uint64 // times that a station was found flapping

	// Of the switch's event goroutine.
	detector *flap.Detector
	lines    moveLog

	// Of the manager's.
	holdDown time.Duration // 0: flapping stations are not held
	held     map[fdb.Key]time.Time
}

// maxHeld bounds the stations that are held: their entries cannot be evicted.
const maxHeld = 1024

func newMoves(holdDown time.Duration) *moves {
	return &moves{detector: flap.New(), holdDown: holdDown, held: make(map[fdb.Key]time.Time)}
}

// moveBurst lines a moveWindow leave the log readable however many stations move.
const (
	moveBurst  = 20
	moveWindow = 10 * time.Second
)

// moveLog bounds how many MAC moves are logged.
type moveLog struct {
	began   time.Time
	shown   int
	skipped int
}

// allow tells whether a line at now may be logged, and how many were left out in
// the window before.
func (l *moveLog) allow(now time.Time) (ok bool, skipped int) {
	if now.Sub(l.began) >= moveWindow {
		skipped = l.skipped
		*l = moveLog{began: now}
	}
	if l.shown == moveBurst {
		l.skipped++
		return false, skipped
	}
	l.shown++
	return true, skipped
}

// moved is called on the switch's event goroutine.
func (m *manager) moved(ev vswitch.MACMoved) {
	m.moves.seen.Add(1)
	now := time.Now()
	v := m.moves.detector.Moved(now, flap.Station{VLAN: ev.VLAN, MAC: uint64(ev.MAC)}, ev.From)
	if v.Flapping {
		m.moves.flaps.Add(1)
		k := fdb.MakeKey(ev.VLAN, uint64(ev.MAC))
		_ = m.do(func() error { m.hold(k, v.Home, now); return nil })
	}
	if !v.Log && !v.Flapping {
		return
	}
	ok, skipped := m.moves.lines.allow(now)
	if skipped > 0 {
		m.log.Warn("more MAC moves than are logged", "left_out", skipped)
	}
	if !ok {
		return
	}
	names := m.portNames()
	log := m.log.With("mac", ev.MAC, "vlan", ev.VLAN, "from", names[ev.From], "to", names[ev.To])
	if v.Flapping {
		log.Warn("station flaps between two ports: they have one address, or there is a loop",
			"moves", flap.Moves, "within", flap.Window, "held_at", names[v.Home], "hold_down", m.moves.holdDown)
		return
	}
	log.Info("MAC moved")
}

// portNames has the name of each port by its number. Any goroutine may call it.
func (m *manager) portNames() map[uint16]string {
	names := make(map[uint16]string)
	for _, p := range m.sw.Ports() {
		names[p.Number()] = p.Name()
	}
	return names
}

// hold keeps a station at a port: frames that come from it by others do not move
// it for the time of hold-down.
func (m *manager) hold(k fdb.Key, number uint16, now time.Time) {
	h := m.moves
	_, configured := m.static[k]
	if h.holdDown == 0 || configured || len(h.held) >= maxHeld {
		return
	}
	for _, p := range m.ports {
		if p.sw.Number() == number {
			if m.sw.FDB().Add(k, number, fdb.Sticky) == nil {
				h.held[k] = now.Add(h.holdDown)
			}
			return
		}
	}
}

// releaseDue lets the stations go whose time of hold-down is over. An entry that
// went meanwhile, or that a user made another, stays as it is.
func (m *manager) releaseDue(now time.Time) {
	for k, until := range m.moves.held {
		if until.After(now) {
			continue
		}
		delete(m.moves.held, k)
		_, configured := m.static[k]
		if e, ok := m.sw.FDB().Get(k); ok && e.Kind == fdb.Sticky && !configured {
			// It replaces an entry, so there is room.
			_ = m.sw.FDB().Add(k, e.Port, fdb.Dynamic)
		}
	}
}

// next is how long until a station is due to be let go.
func (h *moves) next(now time.Time) time.Duration {
	next := time.Hour
	for _, until := range h.held {
		next = min(next, max(0, until.Sub(now)))
	}
	return next
}
