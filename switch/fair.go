package vswitch

import (
	"encoding/binary"
	"math/bits"
	"sync"

	"github.com/vswitch/vswitch/internal/eth"
	"github.com/vswitch/vswitch/port"
)

// fairQueue holds the frames that wait at a shaped port. Flows share the port's rate by
// start-time fair queueing (Goyal, Vin, Cheng 1996): a flow's next frame is due when its
// frames so far would have left had each flow its share, and the earliest goes first. So
// a guest that fills the queue delays, and loses, its own frames. A flow stays in order.
type fairQueue struct {
	rate    port.Rate
	seed    uint64
	flows   [numFlows]flow
	hashes  [numFlows]uint64 // of the flow that flows has there
	virtual int64            // when the last frame that left was due
	n       int              // frames
	bytes   int
	waiting int64 // ns that they will use of the rate
	unused  *shaped
	scratch [1][]byte
}

// numFlows is how many flows with frames that wait are told apart. Further ones share.
const numFlows = 64

// flow is what waits of one flow.
type flow struct {
	head, tail *shaped
	waiting    int64 // ns
	due        int64 // the next frame, in virtual time
	shared     bool  // frames of other flows may wait here too
}

// shaped is one frame that waits.
type shaped struct {
	frame  port.Frame
	out    port.Out
	queue  int // of the port
	memory *memory
	next   *shaped
}

// setRate changes the rate that the frames will use. They are due anew.
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

// flowOf returns the flow of a frame. It has a place of its own while one is free, so
// that flows do not delay each other because their hashes collide. A flow that had to
// share stays where its frames wait, for it must stay in order.
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

// hash returns the hash of a frame's flow: of its addresses, of IP's and of its ports.
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

// push puts a copy of a frame at the end of its flow, if its memory is still there.
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

// pop takes the frame that is due first. There is one.
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

// longest returns the flow that has to wait longest.
func (q *fairQueue) longest() *flow {
	l := &q.flows[0]
	for i := range q.flows {
		if f := &q.flows[i]; f.waiting > l.waiting {
			l = f
		}
	}
	return l
}

// take takes the first frame of a flow that has one.
func (q *fairQueue) take(f *flow) *shaped {
	e := f.head
	f.head = e.next
	q.count(f, e, -1)
	return e
}

// count adds a frame to what waits, or with -1 takes it off.
func (q *fairQueue) count(f *flow, e *shaped, sign int) {
	uses := int64(sign) * cost(&e.frame, q.rate)
	q.n += sign
	q.bytes += sign * e.out.Len()
	q.waiting += uses
	f.waiting += uses
}

// free gives back a frame that was taken.
func (q *fairQueue) free(e *shaped) {
	e.memory.free()
	*e = shaped{next: q.unused}
	q.unused = e
}

// memory holds the bytes of one frame that waits. Memory that nothing waits in is
// shared by all shapers, and given up by and by.
type memory struct {
	bytes []byte
	pool  *sync.Pool
}

// memories has a pool for each power of two, so a frame takes at most twice its
// length, from the shortest on that is worth one.
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
