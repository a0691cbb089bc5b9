package vhostuser

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// peers is where connections come from.
type peers interface {
	// next waits for a connection; an error says that close was called. say is
	// told why it takes long.
	next(say func(error)) (*net.UnixConn, error)
	close()
}

// server takes connections on a socket that it made.
type server struct {
	*net.UnixListener
	path string
}

// listen makes the socket, in place of one that nobody listens on any more.
func listen(path string) (*server, error) {
	if err := makeDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		// The socket in the file system gets the mode of the one it is made of:
		// there is no moment at which others could connect.
		return errors.Join(raw.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), socketMode) }), err)
	}}
	l, err := c.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	s := &server{l.(*net.UnixListener), path}
	s.SetUnlinkOnClose(false) // Kind.Delete does
	if err := os.Chmod(path, socketMode); err != nil {
		s.close()
		return nil, errors.Join(err, os.Remove(path))
	}
	return s, nil
}

// makeDir makes a directory for sockets where it is absent.
func makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o770); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make %s for the socket: %w; make the directory, or name another with --path", dir, err)
	}
	return nil
}

// socketMode lets the owner and the group connect.
const socketMode = 0o660

// removeStale removes a socket that nobody listens on.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and is no socket; remove it, or name another with --path", path)
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
		return fmt.Errorf("another process listens on %s; stop it, or name another path with --path", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (s *server) next(func(error)) (*net.UnixConn, error) {
	for {
		conn, err := s.AcceptUnix()
		if err == nil || errors.Is(err, net.ErrClosed) {
			return conn, err
		}
		// A peer that gave up while it waited, or no descriptor to be had now.
		time.Sleep(minBackoff)
	}
}

func (s *server) close() { s.Close() }

// client makes connections to a socket of the front end's.
type client struct {
	path string
	ctx  context.Context
	stop context.CancelFunc

	wait  time.Duration // before the next try
	since time.Time     // of the last connection
}

// A client tries again after minBackoff, then after twice as long each time, up to
// maxBackoff; after a connection that lasted, at once.
const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 5 * time.Second
)

func connect(path string) *client {
	c := &client{path: path}
	c.ctx, c.stop = context.WithCancel(context.Background())
	return c
}

func (c *client) next(say func(error)) (*net.UnixConn, error) {
	if time.Since(c.since) > maxBackoff {
		c.wait = 0
	}
	for {
		select {
		case <-c.ctx.Done():
			return nil, net.ErrClosed
		case <-time.After(c.wait):
		}
		c.wait = min(max(2*c.wait, minBackoff), maxBackoff)
		conn, err := new(net.Dialer).DialContext(c.ctx, "unix", c.path)
		if err == nil {
			c.since = time.Now()
			return conn.(*net.UnixConn), nil
		}
		if c.ctx.Err() == nil {
			var why syscall.Errno
			if errors.As(err, &why) {
				err = why // without the address, which is named already
			}
			say(fmt.Errorf("connect to %s: %w; start the front end that listens there", c.path, err))
		}
	}
}

func (c *client) close() { c.stop() }
