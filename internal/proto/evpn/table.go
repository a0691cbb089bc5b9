package evpn

import (
	"cmp"
	"container/heap"
	"hash/maphash"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/vswitch/vswitch/port"
)

// Table is the EVPN state of one switch.
type Table struct {
	cfg   Config
	out   Output
	stats Stats

	domains map[VNI]*domain
	peers   map[Peer]*peer
	vteps   map[netip.Addr]int // other hosts by the number of routes that lead to them
	batches int                // Batches that run, one in another
	flooded []*domain          // whose flood list may have changed within them
	ports   map[uint16]*pacer  // ports with local stations
	past    map[stationKey]uint32
	timers  timers
	seed    maphash.Seed // of pacer.answers

	reserved uint32    // see Reserved
	now      time.Time // the last time that was said
	began    time.Time // the first one
	synced   bool      // a peer has sent all its routes
	unused   bool      // there are routes of stations or addresses that have too many
	reused   time.Time // when those were looked at last
}

type stationKey struct {
	vni VNI
	mac port.MAC
}

// domain is a VNI that this host has.
type domain struct {
	vni      VNI
	stations map[port.MAC]*station
	ips      map[netip.Addr]*binding
	flood    map[netip.Addr]int // VTEPs by their number of flood routes
	changed  bool               // the flood list, perhaps; it is in Table.flooded
	list     []netip.Addr       // as last output
}

// peer is a BGP neighbour and its routes, also those of VNIs that this host does not have yet.
type peer struct {
	routes map[Key]*path
	gen    uint32    // raised when the session is lost; older paths are stale
	gone   uint32    // those older than this one are being removed
	until  time.Time // when all stale ones are
	timer  *timer    // removes them; nil: there are none
	left   int       // routes left out beyond the limits, in this session or since it was asked to repeat them
	crowd  int       // of those, beyond Limits.VTEPs
	asked  time.Time // when it was asked last
}

// path is a route of a peer.
type path struct {
	Route
	gen    uint32
	bound  bool    // its address's binding has it
	domain *domain // that imports it; nil: none
}

// station is a MAC address in a VNI.
type station struct {
	paths []*path // of other hosts
	local *local  // nil: not here
	at    At      // as last output
	told  bool    // the conflict with a sticky claim is reported
	gave  bool    // a sticky claim of this host gave way to another's, which is sticky still
	moves *moves  // nil: none
}

// moves are the moves of a station to here from another host.
type moves struct {
	at   []time.Time // within Window
	held *timer      // of a duplicate: ends its hold; nil: it is not held
	home time.Time   // until then it is at home here
}

// New returns an empty table.
func New(cfg Config, out Output) *Table {
	setDefault(&cfg.Routes, MaxRoutes)
	setDefault(&cfg.VTEPs, MaxVTEPs)
	setDefault(&cfg.Stations, defaultStations)
	setDefault(&cfg.IPs, defaultIPs)
	t := &Table{
		cfg: cfg, out: out,
		domains: make(map[VNI]*domain), peers: make(map[Peer]*peer), vteps: make(map[netip.Addr]int),
		ports: make(map[uint16]*pacer), past: make(map[stationKey]uint32),
		seed: maphash.MakeSeed(),
	}
	t.SetHold(cfg.Hold)
	for _, s := range cfg.Sequences {
		t.remember(stationKey{s.VNI, s.MAC}, s.Seq)
		t.cover(s.Seq)
	}
	t.cover(cfg.Reserved)
	return t
}

// SetHold sets how long duplicates are held from now on; 0: the default time.
func (t *Table) SetHold(d time.Duration) { t.cfg.Hold = cmp.Or(d, defaultHold) }

func setDefault(v *int, to int) {
	if *v <= 0 {
		*v = to
	}
}

// SetVNIs sets the VNIs that this host has. Their flood routes are announced; the local
// stations of one that is gone are withdrawn and forgotten.
func (t *Table) SetVNIs(vnis []VNI) {
	for _, vni := range slices.Sorted(maps.Keys(t.domains)) {
		if !slices.Contains(vnis, vni) {
			t.removeDomain(t.domains[vni])
		}
	}
	added := false
	for _, vni := range vnis {
		if vni == 0 || vni > MaxVNI || t.domains[vni] != nil {
			continue
		}
		added = true
		t.domains[vni] = &domain{
			vni: vni, stations: make(map[port.MAC]*station),
			ips: make(map[netip.Addr]*binding), flood: make(map[netip.Addr]int),
		}
		t.out.Announce(Route{Key: t.floodKey(vni), Targets: Targets{vni}, VTEP: t.cfg.VTEP})
	}
	if !added {
		return
	}
	t.Batch(func() {
		for _, p := range t.peers {
			for _, r := range p.routes {
				if r.domain == nil {
					t.enter(r)
				}
			}
		}
	})
}

// Batch calls f, and puts out the flood lists that have changed after it: each once, however many
// routes have changed them.
func (t *Table) Batch(f func()) {
	t.batches++
	f()
	if t.batches--; t.batches > 0 {
		return
	}
	for _, d := range t.flooded {
		if d.changed = false; t.domains[d.vni] == d {
			t.outputFlood(d)
		}
	}
	clear(t.flooded)
	t.flooded = t.flooded[:0]
}

func (t *Table) floodKey(vni VNI) Key {
	return Key{Kind: Flood, RD: t.cfg.RD(vni), IP: t.cfg.VTEP}
}

func (t *Table) removeDomain(d *domain) {
	for mac, s := range d.stations {
		if s.local != nil {
			t.unclaim(d, mac, s)
		}
		if s.at != (At{}) {
			t.out.Station(d.vni, mac, At{})
			t.stats.Remote--
		}
		t.release(s)
	}
	t.out.Withdraw(t.floodKey(d.vni))
	if len(d.list) > 0 {
		t.out.Flood(d.vni, nil)
	}
	delete(t.domains, d.vni)
	for _, p := range t.peers {
		for _, r := range p.routes {
			if r.domain == d {
				r.domain, r.bound = nil, false
				t.enter(r) // its second target may name another VNI
			}
		}
	}
}

// Receive takes a route that a peer announces. It replaces the peer's former route of the key, also if it is refused.
func (t *Table) Receive(from Peer, r Route) Refusal {
	p := t.peers[from]
	if p == nil {
		p = &peer{routes: make(map[Key]*path)}
		t.peers[from] = p
	}
	old := p.routes[r.Key]
	refused := t.sense(&r)
	if refused == Taken && !t.hasRoom(p, old, &r) {
		t.stats.Beyond++
		p.left++
		refused = Beyond
	}
	if refused != Taken {
		t.stats.RefusedRoutes++
		if old != nil {
			t.drop(p, old)
		}
		return refused
	}
	if old == nil {
		old = &path{Route: r, gen: p.gen}
		p.routes[r.Key] = old
		t.stats.Routes++
		t.vteps[r.VTEP]++
		t.enter(old)
		return Taken
	}
	old.gen = p.gen
	if old.Route == r {
		return Taken
	}
	t.vteps[r.VTEP]++
	t.forget(old.VTEP)
	// The new route takes the place of the old one at once, so that the station does not
	// seem to be gone in between.
	if t.domainOf(&r) != old.domain || r.Kind == Flood {
		t.leave(old)
		old.Route = r
		t.enter(old)
		return Taken
	}
	d := old.domain
	if d == nil {
		old.Route = r
		return Taken
	}
	d.unbind(old)
	old.Route = r
	t.bind(d, old)
	t.decide(d, r.MAC)
	return Taken
}

// sense returns why a route cannot be used, if it does not lead to another host of this host's address family, or to no
// station.
func (t *Table) sense(r *Route) Refusal {
	v := r.VTEP
	switch {
	case v == t.cfg.VTEP:
		return OwnVTEP
	case !v.IsGlobalUnicast() || v.Zone() != "":
		return NoHost
	case v.Is4() != t.cfg.VTEP.Is4():
		return OtherFamily
	case r.Kind == MAC && r.MAC == t.cfg.MAC:
		return OwnMAC
	case r.Kind == MAC && (r.MAC == 0 || r.MAC.IsGroup()), r.Kind != MAC && r.Kind != Flood:
		return NoStation
	}
	return Taken
}

// hasRoom reports whether the limits permit a route of a peer in the place of a former one; nil:
// there was none. If there is no room left, the peer that has most routes makes some, so that it
// does not keep the others' out; of the hosts behind one peer, such as a route reflector, that which has most.
func (t *Table) hasRoom(p *peer, old *path, r *Route) bool {
	if t.vteps[r.VTEP] == 0 && len(t.vteps) >= t.cfg.VTEPs {
		p.crowd++
		return false
	}
	if old != nil || t.stats.Routes < t.cfg.Routes {
		return true
	}
	most := p
	for _, other := range t.peers {
		if len(other.routes) > len(most.routes) {
			most = other
		}
	}
	if len(most.routes) <= len(p.routes)+1 {
		return t.displace(p, r.VTEP)
	}
	for _, displaced := range most.routes {
		t.drop(most, displaced)
		break
	}
	most.left++
	t.stats.RefusedRoutes++
	t.stats.Beyond++
	return true
}

// maxTries is how many stations or routes are looked at for one that gives way. They come in no order, so one of
// a port or host that has a large part of them is among these.
const maxTries = 4096

// displace leaves out a station's route of the host to which most routes lead, for one of another host by the same
// peer. It reports whether it has.
func (t *Table) displace(p *peer, to netip.Addr) bool {
	host, most := to, t.vteps[to]+1
	for v, n := range t.vteps {
		if n > most {
			host, most = v, n
		}
	}
	if host == to {
		return false
	}
	n := 0
	for _, displaced := range p.routes {
		if displaced.VTEP == host && displaced.Kind == MAC {
			t.drop(p, displaced)
			p.left++
			t.stats.RefusedRoutes++
			t.stats.Beyond++
			return true
		}
		if n++; n == maxTries {
			break
		}
	}
	return false
}

// refresh has peers repeat the routes that are left out, once there is room for some.
func (t *Table) refresh(now time.Time) {
	room := func(n, limit int) bool { return n <= limit-max(1, limit/roomPart) }
	if !room(t.stats.Routes, t.cfg.Routes) {
		return
	}
	hosts := room(len(t.vteps), t.cfg.VTEPs)
	for number, p := range t.peers {
		if p.left == 0 || p.left == p.crowd && !hosts || now.Sub(p.asked) < refreshEvery {
			continue
		}
		if p.asked = now; t.out.Refresh(number) {
			p.left, p.crowd = 0, 0
		}
	}
}

// reuse uses routes that are not used because their station or address had too many, where it has fewer by now.
func (t *Table) reuse(now time.Time) {
	if !t.unused || now.Sub(t.reused) < refreshEvery {
		return
	}
	t.unused, t.reused = false, now
	for _, p := range t.peers {
		for _, r := range p.routes {
			d := t.domainOf(&r.Route)
			if d == nil || r.Kind == Flood {
				continue
			}
			if r.domain != nil {
				if !d.rebind(r) {
					t.unused = true
				}
				continue
			}
			if s := d.stations[r.MAC]; s != nil && len(s.paths) >= maxPaths {
				t.unused = true
				continue
			}
			t.enter(r)
		}
	}
}

// forget says that one route fewer leads to a VTEP.
func (t *Table) forget(vtep netip.Addr) {
	if t.vteps[vtep]--; t.vteps[vtep] == 0 {
		delete(t.vteps, vtep)
	}
}

// Withdraw takes back a route of a peer.
func (t *Table) Withdraw(from Peer, k Key) {
	if p := t.peers[from]; p != nil && p.routes[k] != nil {
		t.drop(p, p.routes[k])
	}
}

// Down says that the session with a peer is lost. Its routes stay for as long as keep (RFC 4724
// section 4.2), and with 0 go at once. Those that it has not repeated since it was lost before go at
// once, too: else one that is lost again and again would keep them for ever.
func (t *Table) Down(now time.Time, from Peer, keep time.Duration) {
	p := t.peers[from]
	if p == nil {
		return
	}
	p.gone = p.gen
	p.gen++
	p.left, p.crowd = 0, 0
	p.until = now.Add(keep)
	if keep <= 0 || p.timer != nil {
		t.sweep(now, from, p)
		return
	}
	p.timer = t.timers.start(p.until, func(now time.Time) { t.sweep(now, from, p) })
}

// Synced says that a peer has sent all its routes (End-of-RIB): those that it did not repeat
// since its session was lost are gone.
func (t *Table) Synced(now time.Time, from Peer) {
	t.synced = true
	if p := t.peers[from]; p != nil && p.timer != nil {
		p.until = now
		t.sweep(now, from, p)
	}
}

// sweep removes what is due of the stale routes of a peer, many of them in several turns.
func (t *Table) sweep(now time.Time, from Peer, p *peer) {
	t.timers.stop(p.timer)
	p.timer = nil
	again := func(at time.Time) {
		p.timer = t.timers.start(at, func(now time.Time) { t.sweep(now, from, p) })
	}
	if !now.Before(p.until) {
		p.gone = p.gen
	}
	left := sweepBatch
	t.Batch(func() {
		for _, r := range p.routes {
			if r.gen >= p.gone {
				continue
			}
			if left == 0 {
				again(now.Add(sweepGap))
				return
			}
			left--
			t.drop(p, r)
		}
	})
	switch {
	case p.timer != nil:
	case p.gone < p.gen:
		again(p.until)
	case len(p.routes) == 0:
		delete(t.peers, from)
	}
}

func (t *Table) drop(p *peer, r *path) {
	delete(p.routes, r.Key)
	t.stats.Routes--
	t.forget(r.VTEP)
	t.leave(r)
}

// domainOf returns the domain that imports a route, nil if none does.
func (t *Table) domainOf(r *Route) *domain {
	if r.Label != 0 {
		return nil
	}
	for _, vni := range r.Targets {
		if d := t.domains[vni]; d != nil && vni != 0 {
			return d
		}
	}
	return nil
}

// enter imports a path into its domain, unless too many of its station are there.
func (t *Table) enter(r *path) {
	d := t.domainOf(&r.Route)
	r.domain = d
	switch {
	case d == nil:
	case r.Kind == Flood:
		d.flood[r.VTEP]++
		t.reflood(d)
	default:
		s := d.station(r.MAC)
		if len(s.paths) >= maxPaths {
			r.domain = nil
			t.stats.Unused++
			t.unused = true
			return
		}
		s.paths = append(s.paths, r)
		t.bind(d, r)
		t.decide(d, r.MAC)
	}
}

// leave undoes enter.
func (t *Table) leave(r *path) {
	d := r.domain
	r.domain = nil
	switch {
	case d == nil:
	case r.Kind == Flood:
		if d.flood[r.VTEP]--; d.flood[r.VTEP] == 0 {
			delete(d.flood, r.VTEP)
		}
		t.reflood(d)
	default:
		s := d.stations[r.MAC]
		i := slices.Index(s.paths, r)
		s.paths[i] = s.paths[len(s.paths)-1]
		s.paths[len(s.paths)-1] = nil
		s.paths = s.paths[:len(s.paths)-1]
		d.unbind(r)
		t.decide(d, r.MAC)
	}
}

// reflood has the flood list of a domain put out: at once, or after the batch.
func (t *Table) reflood(d *domain) {
	switch {
	case t.batches == 0:
		t.outputFlood(d)
	case !d.changed:
		d.changed = true
		t.flooded = append(t.flooded, d)
	}
}

// outputFlood outputs the flood list of a domain if it has changed.
func (t *Table) outputFlood(d *domain) {
	list := slices.SortedFunc(maps.Keys(d.flood), netip.Addr.Compare)
	if !slices.Equal(list, d.list) {
		d.list = list
		t.out.Flood(d.vni, slices.Clone(list))
	}
}

func (d *domain) station(mac port.MAC) *station {
	s := d.stations[mac]
	if s == nil {
		s = &station{}
		d.stations[mac] = s
	}
	return s
}

// Tick does what is due, and returns how long nothing more will be.
func (t *Table) Tick(now time.Time) time.Duration {
	t.begin(now)
	for len(t.timers) > 0 && !t.timers[0].at.After(now) {
		heap.Pop(&t.timers).(*timer).run(now)
	}
	t.refresh(now)
	t.reuse(now)
	next := probeEvery
	if len(t.timers) > 0 {
		next = min(next, t.timers[0].at.Sub(now))
	}
	return min(next, t.announcePending(now))
}

// timers are a heap of the work that is due later.
type timers []*timer

type timer struct {
	at    time.Time
	run   func(now time.Time)
	index int // in the heap; -1: it has run or is stopped
}

func (h timers) Len() int           { return len(h) }
func (h timers) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timers) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *timers) Push(x any) {
	x.(*timer).index = len(*h)
	*h = append(*h, x.(*timer))
}
func (h *timers) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	last.index = -1
	return last
}

func (h *timers) start(at time.Time, run func(time.Time)) *timer {
	tm := &timer{at: at, run: run}
	heap.Push(h, tm)
	return tm
}

// stop stops a timer, unless it is nil or has run.
func (h *timers) stop(tm *timer) {
	if tm != nil && tm.index >= 0 {
		heap.Remove(h, tm.index)
	}
}
