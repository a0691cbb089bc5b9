package vhost

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// maxMemory is how much memory a guest has at most. It keeps one guest from taking all
// that there is for all; see addresses.
const maxMemory = 8 << 40

// mapRegion maps a region that is to be added. It owns fd.
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

// mapForeign maps size bytes of a file that the front end named, as mapShared does. The
// file must be shared memory. Each page of a file on a disk waits for that disk when it is
// touched, and whoever sends to the guest would wait with it; a file system of the front
// end's own (FUSE) may never answer.
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

// mapShared maps size bytes of a file, wherever they begin, and returns them as part
// of what has to be unmapped. It owns fd.
func mapShared(fd int, offset, size uint64) (whole, bytes []byte, err error) {
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, nil, err
	}
	// A file that shrinks under a mapping makes its reader fail with SIGBUS. Rings
	// recover from that; a seal makes it impossible. A file that cannot be sealed is
	// used all the same. It must at least be long enough now.
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK)
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size < 0 || offset+size > uint64(st.Size) {
		return nil, nil, fmt.Errorf("a memory file of %d bytes is too short for %d bytes at %d, or no file", st.Size, size, offset)
	}
	// Huge pages are mapped whole; their file system has blocks of that size.
	align := max(uint64(st.Blksize), uint64(unix.Getpagesize()))
	if align&(align-1) != 0 {
		align = uint64(unix.Getpagesize())
	}
	begin := offset &^ (align - 1)
	length := (offset + size - begin + align - 1) &^ (align - 1)
	if !addresses.take(length) {
		return nil, nil, errors.New("all guests together name more memory than the switch can map; end one of them")
	}
	whole, err = unix.Mmap(fd, int64(begin), int(length), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		addresses.give(length)
		return nil, nil, fmt.Errorf("map %d bytes of memory: %w", length, err)
	}
	// A core file of the switch is not the place for guests' memory.
	_ = unix.Madvise(whole, unix.MADV_DONTDUMP)
	return whole, whole[offset-begin:][:size:size], nil
}

func unmap(whole []byte) {
	if whole != nil {
		_ = unix.Munmap(whole)
		addresses.give(uint64(len(whole)))
	}
}

// addresses is what all guests' memory takes of this process's address space. A file may
// be long and hold nothing, so without a bound a few of them leave the Go heap none.
var addresses = budget{limit: 1 << 46} // half of the 47 bits that processes have at least

// budget is an amount of which parts are taken and given back.
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
