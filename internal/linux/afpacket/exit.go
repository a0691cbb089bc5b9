package afpacket

import (
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Closing a packet socket takes an RCU grace period (packet_release), some 10 ms, and a
// killed process closes its sockets one by one: with a thousand ports it would take half
// a minute to die, and the next process could start only then. So each socket is also in
// an io_uring file table, which the kernel clears after the process is gone; nothing else
// of io_uring is used. The sockets still close one by one, on a kernel thread
// (delayed_fput), and the frames that they held go with them.

// files returns the io_uring with the table, -1 if there is none (before Linux 5.5, or with
// kernel.io_uring_disabled). A file's index in the table is its descriptor.
var files = sync.OnceValue(func() int {
	var params [120]byte // struct io_uring_params: no options
	const entries = 1
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, entries, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return -1
	}
	none := slices.Repeat([]int32{-1}, mostFiles())
	if register(int(fd), registerFiles, unsafe.Pointer(unsafe.SliceData(none)), len(none)) != 0 {
		unix.Close(int(fd))
		return -1
	}
	return int(fd)
})

// mostFiles returns the length of the table: the process's limit of files, but at most
// 32 Ki, since kernels before Linux 5.13 accept no more (IORING_MAX_FIXED_FILES).
func mostFiles() int {
	var l unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &l) // never fails
	return int(min(l.Cur, 1<<15))
}

// Operations of io_uring_register(2).
const (
	registerFiles       = 2
	registerFilesUpdate = 6
)

func register(ring, operation int, arg unsafe.Pointer, n int) unix.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(ring), uintptr(operation), uintptr(arg), uintptr(n), 0, 0)
	return errno
}

// place puts a file, -1 for none, at an index of the table. It does nothing if the index is
// beyond the end.
func place(at int, file int32) {
	if files() < 0 {
		return
	}
	update := struct { // io_uring_files_update
		offset, _ uint32
		fds       *int32
		_         uint32 // of fds, where pointers have 32 bits
	}{offset: uint32(at), fds: &file}
	register(files(), registerFilesUpdate, unsafe.Pointer(&update), 1)
}

// socket makes a packet socket without a protocol, which receives no frames.
func socket(flags int) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|flags, 0)
	if err == nil {
		place(fd, int32(fd))
	}
	return fd, err
}

// closeSocket closes a descriptor from socket; -1 is ignored.
func closeSocket(fd int) error {
	if fd < 0 {
		return nil
	}
	place(fd, -1)
	return unix.Close(fd)
}
