// Package sockfile puts unix sockets at paths of the file system, for their owner and
// group, in place of sockets that nobody holds any more, and takes them away again.
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
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// MaxPath is the longest path of a socket in bytes: sun_path, less its NUL (unix(7)).
const MaxPath = 107

// The rights to a socket and to a directory that is made for it: its owner's and
// group's. To connect one needs the right to write to the socket (unix(7)).
const (
	socketMode = 0o660
	dirMode    = 0o770
)

// Listen makes a stream socket at path, in a directory that is made where it is absent.
// To close it leaves the file, which is Remove's. An error leaves nothing.
func Listen(path string) (*net.UnixListener, error) {
	s, err := place(path, func(c *net.ListenConfig) (io.Closer, error) {
		return c.Listen(context.Background(), "unix", path)
	})
	if err != nil {
		return nil, err
	}
	l := s.(*net.UnixListener)
	l.SetUnlinkOnClose(false)
	return l, nil
}

// ListenPacket is Listen for a datagram socket.
func ListenPacket(path string) (*net.UnixConn, error) {
	s, err := place(path, func(c *net.ListenConfig) (io.Closer, error) {
		return c.ListenPacket(context.Background(), "unixgram", path)
	})
	if err != nil {
		return nil, err
	}
	return s.(*net.UnixConn), nil
}

// Remove deletes the socket at path, once its holder has closed it. Nothing there is
// right. What is no socket stays, and so does one that another holds by now.
func Remove(path string) error {
	state, err := await(path)
	if err == nil && state == stale {
		err = os.Remove(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return Explain(path, err)
}

// MakeDir makes a directory for sockets where it is absent, and what leads to it. An
// error leaves nothing.
func MakeDir(dir string) error {
	_, err := makeDirs(dir)
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

// place has bind put a socket at path, and makes the directory.
func place(path string, bind func(*net.ListenConfig) (io.Closer, error)) (io.Closer, error) {
	made, err := makeDirs(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	s, err := replace(path, bind)
	if err != nil {
		removeAll(made)
	}
	return s, err
}

// replace has bind put a socket at path, where there is none or a stale one.
func replace(path string, bind func(*net.ListenConfig) (io.Closer, error)) (io.Closer, error) {
	state, err := await(path)
	switch {
	case err != nil:
		return nil, Explain(path, err)
	case state == foreign:
		return nil, fmt.Errorf("%s is there and is no socket; name another path", path)
	case state == held:
		return nil, fmt.Errorf("%s is held by another program; end that one, or name another path", path)
	case state == stale:
		if err := os.Remove(path); err != nil {
			return nil, Explain(path, err)
		}
	}
	// The mode of a socket before bind, less the umask, is that of its file, so
	// at no moment may others use it.
	s, err := bind(&net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		return errors.Join(raw.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), socketMode) }), err)
	}})
	if err != nil {
		return nil, Explain(path, err)
	}
	if err := os.Chmod(path, socketMode); err != nil { // whatever the umask
		_ = os.Remove(path)
		s.Close()
		return nil, Explain(path, err)
	}
	return s, nil
}

// makeDirs makes dir and what leads to it, and returns what was absent, dir first.
func makeDirs(dir string) (made []string, err error) {
	switch err := os.Mkdir(dir, dirMode); {
	case err == nil:
		if err := os.Chmod(dir, dirMode); err != nil { // whatever the umask
			_ = os.Remove(dir)
			return nil, Explain(dir, err)
		}
		return []string{dir}, nil
	case errors.Is(err, fs.ErrExist):
		if i, err := os.Stat(dir); err == nil && !i.IsDir() {
			return nil, fmt.Errorf("%s is no directory; name another path", dir)
		}
		return nil, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, Explain(dir, err)
	}
	above, err := makeDirs(filepath.Dir(dir))
	if err != nil {
		return nil, err
	}
	made, err = makeDirs(dir)
	if err != nil {
		removeAll(above)
		return nil, err
	}
	return append(made, above...), nil
}

// removeAll removes directories that were made, as far as nobody uses them by now.
func removeAll(made []string) {
	for _, dir := range made {
		_ = os.Remove(dir)
	}
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

// await tells what is at path, held only if it stays so.
func await(path string) (state, error) {
	for start := time.Now(); ; time.Sleep(pause) {
		s, err := look(path)
		if s != held || time.Since(start) >= patience {
			return s, err
		}
	}
}

// look tells what is at path now. It asks by a datagram socket, which a listener for
// streams is not disturbed by.
func look(path string) (state, error) {
	switch i, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return absent, nil
	case err != nil:
		return absent, err
	case i.Mode().Type() != fs.ModeSocket:
		return foreign, nil
	}
	c, err := net.Dial("unixgram", path)
	switch {
	case err == nil:
		return held, c.Close()
	case errors.Is(err, syscall.EPROTOTYPE), errors.Is(err, syscall.EPERM): // of streams; connected to another
		return held, nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return stale, nil
	case errors.Is(err, fs.ErrNotExist):
		return absent, nil
	}
	return absent, err
}
