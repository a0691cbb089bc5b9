package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"

	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/owner"
	"github.com/vswitch/vswitch/port"
)

// A daemon may be killed at any moment: between a change of the host and the write of the state that tells of it.
// So what a port is about to change is in the journal before, and each start finishes what it finds there.

// keepsTrace has what a kind is about to change for a port enter the journal.
func (m *manager) keepsTrace(p *managed, trace *port.Trace) {
	if m.journal != nil {
		trace.Keep = func(t port.Trace) {
			t.Keep = nil
			m.journal.Note(store.Port{Spec: *p.aim.Load(), Trace: t})
		}
	}
}

// aimAt notes what a port is about to be.
func (p *managed) aimAt(spec port.Spec) store.Port {
	s := store.Port{Spec: store.Spec{Name: spec.Name, Kind: spec.Kind, Settings: spec.Patch()}, Trace: p.trace}
	p.aim.Store(&s.Spec)
	return s
}

// correct has the journal say what a port is, if it says what the port was about to be. What an open port has left on
// the host, the port itself says, and sooner.
func (m *manager) correct(p *managed) {
	if !m.journal.Has(p.spec.Name) || p.begun != nil {
		return
	}
	s, note := p.saved(), m.journal.NoteSpec
	if p.dev == nil {
		note = m.journal.Note
	}
	m.off(func() { note(s) })
}

// finishPort finishes what a former process had begun for a port of the state that is about to be opened, without the turn:
// a port of another kind is removed, and a change of settings that is not in the state is taken back. It returns the
// port if that opened it.
func (m *manager) finishPort(begun store.Port, spec port.Spec, trace *port.Trace) (port.Port, error) {
	if begun.Spec.Kind != spec.Kind {
		m.discard(begun)
		return nil, nil
	}
	kind := m.kinds.Find(spec.Kind)
	to, err := m.kinds.Read(spec.Name, spec.Kind, begun.Spec.Settings)
	if err != nil || reflect.DeepEqual(to.Settings, spec.Settings) {
		return nil, nil
	}
	t := *trace
	dev, err := kind.Open(to, &t)
	if err != nil {
		return nil, err
	}
	if err := kind.Set(dev, to, spec); err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	*trace = t
	return dev, nil
}

// discard removes a port that had begun to be, or to go, in a former process, and gives its device back. One that the
// switch made for a machine that holds it stays.
func (m *manager) discard(begun store.Port) {
	log := m.log.With("port", begun.Spec.Name)
	spec, err := m.kinds.Read(begun.Spec.Name, begun.Spec.Kind, begun.Spec.Settings)
	kind := m.kinds.Find(begun.Spec.Kind)
	switch {
	case kind == nil:
		err = fmt.Errorf("this vswitch does not have the kind %q", begun.Spec.Kind)
	case err == nil:
		if a, ok := as[port.Attended](kind); ok && begun.Trace.Created && a.Attended(spec, begun.Trace) != "" {
			return // its machine goes on
		}
		log.Info("a port that is no more may have left something, which is put back")
		err = kind.Delete(spec, begun.Trace)
	}
	if err != nil {
		log.Error("the device of a port that is no more is not put back", "error", err)
	}
}

// finish discards ports that are not in the state, which a former process had begun to make or to remove.
func (m *manager) finish() {
	var all []store.Port
	_ = m.do(func() error {
		for _, e := range m.journal.Entries() {
			if m.ports[e.Spec.Name] == nil {
				all = append(all, e)
			}
		}
		if len(all) > 0 && m.claimed.Take() != nil {
			all = nil // they are those of another daemon of this name
		}
		return nil
	})
	for _, e := range all {
		m.discard(e)
		m.journal.Remove(e.Spec.Name)
	}
}

// removeOrphans removes the devices that a former daemon made for ports that never came to be: it was killed
// before the change was kept, as amid an apply of many ports. A port of its name takes over a device that stays.
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
	_ = removeDevices(m.links, made, usedBy, m.log.With("reason", "it belongs to no port")) // it logs what fails
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

// RemoveDevices removes the devices that a switch of that name made, which must not run. Those that machines
// hold stay. The NICs of containers go: the next daemon makes them again.
func RemoveDevices(links Links, name string, log *slog.Logger) error {
	claim := links.Claim(name, "")
	if err := claim.Take(); err != nil {
		return err
	}
	defer claim.Close()
	made, err := links.Made(name)
	return errors.Join(err, removeDevices(links, made, heldBy, log))
}

// removeDevices removes devices that a switch made, but for those that somebody uses.
func removeDevices(links Links, made []link.Link, users func(Links, link.Link) (string, error), log *slog.Logger) (all error) {
	for _, l := range made {
		log := log.With("interface", l.Name)
		who, err := users(links, l)
		if err == nil && who == "" {
			if err = links.Remove(l); err == nil {
				log.Info("a device is removed")
				continue
			}
		}
		switch {
		case errors.Is(err, link.ErrNotFound): // it went meanwhile
		case err != nil:
			log.Warn("a device is not removed", "error", err)
			all = errors.Join(all, err)
		default:
			log.Warn("a device stays", "used_by", who)
		}
	}
	return all
}

// heldBy says who cannot go on without a device that the switch made; it is empty if nobody does.
func heldBy(links Links, l link.Link) (string, error) {
	switch l.Kind {
	case "veth", "vxlan", "geneve":
		return "", nil
	case "tap":
		if held, err := links.Carrier(l.Index); held || err != nil {
			return "a machine", err
		}
		return "", nil
	}
	return "somebody who made it a " + l.Kind, nil
}

// usedBy is heldBy where containers go on, too.
func usedBy(links Links, l link.Link) (string, error) {
	if l.Kind == "veth" {
		if up, err := links.Carrier(l.Index); up || err != nil {
			return "a container", err
		}
	}
	return heldBy(links, l)
}
