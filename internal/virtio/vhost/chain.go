package vhost

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Buffer is the piece of guest memory that a descriptor refers to. The guest can change
// its bytes at any time.
type Buffer struct {
	Bytes []byte
	gpa   uint64
}

// Chain is a list of descriptors that the driver made available together. Ring.Next
// stores its buffers separately.
type Chain struct {
	id    uint16 // the driver's name for it
	slots uint16 // descriptors of a packed ring
}

// maxChain bounds the descriptors of a chain, in addition to the ring's size. QEMU
// holds guests to the same bound (VIRTQUEUE_MAX_SIZE).
const maxChain = 1024

// Driver errors. None is recoverable: the ring is broken.
var (
	errIndex    = errors.New("a descriptor's number beyond the ring's size")
	errLoop     = errors.New("a chain of descriptors longer than the ring")
	errIndirect = errors.New("an indirect descriptor where none may be")
	errTable    = errors.New("an indirect table of a wrong size or outside of the guest's memory")
	errReadOnly = errors.New("a buffer to be written to where one to be read is due, or the reverse")
	errNoSize   = errors.New("it was given no size before it was started")
	errSize     = errors.New("a split ring whose size is no power of two")
	errAvail    = errors.New("more descriptors made available than the ring has")
)

// Descriptor flags (virtio 1.2, 2.7.5 and 2.8.13).
const (
	descNext     = 1 << 0
	descWrite    = 1 << 1
	descIndirect = 1 << 2
	descAvail    = 1 << 7  // packed ring only
	descUsed     = 1 << 15 // packed ring only

	descSize = 16
)

// descriptor is a copy of one in the ring: the driver can change the original at any
// time, so each field is read once.
type descriptor struct {
	addr  uint64
	len   uint32
	flags uint16
	next  uint16 // split ring; a packed one has id and flags here
}

// splitDesc reads a descriptor of a split ring or of its indirect table.
func splitDesc(table []byte, i int) descriptor {
	b := table[i*descSize:][:descSize]
	return descriptor{
		addr:  binary.LittleEndian.Uint64(b),
		len:   binary.LittleEndian.Uint32(b[8:]),
		flags: binary.LittleEndian.Uint16(b[12:]),
		next:  binary.LittleEndian.Uint16(b[14:]),
	}
}

// walk gathers the buffers of one chain.
type walk struct {
	mem     *memory
	hint    *int
	parts   []Buffer
	left    int // descriptors that the chain may still add
	write   bool
	offered bool // indirect descriptors were negotiated
}

// add appends the buffer of one descriptor.
func (w *walk) add(d descriptor) error {
	if w.left--; w.left < 0 {
		return errLoop
	}
	if d.flags&descWrite != 0 != w.write {
		return errReadOnly
	}
	addr, left := d.addr, uint64(d.len)
	for left > 0 {
		b := w.mem.at(addr, left, w.hint)
		if len(b) == 0 {
			return fmt.Errorf("%w: %#x", errAddress, addr)
		}
		w.parts = append(w.parts, Buffer{b, addr})
		addr += uint64(len(b))
		left -= uint64(len(b))
	}
	return nil
}

// table returns the indirect table that a descriptor refers to.
func (w *walk) table(d descriptor) ([]byte, error) {
	if !w.offered || d.flags&descNext != 0 {
		return nil, errIndirect
	}
	t := w.mem.at(d.addr, uint64(d.len), w.hint)
	if d.len == 0 || d.len%descSize != 0 || uint64(len(t)) != uint64(d.len) {
		return nil, errTable
	}
	return t, nil
}
