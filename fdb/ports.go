package fdb

import "sync/atomic"

// portState is a port's share of the table. It has its own cache line, so that a learning
// port does not slow down frames to other ports.
type portState struct {
	tally atomic.Uint64
	limit atomic.Int64 // most learned entries; 0: no limit
	_     [48]byte
}

// tally holds a port's generation and its numbers of Sticky and Dynamic entries in one
// word, so that a flush replaces all three at once:
//
//	63        42 41    21 20     0
//	generation | sticky | dynamic
type tally uint64

const (
	stickyShift = 21
	tallyShift  = 2 * stickyShift
	countMask   = 1<<stickyShift - 1 // room for MaxCapacity and the Learns in progress
)

func (w tally) gen() uint32  { return uint32(w >> tallyShift) }
func (w tally) dynamic() int { return int(w & countMask) }
func (w tally) sticky() int  { return int(w >> stickyShift & countMask) }
func (w tally) learned() int { return w.dynamic() + w.sticky() }

// flushed is the next generation, without entries; it wraps to 0 as its upper bits are lost.
func (w tally) flushed() tally { return tally(w.gen()+1) << tallyShift }

// one is a tally of one entry of kind k.
func one(k Kind) tally {
	if k == Sticky {
		return 1 << stickyShift
	}
	return 1
}

func (s *portState) load() tally { return tally(s.tally.Load()) }

// count adds an entry and returns its generation. If limited is set and the port is at its
// limit, it adds none.
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

// uncount subtracts an entry, unless a flush has done so already.
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

// portDirectory holds the state of every port. It allocates a block when its first port is
// used, so port numbers may be large and an idle table is small.
type portDirectory struct {
	blocks [256]atomic.Pointer[portBlock]
	high   atomic.Uint32 // no port from here on has been used
}

type portBlock [256]portState

// get returns a port's state, or nil while no port of its block has been used.
func (d *portDirectory) get(port uint16) *portState {
	b := d.blocks[port>>8].Load()
	if b == nil {
		return nil
	}
	return &b[port&0xff]
}

// use returns a port's state, making it if missing.
func (d *portDirectory) use(port uint16) *portState {
	for h := d.high.Load(); h <= uint32(port); h = d.high.Load() {
		d.high.CompareAndSwap(h, uint32(port)+1)
	}
	if d.blocks[port>>8].Load() == nil {
		d.blocks[port>>8].CompareAndSwap(nil, new(portBlock))
	}
	return d.get(port)
}

// isCurrent reports whether v is counted: an entry that no flush has removed.
func (t *Table) isCurrent(v value) bool {
	kind := v.kind()
	if !kind.ages() {
		return kind != 0
	}
	return t.ports.get(v.port()).load().gen() == v.gen()
}

// release subtracts v from the counts. It is called once for each value that a CAS took
// out of its slot, and once for each that was counted but not stored.
func (t *Table) release(v value) {
	kind := v.kind()
	if kind == 0 || kind.ages() && !t.ports.get(v.port()).uncount(kind, v.gen()) {
		return
	}
	t.total.Add(-1)
}

// take removes v from its slot and from the counts, unless the slot has changed.
func (t *Table) take(s *slot, v value) bool {
	if !s.replace(v, 0) {
		return false
	}
	t.release(v)
	t.observer.Changed(Key(s.key.Load()))
	return true
}

// SetLimit sets how many Dynamic and Sticky entries a port may have before Learn adds no
// more; 0: no limit. Existing entries stay.
func (t *Table) SetLimit(port uint16, n int) {
	t.ports.use(port).limit.Store(int64(max(n, 0)))
}

// Count returns the number of a port's Dynamic and Sticky entries. An expired entry counts
// until Sweep or Learn finds it.
func (t *Table) Count(port uint16) int {
	s := t.ports.get(port)
	if s == nil {
		return 0
	}
	return s.load().learned()
}

// FlushPort removes a port's Dynamic and Sticky entries in constant time.
func (t *Table) FlushPort(port uint16) {
	s := t.ports.get(port)
	if s == nil {
		return
	}
	w := s.load()
	for ; !s.tally.CompareAndSwap(uint64(w), uint64(w.flushed())); w = s.load() {
	}
	t.total.Add(-int64(w.learned()))
	t.observer.Flushed(port)
	if w.flushed().gen()&(genMask>>1) == 0 {
		t.purge(port)
	}
}

// purge takes a port's flushed entries out of their slots. It runs twice per cycle of
// generations, so that no leftover entry revives when its generation comes round again.
func (t *Table) purge(port uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.removeAll(func(_ Key, v value) bool { return v.port() == port && !t.isCurrent(v) })
}

// RemovePort removes a port's entries of every kind, and its limit. The caller must have
// stopped the port, so that nothing is learned on it meanwhile.
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
