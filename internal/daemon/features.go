package daemon

import (
	"iter"
	"log/slog"
	"reflect"
	"slices"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// hosted is a feature of the program and its running instance.
type hosted struct {
	feature.Feature
	instance feature.Instance // nil: off
}

// instances yields the running instances that have an ability.
func instances[A any](m *manager) iter.Seq[A] {
	return func(yield func(A) bool) {
		for _, h := range m.hosted {
			if a, ok := h.instance.(A); ok && !yield(a) {
				return
			}
		}
	}
}

// setFeatures starts and stops features as their settings change.
func (m *manager) setFeatures(from, to []any) error {
	var failed error
	changed := false
	for i, h := range m.hosted {
		if h.instance != nil == h.On(to[i]) && reflect.DeepEqual(from[i], to[i]) {
			continue
		}
		changed = true
		if h.instance != nil {
			h.instance.Stop()
			h.instance = nil
		}
		if !h.On(to[i]) {
			continue
		}
		instance, err := h.New(host{m}, to[i])
		if err != nil {
			failed = err
			continue
		}
		h.instance = instance
		m.ownStation()
		for _, p := range m.sorted() {
			tellConfigured(instance, p)
		}
		m.upPorts(func(p *managed) { tellLinked(instance, p, true) })
	}
	if changed {
		m.sw.SetTraps(m.traps())
		m.shareMoves()
	}
	return failed
}

// shareMoves gives the switch's event goroutine the features that receive moves.
func (m *manager) shareMoves() {
	all := slices.Collect(instances[feature.Moved](m))
	m.heedMoves.Store(&all)
}

// traps returns the traps of all features.
func (m *manager) traps() (all []vswitch.Trap) {
	for f := range instances[feature.Framed](m) {
		all = append(all, f.Traps()...)
	}
	return all
}

// receive passes a frame to the feature whose trap matched it.
func (m *manager) receive(p *managed, f vswitch.ControlFrame) {
	dst := port.MACFrom(f.Data)
	for i := range instances[feature.Framed](m) {
		for _, t := range i.Traps() {
			if t.Dst == dst && t.Queue == f.Queue {
				i.Receive(p, f)
				return
			}
		}
	}
}

func (m *manager) stopFeatures() {
	for _, h := range m.hosted {
		if h.instance != nil {
			h.instance.Stop()
		}
	}
}

func tellConfigured(i any, p *managed) {
	if c, ok := i.(feature.Configured); ok {
		c.Configured(p)
	}
}

func tellLinked(i any, p *managed, up bool) {
	if l, ok := i.(feature.Linked); ok {
		l.Linked(p, up)
	}
}

// host is the manager as features see it.
type host struct{ m *manager }

var _ feature.Host = host{}

func (h host) Log() *slog.Logger               { return h.m.log }
func (h host) MAC() port.MAC                   { return h.m.mac }
func (h host) Switch() *vswitch.Switch         { return h.m.sw }
func (h host) Tree() bool                      { return h.m.tree != nil }
func (h host) Shut(p feature.Port, why string) { h.m.shut(p.(*managed), why) }

// Ports implements feature.Host.
func (h host) Ports() iter.Seq[feature.Port] {
	return func(yield func(feature.Port) bool) {
		for _, p := range h.m.sorted() {
			if !yield(p) {
				return
			}
		}
	}
}

// Port implements feature.Host.
func (h host) Port(number uint16) feature.Port {
	for _, p := range h.m.ports {
		if p.sw.Number() == number {
			return p
		}
	}
	return nil
}

// After implements feature.Host.
func (h host) After(d time.Duration, f func()) (stop func()) {
	stopped := false // guarded by the turn
	t := time.AfterFunc(d, func() {
		_ = h.m.do(func() error {
			if !stopped {
				f()
			}
			return nil
		})
	})
	return func() { stopped = true; t.Stop() }
}

// managed is a feature.Port.
var _ feature.Port = (*managed)(nil)

func (p *managed) Name() string         { return p.spec.Name }
func (p *managed) Number() uint16       { return p.sw.Number() }
func (p *managed) Policy() *port.Policy { return &p.spec.Policy }
func (p *managed) VLANs() port.VLANSet  { return p.vlans() }
func (p *managed) Up() bool             { return p.state == api.StateUp }
func (p *managed) Disabled() bool       { return p.shutBy != "" }
func (p *managed) Station() bool        { return p.hasStation() }
func (p *managed) Core() *vswitch.Port  { return p.sw }
