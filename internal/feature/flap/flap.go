// Package flap names stations that go back and forth between ports, as two with one address
// do, or one in a loop; if configured, it holds them at one port for a while. Every move is
// logged, within the limits of the log. internal/proto/flap judges the moves.
package flap

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/proto/flap"
	"github.com/vswitch/vswitch/internal/setting"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Settings are the settings of the switch.
type Settings struct {
	HoldDown setting.OrNone `json:"hold_down,omitzero" arg:"TIME" default:"0s" help:"hold a station that flaps between ports at its home port for this long; 0 for not at all"`
}

// minHoldDown is the shortest hold-down time: a flap is several moves within some seconds.
const minHoldDown = time.Second

// Check returns what is wrong with the settings and how to fix it.
func (s Settings) Check() error {
	if d := time.Duration(s.HoldDown); d != 0 && d < minHoldDown {
		return fmt.Errorf("a hold-down time of %v is not possible; use %v or more, or 0 for not at all", d, minHoldDown)
	}
	return nil
}

// Feature describes the guard against stations that flap.
var Feature = feature.Feature{
	Name:   "flap",
	Help:   "name stations that go back and forth between ports",
	Switch: Settings{},
	New: func(h feature.Host, s any) (feature.Instance, error) {
		g := &guard{host: h, detector: flap.New(), held: make(map[fdb.Key]holding), cancel: func() {}}
		return g, g.Set(s)
	},
}

// guard watches the moves of a switch.
type guard struct {
	host  feature.Host
	moves atomic.Uint64 // those that overflow the switch's queue are not reported
	flaps atomic.Uint64 // times a station was found flapping

	mu       sync.Mutex
	detector *flap.Detector // guarded by mu

	// The rest belongs to the daemon's turn.
	holdDown time.Duration // 0: stations are not held
	held     map[fdb.Key]holding
	cancel   func() // the next release
}

// holding is where a station is held, and until when.
type holding struct {
	port  uint16
	until time.Time
}

// maxHeld limits the held stations, since their entries cannot be evicted.
const maxHeld = 1024

// Stop implements feature.Instance.
func (g *guard) Stop() {
	g.cancel()
	for k := range g.held {
		g.release(k)
	}
}

// Set implements feature.Settable: what is known of the stations stays.
func (g *guard) Set(s any) error {
	g.holdDown = time.Duration(s.(Settings).HoldDown)
	return nil
}

// Describe implements feature.Described.
func (g *guard) Describe(s *api.Switch) {
	s.FDB.Moves, s.FDB.Flaps, s.FDB.Held = g.moves.Load(), g.flaps.Load(), len(g.held)
	s.HoldDownS = g.holdDown.Seconds()
}

// Linked implements feature.Linked: no station is behind a port that went down.
func (g *guard) Linked(p feature.Port, up bool) {
	if !up {
		g.Removed(p)
	}
}

// Removed implements feature.Removed.
func (g *guard) Removed(p feature.Port) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.detector.Forget(p.Number())
}

// What to look for. Ports that ignore tags merge all VLANs, so a router with one address in
// several VLANs seems to move.
const (
	advice      = "look for two machines with the address, or for a loop"
	adviceVLANs = advice + "; if it is in several VLANs (VRRP, routers), have the ports know them: `vswitch set-port NAME --trunk all --native 1`"
)

// Moved implements feature.Moved.
func (g *guard) Moved(ev vswitch.MACMoved) {
	g.moves.Add(1)
	now := time.Now()
	v := g.judge(now, ev)
	if v.Flapping {
		g.flaps.Add(1)
	}
	if !v.Flapping && !v.Log {
		return
	}
	g.host.Do(func() {
		told := api.Event{Type: api.EventFDBMoved, Port: g.name(ev.To), From: g.name(ev.From), MAC: ev.MAC, VLAN: ev.VLAN}
		log := g.host.Log().With("mac", ev.MAC, "vlan", ev.VLAN, "from", g.name(ev.From), "to", g.name(ev.To))
		if !v.Flapping {
			log.Info("MAC moved")
			g.host.Emit(told)
			return
		}
		g.hold(fdb.MakeKey(ev.VLAN, uint64(ev.MAC)), v.Home, now)
		what := advice
		if g.transparent(ev.From) && g.transparent(ev.To) {
			what = adviceVLANs
		}
		told.Type, told.Reason = api.EventFDBFlapping, what
		g.host.Emit(told)
		log.Warn("station flaps between two ports: they have one address, or there is a loop",
			"moves", flap.Moves, "within", flap.Window, "held_at", g.name(v.Home), "hold_down", g.holdDown, "advice", what)
	})
}

// judge classifies a move.
func (g *guard) judge(now time.Time, ev vswitch.MACMoved) flap.Verdict {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.detector.Moved(now, flap.Station{VLAN: ev.VLAN, MAC: uint64(ev.MAC)}, ev.From)
}

// name returns the name of the port with that number.
func (g *guard) name(number uint16) string {
	if p := g.host.Port(number); p != nil {
		return p.Name()
	}
	return ""
}

// transparent reports whether the port with that number keeps no VLANs apart.
func (g *guard) transparent(number uint16) bool {
	p := g.host.Port(number)
	return p != nil && p.Policy().Transparent() && p.Policy().QinQ == 0
}

// hold keeps a station at its home port for the hold-down time: its frames on other ports do
// not move it. A port that passes nothing is no home, and an entry that a user added stays.
func (g *guard) hold(k fdb.Key, number uint16, now time.Time) {
	p := g.host.Port(number)
	if g.holdDown == 0 || g.host.Pinned(k) || p == nil || !p.Passes() {
		return
	}
	if len(g.held) >= maxHeld {
		g.release(g.surplus())
	}
	if g.host.Switch().FDB().Add(k, number, fdb.Sticky) != nil {
		return
	}
	g.held[k] = holding{number, now.Add(g.holdDown)}
	g.schedule(now)
}

// surplus returns the station to release to make room for another. It is at the port that
// holds most, so that a guest with made-up addresses displaces its own.
func (g *guard) surplus() (k fdb.Key) {
	count := make(map[uint16]int)
	for _, at := range g.held {
		count[at.port]++
	}
	most := -1
	for key, at := range g.held {
		if count[at.port] > most {
			k, most = key, count[at.port]
		}
	}
	return k
}

// release stops holding a station. If its entry is gone, or a user replaced it, nothing
// changes.
func (g *guard) release(k fdb.Key) {
	delete(g.held, k)
	table := g.host.Switch().FDB()
	if e, ok := table.Get(k); ok && e.Kind == fdb.Sticky && !g.host.Pinned(k) {
		_ = table.Add(k, e.Port, fdb.Dynamic) // it replaces an entry, so there is room
	}
}

// schedule has releaseDue called when the first hold-down time is over.
func (g *guard) schedule(now time.Time) {
	g.cancel()
	g.cancel = func() {}
	if len(g.held) == 0 {
		return
	}
	next := time.Hour
	for _, at := range g.held {
		next = min(next, max(0, at.until.Sub(now)))
	}
	g.cancel = g.host.After(next, g.releaseDue)
}

// releaseDue releases the stations whose hold-down time is over.
func (g *guard) releaseDue() {
	now := time.Now()
	for k, at := range g.held {
		if !at.until.After(now) {
			g.release(k)
		}
	}
	g.schedule(now)
}
