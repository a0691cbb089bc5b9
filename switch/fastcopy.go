package vswitch

import (
	"time"

	"github.com/vswitch/vswitch/port"
)

// FastCopy is a copy of a frame that a fast path made while it passed.
type FastCopy struct {
	Kind   CopyKind
	Number uint16 // of the port
	Time   time.Time
	Drop   port.Drop // why the fast path dropped it
	Tag    port.Tag
	Data   []byte // the frame without that tag, or its beginning
	Length int    // of the frame without that tag
	Missed uint32 // copies of the port's frames before this one for which there was no room

	// Of a sample, how many frames came by the port since the one before, with this one. Of a
	// drop, how many others there were for this reason since the last that was copied.
	Of uint32

	To      uint16 // the port by which a sample leaves; fdb.NoPort: none
	Several bool   // it leaves by several
}

// CopyKind says what a FastCopy is.
type CopyKind uint8

const (
	CopyIn     CopyKind = iota // of a frame that came by a port, for watches
	CopyOut                    // of one that a port sent, for watches
	CopySample                 // of a frame that was drawn, for the port's sampler
	CopyDrop                   // of one that was dropped, for watches with Some
	CopyLost                   // of one that a device lost, for watches with Punt
)

// absent is the rest of a frame of which there is the beginning only.
type absent int

func (a absent) Len() int             { return int(a) }
func (a absent) CopyTo([][]byte) bool { return false }

// showCopy shows a copy to the watches that want it, or to the port's sampler. The fast path
// calls it, on goroutines of its own.
func (s *Switch) showCopy(c *FastCopy) {
	set := s.ports.Load()
	at := set.member(c.Number)
	if at == nil {
		return
	}
	var f port.Frame
	f.SetStripped(c.Data, c.Tag)
	f.Drop = c.Drop
	if more := c.Length - len(c.Data); more > 0 {
		f.Tail = absent(more)
	}
	sight := Sight{
		Port: at.port, Sent: c.Kind == CopyOut || c.Kind == CopyLost, VLAN: vlanAt(&f, at), Out: port.Out{Frame: &f, Tag: f.Tag, Drop: c.Drop},
		Time: c.Time, Missed: c.Missed,
	}
	switch c.Kind {
	case CopySample:
		set.showSample(c, sight, at)
	case CopyLost:
		sight.Missed += c.Of
		set.showTo(sight, func(w *Watch) bool { return w.Drops && w.Punt })
	case CopyDrop:
		sight.Missed += c.Of
		set.showTo(sight, func(w *Watch) bool { return w.Some })
	default:
		set.showTo(sight, func(w *Watch) bool { return !w.Some })
	}
}

// vlanAt returns the VLAN of a frame with the tag that it has at a port; 0: none.
func vlanAt(f *port.Frame, at *member) uint16 {
	var as port.Frame
	as.Tag = f.Tag
	_ = classify(&as, at)
	return as.VLAN
}
