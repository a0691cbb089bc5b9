// Package loopguard finds loops without a spanning tree, and loops that a tree cannot see: it
// sends probes and shuts down a port where they come back. The daemon calls it with its turn;
// its only I/O is the frames it sends.
package loopguard

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
	"time"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Settings are the settings of loop detection.
type Settings struct {
	LoopDetect bool `json:"loop_detect,omitempty" help:"send probes; error-disable a port where they come back"`
}

// Feature describes loop detection.
var Feature = feature.Feature{
	Name:   "loopguard",
	Help:   "finds loops by probes",
	Switch: Settings{},
	On:     func(s any) bool { return s.(Settings).LoopDetect },
	New:    func(h feature.Host, _ any) (feature.Instance, error) { return start(h), nil },
}

// guard is a running loop detection.
//
// Anyone who receives a probe can send it again, so one returned probe proves little. Each
// probe carries a random number, by which only this daemon knows it as its own; the number is
// valid for a few seconds, once, in its VLAN. If a probe left or came back through a port
// with a station, that port is shut: the station closed the loop, or claimed to. A port to a
// network, where strangers receive probes, is shut when several in a row come back.
//
// Ports to networks are probed every second. A port with a station is probed for a few
// seconds when it comes up and when addresses move to or from it, as they do at once in a
// loop; if it learns no addresses, it is always probed. Nothing is sent where a tree blocks.
type guard struct {
	host  feature.Host
	stop  func() // cancels the next round of probes
	group port.MAC

	out     map[nonce]probe
	order   []nonce                    // keys of out, oldest first, and some that out has dropped
	again   map[probeWay]int           // to confirm with the next probes: how many came back in a row
	suspect map[feature.Port]time.Time // station ports being probed, until when
	next    map[feature.Port]uint16    // the VLAN to probe next, for a port with many

	mu    sync.Mutex
	moved map[uint16]struct{} // ports that addresses moved to or from since the last tick
}

// nonce identifies a probe.
type nonce [16]byte

// probe is a sent probe that may come back.
type probe struct {
	probeWay
	at      time.Time
	returns int // how many came back in a row before it
}

// probeWay is the way a probe leaves.
type probeWay struct {
	by   feature.Port
	vlan uint16
}

// A probe goes to a group address derived from the switch's own, which other bridges flood.
// Its EtherType is one for local experiments (802-2014 clause 9.2.4).
const (
	probeType  = 0x88b5
	probeLen   = 60 // the shortest frame
	probeNonce = port.HeaderLen
	probePort  = probeNonce + len(nonce{})
	probeVLAN  = probePort + 2
	probeEnd   = probeVLAN + 2
)

const (
	probeGap     = time.Second
	probeLife    = 3 * time.Second // how long a probe may take to come back
	probeVLANs   = 8               // most VLANs of a port probed at a time
	probeReturns = 3               // in a row, to shut a port to a network
	suspectTime  = 3 * time.Second
)

// groupOf returns the group address derived from the switch's own address mac.
func groupOf(mac port.MAC) port.MAC { return mac | 1<<40 }

func start(h feature.Host) *guard {
	g := &guard{
		host: h, group: groupOf(h.MAC()),
		out: make(map[nonce]probe), again: make(map[probeWay]int),
		suspect: make(map[feature.Port]time.Time), next: make(map[feature.Port]uint16),
		moved: make(map[uint16]struct{}),
	}
	h.Speak(port.DefaultVLAN)
	g.stop = h.After(probeGap, g.round)
	return g
}

// Stop implements feature.Instance.
func (g *guard) Stop() { g.stop() }

// round sends the probes that are due, once per probeGap.
func (g *guard) round() {
	g.stop = g.host.After(probeGap, g.round)
	g.send()
}

// Traps implements feature.Framed.
func (g *guard) Traps() []vswitch.Trap {
	return []vswitch.Trap{{Dst: g.group, Queue: vswitch.QueueLoop}}
}

// Linked implements feature.Linked.
func (g *guard) Linked(p feature.Port, up bool) {
	if up && p.Station() {
		g.suspect[p] = time.Now().Add(suspectTime)
	}
}

// Removed implements feature.Removed.
func (g *guard) Removed(p feature.Port) {
	delete(g.suspect, p)
	delete(g.next, p)
}

// Moved implements feature.Moved.
func (g *guard) Moved(ev vswitch.MACMoved) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.moved[ev.From], g.moved[ev.To] = struct{}{}, struct{}{}
}

// send sends the probes that are due. A lost probe needs no retry: the next one follows.
func (g *guard) send() {
	now := time.Now()
	g.expire(now)
	g.mu.Lock()
	moved := g.moved
	g.moved = make(map[uint16]struct{})
	g.mu.Unlock()
	again := g.again
	g.again = make(map[probeWay]int)
	for p := range g.host.Ports() {
		if _, ok := moved[p.Number()]; ok && p.Station() {
			g.suspect[p] = now.Add(suspectTime)
		}
		if until, ok := g.suspect[p]; ok && now.After(until) {
			delete(g.suspect, p)
		}
		_, suspect := g.suspect[p]
		if p.Station() && !suspect && !bool(p.Policy().NoLearning) || !g.mayProbe(p) {
			continue
		}
		for _, vlan := range g.vlansOf(p) {
			way := probeWay{p, vlan}
			g.probe(way, again[way])
			delete(again, way)
		}
	}
	for way, returns := range again {
		if g.there(way.by) && g.mayProbe(way.by) {
			g.probe(way, returns)
		}
	}
}

// mayProbe reports whether probes may leave through a port.
func (g *guard) mayProbe(p feature.Port) bool {
	return p.Up() && !p.Disabled() && p.Core().Tree() == vswitch.TreeForwarding
}

// there reports whether the switch still has the port.
func (g *guard) there(p feature.Port) bool { return g.host.Port(p.Number()) == p }

// vlansOf returns the VLANs in which to probe a port now: those in which it takes frames, or
// the next few of many.
func (g *guard) vlansOf(p feature.Port) (vlans []uint16) {
	set := p.VLANs()
	if p.Policy().Accept == port.AcceptTagged {
		set.Remove(p.Policy().Native)
	}
	if set.Len() <= probeVLANs {
		for vid := range set.All() {
			vlans = append(vlans, vid)
		}
		return vlans
	}
	for vid := g.next[p]; len(vlans) < probeVLANs; vid = vid%port.MaxVID + 1 {
		if set.Has(vid) {
			vlans = append(vlans, vid)
		}
	}
	g.next[p] = vlans[len(vlans)-1]%port.MaxVID + 1
	return vlans
}

// probe sends a probe; returns is how many came back in a row before it.
func (g *guard) probe(way probeWay, returns int) {
	var n nonce
	_, _ = rand.Read(n[:]) // never fails
	b := append(g.group.HardwareAddr(), g.host.MAC().HardwareAddr()...)
	b = binary.BigEndian.AppendUint16(b, probeType)
	b = append(b, n[:]...)
	b = binary.BigEndian.AppendUint16(b, way.by.Number())
	b = binary.BigEndian.AppendUint16(b, way.vlan)
	b = append(b, make([]byte, probeLen-len(b))...)
	g.out[n] = probe{way, time.Now(), returns}
	g.order = append(g.order, n)
	g.host.Switch().Send(vswitch.ControlFrame{VLAN: way.vlan, Data: b}, way.by.Number())
}

// expire forgets probes that can no longer come back.
func (g *guard) expire(now time.Time) {
	for i, n := range g.order {
		if p, ok := g.out[n]; ok && now.Sub(p.at) <= probeLife {
			g.order = g.order[i:]
			return
		}
		delete(g.out, n)
	}
	g.order = nil
}

// Receive implements feature.Framed. It checks a frame to the switch's group that a port
// received in a VLAN. A probe through a port that was shut meanwhile belongs to a loop that
// is already broken.
func (g *guard) Receive(p feature.Port, f vswitch.ControlFrame) {
	vlan, frame := f.VLAN, f.Data
	if len(frame) < probeEnd {
		return
	}
	n := nonce(frame[probeNonce:])
	sent, ok := g.out[n]
	if !ok {
		return
	}
	delete(g.out, n)
	from := sent.by
	switch {
	case binary.BigEndian.Uint16(frame[probePort:]) != from.Number(), binary.BigEndian.Uint16(frame[probeVLAN:]) != vlan:
		return // bridges do not change probes
	case time.Since(sent.at) > probeLife, sent.vlan != vlan, !g.there(from), !g.mayProbe(from):
		return
	}
	switch {
	case p.Station():
		g.host.Shut(p, "loop: what the switch sent by port "+from.Name()+" came back")
	case from.Station():
		g.host.Shut(from, "loop: what the switch sent by it came back by port "+p.Name())
	case sent.returns+1 >= probeReturns:
		g.host.Shut(p, "loop: what the switch sent by port "+from.Name()+" came back")
	case p.Core().InTree():
		g.again[sent.probeWay] = sent.returns + 1 // the tree may be about to break the loop
	default:
		g.probe(sent.probeWay, sent.returns+1)
	}
}
