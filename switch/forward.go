package vswitch

import (
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
)

// forward adds f to the vectors of its destination ports (802.1Q-2018 clause 8.6) and
// returns their number; if that is 0, it returns why.
func (w *worker) forward(out *outputs, f *port.Frame, from *member) (copies int, drop port.Drop) {
	if f.Dst.IsGroup() {
		if f.Dst == port.Broadcast {
			return w.flood(out, f, from, Broadcast)
		}
		return w.multicast(out, f, from)
	}
	k := key(f, f.Dst)
	if k == w.last.dst && !wouldHop(f, w.last.to) {
		out.add(f, w.last.to)
		return 1, port.DropNone
	}
	number, known := w.sw.fdb.Lookup(k)
	if !known {
		return w.flood(out, f, from, UnknownUnicast)
	}
	switch number {
	case from.number:
		return 0, port.DropSamePort
	case fdb.NoPort:
		if from.flags&flagResolution != 0 && isResolution(f) {
			return 0, w.punt(f, from.port, QueueResolution, f.VLAN)
		}
		return 0, port.DropLocal
	}
	to := w.set.member(number)
	if to == nil {
		return 0, port.DropNoDestination
	}
	if drop := whyNot(f, from, to); drop != port.DropNone {
		return 0, drop
	}
	if from.flags&flagResolution == 0 {
		w.last.dst, w.last.to = k, to
	} else if isResolution(f) {
		w.punt(f, from.port, QueueResolution, f.VLAN) // a copy, which may be lost
	}
	out.add(f, to)
	return 1, port.DropNone
}
