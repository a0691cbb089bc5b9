package vhost

import (
	"errors"
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// mapRegion maps a region of the guest's memory. It owns fd.
func mapRegion(r Region, fd int) (mapped, error) {
	m := mapped{Region: r}
	if err := r.check(); err != nil {
		unix.Close(fd)
		return m, err
	}
	var err error
	m.whole, m.bytes, err = mapShared(fd, r.Offset, r.Size)
	return m, err
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
	if length > math.MaxInt {
		return nil, nil, errors.New("a region of memory that is too large")
	}
	whole, err = unix.Mmap(fd, int64(begin), int(length), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return nil, nil, fmt.Errorf("map %d bytes of memory: %w", length, err)
	}
	// A core file of the switch is not the place for guests' memory.
	_ = unix.Madvise(whole, unix.MADV_DONTDUMP)
	return whole, whole[offset-begin:][:size:size], nil
}

func unmap(whole []byte) {
	if whole != nil {
		_ = unix.Munmap(whole)
	}
}
