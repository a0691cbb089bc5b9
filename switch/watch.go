package vswitch

import (
	"slices"
	"time"

	"github.com/vswitch/vswitch/port"
)

// Watch shows frames to a function while they pass: those that ports receive or send, and
// those that are lost. Workers call See, several at a time; it must take no time, keep and
// change nothing, and allocate nothing. Frames of the fast path are shown later, as copies.
type Watch struct {
	Ports []string // nil: all ports, also those that are added later
	In    bool     // frames that a port receives, once it is known what becomes of them
	Out   bool     // frames that a port has sent
	Drops bool     // frames that a port loses, in either direction

	// With Punt, the fast path passes on the frames that it would drop, so that a watch of
	// Drops sees them as well, and so it sees most of those that devices lose (see Losses).
	Punt bool

	// With Some, a watch of Drops sees some of the frames that the fast path drops: of each
	// port and reason a few a second, with the number of others in Missed.
	Some bool

	// SnapLen is how many bytes of a frame See reads; 0: all.
	SnapLen int

	See func(Sight)
}

// Sight is one frame at one port.
type Sight struct {
	Port *Port
	Sent bool     // on output; else on input
	VLAN uint16   // the VLAN in which it was switched; 0: none was found
	Out  port.Out // the frame with its tag at the port; its Drop says why it was lost

	Time   time.Time // of a copy; zero: it passes now
	Missed uint32    // copies of the port's frames before this one for which there was no room
}

// Len returns the frame's length on the wire in bytes.
func (s *Sight) Len() int { return s.Out.Len() }

// CopyTo copies the frame as it is on the wire to b, as far as there is room and the watch's
// SnapLen reaches, and returns the number of bytes.
func (s *Sight) CopyTo(b []byte) int {
	f := s.Out.Frame
	if len(f.Data) < port.HeaderLen { // a runt has no header to write
		return copy(b, f.Data)
	}
	var header [port.MaxHeader]byte
	n := copy(b, header[:s.Out.PutHeader(header[:])])
	return n + copy(b[n:], f.Data[12:])
}

// watch is a Watch with the numbers of its ports.
type watch struct {
	*Watch
	at []bool // by port number; nil: all
}

func (w *watch) covers(number uint16) bool {
	return w.at == nil || int(number) < len(w.at) && w.at[number]
}

// Watch begins a watch. After stop has returned, See may still be called for the batches
// in flight. Any goroutine may call both; with Punt, both can take a tenth of a second.
func (s *Switch) Watch(w *Watch) (stop func()) {
	s.mu.Lock()
	s.watches = append(slices.Clip(s.watches), w)
	s.publish()
	s.mu.Unlock()
	losses := s.losses != nil && w.Drops && w.Punt
	if losses {
		s.losses.Begin(s.showCopy)
	}
	return func() {
		if losses {
			s.losses.End()
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.watches = slices.DeleteFunc(slices.Clone(s.watches), func(other *Watch) bool { return other == w })
		s.publish()
	}
}

// Losses shows the frames that the kernel's devices lose without an error, so that the switch
// can only count them (see port.Lossy).
type Losses interface {
	// Devices names the devices that are watched, with the numbers of their ports. It is
	// called with each change.
	Devices(map[int]uint16)

	// Begin makes show be called for each loss, on any goroutine, until End is called as
	// often as Begin. Both may take a while.
	Begin(show func(*FastCopy))
	End()
}

// publishLosses tells Losses of the ports of the set. The caller holds mu.
func (s *Switch) publishLosses(set *portSet) {
	if s.losses == nil {
		return
	}
	devices := make(map[int]uint16)
	for _, m := range set.flood {
		dev, is := m.dev.(port.KernelEnd)
		if _, lossy := m.dev.(port.Lossy); is && lossy && m.flags&flagPuntDrops != 0 {
			devices[dev.Ifindex()] = m.number
		}
	}
	s.losses.Devices(devices)
}

// addWatches adds the watches to a new set.
func (s *Switch) addWatches(set *portSet) {
	for _, of := range s.watches {
		w := watch{Watch: of}
		if of.Ports != nil {
			w.at = make([]bool, len(s.byName)+1)
		}
		for _, name := range of.Ports {
			if p := s.byName[name]; p != nil {
				for int(p.number) >= len(w.at) {
					w.at = append(w.at, false)
				}
				w.at[p.number] = true
			}
		}
		for _, m := range set.flood {
			if !w.covers(m.number) {
				continue
			}
			if w.In {
				m.flags |= flagWatchIn
			}
			if w.Out {
				m.flags |= flagWatchOut
			}
			if w.Drops && w.Punt {
				m.flags |= flagPuntDrops
			}
			if w.Drops && w.Some {
				m.flags |= flagSeeDrops
			}
		}
		set.watches = append(set.watches, w)
	}
}

// show shows a frame to the watches that want it.
func (s *portSet) show(sight Sight) {
	s.showTo(sight, func(*Watch) bool { return true })
}

// showTo shows a frame to the watches that want it among some.
func (s *portSet) showTo(sight Sight, among func(*Watch) bool) {
	for i := range s.watches {
		w := &s.watches[i]
		if !w.covers(sight.Port.number) || !among(w.Watch) {
			continue
		}
		if w.Drops && sight.Out.Drop != port.DropNone || !sight.Sent && w.In || sight.Sent && w.Out {
			w.See(sight)
		}
	}
}

// needsAll reports whether a watch of the port reads more than Frame.Data of a super-frame.
func (s *portSet) needsAll(number uint16) bool {
	return slices.ContainsFunc(s.watches, func(w watch) bool {
		return w.covers(number) && (w.SnapLen == 0 || w.SnapLen > port.MinHead)
	})
}

// snapLen returns how many bytes of a port's frames its watches read, 0: all. Filters read
// more than what is kept.
func (s *portSet) snapLen(number uint16) (most int) {
	for i := range s.watches {
		w := &s.watches[i]
		switch {
		case !w.covers(number) || !w.In && !w.Out:
		case w.SnapLen == 0:
			return 0
		default:
			most = max(most, w.SnapLen, port.MinHead)
		}
	}
	return most
}

// showReceived shows the frames of a batch from the worker's port, which have the outcome in
// their Drop.
func (w *worker) showReceived(out *outputs, frames []port.Frame, from *member) {
	all := w.set.needsAll(w.in)
	for i := range frames {
		f := &frames[i]
		if all && !out.done.flatten(f) {
			continue // its sender took it away
		}
		w.set.show(Sight{Port: w.port, VLAN: vlanOf(f, from), Out: port.Out{Frame: f, Tag: f.Tag, Drop: f.Drop}})
	}
}

// vlanOf returns the VLAN of a received frame. One that ingress dropped may not have it yet.
func vlanOf(f *port.Frame, from *member) uint16 {
	switch {
	case f.Drop == port.DropNone:
		return f.VLAN
	case from == nil || len(f.Data) < port.HeaderLen:
		return 0
	}
	var dropped port.Frame
	dropped.Tag = f.Tag
	_ = classify(&dropped, from)
	return dropped.VLAN
}

// flattenWatched copies what watches of a vector's port will read, so that they see the bytes
// that are sent.
func (o *outputs) flattenWatched(v *vector) {
	if !o.set.needsAll(v.to.number) {
		return
	}
	for i := range v.out {
		_ = o.done.flatten(v.out[i].Frame) // if its sender took it away, Send drops it
	}
}

// showSent shows the frames of a port that were sent or lost. A shaped port shows those that
// wait when it sends them.
func (s *portSet) showSent(to *Port, out []port.Out) {
	for i := range out {
		if out[i].Drop != countedLater {
			s.show(Sight{Port: to, Sent: true, VLAN: out[i].Frame.VLAN, Out: out[i]})
		}
	}
}
