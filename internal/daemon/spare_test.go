package daemon

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
)

// A listener has spare descriptors as far as the process may open them, and gives one up, the lowest first, where there is no
// other.
func TestSpare(t *testing.T) {
	var s spare
	defer s.close()
	full := fmt.Errorf("accept: %w", syscall.EMFILE)
	if s.lend(full) {
		t.Error("it lends what it does not have")
	}

	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	none := was
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	s.fill()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if len(s.fds) != 0 {
		t.Errorf("it has %v, which it may not open", s.fds)
	}

	s.fill()
	all := slices.Clone(s.fds)
	if len(all) != spares || !slices.IsSorted(all) {
		t.Fatalf("it has %v", all)
	}
	if s.lend(fmt.Errorf("accept: %w", syscall.ECONNABORTED)) || !slices.Equal(s.fds, all) {
		t.Error("it lends one though there are others")
	}
	for i, fd := range all {
		if !s.lend(full) || inode(fd) != 0 || !slices.Equal(s.fds, all[i+1:]) {
			t.Errorf("of %v, %v are left", all[i:], s.fds)
		}
		if i == 0 {
			s.fill() // the lowest number is free again
			if !slices.Equal(s.fds, all) {
				t.Fatalf("it has %v, want %v", s.fds, all)
			}
			_ = s.lend(full)
		}
	}
	s.fill()
	all = slices.Clone(s.fds)
	s.close()
	for _, fd := range all {
		if inode(fd) != 0 {
			t.Errorf("%d is still open", fd)
		}
	}
	if s.lend(full) {
		t.Error("it lends what it has closed")
	}
}
