// Package bgp is a BGP speaker (RFC 4271) that exchanges the routes of EVPN (RFC 7432, RFC 8365)
// with its neighbours, and nothing else. It passes no route on from one to another, so it is
// no route reflector. Any goroutine may call a Speaker. It starts goroutines for each neighbour;
// they end soon after Close.
//
// Messages are built by GoBGP's codec. GoBGP's server is not used: it never
// frees the memory of withdrawn EVPN routes, which guests cause at will; it ends the session at
// route types other than 1 to 5, and drops routes with extended communities that it does not
// know, such as the router flag (RFC 9047) that FRR sends; and it would make the program 10 MB
// larger, where the codec takes 1 MB. For the same reasons messages are read here: UPDATEs in
// update.go, and OPENs, which may be longer than the codec knows (RFC 9072), in message.go.
package bgp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/vswitch/vswitch/internal/proto/evpn"
	"github.com/vswitch/vswitch/port"
)

// Port is the TCP port of BGP.
const Port = 179

// Config configures New. AS, RouterID and Handle are required.
type Config struct {
	AS       uint32
	RouterID netip.Addr         // an IPv4 address
	Tunnel   port.Encapsulation // of the routes; 0: port.VXLAN
	Listen   uint16             // TCP port to listen at once there are neighbours; 0: none
	Log      *slog.Logger

	// Settle is how long after New the local routes may still be incomplete: until then no
	// neighbour is told that it has them all (RFC 4724 section 4.1).
	Settle time.Duration

	// Handle receives events. The calls of one neighbour come one after another, those of
	// several at the same time. While a call lasts, the neighbour has to wait.
	Handle func(Event)
}

// Neighbor is a BGP neighbour.
type Neighbor struct {
	Peer     evpn.Peer // the number in events
	Address  netip.Addr
	AS       uint32
	Port     uint16        // 0: Port
	Source   netip.Addr    // own address of the connection; invalid: the system chooses
	Password string        // of TCP MD5 signatures (RFC 2385); empty: none
	Hold     time.Duration // longest silence of a live neighbour; 0: DefaultHold
}

// DefaultHold is a compromise between noticing a dead host soon and surviving a machine that
// stands still.
const DefaultHold = 9 * time.Second

// Event is something that happened to a neighbour. Updates are those of one or more messages,
// in order.
type Event struct {
	Peer    evpn.Peer
	Kind    EventKind
	Updates []Update      // of Updated
	Fresh   bool          // of Established: no route of an earlier session is valid
	Keep    time.Duration // of Lost: how long its routes remain valid (RFC 4724)
}

// EventKind is a kind of event.
type EventKind uint8

const (
	Established EventKind = iota
	Updated
	Synced // it has sent all routes (End-of-RIB)
	Lost   // the session, or the neighbour was removed
)

// State is the state of a neighbour's session (RFC 4271 section 8.2.2).
type State string

const (
	StateIdle        State = "idle" // waits for the next attempt
	StateConnect     State = "connect"
	StateOpenSent    State = "opensent"
	StateOpenConfirm State = "openconfirm"
	StateEstablished State = "established"
)

// States are all of them.
var States = []State{StateIdle, StateConnect, StateOpenSent, StateOpenConfirm, StateEstablished}

// Status describes a neighbour.
type Status struct {
	Neighbor
	State    State
	Since    time.Time
	RouterID netip.Addr    // of the neighbour, while established
	Hold     time.Duration // as agreed
	Restart  time.Duration // how long its routes are kept if its connection is lost; 0: not
	Problem  string        // why there is no session
	Received uint64        // UPDATEs
	Sent     uint64
}

// Speaker is a BGP speaker.
type Speaker struct {
	cfg   Config
	ctx   context.Context
	stop  context.CancelFunc
	ready time.Time // when local routes are complete

	mu        sync.Mutex
	neighbors map[netip.Addr]*neighbor
	listeners []net.Listener
	rib       map[evpn.Key]evpn.Route // what is announced
	tasks     sync.WaitGroup
}

// New returns a speaker without neighbours.
func New(cfg Config) *Speaker {
	cfg.Tunnel = cmp.Or(cfg.Tunnel, port.VXLAN)
	ctx, stop := context.WithCancel(context.Background())
	return &Speaker{
		cfg: cfg, ctx: ctx, stop: stop, ready: time.Now().Add(cfg.Settle),
		neighbors: make(map[netip.Addr]*neighbor), rib: make(map[evpn.Key]evpn.Route),
	}
}

// Close ends all sessions without telling the neighbours, so that those that can keep the
// routes for the next run (RFC 4724). It waits for nothing; see Wait.
func (s *Speaker) Close() {
	s.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.listeners {
		l.Close()
	}
	s.listeners = nil
	for _, n := range s.neighbors {
		n.end(nil)
	}
}

// Leave is Close for a speaker that has no successor: the neighbours are told, and keep no routes.
func (s *Speaker) Leave() {
	for _, n := range s.Neighbors() {
		s.Remove(n.Address)
	}
	s.Close()
}

// Wait waits until all goroutines have ended after Close.
func (s *Speaker) Wait() { s.tasks.Wait() }

// Add adds a neighbour. One with its address must not exist.
func (s *Speaker) Add(nb Neighbor) error {
	nb.Port = cmp.Or(nb.Port, Port)
	nb.Hold = cmp.Or(nb.Hold, DefaultHold)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return errors.New("the BGP speaker is closed")
	}
	if s.neighbors[nb.Address] != nil {
		return fmt.Errorf("there is a neighbor %v already", nb.Address)
	}
	s.listen()
	if err := s.protect(nb.Address, nb.Password); err != nil && nb.Password != "" {
		return fmt.Errorf("the kernel takes no TCP MD5 password for %v: %w", nb.Address, err)
	}
	n := newNeighbor(s, nb)
	s.neighbors[nb.Address] = n
	s.tasks.Go(n.run)
	return nil
}

// Remove removes a neighbour, and reports whether there was one. It is told, and an event Lost
// may follow.
func (s *Speaker) Remove(address netip.Addr) bool {
	s.mu.Lock()
	n := s.neighbors[address]
	delete(s.neighbors, address)
	_ = s.protect(address, "") // it may have none
	if n != nil {
		n.end(ceaseDeconfigured)
		n.stop()
	}
	s.mu.Unlock()
	return n != nil
}

// Fail ends the session with a neighbour that is dead, as others know: its routes go at once. If
// its connection is lost already, it restarts, and its routes stay as long as it asked for.
func (s *Speaker) Fail(address netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.neighbors[address]; n != nil {
		n.end(ceaseDead)
	}
}

// Refresh asks a neighbour for all its routes again (RFC 2918), and reports whether it can.
func (s *Speaker) Refresh(address netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.neighbors[address]
	if n == nil || n.out == nil || !n.peer.refresh {
		return false
	}
	n.out.ask = true
	n.out.signal()
	return true
}

// protect sets the password that a neighbour needs to connect; "" removes it. The caller holds mu.
func (s *Speaker) protect(neighbor netip.Addr, password string) error {
	for _, l := range s.listeners {
		if addressOf(l.Addr()).Is4() != neighbor.Is4() {
			continue
		}
		if err := setPassword(l.(*net.TCPListener), neighbor, password); err != nil {
			return err
		}
	}
	return nil
}

// Announce announces a route to all neighbours, in place of an earlier one with its key.
func (s *Speaker) Announce(r evpn.Route) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.rib[r.Key]; ok && old == r {
		return
	}
	s.rib[r.Key] = r
	s.changed(r.Key)
}

// Withdraw takes a route back from all neighbours.
func (s *Speaker) Withdraw(k evpn.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.rib[k]; ok {
		delete(s.rib, k)
		s.changed(k)
	}
}

// Announced returns the announced routes.
func (s *Speaker) Announced() []evpn.Route {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.rib))
}

// changed tells all sessions of a changed route. The caller holds mu.
func (s *Speaker) changed(k evpn.Key) {
	for _, n := range s.neighbors {
		if n.out != nil {
			n.out.add(k)
		}
	}
}

// Neighbors returns all neighbours by address.
func (s *Speaker) Neighbors() (all []Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.neighbors {
		all = append(all, n.view())
	}
	slices.SortFunc(all, func(a, b Status) int { return a.Address.Compare(b.Address) })
	return all
}

// listen listens if it should and does not yet. The caller holds mu.
func (s *Speaker) listen() {
	if s.cfg.Listen == 0 || s.listeners != nil {
		return
	}
	for _, network := range []string{"tcp4", "tcp6"} {
		l, err := listenAt(network, ":"+strconv.Itoa(int(s.cfg.Listen)))
		if err != nil {
			if network == "tcp4" {
				s.cfg.Log.Warn("no neighbor can connect to this switch; it connects to its neighbors", "port", s.cfg.Listen, "error", err)
			}
			continue
		}
		s.listeners = append(s.listeners, l)
		s.tasks.Go(func() { s.accept(l) })
	}
}

// listenAt listens without Multipath TCP, which has no MD5 signatures.
func listenAt(network, address string) (net.Listener, error) {
	c := net.ListenConfig{Control: mark}
	c.SetMultipathTCP(false)
	return c.Listen(context.Background(), network, address)
}

// accept gives connections to the neighbours that they come from. Others are closed.
func (s *Speaker) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			select { // no file may be left for the moment
			case <-time.After(time.Second):
			case <-s.ctx.Done():
			}
			continue
		}
		from := addressOf(c.RemoteAddr())
		s.mu.Lock()
		n := s.neighbors[from]
		s.mu.Unlock()
		if n == nil {
			c.Close()
			continue
		}
		s.tasks.Go(func() { n.session(c, false) })
	}
}

func addressOf(a net.Addr) netip.Addr {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return t.AddrPort().Addr().Unmap().WithZone("")
}
