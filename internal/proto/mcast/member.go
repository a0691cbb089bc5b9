package mcast

import (
	"net/netip"
	"slices"
	"time"
)

// group is a group that at least one port wants in one VLAN.
type group struct {
	in      *instance
	addr    netip.Addr
	members []*member // sorted by port
}

// member is what the hosts behind one port want of a group: the router state of RFC
// 3376 section 6.2 (RFC 3810 section 7.2), kept per port. A member exists as long as
// the port wants the group from some source, so its existence means forwarding.
type member struct {
	g      *group
	port   uint16
	static bool
	timer  timer

	// learned from reports:
	exclude bool          // filter mode
	until   time.Duration // the group timer, in exclude mode
	sources []source
	v1, v2  time.Duration // until when a host of IGMPv1, or of IGMPv2 or MLDv1, counts as present

	// Queries still to send for a leave, and their time; see leave.go.
	groupQueries int
	nextQuery    time.Duration
	counted      bool // in port.groups
}

// source is one source of a member's list. In include mode all sources are wanted until
// they expire. In exclude mode those with a time are wanted by some host, and those
// without are blocked.
type source struct {
	addr    netip.Addr
	expires time.Duration // 0: blocked
	queries int           // still to send for it
	ask     bool          // the current record gives up this source
}

// blocked reports whether x is in the "Y" of RFC 3376's tables; the others are in "X".
func (x *source) blocked() bool { return x.expires == 0 }

func (in *instance) member(port uint16, group netip.Addr) *member {
	g := in.groups[group]
	if g == nil {
		return nil
	}
	if i, ok := g.find(port); ok {
		return g.members[i]
	}
	return nil
}

func (g *group) find(port uint16) (int, bool) {
	return slices.BinarySearchFunc(g.members, port, func(m *member, p uint16) int { return int(m.port) - int(p) })
}

// join creates the member; the caller then records what it wants.
func (in *instance) join(port uint16, addr netip.Addr) *member {
	g := in.groups[addr]
	if g == nil {
		g = &group{in: in, addr: addr}
		in.groups[addr] = g
	}
	m := &member{g: g, port: port}
	m.timer.fire = m.reconcile
	i, _ := g.find(port)
	g.members = slices.Insert(g.members, i, m)
	in.s.port(port).members[m] = struct{}{}
	in.s.memberships++
	in.changed()
	return m
}

// forget discards what was learned.
func (m *member) forget() {
	m.exclude, m.until, m.sources, m.v1, m.v2 = false, 0, nil, 0, 0
	m.groupQueries, m.nextQuery = 0, 0
	m.reconcile()
}

// reconcile brings the member up to date: it expires what is due, sends the queries that
// are due, removes the member when it wants nothing more, and sets its timer.
func (m *member) reconcile() {
	in := m.g.in
	now := in.s.now
	m.expire(now)
	if m.nextQuery != 0 && m.nextQuery <= now {
		m.sendQueries()
	}
	m.count(m.exclude || len(m.sources) > 0)
	if !m.static && !m.counted {
		in.s.timers.stop(&m.timer)
		i, _ := m.g.find(m.port)
		m.g.members = slices.Delete(m.g.members, i, i+1)
		if len(m.g.members) == 0 {
			delete(in.groups, m.g.addr)
		}
		delete(in.s.ports[m.port].members, m)
		in.s.memberships--
		in.changed()
		return
	}
	if due, ok := m.due(); ok {
		in.s.timers.set(&m.timer, due)
	} else {
		in.s.timers.stop(&m.timer)
	}
}

// expire applies the timer rules of RFC 3376 sections 6.3 and 6.5.
func (m *member) expire(now time.Duration) {
	kept := m.sources[:0]
	for _, x := range m.sources {
		if !x.blocked() && x.expires <= now {
			if !m.exclude {
				continue
			}
			x.expires, x.queries = 0, 0 // no host wants it: blocked from now on
		}
		kept = append(kept, x)
	}
	m.sources = kept
	if m.exclude && m.until <= now {
		m.exclude, m.until, m.groupQueries = false, 0, 0
		m.sources = slices.DeleteFunc(m.sources, func(x source) bool { return x.blocked() })
	}
}

// expires returns when the port's membership ends unless its hosts report.
func (m *member) expires() (at time.Duration) {
	if m.exclude {
		return m.until
	}
	for i := range m.sources {
		at = max(at, m.sources[i].expires)
	}
	return at
}

// prolong keeps everything wanted now alive until the given time. The member's timer
// notices when it fires.
func (m *member) prolong(until time.Duration) {
	now := m.g.in.s.now
	if m.exclude && m.until > now {
		m.until = max(m.until, until)
	}
	for i := range m.sources {
		if x := &m.sources[i]; x.expires > now {
			x.expires = max(x.expires, until)
		}
	}
}

// due returns when reconcile has something to do.
func (m *member) due() (at time.Duration, ok bool) {
	earlier := func(t time.Duration) {
		if t != 0 && (!ok || t < at) {
			at, ok = t, true
		}
	}
	earlier(m.until)
	earlier(m.nextQuery)
	for i := range m.sources {
		earlier(m.sources[i].expires)
	}
	return at, ok
}

// count maintains the port's count of learned memberships.
func (m *member) count(learned bool) {
	if learned == m.counted {
		return
	}
	m.counted = learned
	d := 1
	if !learned {
		d = -1
	}
	m.g.in.s.ports[m.port].groups += d
}

// version returns the Group Compatibility Mode of RFC 3376 section 7.3.2 and RFC 3810
// section 8.3.2: the oldest version spoken by a host behind the port.
func (m *member) version() int {
	now := m.g.in.s.now
	switch {
	case m.v1 > now:
		return 1
	case m.v2 > now:
		return 2
	}
	return 3
}

// wants reports whether a record can bring a port a group that it does not have.
func (r *record) wants() bool {
	switch r.typ {
	case isEx, toEx:
		return true
	case isIn, toIn, allow:
		return r.sources.len() > 0
	}
	return false
}

// apply applies a record from a message of the given version to a port. It returns
// false if the port may have no further group.
func (in *instance) apply(port uint16, r record, version int) bool {
	if r.typ < isIn || r.typ > block || !tracked(r.group) {
		return true // RFC 3376 section 4.2.12: unknown types are ignored
	}
	m := in.member(port, r.group)
	if m == nil || !m.counted {
		if !r.wants() {
			return true
		}
		if !in.s.admit(port, m) {
			return false
		}
		if m == nil {
			m = in.join(port, r.group)
		}
	}
	now, gmi := in.s.now, in.membershipInterval()
	switch compat := m.version(); {
	case compat == 1 && (r.typ == toIn || r.typ == block),
		compat == 2 && r.typ == block:
		return true
	case compat <= 2 && r.typ == toEx:
		r.sources.b = nil
	}
	switch {
	case version == 1:
		m.v1 = now + gmi // as long as the Older Version Host Present Timeout, section 8.13
	case version == 2 && r.typ == isEx:
		m.v2 = now + gmi
	}

	switch r.typ {
	case isIn, allow:
		m.include(r.sources, gmi)
	case toIn:
		whole := m.exclude
		m.include(r.sources, gmi)
		for i := range m.sources {
			x := &m.sources[i]
			x.ask = !x.blocked() && !r.sources.has(x.addr)
		}
		m.giveUp(whole)
	case isEx, toEx:
		m.except(r.sources, gmi, r.typ == toEx)
		if r.typ == toEx {
			for i := range m.sources {
				m.sources[i].ask = !m.sources[i].blocked()
			}
			m.giveUp(false)
		}
	case block:
		if m.exclude {
			for i := range r.sources.len() {
				m.add(source{addr: r.sources.at(i), expires: m.until})
			}
		}
		for i := range r.sources.len() {
			if x := m.source(r.sources.at(i)); x != nil && !x.blocked() {
				x.ask = true
			}
		}
		m.giveUp(false)
	}
	m.reconcile()
	return true
}

// include handles the common part of IS_IN, ALLOW and TO_IN, in either mode: the
// sources are wanted for another membership interval.
func (m *member) include(list addresses, gmi time.Duration) {
	now := m.g.in.s.now
	for i := range list.len() {
		a := list.at(i)
		if x := m.source(a); x != nil {
			x.expires = now + gmi
		} else if !m.add(source{addr: a, expires: now + gmi}) {
			// More sources than fit: take the group from any source, so that nothing is
			// lost while the host keeps asking.
			m.exclude, m.until = true, now+gmi
		}
	}
}

// except handles IS_EX and TO_EX: everything is wanted but the list. In include mode,
// sources new to the port become blocked. In exclude mode, they are wanted until it is
// known that no other host wants them, for TO_EX no longer than the group.
func (m *member) except(list addresses, gmi time.Duration, toEx bool) {
	in := m.g.in
	var fresh time.Duration
	if m.exclude {
		fresh = in.s.now + gmi
		if toEx {
			fresh = m.until
		}
	}
	old := m.sources
	m.sources = make([]source, 0, min(list.len(), in.s.cfg.Sources))
	for i := range list.len() {
		a := list.at(i)
		x := source{addr: a, expires: fresh}
		if j := slices.IndexFunc(old, func(x source) bool { return x.addr == a }); j >= 0 {
			x = old[j]
		}
		m.add(x)
	}
	m.exclude, m.until = true, in.s.now+gmi
}

func (m *member) source(a netip.Addr) *source {
	for i := range m.sources {
		if m.sources[i].addr == a {
			return &m.sources[i]
		}
	}
	return nil
}

// add inserts a source unless it is there. It returns false when the list is full.
func (m *member) add(x source) bool {
	if m.source(x.addr) != nil {
		return true
	}
	if len(m.sources) >= m.g.in.s.cfg.Sources {
		return false
	}
	m.sources = append(m.sources, x)
	return true
}

func (a addresses) has(addr netip.Addr) bool {
	for i := range a.len() {
		if a.at(i) == addr {
			return true
		}
	}
	return false
}

// ownShare is how many groups a port may learn whatever others have: a listener that is refused
// loses a group that anybody else wants.
const ownShare = 32

// admit reports whether a port may learn one more group; m is the existing static
// member, or nil. Beyond ownShare, a port may have at most as much memory as it leaves free: one
// that joins all it can gets half, the next half of the rest.
func (s *Snooper) admit(id uint16, m *member) bool {
	p := s.port(id)
	free := s.cfg.Memberships - s.memberships
	if (p.MaxGroups == 0 || p.groups < p.MaxGroups) && (m != nil || p.groups < max(free, ownShare)) {
		return true
	}
	p.refused++
	return false
}
