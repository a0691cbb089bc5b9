package vhost

import "encoding/binary"

// packed is the device's side of a packed virtqueue (virtio 1.2, 2.8): one ring of
// descriptors {addr 64, len 32, id 16, flags 16} that both sides write, and for each
// side an area {off_wrap 16, flags 16} that says when it wants a notification.
//
// A descriptor is available when its AVAIL bit equals the driver's wrap counter and its
// USED bit does not; it is used when both equal the device's. Both counters start at
// one and flip when the ring wraps.
type packed struct {
	ringCommon
	size           int
	desc           []byte
	driver, device []byte // event suppression areas
	descGPA        uint64 // for the log
	deviceGPA      uint64

	seen place // next descriptor to look at
	used place // next to fill

	// Chains used since publish: count of them, from begin to last. before is the last
	// one before them.
	entries             []byte
	count               int
	begin, last, before place
	filled              int // descriptors since the last call to the driver

	journal []byte // see inflight; nil: none outlives the process
}

// place is a position in the ring and the wrap counter there.
type place struct {
	index int
	wrap  bool
}

func (p *place) move(n, size int) {
	if p.index += n; p.index >= size {
		p.index -= size
		p.wrap = !p.wrap
	}
}

// bits encodes the place as the protocol does: the index, and the counter in bit 15.
func (p place) bits() uint16 {
	if p.wrap {
		return uint16(p.index) | 1<<15
	}
	return uint16(p.index)
}

func placeOf(bits uint16) place { return place{int(bits &^ (1 << 15)), bits>>15 != 0} }

// Values of an event suppression area's flags (virtio 1.2, 2.8.14).
const (
	eventsOn   = 0
	eventsOff  = 1
	eventsDesc = 2 // at one descriptor
	areaSize   = 4
)

func openPacked(c ringCommon, size int, a RingAddr, base uint32, journal []byte) (*packed, error) {
	p := &packed{ringCommon: c, size: size, journal: journal, entries: make([]byte, entrySize*size)}
	var err error
	if p.desc, p.descGPA, err = c.mem.user(a.Desc, uint64(size)*descSize, 8); err != nil {
		return nil, err
	}
	if p.driver, _, err = c.mem.user(a.Avail, areaSize, 4); err != nil {
		return nil, err
	}
	if p.device, p.deviceGPA, err = c.mem.user(a.Used, areaSize, 4); err != nil {
		return nil, err
	}
	// Bits 0-15 are the next available place. Bits 16-31, the next used place, are the
	// same because no chain is held; some front ends omit them.
	p.seen = placeOf(uint16(base))
	if p.seen.index >= size {
		return nil, errIndex
	}
	p.used, p.begin, p.before = p.seen, p.seen, p.seen
	if journal != nil {
		// A front end that has not noticed its back end's death passes an old place.
		p.resume()
	}
	return p, nil
}

func (p *packed) base() uint32 { return uint32(p.used.bits()) | uint32(p.used.bits())<<16 }

func (p *packed) mark() uint32 { return uint32(p.seen.bits()) }

func (p *packed) rewind(to uint32) {
	at := placeOf(uint16(to))
	p.advance(-p.since(at))
	p.seen = at
}

// since returns the number of descriptors taken since a place, up to a lap.
func (p *packed) since(at place) int {
	n := p.seen.index - at.index
	if p.seen.wrap != at.wrap {
		n += p.size
	}
	return n
}

// room returns the number of descriptors that can still be taken: the driver cannot
// reuse a descriptor before it knows that it is used.
func (p *packed) room() int { return p.size - p.since(p.begin) }

func (p *packed) peek() bool { return p.isAvailable(p.seen) }

func (p *packed) next(parts []Buffer, write bool) (c Chain, _ []Buffer, ok bool, err error) {
	d, ok := p.head(p.seen)
	if !ok {
		return c, parts, false, nil
	}
	w := p.walk(parts, p.size, write)
	at := p.seen
	for {
		at.move(1, p.size)
		c.slots++
		c.id = d.next
		if d.flags&descIndirect != 0 {
			err = p.indirect(&w, d)
		} else {
			err = w.add(d)
		}
		if err != nil {
			return c, parts, false, err
		}
		if d.flags&descNext == 0 {
			break
		}
		d = p.read(p.desc, at.index)
	}
	if int(c.slots) > p.room() {
		return c, parts, false, errAvail
	}
	p.seen = at
	p.advance(int(c.slots))
	return c, w.parts, true, nil
}

func (p *packed) singles(least int, write bool) ([]Single, error) {
	if len(p.rest()) >= least {
		return p.rest(), nil
	}
	n, at := p.moveUp(), p.seen
	at.move(n, p.size)
	for most := min(p.room(), readAhead); n < most; n++ {
		d, ok := p.head(at)
		if !ok || !p.single(&p.row[n], d.next, d, write) {
			break
		}
		at.move(1, p.size)
	}
	p.have(n, write)
	return p.rest(), nil
}

func (p *packed) useSingles(used []Single) {
	for i := range used {
		p.enter(used[i].id, 1, used[i].Written)
	}
	p.seen.move(len(used), p.size)
	p.advance(len(used))
}

// head returns a copy of the descriptor at a place if an available chain begins there.
// It reads the flags, which say so, before the rest.
func (p *packed) head(at place) (d descriptor, ok bool) {
	b := p.desc[at.index*descSize:][:descSize]
	word := load32(b[12:])
	d.next, d.flags = uint16(word), uint16(word>>16)
	if d.flags&descAvail != 0 != at.wrap || d.flags&descUsed != 0 == at.wrap {
		return d, false
	}
	d.addr = binary.LittleEndian.Uint64(b)
	d.len = binary.LittleEndian.Uint32(b[8:])
	return d, true
}

// read returns a copy of a descriptor, with its id in next.
func (p *packed) read(table []byte, i int) descriptor {
	b := table[i*descSize:][:descSize]
	return descriptor{
		addr:  binary.LittleEndian.Uint64(b),
		len:   binary.LittleEndian.Uint32(b[8:]),
		next:  binary.LittleEndian.Uint16(b[12:]),
		flags: binary.LittleEndian.Uint16(b[14:]),
	}
}

// indirect adds the buffers of a table, which are in order (virtio 1.2, 2.8.7).
func (p *packed) indirect(w *walk, d descriptor) error {
	table, err := w.table(d)
	if err != nil {
		return err
	}
	for i := range len(table) / descSize {
		d := p.read(table, i)
		if d.flags&descIndirect != 0 {
			return errIndirect
		}
		if err := w.add(d); err != nil {
			return err
		}
	}
	return nil
}

func (p *packed) use(c Chain, written uint32) { p.enter(c.id, c.slots, written) }

// enter records a chain as the next used one.
func (p *packed) enter(id, slots uint16, written uint32) {
	binary.NativeEndian.PutUint64(p.entry(p.count), uint64(id)|uint64(slots)<<16|uint64(written)<<32)
	p.count++
	p.last = p.used
	p.used.move(int(slots), p.size)
	p.filled += int(slots)
}

func (p *packed) publish() {
	if p.count == 0 {
		return
	}
	if p.journal != nil {
		copy(p.journal[noteSize:], p.entries[:entrySize*p.count])
		p.putNote(p.begin)
	}
	p.write(p.begin, p.count)
	if p.journal != nil {
		p.putNote(p.used)
	}
	p.begin, p.before, p.count = p.used, p.last, 0
}

// write writes the used descriptors of the first entries. It writes the first one last:
// the driver reads them in order, and sees none before that one.
func (p *packed) write(begin place, count int) {
	var first uint32
	at := begin
	for i := range count {
		e := binary.NativeEndian.Uint64(p.entry(i))
		written := uint32(e >> 32)
		flags := uint32(0)
		if at.wrap {
			flags = descAvail | descUsed
		}
		if written > 0 {
			flags |= descWrite
		}
		d := p.desc[at.index*descSize:]
		binary.LittleEndian.PutUint32(d[8:], written)
		word := uint32(uint16(e)) | flags<<16
		if i == 0 {
			first = word
		} else {
			binary.LittleEndian.PutUint32(d[12:], word)
			p.dirty(p.descGPA, at.index*descSize, descSize)
		}
		at.move(int(uint16(e>>16)), p.size)
	}
	store32(p.desc[begin.index*descSize+12:], first)
	p.dirty(p.descGPA, begin.index*descSize, descSize)
}

func (p *packed) wantsCall() bool {
	filled := p.filled
	if filled == 0 {
		return false
	}
	p.filled = 0
	p.fence()
	area := load32(p.driver)
	switch area >> 16 & 3 {
	case eventsOff:
		return false
	case eventsDesc:
		if !p.eventIdx {
			return true
		}
	default:
		return true
	}
	// All places count from the start of the lap that used is in, so a place of the lap
	// before is negative.
	event := placeOf(uint16(area))
	at := event.index
	if event.wrap != p.used.wrap {
		at -= p.size
	}
	return needEvent(uint16(at), uint16(p.used.index), uint16(p.used.index-filled))
}

func (p *packed) askKick(on bool) {
	area := uint32(eventsOff) << 16
	switch {
	case on && p.eventIdx:
		area = eventsDesc<<16 | uint32(p.seen.bits())
	case on:
		area = eventsOn
	}
	store32(p.device, area)
	p.dirty(p.deviceGPA, 0, areaSize)
	p.fence()
}
