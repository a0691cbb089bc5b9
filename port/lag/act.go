package lag

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vswitch/vswitch/internal/proto/lacp"
	"github.com/vswitch/vswitch/port"
)

// act decides which members carry frames, and has them do so. It returns when it must be called
// again. The caller holds mu.
func (p *Port) act(now time.Time) (next time.Time) {
	next = now.Add(time.Hour)
	up := make([]*place, 0, maxMembers) // those that could carry frames
	for _, pl := range p.order {
		m := pl.slot.member.Load()
		fit := m != nil && pl.why == ""
		if fit {
			up = append(up, pl)
		}
		if p.group != nil && m != nil {
			p.group.SetUp(now, pl.slot.index, fit)
		}
		if !pl.again.IsZero() && pl.again.Before(next) {
			next = pl.again
		}
	}
	if p.group != nil {
		if at := p.group.Tick(now); !at.IsZero() && at.Before(next) {
			next = at
		}
		p.sendLACP()
	}
	in, out := p.elect(up)
	in = append(in, p.leaving...)
	p.enact(in, out)
	p.show(in, out)
	return next
}

// elect returns the slots by which frames come and leave.
func (p *Port) elect(up []*place) (in, out []int) {
	for _, pl := range up {
		i := pl.slot.index
		switch p.settings.Mode {
		case modeStatic:
			in, out = append(in, i), append(out, i)
		case modeBackup:
			if i == p.current {
				in, out = []int{i}, []int{i}
			}
		default:
			if p.group.Collects(i) {
				in = append(in, i)
			}
			if p.group.Distributes(i) {
				out = append(out, i)
			}
		}
	}
	able := len(out)
	if p.settings.Mode == modeBackup {
		if able = len(up); out == nil && able > 0 {
			in = []int{up[0].slot.index}
			out = in
		}
		p.current = -1
		if out != nil {
			p.current = out[0]
		}
	}
	if able < p.settings.MinLinks {
		return nil, nil
	}
	return in, out
}

// enact has members carry frames.
func (p *Port) enact(in, out []int) {
	for i, s := range p.slots {
		s.collects.Store(slices.Contains(in, i))
	}
	was := p.table.Load()
	t := &table{hash: p.settings.Hash, buckets: was.rebalance(out)}
	if len(out) == 0 {
		t.drop = port.DropNoCarrier
	}
	for _, i := range out {
		t.queues[i] = p.slots[i].member.Load().queue
	}
	if len(out) == 1 {
		t.only = t.queues[out[0]]
	}
	if *t != *was {
		p.table.Store(t)
	}
}

// show publishes what others see of the port, and tells them of a change.
func (p *Port) show(in, out []int) {
	was := p.view.Load()
	v := &view{link: len(out) > 0, trace: p.trace, bundle: was.bundle, last: was.last}
	if b := p.bundle(in); *b != *was.bundle {
		v.bundle = b
	}
	for _, pl := range p.order {
		v.members = append(v.members, p.describe(pl, in, out))
	}
	problems := summary(v.members)
	var ahead []string
	for _, pl := range p.order {
		if pl.ahead != "" {
			ahead = append(ahead, pl.ahead)
		}
	}
	switch {
	case v.link && problems != "":
		v.notice = "a member carries no frames: " + problems
	case v.link:
		v.notice = strings.Join(ahead, "; ")
	case !v.link && problems != "":
		v.reason = problems
	case !v.link:
		v.reason = fmt.Sprintf("fewer members than --min-links %d can carry frames", p.settings.MinLinks)
	}
	if l := p.heirloom(); !l.like(was.last) {
		v.last = l
	}
	p.view.Store(v)
	if v.last != was.last {
		select {
		case p.lastChanged <- struct{}{}:
		default:
		}
	}
	if v.bundle != was.bundle && p.kind.Ingress != nil {
		p.kind.Ingress.Bundled(p)
	}
	if v.link != was.link || v.notice != was.notice || v.reason != was.reason || v.trace != was.trace || !slices.Equal(states(v), states(was)) {
		select {
		case p.changed <- struct{}{}:
		default:
		}
	}
}

// bundle describes the port to a fast path, which chooses members as its table does.
func (p *Port) bundle(in []int) *port.Bundle {
	b := &port.Bundle{Spread: p.settings.Hash.spread(), Member: p.table.Load().buckets}
	for i, s := range p.slots {
		if m := s.member.Load(); m != nil {
			b.Devices[i] = m.index
			b.From[i] = m.device.Punted() && slices.Contains(in, i)
		}
	}
	return b
}

// states returns the states of the members.
func states(v *view) (all []port.MemberState) {
	for _, m := range v.members {
		all = append(all, m.State)
	}
	return all
}

// describe describes a member.
func (p *Port) describe(pl *place, in, out []int) port.Member {
	i := pl.slot.index
	d := port.Member{Ifname: pl.name, Queue: i, Reason: pl.why}
	m := pl.slot.member.Load()
	var l lacp.Member
	if m != nil && p.group != nil {
		l, _ = p.group.Member(i)
		d.LACP = describeLACP(l)
	}
	switch {
	case m == nil && pl.link.Index == 0:
		d.State = port.MemberWaiting
	case m == nil, pl.why != "" && (!pl.link.Up || pl.link.Carrier):
		d.State = port.MemberDown
	case pl.why != "":
		d.State = port.MemberNoCarrier
	case slices.Contains(out, i):
		d.State = port.MemberActive
	case l.Few:
		d.State, d.Reason = port.MemberStandby, tooFew
	case p.group != nil && !p.group.Distributes(i):
		d.State, d.Reason = port.MemberNegotiating, negotiating(pl.name, l)
	default:
		d.State, d.Reason = port.MemberStandby, "another member carries the frames"
		if len(out) == 0 {
			d.Reason = tooFew
		}
	}
	return d
}

const tooFew = "too few members can carry frames"

// negotiating says what LACP waits for.
func negotiating(name string, l lacp.Member) string {
	switch {
	case l.Loop:
		return fmt.Sprintf("the cable of %s leads back to this port", name)
	case !l.Heard:
		return fmt.Sprintf("the other end of %s does not speak LACP", name)
	case l.Other:
		return fmt.Sprintf("%s leads to %v (key %d), other members lead elsewhere", name, l.Partner.System, l.Partner.Key)
	case !l.Selected:
		return fmt.Sprintf("the other end of %s does not aggregate it with others", name)
	case l.Partner.State&lacp.Synchronized == 0:
		return fmt.Sprintf("%v does not take %s into its group", l.Partner.System, name)
	}
	return fmt.Sprintf("%s is about to join", name)
}

func describeLACP(l lacp.Member) *port.LACPMember {
	d := &port.LACPMember{
		State: l.Actor.State.Names(), Churn: l.ActorChurn || l.PartnerChurn,
		Sent: l.Counters.Sent, Received: l.Counters.Received, Discarded: l.Counters.Discarded + l.Counters.Excess,
	}
	if l.Heard {
		d.Partner = &port.LACPPartner{System: l.Partner.System, Key: l.Partner.Key, Port: l.Partner.Port, State: l.Partner.State.Names()}
	}
	return d
}
