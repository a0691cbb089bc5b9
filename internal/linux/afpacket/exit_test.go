package afpacket

import (
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/test/testenv"
)

// TestKernelClosesSockets: a socket whose descriptor goes with its process is there
// until the kernel comes to close it, and one that is closed is gone. It is not
// parallel: it gives up a descriptor whose place in the table is still taken.
func TestKernelClosesSockets(t *testing.T) {
	var params [120]byte // struct io_uring_params
	ring, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		t.Skip("left out: needs io_uring (sysctl kernel.io_uring_disabled=0)")
	}
	unix.Close(int(ring))
	testenv.NewNetns(t).Do(func() {
		fd, err := socket(0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Close(fd); err != nil {
			t.Fatal(err)
		}
		if n := sockets(t); n != 1 {
			t.Errorf("%d sockets without their descriptors, want 1", n)
		}
		place(fd, -1)
		testenv.Eventually(t, "the kernel has closed the socket", func() bool { return sockets(t) == 0 })

		p := tap(t, "vm0")
		if n := sockets(t); n != 3 {
			t.Errorf("%d sockets of a port, want 3", n)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		testenv.Eventually(t, "the port's sockets are closed", func() bool { return sockets(t) == 0 })
	})
}

// sockets counts the packet sockets in the thread's namespace.
func sockets(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/thread-self/net/packet")
	if err != nil {
		t.Fatal(err)
	}
	const header = 1
	return strings.Count(string(b), "\n") - header
}
