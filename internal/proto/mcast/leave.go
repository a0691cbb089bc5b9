package mcast

import (
	"net/netip"
	"time"
)

// giveUp is "Send Q(G)" and "Send Q(G,S)" of RFC 3376 section 6.4.2 for the sources
// marked ask and, if whole is set, for the group. The querier asks whether another host
// behind the port still wants them, and lowers their timers to the Last Member Query
// Time (section 6.6.3). With FastLeave they end at once. If another switch or router is
// the querier, its query lowers them.
func (m *member) giveUp(whole bool) {
	in := m.g.in
	now, cfg := in.s.now, &in.v.cfg
	fast := in.s.ports[m.port].FastLeave
	asks := in.querier.own && !fast
	last := now + in.lastMemberTime()
	for i := range m.sources {
		x := &m.sources[i]
		if !x.ask {
			continue
		}
		x.ask = false
		switch {
		case fast:
			x.expires = now
		case asks && in.queryVersion() == 3 && x.expires > last:
			x.expires, x.queries = last, cfg.LastMemberCount
			m.nextQuery = now
		}
	}
	if !whole {
		return
	}
	switch {
	case fast:
		m.until = now
	case asks && (m.until > last || m.groupQueries == 0): // otherwise a query is already pending
		m.until, m.groupQueries = min(m.until, last), cfg.LastMemberCount
		m.nextQuery = now
	}
}

// lastMemberTime is the Last Member Query Time of RFC 3376 section 8.11.
func (in *instance) lastMemberTime() time.Duration {
	return time.Duration(in.v.cfg.LastMemberCount) * in.v.cfg.LastMemberInterval
}

// sendQueries sends the specific queries that are due, only to the port (RFC 3376
// sections 6.6.3.1 and 6.6.3.2). For groups and sources refreshed meanwhile it sets the
// S flag, so that other queriers do not lower their timers.
func (m *member) sendQueries() {
	in := m.g.in
	m.nextQuery = 0
	if !in.querier.own {
		m.groupQueries = 0
		for i := range m.sources {
			m.sources[i].queries = 0
		}
		return
	}
	last := in.s.now + in.lastMemberTime()
	whole := m.groupQueries > 0
	more := m.groupQueries > 1
	if whole {
		m.groupQueries--
		in.sendSpecific(m, m.until > last, nil)
	}
	var low, refreshed []netip.Addr
	for i := range m.sources {
		x := &m.sources[i]
		if x.queries == 0 {
			continue
		}
		x.queries--
		more = more || x.queries > 0
		if x.expires > last {
			refreshed = append(refreshed, x.addr)
		} else {
			low = append(low, x.addr)
		}
	}
	if len(low) > 0 {
		in.sendSpecific(m, false, low)
	}
	if len(refreshed) > 0 && !whole {
		in.sendSpecific(m, true, refreshed)
	}
	if more {
		m.nextQuery = in.s.now + in.v.cfg.LastMemberInterval
	}
}

func (in *instance) sendSpecific(m *member, suppress bool, sources []netip.Addr) {
	for _, src := range in.voices() {
		in.send(m.port, src, queryFields{
			group:       m.g.addr,
			maxResponse: in.v.cfg.LastMemberInterval,
			suppress:    suppress,
			sources:     sources,
		})
	}
}

// leastPatience is the shortest response time that another querier can give the hosts:
// a query that says 0 is more likely wrong than in a hurry.
const leastPatience = time.Second

// heed lowers the timers of what the elected querier asks about, as the other routers
// of a link do (RFC 3376 section 6.6.1).
func (in *instance) heed(q *message) {
	g := in.groups[q.group]
	if g == nil || q.suppress {
		return
	}
	last := in.s.now + time.Duration(in.robustness())*max(q.maxResponse, leastPatience)
	// A member that ends removes itself from g.members.
	for i := len(g.members) - 1; i >= 0; i-- {
		m := g.members[i]
		switch {
		case q.sources.len() > 0:
			for i := range m.sources {
				if x := &m.sources[i]; !x.blocked() && q.sources.has(x.addr) {
					x.expires = min(x.expires, last)
				}
			}
		case m.exclude:
			m.until = min(m.until, last)
		}
		m.reconcile()
	}
}
