package sflow

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/vswitch/vswitch/internal/proto/sflow"
	"github.com/vswitch/vswitch/port"
)

// sender writes datagrams and sends them. Its goroutine waits for the network where it has to;
// nobody waits for it.
type sender struct {
	*agent
	start  time.Time
	began  bool // the datagram has a header
	out    sflow.Datagram
	number uint32 // of the datagram
	stop   chan struct{}
	ended  chan struct{}

	mu     sync.Mutex
	self   netip.Addr        // the agent's address; the zero Addr: not known yet
	sentTo []CollectorStatus // by collector

	// By collector: what waits in the kernel for one that does not answer fills its own socket.
	sockets []*net.UDPConn
}

// writeBuffer is the memory for what waits to be sent, of which the kernel makes twice as much: more
// than it keeps for a neighbour that does not answer (neigh/default/unres_qlen_bytes), so that no
// call waits for such a one. Another reason to wait ends after patience.
const (
	writeBuffer = 212992
	patience    = 10 * time.Millisecond
)

func newSender(a *agent) (*sender, error) {
	s := &sender{agent: a, start: time.Now(), stop: make(chan struct{}), ended: make(chan struct{}), self: a.set.Agent.Addr}
	for _, c := range a.set.Collectors {
		socket, err := net.ListenUDP("udp", nil)
		if err != nil {
			s.close()
			return nil, fmt.Errorf("open a socket for sFlow: %w", err)
		}
		_ = socket.SetReadBuffer(1) // nobody reads; the kernel makes it as small as it can
		_ = socket.SetWriteBuffer(writeBuffer)
		s.sockets = append(s.sockets, socket)
		s.sentTo = append(s.sentTo, CollectorStatus{Address: c})
	}
	return s, nil
}

// end ends the goroutine. What waits is not sent any more.
func (s *sender) end() {
	close(s.stop)
	s.close() // the goroutine may wait for one
	<-s.ended
}

func (s *sender) close() {
	for _, socket := range s.sockets {
		_ = socket.Close()
	}
}

func (s *sender) run() {
	defer close(s.ended)
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	s.tick(time.Now())
	for {
		select {
		case <-s.stop:
			return
		case <-s.wake:
			s.addQueued()
		case now := <-tick.C:
			s.tick(now)
		}
	}
}

// tick sends what waits, and the counters that are due.
func (s *sender) tick(now time.Time) {
	if round := s.round.Add(1); round%uint32(time.Second/flushEvery) == 1 {
		s.allowed.Store(int32(s.set.Drops))
	}
	s.addQueued()
	for _, src := range s.dueAt(now) {
		s.addCounters(src)
	}
	s.flush()
}

// addQueued adds the samples and notifications that wait.
func (s *sender) addQueued() {
	for range len(s.queue) {
		one := <-s.queue
		s.add(&one)
	}
}

// dueAt returns the sources whose counters are due.
func (s *sender) dueAt(now time.Time) (due []*source) {
	s.agent.mu.Lock()
	defer s.agent.mu.Unlock()
	for _, src := range s.sources {
		if src != nil && !now.Before(src.due) {
			src.due = now.Add(time.Duration(s.set.Interval))
			due = append(due, src)
		}
	}
	return due
}

// into writes a sample into the datagram. If it does not fit, the datagram is sent before.
func (s *sender) into(add func() bool) {
	s.begin()
	if !add() {
		s.flush()
		s.begin()
		add()
	}
}

// begin begins a datagram, unless one has begun.
func (s *sender) begin() {
	if s.began {
		return
	}
	s.began = true
	s.number++
	s.out.Reset(sflow.Header{Agent: s.address(), SubAgent: s.subAgent, Sequence: s.number, Uptime: uint32(time.Since(s.start).Milliseconds())})
}

// address returns the agent's address.
func (s *sender) address() netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := 0; !s.self.IsValid() && i < len(s.set.Collectors); i++ {
		if ip, err := localAddress(s.set.Collectors[i]); err == nil {
			s.self, _ = netip.AddrFromSlice(ip)
		}
	}
	if !s.self.IsValid() {
		return netip.IPv4Unspecified() // nothing can be sent
	}
	return s.self.Unmap().WithZone("")
}

// add adds a sample or a notification.
func (s *sender) add(one *item) {
	src := one.from
	packet := sflow.Packet{Header: one.contents[:one.size], Length: one.length}
	if one.discard {
		x := sflow.Discard{
			Sequence: src.discards.Add(1), Source: sflow.Source(src.index), Drops: src.silent.Load(),
			Input: one.input, Output: uint32(one.output), Reason: one.reason, Packet: packet,
		}
		s.into(func() bool { return s.out.AddDiscard(&x) })
		return
	}
	f := sflow.Flow{
		Sequence: src.flows.Add(1), Source: sflow.Source(src.index), Rate: one.oneIn, Pool: one.pool, Drops: one.lost,
		Input: sflow.Index(one.input), Output: one.output, Packet: packet,
		VLANIn: uint32(one.vlanIn), PriorityIn: uint32(one.prioIn), VLANOut: uint32(one.vlanOut), PriorityOut: uint32(one.prioOut),
	}
	s.into(func() bool { return s.out.AddFlow(&f) })
}

// addCounters adds the counters of a port.
func (s *sender) addCounters(src *source) {
	st := src.core.Stats()
	c := sflow.Counters{
		Sequence: src.counters.Add(1), Source: sflow.Source(src.index), Name: src.core.Name(),
		In:            sflow.Traffic{Octets: st.RX.Bytes, Packets: uint32(st.RX.Frames), Discards: uint32(st.RX.Drops() - st.RX.Dropped[port.DropConsumed])},
		Out:           sflow.Traffic{Octets: st.TX.Bytes, Packets: uint32(st.TX.Frames), Discards: uint32(st.TX.Drops())},
		TooLong:       uint32(st.RX.Dropped[port.DropOversize]),
		TransmitFails: uint32(st.TX.Dropped[port.DropIOError]),
	}
	s.agent.mu.RLock()
	c.Speed, c.Up, c.Admin = src.speed, src.up, src.admin
	s.agent.mu.RUnlock()
	s.into(func() bool { return s.out.AddCounters(&c) })
}

// flush sends the datagram to all collectors, if it has anything.
func (s *sender) flush() {
	if !s.began {
		return
	}
	s.began = false
	for i := range s.sentTo {
		_ = s.sockets[i].SetWriteDeadline(time.Now().Add(patience))
		_, err := s.sockets[i].WriteToUDPAddrPort(s.out.Bytes(), s.sentTo[i].Address.AddrPort)
		s.sent(&s.sentTo[i], err)
	}
}

// sent notes what became of a datagram. A collector that cannot be reached is named in the log
// once.
func (s *sender) sent(to *CollectorStatus, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		to.Datagrams++
		to.Error = ""
		return
	}
	select {
	case <-s.stop:
		return
	default:
	}
	if to.Errors++; to.Error == "" {
		s.host.Log().Warn("sFlow cannot be sent", "collector", to.Address, "error", err)
	}
	to.Error = err.Error()
}

// status returns the sender's part of the status.
func (s *sender) status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Status{Agent: s.self.Unmap(), Collectors: append([]CollectorStatus{}, s.sentTo...)}
}
