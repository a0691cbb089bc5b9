package guard

import (
	"net/netip"
	"slices"
	"time"

	"github.com/vswitch/vswitch/internal/packet/ndp"
)

// advertised is a prefix in which hosts may form addresses.
type advertised struct {
	netip.Prefix
	until time.Time // zero: for good
}

// renewal is a prefix that a router advertised, until the next Tick.
type renewal struct {
	vlan uint16
	advertised
}

const (
	maxPrefixes = 32  // that are advertised in a VLAN
	maxRenewals = 256 // between two ticks

	// leastTime is how much of an address's lifetime an advertisement leaves (RFC 4862 section
	// 5.5.3): else one that is forged could take the addresses of all hosts.
	leastTime = 2 * time.Hour
)

// advertised learns the prefixes of a router advertisement, by a port that may send it.
func (t *Table) advertised(vlan uint16, m *ndp.Message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for _, x := range m.Prefixes() {
		if !x.Autonomous || x.Bits() == 0 || x.Addr().IsLinkLocalUnicast() || x.Addr().IsMulticast() {
			continue
		}
		is := advertised{x.Prefix, t.after(x.Valid)}
		list := slices.DeleteFunc(t.prefixes[vlan], func(a advertised) bool { return a.Prefix == x.Prefix || !a.until.IsZero() && a.until.Before(now) })
		if x.Valid != 0 && len(list) < maxPrefixes {
			list = append(list, is)
		}
		t.prefixes[vlan] = list
		// Of what is said twice before the next Tick, the last counts.
		t.renewals = slices.DeleteFunc(t.renewals, func(r renewal) bool { return r.vlan == vlan && r.Prefix == x.Prefix })
		if len(t.renewals) < maxRenewals {
			t.renewals = append(t.renewals, renewal{vlan, is})
		}
	}
}

// formed returns until when hosts may form an address by themselves, zero being for good. ok is
// false if they may not.
func (p *Port) formed(vlan uint16, a netip.Addr) (until time.Time, ok bool) {
	if p.formsForGood(a) {
		return until, true
	}
	now := p.table.now()
	for _, x := range p.table.prefixes[vlan] {
		switch {
		case !x.Contains(a) || !x.until.IsZero() && !now.Before(x.until):
		case x.until.IsZero():
			return x.until, true
		case !ok || x.until.After(until):
			until, ok = x.until, true
		}
	}
	return until, ok
}

// formsForGood reports whether hosts behind the port may form an address whatever routers
// advertise.
func (p *Port) formsForGood(a netip.Addr) bool {
	return linkLocal.Contains(a) || slices.ContainsFunc(p.config.Prefixes, func(x netip.Prefix) bool { return x.Contains(a) })
}

// renew gives the addresses that the port's stations formed the lifetimes of their prefixes,
// and publishes them where that matters. The caller holds table.mu.
func (p *Port) renew(now time.Time) {
	stale := false
	for _, e := range p.learned {
		if e.source != SLAAC || p.formsForGood(e.addr) {
			continue
		}
		for _, r := range p.table.renewals {
			if r.vlan == e.vlan && r.Contains(e.addr) {
				e.expiry = lifetime(now, e.expiry, r.until)
			}
		}
		stale = stale || e.isStale(now)
	}
	if stale {
		p.table.changed = true
		p.copyOut()
	}
}

// isStale reports whether the binding ends before what was published, or much later. Routers
// advertise often; a copy that ends a little early is harmless, since its holder asks then.
func (e *entry) isStale(now time.Time) bool {
	was := time.Unix(e.published, 0)
	switch {
	case e.expiry.IsZero():
		return e.published != 0
	case e.published == 0:
		return true
	}
	return e.expiry.Unix() < e.published || e.expiry.Sub(was) > e.expiry.Sub(now)/8
}

// lifetime returns when an address ends that would have ended then, now that a router advertises
// its prefix until another time (RFC 4862 section 5.5.3). Zero is never.
func lifetime(now, then, until time.Time) time.Time {
	later := !then.IsZero() && until.After(then)
	switch {
	case until.IsZero() || later || until.Sub(now) > leastTime:
		return until
	case !then.IsZero() && then.Sub(now) <= leastTime:
		return then
	}
	return now.Add(leastTime)
}
