package evpn

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/bgp"
	"github.com/vswitch/vswitch/internal/feature/featuretest"
	"github.com/vswitch/vswitch/internal/proto/evpn"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
)

const (
	patience = 30 * time.Second

	vni            = 100
	here  port.MAC = 0x0200_0000_0a01
	there port.MAC = 0x0200_0000_0a02
)

var (
	self  = netip.MustParseAddr("192.0.2.1")
	vtep2 = netip.MustParseAddr("192.0.2.2")
	vtep3 = netip.MustParseAddr("192.0.2.3")
	ip1   = netip.MustParseAddr("10.0.0.1")
	ip2   = netip.MustParseAddr("10.0.0.2")
)

// tunnel is a tunnel that remembers what it is told.
type tunnel struct {
	*memory.Port
	mu       sync.Mutex
	vnis     []port.VNI
	remotes  map[port.MAC]netip.Addr
	flood    []netip.Addr
	learning bool
	full     bool
}

func newTunnel(vnis ...port.VNI) *tunnel {
	return &tunnel{Port: memory.New(memory.Options{}), vnis: vnis, remotes: make(map[port.MAC]netip.Addr), learning: true}
}

func (t *tunnel) VTEP() netip.Addr                  { return self }
func (t *tunnel) Encapsulation() port.Encapsulation { return port.VXLAN }
func (t *tunnel) MTU() int                          { return 0 }
func (t *tunnel) VNIs() []port.VNI                  { return t.vnis }
func (t *tunnel) SetLearning(on bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.learning = on
}

func (t *tunnel) SetRemote(_ uint32, station port.MAC, vtep netip.Addr) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.full {
		return errors.New("full")
	}
	t.remotes[station] = vtep
	return nil
}

func (t *tunnel) DeleteRemote(_ uint32, station port.MAC) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.remotes, station)
}

func (t *tunnel) SetFlood(_ uint32, vteps []netip.Addr) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.full && len(vteps) > 1 {
		t.flood = vteps[:1]
		return errors.New("full")
	}
	t.flood = vteps
	return nil
}

// forget is what a tunnel does with what it was told of networks that are gone.
func (t *tunnel) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.remotes)
	t.flood = nil
}

func (t *tunnel) Remotes() iter.Seq[port.Remote] { return func(func(port.Remote) bool) {} }

// rig is a switch with a station port and a tunnel, and EVPN on it.
type rig struct {
	t      *testing.T
	host   *featuretest.Host
	i      *instance
	vm, up *featuretest.Port
	line   *memory.Port
	tun    *tunnel
}

func newRig(t *testing.T, s Settings) *rig {
	r := &rig{t: t, host: featuretest.New(t), line: memory.New(memory.Options{}), tun: newTunnel(port.VNI{VNI: vni})}
	r.vm = r.host.Add(t, port.Spec{Name: "vm0"}, true)
	r.up = r.host.Add(t, port.Spec{Name: "up0"}, false)
	r.attach(r.vm, r.line)
	r.attach(r.up, r.tun)
	s.AS, s.Listen = 65001, new(uint16)
	r.i = newInstance(r.host, s)
	r.do(func() {
		if err := r.i.Restore(json.RawMessage(`{"neighbors":[{"address":"127.0.0.9","as":65001,"port":1}]}`)); err != nil {
			t.Error(err)
		}
		r.i.Configured(r.vm)
		r.i.Configured(r.up)
		r.i.Linked(r.up, true)
	})
	r.host.Punted(r.i.Receive)
	t.Cleanup(func() { r.do(r.i.Stop) })
	return r
}

func (r *rig) attach(p *featuretest.Port, dev port.Port) {
	r.t.Helper()
	if err := p.Core().Attach(dev); err != nil {
		r.t.Fatal(err)
	}
	p.Core().SetForwarding(true)
}

func (r *rig) do(f func()) { r.host.Do(f) }

// await waits until a condition holds with the turn.
func (r *rig) await(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		done := false
		r.do(func() { done = ok() })
		if done {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("%s: not within %v; macs: %+v, routes: %+v, tunnel: %+v", what, patience, r.i.macs(), r.i.routes(), r.tun.remotes)
		}
	}
}

// announced returns the own MAC route of a station.
func (r *rig) announced(mac port.MAC, ip netip.Addr) (api.EVPNRoute, bool) {
	for _, x := range r.i.routes() {
		if !x.Neighbor.IsValid() && x.MAC == mac && x.IP == ip {
			return x, true
		}
	}
	return api.EVPNRoute{}, false
}

// routes is what the neighbor announces.
func (r *rig) hear(updates ...bgp.Update) {
	var peer evpn.Peer
	r.do(func() { peer = r.i.neighbors[0].peer })
	f := r.i.fabric
	f.event(bgp.Event{Peer: peer, Kind: bgp.Updated, Updates: updates})
}

func route(mac port.MAC, vtep netip.Addr, seq uint32) bgp.Update {
	return bgp.Update{Route: evpn.Route{Key: evpn.Key{Kind: evpn.MAC, RD: rd(vtep, 1), MAC: mac}, Targets: evpn.Targets{vni}, VTEP: vtep, Seq: seq}}
}

func routeIP(mac port.MAC, vtep, ip netip.Addr) bgp.Update {
	u := route(mac, vtep, 0)
	u.IP = ip
	return u
}

func flood(vtep netip.Addr) bgp.Update {
	return bgp.Update{Route: evpn.Route{Key: evpn.Key{Kind: evpn.Flood, RD: rd(vtep, 1), IP: vtep}, Targets: evpn.Targets{vni}, VTEP: vtep}}
}

func frame(dst, src port.MAC) []byte {
	return append(append(append(dst.HardwareAddr(), src.HardwareAddr()...), 0x88, 0xb5), make([]byte, 50)...)
}

// arp returns the question of a station for an address.
func arp(src port.MAC, from, target netip.Addr) []byte {
	b := append(append(port.Broadcast.HardwareAddr(), src.HardwareAddr()...), 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	b = append(append(b, src.HardwareAddr()...), from.AsSlice()...)
	b = append(append(b, make([]byte, 6)...), target.AsSlice()...)
	return append(b, make([]byte, 18)...)
}

func (r *rig) send(b []byte) { r.line.Put(0, memory.Packet{Wire: b}) }

// arrives waits for a frame that is as wanted at a line.
func arrives(t *testing.T, what string, line *memory.Port, want func(b []byte) bool) {
	t.Helper()
	found := false
	for end := time.Now().Add(patience); !found && time.Now().Before(end); time.Sleep(time.Millisecond) {
		line.Drain(0, 1<<20, func(p memory.Packet) { found = found || want(p.Wire) })
	}
	if !found {
		t.Fatalf("%s does not arrive", what)
	}
}

func (r *rig) fdbPort(mac port.MAC) (number uint16, kind fdb.Kind) {
	e, ok := r.host.Switch().FDB().Get(fdb.MakeKey(1, uint64(mac)))
	if !ok {
		return fdb.NoPort, 0
	}
	return e.Port, e.Kind
}

func (r *rig) remote(mac port.MAC) netip.Addr {
	r.tun.mu.Lock()
	defer r.tun.mu.Unlock()
	return r.tun.remotes[mac]
}

func (r *rig) floods() []netip.Addr {
	r.tun.mu.Lock()
	defer r.tun.mu.Unlock()
	return r.tun.flood
}

// A station that is heard is announced; one that is announced is entered; one that moves is
// followed both ways.
func TestStations(t *testing.T) {
	r := newRig(t, Settings{})
	r.send(frame(port.Broadcast, here))
	r.await("the announcement", func() bool {
		x, ok := r.announced(here, netip.Addr{})
		return ok && x.Seq == 0 && x.RD == "192.0.2.1:1"
	})
	r.hear(flood(vtep2), route(there, vtep2, 0))
	if at, kind := r.fdbPort(there); r.remote(there) != vtep2 || at != r.up.Number() || kind != fdb.Dynamic {
		t.Errorf("at %v, port %d %v", r.remote(there), at, kind)
	}
	if !slices.Equal(r.floods(), []netip.Addr{vtep2}) {
		t.Errorf("floods go to %v", r.floods())
	}
	r.hear(route(here, vtep3, 1)) // it left
	if at, _ := r.fdbPort(here); r.remote(here) != vtep3 || at != r.up.Number() {
		t.Errorf("after it left: at %v, port %d", r.remote(here), at)
	}
	if _, ok := r.announced(here, netip.Addr{}); ok {
		t.Error("it left, and is announced")
	}
	r.send(frame(there, here)) // it is back
	r.await("the announcement", func() bool { x, ok := r.announced(here, netip.Addr{}); return ok && x.Seq == 2 })
	if r.remote(here).IsValid() {
		t.Error("the tunnel still has it")
	}
	arrives(t, "its frame", r.tun.Port, func(b []byte) bool { return port.MACFrom(b) == there })

	r.hear(bgp.Update{Route: evpn.Route{Key: route(there, vtep2, 0).Key}, Withdrawn: true})
	if at, _ := r.fdbPort(there); r.remote(there).IsValid() || at != fdb.NoPort {
		t.Errorf("withdrawn, but at %v, port %d", r.remote(there), at)
	}
	r.do(func() { r.host.Switch().FDB().FlushPort(r.vm.Number()) })
	r.await("the withdrawal", func() bool { _, ok := r.announced(here, netip.Addr{}); return !ok })
}

// What a user entered stays, and is announced as sticky. What another host announces so is
// pinned.
func TestStickyStations(t *testing.T) {
	r := newRig(t, Settings{})
	table := r.host.Switch().FDB()
	if err := table.Add(fdb.MakeKey(1, uint64(here)), r.vm.Number(), fdb.Static); err != nil {
		t.Fatal(err)
	}
	r.await("the announcement", func() bool { x, ok := r.announced(here, netip.Addr{}); return ok && x.Sticky })
	sticky := route(there, vtep2, 0)
	sticky.Sticky = true
	r.hear(sticky, route(here, vtep2, 9))
	if at, kind := r.fdbPort(here); at != r.vm.Number() || kind != fdb.Static || r.remote(here).IsValid() {
		t.Errorf("port %d %v, at %v", at, kind, r.remote(here))
	}
	if at, kind := r.fdbPort(there); at != r.up.Number() || kind != fdb.Sticky {
		t.Errorf("port %d %v", at, kind)
	}
}

// Entries of other hosts do not vanish by a flush or a full tunnel for ever.
func TestReconcile(t *testing.T) {
	r := newRig(t, Settings{})
	r.hear(route(there, vtep2, 0))
	r.host.Switch().FDB().FlushPort(r.up.Number())
	r.await("the entry", func() bool { at, _ := r.fdbPort(there); return at == r.up.Number() })
	r.host.Switch().FDB().Delete(fdb.MakeKey(1, uint64(there)))
	r.do(func() { r.i.fabric.watch.all() })
	r.await("the entry", func() bool { at, _ := r.fdbPort(there); return at == r.up.Number() })
}

// A station, or a host of a flood list, that the tunnel had no room for is told once it has.
func TestFullTunnel(t *testing.T) {
	r := newRig(t, Settings{})
	full := func(on bool) {
		r.tun.mu.Lock()
		defer r.tun.mu.Unlock()
		r.tun.full = on
	}
	full(true)
	r.hear(route(there, vtep2, 0), route(there+1, vtep2, 0), flood(vtep2), flood(vtep3))
	r.do(r.i.fabric.reconcile)
	if r.remote(there).IsValid() || r.remote(there+1).IsValid() || len(r.floods()) != 1 {
		t.Fatal("a full tunnel takes a station, or a host")
	}
	full(false)
	r.do(func() {
		r.i.fabric.reconcile()
		if r.remote(there) != vtep2 || r.remote(there+1) != vtep2 || r.i.fabric.full {
			t.Errorf("with room, it has told %v and %v; something is left to tell: %v", r.remote(there), r.remote(there+1), r.i.fabric.full)
		}
		if !slices.Equal(r.floods(), []netip.Addr{vtep2, vtep3}) || len(r.i.fabric.short) > 0 {
			t.Errorf("with room, floods go to %v", r.floods())
		}
	})
}

func TestResolution(t *testing.T) {
	for _, off := range []bool{false, true} {
		r := newRig(t, Settings{Suppression: setting.Not(off)})
		r.hear(routeIP(there, vtep2, ip2))
		asked := arp(here, ip1, ip2)
		if off {
			r.send(asked)
			arrives(t, "the question", r.tun.Port, func(b []byte) bool { return slices.Equal(b, asked) })
			continue
		}
		r.send(asked)
		arrives(t, "the answer", r.line, func(b []byte) bool { return port.MACFrom(b) == here && port.MACFrom(b[6:]) == there })
		r.await("the address", func() bool { _, ok := r.announced(here, ip1); return ok })
		unknown := arp(here, ip1, netip.MustParseAddr("10.0.0.77"))
		r.send(unknown)
		arrives(t, "the question for an unknown station", r.tun.Port, func(b []byte) bool { return slices.Equal(b, unknown) })
	}
}

// A port that opens its tunnel anew, or changes its networks, does not lose what is known.
func TestTunnelChanges(t *testing.T) {
	r := newRig(t, Settings{})
	r.hear(flood(vtep2), route(there, vtep2, 0))
	other := flood(vtep3)
	other.Targets = evpn.Targets{200}
	r.hear(other)
	r.send(frame(port.Broadcast, here))
	r.await("the announcement", func() bool { _, ok := r.announced(here, netip.Addr{}); return ok })

	again := newTunnel(port.VNI{VNI: vni})
	if err := r.up.Core().Detach(); err != nil {
		t.Fatal(err)
	}
	r.attach(r.up, again)
	r.tun = again
	r.do(func() { r.i.Linked(r.up, true) })
	if r.remote(there) != vtep2 || !slices.Equal(again.flood, []netip.Addr{vtep2}) || again.learning {
		t.Errorf("the new tunnel has %v, floods to %v, learns: %v", again.remotes, again.flood, again.learning)
	}

	// The network carries all frames, and then a VLAN, which is the same to EVPN: the tunnel knows nothing of the other one.
	again.vnis = []port.VNI{{VLAN: port.DefaultVLAN, VNI: vni}}
	again.forget()
	r.do(func() { r.i.Configured(r.up) })
	if r.remote(there) != vtep2 || !slices.Equal(again.flood, []netip.Addr{vtep2}) {
		t.Errorf("the network of a VLAN has %v, floods to %v", again.remotes, again.flood)
	}

	again.vnis = []port.VNI{{VNI: 200}}
	r.do(func() { r.i.Configured(r.up) })
	if !slices.Equal(again.flood, []netip.Addr{vtep3}) || r.remote(there).IsValid() {
		t.Errorf("the new network has %v, floods to %v", again.remotes, again.flood)
	}
	r.await("the announcement in the new network", func() bool { x, ok := r.announced(here, netip.Addr{}); return ok && x.VNI == 200 })

	r.do(func() { r.i.Removed(r.vm) })
	if r.i.fabric == nil || again.learning {
		t.Error("a station's port goes, and EVPN leaves the tunnel")
	}
	r.do(func() {
		speaker := r.i.fabric.speaker
		r.i.Removed(r.up)
		r.i.Removed(r.vm)
		if len(speaker.Neighbors()) != 0 {
			t.Error("neighbors are not told")
		}
	})
	if r.i.fabric != nil || !again.learning || r.up.Core().Config().NoLearning {
		t.Errorf("without its port: %v, learning %v", r.i.fabric, again.learning)
	}
	if err := r.up.Core().Detach(); err != nil {
		t.Error(err)
	}
	if n := r.i.list()[0]; n.State != "idle" || !strings.Contains(n.Problem, "no vxlan port") {
		t.Errorf("%+v", n)
	}
	six := overIPv6{newTunnel(port.VNI{VNI: vni})}
	r.attach(r.up, six)
	r.do(func() { r.i.Linked(r.up, true) })
	if n := r.i.list()[0]; n.State != "idle" || n.Problem != noIdentifier {
		t.Errorf("%+v", n)
	}
}

// A machine behind a port that carries all frames may have VLANs of its own. The switch neither learns addresses there
// nor answers for others, which it could do without the tag alone.
func TestTaggedResolution(t *testing.T) {
	r := newRig(t, Settings{})
	r.hear(routeIP(there, vtep2, ip2), flood(vtep2))
	asked := slices.Insert(arp(here, ip1, ip2), 12, 0x81, 0, 0, 5)
	r.send(asked)
	arrives(t, "the question", r.tun.Port, func(b []byte) bool { return slices.Equal(b, asked) })
	r.send(arp(here, ip2, ip1)) // it has that address where it has no VLAN
	r.await("the address", func() bool { _, ok := r.announced(here, ip2); return ok })
	r.do(func() {
		if _, ok := r.announced(here, ip1); ok {
			t.Error("an address of a VLAN of the machine's own is announced")
		}
	})
}

// What the switch asks stations is answered to its own address, which is at none of its ports in any VLAN.
func TestAnswersEndHere(t *testing.T) {
	r := newRig(t, Settings{})
	r.tun.vnis = []port.VNI{{VLAN: 10, VNI: vni}}
	own := fdb.MakeKey(10, uint64(r.host.MAC()))
	r.do(func() {
		r.i.Configured(r.up)
		r.i.fabric.Send(vni, r.vm.Number(), frame(here, r.host.MAC()))
		if e, ok := r.host.Switch().FDB().Get(own); !ok || e.Kind != fdb.Local {
			t.Errorf("the switch is at %+v in the VLAN where it asks", e)
		}
	})
}

// overIPv6 is a tunnel with an IPv6 address.
type overIPv6 struct{ *tunnel }

func (overIPv6) VTEP() netip.Addr { return netip.MustParseAddr("2001:db8::1") }

// While EVPN is on, neither the tunnel nor the core learns from what comes through it.
func TestLearning(t *testing.T) {
	r := newRig(t, Settings{})
	if r.tun.learning || !r.up.Core().Config().NoLearning || r.vm.Core().Config().NoLearning {
		t.Error("frames from the tunnel are learned from")
	}
	r.do(r.i.Stop)
	if !r.tun.learning || r.up.Core().Config().NoLearning {
		t.Error("frames from the tunnel are not learned from afterwards")
	}
}

// What neighbors are not told changes while the sessions go on; with the rest begins another speaker, which has the
// neighbors, too, and what was learned.
func TestSet(t *testing.T) {
	r := newRig(t, Settings{})
	r.hear(routeIP(there, vtep2, ip2), route(here, vtep2, 6))
	r.send(frame(port.Broadcast, here))
	r.await("the announcement", func() bool { x, _ := r.announced(here, netip.Addr{}); return x.Seq == 7 })
	set := func(change func(*Settings)) (same bool) {
		t.Helper()
		r.do(func() {
			before, s := r.i.fabric.speaker, r.i.settings
			if change(&s); r.i.Set(s) != nil {
				t.Error("the settings are refused")
			}
			if n := r.i.fabric.speaker.Neighbors(); len(n) != 1 {
				t.Errorf("neighbors: %+v", n)
			}
			same = r.i.fabric.speaker == before
		})
		return same
	}
	asked := func() { r.send(arp(here, ip1, ip2)) }
	answered := func(b []byte) bool { return port.MACFrom(b) == here && len(b) > 21 && b[21] == 2 }
	asked()
	arrives(t, "the answer", r.line, answered)
	if !set(func(s *Settings) { s.Suppression, s.Hold = true, setting.Duration(time.Hour) }) {
		t.Error("the sessions end")
	}
	asked()
	arrives(t, "the question", r.tun.Port, func(b []byte) bool {
		return port.MACFrom(b) == port.Broadcast && b[13] == 6 && len(b) > 21 && b[21] == 1
	})
	if !set(func(s *Settings) { s.Suppression = false }) {
		t.Error("the sessions end")
	}
	asked()
	arrives(t, "the answer again", r.line, answered)
	r.do(func() {
		for n := range 2 * evpn.HomeMoves { // it is a duplicate: held for as long as is set
			r.i.fabric.table.Receive(r.i.neighbors[0].peer, route(here, vtep2, uint32(10+2*n)).Route)
			r.i.fabric.table.Local(time.Now(), vni, here, r.vm.Number(), false)
		}
	})
	if log := r.host.Logged(); !strings.Contains(log, "held_for=1h0m0s") {
		t.Errorf("the log says %s", log)
	}
	for what, change := range map[string]func(*Settings){
		"AS": func(s *Settings) { s.AS++ }, "router ID": func(s *Settings) { s.RouterID = setting.Addr{Addr: vtep3} }, "port": func(s *Settings) { s.Listen = nil },
	} {
		if set(change) {
			t.Errorf("another %s, and the same speaker", what)
		}
	}
	r.send(frame(port.Broadcast, here)) // it was held elsewhere, as the former speaker said
	r.await("the announcement of another speaker", func() bool { x, ok := r.announced(here, netip.Addr{}); return ok && x.Seq >= 7 })
}

// The sequence number of a station outlives the daemon, and so do the neighbors.
func TestState(t *testing.T) {
	r := newRig(t, Settings{})
	r.hear(route(here, vtep2, 6))
	r.send(frame(port.Broadcast, here))
	r.await("the announcement", func() bool { x, _ := r.announced(here, netip.Addr{}); return x.Seq == 7 })
	r.await("the state to be saved", func() bool { return r.host.Saves() > 0 })
	var state json.RawMessage
	r.do(func() {
		if _, err := r.i.add(api.AddEVPNNeighbor{Address: vtep3, AS: 65003, Password: "secret", HoldS: 30}); err != nil {
			t.Error(err)
		}
		state, _ = r.i.State()
	})
	var k kept
	if err := json.Unmarshal(state, &k); err != nil || len(k.Neighbors) != 2 || len(k.Sequences) != 1 || k.Sequences[0].Seq != 7 {
		t.Fatalf("%s: %v", state, err)
	}
	var ended json.RawMessage
	r.do(func() {
		r.i.End()
		ended, _ = r.i.State()
	})
	next := func(state json.RawMessage) (*rig, uint32) {
		other := newRig(t, Settings{})
		other.do(func() {
			other.i.Stop()
			if err := other.i.Restore(state); err != nil {
				t.Error(err)
			}
			other.i.Linked(other.up, true)
		})
		other.send(frame(port.Broadcast, here))
		var got api.EVPNRoute
		other.await("the announcement", func() (ok bool) { got, ok = other.announced(here, netip.Addr{}); return ok })
		return other, got.Seq
	}
	if _, seq := next(ended); seq != 7 {
		t.Errorf("seq %d after an end, want 7", seq)
	}
	other, seq := next(state)
	if seq < 7 {
		t.Errorf("seq %d after a kill, want 7 or more", seq)
	}
	other.do(func() {
		if n := other.i.list(); len(n) != 2 || n[1].Address != vtep3 || !n[1].Password || n[1].HoldS != 30 {
			t.Errorf("%+v", n)
		}
	})
	for _, bad := range []string{`{"neighbors":[{"address":"224.0.0.1","as":1}]}`, `{"neighbors":[{"address":"192.0.2.2"}]}`, `[]`,
		`{"neighbors":[{"address":"192.0.2.2","as":1},{"address":"192.0.2.2","as":1}]}`,
		`{"neighbors":[{"address":"192.0.2.2","as":1,"pasword":"x"}]}`, `{"neighbors":[{"address":"192.0.2.2","AS":1}]}`, `{"neighbours":[]}`} {
		other.do(func() {
			if err := other.i.Restore(json.RawMessage(bad)); err == nil {
				t.Errorf("%s is restored", bad)
			}
		})
	}
}

// A configuration may name neighbors in any order. What it does not change goes on.
func TestNeighborsOfConfiguration(t *testing.T) {
	r := newRig(t, Settings{})
	restore := func(neighbors ...string) (numbers []evpn.Peer) {
		t.Helper()
		r.do(func() {
			if err := r.i.Restore(json.RawMessage(`{"neighbors":[` + strings.Join(neighbors, ",") + "]}")); err != nil {
				t.Error(err)
			}
			for _, n := range r.i.neighbors {
				numbers = append(numbers, n.peer)
			}
		})
		return numbers
	}
	one, two, three := `{"address":"127.0.0.9","as":65001,"port":1}`, `{"address":"127.0.0.8","as":65001,"port":1}`, `{"address":"127.0.0.7","as":65001,"port":1}`
	before := restore(one, two, three)
	r.hear(route(there, vtep2, 0)) // from the first
	var state json.RawMessage
	r.do(func() {
		state, _ = r.i.State()
		if _, err := r.i.add(api.AddEVPNNeighbor{Address: netip.MustParseAddr("127.0.0.7"), AS: 65001}); err == nil {
			t.Error("a neighbor is added twice")
		}
		if all := r.i.list(); len(all) != 3 || all[0].Address != netip.MustParseAddr("127.0.0.7") || all[2].Routes != 1 {
			t.Errorf("the list is %+v", all)
		}
	})
	if want := `{"neighbors":[` + one + "," + two + "," + three + "]"; !strings.HasPrefix(string(state), want) {
		t.Errorf("what is kept is %s, want %s", state, want)
	}
	other := strings.Replace(two, "65001", "65002", 1)
	after := restore(three, other, one)
	if after[0] != before[2] || after[2] != before[0] || slices.Contains(before, after[1]) {
		t.Errorf("the neighbors were %v and are %v", before, after)
	}
	r.do(func() {
		if got := len(r.i.fabric.speaker.Neighbors()); got != 3 || r.i.fabric.table.Count(before[0]) != 1 {
			t.Errorf("%d neighbors are spoken to; the first has %d routes", got, r.i.fabric.table.Count(before[0]))
		}
		for _, a := range []string{"127.0.0.7", "127.0.0.8", "127.0.0.9"} {
			if err := r.i.remove(netip.MustParseAddr(a)); err != nil {
				t.Error(err)
			}
		}
		if got := len(r.i.fabric.speaker.Neighbors()); got != 0 {
			t.Errorf("%d neighbors are spoken to", got)
		}
		many := make([]string, maxNeighbors+1)
		for n := range many {
			many[n] = fmt.Sprintf(`{"address":"10.0.0.%d","as":1}`, n)
		}
		if err := r.i.Restore(json.RawMessage(`{"neighbors":[` + strings.Join(many, ",") + "]}")); err == nil {
			t.Error("too many neighbors are taken")
		}
	})
}

// A station that has just been heard here stays here, though the table is compared with the FDB
// before it has been told.
func TestHeardWhileCompared(t *testing.T) {
	r := newRig(t, Settings{})
	r.hear(route(here, vtep2, 6))
	r.do(func() {
		r.host.Switch().FDB().Learn(fdb.MakeKey(1, uint64(here)), r.vm.Number())
		r.i.fabric.reconcile()
		if e, _ := r.host.Switch().FDB().Get(fdb.MakeKey(1, uint64(here))); e.Port != r.vm.Number() {
			t.Errorf("it is at port %d", e.Port)
		}
		if x, ok := r.announced(here, netip.Addr{}); !ok || x.Seq != 7 {
			t.Errorf("announced is %+v, %v", x, ok)
		}
	})
}

func TestNeighbors(t *testing.T) {
	r := newRig(t, Settings{})
	for _, c := range []struct {
		req  api.AddEVPNNeighbor
		code string
		want string
	}{
		{api.AddEVPNNeighbor{AS: 1}, api.CodeInvalid, "not a neighbor's address"},
		{api.AddEVPNNeighbor{Address: netip.MustParseAddr("::ffff:192.0.2.2"), AS: 1}, api.CodeInvalid, "not a neighbor's address"},
		{api.AddEVPNNeighbor{Address: vtep2}, api.CodeInvalid, "give --as"},
		{api.AddEVPNNeighbor{Address: vtep2, AS: 1, Source: netip.MustParseAddr("::1")}, api.CodeInvalid, "same family"},
		{api.AddEVPNNeighbor{Address: vtep2, AS: 1, Source: vtep2}, api.CodeInvalid, "both ends"},
		{api.AddEVPNNeighbor{Address: vtep2, AS: 1, Password: strings.Repeat("x", 81)}, api.CodeInvalid, "at most 80"},
		{api.AddEVPNNeighbor{Address: vtep2, AS: 1, HoldS: 2}, api.CodeInvalid, "3s to 1h"},
		{api.AddEVPNNeighbor{Address: netip.MustParseAddr("127.0.0.9"), AS: 1}, api.CodeExists, "neighbor del"},
	} {
		r.do(func() {
			_, err := r.i.add(c.req)
			var e *api.Error
			if !errors.As(err, &e) || e.Code != c.code || !strings.Contains(e.Message, c.want) {
				t.Errorf("%+v: %v", c.req, err)
			}
		})
	}
	r.hear(route(there, vtep2, 0))
	r.do(func() {
		if n := r.i.list(); len(n) != 1 || n[0].Routes != 1 || n[0].Port != 1 {
			t.Errorf("%+v", n)
		}
		if err := r.i.remove(vtep3); err == nil {
			t.Error("a neighbor that is not there is removed")
		}
		if err := r.i.remove(netip.MustParseAddr("127.0.0.9")); err != nil {
			t.Error(err)
		}
	})
	if len(r.i.neighbors) != 0 || r.remote(there).IsValid() {
		t.Errorf("left: %v, %v", r.i.neighbors, maps.Collect(maps.All(r.tun.remotes)))
	}
	for n := range maxNeighbors + 1 {
		r.do(func() {
			_, err := r.i.add(api.AddEVPNNeighbor{Address: netip.AddrFrom4([4]byte{127, 1, byte(n >> 8), byte(n)}), AS: 1, Port: 1})
			if (err != nil) != (n == maxNeighbors) {
				t.Errorf("neighbor %d: %v", n, err)
			}
		})
	}
}

func TestSettings(t *testing.T) {
	addr := func(s string) setting.Addr { return setting.Addr{Addr: netip.MustParseAddr(s)} }
	for _, s := range []Settings{{}, {AS: 1}, {AS: 4294967295, RouterID: addr("1.2.3.4"), Listen: new(uint16), Suppression: true, Hold: setting.Duration(time.Second)}} {
		if err := s.Check(); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
	}
	for _, s := range []Settings{{RouterID: addr("1.2.3.4")}, {Listen: new(uint16)}, {Suppression: true}, {Hold: setting.Duration(time.Second)}, {AS: 1, Hold: setting.Duration(time.Second - 1)}, {AS: 1, RouterID: addr("::1")}, {AS: 1, RouterID: addr("0.0.0.0")}} {
		if err := s.Check(); err == nil {
			t.Errorf("%+v is taken", s)
		}
	}
}

// Turning EVPN off needs no word about its other settings.
func TestTurnedOff(t *testing.T) {
	on := Settings{AS: 1, RouterID: setting.Addr{Addr: self}, Listen: new(uint16), Suppression: true, Hold: 1}
	for text, want := range map[string]Settings{
		`{"evpn_as": null}`: {}, `{"evpn_as": 0}`: {}, `{"evpn_as": 0, "duplicate_hold": "1ns"}`: {Hold: 1}, `{"duplicate_hold": null}`: {AS: 1, RouterID: on.RouterID, Listen: on.Listen, Suppression: true},
	} {
		var p setting.Patch
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			t.Fatal(err)
		}
		got, err := setting.Merge(on, p)
		if err != nil || got != any(want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
}

// What is left out of a neighbor's routes is said beside it, with the reason, as long as it is announced. Own routes that
// come back, and those of other networks, are no news.
func TestReasons(t *testing.T) {
	looped := func(vtep netip.Addr, why bgp.LeftOut) bgp.Update {
		u := route(there, vtep, 0)
		return bgp.Update{Route: evpn.Route{Key: u.Key, VTEP: u.VTEP, Targets: u.Targets}, Withdrawn: true, LeftOut: why}
	}
	with := func(u bgp.Update, change func(*bgp.Update)) bgp.Update {
		change(&u)
		return u
	}
	plain := route(there, vtep2, 0)
	foreign := func(u *bgp.Update) { u.Targets = evpn.Targets{999} }
	for what, c := range map[string]struct {
		heard bgp.Update
		want  string
	}{
		"a route":                     {plain, ""},
		"own, by the AS":              {looped(self, bgp.OwnAS), ""},
		"own, reflected":              {looped(self, bgp.OwnRouterID), ""},
		"own, with the AS replaced":   {route(there, self, 0), ""},
		"another host's, by the AS":   {looped(vtep2, bgp.OwnAS), "routes of 192.0.2.2 are left out, for autonomous system 65001 "},
		"another host's, by the ID":   {looped(vtep2, bgp.OwnRouterID), "routes of 192.0.2.2 are left out: that host has the router ID "},
		"another host's, own address": {with(route(there, self, 0), func(u *bgp.Update) { u.RD = rd(vtep2, 1) }), "another host announces the address " + self.String()},
		"malformed":                   {looped(vtep2, bgp.Malformed), "routes of 192.0.2.2 are left out: an attribute of theirs is malformed"},
		"malformed, no next hop":      {looped(netip.Addr{}, bgp.Malformed), "routes are left out: an attribute"},
		"a wrong length":              {with(looped(vtep2, bgp.WrongLength), func(u *bgp.Update) { u.Key = evpn.Key{} }), "routes of 192.0.2.2 are left out: an address in them has a wrong length"},
		"MPLS":                        {looped(vtep2, bgp.Unreachable), "routes of 192.0.2.2 are left out: that host takes no packets of VXLAN"},
		"MPLS, of another network":    {with(looped(vtep2, bgp.Unreachable), foreign), ""},
		"multicast":                   {looped(vtep2, bgp.NoTunnel), "floods do not go to 192.0.2.2: it announces no tunnel"},
		"IPv6":                        {route(there, netip.MustParseAddr("2001:db8::2"), 0), "routes of 2001:db8::2 are left out: tunnels of one network have either IPv4 or IPv6"},
		"a loopback address":          {route(there, netip.MustParseAddr("127.0.0.1"), 0), "routes of 127.0.0.1 are left out: no host can have"},
		"no address":                  {route(there, netip.MustParseAddr("0.0.0.0"), 0), "routes of 0.0.0.0 are left out: no host can have"},
		"a group":                     {route(0x0100_5e00_0001, vtep2, 0), "a route of 192.0.2.2 is left out: no station can have the address 01:00:5e:00:00:01"},
		"no station":                  {route(0, vtep2, 0), "a route of 192.0.2.2 is left out: no station can have"},
		"of another network":          {with(route(0, vtep2, 0), foreign), ""},
		"another label":               {with(plain, func(u *bgp.Update) { u.Label = 200 }), "routes of 192.0.2.2 are not used: that host wants VNI 200 in frames"},
		"a label, no target":          {with(plain, func(u *bgp.Update) { u.Label, u.Targets = vni, evpn.Targets{} }), "routes of 192.0.2.2 are not used: that host wants VNI 100 in frames"},
		"another network's":           {with(plain, func(u *bgp.Update) { u.Label, u.Targets = 200, evpn.Targets{999} }), ""},
	} {
		r := newRig(t, Settings{})
		problem := func() (s string) {
			r.do(func() { s = r.i.view(r.i.neighbors[0], &bgp.Status{State: bgp.StateEstablished}).Problem })
			return s
		}
		r.hear(c.heard)
		if got := problem(); c.want == "" && got != "" || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q", what, got)
		}
		if good := what == "a route"; r.remote(there).IsValid() != good {
			t.Errorf("%s: a station is at %v", what, r.remote(there))
		}
		r.hear(bgp.Update{Route: evpn.Route{Key: c.heard.Key}, Withdrawn: true})
		if got := problem(); got != "" {
			t.Errorf("%s: it is withdrawn, and the problem is %q", what, got)
		}
		r.hear(c.heard)
		r.i.fabric.event(bgp.Event{Peer: r.i.neighbors[0].peer, Kind: bgp.Established})
		if got := problem(); got != "" {
			t.Errorf("%s: a new session still says %q", what, got)
		}
	}

	// However many there are, it is one line, and the log has one, too.
	r := newRig(t, Settings{})
	r.host.Logged()
	for n := range 2 * maxLeftOut {
		r.hear(looped(netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}), bgp.NoTunnel), with(looped(vtep2, bgp.NoTunnel), func(u *bgp.Update) { u.MAC = there + port.MAC(n) }))
	}
	r.do(func() {
		if got := r.i.neighbors[0].problem(); len(r.i.neighbors[0].leftOut) != maxLeftOut || strings.Count(got, ";") != 3 || !strings.Contains(got, "more") {
			t.Errorf("%d are remembered: %s", len(r.i.neighbors[0].leftOut), got)
		}
	})
	if log := r.host.Logged(); strings.Count(log, "routes of a neighbor are left out") != 1 {
		t.Errorf("the log says %s", log)
	}
}

// What is beyond the limits is said beside the neighbor.
func TestLeftOut(t *testing.T) {
	r := newRig(t, Settings{})
	problem := func() (s string) {
		r.do(func() { s = r.i.view(r.i.neighbors[0], &bgp.Status{State: bgp.StateEstablished}).Problem })
		return s
	}
	var updates []bgp.Update
	for n := range evpn.MaxVTEPs + 3 {
		updates = append(updates, flood(netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)})))
	}
	r.hear(updates[:evpn.MaxVTEPs]...)
	if p := problem(); p != "" {
		t.Errorf("with as many as there may be: %q", p)
	}
	r.hear(updates[evpn.MaxVTEPs:]...)
	if p := problem(); !strings.HasPrefix(p, "3 routes are left out") {
		t.Errorf("with three too many: %q", p)
	}
}

// A guest that makes up addresses without end does not keep the stations of others from being announced, and the
// log names its port, once a minute. All is one turn: the FDB knows none of these stations, and would take them back.
func TestCrowd(t *testing.T) {
	r := newRig(t, Settings{})
	other := r.host.Add(t, port.Spec{Name: "vm1"}, true)
	r.host.Logged()
	r.do(func() {
		f := r.i.fabric
		now := time.Now()
		for n := range 70_000 {
			f.table.Local(now, vni, 0x0200_0100_0000+port.MAC(n), r.vm.Number(), false)
		}
		for range 3 {
			f.tellLeftOut(now.Add(time.Hour))
		}
		f.table.Local(now, vni, here, other.Number(), false)
		if s := f.table.Stats(); s.Local != 65536 {
			t.Errorf("%+v", s)
		}
		if !slices.ContainsFunc(r.i.macs(), func(m api.EVPNMAC) bool { return m.MAC == here && m.Port == "vm1" }) {
			t.Error("the other's station is left out")
		}
	})
	log := r.host.Logged()
	if strings.Count(log, "EVPN leaves out stations") != 1 || !strings.Contains(log, "port=vm0") || !strings.Contains(log, "left_out=4464") {
		t.Errorf("the log says %s", log)
	}
}
