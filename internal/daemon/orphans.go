package daemon

import (
	"cmp"
	"errors"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/owner"
	"github.com/vswitch/vswitch/port"
)

// listUnfinished returns the ports whose devices are not given back yet.
func (m *manager) listUnfinished() (all []store.Port) {
	for _, name := range slices.Sorted(maps.Keys(m.unfinished)) {
		if m.ports[name] == nil {
			all = append(all, m.unfinished[name])
		}
	}
	return all
}

// announce keeps what ports that are about to be made will leave on the host.
func (m *manager) announce(specs ...port.Spec) error {
	for _, spec := range specs {
		f, ok := as[port.Foreseeing](m.kinds.Find(spec.Kind))
		if !ok {
			continue
		}
		p := store.Port{Spec: store.Spec{Name: spec.Name, Kind: spec.Kind, Settings: spec.Patch()}}
		m.off(func() { p.Trace = f.Foresee(spec) })
		m.unfinished[spec.Name] = p
	}
	unfinished := m.listUnfinished()
	if len(unfinished) == 0 || m.saver == nil {
		return nil
	}
	st := m.lastWhole() // without the half of the change that may be done
	st.Unfinished = append(unfinished, m.listForeseen()...)
	return m.write(st)
}

// keepForeseen keeps what the opening of a port changes on devices, and how they are now, before it does: else a
// daemon that is killed right after it could not put them back. Where a former daemon was killed so,
// trace gets what it kept. A claimed port waits for the disk, but not for long.
func (m *manager) keepForeseen(p *managed, trace *port.Trace) {
	const longest = 2 * time.Second
	f, ok := as[port.Foreseeing](p.kind)
	if !ok || p.from != nil || m.ports[p.spec.Name] != p || m.saver == nil { // a new one is announced
		return
	}
	spec := p.spec
	var next port.Trace
	m.off(func() {
		if p.foreseen != nil {
			*trace = completed(*trace, *p.foreseen, m.isMarked)
		}
		next = completed(*trace, f.Foresee(spec), func(port.Trace) bool { return true })
	})
	if reflect.DeepEqual(next, *trace) || p.foreseen != nil && reflect.DeepEqual(*p.foreseen, next) {
		return
	}
	p.foreseen = &next
	st := m.lastWhole()
	st.Unfinished = append(m.listUnfinished(), m.listForeseen()...)
	g := m.put(st, false)
	m.off(func() {
		select {
		case <-g.Done():
		case <-time.After(longest):
		}
	})
}

// completed returns a trace with the devices of a foreseen one of which it has no former settings, as far as
// they count.
func completed(t, foreseen port.Trace, counts func(port.Trace) bool) port.Trace {
	if foreseen.Members == nil {
		if t.Before == nil && foreseen.Before != nil && counts(foreseen) {
			return foreseen
		}
		return t
	}
	var all []port.Trace
	if t.Members != nil {
		all = slices.Clone(*t.Members)
	}
	had := len(all)
	for _, f := range *foreseen.Members {
		is := func(o port.Trace) bool { return cmp.Or(o.Name, o.Ifname) == cmp.Or(f.Name, f.Ifname) }
		if !slices.ContainsFunc(all, is) && f.Before != nil && counts(f) {
			all = append(all, f)
		}
	}
	if len(all) > had {
		t.Members = &all
	}
	return t
}

// listForeseen returns the ports whose opening had not ended, with what it leaves.
func (m *manager) listForeseen() (all []store.Port) {
	for _, p := range m.sorted() {
		if p.foreseen != nil {
			s := p.saved()
			s.Trace = *p.foreseen
			all = append(all, s)
		}
	}
	return all
}

// isMarked reports whether a device of which a port has left a trace has the switch's mark.
func (m *manager) isMarked(t port.Trace) bool {
	l, err := m.links.ByName(t.Ifname)
	return err == nil && owner.Marked(l, m.name)
}

// finish gives back what ports left on the host that a former daemon had not kept yet, or not removed yet. A device that has
// no mark of the switch was given back already, and one that a machine holds stays.
func (m *manager) finish() {
	var all []store.Port
	_ = m.do(func() error {
		if len(m.unfinished) > 0 && m.claimed.Take() == nil {
			all = m.listUnfinished()
		}
		return nil
	})
	for _, p := range all {
		spec, err := m.kinds.Read(p.Spec.Name, p.Spec.Kind, p.Spec.Settings)
		if kind := m.kinds.Find(p.Spec.Kind); kind != nil && err == nil && m.isOurs(p.Trace) {
			m.log.Info("a port that is no more had a device, which is put back", "port", p.Spec.Name)
			err = kind.Delete(spec, p.Trace)
		}
		if err != nil {
			m.log.Error("the device of a port that is no more is not put back", "port", p.Spec.Name, "error", err)
		}
	}
	_ = m.do(func() error {
		if len(m.unfinished) > 0 {
			clear(m.unfinished)
			m.saveTrace()
		}
		return nil
	})
}

// isOurs reports whether a device of which a port has left a trace is the switch's, and no machine holds it.
func (m *manager) isOurs(t port.Trace) bool {
	traces := []port.Trace{t}
	if t.Members != nil {
		traces = *t.Members
	}
	return slices.ContainsFunc(traces, func(t port.Trace) bool {
		l, err := m.links.ByName(t.Ifname)
		if err != nil || !owner.Marked(l, m.name) {
			return false
		}
		if l.Kind != "tap" {
			return true
		}
		who, err := heldBy(m.links, l)
		return who == "" && err == nil
	})
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
