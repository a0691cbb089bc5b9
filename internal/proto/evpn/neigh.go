package evpn

import (
	"hash/maphash"
	"net/netip"
	"slices"
	"time"

	"github.com/vswitch/vswitch/port"
)

const (
	// probeAfter is how long a station may send no ARP or neighbour message before it is
	// asked whether it still has its address: less than the time after which the switch
	// forgets a silent station, so that a silent one stays known.
	probeAfter = 150 * time.Second

	// An address is withdrawn if probes questions, probeEvery apart, stay unanswered. Where
	// there is reason to doubt it they are confirmEvery apart, and begin at most each doubtEvery:
	// others cause doubts as they like.
	probeEvery   = 5 * time.Second
	confirmEvery = time.Second
	doubtEvery   = 5 * time.Second
	probes       = 3

	// maxClaims bounds the stations here of which one address is remembered.
	maxClaims = 4

	// A station that asks again within askAgain of an answer could not use it, unless that is
	// so soon that it may not have had it (hosts repeat questions after a second). Its question is
	// left to the network, but of those for one address only one each floodEvery. askAgain covers
	// the time for which hosts believe an answer that nothing confirms (RFC 4861 section 10).
	askSoon    = 2 * time.Second
	askAgain   = 90 * time.Second
	floodEvery = 10 * time.Second
)

// binding says which stations have an IP address.
type binding struct {
	paths   []*path    // of other hosts
	locals  []*localIP // of stations here, at most maxClaims
	over    int        // more of them, which are not looked at
	flooded time.Time  // when a question that could have been answered was left to the network
}

// localIP is an IP address of a station at this host.
type localIP struct {
	addr   netip.Addr
	mac    port.MAC
	router bool
	sent   sent // its route
	heard  time.Time
	asked  int // probes since
	timer  *timer

	doubted bool      // it is asked soon, and until it is heard or withdrawn
	patient time.Time // no doubt has it asked before
}

// bind enters the address of another host's path. A station here with that address may have it
// no longer.
func (t *Table) bind(d *domain, r *path) {
	if !isHost(r.IP) {
		return
	}
	b := d.binding(r.IP)
	if !b.take(r) {
		b.over++
		t.unused = true
	}
	for _, ip := range b.locals {
		if ip.mac != r.MAC {
			t.doubt(d, ip)
		}
	}
}

// take has a path looked at, and reports whether there is room for it.
func (b *binding) take(r *path) bool {
	if len(b.paths) >= maxPaths {
		return false
	}
	b.paths, r.bound = append(b.paths, r), true
	return true
}

// rebind has a path looked at that is not, and reports whether it is now, or has no address.
func (d *domain) rebind(r *path) bool {
	if r.bound || !isHost(r.IP) {
		return true
	}
	b := d.ips[r.IP]
	if !b.take(r) {
		return false
	}
	b.over--
	return true
}

func (d *domain) unbind(r *path) {
	if !isHost(r.IP) {
		return
	}
	b := d.ips[r.IP]
	if r.bound {
		b.paths = slices.DeleteFunc(b.paths, func(other *path) bool { return other == r })
		r.bound = false
	} else {
		b.over--
	}
	d.tidy(r.IP, b)
}

func (d *domain) binding(ip netip.Addr) *binding {
	b := d.ips[ip]
	if b == nil {
		b = &binding{}
		d.ips[ip] = b
	}
	return b
}

func (d *domain) tidy(ip netip.Addr, b *binding) {
	if len(b.paths) == 0 && b.over == 0 && len(b.locals) == 0 {
		delete(d.ips, ip)
	}
}

// bindLocal records that a local station has an address. Where others have the same, or this
// one has others of its family, those are asked whether they still do. A message that does not
// tell whether the station is a router changes nothing about that.
func (t *Table) bindLocal(now time.Time, d *domain, m *message) {
	mac, addr := m.src, m.has
	s := d.stations[mac]
	if s == nil || s.local == nil {
		return
	}
	l := s.local
	if i := slices.IndexFunc(l.ips, func(ip *localIP) bool { return ip.addr == addr }); i >= 0 {
		ip := l.ips[i]
		ip.heard, ip.asked, ip.doubted = now, 0, false
		l.ips = append(slices.Delete(l.ips, i, i+1), ip)
		if m.tells && ip.router != m.router {
			ip.router, ip.sent = m.router, min(ip.sent, outdated)
			t.announce(now, d, mac, s)
		}
		return
	}
	if len(l.ips) >= t.cfg.IPs {
		t.stats.RefusedLocal++
		t.unbindLocal(d, mac, l, l.ips[0])
	}
	for _, other := range l.ips {
		if other.addr.Is4() == addr.Is4() {
			t.doubt(d, other)
		}
	}
	b := d.binding(addr)
	if len(b.locals) >= maxClaims {
		unheard := slices.MinFunc(b.locals, func(a, b *localIP) int { return a.heard.Compare(b.heard) })
		t.unbindLocal(d, unheard.mac, d.stations[unheard.mac].local, unheard)
	}
	for _, other := range b.locals {
		t.doubt(d, other)
	}
	ip := &localIP{addr: addr, mac: mac, router: m.router, heard: now}
	ip.timer = t.timers.start(now.Add(probeAfter), func(now time.Time) { t.probe(now, d, ip) })
	b.locals = append(b.locals, ip)
	l.ips = append(l.ips, ip)
	t.announce(now, d, mac, s)
}

// unbindLocal withdraws and forgets an address of a local station.
func (t *Table) unbindLocal(d *domain, mac port.MAC, l *local, ip *localIP) {
	t.timers.stop(ip.timer)
	is := func(other *localIP) bool { return other == ip }
	l.ips = slices.DeleteFunc(l.ips, is)
	b := d.ips[ip.addr]
	b.locals = slices.DeleteFunc(b.locals, is)
	d.tidy(ip.addr, b)
	if ip.sent != unsent {
		t.out.Withdraw(t.macKey(d.vni, mac, ip.addr))
	}
}

// doubt has a station asked soon whether it still has its address, since another one claims it,
// or the station uses another one.
func (t *Table) doubt(d *domain, ip *localIP) {
	if ip.doubted {
		return
	}
	ip.doubted, ip.asked = true, 0
	t.timers.stop(ip.timer)
	ip.timer = t.timers.start(ip.patient, func(now time.Time) {
		ip.patient = now.Add(doubtEvery)
		t.probe(now, d, ip)
	})
}

// probe asks a station that was long unheard, or is in doubt, for its address, and forgets the
// address of one that does not answer.
func (t *Table) probe(now time.Time, d *domain, ip *localIP) {
	l := d.stations[ip.mac].local
	again := func(at time.Time) {
		ip.timer = t.timers.start(at, func(now time.Time) { t.probe(now, d, ip) })
	}
	switch {
	case !ip.doubted && now.Sub(ip.heard) < probeAfter:
		again(ip.heard.Add(probeAfter))
	case ip.asked == probes:
		t.unbindLocal(d, ip.mac, l, ip)
	default:
		every := probeEvery
		if ip.doubted {
			every = confirmEvery
		}
		ip.asked++
		again(now.Add(every))
		t.out.Send(d.vni, l.port, question(t.cfg.MAC, ip.mac, ip.addr))
	}
}

// Frame looks at an ARP or neighbour discovery message from a local station. It learns which
// addresses stations have; it reports whether it has answered the message for a station at
// another host, so that it need not be flooded. A question that it cannot answer with
// certainty is left to the network.
func (t *Table) Frame(now time.Time, vni VNI, number uint16, frame []byte) (answered bool) {
	d := t.domains[vni]
	if d == nil {
		return false
	}
	m, ok := parse(frame)
	if !ok {
		return false
	}
	if m.has.IsValid() {
		t.bindLocal(now, d, &m)
	}
	if !m.asks.IsValid() {
		return false
	}
	mac, router, ok := d.remote(m.asks)
	if !ok || mac == m.src || t.useless(now, d, number, &m) {
		return false
	}
	t.stats.Answered++
	t.out.Send(vni, number, m.answer(mac, router))
	return true
}

// remote returns the one station at another host that has an address. ok is false if a station
// here has it, or two stations do.
func (d *domain) remote(ip netip.Addr) (mac port.MAC, router, ok bool) {
	b := d.ips[ip]
	if b == nil || len(b.locals) > 0 || b.over > 0 {
		return 0, false, false
	}
	for _, r := range b.paths {
		if mac != 0 && r.MAC != mac || !d.stations[r.MAC].at.VTEP.IsValid() {
			return 0, false, false
		}
		mac, router = r.MAC, router || r.Router
	}
	return mac, router, mac != 0
}

// numAnswers is how many answers are remembered of each port.
const numAnswers = 256

// answer is an answer that a station got.
type answer struct {
	vni   VNI
	asker port.MAC
	ip    netip.Addr
	at    time.Time
}

// useless reports whether a station asks again for an address since the answer was of no use: who
// had the address may have lost it without a word. Else it notes that the question is answered.
// What a station makes up displaces only answers to stations of its port.
func (t *Table) useless(now time.Time, d *domain, number uint16, m *message) bool {
	p := t.pacer(number)
	if p.answers == nil {
		p.answers = new([numAnswers]answer)
	}
	a := answer{vni: d.vni, asker: m.src, ip: m.asks}
	last := &p.answers[maphash.Comparable(t.seed, a)%numAnswers]
	a.at = last.at
	if since := now.Sub(last.at); *last == a && since >= askSoon && since < askAgain {
		if b := d.ips[m.asks]; now.Sub(b.flooded) >= floodEvery {
			b.flooded = now
			return true
		}
	}
	a.at = now
	*last = a
	return false
}
