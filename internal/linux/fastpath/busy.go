package fastpath

import (
	"encoding/binary"
	"errors"
)

// busyExits is BUSY_EXITS of bpf/busy.h.
const busyExits = 4

// TakeFloods implements vswitch.FastPath.
func (p *Path) TakeFloods(takes func(number uint16) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.takes = takes
}

// asked answers the program's question whether the switch floods for a port (struct ask of
// bpf/busy.h): up to the end of the next term, if it does.
func (p *Path) asked(record []byte) {
	const slot, term, length = 0, 4, 8
	if len(record) < length {
		return
	}
	at := binary.NativeEndian.Uint32(record[slot:])
	p.mu.Lock()
	number, is := p.slots.number[at]
	takes := p.takes
	p.mu.Unlock()
	if !is || takes == nil || !takes(number) { // which takes the switch's lock
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live.Load() {
		p.check("flooding for a port", p.slots.takeFloods(at, binary.NativeEndian.Uint32(record[term:])+1))
	}
}

// takeFloods has the program hand a port's floods up until a term has ended.
func (s *slots) takeFloods(at, term uint32) error {
	s.taken[at] = true
	return s.bpf.BusyPorts.Put(at, term)
}

// returnFloods has the program flood by itself again.
func (s *slots) returnFloods() error {
	var errs []error
	for at := range s.taken {
		errs = append(errs, s.bpf.BusyPorts.Put(at, uint32(0)))
	}
	clear(s.taken)
	return errors.Join(errs...)
}
