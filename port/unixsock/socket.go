package unixsock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// The rights to a socket and to a directory that is made for it: its owner's and
// group's. To connect one needs the right to write to the socket (unix(7)).
const (
	socketMode = 0o660
	dirMode    = 0o770
)

// listen makes a stream socket at path.
func listen(path string) (*net.UnixListener, error) {
	var l *net.UnixListener
	err := place(path, func(c *net.ListenConfig) error {
		made, err := c.Listen(context.Background(), "unix", path)
		if err == nil {
			l = made.(*net.UnixListener)
			l.SetUnlinkOnClose(false) // that is Delete's, which knows whose it is
		}
		return err
	})
	return l, err
}

// listenPacket makes a datagram socket at path.
func listenPacket(path string) (*net.UnixConn, error) {
	var conn *net.UnixConn
	err := place(path, func(c *net.ListenConfig) error {
		made, err := c.ListenPacket(context.Background(), "unixgram", path)
		if err == nil {
			conn = made.(*net.UnixConn)
		}
		return err
	})
	return conn, err
}

// place has bind put a socket at path, in a directory that is made where it is absent,
// in place of a socket that nobody holds any more. An error leaves no directory.
func place(path string, bind func(*net.ListenConfig) error) (err error) {
	made, err := makeDirs(filepath.Dir(path))
	defer func() {
		if err != nil {
			for _, dir := range made {
				_ = os.Remove(dir)
			}
		}
	}()
	if err != nil {
		return err
	}
	state, err := look(path)
	switch {
	case err != nil:
		return explain(path, err)
	case state == foreign:
		return fmt.Errorf("%s is there and is no socket; name another path", path)
	case state == held:
		return fmt.Errorf("%s is held by another program; end that one, or name another path", path)
	case state == stale:
		if err := os.Remove(path); err != nil {
			return explain(path, err)
		}
	}
	// The mode of a socket before bind, less the umask, is that of its file, so
	// at no moment may others use it.
	c := &net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		return errors.Join(raw.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), socketMode) }), err)
	}}
	if err := bind(c); err != nil {
		return explain(path, err)
	}
	return explain(path, os.Chmod(path, socketMode)) // whatever the umask
}

// makeDirs makes dir and what leads to it, and returns what was absent, dir first.
func makeDirs(dir string) (made []string, err error) {
	switch err := os.Mkdir(dir, dirMode); {
	case err == nil:
		return []string{dir}, explain(dir, os.Chmod(dir, dirMode)) // whatever the umask
	case errors.Is(err, fs.ErrExist):
		if i, err := os.Stat(dir); err == nil && !i.IsDir() {
			return nil, fmt.Errorf("%s is no directory; name another path", dir)
		}
		return nil, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, explain(dir, err)
	}
	above, err := makeDirs(filepath.Dir(dir))
	if err != nil {
		return above, err
	}
	made, err = makeDirs(dir)
	return append(made, above...), err
}

// remove deletes the socket at path, unless it has another holder by now.
func remove(path string) error {
	state, err := look(path)
	if err == nil && state == stale {
		err = os.Remove(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return explain(path, err)
}

// What can be at a path.
type state uint8

const (
	absent  state = iota
	foreign       // no socket
	stale         // a socket that nobody holds
	held
)

// look tells what is at path. It asks by a datagram socket, which a listener for
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
	case errors.Is(err, unix.EPROTOTYPE), errors.Is(err, unix.EPERM): // of streams; connected to another
		return held, nil
	case errors.Is(err, unix.ECONNREFUSED):
		return stale, nil
	case errors.Is(err, fs.ErrNotExist):
		return absent, nil
	}
	return absent, err
}

// checkPeer tells what is wrong with a path to connect to. Nothing there is right: the
// peer may come.
func checkPeer(path string) error {
	i, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && i.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is no socket; name the one that the peer listens at", path)
	}
	return explain(path, err)
}

// noPeer says why there is no peer at path, and what to do about it.
func noPeer(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("nobody listens at %s; start the peer", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: permission denied; give vswitch the right to write to that socket", path)
	case errors.Is(err, unix.EPROTOTYPE):
		return fmt.Errorf("%s is a socket of the other type, of stream and dgram; use --kind for that", path)
	}
	return explain(path, err)
}

// explain says what to do about an error on the file at path. nil stays nil.
func explain(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: permission denied; name a path in a directory of your own, or run vswitch as a user who may write there", path)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%s is on a file system that is mounted read-only; name another path", path)
	}
	// The text of net and os names the path and the call again.
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return fmt.Errorf("socket %s: %w", path, err)
}
