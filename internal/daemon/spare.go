package daemon

import (
	"errors"
	"slices"
	"syscall"
)

// spare are descriptors that a listener holds for its clients. The limit of open files bounds their numbers, and these are
// low, as the process opened them early. So where the others are used up, or somebody lowers the limit below
// those that are open, the listener gives one up and clients get an answer.
type spare struct{ fds []int }

// spares are enough for a command that is followed by others, beside readers of events.
const spares = 4

// fill opens those that are missing, as far as the process may.
func (s *spare) fill() {
	for len(s.fds) < spares {
		fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC) // a file that needs nothing else
		if err != nil {
			return
		}
		s.fds = append(s.fds, fd)
		slices.Sort(s.fds)
	}
}

// lend makes room for a descriptor after err, if that says that there is none. It reports whether to try again.
func (s *spare) lend(err error) bool {
	if !errors.Is(err, syscall.EMFILE) || len(s.fds) == 0 {
		return false
	}
	// The lowest number: of the others some may be beyond the limit.
	syscall.Close(s.fds[0])
	s.fds = s.fds[1:]
	return true
}

func (s *spare) close() {
	for _, fd := range s.fds {
		syscall.Close(fd)
	}
	s.fds = nil
}
