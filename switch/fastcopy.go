package vswitch

import (
	"time"

	"github.com/vswitch/vswitch/port"
)

// FastCopy is a copy of a frame that a fast path made while it passed.
type FastCopy struct {
	Number uint16 // of the port
	Sent   bool   // the port sent it; else it came by the port
	Time   time.Time
	Drop   port.Drop // why the fast path dropped it
	Tag    port.Tag
	Data   []byte // the frame without that tag, or its beginning
	Length int    // of the frame without that tag
	Missed uint32 // copies of the port's frames before this one for which there was no room
}

// absent is the rest of a frame of which there is the beginning only.
type absent int

func (a absent) Len() int             { return int(a) }
func (a absent) CopyTo([][]byte) bool { return false }

// showCopy shows a copy to the watches that want it. The fast path calls it, on a goroutine
// of its own.
func (s *Switch) showCopy(c *FastCopy) {
	set := s.ports.Load()
	at := set.member(c.Number)
	if at == nil || set.watches == nil {
		return
	}
	var f port.Frame
	f.SetStripped(c.Data, c.Tag)
	f.Drop = c.Drop
	if more := c.Length - len(c.Data); more > 0 {
		f.Tail = absent(more)
	}
	set.show(Sight{
		Port: at.port, Sent: c.Sent, VLAN: vlanAt(&f, at), Out: port.Out{Frame: &f, Tag: f.Tag, Drop: c.Drop},
		Time: c.Time, Missed: c.Missed,
	})
}

// vlanAt returns the VLAN of a frame with the tag that it has at a port; 0: none.
func vlanAt(f *port.Frame, at *member) uint16 {
	var as port.Frame
	as.Tag = f.Tag
	_ = classify(&as, at)
	return as.VLAN
}
