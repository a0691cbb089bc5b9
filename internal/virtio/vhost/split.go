package vhost

import "encoding/binary"

// split is the device's side of a split virtqueue (virtio 1.2, 2.7):
//
//	descriptors  {addr 64, len 32, flags 16, next 16} × size     the driver's
//	available    {flags 16, idx 16, ring 16 × size, used_event 16}  the driver's
//	used         {flags 16, idx 16, {id 32, len 32} × size, avail_event 16}  ours
//
// Indices run freely over 16 bits; the slot is the index modulo the size.
type split struct {
	ringCommon
	size              int // a power of two
	desc, avail, used []byte
	usedGPA           uint64 // for the log

	seen     uint16 // next entry of available to look at
	ready    uint16 // its idx at the last look
	usedIdx  uint16 // next entry of used to fill
	told     uint16 // usedIdx at the last call to the driver
	shown    uint16 // usedIdx as the driver sees it
	usedFlag uint32 // as in the used ring
}

const (
	availNoInterrupt = 1 // the driver wants no call
	usedNoNotify     = 1 // the device wants no kick
)

// availSize and usedSize return the lengths of the two in bytes. The event fields at
// their ends exist whether or not EVENT_IDX was negotiated.
func availSize(size uint64) uint64 { return 4 + 2*size + 2 }
func usedSize(size uint64) uint64  { return 4 + 8*size + 2 }

// openSplit locates the ring in the guest's memory.
func openSplit(c ringCommon, size int, a RingAddr) (*split, error) {
	s := &split{ringCommon: c, size: size}
	if size&(size-1) != 0 {
		return nil, errSize
	}
	n := uint64(size)
	var err error
	if s.desc, _, err = c.mem.user(a.Desc, n*descSize, 8); err != nil {
		return nil, err
	}
	if s.avail, _, err = c.mem.user(a.Avail, availSize(n), 2); err != nil { // virtio 1.2, 2.7
		return nil, err
	}
	if s.used, s.usedGPA, err = c.mem.user(a.Used, usedSize(n), 4); err != nil {
		return nil, err
	}
	if a.Log {
		s.usedGPA = a.LogAddr
	}
	// The front end's base is not needed. After a back end died, it may lie beyond
	// entries that are available but not used yet, and those must be processed again.
	state := load32(s.used)
	s.usedFlag, s.usedIdx = state&0xffff, uint16(state>>16)
	s.seen, s.ready, s.told, s.shown = s.usedIdx, s.usedIdx, s.usedIdx, s.usedIdx
	return s, nil
}

func (s *split) base() uint32 { return uint32(s.usedIdx) }

func (s *split) mark() uint32 { return uint32(s.seen) }

func (s *split) rewind(to uint32) {
	s.advance(-int(s.seen - uint16(to)))
	s.seen = uint16(to)
}

func (s *split) peek() bool {
	if s.seen == s.ready {
		s.ready = load16(s.avail[2:])
	}
	return s.seen != s.ready
}

func (s *split) next(parts []Buffer, write bool) (c Chain, _ []Buffer, ok bool, err error) {
	if !s.peek() {
		return c, parts, false, nil
	}
	if int(s.ready-s.seen) > s.size {
		return c, parts, false, errAvail
	}
	head := binary.LittleEndian.Uint16(s.avail[4+2*s.slot(s.seen):])
	w := s.walk(parts, s.size, write)
	if err := s.gather(&w, head); err != nil {
		return c, parts, false, err
	}
	s.seen++
	s.advance(1)
	return Chain{id: head}, w.parts, true, nil
}

func (s *split) singles(least int, write bool) ([]Single, error) {
	if len(s.rest()) >= least {
		return s.rest(), nil
	}
	n := s.moveUp()
	if s.seen+uint16(n) == s.ready {
		s.ready = load16(s.avail[2:])
	}
	available := int(s.ready - s.seen)
	if available > s.size {
		return nil, errAvail
	}
	for ; n < min(available, readAhead); n++ {
		i := binary.LittleEndian.Uint16(s.avail[4+2*s.slot(s.seen+uint16(n)):])
		if int(i) >= s.size || !s.single(&s.row[n], i, splitDesc(s.desc, int(i)), write) {
			break
		}
	}
	s.have(n, write)
	return s.rest(), nil
}

func (s *split) useSingles(used []Single) {
	for i := range used {
		at := 4 + 8*s.slot(s.usedIdx+uint16(i))
		binary.LittleEndian.PutUint64(s.used[at:], uint64(used[i].id)|uint64(used[i].Written)<<32)
		s.dirty(s.usedGPA, at, 8)
	}
	s.usedIdx += uint16(len(used))
	s.seen += uint16(len(used))
	s.advance(len(used))
}

// gather walks a chain from its head.
func (s *split) gather(w *walk, head uint16) error {
	table, i, direct := s.desc, head, true
	for {
		if int(i) >= len(table)/descSize {
			return errIndex
		}
		d := splitDesc(table, int(i))
		if d.flags&descIndirect != 0 {
			if !direct {
				return errIndirect
			}
			var err error
			if table, err = w.table(d); err != nil {
				return err
			}
			i, direct = 0, false
			continue
		}
		if err := w.add(d); err != nil {
			return err
		}
		if d.flags&descNext == 0 {
			return nil
		}
		i = d.next
	}
}

func (s *split) slot(i uint16) int { return int(i) & (s.size - 1) }

func (s *split) use(c Chain, written uint32) {
	at := 4 + 8*s.slot(s.usedIdx)
	binary.LittleEndian.PutUint32(s.used[at:], uint32(c.id))
	binary.LittleEndian.PutUint32(s.used[at+4:], written)
	s.dirty(s.usedGPA, at, 8)
	s.usedIdx++
}

func (s *split) publish() {
	if s.usedIdx != s.shown {
		s.show()
	}
}

// show writes the flags and the index of the used ring, which share a word.
func (s *split) show() {
	s.shown = s.usedIdx
	store32(s.used, uint32(s.usedIdx)<<16|s.usedFlag)
	s.dirty(s.usedGPA, 0, 4)
}

func (s *split) wantsCall() bool {
	old := s.told
	if s.usedIdx == old {
		return false
	}
	s.told = s.usedIdx
	s.fence()
	switch {
	case s.onEmpty && load16(s.avail[2:]) == s.usedIdx:
		return true
	case !s.eventIdx:
		return load16(s.avail)&availNoInterrupt == 0
	}
	return needEvent(load16(s.avail[4+2*s.size:]), s.usedIdx, old)
}

func (s *split) askKick(on bool) {
	if s.eventIdx {
		if !on {
			return // the driver kicks when it passes avail_event, once
		}
		at := 4 + 8*s.size
		binary.LittleEndian.PutUint16(s.used[at:], s.seen)
		s.dirty(s.usedGPA, at, 2)
	} else {
		flag := uint32(usedNoNotify)
		if on {
			flag = 0
		}
		if s.usedFlag != flag {
			s.usedFlag = flag
			s.show()
		}
	}
	s.fence()
}
