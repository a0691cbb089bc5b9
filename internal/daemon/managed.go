package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/owner"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// managed is one configured port and its current state.
//
//	            open            link lost, port lost
//	(restore) ───────▶ attached ───────────────────▶ waiting
//	                      ▲       open, on a link event │
//	                      └─────── or when retry is due ┘
//
// An attached port is up, no-carrier or down, as its interface is; or waiting, if its peer comes
// and goes (port.Linked); or down, if a guard shut it down.
type managed struct {
	spec  port.Spec
	trace port.Trace
	kind  port.Kind // nil: this build lacks the kind
	sw    *vswitch.Port
	dev   port.Port // nil while waiting
	link  link.Link // as last seen; zero: no interface to see
	speed uint64    // of the link in bit/s, as last seen; 0: unknown

	shaping shaping // how its egress rate is kept

	needs   port.Needs    // of the process, while the port is open or opening
	claimed chan struct{} // not nil while a goroutine works on its device; see claim
	changed bool          // its interface changed meanwhile
	leaving bool          // it will be removed once that is on disk

	held  string    // who else uses the device, as last seen; see takenBy
	ahead string    // whose program sees its frames first, as last seen; see port.Overtaken
	look  time.Time // when to look at the device again though no event came

	state  api.State
	reason string // why it is not up
	failed string // why dev could not be opened or was lost

	indexed int       // its key in manager.devices
	lost    int       // index of the lost device, until its fate is known
	lostAt  time.Time // when it was lost
	missed  bool      // it is gone, and whether it was moved was not heard
	again   time.Time // earliest time to reopen a lost port

	elsewhere link.Place  // where the device was moved to; zero: not known
	departure *link.Event // event that its device is gone, until the port loss is handled

	lines   lineLimit // limits log lines about its states
	noticed string    // last notice logged; see port.Noticer

	unfit    *unfit    // not nil: its settings could not be applied; it passes nothing
	shutBy   string    // the guard that shut it down, and why; empty: none
	recovery time.Time // when it recovers by itself; zero: never
	unwatch  func()    // stops watching the link of dev; see watchLink

	from      *port.Parcel // what another process gave, while the port is taken
	inherited *port.Parcel // what one that has died had, until the port is open
	begun     *store.Port  // what a process that was killed had begun with it, until the port is open

	aim atomic.Pointer[store.Spec] // what it is, or is about to be; for the journal

	attached time.Time     // when dev was attached
	tried    time.Time     // when open was last called
	retry    time.Time     // when to call it next; zero: not scheduled
	backoff  time.Duration // delay after the next failure
}

// unfit describes a port whose settings are kept but cannot be applied.
type unfit struct {
	why      string
	settings setting.Patch // as they were kept
	openable bool          // the kind's own settings are valid: the device is there for its machine
}

const (
	// A waiting port is retried after minBackoff, then after twice as long each time, up to
	// maxBackoff. Retries catch what link events do not report, such as a device in another
	// namespace or a granted permission.
	minBackoff = time.Second
	maxBackoff = 30 * time.Second

	// eventGap is the least time between a failed try and one that a link event causes, since a
	// try causes events itself.
	eventGap = 200 * time.Millisecond

	// A device is looked at every lookGap, for what raises no link event: programs that somebody
	// attaches. With many ports a look has lookShare of the time.
	lookGap   = 10 * time.Second
	lookShare = 20 * time.Millisecond

	// newsGap is how long a port that lost its device waits to learn what became of it: a moved
	// device must not be replaced.
	newsGap = time.Second
)

// ifname returns the name of the port's interface, as last seen.
func (p *managed) ifname() string {
	if p.link.Name != "" {
		return p.link.Name
	}
	return p.trace.Ifname
}

// adopted reports whether the port's device existed before the switch. Only its owner may make
// such a device again.
func (p *managed) adopted() bool { return p.trace.Ifname != "" && !p.trace.Created }

// station reports whether one station is behind the port, not a network.
func (p *managed) station() bool { return p.kind == nil || p.kind.Describe().Station }

// hasStation is station, but for what the user says about bridges behind the port.
func (p *managed) hasStation() bool {
	return p.spec.Edge == port.AutoOn || p.spec.Edge != port.AutoOff && p.station()
}

func (p *managed) unknownKind() error {
	return fmt.Errorf("port %s is of the kind %q, which this vswitch does not have; run one that has it, or remove the port", p.spec.Name, p.spec.Kind)
}

// open attaches the port to its device. The port is claimed or not yet visible to others. On
// error it is unchanged.
func (m *manager) open(p *managed) (err error) {
	first := p.tried.IsZero()
	p.tried, p.retry, p.changed = time.Now(), time.Time{}, false
	if p.kind == nil {
		return p.unknownKind()
	}
	if err := p.kind.Check(p.spec); err != nil {
		return err
	}
	if first || p.lost != 0 {
		m.seek(p)
		if p.missed && p.trace.Away == "" {
			p.forgetDevice()
		}
		p.missed = false
	}
	if err := m.stillAway(p); err != nil {
		return err
	}
	if err := m.makeRoom(p, 0); err != nil {
		return err
	}
	if err := m.attach(p); err != nil {
		m.free(p)
		m.correct(p)
		return err
	}
	return nil
}

// attach is the slow part of open.
func (m *manager) attach(p *managed) (err error) {
	spec, trace := p.spec, p.trace
	if p.adopted() {
		m.off(func() { err = there(p.kind, spec, trace) })
		if err != nil {
			// The next device of that name is another one, with its own settings.
			p.trace = port.Trace{Ifname: spec.Name}
			return err
		}
	}
	if err := m.reserve(p); err != nil {
		return err
	}
	p.aimAt(spec)
	m.keepsTrace(p, &trace)
	var dev port.Port
	var seen sight
	var shaped shaping
	defer func() {
		if err != nil {
			m.unindex(p)
		}
	}()
	defer func() {
		if dev != p.dev && dev != nil { // the switch stopped meanwhile
			dev.Close()
		}
	}()
	m.off(func() {
		if dev, err = m.openKind(p, spec, &trace); err == nil {
			shaped = m.shapeNew(p, dev, spec)
			seen = m.see(dev)
		}
	})
	if err != nil {
		return err
	}
	// An existing device can have another number of queues than requested.
	if err := m.makeRoom(p, len(dev.Queues())); err != nil {
		return err
	}
	m.keepsRate(p, shaped)
	if err := p.sw.Attach(dev); err != nil {
		return err
	}
	trace.Keep = nil
	p.trace = trace
	p.dev, p.attached = dev, time.Now()
	p.lost, p.departure = 0, nil
	stopLink, stopLasting := m.watchLink(p, dev), m.watchLasting(p, dev)
	p.unwatch = func() { stopLink(); stopLasting() }
	m.note(p, seen)
	m.keep(p)
	if p.begun != nil {
		p.begun = nil
		m.retrace(p)
		m.correct(p)
	}
	return nil
}

// openKind opens a port by its kind, with what another process gave of it, if there is something.
func (m *manager) openKind(p *managed, spec port.Spec, trace *port.Trace) (port.Port, error) {
	if p.from != nil {
		return p.kind.(port.Heir).Take(spec, trace, p.from)
	}
	if b := p.begun; b != nil && p.inherited == nil {
		switch dev, err := m.finishPort(*b, spec, trace); {
		case err != nil:
			m.log.Warn("a change that was not finished is not taken back as a whole", "port", spec.Name, "error", err)
		case dev != nil:
			return dev, nil
		}
	}
	dev, err := p.inherit(spec, trace)
	if err != nil {
		m.log.Info("a port is opened anew", "port", spec.Name, "reason", err)
	}
	if dev == nil {
		return p.kind.Open(spec, trace)
	}
	return dev, nil
}

// there returns an error if an adopted device is gone.
func there(kind port.Kind, spec port.Spec, trace port.Trace) error {
	if f, ok := as[port.Finder](kind); ok {
		if _, is := f.Find(spec, trace); !is {
			return gone("interface " + spec.Name + " is not there; make it again and the port takes it up")
		}
	}
	return nil
}

// sight is what the kernel reports about a port's interface.
type sight struct {
	index int // 0: no interface to see
	link  link.Link
	speed uint64 // of its link in bit/s; 0: unknown
	held  string // who else uses it, see heldBy
	ahead string // whose program sees its frames first
	kept  bool   // it keeps the rate that it has, see port.Shaping
	bound bool   // the port is still bound to it
	err   error
}

// see reads the port's interface. The kernel may be slow, so see is called without the turn.
func (m *manager) see(dev port.Port) (s sight) {
	d, ok := dev.(port.Device)
	if !ok || d.Ifindex() == 0 {
		return s
	}
	s.index = d.Ifindex()
	s.link, s.err = m.links.ByIndex(s.index)
	if s.err == nil {
		s.speed = linkSpeed(s.link.Name)
		s.held = cmp.Or(m.unprogrammed(dev), m.heldBy(dev, s.link))
		if o, ok := dev.(port.Overtaken); ok {
			s.ahead = o.Overtaken()
		}
		if d, ok := dev.(port.Shaping); ok {
			s.kept = d.Shapes()
		}
	}
	// Last: the index may belong to another device by now.
	s.bound = bound(dev)
	return s
}

// bound reports whether a port is still on its device, as far as it knows.
func bound(dev port.Port) bool {
	b, ok := dev.(port.Bound)
	return !ok || b.Bound()
}

// note records what see found and reports whether the interface exists.
func (m *manager) note(p *managed, s sight) bool {
	p.link, p.speed, p.held, p.ahead = link.Link{}, s.speed, s.held, s.ahead
	p.look = time.Now().Add(max(lookGap, time.Duration(len(m.ports))*lookShare))
	switch {
	case s.index == 0:
		return true
	case errors.Is(s.err, link.ErrNotFound), !s.bound:
		return false
	case s.err != nil:
		// A wrong guess that lets frames pass is better than a port shut down in vain; the next
		// event corrects it.
		m.log.Warn("reading an interface", "port", p.spec.Name, "error", s.err)
		s.link = link.Link{Index: s.index, Name: p.ifname(), Up: true, Carrier: true}
	}
	p.link, p.trace.Ifname, p.trace.MAC = s.link, s.link.Name, s.link.MACString()
	m.index(p, s.index)
	return true
}

// follow reads the interface of a claimed port and acts on its changes.
func (m *manager) follow(p *managed) {
	for {
		dev := p.dev
		if dev == nil {
			return
		}
		p.changed = false
		var seen sight
		m.off(func() { seen = m.see(dev) })
		if p.dev == dev {
			m.followTo(p, seen)
		}
		if p.dev == dev {
			m.shape(p, seen.kept)
		}
		if !p.changed {
			return
		}
	}
}

func (m *manager) followTo(p *managed, seen sight) {
	name, mac, own := p.trace.Ifname, p.trace.MAC, p.Own()
	if !m.note(p, seen) {
		m.lose(p, gone("interface "+name+" was deleted or moved to another network namespace"))
		return
	}
	p.departure = nil
	if p.trace.Ifname != name {
		m.log.Info("interface renamed", "port", p.spec.Name, "from", name, "to", p.trace.Ifname)
	}
	if p.trace.Ifname != name || p.trace.MAC != mac {
		m.saveTrace()
	}
	m.reconcile(p)
	m.notice(p)
	if p.Own() != own {
		m.configured(p)
	}
}

// followAll rereads the interfaces of all ports after link events were lost.
func (m *manager) followAll() {
	m.uppers = make(map[int]map[int]link.Link)
	for _, p := range m.sorted() {
		p.changed = true // the timer rereads it
		if p.dev == nil {
			p.retryAt(p.tried.Add(eventGap))
		}
	}
}

// linkChanged updates the ports that a changed interface concerns.
func (m *manager) linkChanged(ev link.Event) {
	m.interfaceChanged(m.devices[m.stacked(ev)])
	if p := m.devices[ev.Index]; p != nil {
		if ev.Gone {
			p.departure = &ev
		}
		m.interfaceChanged(p)
	}
	for _, p := range m.ports {
		switch {
		case p.dev != nil:
		case ev.Gone && p.lost == ev.Index:
			m.departed(p, ev)
		case ev.Name == p.spec.Name, ev.Name == p.trace.Ifname, owner.IsNumber(p.trace.Number, ev.Index):
			p.changed = true // a pending open may have read the old state
			p.retryAt(p.tried.Add(eventGap))
		}
	}
}

// interfaceChanged rereads the port's interface; p may be nil.
func (m *manager) interfaceChanged(p *managed) {
	switch {
	case p == nil || p.dev == nil:
	case p.claimed != nil:
		p.changed = true // the holder of the port rereads it, or the timer
	default:
		m.attend(p, func() { m.follow(p) })
	}
}

// departed records what became of the device that a port lost.
func (m *manager) departed(p *managed, ev link.Event) {
	p.departure = nil
	if p.missed = ev.Missed; !p.missed {
		p.lost = 0
		if ev.Moved {
			p.trace.Away, p.elsewhere = m.boot, ev.To
			m.saveTrace()
		} else {
			p.forgetDevice()
		}
	} // else the next open finds out
	p.retryAt(p.again)
}

// forgetDevice forgets the device of a port, which was deleted: the next one of that name is another.
func (p *managed) forgetDevice() {
	if p.trace.Created {
		p.trace = port.Trace{}
	} else {
		p.trace = port.Trace{Ifname: p.spec.Name}
	}
}

// seek finds out whether a port's device, which is not there, was moved to another network namespace
// while no daemon ran, or nobody heard of it.
func (m *manager) seek(p *managed) {
	f, ok := as[port.Finder](p.kind)
	if !ok || p.trace.MAC == "" || !owner.Here(p.trace.Number) {
		return
	}
	spec, trace, lost := p.spec, p.trace, p.lostAt
	var at link.Place
	m.off(func() {
		if _, is := f.Find(spec, trace); is {
			return
		}
		all, err := m.strays.since(lost)
		if err != nil {
			m.log.Warn("looking for a device in other network namespaces", "port", spec.Name, "interface", trace.Ifname, "error", err)
		}
		for _, s := range all {
			if s.Link.MACString() == trace.MAC {
				at = s.Place
			}
		}
	})
	if at != (link.Place{}) {
		p.lost, p.trace.Away, p.elsewhere = 0, m.boot, at
		m.saveTrace()
	}
}

// strayList are the interfaces of the switch in other network namespaces. Listing them takes a while
// where there are many, so that ports share a list.
type strayList struct {
	list func() ([]link.Stray, error)

	mu  sync.Mutex
	at  time.Time // zero: not listed yet
	all []link.Stray
	err error
}

// since returns what was listed after t.
func (s *strayList) since(t time.Time) ([]link.Stray, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at.IsZero() || s.at.Before(t) {
		s.at = time.Now()
		s.all, s.err = s.list()
	}
	return s.all, s.err
}

// stillAway returns an error while the port's device is in another network namespace, from where
// it may come back: its machine has it open. After a reboot it is gone.
func (m *manager) stillAway(p *managed) error {
	if p.trace.Away == "" {
		return nil
	}
	if f, ok := as[port.Finder](p.kind); ok && p.trace.Away == m.boot {
		spec, trace := p.spec, p.trace
		var index int
		var is bool
		elsewhere, netns := p.elsewhere, ""
		m.off(func() {
			if index, is = f.Find(spec, trace); !is {
				if netns = elsewhere.Name(); netns != "" {
					netns = " (" + netns + ")"
				}
			}
		})
		// Another port's device can have the name by now.
		if other := m.devices[index]; !is || other != nil && other != p {
			return gone(fmt.Sprintf("interface %s was moved to another network namespace%s; move it back, or delete the port and add it again", trace.Ifname, netns))
		}
	}
	p.trace.Away, p.elsewhere = "", link.Place{}
	return nil
}

// returnElsewhere gives the device of a removed port back that was moved to another network namespace,
// so that others may have it.
func (m *manager) returnElsewhere(p *managed) {
	if p.trace.Away == "" || p.trace.Away != m.boot {
		return
	}
	spec, trace, before := p.spec, p.trace, ""
	if trace.Before != nil {
		before = trace.Before.Alias
	}
	mover, ok := as[port.Mover](p.kind)
	var err error
	m.off(func() {
		err = p.elsewhere.Do(func(l link.Link) error {
			if ok {
				return mover.ReturnMoved(l.Index, spec, trace)
			}
			return owner.Release(l, m.name, before)
		})
	})
	if err != nil && !errors.Is(err, link.ErrNotFound) {
		m.log.Warn("a device in another network namespace keeps the port's settings, and the alias that says it is the switch's; take that off there with `ip link set NAME alias \"\"`",
			"port", p.spec.Name, "interface", p.trace.Ifname, "reason", err)
	}
}

// portLost handles a port whose device ended by itself.
func (m *manager) portLost(ev vswitch.PortLost) {
	p := m.ports[ev.Port.Name()]
	if p == nil {
		return
	}
	m.claim(p)
	defer p.release()
	if p.dev != nil && p.dev == ev.Dev {
		m.lose(p, ev.Err)
	}
}

// lose detaches a claimed port whose device is gone and schedules a retry, immediately if it was
// up for maxBackoff.
func (m *manager) lose(p *managed, why error) {
	p.unwatch()
	if d, ok := p.dev.(port.Device); ok {
		p.lost, p.lostAt = d.Ifindex(), time.Now()
	}
	m.unindex(p)
	m.unkeep(p)
	m.keepsRate(p, shaping{})
	p.dev, p.link, p.held, p.ahead, p.failed = nil, link.Link{}, "", "", why.Error()
	var err error
	m.off(func() { err = p.sw.Detach() })
	if err != nil {
		m.log.Debug("closing a lost port", "port", p.spec.Name, "error", err)
	}
	m.free(p)
	if time.Since(p.attached) >= maxBackoff {
		p.backoff = 0
	}
	p.again = time.Now().Add(p.backoff)
	p.retry = p.again
	if t := time.Now().Add(newsGap); p.lost != 0 && t.After(p.retry) {
		p.retry = t
	}
	p.raiseBackoff()
	if ev := p.departure; ev != nil && ev.Index == p.lost {
		m.departed(p, *ev)
	}
	m.reconcile(p)
}

// wait records why a port could not be opened and when to retry.
func (m *manager) wait(p *managed, why error) {
	p.failed = why.Error()
	if p.kind != nil {
		p.raiseBackoff()
		p.retry = time.Now().Add(p.backoff)
	}
	m.reconcile(p)
	if was := p.trace.Created || !p.attached.IsZero(); was && errors.Is(why, port.ErrEnded) {
		go m.end(p, why)
	}
}

// end removes a port that is not needed any more, as a command would, without the turn. If that
// fails, the next try to open the port is the next try to remove it.
func (m *manager) end(p *managed, why error) {
	m.awaitRestored()
	err := m.change(func() error {
		if m.ports[p.spec.Name] != p || p.dev != nil || p.leaving {
			return nil
		}
		m.log.Info("a port ends", "port", p.spec.Name, "reason", why)
		return m.delPort(p.spec.Name, true)
	})
	if err != nil {
		m.log.Debug("a port that ended stays for now", "port", p.spec.Name, "error", err)
	}
}

func (p *managed) raiseBackoff() {
	p.backoff = min(max(2*p.backoff, minBackoff), maxBackoff)
}

// retryAt moves the next try forward.
func (p *managed) retryAt(t time.Time) {
	if p.kind != nil && (p.retry.IsZero() || t.Before(p.retry)) {
		p.retry = t
	}
}

// tryOpen opens a waiting port and reports whether it succeeded.
func (m *manager) tryOpen(p *managed) bool {
	if p.unfit != nil && !p.unfit.openable {
		m.reconcile(p)
		return false
	}
	if err := m.open(p); err != nil {
		m.wait(p, err)
		return false
	}
	m.reconcile(p)
	return true
}

// retryDue does what is due: it opens and rereads ports, recovers those that guards shut down,
// and logs what was left out of the log.
func (m *manager) retryDue() {
	now := time.Now()
	if !m.resave.IsZero() && !m.resave.After(now) {
		m.saveNow()
	}
	var due []*managed
	for _, p := range m.ports {
		if m.dueIn(p, now) == 0 {
			due = append(due, p)
		}
	}
	slices.SortFunc(due, byNumber)
	for _, p := range due {
		if !p.recovery.IsZero() && !p.recovery.After(now) {
			m.recoverPort(p)
			if p.dev != nil {
				m.reconcile(p)
				p.changed = true // reread its interface
			}
		}
		if d, skipped := p.lines.next(now, stateWindow); skipped && d == 0 {
			m.logState(p, "")
		}
		switch {
		case m.deviceDueIn(p, now) > 0:
		case p.dev != nil:
			m.attend(p, func() { m.follow(p) })
		default:
			m.attend(p, func() {
				if m.tryOpen(p) {
					m.saveTrace()
				}
			})
		}
	}
}

// never is longer than anything is due in.
const never = time.Hour

// nextRetry returns the time until retryDue has work.
func (m *manager) nextRetry() time.Duration {
	now := time.Now()
	next := never
	if !m.resave.IsZero() {
		next = min(next, max(0, m.resave.Sub(now)))
	}
	for _, p := range m.ports {
		next = min(next, m.dueIn(p, now))
	}
	return next
}

// dueIn returns the time until retryDue has work for a port.
func (m *manager) dueIn(p *managed, now time.Time) time.Duration {
	next := m.deviceDueIn(p, now)
	if !p.recovery.IsZero() {
		next = min(next, max(0, p.recovery.Sub(now)))
	}
	if d, skipped := p.lines.next(now, stateWindow); skipped {
		next = min(next, d)
	}
	return next
}

// deviceDueIn returns the time until retryDue opens a port's device, or rereads it: soon while
// somebody else uses it.
func (m *manager) deviceDueIn(p *managed, now time.Time) time.Duration {
	next := never
	switch {
	case p.claimed != nil: // its holder wakes the timer when done
		return never
	case p.dev == nil && m.former != nil: // it is taken, not opened
		return never
	case p.dev != nil && p.changed:
		return 0
	}
	if !p.retry.IsZero() {
		next = min(next, max(0, p.retry.Sub(now)))
	}
	if p.dev != nil && p.link.Index != 0 {
		next = min(next, max(0, p.look.Sub(now)))
	}
	return next
}

// gone is an error: the device is not there but may come.
type gone string

func (g gone) Error() string { return string(g) }
func (gone) Unwrap() error   { return port.ErrGone }
