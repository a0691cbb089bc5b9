package daemon

import (
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Events for the features: the manager reports ports, the core reports frames.

// putInForce applies a port's spec to the core, unless a feature refuses it.
func (m *manager) putInForce(p *managed) error {
	for r := range instances[feature.Refusing](m) {
		if err := r.Refuse(p); err != nil {
			return err
		}
	}
	return p.apply()
}

// yield has features give up what one port will get from another.
func (m *manager) yield(next map[string]*port.Spec) {
	for y := range instances[feature.Yielding](m) {
		y.Yield(next)
	}
}

// configured reports that a port is new or has changed settings.
func (m *manager) configured(p *managed) {
	for c := range instances[feature.Configured](m) {
		c.Configured(p)
	}
}

// linked reports that a port starts or stops passing frames.
func (m *manager) linked(p *managed, up bool) {
	for l := range instances[feature.Linked](m) {
		l.Linked(p, up)
	}
}

// removed reports that a port is about to be removed.
func (m *manager) removed(p *managed) {
	for r := range instances[feature.Removed](m) {
		r.Removed(p)
	}
}

// The switch calls onControl from its own goroutine.
func (m *manager) onControl(f vswitch.ControlFrame) {
	if port.MACFrom(f.Data[6:]) == m.mac {
		m.ownAddressSeen(f.Port.Number(), f.VLAN)
	}
	_ = m.do(func() error {
		p := m.ports[f.Port.Name()]
		switch {
		case p == nil || p.sw != f.Port: // removed meanwhile
		case p.shutBy != "": // the frame was queued before a guard shut the port
		default:
			m.receive(p, f)
		}
		return nil
	})
}
