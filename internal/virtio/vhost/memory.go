package vhost

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"unsafe"
)

// memory is the guest's memory as mapped here. It changes only while all rings are
// stopped, so readers need no lock for it.
type memory struct {
	regions []mapped // sorted by GPA, no overlap
}

// mapped is a region with its bytes.
type mapped struct {
	Region
	bytes []byte // Size of them
	whole []byte // the range to unmap; nil in tests
}

var errAddress = errors.New("an address outside of the guest's memory")

// at returns the bytes at a guest physical address: n, or as many as are contiguous, or
// none when the address is outside. hint is the index of the region found last, since
// the next access likely hits the same one.
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

// user returns the n bytes at an address of the front end, and their guest physical
// address. They must lie in one region, and the address must be a multiple of align.
func (m *memory) user(uva, n, align uint64) ([]byte, uint64, error) {
	for i := range m.regions {
		r := &m.regions[i]
		off := uva - r.UVA
		if off >= r.Size || n > r.Size-off {
			continue
		}
		b := r.bytes[off:][:n:n]
		// Atomic access needs the address that the processor sees to be aligned.
		if uintptr(unsafe.Pointer(&b[0]))%uintptr(align) != 0 {
			return nil, 0, fmt.Errorf("a ring at %#x, not a multiple of %d", uva, align)
		}
		return b, r.GPA + off, nil
	}
	return nil, 0, errAddress
}

// add inserts a region, which must not overlap another.
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

// size returns the total size of all regions in bytes.
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

// holds reports whether an address of this process is in the guest's memory.
func (m *memory) holds(addr uintptr) bool {
	return slices.ContainsFunc(m.regions, func(r mapped) bool { return within(addr, r.bytes) })
}

func within(addr uintptr, b []byte) bool {
	return len(b) > 0 && addr-uintptr(unsafe.Pointer(&b[0])) < uintptr(len(b))
}

// find returns the index of a region, or -1 when it is absent. It ignores Offset, which
// not every request carries.
func (m *memory) find(r Region) int {
	return slices.IndexFunc(m.regions, func(have mapped) bool {
		return have.GPA == r.GPA && have.Size == r.Size && have.UVA == r.UVA
	})
}

// check reports what is wrong with a region by itself. Addresses computed from a region
// that passes do not wrap around.
func (r *Region) check() error {
	const limit = 1 << 56 // beyond any processor's address space
	if r.Size == 0 || r.Size > limit || r.GPA > limit || r.Offset > limit || r.UVA+r.Size < r.UVA {
		return fmt.Errorf("memory of %#x bytes at %#x, offset %#x", r.Size, r.GPA, r.Offset)
	}
	return nil
}

// dirtyLog records for a live migration which pages were written, one bit per page.
type dirtyLog struct {
	bits  []byte // starts at a word boundary; mapped to the end of its last word
	whole []byte // the range to unmap
}

const logPage = 4096

// mark records a write of n bytes at a guest physical address. The front end has no
// interest in pages beyond the log's end.
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
