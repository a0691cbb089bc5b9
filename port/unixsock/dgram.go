package unixsock

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/files/sockfile"
	"github.com/vswitch/vswitch/internal/linux/mmsg"
	"github.com/vswitch/vswitch/internal/rxbuf"
	"github.com/vswitch/vswitch/port"
)

// dgramPort is a port on a datagram socket. Its peer is the first sender that can be
// answered, until that one is gone; before, it is the configured path. The socket is
// never connected to the peer: a restarted peer could not send to it. A sending
// goroutine gives the socket what it takes and leaves the rest in a backlog, which
// drain sends.
type dgramPort struct {
	link
	refusals
	path    string        // of the port's socket
	named   string        // the peer's path until one has sent
	quit    chan struct{} // closed by Close
	waiting chan struct{} // has a value when backlog may hold something
	other   chan struct{} // has a value after the socket or the peer became another, or the peer came or went
	running sync.WaitGroup
	closed  atomic.Bool
	paused  atomic.Bool
	sock    atomic.Pointer[dgramSocket]

	mu      sync.Mutex
	access  sockfile.Access
	peer    peer
	gone    unix.Errno // the kernel's last error for an absent peer
	doubt   error      // why the last sender gets no answer
	backlog backlog
	room    *room // nil unless drain waits for room at the peer
	out     drainRun
	given   bool // another process may have the socket, so nothing is sent

	// Of the one worker that receives.
	from    address // whom the last datagram came from
	strange stranger
	frames  []port.Frame
	n       int
	errno   unix.Errno
	batch   *dgramBatch
	read    func(fd uintptr) bool // readBatch, bound once
}

// dgramSocket is the port's socket. It is replaced after its file was deleted.
type dgramSocket struct {
	conn *net.UnixConn
	raw  syscall.RawConn // conn's
	fd   int             // conn's; used under the port's mu while the port is not closed
	file *sockfile.File
}

// newDgramSocket makes a socket at path that receives its senders' credentials.
func newDgramSocket(path string, a sockfile.Access) (*dgramSocket, error) {
	conn, file, err := sockfile.ListenPacketAs(path, a)
	if err != nil {
		return nil, err
	}
	return useDgramSocket(conn, file)
}

// useDgramSocket prepares a socket.
func useDgramSocket(conn *net.UnixConn, file *sockfile.File) (_ *dgramSocket, err error) {
	s := &dgramSocket{conn: conn, file: file}
	if s.raw, err = conn.SyscallConn(); err == nil {
		err = s.raw.Control(func(fd uintptr) { s.fd = int(fd) })
	}
	if err == nil {
		err = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, dgramBuffer) // or what the kernel allows
	refuseRights(s.fd)
	return s, nil
}

func (s *dgramSocket) close() error {
	s.file.Close()
	return s.conn.Close()
}

// address is a socket's name as the kernel reports it.
type address struct {
	raw unix.RawSockaddrUnix
	len uint32
}

// unnamed is the length of an address without a path.
const unnamed = uint32(unsafe.Offsetof(unix.RawSockaddrUnix{}.Path))

// is reports whether a equals the address of the given length in raw.
func (a *address) is(raw *unix.RawSockaddrUnix, length uint32) bool {
	return a.len == length && a.raw == *raw
}

// name returns the address as package net writes it.
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

// addressOf returns the address of the socket at path.
func addressOf(path string) (a address) {
	a.raw.Family = unix.AF_UNIX
	for i := range len(path) {
		a.raw.Path[i] = int8(path[i])
	}
	a.len = unnamed + uint32(len(path)) + 1
	return a
}

// hello is what vfkit and libkrun send before their first frame, so that the other side
// learns their address.
const hello = "VFKT"

// dgramBuffer is what the kernel may hold for the peer, in bytes as it accounts them.
// The system's own limit (net.core.wmem_max) may be lower. The receive buffer does not
// matter: datagrams in transit count against the sender (unix(7)).
const dgramBuffer = 4 << 20

var _ interface {
	port.Port
	port.Queue
	port.Linked
	port.Noticer
} = (*dgramPort)(nil)

// errSilent is why there is no peer at first: sockets of this kind are not connected.
var errSilent = errors.New("no frame has come from its machine yet")

// newDgram makes a port with its socket at path. It sends to named until another peer
// sends.
func newDgram(path, named string, a sockfile.Access) (*dgramPort, error) {
	s, err := newDgramSocket(path, a)
	if err != nil {
		return nil, err
	}
	p := makeDgram(s, path, named, a)
	p.peer = namedPeer(named)
	if p.peer.to.len == 0 {
		_ = p.peer.fill() // or later, when frames for it arrive
	}
	p.running.Go(p.drain)
	return p, nil
}

// makeDgram makes a port without a peer.
func makeDgram(s *dgramSocket, path, named string, a sockfile.Access) *dgramPort {
	p := &dgramPort{
		link: newLink(errSilent), path: path, named: named, access: a,
		quit: make(chan struct{}), waiting: make(chan struct{}, 1), other: make(chan struct{}, 1),
	}
	p.sock.Store(s)
	p.read = p.readBatch
	p.out.init()
	return p
}

// setAccess changes who may use the socket.
func (p *dgramPort) setAccess(a sockfile.Access) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed.Load() {
		return nil
	}
	if err := p.sock.Load().file.SetAccess(a); err != nil {
		return err
	}
	p.access = a
	return nil
}

// renew makes a new socket if the file was deleted.
func (p *dgramPort) renew() {
	s := p.sock.Load()
	if s.file.There() {
		return
	}
	p.mu.Lock()
	a, given := p.access, p.given
	p.mu.Unlock()
	if given {
		return
	}
	next, err := newDgramSocket(p.path, a)
	if err != nil {
		if !p.up.Load() {
			p.setLink(false, err)
		}
		return // the next look tries again
	}
	p.mu.Lock()
	if p.closed.Load() {
		p.mu.Unlock()
		_ = next.close()
		return
	}
	_ = next.file.Replace(s.file) // a machine that cannot reach it stays away, as the state says
	p.sock.Store(next)
	if p.paused.Load() {
		_ = next.conn.SetReadDeadline(past)
	}
	p.mu.Unlock()
	signal(p.other)
	_ = s.close() // a waiting Recv continues with the next
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
	s := p.sock.Load() // the last one
	p.peer.close()
	p.mu.Unlock()
	err := s.close() // not under the lock: it waits for drain, which takes it
	p.running.Wait()
	return err
}

// past is a deadline that ends a wait.
var past = time.Unix(1, 0)

// Pause implements port.Pausable. What the peer sends meanwhile waits in the socket.
func (p *dgramPort) Pause() { p.pause(true, past) }

// Resume implements port.Pausable.
func (p *dgramPort) Resume() { p.pause(false, time.Time{}) }

func (p *dgramPort) pause(on bool, deadline time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused.Store(on)
	if !on && p.given {
		p.given = false
		signal(p.waiting)
	}
	_ = p.sock.Load().conn.SetReadDeadline(deadline) // fails only for a closed socket
}

// dgramBatch is the memory of one recvmmsg. Headers and vectors point to their slots
// permanently, so that a call needs no setup.
type dgramBatch struct {
	headers [port.BatchSize]mmsg.Header
	vectors [port.BatchSize]unix.Iovec
	names   [port.BatchSize]unix.RawSockaddrUnix
	creds   [port.BatchSize]credentials
	slab    []byte
}

var dgramBatches = rxbuf.Pool[dgramBatch]{Batches: true, New: func() *dgramBatch {
	b := &dgramBatch{slab: rxbuf.Slab()}
	for i := range b.headers {
		put(&b.vectors[i], b.slab[i*rxbuf.Stride:][:port.MaxFrame])
		h := &b.headers[i].Msghdr
		h.Iov = &b.vectors[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Control = &b.creds[i][0]
	}
	return b
}}

// Recv implements port.Queue.
func (p *dgramPort) Recv(frames []port.Frame) (int, error) {
	p.frames = frames[:min(len(frames), port.BatchSize)]
	for !p.closed.Load() {
		if p.paused.Load() {
			return 0, port.ErrPaused
		}
		p.n, p.errno = 0, 0
		if s := p.sock.Load(); s.raw.Read(p.read) != nil {
			if s != p.sock.Load() || p.paused.Load() {
				continue // its file was deleted
			}
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

// readBatch takes what the socket holds; false asks to be called again when there is
// more. It rents memory only for the call, unless frames came.
func (p *dgramPort) readBatch(fd uintptr) bool {
	b := dgramBatches.Rent()
	for i := range p.frames {
		h := &b.headers[i].Msghdr
		h.Namelen = uint32(unsafe.Sizeof(b.names[i]))
		h.SetControllen(len(b.creds[i]))
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
		known := p.learn(&b.names[i], h.Namelen, b.creds[i][:h.Controllen])
		wire := b.slab[i*rxbuf.Stride:][:h.N]
		f := &p.frames[p.n]
		if decode(f, wire, h.Flags&unix.MSG_TRUNC != 0) {
			if !known {
				f.Drop = port.DropSecondPeer
			}
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

// decode makes f the frame of a datagram, and reports whether the datagram is one.
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

// learn makes the sender of a datagram the peer, if there is none and the sender can be
// answered. It returns false if the sender is refused because another peer is there.
func (p *dgramPort) learn(raw *unix.RawSockaddrUnix, length uint32, creds []byte) (ok bool) {
	// The kernel counts a NUL even if it has no room for it (unix(7)). The bytes that
	// it does not write belong to another datagram.
	length = min(length, uint32(unsafe.Sizeof(*raw)))
	clear(raw.Path[max(length, unnamed)-unnamed:])
	if p.from.is(raw, length) && p.up.Load() || length <= unnamed {
		return true
	}
	return p.meet(address{*raw, length}, creds)
}

// meet is learn for a sender not known to be the peer.
func (p *dgramPort) meet(from address, creds []byte) (ok bool) {
	p.mu.Lock()
	up, same := p.up.Load(), p.peer.name == from
	p.mu.Unlock()
	switch {
	case p.closed.Load():
		return true
	case up && same:
		p.from = from
		return true
	case up && p.held():
		p.refused(&from, p.changed)
		return false
	}
	next, err := p.believe(from, parseCredentials(creds))
	if err != nil {
		p.mu.Lock()
		p.doubt = err
		p.setReason(err)
		p.mu.Unlock()
		return true // received, but not answered
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed.Load() {
		next.close()
		return true
	}
	p.from = from
	if !same {
		p.backlog.reset() // the backlog was for the previous peer
		p.room.interrupt()
	}
	p.peer.close()
	p.peer, p.strange, p.doubt = next, stranger{}, nil
	p.accepted(&from)
	p.setLink(true, nil)
	signal(p.other)
	return true
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
		r.build(out[:n], &p.peer.to)
		switch {
		case p.closed.Load():
			r.all(port.DropPortClosed)
		case p.peer.to.len == 0:
			r.all(port.DropNoCarrier)
			p.look()
		default:
			p.send(r)
		}
		p.mu.Unlock()
		r.clear()
		out = out[n:]
	}
	dgramRuns.Put(r)
}

// send gives the socket what it takes of r, and drops or queues the rest.
func (p *dgramPort) send(r *dgramRun) {
	i := 0
	// The backlog goes first, to keep the order.
	for i < r.n && p.backlog.len() == 0 {
		n, errno := mmsg.Send(p.sock.Load().fd, r.headers[i:r.n])
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
		signal(p.waiting)
	}
}

// look makes drain check from time to time whether the peer is there. Send does not
// check itself: the file system may be slow.
func (p *dgramPort) look() {
	if now := time.Now(); now.Sub(p.peer.looked) >= lookEvery {
		p.peer.looked = now
		signal(p.waiting)
	}
}

// setUp records that the peer accepted something.
func (p *dgramPort) setUp() {
	if !p.up.Load() {
		p.doubt = nil
		p.setLink(true, nil)
		signal(p.other)
	}
}

// lost records that the peer is not there. It keeps the address, since the peer may
// come back.
func (p *dgramPort) lost(errno unix.Errno) {
	p.backlog.reset()
	p.peer.forget()
	if p.up.Load() || p.gone != errno {
		p.gone = errno
		signal(p.other)
		p.setLink(false, cmp.Or(p.doubt, noPeer(p.peer.name.name(), errno)))
	}
}

// reason returns why the kernel's errno makes a datagram a drop, or DropNone if it may
// be sent later.
func reason(errno unix.Errno) port.Drop {
	switch errno {
	case unix.EAGAIN, unix.EINTR:
		return port.DropNone
	case unix.ENOBUFS, unix.ENOMEM:
		return port.DropQueueFull
	case unix.EMSGSIZE:
		return port.DropTooBig
	case unix.ECONNREFUSED, unix.ENOENT, unix.ENOTDIR, // its socket is closed, or gone
		unix.ECONNRESET, unix.EPIPE, // it takes nothing more
		unix.EPERM, unix.EACCES, // it takes nothing from here
		unix.EPROTOTYPE: // it is not a datagram socket
		return port.DropNoCarrier
	}
	return port.DropIOError
}
