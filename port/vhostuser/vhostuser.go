// Package vhostuser is the port kind that shares memory with a virtual machine: the
// back end of QEMU's `-netdev vhost-user`. The switch listens on a unix socket or
// connects to one; the machine may come, go and come back. A guest is treated as
// hostile: its errors end its connection and affect no other port.
//
// The files, in the order of a port's life: kind, socket, vhostuser (the connection),
// features, receive (from the guest), send (to it).
package vhostuser

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/internal/virtio/vhost"
	"github.com/vswitch/vswitch/port"
)

// maxPairs bounds a guest's pairs of queues. An unused pair costs one sleeping
// goroutine.
const maxPairs = 8

// Port is an open vhost-user port.
type Port struct {
	backend *vhost.Backend
	queues  []port.Queue
	lanes   []*lane
	peers   peers

	// What workers read, as negotiated with the front end and the guest.
	acked  atomic.Uint64
	caps   atomic.Uint32
	mtu    atomic.Int64 // of the guest; 0: unknown
	active atomic.Pointer[[]*lane]
	up     atomic.Bool
	closed atomic.Bool
	paused atomic.Bool
	parked parking
	busy   atomic.Bool // workers never sleep while a guest is there

	changed chan struct{}
	closing chan struct{} // closed by Close
	ended   chan struct{} // closed when the connection's goroutine has ended

	mu     sync.Mutex // guards what follows
	conn   *net.UnixConn
	reason error // why there is no peer
	broken error // the guest's error on this connection
}

var _ interface {
	port.Port
	port.Linked
} = (*Port)(nil)

// lane is a pair of queues: a port.Queue to the switch, a transmit and a receive ring
// to the guest.
type lane struct {
	port  *Port
	index int
	receiver
	sender
}

// open makes a port that gets its connections from peers, the first one from another process
// unless former is nil. It keeps the positions of packed rings in the file notes, if that is not
// empty.
func open(ps peers, notes string, busy bool, former *session) (*Port, error) {
	p := &Port{
		peers:   ps,
		changed: make(chan struct{}, 1),
		closing: make(chan struct{}),
		ended:   make(chan struct{}),
		reason:  errors.New("no front end has connected yet"),
	}
	p.busy.Store(busy)
	var err error
	if p.backend, err = vhost.NewBackend(2*maxPairs, offered, (*device)(p), p.guestBroke); err != nil {
		return nil, err
	}
	if notes != "" {
		if err := p.backend.KeepInflight(notes); err != nil {
			return nil, err
		}
	}
	for i := range maxPairs {
		l := &lane{port: p, index: i}
		// Receive and transmit are from the guest's view (virtio 1.2, 5.1.2).
		l.sender.ring, l.receiver.ring = p.backend.Ring(2*i), p.backend.Ring(2*i+1)
		p.lanes = append(p.lanes, l)
		p.queues = append(p.queues, l)
	}
	if former != nil {
		p.conn = former.conn
		if err := p.backend.Restore(former.said); err != nil {
			p.backend.Disconnect()
			former.conn.Close()
			p.conn, p.reason = nil, err
		}
	}
	(*device)(p).Changed()
	go p.run(p.conn)
	return p, nil
}

// Queues implements port.Port.
func (p *Port) Queues() []port.Queue { return p.queues }

// Caps implements port.Port.
func (p *Port) Caps() port.Caps { return port.Caps(p.caps.Load()) }

// Link implements port.Linked: it is up while a guest's driver exchanges frames.
func (p *Port) Link() bool { return p.up.Load() }

// LinkChanged implements port.Linked.
func (p *Port) LinkChanged() <-chan struct{} { return p.changed }

// LinkError implements port.Linked.
func (p *Port) LinkError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.up.Load():
		return nil
	case p.conn != nil:
		return errNotReady
	}
	return p.reason
}

var errNotReady = errors.New("the guest's driver is not ready")

// Close implements port.Port.
func (p *Port) Close() error {
	if !p.closed.Swap(true) {
		close(p.closing)
	}
	p.peers.close()
	p.mu.Lock()
	if p.conn != nil {
		p.conn.Close()
	}
	p.mu.Unlock()
	p.wake()
	p.unpark()
	select {
	case <-p.ended:
		return nil
	case <-time.After(closePatience):
		// Closing a descriptor from the front end can take as long as its file system
		// likes.
		return errors.New("the front end's files take long to close; the port goes on closing them")
	}
}

// Pause implements port.Pausable. What the guest sends meanwhile waits in its rings.
func (p *Port) Pause() {
	p.paused.Store(true)
	p.wake()
}

// Resume implements port.Pausable.
func (p *Port) Resume() {
	p.paused.Store(false)
	p.unpark()
}

// closePatience bounds how long Close waits for the front end's files to be closed.
const closePatience = 2 * time.Second

// wake makes sleeping workers look for work.
func (p *Port) wake() {
	for _, l := range p.lanes {
		l.receiver.ring.Wake()
	}
}

func (p *Port) setBusy(on bool) {
	p.busy.Store(on)
	p.wake()
}

// run serves one front end after another, first the one that is there unless conn is nil.
func (p *Port) run(conn *net.UnixConn) {
	defer close(p.ended)
	defer p.backend.Close()
	for {
		if conn == nil {
			var err error
			if conn, err = p.peers.next(p.setReason); err != nil {
				return // closed
			}
			p.mu.Lock()
			p.conn, p.broken = conn, nil
			p.mu.Unlock()
		}
		var why error
		for !p.closed.Load() { // otherwise Close may not have seen the connection
			if why = p.backend.Serve(conn); !errors.Is(why, vhost.ErrPaused) {
				break
			}
			p.park(conn)
		}
		conn.Close()
		conn = nil
		p.mu.Lock()
		p.conn = nil
		switch {
		case p.broken != nil:
			why = p.broken
		case errors.Is(why, io.EOF):
			why = errors.New("the front end has ended the connection")
		}
		p.reason = why
		p.mu.Unlock()
		p.backend.Disconnect()
		p.mtu.Store(0)
		p.noteParked()
		if errors.Is(why, vhost.ErrCall) {
			select {
			case <-p.closing:
			case <-time.After(callRest):
			}
		}
	}
}

// callRest is how long a port takes no front end after one that stopped a worker: for less
// than a hundredth of that time, whatever front ends do.
var callRest = 20 * time.Second

func (p *Port) setReason(why error) {
	p.mu.Lock()
	p.reason = why
	p.mu.Unlock()
}

// guestBroke ends the connection of a guest that broke a ring.
func (p *Port) guestBroke(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil && p.broken == nil {
		p.broken = err
		p.conn.Close()
	}
}

// device is the Port as its Backend sees it.
type device Port

// Changed implements vhost.Handler.
func (d *device) Changed() {
	p := (*Port)(d)
	var active []*lane
	up := false
	for _, l := range p.lanes {
		if l.sender.ring.Ready() {
			active = append(active, l)
			up = up || l.receiver.ring.Ready()
		}
	}
	features := p.backend.Acked()
	p.acked.Store(features)
	caps := capsOf(features)
	if len(active) == 0 {
		caps = port.CapsAll // no work for frames that nobody takes
	}
	p.caps.Store(uint32(caps | port.CapTail))
	p.active.Store(&active)
	if p.up.Swap(up) != up {
		select {
		case p.changed <- struct{}{}:
		default:
		}
	}
}

// Announce implements vhost.Handler.
func (d *device) Announce(mac [6]byte) {
	l := d.lanes[0]
	f := rarp(mac)
	l.announce.Store(&f)
	l.receiver.ring.Wake()
}

// SetMTU implements vhost.Handler.
func (d *device) SetMTU(mtu int) { d.mtu.Store(int64(mtu)) }
