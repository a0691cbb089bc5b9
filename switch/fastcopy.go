package vswitch

import (
	"time"

	"github.com/vswitch/vswitch/internal/virtio/vnet"
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

	To      uint16 // the port by which a sample leaves; that by which a CopyMirrorOut came; fdb.NoPort: none
	Several bool   // it leaves by several
	Push    bool   // of a CopyMirrorOut: Tag stands in front of the frame's own

	Offload port.Offload // what is left to others
}

// CopyKind says what a FastCopy is.
type CopyKind uint8

const (
	CopyIn     CopyKind = iota // of a frame that came by a port, for watches
	CopyOut                    // of one that a port sent, for watches
	CopySample                 // of a frame that was drawn, for the port's sampler
	CopyDrop                   // of one that was dropped, for watches with Some
	CopyLost                   // of one that a device lost, for watches with Punt

	CopyMirrorIn  // of a frame that came by a port, for mirrors
	CopyMirrorOut // of one that a port sent, for mirrors
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
	sent := c.Kind == CopyOut || c.Kind == CopyLost
	sight := Sight{
		Port: at.port, Sent: sent, VLAN: vlanAt(c.Tag, at, sent), Out: port.Out{Frame: &f, Tag: f.Tag, Drop: c.Drop},
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
	case CopyMirrorIn, CopyMirrorOut:
		s.mirrorCopy(set, c, at)
	default:
		set.showTo(sight, func(w *Watch) bool { return !w.Some })
	}
}

// vlanAt returns the VLAN of a frame with this tag that came by a port, or was sent; 0: none.
func vlanAt(tag port.Tag, at *member, sent bool) uint16 {
	if sent && (!tag.Present() || tag.TPID() != at.tpid) {
		return at.native
	}
	as := port.Frame{Tag: tag}
	_ = classify(&as, at)
	return as.VLAN
}

// mirrorCopy has those of a port's taps copy a frame that the fast path does not serve itself.
func (s *Switch) mirrorCopy(set *portSet, c *FastCopy, at *member) {
	from, taps, sent := at, at.mirrorIn, c.Kind == CopyMirrorOut
	var before []tap // where it came
	if sent {
		if from = set.member(c.To); from == nil {
			return
		}
		taps, before = at.mirrorOut, from.mirrorIn
	}
	f, flags := c.frame()
	f.VLAN = vlanAt(c.Tag, at, sent)
	out := s.vecs.Get().(*outputs)
	defer s.vecs.Put(out)
	out.begin(set, from, 0)
	lost := uint64(0)
	for i := range taps {
		t := &taps[i]
		if !t.isByCopy() {
			continue
		}
		if c.Missed > 0 { // they may not have been wanted
			t.to[0].tx[0].dropped[port.DropQueueFull].Add(uint64(c.Missed))
			lost += uint64(c.Missed)
		}
		if !t.wants(f, c.Tag) || t.hasCopied(f, before) {
			continue
		}
		cut := t.SnapLen != 0 && f.DataLen() > t.SnapLen
		if cut && t.SnapLen > len(f.Data) || !cut && f.Tail != nil {
			continue // it was made before the mirror was
		}
		cp := out.cut.copyOf(f)
		if cut {
			cp.Data, cp.Tail, cp.Offload, cp.Drop = f.Data[:t.SnapLen:t.SnapLen], nil, port.Offload{}, port.DropNone
		}
		for _, to := range t.to {
			if to == at || whyNotCopy(t.Mirror, from, to) != port.DropNone {
				continue
			}
			if cp.Drop != port.DropNone {
				to.tx[0].dropped[cp.Drop].Add(1)
				lost++
				continue
			}
			one := port.Out{Frame: cp, Tag: c.Tag, Flags: flags}
			if t.ToVLAN != 0 {
				one.Tag, one.Flags = port.MakeTag(to.tpid, t.ToVLAN), port.Push
			}
			out.put(one, to)
			out.copies++
		}
	}
	copies := out.copies
	out.flush(0)
	from.port.mirrored.Add(copies + lost)
}

// frame returns the frame of a copy, and how its Tag stands to the frame's own.
func (c *FastCopy) frame() (f *port.Frame, flags port.OutFlags) {
	f = new(port.Frame)
	offload := c.Offload
	if c.Push {
		f.SetWire(c.Data)
		offload, _ = vnet.Untag(offload)
		flags = port.Push
	} else {
		f.SetStripped(c.Data, c.Tag)
	}
	if more := c.Length - len(c.Data); more > 0 {
		f.Tail = absent(more)
	} else if f.Offload = offload; offload.Left() && !inspect(f) {
		f.Drop = port.DropBadOffload
	}
	return f, flags
}
