package afpacket

import (
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// To close a packet socket takes an RCU grace period (packet_release), some 10 ms, and
// a process that is killed closes its sockets one by one: with a thousand ports it
// would be dead after half a minute, and the next one could start only then. So each
// socket is in a table of files as well, which the kernel clears after the process:
// one of io_uring's, of which nothing else is used. The sockets still go one by one,
// on a thread of the kernel (delayed_fput), and with them what frames they held.

// files is the io_uring with the table, -1 where there is none (before Linux 5.5, or
// kernel.io_uring_disabled). The place of a file is its descriptor.
var files = sync.OnceValue(func() int {
	var params [120]byte // struct io_uring_params: no options
	const entries = 1
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, entries, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return -1
	}
	none := slices.Repeat([]int32{-1}, mostFiles())
	if register(int(fd), registerFiles, unsafe.Pointer(&none[0]), len(none)) != 0 {
		unix.Close(int(fd))
		return -1
	}
	return int(fd)
})

// mostFiles is how long the table can be: a process has no more files, and a kernel
// before Linux 5.13 takes no more than 32 Ki (IORING_MAX_FIXED_FILES).
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

// place puts a file, -1 for none, into a place of the table. A place past its end has
// none.
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

// socket makes a packet socket without a protocol, which is given no frame.
func socket(flags int) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|flags, 0)
	if err == nil {
		place(fd, int32(fd))
	}
	return fd, err
}

// closeSocket closes what socket returned, nothing if that is -1.
func closeSocket(fd int) error {
	if fd < 0 {
		return nil
	}
	place(fd, -1)
	return unix.Close(fd)
}
