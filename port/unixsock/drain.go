package unixsock

import (
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/files/sockfile"
	"github.com/vswitch/vswitch/internal/linux/mmsg"
	"github.com/vswitch/vswitch/port"
)

// drain sends a dgram port's backlog whenever there is room, until the port is closed.
// The kernel has two limits: the number of datagrams that the peer has not read
// (net.unix.max_dgram_qlen, often 10) and the number of bytes that the sending socket
// may have in transit.
func (p *dgramPort) drain() {
	there := time.NewTicker(sockfile.LookEvery)
	defer there.Stop()
	for {
		select {
		case <-p.quit:
			return
		case <-there.C:
			p.renew()
		case <-p.waiting:
			p.seek()
			p.empty()
			p.leaveRoom()
		}
	}
}

// obstacle is what keeps a backlog from draining.
type obstacle uint8

const (
	none    obstacle = iota // the backlog is empty
	noRoom                  // the peer's queue is full
	noSpace                 // the sending socket holds as much as it may
	unclear                 // neither; there is no event to wait for
)

// retryAfter is the wait where there is no event to wait for.
const retryAfter = time.Millisecond

// empty returns when the backlog is empty.
func (p *dgramPort) empty() {
	for !p.closed.Load() {
		what := p.flush()
		var err error
		switch what {
		case none:
			return
		case noRoom: // p.room is set; only this goroutine changes it
			err = p.room.raw.Write(func(uintptr) bool { return p.flush() != noRoom })
		case noSpace:
			err = p.sock.Load().raw.Write(func(uintptr) bool { return p.flush() != noSpace })
		}
		if what == unclear || err != nil {
			p.leaveRoom()
			p.rest(retryAfter)
		}
	}
}

// flush sends from the backlog and returns what stopped it.
func (p *dgramPort) flush() obstacle {
	p.mu.Lock()
	defer p.mu.Unlock()
	for again := true; p.backlog.len() > 0 && !p.given; {
		n := p.out.build(&p.backlog, &p.peer.to)
		sent, errno := mmsg.Send(p.sock.Load().fd, p.out.headers[:n])
		if errno == 0 {
			p.backlog.skip(p.out.ends[sent-1])
			p.setUp()
			again = true
			continue
		}
		switch reason(errno) {
		case port.DropNone:
			what := p.obstacle()
			if what != unclear || !again {
				return what
			}
			again = false // there is room by now
		case port.DropNoCarrier:
			p.lost(errno)
		default:
			// The port took this frame earlier, and its sender is no longer there to be
			// told: the frame is lost on its way.
			p.backlog.skip(p.out.ends[0])
		}
	}
	return none
}

// obstacle returns what keeps the socket from taking more. Asking a room also makes the
// kernel report when there is room (net/unix/af_unix.c, unix_dgram_poll).
func (p *dgramPort) obstacle() obstacle {
	if p.room == nil {
		var err error
		p.room, err = newRoom(p.peer.to.name())
		// A peer connected to our socket accepts no other; its queue then has no limit
		// of its own.
		if err != nil && !errors.Is(err, unix.EPERM) {
			return unclear
		}
	}
	switch {
	case p.room != nil && !ready(p.room.fd, unix.POLLOUT):
		return noRoom
	case !ready(p.sock.Load().fd, unix.POLLOUT):
		return noSpace
	}
	return unclear
}

func (p *dgramPort) rest(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.quit:
	}
}

// room is a socket connected to the peer that becomes writable when the peer can take
// more. The port's own socket, which is not connected, cannot wait for that. Nothing is
// sent by a room. Each backlog gets a new one, since another peer may be at the same
// path.
type room struct {
	conn *net.UnixConn
	raw  syscall.RawConn
	fd   int
}

func newRoom(peer string) (*room, error) {
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: peer, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	r := &room{conn: c}
	if r.raw, err = c.SyscallConn(); err == nil {
		err = r.raw.Control(func(fd uintptr) { r.fd = int(fd) })
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return r, nil
}

// interrupt makes a wait for r return with an error. r may be nil.
func (r *room) interrupt() {
	if r != nil {
		_ = r.conn.SetWriteDeadline(time.Unix(0, 0)) // its only error is that r is closed
	}
}

// leaveRoom closes the room, if there is one. Only the goroutine that waits for it
// calls leaveRoom.
func (p *dgramPort) leaveRoom() {
	p.mu.Lock()
	r := p.room
	p.room = nil
	p.mu.Unlock()
	if r != nil {
		r.conn.Close()
	}
}
