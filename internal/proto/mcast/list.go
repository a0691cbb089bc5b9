package mcast

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Membership is one port's membership of one group, for people to read.
type Membership struct {
	VLAN    uint16
	Group   netip.Addr
	Port    uint16
	Static  bool
	Learned bool          // by reports; the fields below describe that
	Version int           // of IGMP or MLD: the oldest spoken by a host behind the port
	Exclude bool          // filter mode: all sources but the blocked ones are wanted
	Sources []Source      // sorted
	Expires time.Duration // from now: of the filter mode exclude, otherwise of the last source
}

// Source is one entry of a membership's source list.
type Source struct {
	Addr    netip.Addr
	Blocked bool
	Expires time.Duration // from now; 0 for a blocked one
}

// Memberships returns the number of memberships that Groups lists.
func (s *Snooper) Memberships() int { return s.memberships }

// Groups lists all memberships by VLAN, group and port.
func (s *Snooper) Groups() []Membership {
	list := make([]Membership, 0, s.memberships)
	for _, v := range s.vlans {
		for _, in := range v.inst {
			for _, g := range in.groups {
				for _, m := range g.members {
					list = append(list, m.view())
				}
			}
		}
	}
	slices.SortFunc(list, func(a, b Membership) int {
		return cmp.Or(cmp.Compare(a.VLAN, b.VLAN), a.Group.Compare(b.Group), cmp.Compare(a.Port, b.Port))
	})
	return list
}

func (m *member) view() Membership {
	in := m.g.in
	now := in.s.now
	v := Membership{VLAN: in.v.id, Group: m.g.addr, Port: m.port, Static: m.static, Learned: m.counted}
	if !m.counted {
		return v
	}
	v.Exclude, v.Version = m.exclude, m.version()
	if in.family == IPv6 {
		v.Version--
	}
	v.Expires = m.expires() - now
	for _, x := range m.sources {
		src := Source{Addr: x.addr, Blocked: x.blocked()}
		if !src.Blocked {
			src.Expires = x.expires - now
		}
		v.Sources = append(v.Sources, src)
	}
	slices.SortFunc(v.Sources, func(a, b Source) int { return a.Addr.Compare(b.Addr) })
	return v
}

// RouterPort is a port toward a router, for people to read.
type RouterPort struct {
	VLAN    uint16
	Family  Family
	Port    uint16
	Static  bool
	Expires time.Duration // from now, of a learned one; 0 if it is only static
}

// Routers lists the router ports by VLAN, family and port.
func (s *Snooper) Routers() []RouterPort {
	var list []RouterPort
	for _, v := range s.sortedVLANs() {
		for _, in := range v.inst {
			for _, id := range in.routers.list() {
				r := RouterPort{VLAN: v.id, Family: in.family, Port: id, Static: s.config(id).Router == RouterAlways}
				if until, ok := in.routers.until[id]; ok {
					r.Expires = until - s.now
				}
				list = append(list, r)
			}
		}
	}
	return list
}

// QuerierState is the querier of one VLAN, for people to read.
type QuerierState struct {
	VLAN      uint16
	Family    Family
	Own       bool       // this switch is the querier
	Addr      netip.Addr // of the querier; invalid: there is none, and the VLAN floods
	Port      uint16     // where another querier is
	Version   int        // of IGMP or MLD
	Filtering bool       // the hosts have had time to answer
	Expires   time.Duration
}

// Queriers lists the queriers by VLAN and family.
func (s *Snooper) Queriers() []QuerierState {
	var list []QuerierState
	for _, v := range s.sortedVLANs() {
		for _, in := range v.inst {
			q := &in.querier
			st := QuerierState{VLAN: v.id, Family: in.family, Own: q.own, Filtering: q.filter}
			switch {
			case q.own:
				st.Addr, st.Version = in.address(), in.queryVersion()
			case q.heard():
				st.Addr, st.Port, st.Version = q.other.addr, q.other.port, q.other.version
				st.Expires = q.otherEnd.due - s.now
			}
			if in.family == IPv6 && st.Version > 0 {
				st.Version--
			}
			list = append(list, st)
		}
	}
	return list
}

// Stats returns the counts so far.
func (s *Snooper) Stats() Stats { return s.stats }

// PortStats counts what a port has learned.
type PortStats struct {
	Groups  int    // learned memberships
	Refused uint64 // records refused because the port had its limit
}

// PortStats returns the counts of each port that was configured or learned from.
func (s *Snooper) PortStats() map[uint16]PortStats {
	all := make(map[uint16]PortStats, len(s.ports))
	for id, p := range s.ports {
		all[id] = PortStats{Groups: p.groups, Refused: p.refused}
	}
	return all
}
