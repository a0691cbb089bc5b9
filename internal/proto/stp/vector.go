package stp

import (
	"cmp"
	"math"
)

// vector is a spanning tree priority vector (17.5) without its last component, the
// receiving port, which only breaks ties between root path vectors. Lower is better.
type vector struct {
	root   BridgeID
	cost   uint32
	bridge BridgeID
	port   PortID
}

func (v vector) compare(w vector) int {
	return cmp.Or(
		cmp.Compare(v.root, w.root),
		cmp.Compare(v.cost, w.cost),
		cmp.Compare(v.bridge, w.bridge),
		cmp.Compare(v.port, w.port),
	)
}

// superior reports whether message m replaces what a port holds (17.6): it is better,
// or it comes from the very port that sent what is held.
func (m vector) superior(held vector) bool {
	return m.compare(held) < 0 ||
		m != held && m.bridge.sameBridge(held.bridge) && m.port.Number() == held.port.Number()
}

// via returns the root path priority vector of a port that holds v (17.6). The cost
// saturates: a neighbour must not make it wrap around to a better one.
func (v vector) via(cost uint32) vector {
	v.cost = uint32(min(uint64(v.cost)+uint64(cost), math.MaxUint32))
	return v
}

// times are the timer values that travel with a priority vector, in seconds.
type times struct {
	messageAge, maxAge, hello, forwardDelay int
}

// seconds rounds the unit of a BPDU, 1/256 s (9.2.8), to whole seconds.
func seconds(t uint16) int { return (int(t) + 128) / 256 }

// ticks256 is the inverse of seconds.
func ticks256(s int) uint16 { return uint16(min(s*256, math.MaxUint16)) }
