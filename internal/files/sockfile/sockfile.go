// Package sockfile creates unix sockets in the file system for those who may use them,
// replaces sockets that nobody holds any more, and removes them. Directories on the way
// may belong to other users: their links are not followed, and each operation acts on
// the very socket, wherever the path leads by then. Its functions may be called from
// any goroutine; if they find a socket held, they check again for up to half a second.
// Errors are one line and say what to do.
package sockfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// MaxPath is the longest path of a socket in bytes: sun_path, less its NUL (unix(7)).
const MaxPath = 107

// Listen creates a stream socket at path for its owner and group, and the directory if
// it is absent. Closing the listener leaves the file; use Remove. An error leaves
// nothing behind.
func Listen(path string) (*net.UnixListener, error) {
	l, f, err := ListenAs(path, Default)
	if err != nil {
		return nil, err
	}
	f.Close()
	return l, nil
}

// ListenAs is Listen for those whom a admits. It also returns the file created at path.
func ListenAs(path string, a Access) (*net.UnixListener, *File, error) {
	s, f, err := place(path, a, func(c *net.ListenConfig) (socket, error) {
		l, err := c.Listen(context.Background(), "unix", path)
		if err != nil {
			return nil, err
		}
		return l.(*net.UnixListener), nil
	})
	if err != nil {
		return nil, nil, err
	}
	l := s.(*net.UnixListener)
	l.SetUnlinkOnClose(false)
	return l, f, nil
}

// ListenPacket is Listen for a datagram socket.
func ListenPacket(path string) (*net.UnixConn, error) {
	c, f, err := ListenPacketAs(path, Default)
	if err != nil {
		return nil, err
	}
	f.Close()
	return c, nil
}

// ListenPacketAs is ListenAs for a datagram socket.
func ListenPacketAs(path string, a Access) (*net.UnixConn, *File, error) {
	s, f, err := place(path, a, func(c *net.ListenConfig) (socket, error) {
		p, err := c.ListenPacket(context.Background(), "unixgram", path)
		if err != nil {
			return nil, err
		}
		return p.(*net.UnixConn), nil
	})
	if err != nil {
		return nil, nil, err
	}
	return s.(*net.UnixConn), f, nil
}

// TakePacket is ListenPacket for the datagram socket at path of another process, which gave it. It
// duplicates the descriptor.
func TakePacket(path string, fd int) (*net.UnixConn, *File, error) {
	s, f, err := take(path, fd, net.FilePacketConn)
	if err != nil {
		return nil, nil, err
	}
	c, ok := s.(*net.UnixConn)
	if !ok {
		return nil, nil, errors.Join(notASocket(path), s.Close())
	}
	return c, f, nil
}

func notASocket(path string) error { return fmt.Errorf("what is given for %s is no such socket", path) }

// take makes a socket of a descriptor, with the file at path that it is bound to. Whoever owns the
// directory may have deleted either.
func take[S io.Closer](path string, fd int, from func(*os.File) (S, error)) (socket, *File, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	given := os.NewFile(uintptr(dup), path)
	defer given.Close()
	made, err := from(given)
	if err != nil {
		return nil, nil, notASocket(path)
	}
	s, ok := any(made).(socket)
	if !ok {
		return nil, nil, errors.Join(notASocket(path), made.Close())
	}
	f, err := find(s, path)
	switch {
	case err == nil:
		return s, f, nil
	case errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM):
		return nil, nil, errors.Join(err, s.Close())
	}
	return s, gone(path), nil
}

// find returns the file at path that a socket of another process is bound to.
func find(s socket, path string) (*File, error) {
	dir, err := Find(filepath.Dir(path))
	if err != nil {
		return nil, Explain(path, err)
	}
	defer unix.Close(dir)
	f, err := fileOf(s, dir, path)
	if err != nil {
		return nil, err
	}
	if err := f.unset(dir); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Remove deletes the socket at path after its holder has closed it. An absent file is
// no error. A file that is no socket stays, and so does a socket that another process
// holds by now.
func Remove(path string) error {
	dir, err := Find(filepath.Dir(path))
	if err == nil {
		defer unix.Close(dir)
		var s state
		if s, err = await(dir, filepath.Base(path)); err == nil && s == stale {
			err = unix.Unlinkat(dir, filepath.Base(path), 0)
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return Explain(path, err)
}

// MakeDir creates a directory for sockets, and its parents, where they are absent. An
// error leaves nothing behind.
func MakeDir(dir string) error {
	fd, _, err := makeDirs(dir)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// Explain adds to an error on the socket or directory at path what to do about it. nil
// stays nil.
func Explain(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: permission denied; name a path in a directory of your own, or run vswitch as a user who may write there", path)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%s is on a file system that is mounted read-only; name another path", path)
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("there is no room for the socket %s on its file system; make room there, or name another path", path)
	}
	// The text of net and os errors repeats the path and the call.
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return fmt.Errorf("socket %s: %w", path, err)
}

// socket is a socket of either type.
type socket interface {
	io.Closer
	syscall.Conn
}

// place makes bind create a socket at path, and creates the directory.
func place(path string, a Access, bind func(*net.ListenConfig) (socket, error)) (socket, *File, error) {
	dir, made, err := makeDirs(filepath.Dir(path))
	if err != nil {
		return nil, nil, err
	}
	defer unix.Close(dir)
	s, f, err := replace(dir, path, a, bind)
	if err != nil {
		removeAll(made)
	}
	return s, f, err
}

// replace makes bind create a socket at path, which is in dir, if nothing or a stale
// socket is there.
func replace(dir int, path string, a Access, bind func(*net.ListenConfig) (socket, error)) (socket, *File, error) {
	name := filepath.Base(path)
	state, err := await(dir, name)
	switch {
	case err != nil:
		return nil, nil, Explain(path, err)
	case state == foreign:
		return nil, nil, fmt.Errorf("%s is there and is no socket; name another path", path)
	case state == held:
		return nil, nil, fmt.Errorf("%s is held by another program; end that one, or name another path", path)
	case state == stale:
		if err := unix.Unlinkat(dir, name, 0); err != nil {
			return nil, nil, Explain(path, err)
		}
	}
	// The mode of a socket before bind, less the umask, becomes the file's: nobody else
	// may use it until it has its final owner, group and mode.
	s, err := bind(&net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		return errors.Join(raw.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), bornMode) }), err)
	}})
	if err != nil {
		return nil, nil, Explain(path, err)
	}
	f, err := fileOf(s, dir, path)
	if err == nil {
		if err = f.SetAccess(a); err != nil {
			f.Close()
		}
	}
	if err != nil {
		_ = unix.Unlinkat(dir, name, 0)
		s.Close()
		return nil, nil, err
	}
	return s, f, nil
}

// state is what can be at a path.
type state uint8

const (
	absent  state = iota
	foreign       // not a socket
	stale         // a socket that nobody holds
	held
)

// A socket can look held a little longer than it is: a child of its holder has a copy
// until its exec, and a killed process until the kernel has torn it down. That takes
// milliseconds, or more on a busy machine.
const (
	patience = 500 * time.Millisecond
	pause    = 5 * time.Millisecond
)

// await reports what dir holds under a name; it returns held only if that lasts.
func await(dir int, name string) (state, error) {
	for start := time.Now(); ; time.Sleep(pause) {
		s, err := lookIn(dir, name)
		if s != held || time.Since(start) >= patience {
			return s, err
		}
	}
}

// look reports the current state of path.
func look(path string) (state, error) {
	dir, err := Find(filepath.Dir(path))
	if err != nil {
		return absent, err
	}
	defer unix.Close(dir)
	return lookIn(dir, filepath.Base(path))
}

// lookIn reports the current state of a name in dir. It probes with a datagram socket,
// which does not disturb a stream listener.
func lookIn(dir int, name string) (state, error) {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return absent, nil
	case err != nil:
		return absent, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return absent, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return foreign, nil
	}
	switch err := Alive(fd); {
	case err == nil:
		return held, nil
	case errors.Is(err, syscall.EPROTOTYPE), errors.Is(err, syscall.EPERM): // a stream socket; connected to another
		return held, nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return stale, nil
	default:
		return absent, err
	}
}
