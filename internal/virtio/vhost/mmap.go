package vhost

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/limits"
)

// maxMemory bounds one guest's memory, so that it cannot take all the address space
// there is for all guests; see addresses.
const maxMemory = 8 << 40

// mapRegion maps a region before it is added. It owns fd.
func (m *memory) mapRegion(r Region, fd int) (mapped, error) {
	p := mapped{Region: r}
	err := r.check()
	if err == nil && m.size()+r.Size > maxMemory {
		err = fmt.Errorf("a guest of more than %d TiB", maxMemory>>40)
	}
	if err != nil {
		unix.Close(fd)
		return p, err
	}
	p.whole, p.bytes, err = mapForeign(fd, r.Offset, r.Size)
	return p, err
}

// mapForeign maps size bytes of a file from the front end, like mapShared. The file
// must be shared memory. Touching a page of a file on a disk waits for that disk, and
// so would everyone who sends to the guest; a file system of the front end (FUSE) may
// never answer.
func mapForeign(fd int, offset, size uint64) (whole, bytes []byte, err error) {
	// Only a memfd and files on tmpfs and hugetlbfs have seals (fcntl(2)). The kernel
	// answers without asking the file system, so this comes before all other calls.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0); err != nil {
		name, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		unix.Close(fd)
		return nil, nil, fmt.Errorf("%q is no shared memory; use a memfd, or a file on tmpfs or hugetlbfs, as QEMU's memory-backend-memfd with share=on does", name)
	}
	return mapShared(fd, offset, size)
}

// mapShared maps size bytes of a file at any offset. bytes is the part of whole that
// was asked for; whole is what to unmap. It owns fd.
func mapShared(fd int, offset, size uint64) (whole, bytes []byte, err error) {
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, nil, err
	}
	// If a file shrinks under a mapping, its reader gets SIGBUS. Rings recover from
	// that; a seal prevents it. A file that cannot be sealed is used all the same, but
	// must be long enough now.
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK)
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size < 0 || offset+size > uint64(st.Size) {
		return nil, nil, fmt.Errorf("a memory file of %d bytes is too short for %d bytes at %d, or no file", st.Size, size, offset)
	}
	begin, length := wholePages(offset, size, uint64(st.Blksize))
	if left := addressSpace(); uint64(max(left.Most-limits.KeptSpace, 0)) < length {
		return nil, nil, fmt.Errorf("no address space for %d MiB of the guest's memory, for the switch has %d MiB and keeps %d free: %s",
			length>>20, max(left.Most, 0)>>20, limits.KeptSpace>>20, left.Name)
	}
	if !addresses.take(length) {
		return nil, nil, errors.New("all guests together name more memory than the switch can map; end one of them")
	}
	whole, err = unix.Mmap(fd, int64(begin), int(length), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		addresses.give(length)
		return nil, nil, fmt.Errorf("map %d bytes of memory: %w", length, err)
	}
	// Guests' memory does not belong in a core file of the switch.
	_ = unix.Madvise(whole, unix.MADV_DONTDUMP)
	return whole, whole[offset-begin:][:size:size], nil
}

// wholePages returns what to map for size bytes at offset, of a file on a file system with
// that block size. Huge pages are mapped whole; the block size of their file system is the
// page size.
func wholePages(offset, size, block uint64) (begin, length uint64) {
	page := uint64(unix.Getpagesize())
	if bits.OnesCount64(block) == 1 {
		page = max(page, block)
	}
	begin = offset &^ (page - 1)
	return begin, (offset + size - begin + page - 1) &^ (page - 1)
}

func unmap(whole []byte) {
	if whole != nil {
		_ = unix.Munmap(whole)
		addresses.give(uint64(len(whole)))
	}
}

// addressSpace returns how much address space the system leaves the process.
var addressSpace = limits.System{}.AddressSpace

// addresses is the address space that the memory of all guests takes in this process. A
// file can be long and empty, so without a bound a few of them would leave no room for
// the Go heap.
var addresses = budget{limit: 1 << 46} // half of the at least 47 bits that a process has

// budget is an amount that callers take from and give back to.
type budget struct {
	limit uint64
	taken atomic.Uint64
}

func (b *budget) take(n uint64) bool {
	if n > b.limit {
		return false
	}
	if b.taken.Add(n) > b.limit {
		b.give(n)
		return false
	}
	return true
}

func (b *budget) give(n uint64) { b.taken.Add(-n) }
