package vswitch

import (
	"sync/atomic"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
)

// The path of a frame. Functions stand in the files in the order frames pass them:
//
//	1. worker.run      one goroutine per queue receives a batch
//	2. worker.ingress  may the frame come in: port state, addresses, offload,
//	3. classify        which VLAN it belongs to, the port's rate
//	4. worker.learn    source address → FDB, written only when it changed
//	5. worker.forward  destination address → one port,
//	6. worker.flood    or every other port, or a group's (worker.multicast)
//	7. whyNot          may it go out there
//	8. outputs.add     put it into that port's vector, with its tag
//	9. outputs.flush   hand each vector to its port, count what became of it
//
// Nothing on it allocates, waits, or takes a lock that another worker holds.

// worker takes frames from one queue of one port to wherever they go.
type worker struct {
	sw    *Switch
	queue port.Queue
	index int    // of the queue in its port
	in    uint16 // the port's number
	shard uint32 // of the transmit counters of the ports it sends to
	rx    *rxCounters

	// batch is odd while a batch is on its way: see quiesce.
	batch atomic.Uint32

	// Of the batch that is on its way.
	set   *portSet
	clock int64
	last  lastKeys

	frames [port.BatchSize]port.Frame
}

// lastKeys is what the FDB said of the frame before, in this batch: most frames
// that come together belong to one flow, and need not ask again. 0 is no key.
type lastKeys struct {
	src fdb.Key // was known, and fresh
	dst fdb.Key // was at to
	to  uint16
}

// run works until the queue ends, and returns why.
func (w *worker) run() error {
	for {
		n, err := w.queue.Recv(w.frames[:])
		if err != nil {
			return err
		}
		w.batch.Add(1)
		w.switchBatch(w.frames[:n])
		w.batch.Add(1)
		w.queue.Release()
	}
}

// switchBatch passes frames through all stages.
func (w *worker) switchBatch(frames []port.Frame) {
	w.set, w.clock, w.last = w.sw.ports.Load(), 0, lastKeys{}
	from := w.set.member(w.in)
	out := w.sw.vecs.Get().(*outputs)
	out.begin(w.set, from, w.shard)
	var bytes uint64
	for i := range frames {
		f := &frames[i]
		bytes += uint64(f.Len())
		copies, drop := w.switchFrame(out, f, from)
		if drop != port.DropNone {
			w.rx.drop(drop)
		} else if copies > 1 {
			w.rx.copied(uint64(copies - 1))
		}
	}
	out.flush(w.index)
	if out.copies != 0 {
		w.rx.copied(out.copies)
	}
	w.sw.vecs.Put(out)
	w.rx.received(uint64(len(frames)), bytes)
}

// switchFrame passes one frame through the stages up to the output vectors. It
// returns in how many of them it is, and why where it is in none.
func (w *worker) switchFrame(out *outputs, f *port.Frame, from *member) (copies int, drop port.Drop) {
	drop = w.ingress(f, from)
	if from != nil && from.flags&flagMirrorIn != 0 {
		out.mirrorIn(from, f, drop)
	}
	if drop == port.DropNone {
		drop = w.learn(f, from)
	}
	if drop != port.DropNone {
		return 0, drop
	}
	return w.forward(out, f, from)
}

// member returns the port of that number if it takes part in forwarding.
func (s *portSet) member(number uint16) *member {
	if int(number) < len(s.byNumber) {
		return s.byNumber[number]
	}
	return nil
}

// key is the FDB key of an address in the frame's VLAN.
func key(f *port.Frame, mac port.MAC) fdb.Key { return fdb.MakeKey(f.VLAN, uint64(mac)) }
