// Package bfd is one end of a BFD session (RFC 5880): it tells within a second or so that
// packets no longer come from a neighbour. It runs in asynchronous mode, in the active role,
// without echo packets and without authentication. It makes no system call and has no clock:
// packets and the time go in, packets come out. One goroutine at a time may use a Session.
package bfd

import "time"

// Config configures a session. All of it is required.
type Config struct {
	Discriminator uint32        // of this end, unique among the host's sessions, not 0
	Interval      time.Duration // desired between packets, in both directions, once the session is up
	Mult          uint8         // as many missing packets in a row end the session
	Send          func(Packet)  // is called by Receive and Advance

	// Random returns a number in [0, 1), for the jitter of the interval.
	Random func() float64
}

// slow is the least interval between packets while a session is not up (RFC 5880 section 6.8.3).
const slow = time.Second

// Session is one end of a session. Its fields are the variables of RFC 5880 section 6.8.1.
type Session struct {
	cfg   Config
	state State
	diag  Diagnostic

	remote      State
	your        uint32 // the neighbour's discriminator; 0: unknown
	remoteMinTX time.Duration
	remoteMinRX time.Duration // 0: the neighbour wants no periodic packets
	remoteMult  uint8
	demand      bool // the neighbour wants no periodic packets while both ends are up
	polling     bool // a poll sequence is on, and Final has not come yet

	txAt     time.Time // when the next periodic packet is due; zero: at once
	detectAt time.Time // when the neighbour counts as silent; zero: it does already
}

// New returns a session that is down.
func New(cfg Config) *Session {
	return &Session{cfg: cfg, state: Down, remote: Down, remoteMinRX: time.Microsecond}
}

// State returns the state.
func (s *Session) State() State { return s.state }

// Why returns why the session last left Up.
func (s *Session) Why() Diagnostic { return s.diag }

// Remote returns the state that the neighbour last told.
func (s *Session) Remote() State { return s.remote }

// Detection returns how long the neighbour may be silent; 0: it is not known yet.
func (s *Session) Detection() time.Duration {
	return time.Duration(s.remoteMult) * max(s.minRX(), s.remoteMinTX)
}

// minTX is DesiredMinTxInterval, minRX is RequiredMinRxInterval.
func (s *Session) minTX() time.Duration {
	if s.state == Up {
		return s.cfg.Interval
	}
	return max(slow, s.cfg.Interval)
}
func (s *Session) minRX() time.Duration { return s.cfg.Interval }

// Receive takes a packet that belongs to the session.
func (s *Session) Receive(now time.Time, p Packet) {
	if p.Your != 0 && p.Your != s.cfg.Discriminator {
		return
	}
	was := s.interval()
	s.your, s.remote, s.demand = p.My, p.State, p.Demand
	s.remoteMinTX, s.remoteMinRX, s.remoteMult = p.MinTX, p.MinRX, p.Mult
	if p.Final {
		s.polling = false
	}
	s.detectAt = now.Add(s.Detection())
	s.hear(now, p.State)
	if p.Poll {
		s.send(true)
	}
	// The neighbour may want packets at other times than before.
	if is := s.interval(); is != was && !s.txAt.IsZero() {
		if soonest := now.Add(s.jitter(is)); soonest.Before(s.txAt) || is > was {
			s.txAt = soonest
		}
	}
}

// hear is the state machine (RFC 5880 section 6.8.6).
func (s *Session) hear(now time.Time, remote State) {
	switch {
	case remote == AdminDown:
		if s.state != Down {
			s.enter(now, Down, NeighborSignaled)
		}
	case s.state == Down && remote == Down:
		s.enter(now, Init, s.diag)
	case s.state == Down && remote == Init, s.state == Init && (remote == Init || remote == Up):
		s.polling = true // the interval becomes the wanted one
		s.enter(now, Up, NoDiagnostic)
	case s.state == Up && remote == Down:
		s.enter(now, Down, NeighborSignaled)
	}
}

// enter changes the state. The neighbour is told at once.
func (s *Session) enter(now time.Time, to State, why Diagnostic) {
	s.state, s.diag = to, why
	if to != Up {
		s.polling = false
	}
	s.transmit(now)
}

// Advance does what is due at now.
func (s *Session) Advance(now time.Time) {
	if !s.detectAt.IsZero() && !now.Before(s.detectAt) {
		s.detectAt, s.your = time.Time{}, 0
		s.remoteMinRX = time.Microsecond
		if s.state == Init || s.state == Up {
			s.enter(now, Down, DetectionExpired)
		}
	}
	if !now.Before(s.txAt) && s.periodic() {
		s.transmit(now)
	}
}

// Next returns when Advance must be called; zero: at once.
func (s *Session) Next() time.Time {
	switch {
	case !s.periodic():
		return s.detectAt
	case s.detectAt.IsZero() || s.txAt.Before(s.detectAt):
		return s.txAt
	}
	return s.detectAt
}

// periodic reports whether periodic packets are sent (RFC 5880 section 6.8.7). If they are not,
// packets come, so the detection time runs.
func (s *Session) periodic() bool {
	quiet := s.remoteMinRX == 0 || s.demand && s.state == Up && s.remote == Up && !s.polling
	return !quiet || s.detectAt.IsZero()
}

// interval is the time between packets, without jitter.
func (s *Session) interval() time.Duration { return max(s.minTX(), s.remoteMinRX) }

// jitter shortens an interval by up to a quarter, and by a tenth at least where a single lost
// packet counts (RFC 5880 section 6.8.7).
func (s *Session) jitter(d time.Duration) time.Duration {
	least, most := 0.75, 1.0
	if s.cfg.Mult == 1 {
		most = 0.9
	}
	return time.Duration(float64(d) * (least + (most-least)*s.cfg.Random()))
}

// transmit sends a packet, and the next one an interval later.
func (s *Session) transmit(now time.Time) {
	s.send(false)
	s.txAt = now.Add(s.jitter(s.interval()))
}

func (s *Session) send(final bool) {
	s.cfg.Send(Packet{
		Diagnostic: s.diag, State: s.state, Poll: s.polling && !final, Final: final, Mult: s.cfg.Mult,
		My: s.cfg.Discriminator, Your: s.your, MinTX: s.minTX(), MinRX: s.minRX(),
	})
}
