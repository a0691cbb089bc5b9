package daemon

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/port"
)

// loopGuard finds loops without a spanning tree: each second it sends a probe by
// each port, and shuts the port down by which one of them comes back. A nil one
// does nothing.
type loopGuard struct {
	m     *manager
	tick  *time.Ticker
	probe [probeLen]byte
}

// A probe goes to a group address of the switch's own, which other bridges flood,
// and is of an EtherType for local experiments (802-2014 clause 9.2.4). It carries
// an id, drawn at each start, that others cannot guess, and the port it left by.
const (
	probeType = 0x88b5
	probeLen  = 60 // the shortest frame
	probeID   = port.HeaderLen
	probePort = probeID + 16
)

// groupOf is the group address that belongs to an address of the switch's own.
func groupOf(mac port.MAC) port.MAC { return mac | 1<<40 }

func newLoopGuard(m *manager, on bool) *loopGuard {
	if !on {
		return nil
	}
	g := &loopGuard{m: m, tick: time.NewTicker(time.Second)}
	b := append(groupOf(m.mac).HardwareAddr(), m.mac.HardwareAddr()...)
	b = binary.BigEndian.AppendUint16(b, probeType)
	copy(g.probe[:], b)
	_, _ = rand.Read(g.probe[probeID:probePort]) // it never fails
	return g
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

// send sends a probe by each port that is up. One that is lost is followed by the
// next.
func (g *loopGuard) send() {
	for _, p := range g.m.ports {
		if p.state == api.StateUp && !g.m.mirrorsTo(p) {
			binary.BigEndian.PutUint16(g.probe[probePort:], p.sw.Number())
			_ = p.sw.Transmit(probeVLAN(&p.spec.Policy), g.probe[:])
		}
	}
}

// probeVLAN is a VLAN in which a port takes frames, 0 for untagged ones.
func probeVLAN(p *port.Policy) uint16 {
	if p.Trunk != "" && (p.Native == 0 || p.Accept == "tagged") {
		if set, err := port.ParseVLANSet(p.Trunk); err == nil {
			for vid := range set.All() {
				if vid != p.Native {
					return vid
				}
			}
		}
	}
	return 0
}

// receive looks at a frame to the switch's group that came by a port. A probe whose
// own port was shut meanwhile tells of a loop that is cut already.
func (g *loopGuard) receive(p *managed, frame []byte) {
	if g == nil || len(frame) < probePort+2 || !bytes.Equal(frame[:probePort], g.probe[:probePort]) {
		return
	}
	number := binary.BigEndian.Uint16(frame[probePort:])
	for _, from := range g.m.ports {
		if from.sw.Number() == number && from.shutBy == "" {
			g.m.shut(p, "loop: what the switch sent by port "+from.spec.Name+" came back")
			return
		}
	}
}
