package mcast

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Saved is what a Snooper has learned, for another process, which goes on with it. Static
// groups and settings are not part of it. Times are what was left of them; 0: the timer is off.
type Saved struct {
	VLANs   []SavedVLAN
	Stats   Stats
	Refused map[uint16]uint64 `json:",omitempty"` // records, by port
}

// SavedVLAN is a VLAN of a Saved Snooper.
type SavedVLAN struct {
	ID       uint16
	Families [2]SavedInstance
}

// SavedInstance is IGMP or MLD in a VLAN.
type SavedInstance struct {
	Own     bool          `json:",omitempty"` // this switch queries
	Startup int           `json:",omitempty"`
	General time.Duration `json:",omitempty"`

	Other    *SavedQuerier `json:",omitempty"`
	Filter   bool          `json:",omitempty"`
	Trust    time.Duration `json:",omitempty"`
	Extended time.Duration `json:",omitempty"`

	Routers map[uint16]time.Duration `json:",omitempty"` // by port
	Members []SavedMember            `json:",omitempty"`
}

// SavedQuerier is another querier.
type SavedQuerier struct {
	Address            netip.Addr
	Port               uint16
	Version            int
	Robustness         int
	Interval, Response time.Duration
	Left               time.Duration
}

// SavedMember is what a port wants of a group.
type SavedMember struct {
	Group     netip.Addr
	Port      uint16
	Exclude   bool          `json:",omitempty"`
	Until     time.Duration `json:",omitempty"`
	Sources   []SavedSource `json:",omitempty"`
	V1, V2    time.Duration `json:",omitempty"`
	Queries   int           `json:",omitempty"` // for the whole group, still to send
	NextQuery time.Duration `json:",omitempty"`
}

// SavedSource is a source of a member.
type SavedSource struct {
	Address netip.Addr
	Expires time.Duration `json:",omitempty"` // 0: it is blocked
	Queries int           `json:",omitempty"`
}

// Save returns what the Snooper has learned.
func (s *Snooper) Save() *Saved {
	left := func(at time.Duration) time.Duration {
		if at == 0 {
			return 0
		}
		return max(1, at-s.now) // what is due is due at once
	}
	later := func(at time.Duration) time.Duration { return max(0, at-s.now) }
	of := func(t *timer) time.Duration {
		if !t.running() {
			return 0
		}
		return left(t.due)
	}
	saved := &Saved{Stats: s.stats, Refused: make(map[uint16]uint64)}
	for id, p := range s.ports {
		if p.refused > 0 {
			saved.Refused[id] = p.refused
		}
	}
	for _, v := range s.sortedVLANs() {
		sv := SavedVLAN{ID: v.id}
		for f, in := range v.inst {
			q, si := &in.querier, &sv.Families[f]
			si.Own, si.Startup, si.Filter = q.own, q.startup, q.filter
			si.General, si.Trust, si.Extended = of(&q.general), of(&q.trust), later(in.extended)
			if e := q.other; q.heard() {
				si.Other = &SavedQuerier{e.addr, e.port, e.version, e.robustness, e.interval, e.response, of(&q.otherEnd)}
			}
			si.Routers = make(map[uint16]time.Duration)
			for port, until := range in.routers.until {
				si.Routers[port] = left(until)
			}
			for _, addr := range slices.SortedFunc(maps.Keys(in.groups), netip.Addr.Compare) {
				for _, m := range in.groups[addr].members {
					if !m.counted {
						continue
					}
					sm := SavedMember{
						Group: addr, Port: m.port, Exclude: m.exclude, Until: left(m.until), V1: later(m.v1), V2: later(m.v2),
						Queries: m.groupQueries, NextQuery: left(m.nextQuery),
					}
					for _, x := range m.sources {
						sm.Sources = append(sm.Sources, SavedSource{x.addr, left(x.expires), x.queries})
					}
					si.Members = append(si.Members, sm)
				}
			}
		}
		saved.VLANs = append(saved.VLANs, sv)
	}
	return saved
}

// longestSaved is longer than any timer: see maxQueryInterval and complete.
const longestSaved = 24 * time.Hour

var errSaved = errors.New("it is the state of no snooping")

// check returns what no Snooper has.
func (s *Saved) check() error {
	var times []time.Duration
	var counts []int
	for i, v := range s.VLANs {
		if v.ID == 0 || v.ID > maxVLAN || i > 0 && v.ID <= s.VLANs[i-1].ID {
			return errSaved
		}
		for f, in := range v.Families {
			is := func(a netip.Addr) bool {
				return a.IsValid() && a.Is4() == (Family(f) == IPv4) && !a.Is4In6() && a.Zone() == ""
			}
			times, counts = append(times, in.General, in.Trust, in.Extended), append(counts, in.Startup)
			times = slices.AppendSeq(times, maps.Values(in.Routers))
			if o := in.Other; o != nil {
				if !is(o.Address) || o.Address.IsMulticast() || o.Version < 1 || o.Version > 3 || o.Left == 0 || in.Own ||
					o.Robustness > maxHeardRobustness || o.Interval > maxHeardInterval || o.Response > maxHeardResponse {
					return errSaved
				}
				times, counts = append(times, o.Interval, o.Response, o.Left), append(counts, o.Robustness)
			}
			for _, m := range in.Members {
				if !is(m.Group) || !tracked(m.Group) || m.Exclude != (m.Until > 0) || !m.Exclude && len(m.Sources) == 0 {
					return errSaved
				}
				times, counts = append(times, m.Until, m.V1, m.V2, m.NextQuery), append(counts, m.Queries)
				for _, x := range m.Sources {
					if !is(x.Address) || !m.Exclude && x.Expires == 0 {
						return errSaved
					}
					times, counts = append(times, x.Expires), append(counts, x.Queries)
				}
			}
		}
	}
	const mostQueries = 10 // see complete
	if slices.ContainsFunc(times, func(d time.Duration) bool { return d < 0 || d > longestSaved }) ||
		slices.ContainsFunc(counts, func(n int) bool { return n < 0 || n > mostQueries }) {
		return errSaved
	}
	return nil
}

// Restore goes on with what another Snooper had learned; this one snoops no VLAN yet. Config
// returns how a VLAN is snooped, and rename the number that a port has here, if it is there.
// After an error nothing has changed.
func (s *Snooper) Restore(saved *Saved, config func(vlan uint16) VLANConfig, rename func(port uint16) (uint16, bool)) error {
	if err := saved.check(); err != nil {
		return err
	}
	n, ports := 0, make(map[uint16]struct{})
	for _, v := range saved.VLANs {
		c := config(v.ID)
		if err := c.complete(s.cfg.MAC); err != nil {
			return err
		}
		for _, in := range v.Families {
			n += len(in.Members)
			for _, m := range in.Members {
				ports[m.Port] = struct{}{}
			}
		}
	}
	if most := s.cfg.Memberships + ownShare*len(ports); n > most {
		return fmt.Errorf("there are %d group memberships, and room for %d", n, most)
	}
	s.stats = saved.Stats
	for port, refused := range saved.Refused {
		if id, ok := rename(port); ok {
			s.port(id).refused = refused
		}
	}
	for _, sv := range saved.VLANs {
		v := s.newVLAN(sv.ID)
		v.cfg = config(sv.ID)
		_ = v.cfg.complete(s.cfg.MAC)
		for f, in := range v.inst {
			in.restore(&sv.Families[f], rename)
			in.changed()
		}
	}
	return nil
}

func (in *instance) restore(saved *SavedInstance, rename func(uint16) (uint16, bool)) {
	timers, now := &in.s.timers, in.s.now
	at := func(left time.Duration) time.Duration {
		if left == 0 {
			return 0
		}
		return now + left
	}
	in.extended = now + saved.Extended
	for port, left := range saved.Routers {
		if id, ok := rename(port); ok {
			in.routers.until[id] = now + left
		}
	}
	in.routers.schedule()
	for _, sm := range saved.Members {
		id, ok := rename(sm.Port)
		if !ok || in.member(id, sm.Group) != nil {
			continue
		}
		m := in.join(id, sm.Group)
		m.exclude, m.until, m.v1, m.v2 = sm.Exclude, at(sm.Until), now+sm.V1, now+sm.V2
		m.groupQueries, m.nextQuery = sm.Queries, at(sm.NextQuery)
		for _, x := range sm.Sources {
			m.add(source{addr: x.Address, expires: at(x.Expires), queries: x.Queries})
		}
		m.reconcile()
	}
	q := &in.querier
	q.filter = saved.Filter
	if saved.Trust > 0 {
		timers.set(&q.trust, now+saved.Trust)
	}
	if o := saved.Other; o != nil {
		if id, ok := rename(o.Port); ok {
			q.other = elected{o.Address, id, o.Version, o.Robustness, o.Interval, o.Response}
			timers.set(&q.otherEnd, now+o.Left)
		}
	}
	switch {
	case !in.v.cfg.Querier || q.heard():
	case saved.General > 0: // an own querier, and no other, has this timer
		q.own, q.startup = true, saved.Startup
		timers.set(&q.general, now+saved.General)
	default:
		in.setOwn(true)
		q.startup = in.v.cfg.StartupCount
		q.ask()
	}
	in.presence()
}
