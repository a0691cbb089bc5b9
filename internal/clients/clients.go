// Package clients bounds the connections of an HTTP server. When all places are taken, a new client
// gets the place of the one that has been silent longest: one that has not sent a whole request, or
// none since its last answer. So clients that say nothing keep out nobody. A client that waits for
// its answer, or follows something, keeps its place, but one that does not read its answer loses it.
package clients

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// patience is how long a client may be silent before it loses its place. A client that connects
// sends its request at once. What it sent and this process has not read yet counts.
const patience = 10 * time.Millisecond

// stuck is how long a client may read nothing of its answer. A handler that sets the write deadline
// itself, even to none, decides for its answer.
const stuck = 5 * time.Second

// logEvery is the least time between lines in the log.
const logEvery = time.Minute

// Bound returns the listener that a server is to serve instead of ln. The server has at most that
// many connections by it at a time.
func Bound(srv *http.Server, ln net.Listener, most int, log *slog.Logger) net.Listener {
	p := &places{
		Listener: ln, most: most, log: log,
		taken: make(map[*client]struct{}), changed: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	p.end = sync.OnceFunc(func() { close(p.closed) })
	srv.Handler = mark(srv.Handler)
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, key{}, c) }
	return p
}

// key is the context key of a request's client.
type key struct{}

// Conn returns the connection of a request as the listener accepted it; nil: another server has it.
func Conn(r *http.Request) net.Conn {
	conn, _ := r.Context().Value(key{}).(net.Conn)
	if c, ok := conn.(*client); ok {
		return c.Conn
	}
	return conn
}

// mark notes when requests are being answered.
func mark(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := r.Context().Value(key{}).(*client)
		if !ok {
			h.ServeHTTP(w, r)
			return
		}
		if r.Body == nil || r.Body == http.NoBody {
			c.set(true)
		} else {
			r.Body = body{r.Body, c}
		}
		defer func() {
			c.timed.Store(false)
			c.set(false)
		}()
		h.ServeHTTP(w, r)
	})
}

// body is a request's body. The client waits for an answer once it has sent all of it.
type body struct {
	io.ReadCloser
	from *client
}

func (b body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.from.set(true)
	}
	return n, err
}

// places is a listener whose connections have a bounded number of places.
type places struct {
	net.Listener
	most int
	log  *slog.Logger

	mu      sync.Mutex
	taken   map[*client]struct{}
	changed chan struct{} // has a value after a client left or began to be silent
	logged  time.Time
	closed  chan struct{}
	end     func() // closes closed
}

// Accept implements net.Listener. It returns a connection once that has a place.
func (p *places) Accept() (net.Conn, error) {
	conn, err := p.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &client{Conn: conn, places: p, heard: time.Now()}
	for {
		wait, ok := p.admit(c)
		if ok {
			return c, nil
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-p.changed:
			t.Stop()
		case <-p.closed:
			t.Stop()
			conn.Close()
			return nil, net.ErrClosed
		}
	}
}

// Close implements net.Listener.
func (p *places) Close() error {
	p.end()
	return p.Listener.Close()
}

// admit gives a client a place. If there is none, it returns after what time to try again.
func (p *places) admit(c *client) (wait time.Duration, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.taken) >= p.most {
		oldest := p.silent()
		if oldest == nil {
			return time.Hour, false
		}
		now := time.Now()
		if unread(oldest.Conn) {
			oldest.heard = now
			return patience, false
		} else if wait = patience - now.Sub(oldest.heard); wait > 0 {
			return wait, false
		}
		delete(p.taken, oldest)
		oldest.Conn.Close()
		if now.Sub(p.logged) >= logEvery {
			p.logged = now
			p.log.Warn("all places for clients are taken: one that says nothing gives its place to another", "places", p.most)
		}
	}
	p.taken[c] = struct{}{}
	return 0, true
}

// silent returns the client that has been silent longest; nil: none is.
func (p *places) silent() (oldest *client) {
	for c := range p.taken {
		if !c.answered && (oldest == nil || c.heard.Before(oldest.heard)) {
			oldest = c
		}
	}
	return oldest
}

// unread reports whether a connection has bytes that nobody has read.
func unread(c net.Conn) (is bool) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		is = err == nil && n > 0
	})
	return is
}

// poke has Accept look again.
func (p *places) poke() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// client is a connection with a place, which ends with it.
type client struct {
	net.Conn
	places *places
	timed  atomic.Bool // the handler has set the write deadline

	// places.mu guards these.
	heard    time.Time // when it last sent something or got an answer
	answered bool      // it waits for an answer
}

// set notes whether the client's request is being answered.
func (c *client) set(answered bool) {
	c.places.mu.Lock()
	defer c.places.mu.Unlock()
	c.answered, c.heard = answered, time.Now()
	c.places.poke()
}

func (c *client) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.places.mu.Lock()
		c.heard = time.Now()
		c.places.mu.Unlock()
	}
	return n, err
}

// part is how much is written at a time, so that a large answer is late only if nobody reads it.
const part = 64 << 10

func (c *client) Write(b []byte) (n int, err error) {
	for more := true; more && err == nil; more = len(b) > 0 {
		if !c.timed.Load() {
			_ = c.Conn.SetWriteDeadline(time.Now().Add(stuck))
		}
		var m int
		m, err = c.Conn.Write(b[:min(len(b), part)])
		b, n = b[m:], n+m
	}
	return n, err
}

func (c *client) SetWriteDeadline(t time.Time) error {
	c.timed.Store(true)
	return c.Conn.SetWriteDeadline(t)
}

func (c *client) Close() error {
	c.places.mu.Lock()
	delete(c.places.taken, c)
	c.places.poke()
	c.places.mu.Unlock()
	return c.Conn.Close()
}
