package lacp

import (
	"errors"
	"slices"
	"time"

	"github.com/vswitch/vswitch/port"
)

// Saved is a Group for another process, which goes on with it without a word to the partner.
// Times are what was left of them.
type Saved struct {
	Config  Config
	Partner Info // whom the selected members lead to
	Members []SavedMember
}

// SavedMember is a member of a Saved Group.
type SavedMember struct {
	Index                  int
	Address                port.MAC
	Up, Selected, Moved    bool
	Transmit               bool // it needs to send a PDU
	Actor, Partner         Info
	Counters               Counters
	Receiver, Mux          uint8
	Current, Wait          time.Duration `json:",omitempty"` // 0: the timer is off
	Periodic, Rate         time.Duration `json:",omitempty"`
	ActorLate, PartnerLate bool          `json:",omitempty"` // churn was found
	ActorChurn             time.Duration `json:",omitempty"`
	PartnerChurn           time.Duration `json:",omitempty"`
}

// Save returns the Group as it is.
func (g *Group) Save(now time.Time) *Saved {
	s := &Saved{Config: g.config, Partner: Info{SystemPriority: g.partner.priority, System: g.partner.system, Key: g.partner.key}}
	left := func(t time.Time) time.Duration {
		if t.IsZero() {
			return 0
		}
		return max(1, t.Sub(now)) // what is due is due at once
	}
	for i, m := range g.members {
		if m == nil {
			continue
		}
		s.Members = append(s.Members, SavedMember{
			Index: i, Address: m.address, Up: m.up, Selected: m.selected, Moved: m.moved, Transmit: m.ntt,
			Actor: m.actor, Partner: m.partner, Counters: m.Counters, Receiver: uint8(m.receiver), Mux: uint8(m.mux),
			Current: left(m.currentUntil), Wait: left(m.waitUntil), Periodic: left(m.periodic), Rate: m.rate,
			ActorLate: m.actorChurn.is, ActorChurn: left(m.actorChurn.until),
			PartnerLate: m.partnerChurn.is, PartnerChurn: left(m.partnerChurn.until),
		})
	}
	return s
}

// Like reports whether both say the same about the members and the partner, whatever the time.
// Either may be nil.
func (s *Saved) Like(o *Saved) bool {
	if s == nil || o == nil {
		return s == o
	}
	timeless := func(m SavedMember) SavedMember {
		return SavedMember{
			Index: m.Index, Address: m.Address, Up: m.Up, Selected: m.Selected, Moved: m.Moved,
			Actor: m.Actor, Partner: m.Partner, Receiver: m.Receiver, Mux: m.Mux,
		}
	}
	return s.Config == o.Config && s.Partner == o.Partner &&
		slices.EqualFunc(s.Members, o.Members, func(a, b SavedMember) bool { return timeless(a) == timeless(b) })
}

// Restore returns the Group that was saved.
func Restore(now time.Time, s *Saved) (*Group, error) {
	g := New(s.Config)
	g.partner = s.Partner.lag()
	at := func(left time.Duration) time.Time {
		if left <= 0 {
			return time.Time{}
		}
		return now.Add(left)
	}
	for _, v := range s.Members {
		if v.Index < 0 || v.Index >= MaxMembers || g.members[v.Index] != nil || v.Receiver > uint8(current) || v.Mux > uint8(distributing) {
			return nil, errors.New("the state of LACP is none")
		}
		g.members[v.Index] = &member{
			group: g, index: v.Index, address: v.Address, up: v.Up, selected: v.Selected, moved: v.Moved, ntt: v.Transmit,
			actor: v.Actor, partner: v.Partner, Counters: v.Counters, receiver: receiveState(v.Receiver), mux: muxState(v.Mux),
			currentUntil: at(v.Current), waitUntil: at(v.Wait), periodic: at(v.Periodic), rate: v.Rate,
			actorChurn: churn{v.ActorLate, at(v.ActorChurn)}, partnerChurn: churn{v.PartnerLate, at(v.PartnerChurn)},
		}
	}
	return g, nil
}
