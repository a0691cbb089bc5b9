package daemon

import (
	"slices"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// What the protocols that the switch speaks are told: of ports by the manager, of
// frames by the core.

// configured says that a port is new or has other settings.
func (m *manager) configured(p *managed) {
	m.tree.configure(p)
	m.snoop.configure(p)
	for c := range instances[feature.Configured](m) {
		c.Configured(p)
	}
}

// linked says that frames pass by a port from now on, or no more.
func (m *manager) linked(p *managed, up bool) {
	if !up {
		m.moves.linkDown(p)
	}
	for l := range instances[feature.Linked](m) {
		l.Linked(p, up)
	}
	m.tree.link(p, up)
	m.snoop.link(p, up)
}

// removed says that a port is about to go.
func (m *manager) removed(p *managed) {
	m.moves.linkDown(p)
	for r := range instances[feature.Removed](m) {
		r.Removed(p)
	}
	m.tree.remove(p)
	m.snoop.remove(p)
}

// mirrorsTo tells whether a port is where a mirror leads to. Such a port takes no
// part in switching, and the switch itself does not speak by it.
func (m *manager) mirrorsTo(p *managed) bool {
	return slices.ContainsFunc(m.mirrors, func(a api.Mirror) bool { return a.To == p.spec.Name })
}

// onControl is called by the switch, from its own goroutine.
func (m *manager) onControl(f vswitch.ControlFrame) {
	if port.MACFrom(f.Data[6:]) == m.mac {
		m.ownAddressSeen(f.Port.Name(), f.VLAN)
	}
	_ = m.do(func() error {
		p := m.ports[f.Port.Name()]
		switch {
		case p == nil || p.sw != f.Port: // removed meanwhile
		case p.shutBy != "": // what was waiting when a guard shut it
		case f.Queue == vswitch.QueueTree:
			m.tree.receive(p, f.Data)
		case f.Queue == vswitch.QueueGuard:
			m.tree.intruded(p, f.Data)
		case f.Queue == vswitch.QueueGroups:
			m.snoop.receive(f)
		default:
			m.receive(p, f)
		}
		return nil
	})
}
