package vswitch

import (
	"runtime"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
)

// The path of a frame. Each file lists its functions in the order frames pass them:
//
//	1. worker.run      one goroutine per queue receives a batch
//	2. worker.ingress  may the port accept it: port state, addresses, offload,
//	3. classify        which VLAN it belongs to, the port's rate
//	4. worker.learn    source address → FDB, written only on change
//	5. worker.forward  destination address → one port,
//	6. worker.flood    or every other port, or a group's (worker.multicast)
//	7. whyNot          may it leave there
//	8. outputs.add     put it into that port's vector, with its tag
//	9. outputs.flush   send each vector to its port, count the outcome
//
// Nothing on this path allocates, waits, or takes a lock that another worker holds.

// worker forwards the frames of one queue of one port.
type worker struct {
	sw    *Switch
	queue port.Queue
	index int // of the queue in its port
	port  *Port
	in    uint16 // the port's number
	shard uint32 // which shard of transmit counters it uses
	rx    *rxCounters

	// batch is odd while a batch is in flight; see quiesce.
	batch atomic.Uint32
	hurry atomic.Int32 // how many wait for the batch

	patience time.Duration // how long it may still wait for full queues
	polled   polled        // if its queue is a port.Polled; see poll.go

	// State of the batch in flight. Between batches, set is nil.
	set   *portSet
	clock int64
	last  lastKeys
	draw  draw
	heed  bool // the port's stage waits for the frame's outcome

	frames [port.BatchSize]port.Frame
}

// lastKeys caches what was decided for former frames of the batch: most frames of a batch
// belong to one flow and need no second lookup. 0 is no key.
type lastKeys struct {
	src fdb.Key // was known and fresh
	dst fdb.Key // went to to, and to no other port or queue
	to  *member
}

// yieldEvery is how often a busy worker calls Go's scheduler. A goroutine that has not done so for
// 10 ms loses its processor in its next system call, and the runtime's monitor, which takes it,
// then wakes every 20 µs for some time. The clock is read every so many batches (clockEvery), which take
// up to 4 ms: to read it after each made forwarding between ports in memory 3 % slower.
const (
	yieldEvery = 5 * time.Millisecond
	clockEvery = 4
)

// run forwards frames until Recv fails, and returns its error.
func (w *worker) run() error {
	w.patience = patience
	if q, ok := w.queue.(port.Polled); ok {
		return w.runPolled(q)
	}
	yielded := time.Now()
	for batch := 0; ; batch++ {
		n, err := w.queue.Recv(w.frames[:])
		if err != nil {
			return err
		}
		w.pass(n)
		if batch%clockEvery == 0 && time.Since(yielded) > yieldEvery {
			runtime.Gosched()
			yielded = time.Now()
		}
	}
}

// pass forwards the first n frames, and releases them.
func (w *worker) pass(n int) {
	w.batch.Add(1)
	w.switchBatch(w.frames[:n])
	w.batch.Add(1)
	w.queue.Release()
}

// switchBatch passes frames through all stages.
func (w *worker) switchBatch(frames []port.Frame) {
	w.set, w.clock, w.last = w.sw.ports.Load(), 0, lastKeys{}
	from := w.set.member(w.in)
	out := w.sw.vecs.Get().(*outputs)
	out.begin(w.set, from, w.shard)
	if w.sw.patient.Load() {
		out.patient = w
	}
	var bytes uint64
	lost := false
	for i := range frames {
		f := &frames[i]
		bytes += uint64(f.Len())
		copies, drop := w.switchFrame(out, f, from)
		if w.heed {
			w.heed = false
			from.stage.Outcome(f, drop)
		}
		if drop != port.DropNone {
			w.rx.drop(drop)
			f.Drop, lost = drop, true
		} else if copies > 1 {
			w.rx.copied(uint64(copies - 1))
		}
	}
	if w.set.watches != nil && (lost || from != nil && from.flags&flagWatchIn != 0) {
		w.showReceived(out, frames, from)
	}
	if from != nil && from.flags&flagSampled != 0 {
		w.sample(out, frames, from)
	}
	out.flush(w.index)
	if out.copies != 0 {
		w.rx.copied(out.copies)
	}
	w.sw.vecs.Put(out)
	w.rx.received(uint64(len(frames)), bytes)
	w.set, w.last.to = nil, nil // a worker that waits for frames holds no former ports
}

// switchFrame passes one frame through the stages up to the output vectors. It returns how
// many vectors hold it; if none does, it returns why.
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

// member returns the port with that number if it takes part in forwarding, else nil.
func (s *portSet) member(number uint16) *member {
	if int(number) < len(s.byNumber) {
		return s.byNumber[number]
	}
	return nil
}

// key returns the FDB key of an address in the frame's VLAN.
func key(f *port.Frame, mac port.MAC) fdb.Key { return fdb.MakeKey(f.VLAN, uint64(mac)) }
