// Package stations shows the forwarding database, which says which station is behind which
// port, and keeps the entries that users add to it. They name ports; an entry is in force while
// its port is there and carries its VLAN, so that no frame is lost to a port that cannot send it.
package stations

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/port"
)

// Feature describes the forwarding database and the entries of users.
var Feature = feature.Feature{
	Name: "stations",
	Key:  "fdb",
	Help: "list and change the forwarding database",
	New: func(h feature.Host, _ any) (feature.Instance, error) {
		return &stations{host: h, all: make(map[fdb.Key]entry), own: make(map[fdb.Key]string)}, nil
	},
	Items: &feature.Items{
		Zero: entry{}, Help: "static and sticky entries of the forwarding database",
		Required: []string{"mac", "port"}, PortBound: true,
	},
	Routes:   routes,
	Commands: commands,
}

// stations are the entries that users added, and those of the host's own interfaces, of which a
// bridge knows that nobody else has their addresses: guests cannot draw the host's frames to
// themselves.
type stations struct {
	host feature.Host
	all  map[fdb.Key]entry
	own  map[fdb.Key]string // of the host, by port; a user's own goes before
}

// maxOwnVLANs bounds the VLANs in which the host's address is entered.
const maxOwnVLANs = 16

// entry is an entry that a user added. A sticky one ages like a learned one, and returns when
// its port comes up or forgets what it learned.
type entry struct {
	MAC    port.MAC `json:"mac" arg:"MAC" help:"address of the station"`
	VLAN   uint16   `json:"vlan,omitempty" arg:"VID" max:"4094" min:"1" default:"1" help:"VLAN of the station"`
	Port   string   `json:"port" arg:"PORT" help:"port that leads to it"`
	Sticky bool     `json:"sticky,omitempty" help:"the entry ages; until then the station cannot move"`
}

var _ feature.Item = entry{}

// AfterMerge implements setting.Merged.
func (e *entry) AfterMerge(any, func(string) bool) { e.VLAN = cmp.Or(e.VLAN, port.DefaultVLAN) }

// ID implements feature.Item.
func (e entry) ID() string { return fmt.Sprintf("fdb %s vlan %d", e.MAC, e.VLAN) }

// Words implements feature.Item.
func (e entry) Words() string {
	if e.Sticky {
		return "port " + e.Port + ", sticky"
	}
	return "port " + e.Port
}

// Check implements feature.Item.
func (e entry) Check() error {
	switch {
	case e.MAC == 0 || e.MAC.IsGroup():
		return fmt.Errorf("%s is not the address of one station; use one whose first octet is even", e.MAC)
	case e.VLAN < 1 || e.VLAN > port.MaxVID:
		return fmt.Errorf("there is no VLAN %d; use 1 to %d", e.VLAN, port.MaxVID)
	case e.Port == "":
		return fmt.Errorf("the entry of %s needs a port", e.MAC)
	}
	return nil
}

// Needs implements feature.Item.
func (e entry) Needs() (ports []string, vlan uint16) { return []string{e.Port}, e.VLAN }

func (e entry) key() fdb.Key { return fdb.MakeKey(e.VLAN, uint64(e.MAC)) }

func (e entry) kind() fdb.Kind {
	if e.Sticky {
		return fdb.Sticky
	}
	return fdb.Static
}

// Stop implements feature.Instance.
func (s *stations) Stop() {
	for k := range s.all {
		s.remove(k)
	}
	for k := range s.own {
		s.drop(k)
	}
}

// State implements feature.Kept. Entries of a port that is about to go are not kept.
func (s *stations) State() (json.RawMessage, error) {
	ports := make(map[string]bool)
	for p := range s.host.Ports() {
		ports[p.Name()] = true
	}
	var kept []entry
	for _, e := range s.all {
		if ports[e.Port] {
			kept = append(kept, e)
		}
	}
	if kept == nil {
		return nil, nil
	}
	slices.SortFunc(kept, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.VLAN, b.VLAN), cmp.Compare(a.MAC, b.MAC))
	})
	return json.Marshal(kept)
}

// Restore implements feature.Kept. What this program does not understand is an error: the next save
// would lose it.
func (s *stations) Restore(b json.RawMessage) error {
	kept, err := feature.ReadItems[entry](b)
	if err != nil {
		return err
	}
	to := make(map[fdb.Key]entry)
	for _, e := range kept {
		if err := e.Check(); err != nil {
			return fmt.Errorf("the FDB entry of %v in VLAN %d: %w", e.MAC, e.VLAN, err)
		}
		to[e.key()] = e
	}
	for k, e := range s.all {
		if to[k] != e {
			s.remove(k)
		}
	}
	var failed error
	for k, e := range to {
		if p, err := feature.FindPort(s.host, e.Port); err == nil && s.all[k] != e {
			s.all[k] = e
			failed = cmp.Or(failed, s.put(p, e))
		}
	}
	s.all = to
	s.host.Switch().Settle()
	return failed
}

// remove takes an entry out of the table.
func (s *stations) remove(k fdb.Key) {
	e := s.all[k]
	delete(s.all, k)
	if at, ok := s.host.Switch().FDB().Get(k); ok && at.Kind == e.kind() {
		s.host.Switch().FDB().Delete(k)
	}
}

// put makes the table match an entry: the entry is in it if the port can send its frames.
func (s *stations) put(p feature.Port, e entry) error {
	table := s.host.Switch().FDB()
	at, known := table.Get(e.key())
	switch {
	case s.possible(p, e) != nil:
		if known && at.Port == p.Number() && at.Kind == e.kind() {
			table.Delete(e.key())
		}
	case !known || at.Kind != e.kind() && at.Kind != fdb.Local:
		return table.Add(e.key(), p.Number(), e.kind())
	}
	return nil
}

// enter puts the entries of a port into the table.
func (s *stations) enter(p feature.Port) {
	for _, e := range s.all {
		if e.Port != p.Name() {
			continue
		}
		if err := s.put(p, e); err != nil {
			s.host.Log().Error("restoring an FDB entry", "mac", e.MAC, "vlan", e.VLAN, "error", err)
		}
	}
}

// pin enters the host's own address behind a port, and removes its former one.
func (s *stations) pin(p feature.Port) {
	table, mac, want := s.host.Switch().FDB(), p.Own(), make(map[fdb.Key]bool)
	if mac != 0 && mac != s.host.MAC() {
		vlans := p.VLANs()
		for vid := range vlans.All() {
			if want[fdb.MakeKey(vid, uint64(mac))] = true; len(want) == maxOwnVLANs {
				break
			}
		}
	}
	for k, name := range s.own {
		if name == p.Name() && !want[k] {
			s.drop(k)
		}
	}
	for k := range want {
		if _, user := s.all[k]; user {
			continue
		}
		s.own[k] = p.Name()
		if e, known := table.Get(k); known && (e.Kind == fdb.Static && e.Port == p.Number() || e.Kind == fdb.Local) {
			continue
		}
		if err := table.Add(k, p.Number(), fdb.Static); err != nil {
			s.host.Log().Warn("guests can claim the host's own address", "port", p.Name(), "mac", mac, "error", err)
		}
		s.host.Switch().Settle()
	}
}

// drop removes an entry of the host's own.
func (s *stations) drop(k fdb.Key) {
	delete(s.own, k)
	if _, user := s.all[k]; user {
		return
	}
	if at, ok := s.host.Switch().FDB().Get(k); ok && at.Kind == fdb.Static {
		s.host.Switch().FDB().Delete(k)
	}
}

// possible returns why an entry cannot lead to a port: it would lose frames that now reach
// their station or the switch itself.
func (s *stations) possible(p feature.Port, e entry) error {
	if e.MAC == s.host.MAC() {
		return fmt.Errorf("%s is the switch's own address; it is behind no port", e.MAC)
	}
	if carried := p.VLANs(); !carried.Has(e.VLAN) {
		return fmt.Errorf("port %s does not carry VLAN %d; it carries %s", p.Name(), e.VLAN, carried.String())
	}
	return nil
}

// Configured implements feature.Configured: other VLANs have other entries.
func (s *stations) Configured(p feature.Port) { s.enter(p); s.pin(p) }

// Linked implements feature.Linked. When the port's former device was detached, the entries were removed.
func (s *stations) Linked(p feature.Port, up bool) {
	if up {
		s.enter(p)
		s.pin(p)
	}
}

// Forgotten implements feature.Forgotten.
func (s *stations) Forgotten(p feature.Port) { s.enter(p) }

// Removed implements feature.Removed: the entries go with their port.
func (s *stations) Removed(p feature.Port) {
	maps.DeleteFunc(s.own, func(_ fdb.Key, name string) bool { return name == p.Name() })
	n := len(s.all)
	maps.DeleteFunc(s.all, func(_ fdb.Key, e entry) bool { return e.Port == p.Name() })
	if len(s.all) != n {
		s.host.Save()
	}
}

// Pins implements feature.Pinning.
func (s *stations) Pins(k fdb.Key) bool {
	_, user := s.all[k]
	_, own := s.own[k]
	return user || own
}

func (s *stations) add(req api.AddFDB) (api.FDBEntry, error) {
	e := entry{req.MAC, cmp.Or(req.VLAN, port.DefaultVLAN), req.Port, req.Sticky}
	if err := e.Check(); err != nil {
		return api.FDBEntry{}, api.Errorf(api.CodeInvalid, "%w", err)
	}
	p, err := feature.FindPort(s.host, e.Port)
	if err != nil {
		return api.FDBEntry{}, err
	}
	if err := s.possible(p, e); err != nil {
		return api.FDBEntry{}, api.Errorf(api.CodeInvalid, "%w", err)
	}
	if err := s.host.Switch().FDB().Add(e.key(), p.Number(), e.kind()); err != nil {
		return api.FDBEntry{}, api.Errorf(api.CodeFailed, "%w; make room with `vswitch fdb del`", err)
	}
	s.all[e.key()] = e
	s.host.Switch().Settle()
	return api.FDBEntry{MAC: e.MAC, VLAN: e.VLAN, Port: e.Port, Type: e.kind().String()}, nil
}

func (s *stations) del(mac port.MAC, vlan uint16) error {
	k := fdb.MakeKey(cmp.Or(vlan, port.DefaultVLAN), uint64(mac))
	at, known := s.host.Switch().FDB().Get(k)
	switch {
	case !known && !s.Pins(k):
		return api.Errorf(api.CodeNotFound, "the FDB has no entry %s in VLAN %d; `vswitch fdb list` shows those there are", mac, k.VLAN())
	case known && at.Kind == fdb.Local:
		return api.Errorf(api.CodeInvalid, "%s is an address of the switch itself; it cannot be removed", mac)
	case s.own[k] != "" && s.all[k] == entry{}:
		return api.Errorf(api.CodeInvalid, "%s is the host's own address at port %s; it cannot be removed", mac, s.own[k])
	}
	delete(s.all, k)
	s.host.Switch().FDB().Delete(k)
	s.host.Switch().Settle()
	return nil
}

func (s *stations) flush(req api.FlushFDB) (api.Flushed, error) {
	if req.VLAN > port.MaxVID {
		return api.Flushed{}, api.Errorf(api.CodeInvalid, "there is no VLAN %d; use 1 to %d", req.VLAN, port.MaxVID)
	}
	number := fdb.NoPort
	if req.Port != "" {
		p, err := feature.FindPort(s.host, req.Port)
		if err != nil {
			return api.Flushed{}, err
		}
		number = p.Number()
	}
	n := s.host.Switch().FDB().Flush(func(e fdb.Entry) bool {
		return !s.all[e.Key].Sticky && (req.Port == "" || e.Port == number) && (req.VLAN == 0 || e.Key.VLAN() == req.VLAN)
	})
	s.host.Switch().Settle()
	return api.Flushed{Flushed: n}, nil
}

// list may be called from any goroutine: a large table must not delay the daemon's turn.
func (s *stations) list() []api.FDBEntry {
	sw := s.host.Switch()
	names := make(map[uint16]string)
	for _, p := range sw.Ports() {
		names[p.Number()] = p.Name()
	}
	sw.Refresh()
	entries := []api.FDBEntry{}
	for e := range sw.FDB().All() {
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

// inVLAN is the query of a call that concerns one VLAN.
type inVLAN struct {
	VLAN uint16 `json:"vlan,omitempty" arg:"VLAN" min:"1" max:"4094" default:"1" help:"VLAN of the entry"`
}

var routes = []feature.Route{
	{
		Method: "GET", Path: "/v1/fdb", ID: "listFDB", Help: "The forwarding database by VLAN and address", Answer: []api.FDBEntry{},
		Serve: func(i feature.Instance, w http.ResponseWriter, r *http.Request) {
			feature.ServeList(w, r, func() ([]api.FDBEntry, error) { return i.(*stations).list(), nil })
		},
	},
	{
		Method: "POST", Path: "/v1/fdb", ID: "addFDB", Help: "Add a static or a sticky entry, in place of what is there for the address",
		Request: api.AddFDB{}, Answer: api.FDBEntry{}, Change: true,
		Handle: func(i feature.Instance, r *http.Request) (any, error) {
			req, err := feature.Body[api.AddFDB](r)
			if err != nil {
				return nil, err
			}
			return i.(*stations).add(req)
		},
	},
	{
		Method: "DELETE", Path: "/v1/fdb/{mac}", ID: "delFDB", Help: "Remove the entry of an address, whether learned or static", Query: inVLAN{}, Change: true,
		Handle: func(i feature.Instance, r *http.Request) (any, error) {
			mac, err := port.ParseMAC(r.PathValue("mac"))
			if err != nil {
				return nil, api.Errorf(api.CodeInvalid, "%w", err)
			}
			q, err := feature.Query[inVLAN](r)
			if err != nil {
				return nil, err
			}
			return nil, i.(*stations).del(mac, q.VLAN)
		},
	},
	{
		Method: "POST", Path: "/v1/fdb/flush", ID: "flushFDB", Help: "Forget learned entries, of a port, of a VLAN, of both, or all",
		Request: api.FlushFDB{}, Answer: api.Flushed{},
		Handle: func(i feature.Instance, r *http.Request) (any, error) {
			req, err := feature.Body[api.FlushFDB](r)
			if err != nil {
				return nil, err
			}
			return i.(*stations).flush(req)
		},
	},
}
