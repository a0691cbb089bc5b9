package vhost

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/limits"
)

// noDevice is a Handler that does nothing.
type noDevice struct{}

func (noDevice) Changed()         {}
func (noDevice) Announce([6]byte) {}
func (noDevice) SetMTU(int)       {}

func newTestBackend(t *testing.T) *Backend {
	t.Helper()
	b, err := NewBackend(2, 0, noDevice{}, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.Disconnect()
		b.Close()
	})
	return b
}

func memfd(t *testing.T, size int64, flags int) int {
	t.Helper()
	fd, err := unix.MemfdCreate("memory", unix.MFD_CLOEXEC|flags)
	if err == nil {
		err = unix.Ftruncate(fd, size)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// file makes a file of a megabyte in dir, which goes at once; its name does not matter.
func file(t *testing.T, dir string) int {
	t.Helper()
	f, err := os.CreateTemp(dir, "memory")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	os.Remove(f.Name())
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// onDisk returns a directory that is not on tmpfs.
func onDisk(t *testing.T) string {
	t.Helper()
	const tmpfs = 0x01021994
	for _, dir := range []string{t.TempDir(), "/var/tmp", "."} {
		var fs unix.Statfs_t
		if unix.Statfs(dir, &fs) == nil && fs.Type != tmpfs {
			if dir, err := os.MkdirTemp(dir, "vhost"); err == nil {
				t.Cleanup(func() { os.RemoveAll(dir) })
				return dir
			}
		}
	}
	t.Skip("all that can be written to here is memory")
	return ""
}

// openFDs counts this process's descriptors that are files.
func openFDs(t *testing.T) (n int) {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if name, _ := os.Readlink("/proc/self/fd/" + e.Name()); strings.Contains(name, "memory") {
			n++
		}
	}
	return n
}

// Memory that a front end names, for the guest, for the log and for what is in flight, is
// memory: a page of a file on a disk would have whoever sends to the guest wait for it.
func TestSharedMemoryOnly(t *testing.T) {
	const size = 1 << 16
	uses := map[string]func(b *Backend, fd int) error{
		"one region": func(b *Backend, fd int) error { return b.AddMemory(Region{Size: size}, fd) },
		"a table": func(b *Backend, fd int) error {
			return b.SetMemory([]Region{{Size: size}, {GPA: 1 << 30, Size: size}}, []int{fd, memfd(t, size, 0)})
		},
		"the end of a table": func(b *Backend, fd int) error {
			return b.SetMemory([]Region{{Size: size}, {GPA: 1 << 30, Size: size}}, []int{memfd(t, size, 0), fd})
		},
		"a log":             func(b *Backend, fd int) error { return b.SetLog(fd, 0, size) },
		"what is in flight": func(b *Backend, fd int) error { return b.SetInflight(fd, 0, size, 256) },
	}
	disk := onDisk(t)
	for name, use := range uses {
		for what, c := range map[string]struct {
			fd func() int
			ok bool
		}{
			"a memfd":          {func() int { return memfd(t, size, unix.MFD_ALLOW_SEALING) }, true},
			"an unsealed one":  {func() int { return memfd(t, size, 0) }, true},
			"a file on tmpfs":  {func() int { return file(t, "/dev/shm") }, true},
			"a file on a disk": {func() int { return file(t, disk) }, false},
			"a directory": {func() int {
				fd, err := unix.Open("/dev/shm", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
				if err != nil {
					t.Fatal(err)
				}
				return fd
			}, false},
			"a short one": {func() int { return memfd(t, size-1, 0) }, false},
		} {
			b := newTestBackend(t)
			before, taken := openFDs(t), addresses.taken.Load()
			err := use(b, c.fd())
			if (err == nil) != c.ok {
				t.Errorf("%s as %s: %v", what, name, err)
			}
			if what == "a file on a disk" && (err == nil || !strings.Contains(err.Error(), "tmpfs or hugetlbfs") || !strings.Contains(err.Error(), filepath.Base(disk)) || strings.Contains(err.Error(), "\n")) {
				t.Errorf("%s as %s: %v does not say what to do", what, name, err)
			}
			if n := openFDs(t); n != before {
				t.Errorf("%s as %s: %d descriptors stay open", what, name, n-before)
			}
			b.Disconnect()
			if left := addresses.taken.Load(); left != taken {
				t.Errorf("%s as %s: %d bytes stay mapped", what, name, left-taken)
			}
		}
	}
}

// A file that holds nothing can be as long as the address space. A guest may not have all
// of that, nor may a few.
func TestAddressSpace(t *testing.T) {
	const piece = maxMemory / 4
	b := newTestBackend(t)
	add := func(b *Backend, i uint64, n uint64) error {
		return b.AddMemory(Region{GPA: i * piece, UVA: i * piece, Size: n}, memfd(t, int64(n), 0))
	}
	for i := range uint64(4) {
		if err := add(b, i, piece); err != nil {
			t.Fatal(err)
		}
	}
	if err := add(b, 4, 4096); err == nil || !strings.Contains(err.Error(), "8 TiB") {
		t.Errorf("more than a guest may have: %v", err)
	}
	if err := b.RemoveMemory(Region{GPA: piece, UVA: piece, Size: piece}); err != nil {
		t.Fatal(err)
	}
	if err := add(b, 4, 4096); err != nil {
		t.Errorf("after some was taken away: %v", err)
	}
	if err := b.SetMemory([]Region{{Size: maxMemory}, {GPA: maxMemory, Size: 4096}}, []int{memfd(t, maxMemory, 0), memfd(t, 4096, 0)}); err == nil {
		t.Error("a table of more than a guest may have is taken")
	}

	l := budget{limit: 10}
	for _, c := range []struct {
		n    uint64
		want bool
	}{{7, true}, {4, false}, {^uint64(0), false}, {3, true}, {1, false}} {
		if got := l.take(c.n); got != c.want {
			t.Errorf("%d more of %d of %d: %v", c.n, l.taken.Load(), l.limit, got)
		}
	}
	l.give(7)
	if !l.take(7) || l.take(1) {
		t.Error("what was given back is not there again")
	}
	if size := fmt.Sprint(addresses.limit); addresses.limit < 2*maxMemory || addresses.limit > 1<<46 {
		t.Errorf("all guests may have %s bytes of the address space", size)
	}
}

// Where the system limits the address space, a guest's memory leaves what the switch keeps for itself.
func TestAddressSpaceIsKept(t *testing.T) {
	const left = limits.KeptSpace + 1<<20
	was := addressSpace
	defer func() { addressSpace = was }()
	addressSpace = func() limits.Limit { return limits.Limit{Most: left, Name: "the limit"} }
	b := newTestBackend(t)
	for size, fits := range map[uint64]bool{1 << 20: true, 1<<20 + 4096: false, 1 << 32: false} {
		err := b.SetMemory([]Region{{Size: size}}, []int{memfd(t, int64(size), 0)})
		if (err == nil) != fits || err != nil && !strings.HasSuffix(err.Error(), "the switch has 257 MiB and keeps 256 free: the limit") {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	addressSpace = func() limits.Limit { return limits.Limit{Most: -5} }
	if b.SetMemory([]Region{{Size: 4096}}, []int{memfd(t, 4096, 0)}) == nil {
		t.Error("memory is mapped where the limit is exceeded")
	}
}

// What is mapped begins and ends with a page, and has all that was asked for. Huge pages are
// mapped whole.
func TestWholePages(t *testing.T) {
	const huge = 2 << 20
	page := uint64(unix.Getpagesize())
	for _, c := range []struct{ offset, size, block, begin, length uint64 }{
		{0, 1, page, 0, page},
		{0, page, page, 0, page},
		{page - 1, 1, page, 0, page},
		{page - 1, 2, page, 0, 2 * page},
		{page, page + 1, 512, page, 2 * page},
		{3 * page, 1, 0, 3 * page, page},
		{3 * page, 1, 3 * page, 3 * page, page}, // no size of pages
		{3 * page, 1, huge, 0, huge},
		{huge + page, huge, huge, huge, 2 * huge},
	} {
		if begin, length := wholePages(c.offset, c.size, c.block); begin != c.begin || length != c.length {
			t.Errorf("%d bytes at %d, of blocks of %d: %d at %d, want %d at %d", c.size, c.offset, c.block, length, begin, c.length, c.begin)
		}
	}
}
