package tuntest

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// What is there is found, also when time is up before the first look.
func TestAwait(t *testing.T) {
	t.Parallel()
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	in, out := os.NewFile(uintptr(ends[0]), "in"), os.NewFile(uintptr(ends[1]), "out")
	defer in.Close()
	defer out.Close()
	buf := make([]byte, 2)
	read := func(fd int) error {
		n, err := unix.Read(fd, buf)
		if err == nil && n != 1 {
			t.Errorf("it reads %d bytes", n)
		}
		return err
	}
	if err := await(in, 0, read); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("where nothing is: %v", err)
	}
	if _, err := out.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if err := await(in, 0, read); err != nil {
		t.Errorf("where something is: %v", err)
	}
}
