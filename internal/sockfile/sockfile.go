// Package sockfile puts unix sockets at paths of the file system, for those who may use
// them, in place of sockets that nobody holds any more, and takes them away again. The
// directories on the way may be other users': no link of theirs is followed, and what is
// done to a socket is done to that very one, whatever the path leads to by then.
// Its functions may be called from anywhere; what they find held they look at again for
// up to half a second. Errors are one line and say what to do.
package sockfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// MaxPath is the longest path of a socket in bytes: sun_path, less its NUL (unix(7)).
const MaxPath = 107

// Listen makes a stream socket at path, in a directory that is made where it is absent,
// for its owner and group. To close it leaves the file, which is Remove's. An error leaves
// nothing.
func Listen(path string) (*net.UnixListener, error) {
	l, f, err := ListenAs(path, Default)
	if err != nil {
		return nil, err
	}
	f.Close()
	return l, nil
}

// ListenAs is Listen for those whom a names. It also returns what was made at path.
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

// Remove deletes the socket at path, once its holder has closed it. Nothing there is
// right. What is no socket stays, and so does one that another holds by now.
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

// MakeDir makes a directory for sockets where it is absent, and what leads to it. An
// error leaves nothing.
func MakeDir(dir string) error {
	fd, _, err := makeDirs(dir)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// Explain says what to do about an error on the socket or directory at path. nil stays
// nil.
func Explain(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: permission denied; name a path in a directory of your own, or run vswitch as a user who may write there", path)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%s is on a file system that is mounted read-only; name another path", path)
	}
	// The text of net and os names the path and the call again.
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

// place has bind put a socket at path, and makes the directory.
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

// replace has bind put a socket at path, which is in dir, where there is none or a stale
// one.
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
	// The mode of a socket before bind, less the umask, is that of its file: nobody
	// else may use it until it has the owner, group and mode that it is to have.
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

// What can be at a path.
type state uint8

const (
	absent  state = iota
	foreign       // no socket
	stale         // a socket that nobody holds
	held
)

// A socket can look held a little longer than it is: a child of its holder has a copy
// until its exec is done, and a process that was killed until the kernel has torn it
// down. That takes milliseconds, and more on a busy machine.
const (
	patience = 500 * time.Millisecond
	pause    = 5 * time.Millisecond
)

// await reports what is in dir under a name, held only if it stays so.
func await(dir int, name string) (state, error) {
	for start := time.Now(); ; time.Sleep(pause) {
		s, err := lookIn(dir, name)
		if s != held || time.Since(start) >= patience {
			return s, err
		}
	}
}

// look reports what is at path now.
func look(path string) (state, error) {
	dir, err := Find(filepath.Dir(path))
	if err != nil {
		return absent, err
	}
	defer unix.Close(dir)
	return lookIn(dir, filepath.Base(path))
}

// lookIn reports what is in dir under a name now. It asks by a datagram socket, which a
// listener for streams is not disturbed by.
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
	case errors.Is(err, syscall.EPROTOTYPE), errors.Is(err, syscall.EPERM): // of streams; connected to another
		return held, nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return stale, nil
	default:
		return absent, err
	}
}
