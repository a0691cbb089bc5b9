package mcast

import (
	"net/netip"
	"slices"
	"time"
)

// querier is who asks the hosts of a VLAN (RFC 3376 section 6.6, RFC 3810 section
// 7.6): this switch, or the other one that was elected, or nobody.
type querier struct {
	in *instance

	own     bool // this switch asks
	startup int  // startup queries still to send
	general timer

	other    elected
	otherEnd timer // running while there is an other

	// filter is set once the hosts had time to answer a querier: from then on
	// who did not report does not want the group.
	filter bool
	trust  timer
}

// elected is the querier that was heard.
type elected struct {
	addr    netip.Addr
	port    uint16
	version int

	// What its queries say, capped, for the timers of RFC 3376 section 4.1.6-7.
	robustness         int
	interval, response time.Duration
}

// What another's queries can make of our timers. One that asks less often is missed
// in between: the VLAN floods, or this switch asks.
const (
	maxHeardRobustness = 3
	maxHeardInterval   = 10 * time.Minute
	maxHeardResponse   = time.Minute
)

// topAddress is the highest address a station can have, so it loses each election:
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

// heard tells whether another querier is there.
func (q *querier) heard() bool { return q.otherEnd.running() }

// configure brings the instance to the VLAN's configuration.
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

// presence begins to filter some time after there is a querier, and ends it when
// there is none.
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

// ask sends a general query and sets the time of the next.
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

// voices are the addresses that a port's hosts are asked from. Without one of our own
// that is 0.0.0.0, from which some hosts take nothing. They take the same from
// topAddress, which others drop for lack of a route to it.
func (in *instance) voices() []netip.Addr {
	own := in.address()
	if own.IsUnspecified() {
		return []netip.Addr{own, topAddress}
	}
	return []netip.Addr{own}
}

// askSilent asks ports again, from the other voice, whose hosts did not answer the last
// general query.
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

// askPort asks the hosts behind one port. Where another is the querier, it must not
// hear of it from an address that would win the election.
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

// extend has all groups live on for as long as if their hosts had answered now, for
// another asks from now on, after its own time. A querier that changes all the time
// makes work only so often.
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

// lost is the end of the Other Querier Present timer.
func (q *querier) lost() {
	q.in.extend()
	q.other = elected{}
	if q.in.v.cfg.Querier {
		q.in.setOwn(true)
		q.ask()
	}
	q.in.presence()
}

// forgetRouter ends what was learned of routers behind a port.
func (in *instance) forgetRouter(port uint16) {
	in.routers.remove(port)
	in.forgetQuerier(port)
}

// forgetQuerier ends the election of one behind a port.
func (in *instance) forgetQuerier(port uint16) {
	if q := &in.querier; q.heard() && q.other.port == port {
		in.s.timers.stop(&q.otherEnd)
		q.lost()
	}
}

// distrust floods until the hosts have answered another query.
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

// beats orders queriers: the lowest address wins. 0.0.0.0 stands for a switch that
// asks in a router's absence, and wins against none (RFC 4541 section 2.1.1).
func beats(a, b netip.Addr) bool {
	if a.IsUnspecified() || b.IsUnspecified() {
		return b.IsUnspecified() && !a.IsUnspecified()
	}
	return a.Less(b)
}

// hear takes part in the election with a general query of another.
func (in *instance) hear(m *message, port uint16) {
	q := &in.querier
	own := in.address()
	heard := elected{
		addr: m.src, port: port, version: m.version,
		robustness: min(m.robustness, maxHeardRobustness), interval: min(m.interval, maxHeardInterval), response: m.maxResponse,
	}
	switch {
	case m.maxResponse > maxHeardResponse:
		return // the hosts' answers come too late to go by
	case m.src == own && !own.IsUnspecified():
		return // our own, by a loop
	case m.src.IsUnspecified() && (q.heard() && !q.other.addr.IsUnspecified() || q.own && !own.IsUnspecified()):
		return // a switch that asks on behalf of the querier we know; no router
	}
	// Where 0.0.0.0 is the only querier, it needs the reports and the data as a
	// router does: it knows of its groups by nobody else.
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

// presentInterval is the Other Querier Present Interval of RFC 3376 section 8.5.
func (in *instance) presentInterval(e *elected) time.Duration {
	cfg := &in.v.cfg
	return time.Duration(max(cfg.Robustness, e.robustness))*max(cfg.QueryInterval, e.interval) + max(cfg.ResponseInterval, e.response)/2
}

// The values that timers are made of: the configured ones or, where the elected
// querier asks less often or waits longer, its own (RFC 3376 section 4.1.6-7).
// q.other is zero while nobody was heard.

func (in *instance) robustness() int {
	return max(in.v.cfg.Robustness, in.querier.other.robustness)
}

func (in *instance) queryInterval() time.Duration {
	return max(in.v.cfg.QueryInterval, in.querier.other.interval)
}

func (in *instance) responseInterval() time.Duration {
	return max(in.v.cfg.ResponseInterval, in.querier.other.response)
}

// membershipInterval is the Group Membership Interval of RFC 3376 section 8.4.
func (in *instance) membershipInterval() time.Duration {
	return time.Duration(in.robustness())*in.queryInterval() + in.responseInterval()
}

// address is the source of our queries.
func (in *instance) address() netip.Addr {
	if in.family == IPv4 {
		return in.v.cfg.IPv4
	}
	return in.v.cfg.IPv6
}

// queryVersion is that of our queries, in IGMP's numbers.
func (in *instance) queryVersion() int {
	if in.family == IPv4 {
		return in.v.cfg.IGMPVersion
	}
	return in.v.cfg.MLDVersion + 1
}

func (in *instance) sendGeneral(port uint16, src netip.Addr) {
	in.send(port, src, queryFields{maxResponse: in.v.cfg.ResponseInterval})
}

// send fills in what all our queries say.
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
