package evpn

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/vswitch/vswitch/port"
)

var (
	start = time.Unix(1e9, 0)
	self  = vtep(1)
)

const (
	vni  VNI      = 100
	mac1 port.MAC = 0x0200_0000_0101

	selfMAC port.MAC = 0x0256_789a_bcde
)

func vtep(n int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, byte(n >> 8), byte(n)}) }

func rdOf(host netip.Addr) func(VNI) RD {
	return func(v VNI) RD {
		a := host.As4()
		return RD{0, 1, a[0], a[1], a[2], a[3], byte(v >> 8), byte(v)}
	}
}

// rig is a Table and what it has put out.
type rig struct {
	t testing.TB
	*Table
	now       time.Time
	rib       map[Key]Route
	stations  map[VNI]map[port.MAC]At
	floods    map[VNI][]netip.Addr
	conflicts []Conflict
	frames    [][]byte
	said      int // announcements and withdrawals
	installed int // calls of Station
	refloods  int // and of Flood
	refreshed []Peer
	deaf      bool // peers cannot repeat their routes
}

func newRig(t testing.TB, c Config) *rig {
	r := &rig{t: t, now: start, rib: make(map[Key]Route), stations: make(map[VNI]map[port.MAC]At), floods: make(map[VNI][]netip.Addr)}
	c.VTEP, c.MAC, c.RD = self, selfMAC, rdOf(self)
	r.Table = New(c, r)
	r.SetVNIs([]VNI{vni})
	return r
}

func (r *rig) Announce(x Route)               { r.rib[x.Key] = x; r.said++ }
func (r *rig) Flood(v VNI, list []netip.Addr) { r.floods[v] = list; r.refloods++ }
func (r *rig) Conflict(c Conflict)            { r.conflicts = append(r.conflicts, c) }
func (r *rig) Refresh(p Peer) bool            { r.refreshed = append(r.refreshed, p); return !r.deaf }
func (r *rig) Send(_ VNI, _ uint16, f []byte) { r.frames = append(r.frames, f) }
func (r *rig) Station(v VNI, m port.MAC, at At) {
	if r.stations[v] == nil {
		r.stations[v] = make(map[port.MAC]At)
	}
	r.stations[v][m] = at
	r.installed++
}
func (r *rig) Withdraw(k Key) {
	if _, ok := r.rib[k]; !ok {
		r.t.Errorf("%v is withdrawn that was not announced", k)
	}
	delete(r.rib, k)
	r.said++
}

// pass lets time pass, with all that becomes due.
func (r *rig) pass(d time.Duration) {
	end := r.now.Add(d)
	for r.now.Before(end) {
		step := r.Tick(r.now)
		if step <= 0 {
			r.t.Fatalf("Tick asks to be called again in %v", step)
		}
		r.now = r.now.Add(min(step, end.Sub(r.now)))
	}
	r.Tick(r.now)
}

// remote returns a MAC route of host n.
func remote(n int, mac port.MAC, seq uint32) Route {
	return Route{Key: Key{Kind: MAC, RD: rdOf(vtep(n))(vni), MAC: mac}, Targets: Targets{vni}, VTEP: vtep(n), Seq: seq}
}

func remoteFlood(n int, v VNI) Route {
	return Route{Key: Key{Kind: Flood, RD: rdOf(vtep(n))(v), IP: vtep(n)}, Targets: Targets{v}, VTEP: vtep(n)}
}

func (r *rig) at(mac port.MAC) At { return r.stations[vni][mac] }

// own returns this host's MAC route of a station.
func (r *rig) own(mac port.MAC) (Route, bool) {
	x, ok := r.rib[Key{Kind: MAC, RD: rdOf(self)(vni), MAC: mac}]
	return x, ok
}

func (r *rig) local(mac port.MAC) { r.Local(r.now, vni, mac, 1, false) }

// Routes lead to so many hosts and no more, whatever their type; the hosts of routes that are gone
// make room.
func TestVTEPLimit(t *testing.T) {
	r := newRig(t, Config{Limits: Limits{VTEPs: 2}})
	r.Receive(1, remote(2, mac1, 0))
	r.Receive(1, remoteFlood(3, vni))
	for _, x := range []Route{remote(4, mac1, 0), remoteFlood(4, vni)} {
		r.Receive(1, x)
	}
	if s := r.Stats(); s.Routes != 2 || s.RefusedRoutes != 2 || s.Beyond != 2 {
		t.Errorf("of a third host: %+v", s)
	}
	moved := remote(2, mac1, 0) // a key's new route leads elsewhere
	moved.VTEP = vtep(3)
	r.Receive(1, moved)
	r.Receive(1, remoteFlood(4, vni))
	if r.at(mac1).VTEP != vtep(3) || !slices.Equal(r.floods[vni], []netip.Addr{vtep(3), vtep(4)}) {
		t.Errorf("the station is at %v, floods go to %v", r.at(mac1), r.floods[vni])
	}
	r.Table.Down(r.now, 1, 0)
	if len(r.vteps) != 0 {
		t.Errorf("hosts without routes: %v", r.vteps)
	}
	r.check()
}

// Within a batch a flood list is put out once.
func TestBatch(t *testing.T) {
	r := newRig(t, Config{})
	const hosts = 300
	r.Batch(func() {
		for i := range hosts {
			r.Receive(1, remoteFlood(2+i, vni))
			if len(r.floods[vni]) > 0 {
				t.Fatal("a list is put out within the batch")
			}
		}
		r.Batch(func() { r.Table.Withdraw(1, remoteFlood(2, vni).Key) })
	})
	if n := len(r.floods[vni]); n != hosts-1 || r.refloods != 1 {
		t.Errorf("floods go to %d hosts, put out %d times", n, r.refloods)
	}
	r.Table.Down(r.now, 1, 0)
	if len(r.floods[vni]) != 0 || r.refloods != 2 {
		t.Errorf("floods go to %v, put out %d times", r.floods[vni], r.refloods)
	}
	r.Receive(1, remoteFlood(2, vni))
	r.Batch(func() { // the network is gone before the batch ends
		r.Receive(1, remoteFlood(3, vni))
		r.SetVNIs(nil)
	})
	r.check()
	if len(r.floods[vni]) != 0 {
		t.Errorf("a network that is gone floods to %v", r.floods[vni])
	}
}

func TestChoice(t *testing.T) {
	sticky := func(x Route) Route { x.Sticky = true; return x }
	for _, c := range []struct {
		name   string
		routes []Route
		want   At
	}{
		{"one", []Route{remote(2, mac1, 0)}, At{VTEP: vtep(2)}},
		{"the highest sequence", []Route{remote(2, mac1, 3), remote(3, mac1, 4)}, At{VTEP: vtep(3)}},
		{"of equals the lowest VTEP", []Route{remote(300, mac1, 4), remote(3, mac1, 4)}, At{VTEP: vtep(3)}},
		{"sticky above sequence", []Route{remote(2, mac1, 9), sticky(remote(3, mac1, 0))}, At{VTEP: vtep(3), Pinned: true}},
		{"sequences of sticky ones", []Route{sticky(remote(2, mac1, 1)), sticky(remote(3, mac1, 2))}, At{VTEP: vtep(3), Pinned: true}},
	} {
		for order := range 2 {
			r := newRig(t, Config{})
			for _, x := range c.routes {
				r.Receive(7, x)
			}
			if got := r.at(mac1); got != c.want {
				t.Errorf("%s, order %d: %v, want %v", c.name, order, got, c.want)
			}
			slices.Reverse(c.routes)
		}
	}
}

// A route without sense, or of another VNI, changes nothing.
func TestSenselessRoutes(t *testing.T) {
	r := newRig(t, Config{})
	for n, c := range []struct {
		change func(*Route)
		want   Refusal
	}{
		{func(x *Route) { x.VTEP = self }, OwnVTEP},
		{func(x *Route) { x.VTEP = netip.MustParseAddr("2001:db8::1") }, OtherFamily},
		{func(x *Route) { x.VTEP = netip.MustParseAddr("0.0.0.0") }, NoHost},
		{func(x *Route) { x.VTEP = netip.MustParseAddr("224.0.0.1") }, NoHost},
		{func(x *Route) { x.VTEP = netip.MustParseAddr("127.0.0.1") }, NoHost},
		{func(x *Route) { x.VTEP = netip.Addr{} }, NoHost},
		{func(x *Route) { x.MAC = 0 }, NoStation},
		{func(x *Route) { x.MAC = 0x0100_5e00_0001 }, NoStation},
		{func(x *Route) { x.MAC = selfMAC }, OwnMAC}, // the switch's own
		{func(x *Route) { x.Kind = 5 }, NoStation},
		{func(x *Route) { x.Targets = Targets{200} }, Taken},
		{func(x *Route) { x.Targets = Targets{} }, Taken},
		{func(x *Route) { x.Label = 200 }, Taken},
		{func(x *Route) { x.Kind, x.MAC, x.Label = Flood, 0, 200 }, Taken},
	} {
		x := remote(2, mac1, 0)
		c.change(&x)
		if got := r.Receive(7, x); got != c.want {
			t.Errorf("route %d: %d, want %d", n, got, c.want)
		}
	}
	r.Withdraw7(Key{})
	if r.installed != 0 || len(r.floods[vni]) > 0 || r.Stats().RefusedRoutes != 10 || r.Stats().Routes != 2 {
		t.Errorf("%d stations, %+v", r.installed, r.Stats())
	}
	// One that replaces a good one takes that away.
	r.Receive(7, remote(2, mac1, 0))
	bad := remote(2, mac1, 0)
	bad.VTEP = self
	r.Receive(7, bad)
	if got := r.at(mac1); got != (At{}) {
		t.Errorf("%v", got)
	}
}

// Withdraw7 withdraws a route of peer 7: rig itself has the Withdraw of Output.
func (r *rig) Withdraw7(k Key) { r.Table.Withdraw(7, k) }

func TestMobility(t *testing.T) {
	r := newRig(t, Config{})
	r.local(mac1)
	if x, ok := r.own(mac1); !ok || x.Seq != 0 || x.VTEP != self || x.Targets != (Targets{vni}) {
		t.Fatalf("announced: %+v", x)
	}
	// It moves to host 2, which claims it: the own route goes, frames follow at once.
	r.Receive(7, remote(2, mac1, 1))
	if _, ok := r.own(mac1); ok || r.at(mac1) != (At{VTEP: vtep(2)}) {
		t.Errorf("after it left: %v at %v", ok, r.at(mac1))
	}
	// It comes back.
	r.local(mac1)
	if x, ok := r.own(mac1); !ok || x.Seq != 2 || r.at(mac1) != (At{}) {
		t.Errorf("after it came back: %+v at %v", x, r.at(mac1))
	}
	if len(r.frames) != 1 || port.MACFrom(r.frames[0]) != broadcast || port.MACFrom(r.frames[0][6:]) != mac1 {
		t.Errorf("it is not made known to all here: %x", r.frames)
	}
	// Host 2 has not heard of that yet, or has and withdraws: nothing changes.
	said := r.said
	r.Receive(7, remote(2, mac1, 1))
	r.Withdraw7(remote(2, mac1, 1).Key)
	if r.said != said || r.at(mac1) != (At{}) {
		t.Errorf("%d changes, at %v", r.said-said, r.at(mac1))
	}
	// The sequence number does not go back, not even in a later run.
	r.Gone(vni, mac1)
	if _, ok := r.own(mac1); ok {
		t.Error("it is gone, but announced")
	}
	r.local(mac1)
	if x, _ := r.own(mac1); x.Seq != 2 {
		t.Errorf("seq %d after its absence", x.Seq)
	}
	later := newRig(t, Config{Sequences: r.Sequences()})
	later.local(mac1)
	if x, _ := later.own(mac1); x.Seq != 2 {
		t.Errorf("seq %d after a restart", x.Seq)
	}
}

// TestKilled: a run that ends without saving its sequence numbers is followed by one that
// announces no lower ones, and takes no station that moved meanwhile.
func TestKilled(t *testing.T) {
	r := newRig(t, Config{})
	for seq := range uint32(40) {
		r.Receive(7, remote(2, mac1+port.MAC(seq), seq))
		if seq >= r.Reserved() {
			t.Fatalf("%d is claimed before %d is reserved", seq+1, r.Reserved())
		}
		r.local(mac1 + port.MAC(seq))
	}
	last, _ := r.own(mac1 + 39)
	if last.Seq != 40 {
		t.Fatalf("seq %d", last.Seq)
	}
	r.Receive(7, remote(3, mac1+50, 1<<31)) // an absurd one
	if n := r.Reserved(); n > 60 {
		t.Errorf("%d is reserved", n)
	}

	next := newRig(t, Config{Reserved: r.Reserved()})
	next.local(mac1 + 39)
	next.local(mac1)
	if next.Reserved() != r.Reserved() {
		t.Errorf("the next run has reserved %d, and announces %d", next.Reserved(), r.Reserved())
	}
	next.Receive(7, remote(2, mac1, 1)) // it moved
	next.pass(reservedWait / 2)
	if len(next.rib) != 1 {
		t.Errorf("stations are announced before the peers' routes are known: %v", next.rib)
	}
	next.Synced(7)
	next.pass(time.Second)
	if x, ok := next.own(mac1 + 39); !ok || x.Seq < last.Seq {
		t.Errorf("seq %d after %d", x.Seq, last.Seq)
	}
	if _, ok := next.own(mac1); ok || next.at(mac1) != (At{VTEP: vtep(2)}) {
		t.Errorf("the station that moved is at %v", next.at(mac1))
	}
	next.local(mac1) // and comes back
	if x, ok := next.own(mac1); !ok || x.Seq < 2 {
		t.Errorf("it comes back: %+v", x)
	}
	next.pass(reservedFor)
	next.local(mac1 + 60)
	if x, _ := next.own(mac1 + 60); x.Seq != 0 {
		t.Errorf("much later: seq %d", x.Seq)
	}

	alone := newRig(t, Config{Reserved: 8})
	alone.local(mac1)
	alone.pass(reservedWait + time.Second)
	if _, ok := alone.own(mac1); !ok {
		t.Error("without a peer nothing is announced")
	}
}

// TestReservedIsBounded: numbers from 2^24 on are not reserved, whoever claims a station with one. So
// runs that are killed one after another go on with the same number.
func TestReservedIsBounded(t *testing.T) {
	r := newRig(t, Config{})
	r.Receive(7, remote(2, mac1, maxReserved-1))
	r.Receive(7, remote(2, mac1+1, maxReserved+reserveAhead-1))
	r.local(mac1 + 1)
	if n := r.Reserved(); n != 0 {
		t.Errorf("%d is reserved", n)
	}
	r.Receive(7, remote(2, mac1+2, maxReserved-2)) // the highest for which numbers are reserved
	reserved := r.Reserved()
	if reserved < maxReserved || reserved >= maxReserved+reserveAhead {
		t.Fatalf("%d is reserved", reserved)
	}
	for n := range 3 {
		r = newRig(t, Config{Reserved: reserved})
		r.Synced(7)
		r.local(mac1)
		if x, ok := r.own(mac1); !ok || x.Seq != reserved || r.Reserved() != reserved {
			t.Errorf("run %d after %d: announced %v, %+v; %d is reserved", n, reserved, ok, x, r.Reserved())
		}
	}
}

// Of two hosts that claim a station with the same sequence number, the one with the lower VTEP
// keeps it.
func TestEqualClaims(t *testing.T) {
	r := newRig(t, Config{})
	r.local(mac1)
	r.Receive(7, remote(2, mac1, 0))
	if _, ok := r.own(mac1); !ok || r.at(mac1) != (At{}) {
		t.Error("the lower VTEP gave up")
	}
	high := newRig(t, Config{})
	high.Table = New(Config{VTEP: vtep(9), RD: rdOf(self)}, high)
	high.SetVNIs([]VNI{vni})
	high.local(mac1)
	high.Receive(7, remote(2, mac1, 0))
	if _, ok := high.own(mac1); ok || high.at(mac1) != (At{VTEP: vtep(2)}) {
		t.Error("the higher VTEP did not give up")
	}
}

// The highest sequence number there is cannot be exceeded.
func TestHighestSequence(t *testing.T) {
	r := newRig(t, Config{})
	r.Receive(7, remote(2, mac1, 1<<32-1))
	r.local(mac1)
	if x, ok := r.own(mac1); !ok || x.Seq != 1<<32-1 {
		t.Errorf("%+v", x)
	}
}

func TestSticky(t *testing.T) {
	r := newRig(t, Config{})
	x := remote(2, mac1, 0)
	x.Sticky = true
	r.Receive(7, x)
	before := r.installed
	for range 3 {
		r.local(mac1)
	}
	if _, ok := r.own(mac1); ok || r.installed != before+3 || r.at(mac1) != (At{vtep(2), true}) {
		t.Errorf("a sticky station moved: %v, at %v", ok, r.at(mac1))
	}
	if want := []Conflict{{VNI: vni, MAC: mac1, Port: 1, VTEP: vtep(2)}}; !reflect.DeepEqual(r.conflicts, want) {
		t.Errorf("conflicts: %+v", r.conflicts)
	}
	// One that is sticky here stays here.
	const mac2 = mac1 + 1
	r.Local(r.now, vni, mac2, 1, true)
	r.Receive(7, remote(2, mac2, 9))
	if x, ok := r.own(mac2); !ok || !x.Sticky || r.at(mac2) != (At{}) {
		t.Errorf("%+v at %v", x, r.at(mac2))
	}
	// It loses that, and the higher sequence number of the other host counts.
	r.Local(r.now, vni, mac2, 1, false)
	if _, ok := r.own(mac2); ok || r.at(mac2) != (At{VTEP: vtep(2)}) {
		t.Errorf("%v at %v", ok, r.at(mac2))
	}
}

// Two hosts have a static entry of one station: it is at the one that has it since the other, and stays there, however
// often the other says that it has it still. The other's user reads of it.
func TestStickyAtTwo(t *testing.T) {
	r := newRig(t, Config{})
	again := func(what string, here bool, seq uint32, conflicts int) {
		t.Helper()
		for range 10 {
			r.Local(r.now, vni, mac1, 1, true)
			r.pass(time.Minute)
		}
		if x, ok := r.own(mac1); ok != here || x.Seq != seq || len(r.conflicts) != conflicts {
			t.Errorf("%s: %v, %+v; conflicts: %+v", what, ok, x, r.conflicts)
		}
	}
	theirs := remote(2, mac1, 1)
	theirs.Sticky = true
	again("alone", true, 0, 0)
	r.Receive(7, theirs)
	again("the other has it since", false, 0, 1)
	if r.at(mac1) != (At{vtep(2), true}) {
		t.Errorf("it is at %v", r.at(mac1))
	}
	r.Gone(vni, mac1) // the user adds it once more
	again("this one has it since", true, 2, 1)
	theirs.Seq = 3
	r.Receive(7, theirs)
	again("and the other", false, 0, 2)
	theirs.Sticky = false
	r.Receive(7, theirs)
	again("it is not static there any more", true, 4, 2)
	theirs.Sticky, theirs.Seq = true, 5
	r.Receive(7, theirs)
	again("it is again", false, 0, 3)
	r.Table.Withdraw(7, theirs.Key)
	again("the other takes it back", true, 4, 3)
}

// Guests of other hosts that claim a station in turn, each less often than makes it a duplicate there,
// do not have it held away from where it was for long; they do elsewhere, and when it comes back all
// the time.
func TestHome(t *testing.T) {
	for _, c := range []struct {
		here time.Duration // before the claims
		away time.Duration // after the first
		want int           // returns until it is a duplicate
	}{
		{Settled - time.Second, 0, Moves},
		{Settled, 0, HomeMoves},
		{Settled, Settled - time.Second, HomeMoves},
		{Settled, Settled, Moves},
	} {
		r := newRig(t, Config{})
		r.local(mac1)
		r.pass(c.here)
		returns := 0
		for seq := uint32(1); len(r.conflicts) == 0 && returns < 2*HomeMoves; seq += 2 {
			claim := remote(2+returns%10, mac1, seq)
			r.Receive(7, claim)
			if returns == 0 {
				r.pass(c.away)
			}
			r.pass(time.Second)
			r.local(mac1)
			if returns++; len(r.conflicts) == 0 {
				r.Withdraw7(claim.Key)
			}
			r.check()
		}
		if returns != c.want || r.conflicts[0].Moves != c.want {
			t.Errorf("%+v: held after %d returns: %+v", c, returns, r.conflicts)
		}
	}
}

// Two hosts hear one address again and again: it is held at the other one, and tried again
// later.
func TestDuplicate(t *testing.T) {
	r := newRig(t, Config{Hold: time.Minute})
	for n := range Moves {
		r.Receive(7, remote(2, mac1, uint32(2*n)))
		r.pass(time.Second)
		r.local(mac1)
	}
	want := []Conflict{{VNI: vni, MAC: mac1, Port: 1, VTEP: vtep(2), Held: time.Minute, Moves: Moves}}
	if !reflect.DeepEqual(r.conflicts, want) || r.at(mac1) != (At{vtep(2), true}) {
		t.Fatalf("%+v at %v", r.conflicts, r.at(mac1))
	}
	r.local(mac1)
	if _, ok := r.own(mac1); ok {
		t.Error("a held station is announced")
	}
	r.pass(time.Minute)
	if r.at(mac1) != (At{VTEP: vtep(2)}) {
		t.Errorf("after the hold: %v", r.at(mac1))
	}
	r.local(mac1)
	if x, ok := r.own(mac1); !ok || x.Seq != 2*(Moves-1)+1 {
		t.Errorf("after the hold: %+v, %v", x, ok)
	}
	// Slow moves are no duplicate.
	slow := newRig(t, Config{})
	for n := range 3 * Moves {
		slow.Receive(7, remote(2, mac1, uint32(2*n)))
		slow.pass(Window/(Moves-1) + time.Second)
		slow.local(mac1)
	}
	if len(slow.conflicts) != 0 {
		t.Errorf("%+v", slow.conflicts)
	}
}

// A held station that the other host no longer claims is here.
func TestHoldEndsWithTheOther(t *testing.T) {
	r := newRig(t, Config{})
	for n := range Moves {
		r.Receive(7, remote(2, mac1, uint32(2*n)))
		r.local(mac1)
	}
	r.Withdraw7(remote(2, mac1, 0).Key)
	if r.at(mac1) != (At{}) {
		t.Fatalf("%v", r.at(mac1))
	}
	r.local(mac1)
	if _, ok := r.own(mac1); !ok {
		t.Error("it is not announced")
	}
	if len(r.timers) != 0 {
		t.Errorf("%d timers are left", len(r.timers))
	}
}

func TestFloodLists(t *testing.T) {
	r := newRig(t, Config{})
	for n := 9; n > 1; n-- {
		r.Receive(Peer(n), remoteFlood(n, vni))
		r.Receive(Peer(n+1), remoteFlood(n, vni)) // by two reflectors
		r.Receive(Peer(n), remoteFlood(n, 200))   // of a VNI that is not here
	}
	var want []netip.Addr
	for n := range 8 {
		want = append(want, vtep(n+2))
	}
	if got := r.floods[vni]; !slices.Equal(got, want) || len(r.floods) != 1 {
		t.Errorf("%v", r.floods)
	}
	r.Table.Withdraw(9, remoteFlood(9, vni).Key)
	if got := r.floods[vni]; !slices.Equal(got, want) {
		t.Errorf("%v, though one reflector still has 9", got)
	}
	r.Table.Withdraw(10, remoteFlood(9, vni).Key)
	if got := r.floods[vni]; !slices.Equal(got, want[:7]) {
		t.Errorf("%v", got)
	}
	// The stations of a host without flood route stay, and the other way round.
	r.Receive(7, remote(9, mac1, 0))
	if r.at(mac1).VTEP != vtep(9) || len(r.floods[vni]) != 7 {
		t.Errorf("%v, %v", r.at(mac1), r.floods)
	}
}

// A VNI that comes and goes takes its routes, own and foreign, with it.
func TestVNIs(t *testing.T) {
	r := newRig(t, Config{})
	if _, ok := r.rib[r.floodKey(vni)]; !ok {
		t.Error("the flood route is not announced")
	}
	two := remote(2, mac1, 0)
	two.Targets = Targets{200, vni}
	r.Receive(7, two)
	r.Receive(7, remoteFlood(3, 200))
	r.local(mac1 + 1)
	r.SetVNIs([]VNI{vni, 200, 0, MaxVNI + 1})
	if got := r.floods[200]; !slices.Equal(got, []netip.Addr{vtep(3)}) || r.at(mac1).VTEP != vtep(2) || len(r.domains) != 2 {
		t.Errorf("%v, %v", r.floods, r.at(mac1))
	}
	r.SetVNIs([]VNI{200})
	if at := r.stations[200][mac1]; at.VTEP != vtep(2) || r.at(mac1) != (At{}) || len(r.rib) != 1 {
		t.Errorf("at %v and %v; %v announced", at, r.at(mac1), r.rib)
	}
	r.SetVNIs(nil)
	if s := r.Stats(); len(r.rib) != 0 || s.Local != 0 || s.Remote != 0 || s.Routes != 2 || len(r.floods[200]) != 0 || len(r.timers) != 0 {
		t.Errorf("left: %v, %+v, %v", r.rib, s, r.floods)
	}
	r.Local(r.now, vni, mac1, 1, false)
	r.Gone(vni, mac1)
	r.Frame(r.now, vni, 1, rarp(mac1))
}

// Of a VNI that no other host has, nothing is said of flooding.
func TestVNIOfNobody(t *testing.T) {
	r := newRig(t, Config{})
	r.SetVNIs(nil)
	if r.refloods != 0 {
		t.Errorf("%d lists of hosts, of none", r.refloods)
	}
}

// The routes of a lost peer go at once, or after its restart time, but for those that it
// repeats.
func TestLostPeer(t *testing.T) {
	const mac2, mac3 = mac1 + 1, mac1 + 2
	r := newRig(t, Config{})
	r.Down(7, 0)
	for _, m := range []port.MAC{mac1, mac2, mac3} {
		r.Receive(7, remote(2, m, 0))
	}
	r.Receive(8, remote(2, mac3, 0))
	r.Down(7, 2*time.Minute)
	r.pass(time.Minute)
	if r.at(mac1).VTEP != vtep(2) {
		t.Fatal("a stale route is gone before its time")
	}
	r.Receive(7, remote(2, mac1, 0))
	r.Synced(7)
	if r.at(mac1).VTEP != vtep(2) || r.at(mac2) != (At{}) || r.at(mac3).VTEP != vtep(2) {
		t.Errorf("after its return: %v, %v, %v", r.at(mac1), r.at(mac2), r.at(mac3))
	}
	r.Down(7, 2*time.Minute)
	r.pass(2 * time.Minute)
	if r.at(mac1) != (At{}) {
		t.Error("a stale route outlives its time")
	}
	r.Down(8, 0)
	if s := r.Stats(); s.Routes != 0 || len(r.peers) != 0 || s.Remote != 0 {
		t.Errorf("%+v", s)
	}
}

// TestLostAgainAndAgain: a peer whose session is lost before it has sent all its routes, time after time, keeps
// those that it repeats, and no others (RFC 4724 section 4.2).
func TestLostAgainAndAgain(t *testing.T) {
	const mac2 = mac1 + 1
	r := newRig(t, Config{})
	r.Receive(7, remote(2, mac1, 0))
	r.Receive(7, remote(2, mac2, 0))
	r.Down(7, time.Minute)
	for n := range 5 {
		r.pass(50 * time.Second)
		r.Receive(7, remote(2, mac1, 0))
		if kept := r.at(mac2) != (At{}); kept != (n == 0) {
			t.Errorf("session %d: the other route is kept: %v", n, kept)
		}
		r.Down(7, time.Minute)
		if r.at(mac1).VTEP != vtep(2) || r.at(mac2) != (At{}) {
			t.Errorf("lost %d times: %v, %v", n+2, r.at(mac1), r.at(mac2))
		}
	}
	r.pass(time.Minute)
	if r.Stats().Routes != 0 || len(r.peers) != 0 || len(r.timers) != 0 {
		t.Errorf("it does not come back, and leaves %+v, %d timers", r.Stats(), len(r.timers))
	}
}

// Down is Table.Down at the rig's time.
func (r *rig) Synced(p Peer)                   { r.Table.Synced(r.now, p) }
func (r *rig) Down(p Peer, keep time.Duration) { r.Table.Down(r.now, p, keep) }

func TestLimits(t *testing.T) {
	r := newRig(t, Config{Limits: Limits{Routes: 3, Stations: 2}})
	for n := range 5 {
		r.Receive(7, remote(2, mac1+port.MAC(n), 0))
		r.Local(r.now, vni, mac1+port.MAC(100+n), 1, false)
	}
	if s := r.Stats(); s.Routes != 3 || s.Local != 2 || s.RefusedRoutes != 2 || s.RefusedLocal != 3 {
		t.Errorf("%+v", s)
	}
	r.Receive(7, remote(2, mac1, 5)) // a replacement needs no room
	crowd := newRig(t, Config{Limits: Limits{Stations: 100}})
	for n := range 1000 {
		crowd.Local(crowd.now, vni, mac1+port.MAC(n), 1, false)
	}
	for n := range 40 {
		crowd.Local(crowd.now, vni, mac1+port.MAC(2000+n), 2, false)
	}
	crowd.Local(crowd.now, vni, mac1+port.MAC(3000), 3, true)
	crowd.Local(crowd.now, vni, mac1+port.MAC(999), 1, false) // again, of the crowd
	if s := crowd.Stats(); s.Local != 100 || s.LeftOut != 900+40+1+1 || s.Largest != 1 || crowd.ports[1].stations != 59 || crowd.ports[2].stations != 40 || crowd.ports[3].stations != 1 {
		t.Errorf("%+v; of the ports %d, %d, %d", s, crowd.ports[1].stations, crowd.ports[2].stations, crowd.ports[3].stations)
	}
	for n := range 40 {
		if crowd.installed > 0 || crowd.domains[vni].stations[mac1+port.MAC(2000+n)].local == nil {
			t.Errorf("station %d of the other port is left out", n)
		}
	}
	full := newRig(t, Config{Limits: Limits{Stations: 2}}) // what must stay, stays
	full.Local(full.now, vni, mac1, 1, true)
	full.Local(full.now, vni, mac1+1, 1, true)
	full.Local(full.now, vni, mac1+2, 2, false)
	if s := full.Stats(); s.Local != 2 || full.ports[1].stations != 2 {
		t.Errorf("sticky stations are displaced: %+v", s)
	}
	if s := r.Stats(); s.RefusedRoutes != 2 {
		t.Errorf("%+v", s)
	}
	many := newRig(t, Config{})
	for n := range 2 * maxSequences {
		m := mac1 + port.MAC(n)
		many.Receive(7, remote(2, m, 3))
		many.local(m)
		many.Gone(vni, m)
		many.Withdraw7(remote(2, m, 3).Key)
	}
	if len(many.past) != maxSequences || len(many.Sequences()) != maxSequences {
		t.Errorf("%d sequence numbers are kept", len(many.past))
	}
	const here = 1000 // the numbers of stations that are here come on top
	for n := range here {
		m := mac1 + port.MAC(3*maxSequences+n)
		many.Receive(7, remote(2, m, 3))
		many.local(m)
	}
	for n := range here {
		if m := mac1 + port.MAC(3*maxSequences+n); many.past[stationKey{vni, m}] != 4 {
			t.Fatalf("the number of station %d, which is here, is not kept", n)
		}
	}
	if n := len(many.Sequences()); n > maxSequences+here || n < maxSequences {
		t.Errorf("%d sequence numbers are kept", n)
	}
}

// TestSweptInTurns: very many routes of a peer that is lost go in several turns; what it announces
// meanwhile, in a new session, stays.
func TestSweptInTurns(t *testing.T) {
	r := newRig(t, Config{})
	const routes = 3 * sweepBatch
	for n := range routes {
		r.Receive(7, remote(2, mac1+port.MAC(n), 0))
	}
	r.Down(7, 0)
	if got := r.Count(7); got != routes-sweepBatch {
		t.Errorf("%d routes are left after the first turn", got)
	}
	r.Receive(7, remote(2, mac1, 0))
	for n := range 5 {
		if wait := r.Tick(r.now); n < 2 && wait > sweepGap {
			t.Errorf("it goes on in %v", wait)
		}
		r.now = r.now.Add(sweepGap)
	}
	if got := r.Count(7); got != 1 || r.at(mac1).VTEP != vtep(2) {
		t.Errorf("%d routes are left", got)
	}
	r.Down(7, 0)
	if r.peers[7] != nil || r.Stats().Routes != 0 {
		t.Error("the peer is not forgotten")
	}
	r.check()
}

// TestManyPaths: a peer that announces one station, or one IP address, by very many routes makes
// no change slow; what is beyond the limit is kept, and not looked at.
func TestManyPaths(t *testing.T) {
	r := newRig(t, Config{})
	route := func(n int, mac port.MAC) Route {
		x := remoteIP(2, mac, ip4b)
		x.Tag = uint32(n)
		return x
	}
	for n := range 2 * maxPaths {
		r.Receive(7, route(n, mac1))
	}
	s := r.domains[vni].stations[mac1]
	if len(s.paths) != maxPaths || r.Stats().Unused != maxPaths || r.at(mac1).VTEP != vtep(2) {
		t.Errorf("%d paths of a station, %+v", len(s.paths), r.Stats())
	}
	for n := range 2 * maxPaths {
		r.Receive(8, route(0, mac1+port.MAC(n)))
	}
	b := r.domains[vni].ips[ip4b]
	if len(b.paths) != maxPaths || b.over != 2*maxPaths-1 {
		t.Errorf("%d paths of an address", len(b.paths))
	}
	r.Down(7, 0)
	for n := 1; n < 2*maxPaths-1; n++ {
		r.Table.Withdraw(8, route(0, mac1+port.MAC(n)).Key)
	}
	if _, _, ok := r.domains[vni].remote(ip4b); ok {
		t.Error("an address of which not all stations are looked at is answered for")
	}
	r.Table.Withdraw(8, route(0, mac1+2*maxPaths-1).Key)
	r.pass(2 * refreshEvery)
	if mac, _, ok := r.domains[vni].remote(ip4b); !ok || mac != mac1 {
		t.Error("an address that one station alone has by now is not answered for")
	}
	r.Table.Withdraw(8, route(0, mac1).Key)
	if len(r.domains[vni].ips) != 0 || len(r.domains[vni].stations) != 0 {
		t.Error("something is left of routes that are gone")
	}
	r.check()
}

// TestUnusedPaths: routes of a station that had too many are used once it has fewer.
func TestUnusedPaths(t *testing.T) {
	r := newRig(t, Config{})
	route := func(n int) Route {
		x := remote(2+n/maxPaths, mac1, 0)
		x.Tag = uint32(n)
		return x
	}
	const all = maxPaths + 100
	for n := range all {
		r.Receive(7, route(n))
	}
	paths := func() int { return len(r.domains[vni].stations[mac1].paths) }
	r.pass(2 * refreshEvery)
	if n := paths(); n != maxPaths {
		t.Errorf("%d paths", n)
	}
	for n := range 50 {
		r.Table.Withdraw(7, route(n).Key)
	}
	r.pass(refreshEvery)
	if n := paths(); n != maxPaths {
		t.Errorf("%d paths, once 50 are gone", n)
	}
	for n := 50; n < maxPaths; n++ {
		r.Table.Withdraw(7, route(n).Key)
	}
	r.pass(refreshEvery)
	if n := paths(); n != 100 || r.at(mac1).VTEP != vtep(3) || r.unused {
		t.Errorf("%d paths, at %v", n, r.at(mac1))
	}
	r.check()
	for n := maxPaths; n < all; n++ {
		r.Table.Withdraw(7, route(n).Key)
	}
	if r.at(mac1) != (At{}) || len(r.domains[vni].stations) != 0 {
		t.Error("something is left of routes that are gone")
	}
}

// TestUnboundPaths: an address that had too many routes is answered for once it has fewer and they agree, whichever of
// them have gone.
func TestUnboundPaths(t *testing.T) {
	r := newRig(t, Config{})
	route := func(n int) Route {
		x := remoteIP(2, mac1, ip4b)
		x.RD[7], x.Tag = byte(n%2), uint32(n)
		return x
	}
	const all = maxPaths + 100
	for n := range all {
		x := route(n)
		x.MAC += port.MAC(n % 2) // two stations, so that neither has too many
		r.Receive(7, x)
	}
	r.check()
	r.SetVNIs(nil)
	r.SetVNIs([]VNI{vni}) // they are entered anew
	r.check()
	answered := func() (ok bool) { _, _, ok = r.domains[vni].remote(ip4b); return ok }
	for n := 1; n < 200; n += 2 { // of the other station, and looked at
		x := route(n)
		x.MAC++
		r.Table.Withdraw(7, x.Key)
	}
	if answered() {
		t.Error("an address of which not all routes are looked at is answered for")
	}
	r.check()
	r.pass(2 * refreshEvery)
	if b := r.domains[vni].ips[ip4b]; b.over != 0 || len(b.paths) != maxPaths || r.unused {
		t.Errorf("%d paths, and %d that are not looked at", len(b.paths), b.over)
	}
	for n := 201; n < all; n += 2 {
		if x := route(n); answered() {
			t.Fatal("an address of two stations is answered for")
		} else {
			x.MAC++
			r.Table.Withdraw(7, x.Key)
		}
	}
	if !answered() {
		t.Error("an address of one station is not answered for")
	}
	r.check()
}

// TestFairRoutes: a peer that fills the table gives way to the others until all have as many, and
// what is left out of each is counted until its session ends.
func TestFairRoutes(t *testing.T) {
	r := newRig(t, Config{Limits: Limits{Routes: 8}})
	for n := range 10 {
		r.Receive(7, remote(2, mac1+port.MAC(n), 0))
	}
	if got := r.Count(7); got != 8 || r.LeftOut(7) != 2 {
		t.Errorf("alone: %d routes, %d left out", got, r.LeftOut(7))
	}
	for n := range 10 {
		r.Receive(8, remote(3, mac1+port.MAC(100+n), 0))
	}
	if a, b := r.Count(7), r.Count(8); a != 4 || b != 4 || r.LeftOut(7) != 6 || r.LeftOut(8) != 6 {
		t.Errorf("%d and %d routes, %d and %d left out", a, b, r.LeftOut(7), r.LeftOut(8))
	}
	r.Receive(9, remote(4, mac1+200, 0))
	if r.Count(9) != 1 || r.at(mac1+200) != (At{VTEP: vtep(4)}) {
		t.Error("a third peer finds no room")
	}
	if s := r.Stats(); s.Routes != 8 || s.Remote != 8 || s.RefusedRoutes != 13 || s.Beyond != 13 {
		t.Errorf("%+v", s)
	}
	r.check()
	r.Down(8, 0)
	if r.LeftOut(8) != 0 || r.Count(8) != 0 {
		t.Errorf("after the session: %d left out", r.LeftOut(8))
	}
}

// TestFairHosts: of the hosts behind one peer, the one with most routes gives way to the others, and keeps its
// flood route.
func TestFairHosts(t *testing.T) {
	r := newRig(t, Config{Limits: Limits{Routes: 8}})
	r.Receive(7, remoteFlood(2, vni))
	for n := range 10 {
		r.Receive(7, remote(2, mac1+port.MAC(n), 0))
	}
	r.Receive(7, remoteFlood(3, vni))
	for n := range 10 {
		r.Receive(7, remote(3, mac1+port.MAC(100+n), 0))
	}
	if r.vteps[vtep(2)] != 4 || r.vteps[vtep(3)] != 4 || r.Count(7) != 8 || r.LeftOut(7) != 14 {
		t.Errorf("to the hosts lead %v, %d routes, %d left out", r.vteps, r.Count(7), r.LeftOut(7))
	}
	if !slices.Equal(r.floods[vni], []netip.Addr{vtep(2), vtep(3)}) {
		t.Errorf("floods go to %v", r.floods[vni])
	}
	if s := r.Stats(); s.Routes != 8 || s.Remote != 6 || s.Beyond != 14 {
		t.Errorf("%+v", s)
	}
	r.check()
}

// TestRefresh: what was left out for want of room comes back once there is some: the peer is asked for it, once a
// minute at most.
func TestRefresh(t *testing.T) {
	r := newRig(t, Config{Limits: Limits{Routes: 32, VTEPs: 16}})
	route := func(n int) Route { return remote(2, mac1+port.MAC(n), 0) }
	all := func(from Peer) {
		for n := range 40 {
			r.Receive(from, route(n))
		}
	}
	want := func(what string, left int, peers ...Peer) {
		t.Helper()
		if !slices.Equal(r.refreshed, peers) || r.LeftOut(7) != left {
			t.Errorf("%s: %v are asked, %d routes left out", what, r.refreshed, r.LeftOut(7))
		}
		r.refreshed = nil
	}
	all(7)
	r.pass(2 * refreshEvery)
	want("full", 8)
	r.Table.Withdraw(7, route(0).Key)
	r.pass(2 * refreshEvery)
	want("almost full", 8)
	r.Table.Withdraw(7, route(1).Key)
	r.pass(time.Second)
	want("with some room", 0, 7)
	r.pass(2 * refreshEvery)
	want("nothing is left out", 0)

	all(7)
	r.Table.Withdraw(7, route(0).Key)
	r.Table.Withdraw(7, route(1).Key)
	r.pass(time.Second)
	want("some time after it was asked", 0, 7)
	all(7)
	r.Table.Withdraw(7, route(0).Key)
	r.Table.Withdraw(7, route(1).Key)
	r.pass(refreshEvery - 2*time.Second)
	want("soon after it was asked", 8)
	r.pass(2 * time.Second)
	want("a minute after it was asked", 0, 7)

	all(7)
	r.deaf = true
	r.Down(7, time.Hour) // a new session, and all is repeated
	all(7)
	r.Table.Withdraw(7, route(0).Key)
	r.Table.Withdraw(7, route(1).Key)
	r.pass(2 * refreshEvery)
	if len(r.refreshed) < 2 || r.LeftOut(7) != 8 {
		t.Errorf("one that cannot was asked %v, %d routes left out", r.refreshed, r.LeftOut(7))
	}
	r.deaf, r.refreshed = false, nil
	r.Down(7, 0)
	r.pass(refreshEvery)
	want("after the session", 0)

	// The limit of hosts.
	for n := range 18 {
		r.Receive(7, remoteFlood(10+n, vni))
	}
	r.pass(2 * refreshEvery)
	want("too many hosts", 2)
	r.Table.Withdraw(7, remoteFlood(10, vni).Key)
	r.pass(time.Second)
	want("room for a host", 0, 7)
}

// A port that makes up addresses announces a burst at once, and the rest slowly; another port
// is not affected.
func TestPacing(t *testing.T) {
	r := newRig(t, Config{})
	const n = announceBurst + 2*announceRate
	for i := range n {
		r.Local(r.now, vni, mac1+port.MAC(i), 1, false)
	}
	r.Local(r.now, vni, mac1+n, 2, false)
	if _, ok := r.own(mac1 + n); !ok || len(r.rib) != announceBurst+2 {
		t.Errorf("%d are announced at once", len(r.rib))
	}
	if s := r.Stats(); s.Pending != n-announceBurst {
		t.Errorf("%+v", s)
	}
	// One that is gone is not announced any more; one that moves to a quiet port is at once.
	var waiting []port.MAC
	for k := range r.ports[1].pending {
		waiting = append(waiting, k.mac)
	}
	r.Gone(vni, waiting[0])
	r.Local(r.now, vni, waiting[1], 2, false)
	if _, ok := r.own(waiting[1]); !ok {
		t.Error("the other port must wait, too")
	}
	r.pass(time.Second)
	if got := len(r.rib) - announceBurst - 3; got < announceRate-2 || got > announceRate+2 {
		t.Errorf("%d are announced in a second", got)
	}
	r.pass(2 * time.Second)
	if _, ok := r.own(waiting[0]); ok || len(r.rib) != n+1 {
		t.Errorf("%d are announced in the end", len(r.rib))
	}
	for i := range n + 1 {
		r.Gone(vni, mac1+port.MAC(i))
	}
	r.pass(time.Minute)
	if len(r.ports) != 0 || len(r.rib) != 1 {
		t.Errorf("%d ports and %d routes are left", len(r.ports), len(r.rib))
	}
}

func (k stationKey) String() string { return fmt.Sprintf("%v in %d", k.mac, k.vni) }
