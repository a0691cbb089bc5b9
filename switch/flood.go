package vswitch

import "github.com/vswitch/vswitch/port"

// flood calls toAll if f is within the port's storm rate for the class.
func (w *worker) flood(out *outputs, f *port.Frame, from *member, class Class) (copies int, drop port.Drop) {
	if from.flags&flagStorm != 0 {
		if drop := w.storm(f, from, class); drop != port.DropNone {
			return 0, drop
		}
	}
	if class == Broadcast {
		if from.flags&flagResolution != 0 && isResolution(f) {
			return 0, w.punt(f, from.port, QueueResolution, f.VLAN)
		}
		// Hosts take a message to a group of IP that comes as a broadcast.
		if g := w.set.groups; g.snoops(f) && g.IsControl(f.Data) {
			return 0, w.punt(f, from.port, QueueGroups, f.VLAN)
		}
	}
	return w.toAll(out, f, from, class)
}

// toAll adds f, a frame of the given class, to the vector of every port it may leave by.
func (w *worker) toAll(out *outputs, f *port.Frame, from *member, class Class) (copies int, drop port.Drop) {
	unwanted := flags(class) << flagNoFloodShift
	for _, to := range w.set.flood {
		if to.flags&unwanted == 0 && whyNot(f, from, to) == port.DropNone {
			out.add(f, to)
			copies++
		}
	}
	if copies == 0 {
		return 0, port.DropNoDestination
	}
	return copies, port.DropNone
}
