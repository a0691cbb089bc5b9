package bgp

import (
	"bufio"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

const (
	dialTimeout = 10 * time.Second
	openTimeout = 15 * time.Second // until the session is established
	retryAfter  = 4 * time.Second  // and up to half as much more, so that two do not stay in step

	// A neighbour that had a session with a former process first has to end what belonged to that.
	// FRR 8.4, connected again within milliseconds, never begins BFD with the new one.
	firstAfter = 300 * time.Millisecond

	// A connection that comes while a session is older than this says that the neighbour has
	// lost the session; while it is younger, both have connected at the same time.
	collisionWindow = openTimeout
)

// neighbor runs the sessions with a neighbour. Its fields below the first two are guarded by
// Speaker.mu.
type neighbor struct {
	Neighbor
	speaker *Speaker

	ctx  context.Context
	stop context.CancelFunc
	wake chan struct{} // holds a token when the session has ended

	state          State
	since          time.Time
	why            error       // there is no session
	incoming       net.Conn    // accepted, and not established
	current        *connection // the one whose OPEN has come; nil: none
	out            *outbox     // of the established session; nil: none
	peer           opened      // of it
	received, sent uint64

	// handling is held while Handle is called, so that the events of two sessions do not mix.
	handling chan struct{}
}

// connection is a connection with a neighbour.
type connection struct {
	net.Conn
	outgoing    bool
	established time.Time // zero: not yet
	why         error     // why this side ended it; guarded by Speaker.mu
}

func newNeighbor(s *Speaker, nb Neighbor) *neighbor {
	n := &neighbor{Neighbor: nb, speaker: s, wake: make(chan struct{}, 1), handling: make(chan struct{}, 1), state: StateIdle, since: time.Now()}
	n.ctx, n.stop = context.WithCancel(s.ctx)
	return n
}

// view returns the neighbour's status. The caller holds Speaker.mu.
func (n *neighbor) view() Status {
	st := Status{Neighbor: n.Neighbor, State: n.state, Since: n.since, Received: n.received, Sent: n.sent}
	if n.why != nil {
		st.Problem = reason(n.why)
	}
	if n.out != nil {
		st.RouterID, st.Hold, st.Restart = n.peer.routerID, n.peer.hold, n.peer.restart
	}
	return st
}

// enter changes the state, unless a session is established. The caller holds Speaker.mu.
func (n *neighbor) enter(s State) {
	if n.state != s && n.out == nil {
		n.state, n.since = s, time.Now()
	}
}

// end ends all connections, with a NOTIFICATION if why is one.
func (n *neighbor) end(why error) {
	if n.incoming != nil {
		n.incoming.Close()
	}
	if c := n.current; c != nil {
		n.abort(c, why)
	}
}

// abort ends a connection; its goroutine sends the NOTIFICATION. The caller holds Speaker.mu.
func (n *neighbor) abort(c *connection, why error) {
	if c.why == nil {
		c.why = why
	}
	if why == nil {
		c.Close()
		return
	}
	_ = c.SetReadDeadline(time.Unix(1, 0)) // wakes the reader
}

// run connects to the neighbour whenever there is no session.
func (n *neighbor) run() {
	defer n.stop()
	wait := firstAfter
	for {
		select {
		case <-time.After(wait):
		case <-n.ctx.Done():
			return
		}
		n.speaker.mu.Lock()
		busy := n.current != nil
		n.speaker.mu.Unlock()
		if busy {
			select {
			case <-n.wake:
				wait = time.Duration(rand.Int64N(int64(time.Second)))
			case <-n.ctx.Done():
				return
			}
			continue
		}
		n.connect()
		wait = retryAfter + time.Duration(rand.Int64N(int64(retryAfter/2)))
	}
}

// connect connects and runs a session.
func (n *neighbor) connect() {
	n.set(StateConnect)
	d := net.Dialer{Timeout: dialTimeout, Control: func(network, at string, c syscall.RawConn) error {
		_ = mark(network, at, c)
		if n.Password == "" {
			return nil
		}
		return setRawPassword(c, n.Address, n.Password)
	}}
	if n.Source.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: n.Source.AsSlice()}
	}
	c, err := d.DialContext(n.ctx, "tcp", net.JoinHostPort(n.Address.String(), strconv.Itoa(int(n.Port))))
	if err != nil {
		n.failed(err)
		return
	}
	n.session(c, true)
}

func (n *neighbor) set(s State) {
	n.speaker.mu.Lock()
	defer n.speaker.mu.Unlock()
	n.enter(s)
}

// failed records why there is no session, unless there is one.
func (n *neighbor) failed(err error) {
	n.speaker.mu.Lock()
	defer n.speaker.mu.Unlock()
	n.idle(err)
}

// idle records why there is no session, unless there is one. A neighbour that has said why, and then hangs up each time,
// does so for the same reason. The caller holds Speaker.mu.
func (n *neighbor) idle(err error) {
	if n.current != nil {
		return
	}
	n.enter(StateIdle)
	if !hungUp(err) || !errors.As(n.why, new(received)) {
		n.why = err
	}
}

// hungUp reports whether an error is that a neighbour has closed a connection.
func hungUp(err error) bool {
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// reason puts an error into words for users.
func reason(err error) string {
	var op *net.OpError
	switch {
	case hungUp(err):
		return "the neighbor closed the connection"
	case errors.As(err, &op) && op.Op == "dial" && op.Timeout():
		// TCP does not tell one of these from another.
		return "the neighbor does not answer on its TCP port: it is away, a firewall is between, or the passwords differ"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "the neighbor did not answer"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "this host does not have the source address of the session; correct --source"
	case errors.As(err, &op) && op.Op == "dial":
		return "cannot connect: " + op.Err.Error()
	}
	return err.Error()
}

// session runs a session on a connection until it ends.
func (n *neighbor) session(raw net.Conn, outgoing bool) {
	c := &connection{Conn: raw, outgoing: outgoing}
	if !outgoing {
		n.speaker.mu.Lock()
		if n.incoming != nil {
			n.incoming.Close() // the neighbour has begun anew
		}
		n.incoming = raw
		n.speaker.mu.Unlock()
	}
	// The neighbour is removed, or the speaker closed.
	stop := context.AfterFunc(n.ctx, func() {
		n.speaker.mu.Lock()
		defer n.speaker.mu.Unlock()
		_ = c.SetReadDeadline(time.Unix(1, 0))
	})
	err := n.talk(c)
	stop()
	n.handling <- struct{}{} // no session begins before the end of this one is handled
	defer func() { <-n.handling }()
	was, restart, err := n.leave(c, err)

	var nf *notification
	s := n.speaker
	if errors.As(err, &nf) {
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		_ = send(c, packet.NewBGPNotificationMessage(nf.code, nf.subcode, nil))
	}
	c.Close()
	if !was || s.ctx.Err() != nil {
		return
	}
	// The routes stay if the connection is lost without a word: the neighbour restarts. A
	// silent neighbour is dead, and one that says goodbye takes its routes with it.
	if nf != nil && nf != ceaseRejected || errors.As(err, new(received)) {
		restart = 0
	}
	s.cfg.Log.Warn("BGP session ended", "neighbor", n.Address, "reason", reason(err), "routes_kept_for", restart)
	s.cfg.Handle(Event{Peer: n.Peer, Kind: Lost, Keep: restart})
}

// leave frees the neighbour of a connection that has ended with err. It returns whether a session
// was established, for how long the neighbour's routes could be kept, and why it ended.
func (n *neighbor) leave(c *connection, err error) (was bool, restart time.Duration, why error) {
	n.speaker.mu.Lock()
	defer n.speaker.mu.Unlock()
	if c.why != nil {
		err = c.why
	}
	if n.incoming == c.Conn {
		n.incoming = nil
	}
	if n.current == c {
		n.current = nil
		if n.out != nil {
			was, restart = true, n.peer.restart
			n.out.close()
			n.out = nil
		}
		select {
		case n.wake <- struct{}{}:
		default:
		}
	}
	n.idle(err)
	return was, restart, err
}

// handle passes an event on.
func (n *neighbor) handle(e Event) {
	n.handling <- struct{}{}
	defer func() { <-n.handling }()
	e.Peer = n.Peer
	n.speaker.cfg.Handle(e)
}

// talk runs the protocol on a connection and returns why it ended.
func (n *neighbor) talk(c *connection) error {
	_ = c.SetDeadline(time.Now().Add(openTimeout))
	open, err := n.openMessage()
	if err != nil {
		return err
	}
	if err := send(c, open); err != nil {
		return err
	}
	n.set(StateOpenSent)
	in := bufio.NewReaderSize(c, 1<<16)
	buf := make([]byte, maxMessage)
	kind, body, err := readMessage(in, buf)
	if err != nil {
		return err
	}
	if err := expect(packet.BGP_MSG_OPEN, kind, body); err != nil {
		return err
	}
	peer, err := n.readOpen(body)
	if err != nil {
		return err
	}
	if err := n.claim(c, peer); err != nil {
		return err
	}
	if err := send(c, packet.NewBGPKeepAliveMessage()); err != nil {
		return err
	}
	if kind, body, err = readMessage(in, buf); err != nil {
		return err
	}
	if err := expect(packet.BGP_MSG_KEEPALIVE, kind, body); err != nil {
		return err
	}
	if err := n.establish(c, peer); err != nil {
		return err
	}
	return n.receive(c, in, buf, peer)
}

// expect returns an error if a message is not of the kind that must come now.
func expect(want, kind byte, body []byte) error {
	switch kind {
	case want:
		return nil
	case packet.BGP_MSG_NOTIFICATION:
		return readNotification(body)
	}
	return errState
}

func readNotification(body []byte) error {
	if len(body) < 2 {
		return received{}
	}
	return received{body[0], body[1]}
}

// claim makes c the neighbour's connection. If both sides have connected, that of the higher
// router ID stays (RFC 4271 section 6.8).
func (n *neighbor) claim(c *connection, peer opened) error {
	s := n.speaker
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.ctx.Err() != nil {
		return net.ErrClosed
	}
	switch other := n.current; {
	case other == nil:
	case !other.established.IsZero() && time.Since(other.established) < collisionWindow:
		return ceaseCollision
	case !other.established.IsZero():
		// The neighbour has restarted, and this side has not noticed (RFC 4724 section 5).
		n.abort(other, ceaseRejected)
		return ceaseRejected
	case c.outgoing == (s.cfg.RouterID.Compare(peer.routerID) > 0):
		n.abort(other, ceaseCollision)
	default:
		return ceaseCollision
	}
	n.current = c
	n.enter(StateOpenConfirm)
	return nil
}

// establish starts the session.
func (n *neighbor) establish(c *connection, peer opened) error {
	s := n.speaker
	s.mu.Lock()
	if n.current != c {
		s.mu.Unlock()
		return ceaseCollision
	}
	if n.incoming == c.Conn {
		n.incoming = nil
	}
	c.established = time.Now()
	n.enter(StateEstablished)
	n.why, n.peer, n.received, n.sent = nil, peer, 0, 0
	n.out = newOutbox()
	n.refresh()
	out := n.out
	s.mu.Unlock()
	s.cfg.Log.Info("BGP session established", "neighbor", n.Address, "router_id", peer.routerID, "hold_time", peer.hold)
	n.handle(Event{Kind: Established, Fresh: peer.restart == 0 || !peer.keeps})
	s.tasks.Go(func() { n.write(c, out, peer) })
	return nil
}

// refresh makes all routes to be sent. The caller holds Speaker.mu.
func (n *neighbor) refresh() {
	for k := range n.speaker.rib {
		n.out.add(k)
	}
}

// maxBatch bounds the updates of an event.
const maxBatch = 2048

// receive reads messages until the session ends.
func (n *neighbor) receive(c *connection, in *bufio.Reader, buf []byte, peer opened) error {
	rd := reader{as: n.speaker.cfg.AS, routerID: n.speaker.cfg.RouterID, as4: peer.as4, internal: n.AS == n.speaker.cfg.AS, own: n.speaker.cfg.Tunnel}
	var updates []Update
	for {
		deadline := time.Time{}
		if peer.hold > 0 {
			deadline = time.Now().Add(peer.hold)
		}
		n.speaker.mu.Lock()
		if c.why != nil || n.ctx.Err() != nil {
			n.speaker.mu.Unlock()
			return net.ErrClosed
		}
		_ = c.SetReadDeadline(deadline)
		n.speaker.mu.Unlock()

		kind, body, err := readMessage(in, buf)
		if errors.Is(err, os.ErrDeadlineExceeded) && n.ctx.Err() == nil {
			err = errHold
		}
		if err != nil {
			return err
		}
		switch kind {
		case packet.BGP_MSG_KEEPALIVE:
		case packet.BGP_MSG_NOTIFICATION:
			return readNotification(body)
		case packet.BGP_MSG_ROUTE_REFRESH:
			n.speaker.mu.Lock()
			if n.out != nil { // however often it asks, it gets them as fast as it reads
				n.out.again = true
				n.out.signal()
			}
			n.speaker.mu.Unlock()
		case packet.BGP_MSG_UPDATE:
			var synced bool
			updates, synced, err = rd.read(body, updates)
			if err != nil {
				return err
			}
			n.speaker.mu.Lock()
			n.received++
			n.speaker.mu.Unlock()
			// Messages that have come already make one event.
			if len(updates) > 0 && (synced || !hasMessage(in) || len(updates) >= maxBatch) {
				n.handle(Event{Kind: Updated, Updates: updates})
				updates = nil
			}
			if synced {
				n.handle(Event{Kind: Synced})
			}
			continue
		case packet.BGP_MSG_OPEN:
			return errState
		default:
			return errType
		}
		if len(updates) > 0 {
			n.handle(Event{Kind: Updated, Updates: updates})
			updates = nil
		}
	}
}

func send(w io.Writer, m *packet.BGPMessage) error {
	b, err := m.Serialize()
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}
