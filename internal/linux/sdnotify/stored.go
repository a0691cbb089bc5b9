package sdnotify

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// File is a file that the service manager kept.
type File struct {
	Name string
	FD   int // close-on-exec; the caller's
}

// firstFD is the first descriptor that a service manager passes (SD_LISTEN_FDS_START).
const firstFD = 3

// Stored returns the files that former processes of the service stored, and removes the variables
// about them from the environment (sd_listen_fds_with_names(3)).
func Stored() (all []File) {
	pid, count, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(name) // cannot fail: the name is valid
	}
	n, err := strconv.Atoi(count)
	if err != nil || n <= 0 || pid != strconv.Itoa(os.Getpid()) {
		return nil
	}
	of := strings.Split(names, ":")
	for i := range n {
		fd := firstFD + i
		if _, err := fcntl(fd, syscall.F_SETFD, syscall.FD_CLOEXEC); err != nil {
			return all // there are no more
		}
		f := File{FD: fd}
		if i < len(of) {
			f.Name = of[i]
		}
		all = append(all, f)
	}
	return all
}

func fcntl(fd, command, argument int) (int, error) {
	n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), uintptr(command), uintptr(argument))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}
