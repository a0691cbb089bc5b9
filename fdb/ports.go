package fdb

import "sync/atomic"

// portState is a port's share of the table. It has a cache line of its own: a
// port that learns does not slow down frames to other ports.
type portState struct {
	tally atomic.Uint64
	limit atomic.Int64 // most learned entries; 0 is none
	_     [48]byte
}

// tally is a port's generation and its numbers of Sticky and Dynamic entries in
// one word, so that a flush makes all three new at once:
//
//	63        42 41    21 20     0
//	generation | sticky | dynamic
type tally uint64

const (
	stickyShift = 21
	tallyShift  = 2 * stickyShift
	countMask   = 1<<stickyShift - 1 // holds MaxCapacity and the Learns on their way
)

func (w tally) gen() uint32  { return uint32(w >> tallyShift) }
func (w tally) dynamic() int { return int(w & countMask) }
func (w tally) sticky() int  { return int(w >> stickyShift & countMask) }
func (w tally) learned() int { return w.dynamic() + w.sticky() }

// one is a tally of one entry of kind k.
func one(k Kind) tally {
	if k == Sticky {
		return 1 << stickyShift
	}
	return 1
}

func (s *portState) load() tally { return tally(s.tally.Load()) }

// count adds an entry and returns the generation it belongs to. With limited, it
// does not when the port has as many as it may.
func (s *portState) count(kind Kind, limited bool) (gen uint32, ok bool) {
	for {
		w := s.load()
		if limit := s.limit.Load(); limited && limit > 0 && int64(w.learned()) >= limit {
			return 0, false
		}
		if s.tally.CompareAndSwap(uint64(w), uint64(w+one(kind))) {
			return w.gen(), true
		}
	}
}

// uncount takes an entry off, unless a flush has done so already.
func (s *portState) uncount(kind Kind, gen uint32) bool {
	for {
		w := s.load()
		if w.gen() != gen {
			return false
		}
		if s.tally.CompareAndSwap(uint64(w), uint64(w-one(kind))) {
			return true
		}
	}
}

// portDirectory has the state of every port, in blocks made when the first port of
// a block is used: numbers need not be small, and an idle table is.
type portDirectory struct {
	blocks [256]atomic.Pointer[portBlock]
	high   atomic.Uint32 // no port from here on has been used
}

type portBlock [256]portState

// get is a port's state, nil while no port of its block was used.
func (d *portDirectory) get(port uint16) *portState {
	b := d.blocks[port>>8].Load()
	if b == nil {
		return nil
	}
	return &b[port&0xff]
}

// use is a port's state, made where it is missing.
func (d *portDirectory) use(port uint16) *portState {
	for h := d.high.Load(); h <= uint32(port); h = d.high.Load() {
		d.high.CompareAndSwap(h, uint32(port)+1)
	}
	if d.blocks[port>>8].Load() == nil {
		d.blocks[port>>8].CompareAndSwap(nil, new(portBlock))
	}
	return d.get(port)
}

// isCurrent tells whether v is counted: an entry, and not of a flushed generation.
func (t *Table) isCurrent(v value) bool {
	kind := v.kind()
	if !kind.ages() {
		return kind != 0
	}
	return t.ports.get(v.port()).load().gen() == v.gen()
}

// release takes v off the counts. It is called once for each value that a CAS
// took out of its slot, and for one that was counted but did not get in.
func (t *Table) release(v value) {
	kind := v.kind()
	if kind == 0 || kind.ages() && !t.ports.get(v.port()).uncount(kind, v.gen()) {
		return
	}
	t.total.Add(-1)
}

// take takes v out of its slot, and off the counts, unless it has changed.
func (t *Table) take(s *slot, v value) bool {
	if !s.replace(v, 0) {
		return false
	}
	t.release(v)
	t.observer.Changed(Key(s.key.Load()))
	return true
}

// SetLimit sets how many Dynamic and Sticky entries a port may have before Learn
// gives it no more, 0 for any number. What it has already stays.
func (t *Table) SetLimit(port uint16, n int) {
	t.ports.use(port).limit.Store(int64(max(n, 0)))
}

// Count is the number of a port's Dynamic and Sticky entries. An expired one
// counts until Sweep or Learn meets it.
func (t *Table) Count(port uint16) int {
	s := t.ports.get(port)
	if s == nil {
		return 0
	}
	return s.load().learned()
}

// FlushPort removes a port's Dynamic and Sticky entries, in a time that does not
// depend on how many there are.
func (t *Table) FlushPort(port uint16) {
	s := t.ports.get(port)
	if s == nil {
		return
	}
	for {
		w := s.load()
		next := tally(w.gen()+1) << tallyShift // wraps to 0 by losing its upper bits
		if !s.tally.CompareAndSwap(uint64(w), uint64(next)) {
			continue
		}
		t.total.Add(-int64(w.learned()))
		t.observer.Flushed(port)
		if next.gen()&(genMask>>1) == 0 {
			t.purge(port)
		}
		return
	}
}

// purge takes flushed entries of a port out of their slots. Twice in a round of
// generations it must be sure that none is left which a later one would revive.
func (t *Table) purge(port uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.removeAll(func(_ Key, v value) bool { return v.port() == port && !t.isCurrent(v) })
}

// RemovePort forgets a port: its entries of every kind and its limit. The caller
// has stopped the port, so that nothing is learned on it meanwhile.
func (t *Table) RemovePort(port uint16) {
	if port == NoPort {
		return
	}
	t.FlushPort(port)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.removeAll(func(_ Key, v value) bool { return v.port() == port })
	if s := t.ports.get(port); s != nil {
		s.limit.Store(0)
	}
}
