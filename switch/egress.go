package vswitch

import "github.com/vswitch/vswitch/port"

// shouldDeliver is the one place that decides whether f may leave by a port.
// Members of the set are forwarding, so only the port itself is left to rule out.
func shouldDeliver(f *port.Frame, to *member) bool { return to.number != f.In }

// outputs are the vectors of one batch: for each port that frames go to, which
// ones. They belong to one worker from begin to flush, and lie in a pool between
// batches: a switch needs as many as workers are at work at a time, not one for
// each pair of ports.
type outputs struct {
	set   *portSet
	shard uint32   // of transmit counters
	slot  []uint16 // by port number: 1 + the index of its vector, 0 for none
	vecs  []vector
}

// vector is what goes to one port.
type vector struct {
	to   *member
	caps port.Caps
	out  []port.Out
}

// begin makes o ready for a batch.
func (o *outputs) begin(set *portSet, shard uint32) {
	o.set, o.shard = set, shard
	if n := len(set.byNumber); n > len(o.slot) {
		o.slot = make([]uint16, n)
	}
}

// add puts f into the vector of a port, with the tag it leaves with there.
func (o *outputs) add(f *port.Frame, to *member) {
	at := o.slot[to.number]
	if at == 0 {
		at = o.open(to)
	}
	v := &o.vecs[at-1]
	if f.Offload != (port.Offload{}) && f.Offload.Needs()&^v.caps != 0 {
		to.tx[o.shard].dropped[port.DropOffloadUnsupported].Add(1)
		return
	}
	v.out = append(v.out, port.Out{Frame: f, Tag: retag(f)})
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
	o.set = nil
}
