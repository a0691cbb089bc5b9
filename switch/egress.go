package vswitch

import "github.com/vswitch/vswitch/port"

// whyNot returns why f may not leave through a port, or DropNone if it may. Only whyNot,
// and whyNotCopy for mirrors, decide this.
func whyNot(f *port.Frame, from, to *member) port.Drop {
	if drop := whyNotTo(f.VLAN, from, to); drop != port.DropNone {
		return drop
	}
	switch {
	case to.flags&flagMirrorTarget != 0:
		return port.DropMirrorTarget
	case f.Tag.Present() && wouldHop(f, to):
		return port.DropVLANFiltered
	}
	return port.DropNone
}

// whyNotTo is the part of whyNot that depends only on the VLAN.
func whyNotTo(vlan uint16, from, to *member) port.Drop {
	switch {
	case to.number == from.number:
		return port.DropSamePort
	case !to.vlans.Has(vlan):
		return port.DropVLANFiltered
	case from.flags&to.flags&(flagIsolated|flagTunnel) != 0:
		return port.DropIsolated
	case to.flags&flagBlocked != 0:
		return port.DropBlocked
	}
	return port.DropNone
}

// whyNotCopy is whyNot for a mirror's copy of a frame received from a port. Copies into a
// VLAN obey the rules for data in that VLAN, and never leave untagged. Copies to a target
// port ignore VLAN and isolation, which do not apply to an observer. No copy goes back to
// the port its frame came from.
func whyNotCopy(m *Mirror, from, to *member) port.Drop {
	if m.ToVLAN == 0 {
		switch {
		case to.number == from.number:
			return port.DropSamePort
		case to.flags&flagBlocked != 0:
			return port.DropBlocked
		}
		return port.DropNone
	}
	if to.native == m.ToVLAN {
		return port.DropVLANFiltered
	}
	if to.flags&flagMirrorTarget != 0 {
		return port.DropMirrorTarget
	}
	return whyNotTo(m.ToVLAN, from, to)
}

// outputs are the vectors of one batch: the frames for each egress port. One worker owns
// them from begin to flush; between batches they lie in a pool. So a switch needs as many
// as there are busy workers, not one for each pair of ports.
type outputs struct {
	shard  uint32   // of the transmit counters
	slot   []uint16 // by port number: 1 + the index of its vector; 0: none
	vecs   []vector
	cut    frameStore // copies that mirrors truncated
	done   finished
	copies uint64 // made by mirrors and segmentation

	set     *portSet
	from    *member       // the ingress port
	control port.OutFlags // port.Control if the switch originated the frames
	patient *worker       // waits for full queues; nil: nobody does

	// The last frame that each mirror copied: a mirror copies a frame once, however many
	// of its sources the frame passes.
	copied []*port.Frame
}

// vector holds the frames for one port.
type vector struct {
	to   *member
	caps port.Caps
	out  []port.Out
}

// begin prepares o for a batch from a port.
func (o *outputs) begin(set *portSet, from *member, shard uint32) {
	o.shard, o.copies, o.set, o.from, o.control = shard, 0, set, from, 0
	if numbers := len(set.byNumber); numbers > len(o.slot) {
		o.slot = make([]uint16, numbers)
	}
	if set.mirrors > len(o.copied) {
		o.copied = make([]*port.Frame, set.mirrors)
	}
}

// add appends f to the vector of a port, with its egress tag there.
func (o *outputs) add(f *port.Frame, to *member) {
	tag, flags := retag(f, to)
	o.put(port.Out{Frame: f, Tag: tag, Flags: flags | o.control}, to)
	if to.flags&flagMirrorOut != 0 {
		o.mirror(to.mirrorOut, f, tag, flags)
	}
}

// put appends out to the vector of a port.
func (o *outputs) put(out port.Out, to *member) {
	at := o.slot[to.number]
	if at == 0 {
		at = o.open(to)
	}
	v := &o.vecs[at-1]
	if f := out.Frame; f.Offload.Left() && f.Needs()&^v.caps != 0 {
		o.finish(out, v)
		return
	}
	v.out = append(v.out, out)
}

// finish appends the frames that replace one the port cannot take as it is.
func (o *outputs) finish(out port.Out, v *vector) {
	made := o.done.finish(out.Frame, v.caps)
	if len(made) == 0 {
		why := port.DropBadOffload
		if out.Frame.Tail != nil {
			why = port.DropMemoryGone
		}
		v.to.tx[o.shard].dropped[why].Add(1)
		if o.set.watches != nil {
			out.Drop = why
			o.set.showSent(v.to.port, []port.Out{out})
		}
		return
	}
	o.copies += uint64(len(made) - 1)
	for _, f := range made {
		out.Frame = f
		v.out = append(v.out, out)
	}
}

// open starts the vector of a port and returns its slot.
func (o *outputs) open(to *member) uint16 {
	n := len(o.vecs)
	if n < cap(o.vecs) {
		o.vecs = o.vecs[:n+1] // reuses the memory of its former Outs
	} else {
		o.vecs = append(o.vecs, vector{})
	}
	v := &o.vecs[n]
	v.to, v.caps, v.out = to, to.dev.Caps(), v.out[:0]
	o.slot[to.number] = uint16(n + 1)
	return uint16(n + 1)
}

// flush sends each vector to its port and counts the outcome. It picks the port's queue
// by the worker's queue number, so that a flow keeps its order.
func (o *outputs) flush(queue int) {
	for i := range o.vecs {
		v := &o.vecs[i]
		if v.to.flags&flagWatchOut != 0 {
			o.flattenWatched(v)
		}
		q := v.to.queues[queue%len(v.to.queues)]
		q.Send(v.out)
		if o.patient != nil {
			o.patient.insist(v.to.port, q, v.out)
		}
		lost := v.to.tx[o.shard].count(v.out)
		if o.set.watches != nil && (lost || v.to.flags&flagWatchOut != 0) {
			o.set.showSent(v.to.port, v.out)
		}
		o.slot[v.to.number] = 0
		v.to = nil
	}
	o.vecs = o.vecs[:0]
	o.cut.reset()
	o.done.reset()
	o.set, o.from, o.patient = nil, nil, nil
	clear(o.copied)
}
