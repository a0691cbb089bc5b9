package vhost

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"unsafe"
)

// memory is the guest's memory as it is mapped here. It is changed only while all
// rings are stopped in their tracks, so readers need no lock of its own.
type memory struct {
	regions []mapped // by GPA, without overlap
}

// mapped is a region with its bytes.
type mapped struct {
	Region
	bytes []byte // Size of them
	whole []byte // what is to be unmapped; nil in tests
}

var errAddress = errors.New("an address outside of the guest's memory")

// at returns the bytes from a guest physical address on: n, or as many as there are in
// one piece, none when the address is outside. hint is the index of the region that
// was last found, for the next is likely to be the same.
func (m *memory) at(gpa, n uint64, hint *int) []byte {
	if h := *hint; h < len(m.regions) {
		r := &m.regions[h]
		if off := gpa - r.GPA; off < r.Size {
			return r.bytes[off:][:min(n, r.Size-off)]
		}
	}
	i, found := slices.BinarySearchFunc(m.regions, gpa, func(r mapped, gpa uint64) int {
		switch {
		case r.GPA > gpa:
			return 1
		case gpa-r.GPA >= r.Size:
			return -1
		}
		return 0
	})
	if !found {
		return nil
	}
	*hint = i
	r := &m.regions[i]
	off := gpa - r.GPA
	return r.bytes[off:][:min(n, r.Size-off)]
}

// user returns the n bytes at an address of the front end's, and their guest physical
// address. They must lie in one region; align is what the address must be a multiple of.
func (m *memory) user(uva, n, align uint64) ([]byte, uint64, error) {
	for i := range m.regions {
		r := &m.regions[i]
		off := uva - r.UVA
		if off >= r.Size || n > r.Size-off {
			continue
		}
		b := r.bytes[off:][:n:n]
		// What the processor sees must be aligned, for atomic access.
		if uintptr(unsafe.Pointer(&b[0]))%uintptr(align) != 0 {
			return nil, 0, fmt.Errorf("a ring at %#x, not a multiple of %d", uva, align)
		}
		return b, r.GPA + off, nil
	}
	return nil, 0, errAddress
}

// add puts a region in, which must not overlap with another.
func (m *memory) add(r mapped) error {
	if len(m.regions) >= MaxMemSlots {
		return fmt.Errorf("more than %d regions of memory", MaxMemSlots)
	}
	i, _ := slices.BinarySearchFunc(m.regions, r.GPA, func(have mapped, gpa uint64) int {
		if have.GPA < gpa {
			return -1
		}
		return 1
	})
	if i > 0 && m.regions[i-1].GPA+m.regions[i-1].Size > r.GPA || i < len(m.regions) && r.GPA+r.Size > m.regions[i].GPA {
		return fmt.Errorf("memory at %#x is there twice", r.GPA)
	}
	m.regions = slices.Insert(m.regions, i, r)
	return nil
}

func (m *memory) remove(i int) { m.regions = slices.Delete(m.regions, i, i+1) }

// size is how many bytes all regions have.
func (m *memory) size() (n uint64) {
	for i := range m.regions {
		n += m.regions[i].Size
	}
	return n
}

func (m *memory) unmap() {
	for i := range m.regions {
		unmap(m.regions[i].whole)
	}
}

// holds tells whether an address of this process is in the guest's memory.
func (m *memory) holds(addr uintptr) bool {
	return slices.ContainsFunc(m.regions, func(r mapped) bool { return within(addr, r.bytes) })
}

func within(addr uintptr, b []byte) bool {
	return len(b) > 0 && addr-uintptr(unsafe.Pointer(&b[0])) < uintptr(len(b))
}

// find returns the index of a region, -1 when it is not there. Its Offset does not
// count: it is not sent with each request.
func (m *memory) find(r Region) int {
	return slices.IndexFunc(m.regions, func(have mapped) bool {
		return have.GPA == r.GPA && have.Size == r.Size && have.UVA == r.UVA
	})
}

// check tells what is wrong with a region as such. No address computed from one that
// passes wraps around.
func (r *Region) check() error {
	const limit = 1 << 56 // beyond what any processor addresses
	if r.Size == 0 || r.Size > limit || r.GPA > limit || r.Offset > limit || r.UVA+r.Size < r.UVA {
		return fmt.Errorf("memory of %#x bytes at %#x, offset %#x", r.Size, r.GPA, r.Offset)
	}
	return nil
}

// dirtyLog tells a live migration which pages were written to: a bit a page.
type dirtyLog struct {
	bits  []byte // from a word's beginning on; what is behind the last one is mapped to its word's end
	whole []byte // what is to be unmapped
}

const logPage = 4096

// mark notes that n bytes at a guest physical address were written. Pages beyond the
// log's end are of no interest to the front end.
func (l *dirtyLog) mark(gpa, n uint64) {
	if n == 0 {
		return
	}
	for page := gpa / logPage; page <= (gpa+n-1)/logPage; page++ {
		if page/8 >= uint64(len(l.bits)) {
			return
		}
		// Bit p%8 of byte p/8 is bit p%32 of a little-endian word.
		word := page / 32 * 4
		atomic.OrUint32((*uint32)(unsafe.Pointer(&l.bits[word])), 1<<(page%32))
	}
}

func (l *dirtyLog) unmap() {
	if l != nil {
		unmap(l.whole)
	}
}

func (l *dirtyLog) holds(addr uintptr) bool { return l != nil && within(addr, l.bits) }
