package daemon

import (
	"slices"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/owner"
)

// removeOrphans removes the devices that a former daemon made for ports that never came to be: it was killed
// before the change was kept, as amid an apply of many ports. A device that a machine holds stays; a port of
// its name takes it over.
func (m *manager) removeOrphans() {
	made, err := m.links.Made(m.name)
	if err != nil {
		m.log.Warn("looking for devices that belong to no port", "error", err)
	}
	_ = m.do(func() error {
		made = slices.DeleteFunc(made, m.hasPort)
		if len(made) > 0 && m.claimed.Take() != nil {
			made = nil // they are those of another daemon of this name
		}
		return nil
	})
	for _, l := range made {
		switch l.Kind {
		case "tap":
			if held, err := m.links.Carrier(l.Index); held || err != nil {
				m.log.Warn("a device belongs to no port, but a machine holds it", "interface", l.Name)
				continue
			}
		case "vxlan", "geneve":
		default:
			continue
		}
		if err := m.links.Remove(l); err != nil {
			m.log.Warn("removing a device that belongs to no port", "interface", l.Name, "error", err)
			continue
		}
		m.log.Info("a device that belongs to no port is removed", "interface", l.Name)
	}
}

// hasPort reports whether an interface is that of a port, open or not.
func (m *manager) hasPort(l link.Link) bool {
	for name, p := range m.ports {
		if l.Name == name || l.Name == p.trace.Ifname || l.Index == p.link.Index || owner.IsNumber(p.trace.Number, l.Index) {
			return true
		}
	}
	return false
}
