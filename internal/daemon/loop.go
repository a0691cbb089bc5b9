package daemon

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// loopGuard finds loops without a spanning tree, and those that a tree cannot see: it
// sends probes, and shuts a port down where they come back. A nil one does nothing.
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
type loopGuard struct {
	m     *manager
	tick  *time.Ticker
	group port.MAC

	out     map[nonce]probe
	order   []nonce                // of out, oldest first, with some that are gone from it
	again   map[probeWay]int       // to confirm with the next probes: how many came back in a row
	suspect map[*managed]time.Time // ports with stations that are probed, until when
	next    map[*managed]uint16    // of a port with many VLANs, the one to probe next

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
	by   *managed
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

// loopTraps are the traps of probes that come back.
func loopTraps(mac port.MAC) []vswitch.Trap {
	return []vswitch.Trap{{Dst: groupOf(mac), Queue: vswitch.QueueLoop}}
}

func newLoopGuard(m *manager, on bool) *loopGuard {
	if !on {
		return nil
	}
	return &loopGuard{
		m: m, tick: time.NewTicker(probeGap), group: groupOf(m.mac),
		out: make(map[nonce]probe), again: make(map[probeWay]int),
		suspect: make(map[*managed]time.Time), next: make(map[*managed]uint16),
		moved: make(map[uint16]struct{}),
	}
}

// due is the channel that asks for send.
func (g *loopGuard) due() <-chan time.Time {
	if g == nil {
		return nil
	}
	return g.tick.C
}

func (g *loopGuard) stop() {
	if g != nil {
		g.tick.Stop()
	}
}

// linked says that a port came up.
func (g *loopGuard) linked(p *managed) {
	if g != nil && p.hasStation() {
		g.suspect[p] = time.Now().Add(suspectTime)
	}
}

func (g *loopGuard) removed(p *managed) {
	if g != nil {
		delete(g.suspect, p)
		delete(g.next, p)
	}
}

// stationMoved is called on the switch's event goroutine.
func (g *loopGuard) stationMoved(ev vswitch.MACMoved) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.moved[ev.From], g.moved[ev.To] = struct{}{}, struct{}{}
}

// send sends the probes that are due. One that is lost is followed by the next.
func (g *loopGuard) send() {
	now := time.Now()
	g.expire(now)
	g.mu.Lock()
	moved := g.moved
	g.moved = make(map[uint16]struct{})
	g.mu.Unlock()
	again := g.again
	g.again = make(map[probeWay]int)
	for _, p := range g.m.ports {
		if _, ok := moved[p.sw.Number()]; ok && p.hasStation() {
			g.suspect[p] = now.Add(suspectTime)
		}
		if until, ok := g.suspect[p]; ok && now.After(until) {
			delete(g.suspect, p)
		}
		_, suspect := g.suspect[p]
		if p.hasStation() && !suspect && !bool(p.spec.NoLearning) || !g.mayProbe(p) {
			continue
		}
		for _, vlan := range g.vlansOf(p) {
			way := probeWay{p, vlan}
			g.probe(way, again[way])
			delete(again, way)
		}
	}
	for way, returns := range again {
		if g.m.ports[way.by.spec.Name] == way.by && g.mayProbe(way.by) {
			g.probe(way, returns)
		}
	}
}

// mayProbe reports whether probes may leave by a port.
func (g *loopGuard) mayProbe(p *managed) bool {
	return p.state == api.StateUp && p.shutBy == "" && p.sw.Tree() == vswitch.TreeForwarding
}

// vlansOf returns the VLANs in which a port is probed now: those in which it takes
// frames, or the next few of many.
func (g *loopGuard) vlansOf(p *managed) (vlans []uint16) {
	set := p.vlans()
	if p.spec.Accept == "tagged" {
		set.Remove(p.spec.Native)
	}
	if set.Len() <= probeVLANs {
		for vid := range set.All() {
			vlans = append(vlans, vid)
		}
		return vlans
	}
	for vid := g.next[p]; len(vlans) < probeVLANs; vid = vid%maxVLAN + 1 {
		if set.Has(vid) {
			vlans = append(vlans, vid)
		}
	}
	g.next[p] = vlans[len(vlans)-1]%maxVLAN + 1
	return vlans
}

// probe sends a probe, after so many that came back.
func (g *loopGuard) probe(way probeWay, returns int) {
	var n nonce
	_, _ = rand.Read(n[:]) // it never fails
	b := append(g.group.HardwareAddr(), g.m.mac.HardwareAddr()...)
	b = binary.BigEndian.AppendUint16(b, probeType)
	b = append(b, n[:]...)
	b = binary.BigEndian.AppendUint16(b, way.by.sw.Number())
	b = binary.BigEndian.AppendUint16(b, way.vlan)
	b = append(b, make([]byte, probeLen-len(b))...)
	g.out[n] = probe{way, time.Now(), returns}
	g.order = append(g.order, n)
	g.m.sw.Send(vswitch.ControlFrame{VLAN: way.vlan, Data: b}, way.by.sw.Number())
}

// expire forgets the probes that can no longer come back.
func (g *loopGuard) expire(now time.Time) {
	for i, n := range g.order {
		if p, ok := g.out[n]; ok && now.Sub(p.at) <= probeLife {
			g.order = g.order[i:]
			return
		}
		delete(g.out, n)
	}
	g.order = nil
}

// receive looks at a frame to the switch's group that came by a port in a VLAN. A probe
// by a port that was shut meanwhile is of a loop that is cut already.
func (g *loopGuard) receive(p *managed, vlan uint16, frame []byte) {
	if g == nil || len(frame) < probeEnd {
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
	case binary.BigEndian.Uint16(frame[probePort:]) != from.sw.Number(), binary.BigEndian.Uint16(frame[probeVLAN:]) != vlan:
		return // no bridge changes it
	case time.Since(sent.at) > probeLife, sent.vlan != vlan, g.m.ports[from.spec.Name] != from, !g.mayProbe(from):
		return
	}
	switch {
	case p.hasStation():
		g.m.shut(p, "loop: what the switch sent by port "+from.spec.Name+" came back")
	case from.hasStation():
		g.m.shut(from, "loop: what the switch sent by it came back by port "+p.spec.Name)
	case sent.returns+1 >= probeReturns:
		g.m.shut(p, "loop: what the switch sent by port "+from.spec.Name+" came back")
	case g.m.tree != nil:
		g.again[sent.probeWay] = sent.returns + 1 // the tree may be about to cut it
	default:
		g.probe(sent.probeWay, sent.returns+1)
	}
}
