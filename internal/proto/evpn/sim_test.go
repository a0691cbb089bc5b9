package evpn

import (
	"container/heap"
	"math/rand/v2"
	"net/netip"
	"runtime/debug"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// check fails the test if the table contradicts itself or what it has put out.
func (r *rig) check() {
	r.t.Helper()
	var s Stats
	want := make(map[Key]bool)
	for _, d := range r.domains {
		want[r.floodKey(d.vni)] = true
		for mac, st := range d.stations {
			if st.local == nil && len(st.paths) == 0 {
				r.t.Errorf("%v is kept though it is nowhere", mac)
			}
			if at := r.stations[d.vni][mac]; at != st.at {
				r.t.Errorf("%v was put out at %v, and is at %v", mac, at, st.at)
			}
			s.Remote += count(st.at)
			if l := st.local; l != nil {
				s.Local++
				if st.at != (At{}) {
					r.t.Errorf("%v is here and at %v", mac, st.at)
				}
				if l.sent != unsent {
					want[r.macKey(d.vni, mac, netip.Addr{})] = true
				}
				for _, ip := range l.ips {
					if ip.sent != unsent {
						want[r.macKey(d.vni, mac, ip.addr)] = true
					}
					if !slices.Contains(d.ips[ip.addr].locals, ip) {
						r.t.Errorf("%v of %v is not entered", ip.addr, mac)
					}
				}
				if _, waits := r.ports[l.port].pending[stationKey{d.vni, mac}]; waits == l.complete() {
					r.t.Errorf("%v waits to be announced: %v; all is: %v", mac, waits, l.complete())
				}
			}
		}
		for ip, b := range d.ips {
			if len(b.locals) > maxClaims {
				r.t.Errorf("%v is remembered of %d stations", ip, len(b.locals))
			}
			if len(b.locals) == 0 && len(b.paths) == 0 {
				r.t.Errorf("%v is kept though nobody has it", ip)
			}
		}
	}
	over := make(map[*binding]int)
	for _, p := range r.peers {
		s.Routes += len(p.routes)
		for _, x := range p.routes {
			if x.domain == nil || !isHost(x.IP) || x.Kind != MAC {
				continue
			}
			b := x.domain.ips[x.IP]
			if x.bound != slices.Contains(b.paths, x) {
				r.t.Errorf("%v of %v is entered: %v, marked so: %v", x.IP, x.MAC, !x.bound, x.bound)
			}
			if !x.bound {
				over[b]++
			}
		}
	}
	for _, d := range r.domains {
		for ip, b := range d.ips {
			if b.over != over[b] {
				r.t.Errorf("%v has %d paths that are not looked at, and counts %d", ip, over[b], b.over)
			}
		}
	}
	if r.stats.Local != s.Local || r.stats.Remote != s.Remote || r.stats.Routes != s.Routes {
		r.t.Errorf("counted %+v, there are %+v", r.stats, s)
	}
	if len(want) != len(r.rib) {
		r.t.Errorf("%d routes are announced, %d should be", len(r.rib), len(want))
	}
	for k := range r.rib {
		if !want[k] {
			r.t.Errorf("%+v is announced", k)
		}
	}
}

// sim is a fabric of hosts, each with a Table, that exchange routes over sessions between each
// two of them. A session keeps order and loses nothing until it breaks; then what is under way
// is lost, and once it is back it begins anew, as with BGP.
type sim struct {
	t      testing.TB
	rnd    *rand.Rand
	now    time.Time
	events events
	hosts  []*simHost
	home   map[stationKey]int // where a station is; -1: it is off
	alive  []bool
	with   map[VNI][]int // the hosts that have a VNI: others do not get its routes (RFC 4684)
}

type simHost struct {
	*rig
	sim      *sim
	number   int
	vnis     []VNI
	sessions []*session // to each host
	disk     disk
	high     map[Key]uint32 // announced so far, unless the disk is lost
}

// disk is what a host has saved of its sequence numbers: what is reserved at once, the numbers now
// and then.
type disk struct {
	sequences []Sequence
	reserved  uint32
}

// session carries the routes of one host to another.
type session struct {
	up   bool
	gen  int       // of the connection: what was sent on an earlier one is lost
	last time.Time // when what was sent last arrives
}

// events are what is to happen: the moments in order, and what happens at each, in order.
type events struct {
	moments moments
	at      map[int64][]func() // by moment
}

// moments are nanoseconds from the start, as a heap.
type moments []int64

func (m moments) Len() int           { return len(m) }
func (m moments) Less(i, j int) bool { return m[i] < m[j] }
func (m moments) Swap(i, j int)      { m[i], m[j] = m[j], m[i] }
func (m *moments) Push(x any)        { *m = append(*m, x.(int64)) }
func (m *moments) Pop() any {
	last := (*m)[len(*m)-1]
	*m = (*m)[:len(*m)-1]
	return last
}

func (s *sim) after(d time.Duration, do func()) {
	at := int64(s.now.Add(d).Sub(start))
	if _, ok := s.events.at[at]; !ok {
		heap.Push(&s.events.moments, at)
	}
	s.events.at[at] = append(s.events.at[at], do)
}

// run runs what happens within d.
func (s *sim) run(d time.Duration) {
	end := s.now.Add(d)
	for e := &s.events; len(e.moments) > 0 && e.moments[0] <= int64(end.Sub(start)); {
		at := e.moments[0]
		s.now = start.Add(time.Duration(at))
		for i := 0; i < len(e.at[at]); i++ { // one may add another
			e.at[at][i]()
		}
		delete(e.at, at)
		heap.Pop(&e.moments)
	}
	s.now = end
	for i, h := range s.hosts {
		if s.alive[i] {
			h.Tick(s.now)
		}
	}
}

func newSim(t testing.TB, seed uint64, hosts int, vnisOf func(int) []VNI) *sim {
	s := &sim{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), now: start, home: make(map[stationKey]int), alive: make([]bool, hosts)}
	s.events.at, s.with = make(map[int64][]func()), make(map[VNI][]int)
	s.hosts = make([]*simHost, hosts)
	for i := range s.hosts {
		h := &simHost{sim: s, number: i, vnis: vnisOf(i), sessions: make([]*session, hosts), high: make(map[Key]uint32)}
		for j := range h.sessions {
			h.sessions[j] = &session{}
		}
		s.hosts[i] = h
		for _, v := range h.vnis {
			s.with[v] = append(s.with[v], i)
		}
	}
	for i := range s.hosts {
		s.boot(i)
	}
	return s
}

// boot starts a host with what its disk has.
func (s *sim) boot(i int) {
	h := s.hosts[i]
	r := &rig{t: s.t, rib: make(map[Key]Route), stations: make(map[VNI]map[port.MAC]At), floods: make(map[VNI][]netip.Addr)}
	h.rig = r
	r.Table = New(Config{VTEP: vtep(i + 1), MAC: port.MAC(i + 1), RD: rdOf(vtep(i + 1)), Hold: 20 * time.Second, Sequences: h.disk.sequences, Reserved: h.disk.reserved}, h)
	r.SetVNIs(h.vnis)
	s.alive[i] = true
	for j := range s.hosts {
		if j != i && s.alive[j] && s.hosts[j].rig != nil {
			s.connect(i, j)
			s.connect(j, i)
		}
	}
}

// kill ends a host, whose disk has what is reserved, and some sequence numbers of earlier. The
// others notice by their lost sessions, at different times.
func (s *sim) kill(i int) {
	s.alive[i] = false
	s.hosts[i].disk.reserved = s.hosts[i].Reserved()
	for j := range s.hosts {
		if j != i {
			s.cut(i, j)
			s.cut(j, i)
		}
	}
}

// cut breaks the session from a host to another.
func (s *sim) cut(from, to int) {
	ss := s.hosts[from].sessions[to]
	if !ss.up {
		return
	}
	ss.up = false
	ss.gen++
	s.after(time.Duration(s.rnd.IntN(3000))*time.Millisecond, s.lost(from, to, ss.gen))
}

// interrupt breaks the session between two live hosts in one direction; it is back soon.
func (s *sim) interrupt(from, to int) {
	s.cut(from, to)
	gen := s.hosts[from].sessions[to].gen
	s.after(time.Duration(s.rnd.IntN(4000))*time.Millisecond, func() {
		if s.alive[from] && s.alive[to] && s.hosts[from].sessions[to].gen == gen && !s.hosts[from].sessions[to].up {
			s.connect(from, to)
		}
	})
}

// lost returns what the receiver does once it notices that the session is lost.
func (s *sim) lost(from, to, gen int) func() {
	receiver := s.hosts[to].rig
	return func() {
		if ss := s.hosts[from].sessions[to]; s.hosts[to].rig == receiver && ss.gen == gen && !ss.up {
			receiver.Table.Down(s.now, Peer(from), 0)
		}
	}
}

// connect sends all routes of a host to another, and from then on all changes.
func (s *sim) connect(from, to int) {
	h := s.hosts[from]
	if !slices.ContainsFunc(h.vnis, s.hosts[to].wants) {
		return // they have no routes for each other
	}
	ss := h.sessions[to]
	ss.up = true
	ss.gen++
	ss.last = s.now
	receiver := s.hosts[to].rig
	h.deliver(to, func() { receiver.Table.Down(s.now, Peer(from), time.Minute) })
	for _, r := range h.rib {
		if s.hosts[to].wants(r.Targets[0]) {
			h.deliver(to, func() { receiver.Receive(Peer(from), r) })
		}
	}
	h.deliver(to, func() { receiver.Table.Synced(s.now, Peer(from)) })
}

// deliver does something at another host, after the way there, unless the session breaks.
func (h *simHost) deliver(to int, do func()) {
	s, ss, gen := h.sim, h.sessions[to], h.sessions[to].gen
	at := s.now.Add(time.Duration(s.rnd.IntN(20000)) * time.Microsecond)
	if at.Before(ss.last) {
		at = ss.last
	}
	ss.last = at
	s.after(at.Sub(s.now), func() {
		if ss.up && ss.gen == gen {
			do()
		}
	})
}

// Announce implements Output.
func (h *simHost) Announce(r Route) {
	if r.Seq < h.high[r.Key] {
		h.t.Errorf("host %d announces %v with %d after %d", h.number, r.MAC, r.Seq, h.high[r.Key])
	}
	h.high[r.Key] = r.Seq
	h.rig.Announce(r)
	route := &r // of all copies that are under way
	for _, to := range h.sim.with[r.Targets[0]] {
		if h.sessions[to].up {
			receiver := h.sim.hosts[to].rig
			h.deliver(to, func() { receiver.Receive(Peer(h.number), *route) })
		}
	}
}

// wants reports whether a host has a VNI.
func (h *simHost) wants(v VNI) bool { return slices.Contains(h.vnis, v) }

// Withdraw implements Output.
func (h *simHost) Withdraw(k Key) {
	r := h.rib[k]
	h.rig.Withdraw(k)
	for _, to := range h.sim.with[r.Targets[0]] {
		if h.sessions[to].up {
			receiver := h.sim.hosts[to].rig
			h.deliver(to, func() { receiver.Table.Withdraw(Peer(h.number), k) })
		}
	}
}

// talk makes a station send a frame, if it is on and its host is alive.
func (s *sim) talk(k stationKey) {
	if at := s.home[k]; at >= 0 && s.alive[at] {
		s.hosts[at].Local(s.now, k.vni, k.mac, 1, false)
	}
}

// age makes the hosts forget the stations that they think are here but are not: their switch
// has not heard them for long.
func (s *sim) age() {
	for i, h := range s.hosts {
		if !s.alive[i] {
			continue
		}
		for st := range h.Stations() {
			if k := (stationKey{st.VNI, st.MAC}); st.VTEP == vtep(i+1) && s.home[k] != i {
				defer h.Gone(k.vni, k.mac)
			}
		}
	}
}

// checkModel fails the test unless every live host has chosen what the model chooses of all that is
// announced, one host claims each station that is on, and none any other.
func (s *sim) checkModel() {
	type offer struct {
		claim
		host int
	}
	offers := make(map[stationKey][]offer)
	known := make(map[VNI][]stationKey) // of offers
	floods := make(map[VNI][]netip.Addr)
	for i, h := range s.hosts {
		if !s.alive[i] {
			continue
		}
		h.check()
		for _, r := range h.rib {
			switch v := r.Targets[0]; r.Kind {
			case MAC:
				k := stationKey{v, r.MAC}
				if offers[k] == nil {
					known[v] = append(known[v], k)
				}
				offers[k] = append(offers[k], offer{claim{r.VTEP, r.Seq, r.Sticky}, i})
			case Flood:
				floods[v] = append(floods[v], r.VTEP)
			}
		}
	}
	for k, at := range s.home {
		on := at >= 0 && s.alive[at]
		if !on && len(offers[k]) > 0 || on && (len(offers[k]) != 1 || offers[k][0].host != at) {
			s.t.Errorf("%v is at host %d and announced by %v", k, at, offers[k])
		}
	}
	for i, h := range s.hosts {
		if !s.alive[i] {
			continue
		}
		for _, v := range h.vnis {
			want := slices.DeleteFunc(slices.Clone(floods[v]), func(a netip.Addr) bool { return a == vtep(i+1) })
			slices.SortFunc(want, netip.Addr.Compare)
			if got := h.floods[v]; !slices.Equal(got, want) {
				s.t.Errorf("host %d floods VNI %d to %v, want %v", i, v, got, want)
			}
		}
		for _, v := range h.vnis {
			for _, k := range known[v] {
				of := offers[k]
				best := of[0]
				for _, o := range of[1:] {
					if o.beats(best.claim) {
						best = o
					}
				}
				want := At{VTEP: best.vtep, Pinned: best.sticky}
				if best.host == i {
					want = At{}
				}
				if got := h.stations[v][k.mac]; got != want {
					s.t.Errorf("host %d has %v at %v, the model at %v", i, k, got, want)
				}
			}
		}
		for v, all := range h.stations {
			for mac, at := range all {
				if k := (stationKey{v, mac}); at != (At{}) && len(offers[k]) == 0 {
					s.t.Errorf("host %d has %v at %v; nobody announces it", i, k, at)
				}
			}
		}
	}
}

// Whatever moves, dies, restarts and is lost: once it is quiet, every host has chosen what the
// model chooses.
func TestConvergence(t *testing.T) {
	for seed := range uint64(8) {
		const hosts, stations, vnis = 12, 10, 3
		all := []VNI{100, 101, 102}
		s := newSim(t, seed, hosts, func(i int) []VNI { return all[:1+i%vnis] })
		var keys []stationKey
		for i := range hosts {
			for n := range stations {
				k := stationKey{all[n%(1+i%vnis)], port.MAC(0x0200_0000_0000 + i*1000 + n)}
				s.home[k] = i
				keys = append(keys, k)
			}
		}
		dead := make(map[int]bool)
		for range 600 {
			k := keys[s.rnd.IntN(len(keys))]
			switch what := s.rnd.IntN(100); {
			case what < 50:
				s.talk(k)
			case what < 75: // a migration; the station talks at once
				to := s.rnd.IntN(hosts)
				if s.hosts[to].wants(k.vni) && s.alive[to] {
					s.home[k] = to
					s.talk(k)
				}
			case what < 78:
				s.home[k] = -1
			case what < 92: // a session breaks, and is back soon
				from, to := s.rnd.IntN(hosts), s.rnd.IntN(hosts)
				if from != to && s.alive[from] && s.alive[to] {
					s.interrupt(from, to)
				}
			case what < 95:
				if i := s.rnd.IntN(hosts); s.alive[i] && len(dead) < hosts/3 {
					s.kill(i)
					dead[i] = true
				}
			default:
				for i := range dead {
					if s.rnd.IntN(3) == 0 { // it lost its disk
						s.hosts[i].disk, s.hosts[i].high = disk{}, make(map[Key]uint32)
					}
					delete(dead, i)
					s.boot(i)
					break
				}
			}
			if i := s.rnd.IntN(hosts); s.alive[i] {
				s.hosts[i].disk.sequences = s.hosts[i].Sequences()
			}
			s.run(time.Duration(s.rnd.IntN(400)) * time.Millisecond)
		}
		// It becomes quiet: everyone talks now and then, and holds end.
		for range 4 {
			s.run(15 * time.Second)
			s.age()
			for _, k := range keys {
				s.talk(k)
				s.run(time.Millisecond)
			}
		}
		s.run(10 * time.Second)
		s.checkModel()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func TestManySwitches(t *testing.T) {
	hosts := 200
	if testenv.RaceEnabled {
		hosts = 40
	}
	manySwitches(t, hosts)
}

// BenchmarkThousandSwitches: processor time and resident memory that a fabric of 1,000 switches with
// 100 stations each takes. Nearly all of what it allocates is the tables, so garbage is
// collected only when there is much.
func BenchmarkThousandSwitches(b *testing.B) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(3 << 30))
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	before := usage(b)
	for b.Loop() {
		manySwitches(b, 1000)
	}
	after := usage(b)
	cpu := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	b.ReportMetric(cpu.Seconds()/float64(b.N), "cpu-s/op")
	b.ReportMetric(float64(after.Maxrss)/1024, "MiB-at-most")
}

func usage(b *testing.B) (u syscall.Rusage) {
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u
}

// manySwitches has switches with a hundred stations each. A switch gets the routes of its own
// VNIs, as with route target constraints (RFC 4684): of four, each of which twenty have.
func manySwitches(t testing.TB, hosts int) {
	const stations = 100
	nets := hosts / 5
	s := newSim(t, 1, hosts, func(i int) []VNI {
		v := func(n int) VNI { return VNI(1000 + (i*7+n*n*13)%nets) }
		vnis := []VNI{v(0), v(1), v(2), v(3)}
		slices.Sort(vnis)
		return slices.Compact(vnis)
	})
	s.run(time.Second)
	var keys []stationKey
	for i, h := range s.hosts {
		for n := range stations {
			k := stationKey{h.vnis[n%len(h.vnis)], port.MAC(0x0200_0000_0000 + i*1000 + n)}
			s.home[k] = i
			keys = append(keys, k)
			s.talk(k)
		}
	}
	s.run(time.Second)
	s.checkModel()

	// A tenth of the stations moves; sessions break with all that is under way; twenty hosts die, and
	// half of them are back later.
	for range len(keys) / 10 {
		k := keys[s.rnd.IntN(len(keys))]
		to := s.rnd.IntN(hosts)
		for !s.hosts[to].wants(k.vni) {
			to = (to + 1) % hosts
		}
		s.home[k] = to
		s.talk(k)
	}
	for range 10 * hosts {
		if from, to := s.rnd.IntN(hosts), s.rnd.IntN(hosts); s.hosts[from].sessions[to].up {
			s.interrupt(from, to)
		}
	}
	s.run(5 * time.Millisecond)
	var dead []int
	for range 20 {
		if i := s.rnd.IntN(hosts); s.alive[i] {
			s.kill(i)
			dead = append(dead, i)
		}
	}
	s.run(5 * time.Second)
	for _, i := range dead[:len(dead)/2] {
		s.boot(i)
	}
	s.run(5 * time.Second)
	s.age()
	for k := range s.home {
		s.talk(k)
	}
	s.run(time.Second)
	s.checkModel()
}
