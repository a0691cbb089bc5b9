package daemon

import (
	"cmp"
	"slices"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
)

// defaultVLAN is the VLAN that is meant where none is named.
const defaultVLAN = 1

// maxVLAN is the highest VLAN there is (802.1Q-2018 table 9-2: fff is reserved).
const maxVLAN = 4094

// fdbKey checks what a user calls an address of the forwarding database.
func fdbKey(mac port.MAC, vlan uint16) (fdb.Key, error) {
	vlan = cmp.Or(vlan, defaultVLAN)
	if vlan > maxVLAN {
		return 0, fail(api.CodeInvalid, "there is no VLAN %d; use 1 to %d", vlan, maxVLAN)
	}
	if mac == 0 || mac.IsGroup() {
		return 0, fail(api.CodeInvalid, "%s is not the address of one station; use one whose first octet is even", mac)
	}
	return fdb.MakeKey(vlan, uint64(mac)), nil
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
	owner, was := m.static[k]
	m.static[k] = req.Port
	if err := m.save(); err != nil {
		m.putBack(k, owner, was)
		return api.FDBEntry{}, fail(api.CodeFailed, "%w", err)
	}
	if err := m.sw.FDB().Add(k, p.sw.Number(), fdb.Static); err != nil {
		m.putBack(k, owner, was)
		m.saveTrace()
		return api.FDBEntry{}, fail(api.CodeFailed, "%w; make room with `vswitch fdb del`", err)
	}
	return api.FDBEntry{MAC: req.MAC, VLAN: k.VLAN(), Port: req.Port, Type: fdb.Static.String()}, nil
}

// putBack restores what was known of a static entry.
func (m *manager) putBack(k fdb.Key, owner string, was bool) {
	if was {
		m.static[k] = owner
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
	switch {
	case !ok:
		return fail(api.CodeNotFound, "the FDB has no entry %s in VLAN %d; `vswitch fdb list` shows those there are", mac, k.VLAN())
	case e.Kind == fdb.Local:
		return fail(api.CodeInvalid, "%s is an address of the switch itself; it cannot be removed", mac)
	}
	if owner, was := m.static[k]; was {
		delete(m.static, k)
		if err := m.save(); err != nil {
			m.putBack(k, owner, was)
			return fail(api.CodeFailed, "%w", err)
		}
	}
	m.sw.FDB().Delete(k)
	return nil
}

func (m *manager) flushFDB(req api.FlushFDB) (api.Flushed, error) {
	if req.VLAN > maxVLAN {
		return api.Flushed{}, fail(api.CodeInvalid, "there is no VLAN %d; use 1 to %d", req.VLAN, maxVLAN)
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
		return (req.Port == "" || e.Port == number) && (req.VLAN == 0 || e.Key.VLAN() == req.VLAN)
	})
	return api.Flushed{Flushed: n}, nil
}

// listFDB may be called from any goroutine: a large table must not hold up the
// manager.
func (m *manager) listFDB() []api.FDBEntry {
	names := make(map[uint16]string)
	for _, p := range m.sw.Ports() {
		names[p.Number()] = p.Name()
	}
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
