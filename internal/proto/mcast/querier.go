package mcast

import (
	"net/netip"
	"slices"
	"time"
)

// querier is the state of who queries the hosts of a VLAN (RFC 3376 section 6.6, RFC
// 3810 section 7.6): this switch, another that was elected, or nobody.
type querier struct {
	in *instance

	own     bool // this switch queries
	startup int  // startup queries left to send
	general timer

	other    elected
	otherEnd timer // running while there is another querier

	// filter is set once the hosts have had time to answer a querier: from then on, a
	// port without a report does not want the group.
	filter bool
	trust  timer
}

// elected is the querier heard on the link.
type elected struct {
	addr    netip.Addr
	port    uint16
	version int

	// Values from its queries, capped, for the timers of RFC 3376 section 4.1.6-7.
	robustness         int
	interval, response time.Duration
}

// Bounds on what another's queries do to our timers. A querier that asks less often is
// missed in between: the VLAN floods, or this switch queries.
const (
	maxHeardRobustness = 3
	maxHeardInterval   = 10 * time.Minute
	maxHeardResponse   = time.Minute
)

// topAddress is the highest address that a station can have, so it loses each election:
// see voices.
var topAddress = netip.AddrFrom4([4]byte{223, 255, 255, 254})

func (q *querier) init(in *instance) {
	q.in = in
	q.general.fire = q.ask
	q.otherEnd.fire = q.lost
	q.trust.fire = func() {
		q.filter = true
		in.changed()
	}
}

func (q *querier) stop() {
	timers := &q.in.s.timers
	timers.stop(&q.general)
	timers.stop(&q.otherEnd)
	timers.stop(&q.trust)
}

// heard reports whether another querier is there.
func (q *querier) heard() bool { return q.otherEnd.running() }

// configure applies the VLAN's configuration to the instance.
func (in *instance) configure() {
	q := &in.querier
	cfg := &in.v.cfg
	if q.heard() && cfg.Querier && beats(in.address(), q.other.addr) {
		in.s.timers.stop(&q.otherEnd)
		q.other = elected{}
	}
	in.setOwn(false)
	if cfg.Querier && !q.heard() {
		in.setOwn(true)
		q.startup = cfg.StartupCount
		q.ask()
	}
	in.presence()
}

func (in *instance) setOwn(own bool) {
	in.querier.own = own
	in.querier.startup = 0
	if !own {
		in.s.timers.stop(&in.querier.general)
	}
}

// presence starts filtering some time after a querier appears, and ends it when there
// is none.
func (in *instance) presence() {
	q := &in.querier
	switch present := q.own || q.heard(); {
	case !present:
		in.s.timers.stop(&q.trust)
		if q.filter {
			q.filter = false
			in.changed()
		}
	case !q.filter && !q.trust.running():
		in.s.timers.set(&q.trust, in.s.now+in.responseInterval())
	}
}

// ask sends a general query and schedules the next.
func (q *querier) ask() {
	in := q.in
	in.sendGeneral(AllPorts, in.address())
	in.askSilent()
	interval := in.v.cfg.QueryInterval
	if q.startup > 0 {
		if q.startup--; q.startup > 0 {
			interval = in.v.cfg.StartupInterval
		}
	}
	in.s.timers.set(&q.general, in.s.now+interval)
}

// voices returns the source addresses for queries to a port's hosts. Without an address
// of our own that is 0.0.0.0, from which some hosts accept nothing. Those hosts accept
// topAddress, which others drop for lack of a route to it.
func (in *instance) voices() []netip.Addr {
	own := in.address()
	if own.IsUnspecified() {
		return []netip.Addr{own, topAddress}
	}
	return []netip.Addr{own}
}

// askSilent queries those ports again, from the other voice, whose hosts did not answer
// the last general query.
func (in *instance) askSilent() {
	if !in.address().IsUnspecified() {
		return
	}
	answered := in.s.now + in.queryInterval() + in.responseInterval()
	var silent []uint16
	for _, g := range in.groups {
		for _, m := range g.members {
			if m.counted && m.expires() < answered {
				silent = append(silent, m.port)
			}
		}
	}
	slices.Sort(silent)
	for _, port := range slices.Compact(silent) {
		in.sendGeneral(port, topAddress)
	}
}

// askPort queries the hosts behind one port. Another querier must not hear this from an
// address that would win the election.
func (in *instance) askPort(port uint16) {
	switch q := &in.querier; {
	case q.own:
		for _, src := range in.voices() {
			in.sendGeneral(port, src)
		}
	case !q.heard():
	case in.family == IPv4:
		in.sendGeneral(port, netip.IPv4Unspecified()) // RFC 4541 section 2.1.1
	case beats(q.other.addr, in.address()):
		in.sendGeneral(port, in.address())
	}
}

// extend keeps all groups alive for as long as if their hosts had answered now, because
// another querier asks from now on, at its own times. It bounds the work that an
// ever-changing querier causes.
func (in *instance) extend() {
	const slack = 10 * time.Second
	if in.s.now < in.extended {
		return
	}
	in.extended = in.s.now + slack
	until := in.s.now + in.membershipInterval() + slack
	for _, g := range in.groups {
		for _, m := range g.members {
			m.prolong(until)
		}
	}
}

// lost handles the end of the Other Querier Present timer.
func (q *querier) lost() {
	q.in.extend()
	q.other = elected{}
	if q.in.v.cfg.Querier {
		q.in.setOwn(true)
		q.ask()
	}
	q.in.presence()
}

// forgetRouter discards what was learned of routers behind a port.
func (in *instance) forgetRouter(port uint16) {
	in.routers.remove(port)
	in.forgetQuerier(port)
}

// forgetQuerier ends the election of a querier behind a port.
func (in *instance) forgetQuerier(port uint16) {
	if q := &in.querier; q.heard() && q.other.port == port {
		in.s.timers.stop(&q.otherEnd)
		q.lost()
	}
}

// distrust makes the VLAN flood until the hosts have answered another query.
func (in *instance) distrust() {
	q := &in.querier
	if !q.own && !q.heard() {
		return
	}
	if q.filter {
		q.filter = false
		in.changed()
	}
	wait := in.responseInterval()
	if q.own {
		q.startup = in.v.cfg.StartupCount
		q.ask()
	} else {
		wait += in.queryInterval()
	}
	in.s.timers.set(&q.trust, in.s.now+wait)
}

// beats reports whether querier a wins over b: the lowest address wins. 0.0.0.0 stands
// for a switch that queries in a router's absence, and wins against none (RFC 4541
// section 2.1.1).
func beats(a, b netip.Addr) bool {
	if a.IsUnspecified() || b.IsUnspecified() {
		return b.IsUnspecified() && !a.IsUnspecified()
	}
	return a.Less(b)
}

// hear takes part in the election when another's general query arrives.
func (in *instance) hear(m *message, port uint16) {
	q := &in.querier
	own := in.address()
	heard := elected{
		addr: m.src, port: port, version: m.version,
		robustness: min(m.robustness, maxHeardRobustness), interval: min(m.interval, maxHeardInterval), response: m.maxResponse,
	}
	switch {
	case m.maxResponse > maxHeardResponse:
		return // the hosts' answers come too late to be useful
	case m.src == own && !own.IsUnspecified():
		return // our own, by a loop
	case m.src.IsUnspecified() && (q.heard() && !q.other.addr.IsUnspecified() || q.own && !own.IsUnspecified()):
		return // a switch that queries on behalf of the known querier; no router
	}
	// If 0.0.0.0 is the only querier, it needs reports and data as a router does: it
	// learns of its groups from nobody else.
	in.routers.learn(port, max(in.v.cfg.RouterTimeout, in.presentInterval(&heard)))
	switch {
	case in.s.config(port).Isolated:
		return
	case q.own && !beats(m.src, own):
		return
	case q.heard() && beats(q.other.addr, m.src):
		return
	}
	changed := q.own || q.heard() && (q.other.addr != heard.addr || q.other.port != port)
	in.setOwn(false)
	q.other = heard
	if changed {
		in.extend()
	}
	in.s.timers.set(&q.otherEnd, in.s.now+in.presentInterval(&heard))
	in.presence()
}

// presentInterval returns the Other Querier Present Interval of RFC 3376 section 8.5.
func (in *instance) presentInterval(e *elected) time.Duration {
	cfg := &in.v.cfg
	return time.Duration(max(cfg.Robustness, e.robustness))*max(cfg.QueryInterval, e.interval) + max(cfg.ResponseInterval, e.response)/2
}

// The values behind the timers: the configured ones or, if the elected querier asks
// less often or waits longer, its own (RFC 3376 section 4.1.6-7). q.other is zero while
// no other was heard.

func (in *instance) robustness() int {
	return max(in.v.cfg.Robustness, in.querier.other.robustness)
}

func (in *instance) queryInterval() time.Duration {
	return max(in.v.cfg.QueryInterval, in.querier.other.interval)
}

func (in *instance) responseInterval() time.Duration {
	return max(in.v.cfg.ResponseInterval, in.querier.other.response)
}

// membershipInterval returns the Group Membership Interval of RFC 3376 section 8.4.
func (in *instance) membershipInterval() time.Duration {
	return time.Duration(in.robustness())*in.queryInterval() + in.responseInterval()
}

// address returns the source of our queries.
func (in *instance) address() netip.Addr {
	if in.family == IPv4 {
		return in.v.cfg.IPv4
	}
	return in.v.cfg.IPv6
}

// queryVersion returns the version of our queries, in IGMP's numbers.
func (in *instance) queryVersion() int {
	if in.family == IPv4 {
		return in.v.cfg.IGMPVersion
	}
	return in.v.cfg.MLDVersion + 1
}

func (in *instance) sendGeneral(port uint16, src netip.Addr) {
	in.send(port, src, queryFields{maxResponse: in.v.cfg.ResponseInterval})
}

// send adds the fields that all our queries share, and sends the query.
func (in *instance) send(port uint16, src netip.Addr, q queryFields) {
	s, cfg := in.s, &in.v.cfg
	q.version, q.robustness, q.interval = in.queryVersion(), cfg.Robustness, cfg.QueryInterval
	frame := igmpQueryFrame
	if in.family == IPv6 {
		frame = mldQueryFrame
	}
	s.stats.QueriesSent++
	s.cfg.Send(in.v.id, port, frame(s.cfg.MAC, src, q))
}
