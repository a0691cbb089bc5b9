package evpn

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/vswitch/vswitch/port"
)

// local is a station at this host.
type local struct {
	port   uint16
	sticky bool
	seq    uint32
	sure   uint32 // seq without what Config.Reserved raised it by
	since  time.Time
	sent   sent       // its MAC route
	ips    []*localIP // longest unheard first
}

// sent is how far the announcement of a route is.
type sent uint8

const (
	unsent   sent = iota
	outdated      // it is announced, and has changed since
	current
)

// Local says that a station is heard, or configured, at a port of this host. A sticky one must
// not move. Saying it again changes nothing.
func (t *Table) Local(now time.Time, vni VNI, mac port.MAC, number uint16, sticky bool) {
	d := t.domains[vni]
	if d == nil || mac == 0 || mac.IsGroup() {
		return
	}
	s := d.stations[mac]
	if s != nil && s.local != nil {
		t.relocate(now, d, mac, s, number, sticky)
		return
	}
	if t.stats.Local >= t.cfg.Stations && !t.makeRoom(number) {
		return
	}
	s = d.station(mac)
	t.begin(now)
	sure := t.past[stationKey{vni, mac}]
	if best := s.best(); best != nil {
		if !t.mayTake(now, d, mac, s, best, number, sticky) {
			return
		}
		sure = max(sure, best.Seq, best.Seq+1) // the highest is not exceeded: then the VTEP decides
	}
	seq := sure
	if now.Sub(t.began) < reservedFor {
		seq = max(seq, t.cfg.Reserved)
	}
	s.local = &local{port: number, sticky: sticky, seq: seq, sure: sure, since: now}
	s.told = false
	moved := s.at != At{}
	t.remember(stationKey{vni, mac}, seq)
	t.cover(seq)
	t.stats.Local++
	t.pacer(number).stations++
	t.decide(d, mac)
	if s.local != nil {
		t.announce(now, d, mac, s)
		if moved {
			t.out.Send(vni, AllPorts, rarp(mac))
		}
	}
}

// makeRoom leaves out one more station: of the port that has most, so that a guest which makes up addresses
// does not keep those of others out. It reports whether there is room for one of the given port now.
func (t *Table) makeRoom(number uint16) bool {
	most, stations := number, t.pacer(number).stations+1
	for n, p := range t.ports {
		if p.stations > stations {
			most, stations = n, p.stations
		}
	}
	t.stats.RefusedLocal++
	t.stats.LeftOut++
	t.stats.Largest = most
	if most == number {
		return false
	}
	n := 0
	for _, d := range t.domains {
		for mac, s := range d.stations {
			if n++; n > maxTries {
				return false
			}
			if s.local != nil && s.local.port == most && !s.local.sticky {
				t.unclaim(d, mac, s)
				t.decide(d, mac)
				return true
			}
		}
	}
	return false
}

// relocate changes the port or stickiness of a station that is here already.
func (t *Table) relocate(now time.Time, d *domain, mac port.MAC, s *station, number uint16, sticky bool) {
	l := s.local
	if l.port != number {
		t.leavePort(d, mac, l)
		l.port = number
		t.pacer(number).stations++
		if !l.complete() {
			t.announce(now, d, mac, s)
		}
	}
	if l.sticky != sticky {
		l.sticky = sticky
		l.outdate()
		t.decide(d, mac) // another host's claim may beat it now
		if s.local != nil {
			t.announce(now, d, mac, s)
		}
	}
}

// mayTake reports whether a station that is heard here may be claimed although another host
// claims it. If not, the station is output again, since the switch has learned it here.
func (t *Table) mayTake(now time.Time, d *domain, mac port.MAC, s *station, best *path, number uint16, sticky bool) bool {
	switch {
	case best.Sticky && (!sticky || s.gave): // else two hosts with one static entry would take it from each other for ever
		if !s.told {
			s.told = true
			t.out.Conflict(Conflict{VNI: d.vni, MAC: mac, Port: number, VTEP: best.VTEP})
		}
	case s.isHeld():
	default:
		if s.moves == nil {
			s.moves = &moves{}
		}
		m, most := s.moves, Moves
		if now.Before(m.home) {
			most = HomeMoves
		}
		m.at = slices.DeleteFunc(m.at, func(at time.Time) bool { return now.Sub(at) >= Window })
		if m.at = append(m.at, now); len(m.at) < most {
			return true
		}
		m.at = nil
		m.held = t.timers.start(now.Add(t.cfg.Hold), func(now time.Time) {
			m.held = nil
			t.decide(d, mac)
		})
		t.stats.Duplicates++
		t.out.Conflict(Conflict{VNI: d.vni, MAC: mac, Port: number, VTEP: best.VTEP, Held: t.cfg.Hold, Moves: most})
	}
	s.at = At{best.VTEP, best.Sticky || s.isHeld()}
	t.out.Station(d.vni, mac, s.at)
	return false
}

// left takes note of a station that is now at another host. If it was here for long, it is at
// home here, and stays so while it comes back again and again.
func (s *station) left(now time.Time, l *local) {
	switch m := s.moves; {
	case now.Sub(l.since) >= Settled:
		if m == nil {
			s.moves = &moves{}
		}
	case m == nil || m.home.Before(l.since):
		return
	}
	s.moves.home = now.Add(Settled)
}

// isHeld reports whether a station is held at another host as a duplicate.
func (s *station) isHeld() bool { return s.moves != nil && s.moves.held != nil }

// release ends the hold of a station, and forgets its moves.
func (t *Table) release(s *station) {
	if s.isHeld() {
		t.timers.stop(s.moves.held)
	}
	s.moves = nil
}

// Gone says that a station is no longer at this host: it was silent for too long, or its port
// is gone.
func (t *Table) Gone(vni VNI, mac port.MAC) {
	d := t.domains[vni]
	if d == nil {
		return
	}
	switch s := d.stations[mac]; {
	case s == nil:
	case s.local != nil:
		t.unclaim(d, mac, s)
		t.decide(d, mac)
	default:
		s.gave = false
	}
}

// best returns the path with the best claim of other hosts, nil if there is none.
func (s *station) best() (best *path) {
	for _, r := range s.paths {
		if best == nil || r.claim().beats(best.claim()) {
			best = r
		}
	}
	return best
}

// decide chooses where a station is, after any change of what is claimed.
func (t *Table) decide(d *domain, mac port.MAC) {
	s := d.stations[mac]
	best := s.best()
	if best != nil && best.Seq < ^uint32(0) {
		t.reserve(best.Seq + 1) // which this host announces once it hears the station
	}
	// A number that is higher only to be sure does not take a station that moved meanwhile.
	if l := s.local; l != nil && best != nil && best.claim().beats(claim{t.cfg.VTEP, l.sure, l.sticky}) {
		t.unclaim(d, mac, s)
		s.left(t.now, l)
		s.gave = l.sticky
	}
	s.gave = s.gave && best != nil && best.Sticky
	at := At{}
	switch {
	case best == nil:
		if s.told = false; s.isHeld() {
			t.release(s)
		}
	case s.local == nil:
		at = At{best.VTEP, best.Sticky || s.isHeld()}
	}
	if at != s.at {
		t.stats.Remote += count(at) - count(s.at)
		s.at = at
		t.out.Station(d.vni, mac, at)
	}
	if s.local == nil && best == nil {
		delete(d.stations, mac)
	}
}

func count(at At) int {
	if at.VTEP.IsValid() {
		return 1
	}
	return 0
}

// unclaim withdraws a local station's routes and forgets that it is here.
func (t *Table) unclaim(d *domain, mac port.MAC, s *station) {
	l := s.local
	for len(l.ips) > 0 {
		t.unbindLocal(d, mac, l, l.ips[0])
	}
	if l.sent != unsent {
		t.out.Withdraw(t.macKey(d.vni, mac, netip.Addr{}))
	}
	t.leavePort(d, mac, l)
	s.local = nil
	t.stats.Local--
}

func (t *Table) leavePort(d *domain, mac port.MAC, l *local) {
	p := t.ports[l.port]
	if delete(p.pending, stationKey{d.vni, mac}); len(p.pending) == 0 {
		p.pending = nil // maps do not shrink
	}
	p.stations--
}

func (t *Table) macKey(vni VNI, mac port.MAC, ip netip.Addr) Key {
	return Key{Kind: MAC, RD: t.cfg.RD(vni), MAC: mac, IP: ip}
}

// pacer limits how fast the stations of a port are announced, and remembers what they were told.
type pacer struct {
	stations int
	pending  map[stationKey]struct{} // stations to announce
	next     time.Time               // when the tokens would be full again
	answers  *[numAnswers]answer     // by hash; nil: none
}

func (t *Table) pacer(number uint16) *pacer {
	p := t.ports[number]
	if p == nil {
		p = &pacer{}
		t.ports[number] = p
	}
	return p
}

// allow takes a token, or returns how long there is none.
func (p *pacer) allow(now time.Time) (wait time.Duration) {
	const gap = time.Second / announceRate
	if p.next.Before(now) {
		p.next = now
	}
	if wait = p.next.Sub(now) - gap*(announceBurst-1); wait > 0 {
		return wait
	}
	p.next = p.next.Add(gap)
	return 0
}

// announce announces what is not announced of a local station: now, or when its port may.
func (t *Table) announce(now time.Time, d *domain, mac port.MAC, s *station) {
	p := t.ports[s.local.port]
	if len(p.pending) == 0 && !t.waits(now) && p.allow(now) == 0 {
		t.publish(d, mac, s.local)
		return
	}
	if p.pending == nil {
		p.pending = make(map[stationKey]struct{})
	}
	p.pending[stationKey{d.vni, mac}] = struct{}{}
}

// announcePending announces what may be announced now, and returns when more may.
func (t *Table) announcePending(now time.Time) time.Duration {
	next := probeEvery
	if t.waits(now) {
		return t.began.Add(reservedWait).Sub(now)
	}
	for number, p := range t.ports {
		for k := range p.pending {
			if wait := p.allow(now); wait > 0 {
				next = min(next, wait)
				break
			}
			if delete(p.pending, k); len(p.pending) == 0 {
				p.pending = nil
			}
			d := t.domains[k.vni]
			t.publish(d, k.mac, d.stations[k.mac].local)
		}
		if p.stations == 0 && !p.next.After(now) {
			delete(t.ports, number)
		}
	}
	return next
}

// publish announces those routes of a local station that are not.
func (t *Table) publish(d *domain, mac port.MAC, l *local) {
	r := Route{Targets: Targets{d.vni}, VTEP: t.cfg.VTEP, Seq: l.seq, Sticky: l.sticky}
	if l.sent != current {
		l.sent = current
		r.Key = t.macKey(d.vni, mac, netip.Addr{})
		t.out.Announce(r)
	}
	for _, ip := range l.ips {
		if ip.sent != current {
			ip.sent = current
			r.Key, r.Router = t.macKey(d.vni, mac, ip.addr), ip.router
			t.out.Announce(r)
		}
	}
}

// outdate makes publish announce all routes again.
func (l *local) outdate() {
	l.sent = min(l.sent, outdated)
	for _, ip := range l.ips {
		ip.sent = min(ip.sent, outdated)
	}
}

// complete reports whether all routes are announced as they are.
func (l *local) complete() bool {
	return l.sent == current && !slices.ContainsFunc(l.ips, func(ip *localIP) bool { return ip.sent != current })
}

// remember keeps a sequence number, so that it never goes back.
func (t *Table) remember(k stationKey, seq uint32) {
	if seq == 0 {
		return
	}
	if _, ok := t.past[k]; !ok && len(t.past) >= maxSequences+t.stats.Local {
		for other := range t.past {
			if d := t.domains[other.vni]; d == nil || d.stations[other.mac] == nil || d.stations[other.mac].local == nil {
				delete(t.past, other)
				break
			}
		}
	}
	if t.past[k] != seq {
		t.past[k] = seq
		t.stats.Sequences++
	}
}

// begin takes note of the time, and of when the table is used first.
func (t *Table) begin(now time.Time) {
	t.now = now
	if t.began.IsZero() {
		t.began = now
	}
}

// waits reports whether stations are not announced yet, since peers may have other claims.
func (t *Table) waits(now time.Time) bool {
	return t.cfg.Reserved > 0 && !t.synced && now.Sub(t.began) < reservedWait
}

// reserve reserves numbers beyond one that this host may announce later.
func (t *Table) reserve(seq uint32) {
	if seq < maxReserved && seq+reserveAhead/2 > t.reserved {
		t.reserved = seq + reserveAhead
	}
}

// cover makes a number that is announced now a reserved one. Run after run that is killed announces
// its Config.Reserved, so nothing is reserved beyond it: numbers do not rise by that.
func (t *Table) cover(seq uint32) {
	if seq < maxReserved+reserveAhead {
		t.reserved = max(t.reserved, seq)
	}
}

// Reserved returns a number that no announced sequence number exceeds, except those beyond 2^24.
// The caller saves it before numbers reach it: a run that is killed cannot save Sequences, and the
// next one begins with this number where it knows no other claim. So numbers never go back.
func (t *Table) Reserved() uint32 { return t.reserved }

// Sequences returns the sequence numbers to keep for the next run.
func (t *Table) Sequences() []Sequence {
	all := make([]Sequence, 0, len(t.past))
	for k, seq := range t.past {
		all = append(all, Sequence{k.vni, k.mac, seq})
	}
	slices.SortFunc(all, func(a, b Sequence) int {
		return cmp.Or(cmp.Compare(a.VNI, b.VNI), cmp.Compare(a.MAC, b.MAC))
	})
	return all
}
