package lacp

import (
	"cmp"
	"time"

	"github.com/vswitch/vswitch/port"
)

// MaxMembers is the most that a Group has.
const MaxMembers = 8

// Timers (802.1AX-2014 clause 6.4.4).
const (
	fastPeriodic  = time.Second
	slowPeriodic  = 30 * time.Second
	shortTimeout  = 3 * fastPeriodic
	longTimeout   = 3 * slowPeriodic
	aggregateWait = 2 * time.Second
	churnTime     = 60 * time.Second
)

// txLimit is how many LACPDUs a member sends in a second (clause 6.4.16).
const txLimit = 3

// rxLimit is how many frames a member accepts in a second: no more may come by a slow
// protocol (802.3-2018 annex 57A.2). A partner that sends more cannot make the group change
// at its rate.
const rxLimit = 10

// DefaultPriority is the usual priority of a system and of a port.
const DefaultPriority = 0x8000

// Config describes this end of a Group.
type Config struct {
	System         port.MAC
	SystemPriority uint16
	Key            uint16
	Fast           bool // the partner is to send a PDU every second

	// MinLinks is how many members must be in step before any takes or sends frames: so the
	// partner knows as well that the group carries nothing. 0 is as 1.
	MinLinks int `json:",omitempty"`
}

// Counters count what a member did since it was added.
type Counters struct {
	Sent      uint64 `json:"sent"`
	Received  uint64 `json:"received"`
	Discarded uint64 `json:"discarded"` // malformed
	Excess    uint64 `json:"excess"`    // more than a slow protocol may send
	Markers   uint64 `json:"markers"`   // answered
}

// Out is a frame to be sent by a member.
type Out struct {
	Member int
	Frame  []byte
}

// Group is one end of a link aggregation group. Its methods take the time of the call, which
// never goes back.
type Group struct {
	config  Config
	members [MaxMembers]*member
	partner lag // whom the selected members lead to; zero: nobody
	out     []Out
}

// lag identifies the far end of a group (802.1AX-2014 clause 6.3.6).
type lag struct {
	priority uint16
	system   port.MAC
	key      uint16
}

func (i Info) lag() lag { return lag{i.SystemPriority, i.System, i.Key} }

// New returns a Group without members.
func New(c Config) *Group {
	c.SystemPriority = cmp.Or(c.SystemPriority, DefaultPriority)
	return &Group{config: c}
}

// SetFast changes how often the partner is to send.
func (g *Group) SetFast(now time.Time, fast bool) {
	if g.config.Fast == fast {
		return
	}
	g.config.Fast = fast
	for _, m := range g.members {
		if m != nil {
			m.actor.State ^= ShortTimeout
			m.ntt = true
			if m.receiver == current {
				m.currentUntil = now.Add(m.timeout())
			}
		}
	}
	g.run(now)
}

// SetMinLinks changes how many members must be in step.
func (g *Group) SetMinLinks(now time.Time, n int) {
	g.config.MinLinks = n
	g.run(now)
}

// Add adds a member whose port has this address. It is down.
func (g *Group) Add(now time.Time, i int, address port.MAC) {
	state := Active | Aggregation
	if g.config.Fast {
		state |= ShortTimeout
	}
	g.members[i] = &member{
		group: g, index: i, address: address,
		actor: Info{
			SystemPriority: g.config.SystemPriority, System: g.config.System, Key: g.config.Key,
			PortPriority: DefaultPriority, Port: uint16(i + 1), State: state,
		},
	}
	g.members[i].begin(now)
	g.run(now)
}

// Remove removes a member. Its last PDU, which no limit holds back, has the partner send no more
// by it: otherwise frames would be lost until the partner misses those that no longer come. The
// member does not leave its group as one that stands alone, since the partner might keep that
// one in place of the others.
func (g *Group) Remove(now time.Time, i int) {
	if m := g.members[i]; m != nil && m.up {
		m.actor.State &^= Synchronized | Collecting | Distributing
		m.transmit()
	}
	g.members[i] = nil
	g.run(now)
}

// SetUp says whether a member's link is up.
func (g *Group) SetUp(now time.Time, i int, up bool) {
	if m := g.members[i]; m != nil && m.up != up {
		m.up = up
		g.run(now)
	}
}

// Receive takes a frame that came by a member.
func (g *Group) Receive(now time.Time, i int, frame []byte) error {
	m := g.members[i]
	if m == nil || !m.up {
		return nil
	}
	if !isOurs(frame) {
		return errOther
	}
	m.Counters.Received++
	if !m.rx.take(now, rxLimit) {
		m.Counters.Excess++
		return nil
	}
	if answer := respond(frame, m.address); answer != nil {
		m.Counters.Markers++
		g.out = append(g.out, Out{i, answer})
		return nil
	}
	p, err := Parse(frame)
	if err != nil {
		m.Counters.Discarded++
		return err
	}
	m.receive(now, p)
	g.run(now)
	return nil
}

// Tick does what is due and returns when it must be called again; the zero time: after the
// next call of another method.
func (g *Group) Tick(now time.Time) (next time.Time) {
	g.run(now)
	for _, m := range g.members {
		if m == nil {
			continue
		}
		for _, at := range m.timers() {
			if !at.IsZero() && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
	}
	return next
}

// Sent returns the frames to be sent, in order, since the last call.
func (g *Group) Sent() []Out {
	out := g.out
	g.out = nil
	return out
}

// Collects and Distributes report whether a member takes and sends frames.
func (g *Group) Collects(i int) bool    { return g.has(i, Collecting) }
func (g *Group) Distributes(i int) bool { return g.has(i, Distributing) }

func (g *Group) has(i int, s State) bool {
	return g.members[i] != nil && g.members[i].actor.State&s != 0
}

// Member is what a Group knows about a member.
type Member struct {
	Address        port.MAC
	Actor, Partner Info
	Heard          bool // Partner is what the partner said, and still holds
	Selected       bool
	Loop           bool // the partner is this end itself
	Other          bool // the partner is not that of the other members
	Few            bool // it is in step, and too few others are
	ActorChurn     bool // this end has not come into step with its group for a minute
	PartnerChurn   bool // nor has the other end
	Counters       Counters
}

// Member describes a member; ok is false if there is none.
func (g *Group) Member(i int) (d Member, ok bool) {
	m := g.members[i]
	if m == nil {
		return Member{}, false
	}
	return Member{
		Address: m.address, Actor: m.actor, Partner: m.partner, Heard: m.heard(), Selected: m.selected,
		Loop: m.heard() && m.loop(), Other: m.heard() && !m.loop() && g.partner != (lag{}) && m.partner.lag() != g.partner,
		Few:        m.mux == attached && m.inStep() && !g.enough(),
		ActorChurn: m.actorChurn.is, PartnerChurn: m.partnerChurn.is, Counters: m.Counters,
	}, true
}

// run has all machines do what is due.
func (g *Group) run(now time.Time) {
	for _, m := range g.members {
		if m != nil {
			m.runReceive(now)
		}
	}
	for range 2 { // a member that has left the group may belong to it again
		g.selection()
		ready, enough := g.ready(now), g.enough()
		for _, m := range g.members {
			if m != nil {
				m.runMux(now, ready, enough)
			}
		}
	}
	for _, m := range g.members {
		if m != nil {
			m.runChurn(now)
			m.runPeriodic(now)
			m.runTransmit(now)
		}
	}
}

// selection decides which members belong to the group: those that lead to the same partner
// (802.1AX-2014 clause 6.4.14). The group keeps its partner as long as one member leads there.
// Otherwise it takes the one to which most members lead, of these that of the first member.
// A member whose partner has not spoken belongs to no group, and carries nothing. A partner
// that refuses aggregation has one link.
func (g *Group) selection() {
	count := make(map[lag]int, MaxMembers)
	for _, m := range g.members {
		if m != nil && m.fit() {
			count[m.partner.lag()]++
		}
	}
	if count[g.partner] == 0 {
		g.partner = lag{}
		for _, m := range g.members {
			if m != nil && m.fit() && (g.partner == lag{} || count[m.partner.lag()] > count[g.partner]) {
				g.partner = m.partner.lag()
			}
		}
	}
	first, alone := true, false
	for _, m := range g.members {
		if m == nil {
			continue
		}
		aggregates := m.partner.State&Aggregation != 0
		m.selected = m.fit() && !m.moved && m.partner.lag() == g.partner && !alone && (first || aggregates)
		if m.selected {
			first, alone = false, !aggregates
		}
	}
}

// ready reports whether the members that wait to join have waited long enough, all of them
// (802.1AX-2014 clause 6.4.14.1, item f).
func (g *Group) ready(now time.Time) bool {
	for _, m := range g.members {
		if m != nil && m.mux == waiting && m.selected && now.Before(m.waitUntil) {
			return false
		}
	}
	return true
}

// enough reports whether as many members are in step as there must be.
func (g *Group) enough() bool {
	n := 0
	for _, m := range g.members {
		if m != nil && m.mux >= attached && m.inStep() {
			n++
		}
	}
	return n >= max(1, g.config.MinLinks)
}
