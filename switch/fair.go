package vswitch

import (
	"encoding/binary"
	"math/bits"
	"sync"

	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/port"
)

// fairQueue holds the frames that wait at a shaped port. Flows share the port's rate by
// start-time fair queueing (Goyal, Vin, Cheng 1996): a flow's next frame is due at the
// time by which its earlier frames would have left at the flow's fair share, and the
// earliest due frame leaves first. So a guest that fills the queue delays and loses only
// its own frames. Each flow stays in order.
type fairQueue struct {
	rate    port.Rate
	seed    uint64
	flows   [numFlows]flow
	hashes  [numFlows]uint64 // hash of the flow in the same place of flows
	virtual int64            // virtual time: when the last frame that left was due
	n       int              // frames
	bytes   int
	waiting int64 // ns of the rate that they will use
	unused  *shaped
	scratch [1][]byte
}

// numFlows is how many waiting flows the queue distinguishes. Further flows share places.
const numFlows = 64

// flow holds the waiting frames of one flow.
type flow struct {
	head, tail *shaped
	waiting    int64 // ns
	due        int64 // when the next frame is due, in virtual time
	shared     bool  // other flows' frames may wait here too
}

// shaped is one waiting frame.
type shaped struct {
	frame  port.Frame
	out    port.Out
	queue  int // of the port
	memory *memory
	next   *shaped
}

// setRate changes the rate, and recomputes what the waiting frames use and when they are
// due.
func (q *fairQueue) setRate(r port.Rate) {
	q.rate, q.virtual, q.waiting = r, 0, 0
	for i := range q.flows {
		f := &q.flows[i]
		f.due, f.waiting = 0, 0
		for e := f.head; e != nil; e = e.next {
			f.waiting += cost(&e.frame, r)
		}
		q.waiting += f.waiting
	}
}

// flowOf returns the flow of a frame. A flow gets its own place while one is free, so
// that flows whose hashes collide do not delay each other. A flow that had to share keeps
// its place while its frames wait there, to stay in order.
func (q *fairQueue) flowOf(frame *port.Frame) *flow {
	hash := q.hash(frame)
	free := -1
	for i, h := range q.hashes {
		f := &q.flows[i]
		if h == hash {
			f.shared = f.shared && f.head != nil
			return f
		}
		if f.head == nil && (free < 0 || q.flows[i].due < q.flows[free].due) {
			free = i
		}
	}
	home := &q.flows[hash%numFlows]
	if home.head != nil && (home.shared || free < 0) {
		home.shared = true
		return home
	}
	q.hashes[free], q.flows[free].shared = hash, false
	return &q.flows[free]
}

// hash hashes what identifies a frame's flow: MAC and IP addresses, protocol, ports.
func (q *fairQueue) hash(f *port.Frame) uint64 {
	h := q.seed
	mix := func(word uint64) {
		hi, lo := bits.Mul64(h^word, 0x9e37_79b9_7f4a_7c15)
		h = hi ^ lo
	}
	mix(uint64(f.Src))
	mix(uint64(f.Dst))
	if ip, ok := eth.FindIP(f.Data); ok {
		from, to := ip.Header+12, ip.Header+20 // IPv4's addresses
		if ip.Version == 6 {
			from, to = ip.Header+8, ip.Header+40
		}
		for ; from < to; from += 8 {
			mix(binary.BigEndian.Uint64(f.Data[from:]))
		}
		mix(uint64(ip.Proto))
		if !ip.Fragment && (ip.Proto == eth.ProtoTCP || ip.Proto == eth.ProtoUDP) && ip.Transport+4 <= len(f.Data) {
			mix(uint64(binary.BigEndian.Uint32(f.Data[ip.Transport:])))
		}
	}
	return h
}

// push appends a copy of a frame to its flow, unless the frame's memory is gone.
func (q *fairQueue) push(o *port.Out, queue int, f *flow) port.Drop {
	m := memoryFor(o.Frame.DataLen())
	data := m.bytes[:o.Frame.DataLen()]
	if !o.Frame.CopyTo(data, &q.scratch) {
		m.free()
		return port.DropMemoryGone
	}
	e := q.unused
	if e == nil {
		e = new(shaped)
	} else {
		q.unused = e.next
	}
	*e = shaped{frame: *o.Frame, out: *o, queue: queue, memory: m}
	e.frame.Data, e.frame.Tail, e.out.Frame = data, nil, &e.frame
	if f.head == nil {
		f.head, f.due = e, max(f.due, q.virtual)
	} else {
		f.tail.next = e
	}
	f.tail = e
	q.count(f, e, 1)
	return countedLater
}

// pop removes the frame that is due first. The queue must not be empty.
func (q *fairQueue) pop() *shaped {
	var first *flow
	for i := range q.flows {
		if f := &q.flows[i]; f.head != nil && (first == nil || f.due < first.due) {
			first = f
		}
	}
	q.virtual = first.due
	e := q.take(first)
	first.due += cost(&e.frame, q.rate)
	return e
}

// longest returns the flow whose frames use the most time.
func (q *fairQueue) longest() *flow {
	l := &q.flows[0]
	for i := range q.flows {
		if f := &q.flows[i]; f.waiting > l.waiting {
			l = f
		}
	}
	return l
}

// take removes the first frame of a flow, which must have one.
func (q *fairQueue) take(f *flow) *shaped {
	e := f.head
	f.head = e.next
	q.count(f, e, -1)
	return e
}

// count adds a frame to the totals (sign 1), or subtracts it (sign -1).
func (q *fairQueue) count(f *flow, e *shaped, sign int) {
	uses := int64(sign) * cost(&e.frame, q.rate)
	q.n += sign
	q.bytes += sign * e.out.Len()
	q.waiting += uses
	f.waiting += uses
}

// free recycles a frame that was taken.
func (q *fairQueue) free(e *shaped) {
	e.memory.free()
	*e = shaped{next: q.unused}
	q.unused = e
}

// memory holds the bytes of one waiting frame. All shapers share the unused memory, which
// the garbage collector frees over time.
type memory struct {
	bytes []byte
	pool  *sync.Pool
}

// memories has a pool for each power of two from the shortest one on, so a frame takes at
// most twice its length.
var memories [18]sync.Pool

const shortest = 8 // 256 bytes

func memoryFor(n int) *memory {
	class := max(bits.Len(uint(n-1)), shortest)
	if m, ok := memories[class].Get().(*memory); ok {
		return m
	}
	return &memory{bytes: make([]byte, 1<<class), pool: &memories[class]}
}

func (m *memory) free() { m.pool.Put(m) }
