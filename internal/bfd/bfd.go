// Package bfd speaks BFD with neighbours over IP (RFC 5881, RFC 5883), so that one that is dead
// is noticed within a second. The machines are those of internal/proto/bfd; here are their
// sockets and clock. Any goroutine may call a Speaker. Each neighbour has a goroutine, which
// waits for nothing but its clock and packets.
package bfd

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/routing"
	"github.com/vswitch/vswitch/internal/proto/bfd"
)

// UDP ports of RFC 5881 section 4 and RFC 5883 section 5, and those that packets come from.
const (
	singleHop   = 3784
	multiHop    = 4784
	firstSource = 49152
	lastSource  = 65535
)

// Usual times: three packets that do not come in a row, 300 ms apart, end a session.
const (
	DefaultInterval = 300 * time.Millisecond
	DefaultMult     = 3
)

// retryAfter is how long a session waits before it asks again for what the system refused.
const retryAfter = 2 * time.Second

// A goroutine that wakes later than stalled gives the one that reads packets the time catchUp, so
// that packets which have come already count.
const (
	stalled = 50 * time.Millisecond
	catchUp = 10 * time.Millisecond
)

// Config configures New. All of it is required.
type Config struct {
	Log *slog.Logger

	// Silent is called when a neighbour that was heard is silent for the detection time. It is
	// called on a goroutine of the neighbour, and may wait.
	Silent func(neighbor netip.Addr, detection time.Duration)
}

// Neighbor is a neighbour.
type Neighbor struct {
	Address netip.Addr
	Source  netip.Addr // own address of the session; invalid: the system chooses
}

// Status describes a session.
type Status struct {
	State     bfd.State
	Detection time.Duration // how long the neighbour may be silent; 0: not known yet
	Problem   string        // why packets cannot be sent or received
}

// Speaker speaks with neighbours.
type Speaker struct {
	cfg   Config
	quit  chan struct{}
	tasks sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	sessions  map[netip.Addr]*session
	numbers   map[uint32]*session // by their discriminators
	listeners map[listening]*net.UDPConn
}

// listening is what a socket listens to.
type listening struct {
	ip6  bool
	port int
}

// session is the session with a neighbour.
type session struct {
	Neighbor
	number  uint32 // discriminator
	in      chan bfd.Packet
	quit    chan struct{}
	status  Status // guarded by Speaker.mu
	problem error  // the last that was logged
}

// New returns a speaker without neighbours.
func New(cfg Config) *Speaker {
	return &Speaker{
		cfg: cfg, quit: make(chan struct{}), sessions: make(map[netip.Addr]*session),
		numbers: make(map[uint32]*session), listeners: make(map[listening]*net.UDPConn),
	}
}

// Add adds a neighbour. One with its address must not exist.
func (s *Speaker) Add(nb Neighbor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.sessions[nb.Address] != nil {
		return
	}
	n := &session{Neighbor: nb, in: make(chan bfd.Packet, 16), quit: make(chan struct{}), status: Status{State: bfd.Down}}
	for n.number == 0 || s.numbers[n.number] != nil {
		n.number = rand.Uint32() // such that those of a former run are not its own
	}
	s.sessions[nb.Address], s.numbers[n.number] = n, n
	s.tasks.Go(func() { s.run(n) })
}

// Remove removes a neighbour, which is told that this is no failure.
func (s *Speaker) Remove(neighbor netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.sessions[neighbor]; n != nil {
		delete(s.sessions, neighbor)
		delete(s.numbers, n.number)
		close(n.quit)
	}
}

// Status describes the session with a neighbour.
func (s *Speaker) Status(neighbor netip.Addr) (Status, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.sessions[neighbor]
	if n == nil {
		return Status{}, false
	}
	return n.status, true
}

// Close ends all sessions. The neighbours are told that this is no failure.
func (s *Speaker) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	close(s.quit)
	for _, l := range s.listeners {
		l.Close()
	}
}

// Wait waits until all goroutines have ended after Close.
func (s *Speaker) Wait() { s.tasks.Wait() }

// run runs a session until its neighbour is removed.
func (s *Speaker) run(n *session) {
	for {
		out, err := s.open(n)
		if err == nil {
			err = s.speak(n, out)
			out.Close()
		}
		if err == nil {
			return
		}
		s.trouble(n, err)
		select {
		case <-time.After(retryAfter):
		case <-n.quit:
			return
		case <-s.quit:
			return
		}
	}
}

// trouble records why there is no session.
func (s *Speaker) trouble(n *session, err error) {
	if n.problem == nil || n.problem.Error() != err.Error() {
		s.cfg.Log.Warn("BFD does not watch a neighbor", "neighbor", n.Address, "reason", err)
	}
	n.problem = err
	s.mu.Lock()
	defer s.mu.Unlock()
	n.status = Status{State: bfd.Down, Problem: err.Error()}
}

// open listens for the neighbour's packets, and returns the socket that this end sends by.
func (s *Speaker) open(n *session) (*net.UDPConn, error) {
	source, near, err := route(n.Neighbor)
	if err != nil {
		return nil, err
	}
	port := multiHop
	if near {
		port = singleHop
	}
	if err := s.listen(listening{n.Address.Is6(), port}); err != nil {
		return nil, err
	}
	// The source port is one that no other session has (RFC 5881 section 4).
	first := firstSource + rand.IntN(lastSource-firstSource+1)
	for i := range 64 {
		from := &net.UDPAddr{IP: source.AsSlice(), Port: firstSource + (first-firstSource+i)%(lastSource-firstSource+1)}
		var out *net.UDPConn
		if out, err = net.DialUDP("udp", from, &net.UDPAddr{IP: n.Address.AsSlice(), Port: port}); err == nil {
			if err = mark(out, n.Address.Is6()); err == nil {
				return out, nil
			}
			out.Close()
			break
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	return nil, fmt.Errorf("no BFD packet can be sent to %v: %w", n.Address, err)
}

// route returns the own address of a session, and whether the neighbour is in a network of this
// host's.
func route(nb Neighbor) (source netip.Addr, near bool, err error) {
	source = nb.Source
	if !source.IsValid() {
		c, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: nb.Address.AsSlice(), Port: singleHop}) // sends nothing
		if err != nil {
			return source, false, fmt.Errorf("there is no way to %v: %w", nb.Address, err)
		}
		source = c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone("")
		c.Close()
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return source, false, err
	}
	for _, a := range all {
		if p, ok := a.(*net.IPNet); ok && p.Contains(nb.Address.AsSlice()) {
			near = true
		}
	}
	return source, near, nil
}

// listen listens for the packets of all sessions, unless that is done already.
func (s *Speaker) listen(at listening) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.listeners[at] != nil {
		return nil
	}
	network := "udp4"
	if at.ip6 {
		network = "udp6"
	}
	l, err := net.ListenUDP(network, &net.UDPAddr{Port: at.port})
	if err == nil {
		if err = receiveTTL(l, at.ip6); err != nil {
			l.Close()
		}
	}
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("UDP port %d is another program's, as of FRR's bfdd; BFD can be spoken by one program of a host", at.port)
	}
	if err != nil {
		return fmt.Errorf("no BFD packet can be received: %w", err)
	}
	s.listeners[at] = l
	s.tasks.Go(func() { s.read(l, at) })
	return nil
}

// read gives packets to their sessions until the socket is closed.
func (s *Speaker) read(l *net.UDPConn, at listening) {
	b, oob := make([]byte, 256), make([]byte, 128)
	for {
		n, on, _, from, err := l.ReadMsgUDPAddrPort(b, oob)
		if err != nil {
			select {
			case <-s.quit:
				return
			case <-time.After(10 * time.Millisecond): // an error of a former packet, or no memory
				continue
			}
		}
		if at.port == singleHop && ttlOf(oob[:on]) != routing.TTL {
			continue
		}
		p, err := bfd.Parse(b[:n])
		if err != nil {
			continue
		}
		if to := s.session(from.Addr().Unmap().WithZone(""), p); to != nil {
			select {
			case to.in <- p:
			default: // it speaks too fast; the next packet tells the same
			}
		}
	}
}

// session returns the session that a packet is for. Its sender must be the neighbour, also
// where a discriminator tells the session.
func (s *Speaker) session(from netip.Addr, p bfd.Packet) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.sessions[from]
	if n == nil || p.Your != 0 && p.Your != n.number {
		return nil
	}
	return n
}

// speak runs the machine of a session on a socket. It returns nil once the session ends.
func (s *Speaker) speak(n *session, out *net.UDPConn) error {
	var failed error
	send := func(p bfd.Packet) {
		b := p.Put()
		if _, err := out.Write(b[:]); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
			failed = cmp.Or(failed, err) // refused: the neighbour does not speak BFD yet
		}
	}
	m := bfd.New(bfd.Config{Discriminator: n.number, Interval: DefaultInterval, Mult: DefaultMult, Send: send, Random: rand.Float64})
	timer := time.NewTimer(0)
	defer timer.Stop()
	was := m.State()
	for {
		quit := false
		select {
		case p := <-n.in:
			m.Receive(time.Now(), p)
		case <-timer.C:
			if time.Since(m.Next()) > stalled && !m.Next().IsZero() {
				time.Sleep(catchUp) // this machine stood still, not the neighbour
			}
			for more := true; more; {
				select {
				case p := <-n.in:
					m.Receive(time.Now(), p)
				default:
					more = false
				}
			}
			m.Advance(time.Now())
		case <-n.quit:
			quit = true
		case <-s.quit:
			quit = true
		}
		if quit {
			send(bfd.Packet{State: bfd.AdminDown, Mult: DefaultMult, My: n.number, MinTX: time.Second, MinRX: DefaultInterval})
			return nil
		}
		is := m.State()
		if is != was {
			s.cfg.Log.Info("BFD session", "neighbor", n.Address, "state", is.String(), "was", was.String())
		}
		s.mu.Lock()
		n.status = Status{State: is, Detection: m.Detection()}
		s.mu.Unlock()
		if was == bfd.Up && is != bfd.Up && m.Why() == bfd.DetectionExpired {
			s.cfg.Silent(n.Address, m.Detection())
		}
		was = is
		// What cannot be sent for a while is like any loss. The way to the neighbour may have
		// changed, though, so once nothing is at stake the sockets are made anew.
		if failed != nil && is == bfd.Down {
			return fmt.Errorf("no BFD packet can be sent to %v: %w", n.Address, failed)
		}
		failed = nil
		timer.Reset(max(0, time.Until(m.Next())))
	}
}
