package vswitch

import (
	"sync/atomic"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
)

// The path of a frame. Functions stand in the files in the order frames pass them:
//
//	1. worker.run      one goroutine per queue receives a batch
//	2. worker.ingress  may the frame come in: port state, addresses, offload
//	3. classify        which VLAN it belongs to
//	4. worker.learn    source address → FDB, written only when it changed
//	5. worker.forward  destination address → one port,
//	6. worker.flood    or every other port
//	7. outputs.add     may it go out there; put it into that port's vector
//	8. outputs.flush   hand each vector to its port, count what became of it
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

	frames [port.BatchSize]port.Frame
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
	set := w.sw.ports.Load()
	out := w.sw.vecs.Get().(*outputs)
	out.begin(set, w.shard)
	var bytes uint64
	open := set.member(w.in) != nil
	for i := range frames {
		f := &frames[i]
		bytes += uint64(f.Len())
		if drop := w.ingress(f, open); drop != port.DropNone {
			w.rx.drop(drop)
			continue
		}
		f.In, f.VLAN = w.in, classify(f)
		w.learn(f)
		copies, drop := w.forward(out, f)
		if drop != port.DropNone {
			w.rx.drop(drop)
		} else if copies > 1 {
			w.rx.copied(copies - 1)
		}
	}
	out.flush(w.index)
	w.sw.vecs.Put(out)
	w.rx.received(uint64(len(frames)), bytes)
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
