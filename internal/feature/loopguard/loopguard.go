// Package loopguard finds loops without a spanning tree, and those that a tree cannot see:
// it sends probes, and shuts a port down where they come back. The daemon calls it with
// its turn; it does no I/O but the frames it sends.
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

// Settings are those of loop detection.
type Settings struct {
	LoopDetect bool `json:"loop_detect,omitempty" help:"send probes; error-disable a port where they come back"`
}

// Feature is loop detection.
var Feature = feature.Feature{
	Name:   "loopguard",
	Help:   "finds loops by probes",
	Switch: Settings{},
	On:     func(s any) bool { return s.(Settings).LoopDetect },
	New:    func(h feature.Host, _ any) (feature.Instance, error) { return start(h), nil },
}

// guard is loop detection as it runs.
//
// Whoever hears a probe can send it again, so one proves little. Each has a number drawn
// for it, which only this daemon knows to be one of its own; it is good for seconds, once,
// in its VLAN. Where a probe left or came back by a port with a station, that port is
// shut: whoever sits there closed the loop, or said so. A port to a network, on which
// strangers hear probes, is shut when several in a row come back.
//
// Ports to networks are probed every second. A port with a station is probed for a few
// seconds when it comes up, and when addresses move to or from it, as they do at once in a
// loop; always if it learns none. Nothing is sent where a tree blocks.
type guard struct {
	host  feature.Host
	stop  func() // the next round of probes
	group port.MAC

	out     map[nonce]probe
	order   []nonce                    // of out, oldest first, with some that are gone from it
	again   map[probeWay]int           // to confirm with the next probes: how many came back in a row
	suspect map[feature.Port]time.Time // ports with stations that are probed, until when
	next    map[feature.Port]uint16    // of a port with many VLANs, the one to probe next

	mu    sync.Mutex
	moved map[uint16]struct{} // ports that addresses moved to or from since the last tick
}

// nonce is what a probe is known by.
type nonce [16]byte

// probe is one that may come back.
type probe struct {
	probeWay
	at      time.Time
	returns int // how many in a row came back before it
}

// probeWay is how a probe leaves.
type probeWay struct {
	by   feature.Port
	vlan uint16
}

// A probe goes to a group address of the switch's own, which other bridges flood, and is
// of an EtherType for local experiments (802-2014 clause 9.2.4).
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
	probeVLANs   = 8               // most VLANs of a port that are probed at a time
	probeReturns = 3               // in a row that shut a port to a network
	suspectTime  = 3 * time.Second
)

// groupOf is the group address that belongs to an address of the switch's own.
func groupOf(mac port.MAC) port.MAC { return mac | 1<<40 }

func start(h feature.Host) *guard {
	g := &guard{
		host: h, group: groupOf(h.MAC()),
		out: make(map[nonce]probe), again: make(map[probeWay]int),
		suspect: make(map[feature.Port]time.Time), next: make(map[feature.Port]uint16),
		moved: make(map[uint16]struct{}),
	}
	g.stop = h.After(probeGap, g.round)
	return g
}

// Stop implements feature.Instance.
func (g *guard) Stop() { g.stop() }

// round sends what is due, once in a probeGap.
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

// send sends the probes that are due. One that is lost is followed by the next.
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

// mayProbe reports whether probes may leave by a port.
func (g *guard) mayProbe(p feature.Port) bool {
	return p.Up() && !p.Disabled() && p.Core().Tree() == vswitch.TreeForwarding
}

// there reports whether a port is still one of the switch.
func (g *guard) there(p feature.Port) bool { return g.host.Port(p.Number()) == p }

// vlansOf returns the VLANs in which a port is probed now: those in which it takes
// frames, or the next few of many.
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

// probe sends a probe, after so many that came back.
func (g *guard) probe(way probeWay, returns int) {
	var n nonce
	_, _ = rand.Read(n[:]) // it never fails
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

// expire forgets the probes that can no longer come back.
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

// Receive implements feature.Framed: it looks at a frame to the switch's group that came by
// a port in a VLAN. A probe by a port that was shut meanwhile is of a loop that is cut
// already.
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
		return // no bridge changes it
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
	case g.host.Tree():
		g.again[sent.probeWay] = sent.returns + 1 // the tree may be about to cut it
	default:
		g.probe(sent.probeWay, sent.returns+1)
	}
}
