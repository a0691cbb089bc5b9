// Package featuretest has a daemon for tests of features: ports in a real switch core, and
// none of the daemon's other parts. Only tests import it. What a feature does with the real
// daemon is for tests through the binary.
package featuretest

import (
	"bytes"
	"iter"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Host is a feature.Host. Its calls hold a lock, as the daemon's hold the turn; a test calls
// the feature in Do.
type Host struct {
	core *vswitch.Switch

	mu     sync.Mutex
	ports  []*Port
	saved  int
	punted func(feature.Port, vswitch.ControlFrame)

	log   *slog.Logger
	lines lines

	telling sync.Mutex
	events  []api.Event // guarded by telling
}

// lines are what was logged. Any goroutine may log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.text.Reset()
	return l.text.String()
}

var _ feature.Host = (*Host)(nil)

// New returns a host without ports, which ends with the test.
func New(t testing.TB) *Host {
	h := &Host{}
	h.log = slog.New(slog.NewTextHandler(&h.lines, nil))
	h.core = vswitch.New(vswitch.Config{OnControl: h.control})
	t.Cleanup(func() { _ = h.core.Close() })
	return h
}

// Punted sets who receives the frames that the core takes out of forwarding.
func (h *Host) Punted(f func(feature.Port, vswitch.ControlFrame)) { h.Do(func() { h.punted = f }) }

func (h *Host) control(c vswitch.ControlFrame) {
	h.Do(func() {
		if h.punted != nil {
			h.punted(h.Port(c.Port.Number()), c)
		}
	})
}

// Add adds a port that passes frames.
func (h *Host) Add(t testing.TB, spec port.Spec, station bool) *Port {
	t.Helper()
	core, err := h.core.AddPort(spec.Name)
	if err != nil {
		t.Fatal(err)
	}
	p := &Port{core: core, spec: spec, station: station}
	h.ports = append(h.ports, p)
	return p
}

// Saves returns how often Save was called.
func (h *Host) Saves() int { return h.saved }

// Log implements feature.Host.
func (h *Host) Log() *slog.Logger { return h.log }

// Logged returns what was logged since it was last called.
func (h *Host) Logged() string {
	return h.lines.take()
}

// MAC implements feature.Host.
func (h *Host) MAC() port.MAC { return 0x0200_0000_0001 }

// Switch implements feature.Host.
func (h *Host) Switch() *vswitch.Switch { return h.core }

// Ports implements feature.Host.
func (h *Host) Ports() iter.Seq[feature.Port] {
	return func(yield func(feature.Port) bool) {
		for _, p := range slices.Clone(h.ports) {
			if !yield(p) {
				return
			}
		}
	}
}

// Port implements feature.Host.
func (h *Host) Port(number uint16) feature.Port {
	for _, p := range h.ports {
		if p.Number() == number {
			return p
		}
	}
	return nil
}

// StationMAC implements feature.Host.
func (h *Host) StationMAC(p feature.Port) port.MAC { return 0x5254_0000_0000 | port.MAC(p.Number()) }

// Speak implements feature.Host.
func (h *Host) Speak(vlan uint16) {
	_ = h.Switch().FDB().Add(fdb.MakeKey(vlan, uint64(h.MAC())), fdb.NoPort, fdb.Local)
}

// Pinned implements feature.Host.
func (h *Host) Pinned(k fdb.Key) bool {
	e, ok := h.core.FDB().Get(k)
	return ok && e.Kind == fdb.Static
}

// Forget implements feature.Host.
func (h *Host) Forget(p feature.Port) { h.core.FDB().FlushPort(p.Number()) }

// TellTopology implements feature.Host.
func (h *Host) TellTopology() {}

// Why implements feature.Host: there are no other features.
func (h *Host) Why(feature.Port, port.Drop) string { return "" }

// After implements feature.Host.
func (h *Host) After(d time.Duration, f func()) (stop func()) {
	stopped := false
	t := time.AfterFunc(d, func() {
		h.Do(func() {
			if !stopped {
				f()
			}
		})
	})
	return func() { stopped = true; t.Stop() }
}

// Do implements feature.Host.
func (h *Host) Do(f func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	return true
}

// Save implements feature.Host.
func (h *Host) Save() { h.saved++ }

// Emit implements feature.Host.
func (h *Host) Emit(e api.Event) {
	h.telling.Lock()
	defer h.telling.Unlock()
	h.events = append(h.events, e)
}

// Events returns what was emitted.
func (h *Host) Events() []api.Event {
	h.telling.Lock()
	defer h.telling.Unlock()
	return slices.Clone(h.events)
}

// API implements feature.Host: there are no calls.
func (h *Host) API() http.Handler { return http.NotFoundHandler() }

// Collect implements feature.Host: it has nothing to report.
func (h *Host) Collect(feature.Add) {}

// Distributions implements feature.Host: there are none.
func (h *Host) Distributions(feature.AddDistribution) {}

// Shut implements feature.Host.
func (h *Host) Shut(p feature.Port, why string) { p.(*Port).Why = why }

// Port is a feature.Port.
type Port struct {
	Why       string   // why it was shut down; empty: it was not
	Blocked   bool     // it passes no frames
	LinkSpeed uint64   // what Speed returns
	OwnMAC    port.MAC // what Own returns

	core    *vswitch.Port
	spec    port.Spec
	station bool
}

// Name implements feature.Port.
func (p *Port) Name() string { return p.spec.Name }

// Number implements feature.Port.
func (p *Port) Number() uint16 { return p.core.Number() }

// Spec implements feature.Port.
func (p *Port) Spec() *port.Spec { return &p.spec }

// Policy implements feature.Port.
func (p *Port) Policy() *port.Policy { return &p.spec.Policy }

// VLANs implements feature.Port.
func (p *Port) VLANs() (s port.VLANSet) { s.Add(port.DefaultVLAN); return s }

// Speed implements feature.Port.
func (p *Port) Speed() uint64 { return p.LinkSpeed }

// Kind implements feature.Port.
func (p *Port) Kind() port.Description { return port.Description{Station: p.station} }

// Up implements feature.Port.
func (p *Port) Up() bool { return true }

// Passes implements feature.Port.
func (p *Port) Passes() bool { return !p.Blocked }

// Disabled implements feature.Port.
func (p *Port) Disabled() bool { return p.Why != "" }

// MTU implements feature.Port.
func (p *Port) MTU() int { return 1500 }

// Station implements feature.Port.
func (p *Port) Station() bool { return p.station }

// Own implements feature.Port.
func (p *Port) Own() port.MAC { return p.OwnMAC }

// Core implements feature.Port.
func (p *Port) Core() *vswitch.Port { return p.core }
