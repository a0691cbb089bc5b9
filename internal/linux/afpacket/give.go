package afpacket

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/port"
)

// parcelFormat is the format of a Port's Parcel: its receiving sockets in the order of their
// queues, without data. They are bound, so what comes in while a process replaces another waits
// there. Sockets that send have no state.
const parcelFormat = 1

// Give implements port.Giver. Two processes may have the sockets open: each frame is received by
// one of them.
func (p *Port) Give(bool) (*port.Parcel, error) {
	p.mu.RLock() // Close must not close the sockets meanwhile
	defer p.mu.RUnlock()
	if p.closed {
		return nil, port.ErrClosed
	}
	parcel := &port.Parcel{Format: parcelFormat}
	for _, q := range p.queues {
		fd, err := unix.FcntlInt(uintptr(q.rx.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			Drop(parcel)
			return nil, err
		}
		parcel.Files = append(parcel.Files, fd)
	}
	return parcel, nil
}

// Drop closes the files of a Parcel that nobody gets.
func Drop(parcel *port.Parcel) {
	for _, fd := range parcel.Files {
		unix.Close(fd)
	}
}

// take makes r receive by a socket of another process.
func (r *receiver) take(c Config, file int) error {
	sa, err := unix.Getsockname(file)
	ll, ok := sa.(*unix.SockaddrLinklayer)
	switch {
	case err != nil:
		return err
	case !ok || ll.Ifindex != c.Ifindex:
		return errors.New("the socket that is given is not at the interface")
	}
	if r.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return err
	}
	if r.fd, err = unix.FcntlInt(uintptr(file), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return err
	}
	place(r.fd, int32(r.fd))
	r.marked = c.Marked
	if ll.Protocol == protocol(c.Punted) {
		return nil
	}
	// The one process has a program at the interface that the other has not.
	if err := r.bind(c.Ifindex, c.Punted); err != nil {
		return fmt.Errorf("bind the socket that is given: %w", err)
	}
	return nil
}
