package vswitch

import (
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
)

// forward puts f into the vectors of the ports it goes to (802.1Q-2018 clause
// 8.8) and returns their number; where there is none it says why.
func (w *worker) forward(out *outputs, f *port.Frame) (copies int, drop port.Drop) {
	if f.Dst.IsGroup() {
		return w.flood(out, f)
	}
	number, known := w.sw.fdb.Lookup(key(f, f.Dst))
	if !known {
		return w.flood(out, f)
	}
	switch number {
	case w.in:
		return 0, port.DropSamePort
	case fdb.NoPort:
		return 0, port.DropLocal
	}
	to := out.set.member(number)
	if to == nil || !shouldDeliver(f, to) {
		return 0, port.DropNoDestination
	}
	out.add(f, to)
	return 1, port.DropNone
}
