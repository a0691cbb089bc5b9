package unixsock

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/mmsg"
	"github.com/vswitch/vswitch/internal/rxbuf"
	"github.com/vswitch/vswitch/port"
)

// dgramPort is a port on a datagram socket. Its peer is whoever sent last, at first
// who is named. The socket is never connected to it: then a peer that starts anew could not
// send. Whoever sends hands the socket what it takes and leaves the rest in a backlog,
// which a goroutine brings out.
type dgramPort struct {
	link
	conn    *net.UnixConn
	raw     syscall.RawConn // conn's
	fd      int             // conn's; used under mu while the port is not closed
	quit    chan struct{}   // closed by Close
	waiting chan struct{}   // has a value when there may be something in backlog
	running sync.WaitGroup
	closed  atomic.Bool

	mu      sync.Mutex
	peer    address
	gone    unix.Errno // what the kernel last said of a peer that is not there
	backlog backlog
	room    *room // nil while drain does not wait for the peer's
	out     drainRun

	// Of the one worker that receives.
	from   address // whom the last datagram came from
	frames []port.Frame
	n      int
	errno  unix.Errno
	batch  *dgramBatch
	read   func(fd uintptr) bool // readBatch, made once
}

// address is a socket's name as the kernel gives it.
type address struct {
	raw unix.RawSockaddrUnix
	len uint32
}

// unnamed is the length of an address without a path.
const unnamed = uint32(unsafe.Offsetof(unix.RawSockaddrUnix{}.Path))

// is tells whether a is the address of that length in raw.
func (a *address) is(raw *unix.RawSockaddrUnix, length uint32) bool {
	return a.len == length && a.raw == *raw
}

// name is the address as package net writes it.
func (a *address) name() string {
	var b strings.Builder
	for i, c := range a.raw.Path[:a.len-unnamed] {
		switch {
		case c != 0:
			b.WriteByte(byte(c))
		case i == 0:
			b.WriteByte('@') // not in the file system: unix(7), abstract
		default:
			return b.String()
		}
	}
	return b.String()
}

// addressOf is the address of the socket at path.
func addressOf(path string) (a address) {
	a.raw.Family = unix.AF_UNIX
	for i := range len(path) {
		a.raw.Path[i] = int8(path[i])
	}
	a.len = unnamed + uint32(len(path)) + 1
	return a
}

// hello is what vfkit and libkrun send before their first frame, so that the other
// side learns their address.
const hello = "VFKT"

// dgramBuffer is what the kernel may hold for the peer, in bytes as it accounts them.
// The system's own limit (net.core.wmem_max) may be lower. The buffer for receiving
// does not matter: what is on its way is the sender's (unix(7)).
const dgramBuffer = 4 << 20

var _ interface {
	port.Port
	port.Queue
	port.Linked
} = (*dgramPort)(nil)

// errSilent is why there is no peer at first: sockets of this kind are not connected.
var errSilent = errors.New("no frame has come from its machine yet")

// newDgram makes a port of conn. peer names the socket to send to until something
// comes from another.
func newDgram(conn *net.UnixConn, peer string) (*dgramPort, error) {
	p := &dgramPort{link: newLink(errSilent), conn: conn, quit: make(chan struct{}), waiting: make(chan struct{}, 1)}
	var err error
	if p.raw, err = conn.SyscallConn(); err != nil {
		return nil, err
	}
	err = p.raw.Control(func(fd uintptr) {
		p.fd = int(fd)
		_ = unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, dgramBuffer) // or what it has
	})
	if err != nil {
		return nil, err
	}
	p.read = p.readBatch
	p.out.init()
	p.peer = addressOf(peer)
	p.running.Go(p.drain)
	return p, nil
}

// Queues implements port.Port.
func (p *dgramPort) Queues() []port.Queue { return []port.Queue{p} }

// Caps implements port.Port.
func (p *dgramPort) Caps() port.Caps { return port.CapsNone }

// Close implements port.Port.
func (p *dgramPort) Close() error {
	if p.closed.Swap(true) {
		p.running.Wait()
		return nil
	}
	close(p.quit)
	p.mu.Lock()
	p.backlog.reset()
	p.room.interrupt()
	p.setLink(false, errClosed)
	p.mu.Unlock()
	err := p.conn.Close() // not under the lock: it waits for drain, which takes it
	p.running.Wait()
	return err
}

// dgramBatch is the memory of one recvmmsg. Headers and vectors point to their slots
// for good, so that a call has nothing to set up.
type dgramBatch struct {
	headers [port.BatchSize]mmsg.Header
	vectors [port.BatchSize]unix.Iovec
	names   [port.BatchSize]unix.RawSockaddrUnix
	slab    []byte
}

var dgramBatches = rxbuf.Pool[dgramBatch]{New: func() *dgramBatch {
	b := &dgramBatch{slab: rxbuf.Slab()}
	for i := range b.headers {
		put(&b.vectors[i], b.slab[i*rxbuf.Stride:][:port.MaxFrame])
		h := &b.headers[i].Msghdr
		h.Iov = &b.vectors[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
	}
	return b
}}

// Recv implements port.Queue.
func (p *dgramPort) Recv(frames []port.Frame) (int, error) {
	p.frames = frames[:min(len(frames), port.BatchSize)]
	for !p.closed.Load() {
		p.n, p.errno = 0, 0
		if p.raw.Read(p.read) != nil {
			break
		}
		if p.n > 0 {
			return p.n, nil
		}
		if p.errno != 0 {
			return 0, fmt.Errorf("receive: %w", p.errno)
		}
	}
	return 0, port.ErrClosed
}

// readBatch takes what the socket has; false asks to be called again when there is
// something. It rents memory for the time of the call only, unless frames came.
func (p *dgramPort) readBatch(fd uintptr) bool {
	b := dgramBatches.Rent()
	for i := range p.frames {
		h := &b.headers[i].Msghdr
		h.Namelen = uint32(unsafe.Sizeof(b.names[i]))
		h.Flags = 0
	}
	n, errno := mmsg.Recv(int(fd), b.headers[:len(p.frames)])
	if errno != 0 {
		dgramBatches.Return(b)
		if errno == unix.EAGAIN {
			return false
		}
		if errno != unix.EINTR {
			p.errno = errno
		}
		return true
	}
	for i := range n {
		h := &b.headers[i]
		p.learn(&b.names[i], h.Namelen)
		wire := b.slab[i*rxbuf.Stride:][:h.N]
		if decode(&p.frames[p.n], wire, h.Flags&unix.MSG_TRUNC != 0) {
			p.n++
		}
	}
	if p.n == 0 {
		dgramBatches.Return(b)
		return true
	}
	p.batch = b
	return true
}

// decode makes f the frame of a datagram, and tells whether it is meant for one.
func decode(f *port.Frame, wire []byte, cut bool) bool {
	if string(wire) == hello {
		return false
	}
	f.SetWire(wire)
	if cut {
		f.Drop = port.DropOversize
	}
	return true
}

// learn makes the sender of a datagram the peer, if it can be answered.
func (p *dgramPort) learn(raw *unix.RawSockaddrUnix, length uint32) {
	// The kernel counts a NUL even where it has no room for it (unix(7)). What it
	// does not write is of another datagram.
	length = min(length, uint32(unsafe.Sizeof(*raw)))
	clear(raw.Path[max(length, unnamed)-unnamed:])
	if p.from.is(raw, length) && p.up.Load() || length <= unnamed {
		return
	}
	p.from = address{*raw, length}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed.Load() {
		return
	}
	p.setLink(true, nil)
	if !p.peer.is(raw, length) {
		p.peer = p.from
		p.backlog.reset() // what waits was for the one before
		p.room.interrupt()
	}
}

// Release implements port.Queue.
func (p *dgramPort) Release() {
	if p.batch != nil {
		dgramBatches.Return(p.batch)
		p.batch = nil
	}
}

// Send implements port.Queue.
func (p *dgramPort) Send(out []port.Out) {
	r := dgramRuns.Get().(*dgramRun)
	for len(out) > 0 {
		n := min(len(out), port.BatchSize)
		p.mu.Lock()
		r.build(out[:n], &p.peer)
		if p.closed.Load() {
			r.all(port.DropPortClosed)
		} else {
			p.send(r)
		}
		p.mu.Unlock()
		r.clear()
		out = out[n:]
	}
	dgramRuns.Put(r)
}

// send hands the socket what it takes of r, and keeps what it does not.
func (p *dgramPort) send(r *dgramRun) {
	i := 0
	// What waits goes first: order holds.
	for i < r.n && p.backlog.len() == 0 {
		n, errno := mmsg.Send(p.fd, r.headers[i:r.n])
		if errno == 0 {
			for ; n > 0; n-- {
				r.outs[i].Drop = port.DropNone
				i++
			}
			p.setUp()
			continue
		}
		why := reason(errno)
		switch why {
		case port.DropNone: // not yet
			if p.backlog.put(r.outs[i], 0) {
				i++
			}
		case port.DropNoCarrier:
			p.lost(errno)
			for ; i < r.n; i++ {
				r.outs[i].Drop = why
			}
			return
		default:
			r.outs[i].Drop = why
			i++
		}
	}
	for ; i < r.n; i++ {
		r.outs[i].Drop = port.DropNone
		if !p.backlog.put(r.outs[i], 0) {
			r.outs[i].Drop = port.DropQueueFull
		}
	}
	if p.backlog.len() > 0 {
		select {
		case p.waiting <- struct{}{}:
		default:
		}
	}
}

// setUp notes that the peer took something.
func (p *dgramPort) setUp() {
	if !p.up.Load() {
		p.setLink(true, nil)
	}
}

// lost notes that the peer is not there. It keeps its address, for it may come back.
func (p *dgramPort) lost(errno unix.Errno) {
	p.backlog.reset()
	if p.up.Load() || p.gone != errno {
		p.gone = errno
		p.setLink(false, noPeer(p.peer.name(), errno))
	}
}

// reason is why a datagram was lost that the kernel refused with errno, DropNone if it
// may go later.
func reason(errno unix.Errno) port.Drop {
	switch errno {
	case unix.EAGAIN, unix.EINTR:
		return port.DropNone
	case unix.ENOBUFS, unix.ENOMEM:
		return port.DropQueueFull
	case unix.EMSGSIZE:
		return port.DropTooBig
	case unix.ECONNREFUSED, unix.ENOENT, unix.ENOTDIR, // its socket is closed, or gone
		unix.ECONNRESET, unix.EPIPE, // it takes nothing any more
		unix.EPERM, unix.EACCES, // it takes nothing from here
		unix.EPROTOTYPE: // it is no datagram socket
		return port.DropNoCarrier
	}
	return port.DropIOError
}
