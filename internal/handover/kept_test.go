package handover

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

// What is packed comes out once, with its files, however many processes had the file meanwhile.
func TestKept(t *testing.T) {
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, n := range []int{0, 1, filesAtOnce} {
		var fds []int
		for range n {
			fds = append(fds, int(f.Fd()))
		}
		fd, err := Pack(map[string]string{"a": strings.Repeat("x", 100_000)}, fds...)
		if err != nil {
			t.Fatal(err)
		}
		copied, err := Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		syscall.Close(fd)
		var m map[string]string
		files, err := Unpack(copied, &m)
		if err != nil || len(files) != n || len(m["a"]) != 100_000 {
			t.Errorf("%d files come out with %d bytes: %v", len(files), len(m["a"]), err)
		}
		for _, fd := range files {
			is, want := new(syscall.Stat_t), new(syscall.Stat_t)
			if syscall.Fstat(fd, is) != nil || syscall.Fstat(int(f.Fd()), want) != nil || is.Rdev != want.Rdev {
				t.Error("it is another file")
			}
		}
		Close(files)
		if _, err := Unpack(copied, &m); err == nil {
			t.Error("it comes out twice")
		}
		syscall.Close(copied)
	}
	if _, err := Pack(strings.Repeat("x", maxKept)); err == nil {
		t.Error("too much is kept")
	}
}

// What is no kept message is an error, without a wait.
func FuzzUnpack(f *testing.F) {
	f.Add([]byte("{}"))
	f.Add([]byte("no"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ends, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer Close(ends[:])
		if err := syscall.Sendmsg(ends[0], b, syscall.UnixRights(ends[0]), nil, 0); err != nil {
			return
		}
		var m any
		files, err := Unpack(ends[1], &m)
		if err == nil && len(files) != 1 || err != nil && files != nil {
			t.Errorf("%d files, %v", len(files), err)
		}
		Close(files)
	})
}
