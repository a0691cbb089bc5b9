package vhostuser

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vswitch/vswitch/internal/files/sockfile"
)

// peers is a source of connections.
type peers interface {
	// next waits for a connection; an error means that close was called. It passes to
	// say why it takes long.
	next(say func(error)) (*net.UnixConn, error)

	// give makes next take no connection until resume, and returns a descriptor by which
	// another process takes them; -1: it needs none.
	give() (fd int, err error)
	resume()

	// dup is give, but next goes on.
	dup() (fd int, err error)
	close()
}

// server accepts connections on a socket that it made.
type server struct{ *sockfile.Server }

func (s *server) next(say func(error)) (*net.UnixConn, error) {
	for {
		conn, err := s.Accept()
		if err == nil || errors.Is(err, net.ErrClosed) {
			return conn, err
		}
		// The peer gave up while it waited, no descriptor is free now, or the socket is
		// gone.
		say(err)
		time.Sleep(minBackoff)
	}
}

func (s *server) give() (int, error) { return s.Give() }
func (s *server) dup() (int, error)  { return s.Dup() }
func (s *server) resume()            { s.Resume() }
func (s *server) close()             { s.Close() }

// client connects to a socket of the front end.
type client struct {
	path string
	ctx  context.Context
	stop context.CancelFunc

	wait  time.Duration // before the next try
	since time.Time     // of the last connection

	paused atomic.Bool
}

// A client retries after minBackoff, doubling the wait up to maxBackoff; after a
// connection that lasted, it retries immediately.
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
		if c.paused.Load() {
			c.wait = minBackoff
			continue
		}
		c.wait = min(max(2*c.wait, minBackoff), maxBackoff)
		conn, err := sockfile.Dial(c.ctx, c.path)
		if err == nil {
			c.since = time.Now()
			return conn, nil
		}
		if c.ctx.Err() == nil {
			var why syscall.Errno
			if errors.As(err, &why) {
				err = why // without the address, which the message names already
			}
			say(fmt.Errorf("connect to %s: %w; start the front end that listens there", c.path, err))
		}
	}
}

func (c *client) give() (int, error) { c.paused.Store(true); return -1, nil }
func (c *client) dup() (int, error)  { return -1, nil }
func (c *client) resume()            { c.paused.Store(false) }
func (c *client) close()             { c.stop() }
