package vswitch

import "github.com/vswitch/vswitch/port"

// whyNot is, with whyNotCopy for mirrors, the one place that decides whether f may leave
// by a port: DropNone, or why it may not.
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

// whyNotTo is whyNot for all frames of a VLAN.
func whyNotTo(vlan uint16, from, to *member) port.Drop {
	switch {
	case to.number == from.number:
		return port.DropSamePort
	case !to.vlans.Has(vlan):
		return port.DropVLANFiltered
	case from.flags&to.flags&flagIsolated != 0:
		return port.DropIsolated
	case to.flags&flagBlocked != 0:
		return port.DropBlocked
	}
	return port.DropNone
}

// whyNotCopy is whyNot for a mirror's copy of what came by a port. In a VLAN, copies go
// by the rules of its data, but where they would lose its tag; at a port that is the
// mirror's target, whatever the VLAN and the isolation are, which say nothing of whoever
// watches. None goes back to where the frame came from.
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

// outputs are the vectors of one batch: for each port that frames go to, which
// ones. They belong to one worker from begin to flush, and lie in a pool between
// batches: a switch needs as many as workers are at work at a time, not one for
// each pair of ports.
type outputs struct {
	shard  uint32   // of transmit counters
	slot   []uint16 // by port number: 1 + the index of its vector, 0 for none
	vecs   []vector
	cut    frameStore // what mirrors shortened
	done   finished
	copies uint64 // that mirrors and cutting made

	from    *member // which port the frames came by
	control bool    // they are of the switch's own

	// Of which frame each mirror has made a copy last: a mirror copies a frame once,
	// by however many of its sources it passes.
	copied []*port.Frame
}

// vector is what goes to one port.
type vector struct {
	to   *member
	caps port.Caps
	out  []port.Out
}

// begin makes o ready for a batch that came by a port.
func (o *outputs) begin(set *portSet, from *member, shard uint32) {
	o.shard, o.copies, o.from, o.control = shard, 0, from, false
	if numbers := len(set.byNumber); numbers > len(o.slot) {
		o.slot = make([]uint16, numbers)
	}
	if set.mirrors > len(o.copied) {
		o.copied = make([]*port.Frame, set.mirrors)
	}
}

// add puts f into the vector of a port, with the tag it leaves with there.
func (o *outputs) add(f *port.Frame, to *member) {
	tag, push := retag(f, to)
	o.put(port.Out{Frame: f, Tag: tag, Push: push, Control: o.control}, to)
	if to.flags&flagMirrorOut != 0 {
		o.mirror(to.mirrorOut, f, tag, push)
	}
}

// put appends to the vector of a port.
func (o *outputs) put(out port.Out, to *member) {
	at := o.slot[to.number]
	if at == 0 {
		at = o.open(to)
	}
	v := &o.vecs[at-1]
	if f := out.Frame; f.Offload != (port.Offload{}) && f.Needs()&^v.caps != 0 {
		o.finish(out, v)
		return
	}
	v.out = append(v.out, out)
}

// finish appends what a frame becomes for a port that cannot take it as it is.
func (o *outputs) finish(out port.Out, v *vector) {
	made := o.done.finish(out.Frame, v.caps)
	if len(made) == 0 {
		why := port.DropBadOffload
		if out.Frame.Tail != nil {
			why = port.DropMemoryGone
		}
		v.to.tx[o.shard].dropped[why].Add(1)
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
		o.vecs = o.vecs[:n+1] // with the memory that its Outs had
	} else {
		o.vecs = append(o.vecs, vector{})
	}
	v := &o.vecs[n]
	v.to, v.caps, v.out = to, to.dev.Caps(), v.out[:0]
	o.slot[to.number] = uint16(n + 1)
	return uint16(n + 1)
}

// flush hands each vector to its port, to the queue that stands beside the
// worker's own so that a flow keeps its order, and counts what became of it.
func (o *outputs) flush(queue int) {
	for i := range o.vecs {
		v := &o.vecs[i]
		v.to.queues[queue%len(v.to.queues)].Send(v.out)
		v.to.tx[o.shard].count(v.out)
		o.slot[v.to.number] = 0
		v.to = nil
	}
	o.vecs = o.vecs[:0]
	o.cut.reset()
	o.done.reset()
	o.from = nil
	clear(o.copied)
}
