package bgp

import (
	"bufio"
	"errors"
	"os"
	"time"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/vswitch/vswitch/internal/proto/evpn"
)

// outbox holds what an established session has still to send: the keys of routes whose
// announcement or withdrawal is due. Several changes of one route are one entry, so a slow
// neighbour costs no more than the routes there were. It is guarded by Speaker.mu.
type outbox struct {
	due   map[evpn.Key]struct{}
	wake  chan struct{} // holds a token while something may be due
	again bool          // all routes are due once nothing else is
	ask   bool          // a request for all of the neighbour's routes is due
	ended bool
}

// maxDue is how many routes may be due before the session is given up.
const maxDue = 1 << 20

func newOutbox() *outbox {
	return &outbox{due: make(map[evpn.Key]struct{}), wake: make(chan struct{}, 1)}
}

func (o *outbox) add(k evpn.Key) {
	o.due[k] = struct{}{}
	o.signal()
}

func (o *outbox) close() {
	o.ended = true
	o.due = nil
	o.signal()
}

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// take moves up to maxTake due routes out of the outbox: those to announce, and those to
// withdraw. The caller holds Speaker.mu.
func (o *outbox) take(rib map[evpn.Key]evpn.Route) (announce []evpn.Route, withdraw []evpn.Key) {
	const maxTake = 1024
	for k := range o.due {
		if r, ok := rib[k]; ok {
			announce = append(announce, r)
		} else {
			withdraw = append(withdraw, k)
		}
		delete(o.due, k)
		if len(announce)+len(withdraw) == maxTake {
			return announce, withdraw
		}
	}
	o.due = make(map[evpn.Key]struct{}) // maps do not shrink
	return announce, withdraw
}

// write sends what is due, and keepalives, until the session ends.
func (n *neighbor) write(c *connection, o *outbox, peer opened) {
	s := n.speaker
	w := writer{s.cfg.AS, n.AS == s.cfg.AS, peer.as4, s.cfg.Tunnel}
	var beat <-chan time.Time // never, if the hold time is zero (RFC 4271 section 4.4)
	if peer.hold > 0 {
		keepalive := time.NewTicker(peer.hold / 3)
		defer keepalive.Stop()
		beat = keepalive.C
	}
	settled := time.After(time.Until(s.ready))
	mayEnd, sentEnd := false, false
	out := bufio.NewWriterSize(c, 1<<16)
	for {
		s.mu.Lock()
		if o.ended {
			s.mu.Unlock()
			return
		}
		if len(o.due) > maxDue {
			n.abort(c, ceaseResources)
		}
		if o.again && len(o.due) == 0 {
			o.again = false
			n.refresh()
		}
		announce, withdraw := o.take(s.rib)
		more := len(o.due) > 0 || o.again
		ask := o.ask
		o.ask = false
		s.mu.Unlock()

		messages := w.messages(announce, withdraw)
		if mayEnd && !sentEnd && !more {
			messages = append(messages, w.withdraw(nil))
			sentEnd = true
		}
		_ = c.SetWriteDeadline(time.Now().Add(max(peer.hold, openTimeout)))
		for _, m := range messages {
			if err := send(out, m); err != nil {
				n.unsent(c, err)
				return
			}
		}
		if ask {
			_ = send(out, packet.NewBGPRouteRefreshMessage(afiL2VPN, 0, safiEVPN))
		}
		select {
		case <-beat:
			_ = send(out, packet.NewBGPKeepAliveMessage()) // Flush has the error
		default:
		}
		if err := out.Flush(); err != nil {
			n.unsent(c, err)
			return
		}
		if len(messages) > 0 {
			s.mu.Lock()
			n.sent += uint64(len(messages))
			s.mu.Unlock()
		}
		if more {
			continue
		}
		select {
		case <-o.wake:
		case <-settled:
			mayEnd, settled = true, nil
		case <-beat:
			if err := send(c, packet.NewBGPKeepAliveMessage()); err != nil {
				n.unsent(c, err)
				return
			}
		}
	}
}

// unsent ends a connection on which nothing can be sent, and has its reader say why.
func (n *neighbor) unsent(c *connection, err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errUntaken
	}
	n.speaker.mu.Lock()
	defer n.speaker.mu.Unlock()
	n.abort(c, err)
}

// messages returns the UPDATEs of some changes. Withdrawals come first, so that an IP address
// that went from one station to another is not at both.
func (w writer) messages(announce []evpn.Route, withdraw []evpn.Key) (all []*packet.BGPMessage) {
	for ; len(withdraw) > 0; withdraw = withdraw[min(maxUpdate, len(withdraw)):] {
		all = append(all, w.withdraw(withdraw[:min(maxUpdate, len(withdraw))]))
	}
	alike := make(map[evpn.Route][]evpn.Route) // by what they share
	for _, r := range announce {
		shared := r
		shared.Key = evpn.Key{Kind: r.Kind}
		group := append(alike[shared], r)
		if len(group) == maxUpdate {
			all, group = append(all, w.announce(group)), nil
		}
		alike[shared] = group
	}
	for _, group := range alike {
		if len(group) > 0 {
			all = append(all, w.announce(group))
		}
	}
	return all
}
