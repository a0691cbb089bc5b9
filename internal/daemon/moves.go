package daemon

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/proto/flap"
	vswitch "github.com/vswitch/vswitch/switch"
)

// moves handles stations that are learned behind another port than before: it logs a limited
// number of them, names those that flap and, if configured, holds these at one port for a
// while.
type moves struct {
	seen  atomic.Uint64 // moves; those that overflow the switch's queue are not reported
	flaps atomic.Uint64 // times a station was found flapping

	mu       sync.Mutex
	detector *flap.Detector // guarded by mu

	lines lineLimit // used by the switch's event goroutine

	// The rest belongs to the manager.
	holdDown atomic.Int64 // a time.Duration; 0: flapping stations are not held
	held     map[fdb.Key]holding
}

// holding is where a station is held, and until when.
type holding struct {
	port  uint16
	until time.Time
}

// maxHeld limits the held stations, since their entries cannot be evicted.
const maxHeld = 1024

func newMoves(holdDown time.Duration) *moves {
	h := &moves{detector: flap.New(), held: make(map[fdb.Key]holding)}
	h.holdDown.Store(int64(holdDown))
	return h
}

// moveBurst lines per moveWindow keep the log readable however many stations move.
const (
	moveBurst  = 20
	moveWindow = 10 * time.Second
)

// moved runs on the switch's event goroutine.
func (m *manager) moved(ev vswitch.MACMoved) {
	m.moves.seen.Add(1)
	for _, f := range *m.heedMoves.Load() {
		f.Moved(ev)
	}
	now, advice := time.Now(), "look for two machines with the address, or for a loop"
	v := m.moves.judge(now, ev)
	if v.Flapping {
		m.moves.flaps.Add(1)
		k := fdb.MakeKey(ev.VLAN, uint64(ev.MAC))
		_ = m.do(func() error {
			m.hold(k, v.Home, now)
			if m.isTransparent(ev.From) && m.isTransparent(ev.To) {
				advice = adviceVLANs
			}
			return nil
		})
	}
	if !v.Log && !v.Flapping {
		return
	}
	ok, skipped := m.moves.lines.allow(now, moveBurst, moveWindow)
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
			"moves", flap.Moves, "within", flap.Window, "held_at", names[v.Home], "hold_down", time.Duration(m.moves.holdDown.Load()), "advice", advice)
		return
	}
	log.Info("MAC moved")
}

// judge classifies a move.
func (h *moves) judge(now time.Time, ev vswitch.MACMoved) flap.Verdict {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.detector.Moved(now, flap.Station{VLAN: ev.VLAN, MAC: uint64(ev.MAC)}, ev.From)
}

// linkDown records that no station is behind the port any more.
func (h *moves) linkDown(p *managed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.detector.Forget(p.sw.Number())
}

// adviceVLANs is for stations behind ports that ignore tags: they merge all VLANs, so a
// router with one address in several VLANs seems to move.
const adviceVLANs = "look for two machines with the address, or for a loop; " +
	"if it is in several VLANs (VRRP, routers), have the ports know them: `vswitch set-port NAME --trunk all --native 1`"

// isTransparent reports whether the port with that number keeps no VLANs apart.
func (m *manager) isTransparent(number uint16) bool {
	for _, p := range m.ports {
		if p.sw.Number() == number {
			return vlanOf(&p.spec.Policy).Mode == "transparent"
		}
	}
	return false
}

// portNames returns the name of each port by number. It may be called from any goroutine.
func (m *manager) portNames() map[uint16]string {
	names := make(map[uint16]string)
	for _, p := range m.sw.Ports() {
		names[p.Number()] = p.Name()
	}
	return names
}

// hold keeps a station at its home port for the hold-down time: its frames on other ports do
// not move it. A port that passes nothing is no home.
func (m *manager) hold(k fdb.Key, number uint16, now time.Time) {
	h := m.moves
	if _, configured := m.static[k]; h.holdDown.Load() == 0 || configured {
		return
	}
	for _, p := range m.ports {
		if p.sw.Number() != number || p.dev == nil || p.state == api.StateDown {
			continue
		}
		if len(h.held) >= maxHeld {
			m.release(h.surplus())
		}
		if m.sw.FDB().Add(k, number, fdb.Sticky) == nil {
			h.held[k] = holding{number, now.Add(time.Duration(h.holdDown.Load()))}
		}
		return
	}
}

// surplus returns the station to release to make room for another. It is at the port that
// holds most, so that a guest with made-up addresses displaces its own.
func (h *moves) surplus() (k fdb.Key) {
	count := make(map[uint16]int)
	for _, at := range h.held {
		count[at.port]++
	}
	most := -1
	for key, at := range h.held {
		if count[at.port] > most {
			k, most = key, count[at.port]
		}
	}
	return k
}

// release stops holding a station. If its entry is gone, or a user replaced it, nothing
// changes.
func (m *manager) release(k fdb.Key) {
	delete(m.moves.held, k)
	_, configured := m.static[k]
	if e, ok := m.sw.FDB().Get(k); ok && e.Kind == fdb.Sticky && !configured {
		_ = m.sw.FDB().Add(k, e.Port, fdb.Dynamic) // it replaces an entry, so there is room
	}
}

// releaseDue releases the stations whose hold-down time is over.
func (m *manager) releaseDue(now time.Time) {
	for k, at := range m.moves.held {
		if !at.until.After(now) {
			m.release(k)
		}
	}
}

// next returns the time until the next station must be released.
func (h *moves) next(now time.Time) time.Duration {
	next := time.Hour
	for _, at := range h.held {
		next = min(next, max(0, at.until.Sub(now)))
	}
	return next
}
