package daemon

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
)

// fdbKey checks an address and VLAN from a user and returns the key of their entry.
func fdbKey(mac port.MAC, vlan uint16) (fdb.Key, error) {
	vlan = cmp.Or(vlan, port.DefaultVLAN)
	if vlan > port.MaxVID {
		return 0, fail(api.CodeInvalid, "there is no VLAN %d; use 1 to %d", vlan, port.MaxVID)
	}
	if mac == 0 || mac.IsGroup() {
		return 0, fail(api.CodeInvalid, "%s is not the address of one station; use one whose first octet is even", mac)
	}
	return fdb.MakeKey(vlan, uint64(mac)), nil
}

// staticEntry is an entry that a user added. A sticky one ages like a learned one, and
// returns when its port comes up or forgets what it learned.
type staticEntry struct {
	port   string
	sticky bool
}

func (e staticEntry) kind() fdb.Kind {
	if e.sticky {
		return fdb.Sticky
	}
	return fdb.Static
}

// forget removes the entries learned behind a port.
func (m *manager) forget(p *managed) {
	m.sw.FDB().FlushPort(p.sw.Number())
	m.enter(p)
}

// enter makes the FDB match the entries that users added for a port: it adds missing ones and
// removes those that cannot lead to the port now.
func (m *manager) enter(p *managed) {
	table := m.sw.FDB()
	for k, e := range m.static {
		if e.port != p.spec.Name {
			continue
		}
		at, known := table.Get(k)
		switch {
		case m.checkEntry(k, p) != nil:
			if known && at.Port == p.sw.Number() && at.Kind == e.kind() {
				table.Delete(k)
			}
		case !known || at.Kind == fdb.Dynamic:
			if err := table.Add(k, p.sw.Number(), e.kind()); err != nil {
				m.log.Error("restoring an FDB entry", "mac", port.MAC(k.MAC()), "error", err)
			}
		}
	}
}

func (m *manager) addFDB(req api.AddFDB) (api.FDBEntry, error) {
	k, err := fdbKey(req.MAC, req.VLAN)
	if err != nil {
		return api.FDBEntry{}, err
	}
	p, err := m.find(req.Port)
	if err != nil {
		return api.FDBEntry{}, err
	}
	if err := m.checkEntry(k, p); err != nil {
		return api.FDBEntry{}, fail(api.CodeInvalid, "%w", err)
	}
	former, was := m.static[k]
	e := staticEntry{req.Port, req.Sticky}
	m.static[k] = e
	if err := m.save(); err != nil {
		m.putBack(k, former, was)
		return api.FDBEntry{}, fail(api.CodeFailed, "%w", err)
	}
	if err := m.sw.FDB().Add(k, p.sw.Number(), e.kind()); err != nil {
		m.putBack(k, former, was)
		m.saveTrace()
		return api.FDBEntry{}, fail(api.CodeFailed, "%w; make room with `vswitch fdb del`", err)
	}
	m.sw.Settle()
	return api.FDBEntry{MAC: req.MAC, VLAN: k.VLAN(), Port: req.Port, Type: e.kind().String()}, nil
}

// checkEntry returns why an entry cannot lead to a port: it would lose frames that now reach
// their station or the switch itself.
func (m *manager) checkEntry(k fdb.Key, p *managed) error {
	if mac := port.MAC(k.MAC()); mac == m.mac {
		return fmt.Errorf("%s is the switch's own address; it is behind no port", mac)
	}
	if carried := p.vlans(); !carried.Has(k.VLAN()) {
		return fmt.Errorf("port %s does not carry VLAN %d; it carries %s", p.spec.Name, k.VLAN(), carried.String())
	}
	return nil
}

// putBack restores the former state of an entry that a user added.
func (m *manager) putBack(k fdb.Key, former staticEntry, was bool) {
	if was {
		m.static[k] = former
	} else {
		delete(m.static, k)
	}
}

func (m *manager) delFDB(mac port.MAC, vlan uint16) error {
	k, err := fdbKey(mac, vlan)
	if err != nil {
		return err
	}
	e, ok := m.sw.FDB().Get(k)
	former, was := m.static[k]
	switch {
	case !ok && !was:
		return fail(api.CodeNotFound, "the FDB has no entry %s in VLAN %d; `vswitch fdb list` shows those there are", mac, k.VLAN())
	case ok && e.Kind == fdb.Local:
		return fail(api.CodeInvalid, "%s is an address of the switch itself; it cannot be removed", mac)
	}
	if was {
		delete(m.static, k)
		if err := m.save(); err != nil {
			m.putBack(k, former, was)
			return fail(api.CodeFailed, "%w", err)
		}
	}
	m.sw.FDB().Delete(k)
	m.sw.Settle()
	return nil
}

func (m *manager) flushFDB(req api.FlushFDB) (api.Flushed, error) {
	if req.VLAN > port.MaxVID {
		return api.Flushed{}, fail(api.CodeInvalid, "there is no VLAN %d; use 1 to %d", req.VLAN, port.MaxVID)
	}
	number := fdb.NoPort
	if req.Port != "" {
		p, err := m.find(req.Port)
		if err != nil {
			return api.Flushed{}, err
		}
		number = p.sw.Number()
	}
	n := m.sw.FDB().Flush(func(e fdb.Entry) bool {
		return !m.static[e.Key].sticky && (req.Port == "" || e.Port == number) && (req.VLAN == 0 || e.Key.VLAN() == req.VLAN)
	})
	m.sw.Settle()
	return api.Flushed{Flushed: n}, nil
}

// listFDB may be called from any goroutine: a large table must not delay the manager.
func (m *manager) listFDB() []api.FDBEntry {
	names := m.portNames()
	m.sw.Refresh()
	entries := []api.FDBEntry{}
	for e := range m.sw.FDB().All() {
		a := api.FDBEntry{MAC: port.MAC(e.Key.MAC()), VLAN: e.Key.VLAN(), Port: names[e.Port], Type: e.Kind.String()}
		if e.Kind == fdb.Dynamic || e.Kind == fdb.Sticky {
			a.AgeS = int64(e.Age.Seconds())
		}
		entries = append(entries, a)
	}
	slices.SortFunc(entries, func(a, b api.FDBEntry) int {
		return cmp.Or(cmp.Compare(a.VLAN, b.VLAN), cmp.Compare(a.MAC, b.MAC))
	})
	return entries
}

// portNames returns the name of each port by number. It may be called from any goroutine.
func (m *manager) portNames() map[uint16]string {
	names := make(map[uint16]string)
	for _, p := range m.sw.Ports() {
		names[p.Number()] = p.Name()
	}
	return names
}
