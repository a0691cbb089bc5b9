package unixsock

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/files/sockfile"
	"github.com/vswitch/vswitch/port"
)

// streamPort is a port for one connection at a time. The worker receives. A sending
// goroutine writes what the socket takes at once and leaves the rest in the
// connection's backlog. One goroutine accepts or connects, another sends the backlog.
type streamPort struct {
	link
	server  *sockfile.Server // nil: a client
	path    string           // to connect to, of a client
	quit    chan struct{}    // closed by Close
	running sync.WaitGroup
	closed  atomic.Bool
	paused  atomic.Bool

	mu    sync.Mutex
	given bool      // another process may have the connection, so nothing is sent or accepted
	turn  sync.Cond // signals that conn changed or the port was closed
	conn  *conn     // nil: not connected

	// Of the one worker that receives.
	from *conn // whom in came from
	in   deframer
}

// conn is one connection. The port uses its descriptor under the port's lock while the
// conn is the port's; so does every holder. The lock guards the rest.
//
// Each goroutine that waits for the peer does so in a thread of its own, in poll(2).
// With Go's netpoller, the peer would wake a thread that had to find and wake the
// worker's: this way a round trip through two ports takes 0.94 to 0.98 of the time
// (three runs of 12 and 24 turns). The price is a sleeping thread for each connected
// peer.
type conn struct {
	fd      int
	wake    int          // an eventfd that ends the worker's wait
	holders atomic.Int32 // drain, and the worker while it reads; the last one closes both
	backlog backlog
	broken  bool          // takes nothing more; Recv will see the end
	waiting chan struct{} // has a value when backlog may hold something
	done    chan struct{} // closed when the conn is no longer the port's

	hdr unix.Msghdr // of iov, for sending the backlog
	iov [2]unix.Iovec
}

const (
	// acceptPause is the wait after a connection failed for lack of descriptors or
	// memory.
	acceptPause = 100 * time.Millisecond

	// sendBuffer is what the kernel holds for the peer, in bytes as it accounts them.
	// The system's own limit (net.core.wmem_max) may be lower.
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
	p.path = path
	p.running.Go(p.dial)
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

// Pause implements port.Pausable. What the peer sends meanwhile waits in the socket.
func (p *streamPort) Pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused.Store(true)
	p.turn.Broadcast()
	if p.conn != nil {
		_, _ = unix.Write(p.conn.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// Resume implements port.Pausable.
func (p *streamPort) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused.Store(false)
	if p.conn != nil {
		_, _ = unix.Read(p.conn.wake, make([]byte, 8))
	}
	if !p.given {
		return
	}
	p.given = false
	if p.server != nil {
		p.server.Resume()
	}
	if p.conn != nil {
		signal(p.conn.waiting)
	}
}

// setAccess changes who may use the socket.
func (p *streamPort) setAccess(a sockfile.Access) error { return p.server.SetAccess(a) }

// accept takes connections until the port is closed, one at a time: it closes any
// further one.
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
			p.rest(acceptPause)
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

// dial connects repeatedly until the port is closed.
func (p *streamPort) dial() {
	var b backoff
	for !p.closed.Load() {
		start := time.Now()
		if p.isGiven() {
			p.rest(b.next(0))
			continue
		}
		uc, err := sockfile.Dial(context.Background(), p.path)
		if err != nil {
			p.setLink(false, noPeer(p.path, err))
		} else if c, err := newConn(uc); err == nil {
			if p.install(c) {
				p.drain(c)
			} else {
				c.drop()
			}
		}
		p.rest(b.next(time.Since(start)))
	}
}

// rest waits for d, or until Close.
func (p *streamPort) rest(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.quit:
	}
}

// newConn takes the connection out of the netpoller. The caller is its first holder.
func newConn(uc *net.UnixConn) (*conn, error) {
	defer uc.Close()
	raw, err := uc.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	failed := raw.Control(func(from uintptr) { fd, err = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) })
	if err := errors.Join(failed, err); err != nil {
		return nil, err
	}
	return useConn(fd)
}

// useConn makes a conn of a descriptor, which it owns. The caller is its first holder.
func useConn(fd int) (_ *conn, err error) {
	c := &conn{fd: fd, waiting: make(chan struct{}, 1), done: make(chan struct{})}
	if c.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		_ = unix.Close(c.fd)
		return nil, err
	}
	_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer) // or what the kernel allows
	refuseRights(c.fd)
	c.holders.Store(1)
	c.hdr.Iov = &c.iov[0]
	return c, nil
}

// hold keeps the descriptor open until drop; it returns false if it is closed.
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
		_ = unix.Close(c.wake)
	}
}

// install makes c the port's connection. It refuses while another peer is there. If
// that peer has hung up, install waits until the worker has taken its last frames.
func (p *streamPort) install(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.conn != nil && !p.closed.Load() {
		if !p.conn.broken && !ready(p.conn.fd, unix.POLLRDHUP) {
			return false
		}
		p.turn.Wait()
	}
	if p.closed.Load() || p.given {
		return false
	}
	p.conn = c
	p.setLink(true, nil)
	p.turn.Broadcast()
	return true
}

// end disconnects the port if c is still its connection, and wakes those who wait for
// its peer.
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
	_ = unix.Shutdown(c.fd, unix.SHUT_RDWR) // fails only if already shut down
	close(c.done)
}

// await returns the port's connection once there is one; nil if the port is paused or closed
// before.
func (p *streamPort) await() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.conn == nil && !p.closed.Load() && !p.paused.Load() {
		p.turn.Wait()
	}
	if p.closed.Load() {
		return nil
	}
	return p.conn
}

// Recv implements port.Queue.
func (p *streamPort) Recv(frames []port.Frame) (int, error) {
	for !p.closed.Load() {
		if p.from == nil {
			if p.from = p.await(); p.from == nil {
				if p.paused.Load() {
					return 0, port.ErrPaused
				}
				continue
			}
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
		if p.paused.Load() {
			return 0, port.ErrPaused
		}
		if errno := p.read(); errno != 0 {
			p.leave(hangup(errno))
		}
	}
	p.in.reset()
	return 0, port.ErrClosed
}

// take makes frames of the bytes read.
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

// read waits for the socket to hold something and reads it, or for a pause. It returns
// ECONNRESET at the end of the stream.
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
			if c.await(); p.paused.Load() {
				return 0
			}
		case err == nil:
			return unix.ECONNRESET
		default:
			return err.(unix.Errno)
		}
	}
}

// await waits until the peer has sent something, or for a pause.
func (c *conn) await() {
	p := [2]unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}, {Fd: int32(c.wake), Events: unix.POLLIN}}
	_, _ = unix.Poll(p[:], -1) // EINTR: the caller looks again
}

// leave ends the connection that the worker reads.
func (p *streamPort) leave(why error) {
	p.end(p.from, why)
	p.from = nil
	p.in.reset()
}

// hangup returns why a connection ended.
func hangup(errno unix.Errno) error {
	if errno == unix.ECONNRESET || errno == unix.EPIPE {
		return errors.New("the peer hung up")
	}
	return errno
}

// Release implements port.Queue.
func (p *streamPort) Release() { p.in.tidy() }

// drain sends c's backlog whenever its peer makes room, until c ends. It drops c.
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
	for p.conn == c && !c.broken && !p.given && c.backlog.len() > 0 {
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
			return true // nothing reports free memory; the next Send retries
		default:
			c.fail()
		}
	}
	return true
}

// fail gives c up: Recv reaches its end and closes it.
func (c *conn) fail() {
	c.broken = true
	_ = unix.Shutdown(c.fd, unix.SHUT_RDWR) // fails only if already shut down
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

// send writes what the socket takes of r, and queues the rest.
func (c *conn) send(r *streamRun) {
	sent := 0
	// The backlog goes first, to keep the order.
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

// next returns the next wait, after an attempt or a connection that lasted this long.
// It starts with the shortest and doubles until a connection lasts.
func (b *backoff) next(lasted time.Duration) time.Duration {
	if lasted >= maxBackoff {
		b.d = 0
	}
	b.d = min(max(2*b.d, minBackoff), maxBackoff)
	return b.d
}
