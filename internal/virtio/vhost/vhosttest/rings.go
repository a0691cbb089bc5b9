package vhosttest

import (
	"encoding/binary"
	"sync/atomic"
)

var le = binary.LittleEndian

// put writes a descriptor: the last 32 bits are {flags, next} or {id, flags}.
func put(b []byte, p part, a, c uint16) {
	le.PutUint64(b, GPA+uint64(p.at))
	le.PutUint32(b[8:], uint32(p.n))
	le.PutUint16(b[12:], a)
	le.PutUint16(b[14:], c)
}

const (
	next     = 1
	write    = 2
	indirect = 4
)

func flags(p part) uint16 {
	if p.write {
		return write
	}
	return 0
}

// split is a split virtqueue: the chain of buffer id begins at descriptor id if it is
// one descriptor or a table, else wherever there are free ones.
type split struct {
	mem              []byte
	n                int
	desc, avail, off int
	event            bool
	idx, old, last   uint16
	unused           []uint16
	heads            map[uint16]int // the id of the chain with that head
	chains           map[uint16][]uint16
}

func newSplit(g *Guest, at int) *split {
	s := &split{mem: g.Mem, n: g.Size, desc: at, avail: at + 16*g.Size, event: g.Features&EventIdx != 0,
		heads: map[uint16]int{}, chains: map[uint16][]uint16{}}
	s.off = (s.avail + 4 + 2*g.Size + 2 + 3) &^ 3
	for i := range g.Size {
		s.unused = append(s.unused, uint16(i))
	}
	return s
}

// begin has all indices start somewhere else than at 0.
func (s *split) begin(base uint16) {
	s.idx, s.old, s.last = base, base, base
	store(s.mem[s.avail:], uint32(base)<<16)
	store(s.mem[s.off:], uint32(base)<<16)
}

func (s *split) addr() (int, int, int) { return s.desc, s.avail, s.off }

func (s *split) room() int { return len(s.unused) }

func (s *split) add(id int, parts []part, table int) {
	var chain []uint16
	take := func() uint16 {
		i := s.unused[0]
		s.unused = s.unused[1:]
		chain = append(chain, i)
		return i
	}
	if table > 0 && len(parts) > 1 {
		for i, p := range parts {
			f := flags(p)
			if i < len(parts)-1 {
				f |= next
			}
			put(s.mem[table+16*i:], p, f, uint16(i+1))
		}
		put(s.mem[s.desc+16*int(take()):], part{at: table, n: 16 * len(parts)}, indirect, 0)
	} else {
		i := take()
		for k, p := range parts {
			f, to := flags(p), uint16(0)
			at := i
			if k < len(parts)-1 {
				f |= next
				i = take()
				to = i
			}
			put(s.mem[s.desc+16*int(at):], p, f, to)
		}
	}
	s.heads[chain[0]], s.chains[chain[0]] = id, chain
	le.PutUint16(s.mem[s.avail+4+2*(int(s.idx)%s.n):], chain[0])
	s.idx++
	store(s.mem[s.avail:], uint32(s.idx)<<16|load(s.mem[s.avail:])&0xffff)
}

func (s *split) used() (id, n int, ok bool) {
	if uint16(load(s.mem[s.off:])>>16) == s.last {
		return 0, 0, false
	}
	e := s.mem[s.off+4+8*(int(s.last)%s.n):]
	head := uint16(le.Uint32(e))
	s.last++
	s.unused = append(s.unused, s.chains[head]...)
	return s.heads[head], int(le.Uint32(e[4:])), true
}

func (s *split) wantsKick() bool {
	old := s.old
	s.old = s.idx
	fence()
	if s.event {
		event := le.Uint16(s.mem[s.off+4+8*s.n:])
		return s.idx-event-1 < s.idx-old
	}
	return load(s.mem[s.off:])&1 == 0
}

func (s *split) wantCall(on bool) {
	if s.event {
		le.PutUint16(s.mem[s.avail+4+2*s.n:], s.last)
	} else {
		v := uint32(1)
		if on {
			v = 0
		}
		store(s.mem[s.avail:], uint32(s.idx)<<16|v)
	}
	fence()
}

var barrier atomic.Uint32

func fence() { barrier.Store(0) }

// packed is a packed virtqueue; a chain's id is its buffer's.
type packed struct {
	mem                  []byte
	n                    int
	desc, driver, device int
	event                bool
	at, last             int
	wrap, lastWrap       bool
	added                int // since wantsKick
	out                  int // descriptors that the device has
	slots                map[int]int
}

func newPacked(g *Guest, at int) *packed {
	return &packed{mem: g.Mem, n: g.Size, desc: at, driver: at + 16*g.Size, device: at + 16*g.Size + 4,
		event: g.Features&EventIdx != 0, wrap: true, lastWrap: true, slots: map[int]int{}}
}

func (p *packed) addr() (int, int, int) { return p.desc, p.driver, p.device }

func (p *packed) room() int { return p.n - p.out }

func (p *packed) add(id int, parts []part, table int) {
	extra := uint16(0)
	if table > 0 && len(parts) > 1 {
		for i, q := range parts {
			put(p.mem[table+16*i:], q, 0, flags(q))
		}
		parts = []part{{at: table, n: 16 * len(parts)}}
		extra = indirect
	}
	first, firstFlags := -1, uint16(0)
	for i, q := range parts {
		f := flags(q) | extra
		if i < len(parts)-1 {
			f |= next
		}
		if p.wrap {
			f |= 1 << 7
		} else {
			f |= 1 << 15
		}
		slot := p.desc + 16*p.at
		if first < 0 {
			// Written last, for it makes the whole chain available.
			first, firstFlags = slot, f
			put(p.mem[slot:], q, uint16(id), le.Uint16(p.mem[slot+14:]))
		} else {
			put(p.mem[slot:], q, uint16(id), f)
		}
		if p.at++; p.at == p.n {
			p.at, p.wrap = 0, !p.wrap
		}
	}
	p.slots[id] = len(parts)
	p.added += len(parts)
	p.out += len(parts)
	store(p.mem[first+12:], uint32(id)|uint32(firstFlags)<<16)
}

func (p *packed) used() (id, n int, ok bool) {
	slot := p.mem[p.desc+16*p.last:]
	w := load(slot[12:])
	if (w>>23&1 == 1) != p.lastWrap || (w>>31&1 == 1) != p.lastWrap {
		return 0, 0, false
	}
	id = int(uint16(w))
	p.out -= p.slots[id]
	if p.last += p.slots[id]; p.last >= p.n {
		p.last, p.lastWrap = p.last-p.n, !p.lastWrap
	}
	return id, int(le.Uint32(slot[8:])), true
}

func (p *packed) wantsKick() bool {
	added := p.added
	p.added = 0
	fence()
	w := load(p.mem[p.device:])
	switch w >> 16 {
	case 0:
		return true
	case 1:
		return false
	}
	event := int(w & 0x7fff)
	if (w>>15&1 == 1) != p.wrap {
		event -= p.n
	}
	// One of the descriptors that were added is the one it waits for.
	return event < p.at && event >= p.at-added
}

func (p *packed) wantCall(on bool) {
	w := uint32(1) << 16
	switch {
	case on && p.event:
		w = 2<<16 | uint32(p.last)
		if p.lastWrap {
			w |= 1 << 15
		}
	case on:
		w = 0
	}
	store(p.mem[p.driver:], w)
	fence()
}
