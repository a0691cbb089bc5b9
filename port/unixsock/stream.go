package unixsock

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/sockfile"
	"github.com/vswitch/vswitch/port"
)

// streamPort is a port for one connection at a time. The worker receives; whoever
// sends writes at once what the socket takes and leaves the rest in the connection's
// backlog; a goroutine accepts or connects, another brings the backlog out.
type streamPort struct {
	link
	server  *sockfile.Server // nil: a client
	quit    chan struct{}    // closed by Close
	running sync.WaitGroup
	closed  atomic.Bool

	mu   sync.Mutex
	turn sync.Cond // conn is another, or the port was closed
	conn *conn     // nil while nobody is connected

	// Of the one worker that receives.
	from *conn // whom in came from
	in   deframer
}

// conn is one connection. Its descriptor may be used under the port's lock while it
// is the port's, and by who holds it; the rest is guarded by that lock.
//
// Who waits for the peer does so in a thread of its own, in poll(2). With Go's netpoller
// the peer would wake a thread that had to find and wake the worker's: a round trip by
// two ports takes 0.94 to 0.98 of the time so (three runs of 12 and 24 turns). The
// price is a sleeping thread for each connected peer.
type conn struct {
	fd      int
	holders atomic.Int32 // drain, and the worker while it reads: the last closes fd
	backlog backlog
	broken  bool          // it takes nothing any more, and Recv will see its end
	waiting chan struct{} // has a value when there may be something in backlog
	done    chan struct{} // closed when it is no longer the port's

	hdr unix.Msghdr // of iov, which brings the backlog out
	iov [2]unix.Iovec
}

const (
	// acceptPause is how long to wait when no descriptor or no memory was left
	// for a connection.
	acceptPause = 100 * time.Millisecond

	// sendBuffer is what the kernel holds for the peer, in bytes as it accounts
	// them. The system's own limit (net.core.wmem_max) may be lower.
	sendBuffer = 1 << 20
)

var _ interface {
	port.Port
	port.Queue
	port.Linked
} = (*streamPort)(nil)

// errAlone is why there is no peer at first.
var errAlone = errors.New("nobody is connected to its socket")

func newStream(s *sockfile.Server) *streamPort {
	p := &streamPort{link: newLink(errAlone), server: s, quit: make(chan struct{})}
	p.turn.L = &p.mu
	return p
}

func serveStream(s *sockfile.Server) *streamPort {
	p := newStream(s)
	p.running.Go(p.accept)
	return p
}

func dialStream(path string) *streamPort {
	p := newStream(nil)
	p.running.Go(func() { p.dial(path) })
	return p
}

// Queues implements port.Port.
func (p *streamPort) Queues() []port.Queue { return []port.Queue{p} }

// Caps implements port.Port.
func (p *streamPort) Caps() port.Caps { return port.CapsNone }

// Close implements port.Port.
func (p *streamPort) Close() error {
	if p.closed.Swap(true) {
		p.running.Wait()
		return nil
	}
	close(p.quit)
	var err error
	if p.server != nil {
		err = p.server.Close()
	}
	p.mu.Lock()
	c := p.conn
	p.turn.Broadcast()
	p.mu.Unlock()
	if c != nil {
		p.end(c, errClosed)
	}
	p.running.Wait()
	return err
}

// setAccess says who may use the socket from now on.
func (p *streamPort) setAccess(a sockfile.Access) error { return p.server.SetAccess(a) }

// accept takes connections until the port is closed: one at a time, another is
// refused by closing it.
func (p *streamPort) accept() {
	for {
		uc, err := p.server.Accept()
		switch {
		case p.closed.Load():
			if err == nil {
				uc.Close()
			}
			return
		case err != nil:
			p.setReason(err)
			p.pause(acceptPause)
			continue
		}
		if c, err := newConn(uc); err == nil {
			if p.install(c) {
				p.running.Go(func() { p.drain(c) })
			} else {
				c.drop()
			}
		}
	}
}

// dial connects, again and again, until the port is closed.
func (p *streamPort) dial(path string) {
	var b backoff
	for !p.closed.Load() {
		start := time.Now()
		uc, err := sockfile.Dial(context.Background(), path)
		if err != nil {
			p.setLink(false, noPeer(path, err))
		} else if c, err := newConn(uc); err == nil {
			if p.install(c) {
				p.drain(c)
			} else {
				c.drop()
			}
		}
		p.pause(b.next(time.Since(start)))
	}
}

// pause waits, but not beyond Close.
func (p *streamPort) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.quit:
	}
}

// newConn takes the connection out of the netpoller. Its first holder is who asks.
func newConn(uc *net.UnixConn) (*conn, error) {
	defer uc.Close()
	raw, err := uc.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &conn{waiting: make(chan struct{}, 1), done: make(chan struct{})}
	failed := raw.Control(func(fd uintptr) { c.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err := errors.Join(failed, err); err != nil {
		return nil, err
	}
	_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer) // or what it has
	refuseRights(c.fd)
	c.holders.Store(1)
	c.hdr.Iov = &c.iov[0]
	return c, nil
}

// hold keeps the descriptor open until drop; false: it is closed.
func (c *conn) hold() bool {
	for {
		n := c.holders.Load()
		if n == 0 || c.holders.CompareAndSwap(n, n+1) {
			return n != 0
		}
	}
}

func (c *conn) drop() {
	if c.holders.Add(-1) == 0 {
		_ = unix.Close(c.fd)
	}
}

// install makes c the port's connection. It refuses while another peer is there; one
// that has hung up is waited for until the worker has taken its last frames.
func (p *streamPort) install(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.conn != nil && !p.closed.Load() {
		if !p.conn.broken && !ready(p.conn.fd, unix.POLLRDHUP) {
			return false
		}
		p.turn.Wait()
	}
	if p.closed.Load() {
		return false
	}
	p.conn = c
	p.setLink(true, nil)
	p.turn.Broadcast()
	return true
}

// end leaves the port without connection, if c is still the port's, and wakes who waits
// for its peer.
func (p *streamPort) end(c *conn, why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != c {
		return
	}
	p.conn = nil
	c.backlog.reset()
	p.setLink(false, why)
	p.turn.Broadcast()
	_ = unix.Shutdown(c.fd, unix.SHUT_RDWR) // its only error is that it is shut down
	close(c.done)
}

// await returns the port's connection once there is one.
func (p *streamPort) await() (*conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.conn == nil && !p.closed.Load() {
		p.turn.Wait()
	}
	if p.closed.Load() {
		return nil, port.ErrClosed
	}
	return p.conn, nil
}

// Recv implements port.Queue.
func (p *streamPort) Recv(frames []port.Frame) (int, error) {
	for !p.closed.Load() {
		if p.from == nil {
			c, err := p.await()
			if err != nil {
				break
			}
			p.from = c
		}
		n, err := p.take(frames)
		if n > 0 {
			return n, nil
		}
		if bad, ok := err.(lengthError); ok {
			p.leave(err)
			frames[0].SetStripped(nil, 0)
			frames[0].Drop = bad.drop()
			return 1, nil
		}
		if errno := p.read(); errno != 0 {
			p.leave(hangup(errno))
		}
	}
	p.in.reset()
	return 0, port.ErrClosed
}

// take makes frames of what was read.
func (p *streamPort) take(frames []port.Frame) (n int, err error) {
	for n < len(frames) {
		b, err := p.in.next()
		if b == nil {
			return n, err
		}
		frames[n].SetWire(b)
		n++
	}
	return n, nil
}

// read reads what the socket has, once there is something. The end of the stream is
// told as ECONNRESET.
func (p *streamPort) read() unix.Errno {
	c := p.from
	if !c.hold() {
		return unix.ECONNRESET
	}
	defer c.drop()
	for {
		n, err := unix.Read(c.fd, p.in.room())
		switch {
		case n > 0:
			p.in.w += n
			return 0
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			p.in.tidy()
			await(c.fd, unix.POLLIN)
		case err == nil:
			return unix.ECONNRESET
		default:
			return err.(unix.Errno)
		}
	}
}

// leave ends the connection that the worker reads.
func (p *streamPort) leave(why error) {
	p.end(p.from, why)
	p.from = nil
	p.in.reset()
}

// hangup says why a connection ended.
func hangup(errno unix.Errno) error {
	if errno == unix.ECONNRESET || errno == unix.EPIPE {
		return errors.New("the peer hung up")
	}
	return errno
}

// Release implements port.Queue.
func (p *streamPort) Release() { p.in.tidy() }

// drain brings c's backlog out whenever its peer makes room, until c ends. It drops c.
func (p *streamPort) drain(c *conn) {
	defer c.drop()
	for {
		select {
		case <-c.done:
			return
		case <-c.waiting:
			for !p.flush(c) {
				await(c.fd, unix.POLLOUT)
			}
		}
	}
}

// flush sends from c's backlog; false asks to be called again when there is room.
func (p *streamPort) flush(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.conn == c && !c.broken && c.backlog.len() > 0 {
		a, b := c.backlog.at(0, c.backlog.len())
		put(&c.iov[0], a)
		c.hdr.SetIovlen(1)
		if len(b) > 0 {
			put(&c.iov[1], b)
			c.hdr.SetIovlen(2)
		}
		switch n, errno := sendmsg(c.fd, &c.hdr); errno {
		case 0:
			c.backlog.skip(n)
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		case unix.ENOBUFS, unix.ENOMEM:
			return true // nobody tells when there is memory; the next Send asks
		default:
			c.fail()
		}
	}
	return true
}

// fail gives c up: Recv comes to its end and closes it.
func (c *conn) fail() {
	c.broken = true
	_ = unix.Shutdown(c.fd, unix.SHUT_RDWR) // its only error is that it is shut down
}

// Send implements port.Queue.
func (p *streamPort) Send(out []port.Out) {
	r := streamRuns.Get().(*streamRun)
	for len(out) > 0 {
		n := min(len(out), port.BatchSize)
		r.build(out[:n])
		out = out[n:]
		p.mu.Lock()
		c := p.conn
		switch {
		case p.closed.Load():
			r.all(port.DropPortClosed)
		case c == nil || c.broken:
			r.all(port.DropNoCarrier)
		default:
			c.send(r)
		}
		p.mu.Unlock()
		r.clear()
	}
	streamRuns.Put(r)
}

// send writes what the socket takes of r, and keeps what it does not.
func (c *conn) send(r *streamRun) {
	sent := 0
	// What waits goes first: order holds.
	if c.backlog.len() == 0 && r.n > 0 {
		var errno unix.Errno
		switch sent, errno = sendmsg(c.fd, &r.hdr); errno {
		case 0:
		case unix.EAGAIN, unix.EINTR, unix.ENOBUFS, unix.ENOMEM:
			sent = 0
		default:
			c.fail()
			r.all(port.DropNoCarrier)
			return
		}
	}
	start := 0
	for i, o := range r.outs[:r.n] {
		end := r.ends[i]
		if end <= sent || c.backlog.put(o, max(sent-start, 0)) {
			o.Drop = port.DropNone
		} else {
			o.Drop = port.DropQueueFull
		}
		start = end
	}
	if c.backlog.len() > 0 {
		select {
		case c.waiting <- struct{}{}:
		default:
		}
	}
}

// backoff is how long a client waits before it connects again.
type backoff struct{ d time.Duration }

const minBackoff, maxBackoff = 100 * time.Millisecond, 5 * time.Second

// next returns the next wait, after a try or a connection that lasted so long: at
// first the shortest, then twice as long each time until a connection lasts.
func (b *backoff) next(lasted time.Duration) time.Duration {
	if lasted >= maxBackoff {
		b.d = 0
	}
	b.d = min(max(2*b.d, minBackoff), maxBackoff)
	return b.d
}
