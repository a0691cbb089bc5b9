package vhost

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// inflight records the positions of packed rings in memory that outlives the process:
// when a back end dies, its front end does not know them, and a packed ring does not
// hold them. (A split ring does, in its used index.) The memory is the front end's
// (VHOST_USER_SET_INFLIGHT_FD) or a file of the back end.
type inflight struct {
	bytes, whole []byte
	size         int // of the largest ring that fits, in descriptors
}

// journal returns a ring's part, or nil if it has none.
func (f *inflight) journal(ring, size int) []byte {
	n := journalSize(f.size)
	if size > f.size || (ring+1)*n > len(f.bytes) {
		return nil
	}
	return f.bytes[ring*n:][:n:n]
}

// journalSize is the length of a ring's journal: a note, and one entry for each chain
// that the ring can hold.
func journalSize(size int) int { return noteSize + entrySize*size }

// KeepInflight makes the back end record the positions of packed rings in a file, for
// front ends that provide no memory for that. It creates the file if it is absent.
func (b *Backend) KeepInflight(path string) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err == nil {
		n := len(b.rings) * journalSize(maxRing) // little of it is ever written
		if err = unix.Ftruncate(fd, int64(n)); err == nil {
			b.ownFile, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		}
		if err != nil {
			unix.Close(fd)
		} else {
			b.own.size = maxRing
			b.own.whole, b.own.bytes, err = mapShared(fd, 0, uint64(n))
		}
	}
	if err != nil {
		b.closeOwn()
		return fmt.Errorf("%s, where the port keeps how far rings are: %w", path, err)
	}
	return nil
}

// MakeInflight implements Actions.
func (b *Backend) MakeInflight(size int) (fd int, length uint64, err error) {
	fd, err = unix.MemfdCreate("inflight", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, 0, err
	}
	length = uint64(len(b.rings) * journalSize(size))
	if err := unix.Ftruncate(fd, int64(length)); err != nil {
		unix.Close(fd)
		return -1, 0, err
	}
	return fd, length, nil
}

// SetInflight implements Actions.
func (b *Backend) SetInflight(fd int, offset, length uint64, size int) error {
	if length > maxInflight || offset > maxInflight || offset%8 != 0 {
		unix.Close(fd)
		return fmt.Errorf("%d bytes at %d to keep what is in flight", length, offset)
	}
	whole, bytes, err := mapForeign(fd, offset, length)
	if err != nil {
		return err
	}
	b.lock()
	old := b.given
	b.given = inflight{bytes, whole, size}
	b.refresh()
	b.unlock()
	unmap(old.whole)
	return nil
}

// maxInflight is more than any back end asks for.
const maxInflight = 1 << 30

// journalOf returns a ring's journal, or nil if it has none.
func (b *Backend) journalOf(r *Ring) []byte {
	if b.given.bytes != nil {
		return b.given.journal(r.index, int(r.num))
	}
	if j := b.own.journal(r.index, int(r.num)); j != nil && b.allocate(r.index, int(r.num)) {
		return j
	}
	return nil
}

// allocate makes the file system reserve the own file's space for a ring's journal. On
// a full file system, a write to a hole of the mapping would fail and end the guest's
// connection; without the reservation the ring runs without a journal.
func (b *Backend) allocate(ring, size int) bool {
	err := unix.EINTR
	for err == unix.EINTR {
		err, _ = unix.Fallocate(b.ownFile, 0, int64(ring*journalSize(b.own.size)), int64(journalSize(size))).(unix.Errno)
	}
	// A file system that cannot reserve space is safe as long as it has room.
	return err == 0 || err == unix.EOPNOTSUPP
}

// closeOwn closes the own file.
func (b *Backend) closeOwn() {
	unmap(b.own.whole)
	b.own = inflight{}
	if b.ownFile > 0 {
		unix.Close(b.ownFile)
		b.ownFile = 0
	}
}

// forget invalidates a ring's journal.
func (r *Ring) forget() {
	if r.journal == nil {
		return
	}
	defer setPanicOnFault()()
	defer func() {
		// The front end may have shrunk the file; then there is no journal.
		if v := recover(); v != nil && !within(faultAt(v), r.journal) {
			panic(v)
		}
	}()
	binary.NativeEndian.PutUint64(r.journal, 0)
}

// The journal of a packed ring is a note and the entries of the batch that the note
// describes: used chains in order, {id 16, descriptors 16, bytes written 32}. The note
// is written after the entries are complete and before any of them reaches the ring, so
// a reader who finds that the driver cannot have seen the batch can write it again.
const noteSize, entrySize = 8, 8

func (p *packed) entry(i int) []byte { return p.entries[entrySize*i:][:entrySize] }

// note holds four places: the batch's first chain, its last chain, the place behind
// that, and the last chain of the batch before, in bits 0, 16, 32 and 48. Once the
// batch is in the ring, the first place is the one behind the batch. 0 means none.
func (p *packed) note() *uint64 { return (*uint64)(unsafe.Pointer(&p.journal[:noteSize][0])) }

func (p *packed) putNote(begin place) {
	atomic.StoreUint64(p.note(), uint64(begin.bits())|uint64(p.last.bits())<<16|
		uint64(p.used.bits())<<32|uint64(p.before.bits())<<48)
}

// resume moves the ring to where its journal says. It does nothing when there is no
// journal or it belongs to another ring, for instance because the guest was restarted.
func (p *packed) resume() {
	w := atomic.LoadUint64(p.note())
	begin, last, end, before := placeOf(uint16(w)), placeOf(uint16(w>>16)), placeOf(uint16(w>>32)), placeOf(uint16(w>>48))
	for _, at := range []place{begin, last, end, before} {
		if at.index >= p.size {
			return
		}
	}
	switch {
	case last == end:
		return
	case begin != end && !p.wasUsed(begin): // the driver has not seen the batch
		if !p.wasUsed(before) || !p.isAvailable(begin) || !p.again(begin, end) {
			return
		}
	case p.isAvailable(end): // the driver may have come back to the last one
		if !p.wasUsed(last) {
			return
		}
	case !p.isUsed(last) || p.isUsed(end):
		return
	}
	p.seen, p.used, p.begin, p.before = end, end, end, last
}

// again rewrites the batch between two places to the ring, if its entries fill that
// span.
func (p *packed) again(begin, end place) bool {
	copy(p.entries, p.journal[noteSize:]) // the front end could change the original
	at := begin
	for n := range p.size {
		slots := int(uint16(binary.NativeEndian.Uint64(p.entry(n)) >> 16))
		if slots == 0 || slots > p.size {
			return false
		}
		if at.move(slots, p.size); at == end {
			p.write(begin, n+1)
			return true
		}
	}
	return false
}

// wasUsed reports whether the device wrote to a place; the driver may have written
// there once since. A new ring holds zeros.
func (p *packed) wasUsed(at place) bool {
	_, used := p.bitsAt(at)
	return used == at.wrap && binary.LittleEndian.Uint64(p.desc[at.index*descSize:]) != 0
}

func (p *packed) isUsed(at place) bool {
	avail, used := p.bitsAt(at)
	return avail == at.wrap && used == at.wrap
}

func (p *packed) isAvailable(at place) bool {
	avail, used := p.bitsAt(at)
	return avail == at.wrap && used != at.wrap
}

// bitsAt returns the flags AVAIL and USED of a descriptor.
func (p *packed) bitsAt(at place) (avail, used bool) {
	flags := load32(p.desc[at.index*descSize+12:]) >> 16
	return flags&descAvail != 0, flags&descUsed != 0
}
