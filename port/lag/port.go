package lag

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/internal/linux/afpacket"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/proto/lacp"
	"github.com/vswitch/vswitch/port"
)

// Port is an open lag port. One goroutine follows the members' interfaces and runs LACP; one
// for each member reads its LACPDUs. Workers go by table and slot.collects alone.
type Port struct {
	kind    kind
	slots   [maxMembers]*slot
	table   atomic.Pointer[table]
	view    atomic.Pointer[view] // for those who must not wait
	changed chan struct{}        // see port.Linked

	lastChanged chan struct{} // see port.Lasting

	ended   chan *member  // their devices are gone
	wake    chan struct{} // has a value after the goroutine's next time may be earlier
	doubts  chan struct{} // has a value after a member did not take a frame
	ns      *link.Netns   // where the members are
	release func()        // of ns
	cancel  func()        // ends the events of interfaces

	closed  chan struct{}
	closing sync.Once
	running sync.WaitGroup

	pausing sync.Mutex // of members, as they come and as the port is paused
	paused  atomic.Bool

	mu       sync.Mutex
	settings Settings
	order    []*place // of the settings' members
	group    *lacp.Group
	current  int  // of active-backup: the slot that carries frames; -1: none
	given    bool // to another process: the port does nothing until Resume

	// Members that were just taken out: the partner may not have read yet that it is to send
	// no more by them.
	leaving []int // by slot

	sharedUntil time.Time // another process of the switch may have its programs at the devices

	// What Delete must undo for each member, also those that are not there now.
	traces map[string]port.Trace
	trace  *[]port.Trace
	keep   func(port.Trace) // see port.Trace.Intend

	counting sync.Mutex
	overruns uint64 // of members that are gone
}

// place is a member as the settings name it.
type place struct {
	name  string
	slot  *slot
	link  link.Link // as last seen; zero: not there
	why   string    // why there is no member, or why it cannot carry frames
	ahead string    // whose program sees its frames first
	again time.Time // when to try or to look again; zero: with the next event

	// absent: its interface went. The same one has the switch's mark when it comes back.
	absent bool
}

// view is what others see of a port.
type view struct {
	link    bool
	reason  string // why not
	notice  string
	members []port.Member
	trace   *[]port.Trace
	bundle  *port.Bundle
	last    *heirloom
}

var _ interface {
	port.Port
	port.Noticer
	port.Tracer
	port.Bundled
	port.Aggregate
	port.Exclusive
	port.Overrun
	port.Lasting
	port.Leaver
} = (*Port)(nil)

// retryGap is how long a member that could not be taken waits for the next try, unless its
// interface changes.
const retryGap = 2 * time.Second

// lookGap is how long a member is not looked at without an event: the kernel tells nobody of
// programs that somebody attaches or detaches.
const lookGap = 10 * time.Second

// open opens a port, with what another process gives of it unless h is nil.
func open(k kind, s port.Spec, trace *port.Trace, h *heritage) (_ *Port, err error) {
	p := &Port{
		kind: k, changed: make(chan struct{}, 1), lastChanged: make(chan struct{}, 1), ended: make(chan *member), wake: make(chan struct{}, 1), doubts: make(chan struct{}, 1), closed: make(chan struct{}),
		settings: port.SettingsOf[Settings](s), current: -1, traces: make(map[string]port.Trace), trace: trace.Members, keep: trace.Keep,
	}
	for i := range p.slots {
		p.slots[i] = &slot{port: p, index: i, filled: make(chan struct{}, 1)}
	}
	p.table.Store(&table{drop: port.DropNoCarrier, buckets: noBuckets})
	p.view.Store(&view{reason: "its members are being opened", bundle: &port.Bundle{Member: noBuckets}, last: &heirloom{buckets: noBuckets}})
	for _, t := range membersOf(*trace) {
		p.traces[t.Called()] = t
	}
	if p.ns, p.release, err = link.HoldNetns(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	defer func() {
		if err != nil {
			_ = p.Close()
		}
	}()
	// Watch first, so that no change between the two is missed.
	events, err := link.Watch(ctx)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.place(h)
	p.returnStrays()
	first, refused := p.takeAll(p.order, h)
	if h != nil && refused != nil {
		return nil, refused // the other process goes on with the members
	}
	if trace.Members != nil {
		refused = nil // the port was there before, and makes do with the other members
	}
	there := slices.ContainsFunc(p.order, func(pl *place) bool { return pl.slot.member.Load() != nil })
	if !there && h == nil || refused != nil {
		p.undo(p.order)
		return nil, cmp.Or(refused, first)
	}
	p.act(time.Now())
	trace.Members = p.trace
	p.running.Go(func() { p.run(ctx, events) })
	return p, nil
}

// takeAll takes members. It returns the first error, and the first that is not that an interface
// is not there. The caller holds mu, in the members' namespace.
func (p *Port) takeAll(all []*place, h *heritage) (first, refused error) {
	for _, pl := range all {
		err := p.take(pl, h.of(pl.name))
		first = cmp.Or(first, err)
		if err != nil && !errors.Is(err, port.ErrGone) {
			refused = cmp.Or(refused, err)
		}
	}
	return first, refused
}

// returnStrays gives back what is no member: a former process was killed while it changed the members. The
// caller holds mu, in the members' namespace.
func (p *Port) returnStrays() {
	for name, t := range maps.Clone(p.traces) {
		if !slices.Contains(p.settings.Members, name) && p.kind.giveBack(name, &p.settings, t) == nil {
			p.forget(name)
		}
	}
}

// undo gives members back. The caller holds mu.
func (p *Port) undo(all []*place) {
	for _, pl := range all {
		if m := pl.slot.member.Load(); m != nil {
			if last := m.parting.Load(); last != nil {
				m.send(*last)
			}
			p.drop(m, "")
		}
		if t, ok := p.traces[pl.name]; ok && p.kind.giveBack(pl.name, &p.settings, t) == nil {
			p.forget(pl.name)
		}
	}
}

// run follows the interfaces until the port is closed.
func (p *Port) run(ctx context.Context, events <-chan link.Event) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var glanced time.Time
	for {
		var ev link.Event
		var ended *member
		doubt := false
		select {
		case <-p.closed:
			return
		case e, ok := <-events:
			if !ok {
				events = p.watchAgain(ctx)
				continue
			}
			ev = e
		case ended = <-p.ended:
		case <-p.wake:
		case <-p.doubts:
			doubt = true
		case <-timer.C:
		}
		p.mu.Lock()
		if p.isClosed() {
			p.mu.Unlock()
			return
		}
		// Changes that cost frames take effect before anything slow.
		if ended != nil {
			p.drop(ended, "its interface was deleted or moved to another network namespace")
		}
		if ev.Index != 0 {
			p.follow(ev)
		}
		now := time.Now()
		if p.given {
			p.mu.Unlock()
			timer.Reset(time.Hour) // Resume wakes it
			continue
		}
		if since := now.Sub(glanced); since >= glanceEvery || doubt && since >= doubtEvery {
			glanced = now
			p.glance()
		}
		p.act(now)
		p.takeDue(now)
		next := p.act(time.Now())
		p.mu.Unlock()
		if at := glanced.Add(glanceEvery); at.Before(next) {
			next = at
		}
		timer.Reset(time.Until(next))
	}
}

// The kernel reports the loss of a carrier at once, but no more than one a second on the whole
// host (net/core/link_watch.c). Asked for the interface, it always knows.
const (
	glanceEvery = 50 * time.Millisecond
	doubtEvery  = 2 * time.Millisecond // after a member did not take a frame
)

// glance looks whether the members' cables are connected. The caller holds mu.
func (p *Port) glance() {
	_ = p.ns.Do(func() error {
		for _, pl := range p.order {
			m := pl.slot.member.Load()
			if m == nil {
				continue
			}
			l, err := link.ByIndex(m.index)
			if err != nil || l.Up == pl.link.Up && l.Carrier == pl.link.Carrier {
				continue
			}
			p.follow(link.Event{Link: l})
		}
		return nil
	})
}

// watchAgain watches the interfaces anew after the watch ended. Its first events are all
// interfaces.
func (p *Port) watchAgain(ctx context.Context) (events <-chan link.Event) {
	for {
		select {
		case <-p.closed:
			return nil
		case <-time.After(retryGap):
		}
		err := p.ns.Do(func() (err error) {
			events, err = link.Watch(ctx)
			return err
		})
		if err == nil {
			return events
		}
	}
}

// follow notes the change of an interface. The caller holds mu.
func (p *Port) follow(ev link.Event) {
	for _, pl := range p.order {
		m := pl.slot.member.Load()
		switch {
		case m != nil && m.index == ev.Index && ev.Gone:
			p.drop(m, "its interface was deleted or moved to another network namespace")
		case m != nil && m.index == ev.Index:
			pl.link = ev.Link
			if t, has := p.traces[pl.name]; has && t.Ifname != ev.Name {
				p.remember(pl.name, ev.Link, t)
			}
			// A loss counts at once; who else uses it takes longer to find out.
			if why := unplugged(pl); why != "" {
				pl.why = why
			}
			m.looked = false
		case m == nil && !ev.Gone && ev.Name == pl.name:
			pl.again = time.Now()
		}
	}
}

// unplugged says why a member with a device cannot carry frames, as far as its link shows.
func unplugged(pl *place) string {
	switch l := pl.link; {
	case !l.Up:
		return fmt.Sprintf("%s is set down; `ip link set %s up` brings it back", l.Name, l.Name)
	case !l.Carrier:
		return fmt.Sprintf("the other end of %s is down or not there", l.Name)
	}
	return ""
}

// takeDue takes members whose time has come, and looks who else uses the others. The caller
// holds mu.
func (p *Port) takeDue(now time.Time) {
	due := func(pl *place) bool {
		m := pl.slot.member.Load()
		return !pl.again.IsZero() && !pl.again.After(now) || m != nil && !m.looked
	}
	if !slices.ContainsFunc(p.order, due) {
		return
	}
	_ = p.ns.Do(func() error {
		for _, pl := range p.order {
			m := pl.slot.member.Load()
			switch {
			case !due(pl):
			case m == nil:
				_ = p.take(pl, nil)
			default:
				p.look(pl, m)
			}
		}
		return nil
	})
}

// set changes the settings.
func (p *Port) set(o Settings) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isClosed() {
		return port.ErrClosed
	}
	defer func() {
		if !p.isClosed() {
			p.act(time.Now())
			p.poke()
		}
	}()
	from := p.settings
	if o.MTU != from.MTU {
		if err := p.setMTU(from.MTU, o.MTU); err != nil {
			_ = p.setMTU(o.MTU, from.MTU)
			return err
		}
		p.settings.MTU = o.MTU
	}
	stay, gone, come, err := p.rearrange(o.Members)
	if err == nil {
		if _, err = p.takeAll(come, nil); err != nil {
			p.undo(come)
		}
	}
	if err != nil {
		_ = p.setMTU(o.MTU, from.MTU)
		p.settings.MTU = from.MTU
		return err
	}
	for i, pl := range stay {
		p.rename(pl, o.Members[i])
	}
	p.settings, p.order = o, stay
	if o.Mode.isLACP() != from.Mode.isLACP() {
		p.regroup()
	}
	if p.group != nil {
		p.group.SetFast(time.Now(), o.LACPRate == "fast")
		p.group.SetMinLinks(time.Now(), o.MinLinks)
		for _, pl := range gone {
			if p.group.Collects(pl.slot.index) {
				p.leaving = append(p.leaving, pl.slot.index)
			}
			p.group.Remove(time.Now(), pl.slot.index)
		}
	}
	p.act(time.Now()) // the others take over before a member goes
	if len(p.leaving) > 0 {
		p.mu.Unlock()
		select {
		case <-time.After(lingerTime):
		case <-p.closed:
		}
		p.mu.Lock()
		p.leaving = nil
		if p.isClosed() {
			return port.ErrClosed
		}
	}
	p.undo(gone)
	return nil
}

// lingerTime is how long a member that was taken out still takes frames: until the partner sends
// no more by it. Linux looks ten times a second what LACP has it do.
const lingerTime = 250 * time.Millisecond

// rename gives a place the name that the settings have for its member from now on.
func (p *Port) rename(pl *place, name string) {
	t, ok := p.traces[pl.name]
	if pl.name == name || !ok {
		return
	}
	delete(p.traces, pl.name)
	pl.name = name
	p.remember(name, pl.link, t)
}

// rearrange finds places for the named members: those that stay, in the order of the names with
// those that come, and those that go. A member stays also if the name is the one that its interface
// got meanwhile.
func (p *Port) rearrange(names []string) (all, gone, come []*place, err error) {
	used := make(map[*slot]bool)
	for _, pl := range p.order {
		used[pl.slot] = true
		if !slices.Contains(names, pl.name) {
			gone = append(gone, pl)
		}
	}
	for _, name := range names {
		if i := slices.IndexFunc(p.order, func(pl *place) bool { return pl.name == name }); i >= 0 {
			all = append(all, p.order[i])
			continue
		}
		renamed := func(pl *place) bool { return pl.slot.member.Load() != nil && pl.link.Name == name }
		if i := slices.IndexFunc(gone, renamed); i >= 0 {
			all, gone = append(all, gone[i]), slices.Delete(gone, i, i+1)
			continue
		}
		i := slices.IndexFunc(p.slots[:], func(s *slot) bool { return !used[s] })
		if i < 0 {
			return nil, nil, nil, fmt.Errorf("there is room for %d members with those that go; take some out first, then add the others", maxMembers)
		}
		used[p.slots[i]] = true
		pl := &place{name: name, slot: p.slots[i]}
		all, come = append(all, pl), append(come, pl)
	}
	return all, gone, come, nil
}

// poke has the goroutine look at the time again.
func (p *Port) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// setMTU changes the MTU of all members that are there.
func (p *Port) setMTU(from, to int) error {
	was, is := Settings{MTU: from}, Settings{MTU: to}
	for _, s := range p.slots {
		if m := s.member.Load(); m != nil {
			if err := m.device.Set(was.use(), is.use()); err != nil && !errors.Is(err, port.ErrGone) {
				return err
			}
		}
	}
	return nil
}

// regroup starts or ends LACP. The caller holds mu.
func (p *Port) regroup() {
	p.disband()
	p.current = -1
	if !p.settings.Mode.isLACP() {
		return
	}
	for _, pl := range p.order {
		if m := pl.slot.member.Load(); m != nil {
			p.join(pl, m)
		}
	}
}

// disband ends the group, and has the partner send no more by the members. The caller holds mu.
func (p *Port) disband() {
	if p.group == nil {
		return
	}
	for i := range p.slots {
		p.group.Remove(time.Now(), i)
	}
	p.sendLACP()
	p.group = nil
}

// sendLACP sends what the group has to send. The caller holds mu.
func (p *Port) sendLACP() {
	for _, o := range p.group.Sent() {
		if m := p.slots[o.Member].member.Load(); m != nil {
			m.send(o.Frame)
		}
	}
}

// join adds a member to the group, and makes the group if it is the first. The caller holds mu.
func (p *Port) join(pl *place, m *member) {
	if !p.settings.Mode.isLACP() {
		return
	}
	if p.group == nil {
		// The system is the port, not the switch: no other port can have one of its members.
		p.group = lacp.New(lacp.Config{System: m.mac, Key: 1, Fast: p.settings.LACPRate == "fast", MinLinks: p.settings.MinLinks})
	}
	if was, ok := p.group.Member(pl.slot.index); ok && was.Address == m.mac {
		return // another process gave the group
	}
	p.group.Add(time.Now(), pl.slot.index, m.mac)
}

// Queues implements port.Port.
func (p *Port) Queues() []port.Queue {
	all := make([]port.Queue, len(p.slots))
	for i, s := range p.slots {
		all[i] = s
	}
	return all
}

// Caps implements port.Port.
func (p *Port) Caps() port.Caps { return afpacket.Caps() }

// Ifindex implements port.Device: the port is no interface of the host.
func (p *Port) Ifindex() int { return 0 }

// Exclusive implements port.Exclusive.
func (p *Port) Exclusive() bool { return true }

// Link implements port.Linked.
func (p *Port) Link() bool { return p.view.Load().link }

// LinkError implements port.Linked.
func (p *Port) LinkError() error {
	if v := p.view.Load(); !v.link {
		return errors.New(v.reason)
	}
	return nil
}

// LinkChanged implements port.Linked.
func (p *Port) LinkChanged() <-chan struct{} { return p.changed }

// Notice implements port.Noticer.
func (p *Port) Notice() string { return p.view.Load().notice }

// Trace implements port.Tracer.
func (p *Port) Trace() port.Trace { return port.Trace{Members: p.view.Load().trace} }

// Members implements port.Bundled.
func (p *Port) Members() []port.Member { return p.view.Load().members }

// SetParting implements port.Bundled.
func (p *Port) SetParting(queue int, frame []byte) {
	m := p.slots[queue].member.Load()
	switch {
	case m == nil:
	case frame == nil:
		m.parting.Store(nil)
	default:
		m.parting.Store(&frame)
	}
}

// Punted implements port.KernelEnd.
func (p *Port) Punted() bool { return p.kind.Ingress != nil }

// Bundle implements port.Aggregate.
func (p *Port) Bundle() *port.Bundle { return p.view.Load().bundle }

// Overruns implements port.Overrun.
func (p *Port) Overruns() uint64 {
	p.counting.Lock()
	defer p.counting.Unlock()
	n := p.overruns
	for _, s := range p.slots {
		if m := s.member.Load(); m != nil {
			n += m.device.Overruns()
		}
	}
	return n
}

func (p *Port) isClosed() bool {
	select {
	case <-p.closed:
		return true
	default:
		return false
	}
}

// Close implements port.Port. The members keep their settings until Delete.
func (p *Port) Close() error { return p.end((*member).close) }

// Leave implements port.Leaver.
func (p *Port) Leave() error { return p.end((*member).leave) }

// end is Close, with what closes a member.
func (p *Port) end(closeMember func(*member)) error {
	p.closing.Do(func() {
		close(p.closed)
		p.cancel()
		p.mu.Lock()
		if !p.given {
			p.disband()
		}
		p.table.Store(&table{drop: port.DropPortClosed, buckets: noBuckets})
		for _, s := range p.slots {
			if m := s.member.Load(); m != nil {
				p.takeOut(m)
				closeMember(m)
			}
		}
		p.mu.Unlock()
		p.running.Wait()
		p.release()
	})
	return nil
}

// summary joins what keeps members from carrying frames.
func summary(members []port.Member) string {
	var all []string
	for _, m := range members {
		if m.State != port.MemberActive && m.State != port.MemberStandby {
			all = append(all, m.Reason)
		}
	}
	return strings.Join(all, "; ")
}
