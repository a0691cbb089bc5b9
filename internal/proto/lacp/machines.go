package lacp

import (
	"time"

	"github.com/vswitch/vswitch/port"
)

// member is one port of a group with its machines, which have the names and states of
// 802.1AX-2014 clause 6.4.
type member struct {
	group   *Group
	index   int
	address port.MAC
	up      bool // port_enabled

	actor, partner Info
	Counters       Counters

	receiver     receiveState
	currentUntil time.Time // current_while_timer

	selected bool // SELECTED, not UNSELECTED
	moved    bool // what the partner says changed: UNSELECTED until the mux has detached

	mux       muxState
	waitUntil time.Time // wait_while_timer

	periodic time.Time // when the next PDU is due; zero: none is
	rate     time.Duration

	ntt bool // need to transmit
	tx  window
	rx  window

	actorChurn, partnerChurn churn
}

type receiveState uint8

const (
	portDisabled receiveState = iota
	expired
	defaulted
	current
)

type muxState uint8

const (
	detached muxState = iota
	waiting
	attached
	collecting
	distributing
)

// window counts events in the second that began with the first of them.
type window struct {
	since time.Time
	n     int
}

// take counts an event, unless limit have happened in this second.
func (w *window) take(now time.Time, limit int) bool {
	if now.Sub(w.since) >= time.Second {
		w.since, w.n = now, 0
	}
	if w.n >= limit {
		return false
	}
	w.n++
	return true
}

// begin is INITIALIZE of the receive machine, and BEGIN of the others. The zero states of all are
// their first.
func (m *member) begin(now time.Time) {
	m.recordDefault()
	m.actorChurn.reset(now)
	m.partnerChurn.reset(now)
}

// heard reports whether the partner has spoken, and not fallen silent.
func (m *member) heard() bool {
	return m.receiver == current || m.receiver == expired && m.actor.State&Defaulted == 0
}

// loop reports whether the partner is this end.
func (m *member) loop() bool {
	return m.partner.System == m.actor.System && m.partner.SystemPriority == m.actor.SystemPriority
}

// fit reports whether a member can be selected.
func (m *member) fit() bool { return m.up && m.heard() && !m.loop() }

// recordDefault sets the partner to one of which nothing is known (clause 6.4.9). It is
// never in step, so no frame passes.
func (m *member) recordDefault() {
	m.partner = Info{}
	m.actor.State |= Defaulted
}

// receive is the receive machine for a PDU (clause 6.4.12, state CURRENT).
func (m *member) receive(now time.Time, p PDU) {
	// update_Selected: what the partner is changed, so the member leaves its group first.
	if !p.Actor.names(m.partner) && m.mux != detached {
		m.moved = true
	}
	// update_NTT: the partner does not know this end's state.
	const told = Active | ShortTimeout | Synchronized | Aggregation
	if !p.Partner.names(m.actor) || (p.Partner.State^m.actor.State)&told != 0 {
		m.ntt = true
	}
	m.record(p)
	m.actor.State &^= Expired
	m.receiver, m.currentUntil = current, now.Add(m.timeout())
}

// record is recordPDU: the partner is in step only if it means this port, or is alone, and
// one of the two ends speaks unasked.
func (m *member) record(p PDU) {
	m.partner = p.Actor
	m.actor.State &^= Defaulted
	meant := p.Partner.names(m.actor) || p.Actor.State&Aggregation == 0
	if !meant || (p.Actor.State|p.Partner.State)&Active == 0 {
		m.partner.State &^= Synchronized
	}
}

func (m *member) timeout() time.Duration {
	if m.actor.State&ShortTimeout != 0 {
		return shortTimeout
	}
	return longTimeout
}

// enterExpired asks the partner to speak, fast (state EXPIRED).
func (m *member) enterExpired(now time.Time) {
	m.receiver = expired
	m.partner.State = m.partner.State&^Synchronized | ShortTimeout
	m.actor.State |= Expired
	m.currentUntil = now.Add(shortTimeout)
}

// runReceive is the rest of the receive machine.
func (m *member) runReceive(now time.Time) {
	switch {
	case !m.up:
		if m.receiver != portDisabled {
			m.receiver, m.currentUntil = portDisabled, time.Time{}
			m.actor.State &^= Expired
			m.recordDefault() // whoever is there when the link comes back may be another
		}
	case m.receiver == portDisabled:
		m.enterExpired(now)
	case m.receiver == current && !now.Before(m.currentUntil):
		m.enterExpired(now)
	case m.receiver == expired && !now.Before(m.currentUntil):
		m.receiver, m.currentUntil = defaulted, time.Time{}
		m.recordDefault()
		m.actor.State &^= Expired
	}
}

// inStep reports whether both ends have the member in its group, once this end is attached.
func (m *member) inStep() bool { return m.selected && m.partner.State&Synchronized != 0 }

// runMux is the mux machine with independent control (clause 6.4.15). Enough says that there are
// as many members as the group must have.
func (m *member) runMux(now time.Time, ready, enough bool) {
	for range distributing + 1 { // each state at most once
		inStep := m.inStep() && enough
		is := m.mux
		switch m.mux {
		case detached:
			m.moved = false
			if m.selected {
				m.mux, m.waitUntil = waiting, now.Add(aggregateWait)
			}
		case waiting:
			switch {
			case !m.selected:
				m.mux = detached
			case ready && !now.Before(m.waitUntil):
				m.mux = attached
			}
		case attached:
			switch {
			case !m.selected:
				m.mux = detached
			case inStep:
				m.mux = collecting
			}
		case collecting:
			switch {
			case !inStep:
				m.mux = attached
			case m.partner.State&Collecting != 0:
				m.mux = distributing
			}
		case distributing:
			if !inStep || m.partner.State&Collecting == 0 {
				m.mux = collecting
			}
		}
		if m.mux == is {
			break
		}
	}
	state := m.actor.State &^ (Synchronized | Collecting | Distributing)
	if m.mux >= attached {
		state |= Synchronized
	}
	if m.mux >= collecting {
		state |= Collecting
	}
	if m.mux == distributing {
		state |= Distributing
	}
	if state != m.actor.State {
		m.actor.State, m.ntt = state, true
	}
}

// runPeriodic is the periodic transmission machine (clause 6.4.13). The actor is always
// active, so it never rests while the link is up.
func (m *member) runPeriodic(now time.Time) {
	if !m.up {
		m.periodic, m.rate = time.Time{}, 0
		return
	}
	rate := slowPeriodic
	if m.partner.State&ShortTimeout != 0 {
		rate = fastPeriodic
	}
	switch {
	case m.rate == 0, rate < m.rate, !now.Before(m.periodic): // the link came up, the partner became impatient, or it is time
		m.ntt = true
	case rate == m.rate:
		return
	}
	m.rate, m.periodic = rate, now.Add(rate)
}

// runTransmit sends a PDU if one is needed, at most txLimit in a second.
func (m *member) runTransmit(now time.Time) {
	if !m.up {
		m.ntt = false
		return
	}
	if !m.ntt || !m.tx.take(now, txLimit) {
		return
	}
	m.ntt = false
	m.transmit()
}

func (m *member) transmit() {
	m.Counters.Sent++
	m.group.out = append(m.group.out, Out{m.index, Append(nil, m.address, PDU{m.actor, m.partner})})
}

// churn is a churn detection machine (clause 6.4.17): one end does not come into step.
type churn struct {
	is    bool
	until time.Time // zero: in step, or found out
}

func (c *churn) reset(now time.Time) { *c = churn{until: now.Add(churnTime)} }

func (c *churn) run(now time.Time, inStep bool) {
	switch {
	case inStep:
		*c = churn{}
	case c.is:
	case c.until.IsZero():
		c.reset(now)
	case !now.Before(c.until):
		*c = churn{is: true}
	}
}

func (m *member) runChurn(now time.Time) {
	if !m.up {
		m.actorChurn.reset(now)
		m.partnerChurn.reset(now)
		return
	}
	m.actorChurn.run(now, m.actor.State&Synchronized != 0)
	m.partnerChurn.run(now, m.partner.State&Synchronized != 0)
}

// timers returns when something is due by itself; zero times mean never.
func (m *member) timers() []time.Time {
	if !m.up {
		return nil
	}
	all := []time.Time{m.currentUntil, m.periodic, m.actorChurn.until, m.partnerChurn.until}
	if m.mux == waiting {
		all = append(all, m.waitUntil)
	}
	if m.ntt {
		all = append(all, m.tx.since.Add(time.Second))
	}
	return all
}
