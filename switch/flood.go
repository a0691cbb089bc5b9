package vswitch

import "github.com/vswitch/vswitch/port"

// flood puts f into the vector of every port it may go to.
func (w *worker) flood(out *outputs, f *port.Frame) (copies int, drop port.Drop) {
	for _, to := range out.set.flood {
		if shouldDeliver(f, to) {
			out.add(f, to)
			copies++
		}
	}
	if copies == 0 {
		return 0, port.DropNoDestination
	}
	return copies, port.DropNone
}
