package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/link"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// managed is one port that was asked for, and what became of it.
//
//	            open            link lost, port lost
//	(restore) ───────▶ attached ───────────────────▶ waiting
//	                      ▲       open, on a link event │
//	                      └─────── or when retry is due ┘
//
// An attached port is up, no-carrier or down, as its interface is; or waiting, where
// its peer comes and goes (port.Linked); or down because a guard shut it down.
type managed struct {
	spec  port.Spec
	trace port.Trace
	kind  port.Kind // nil: of a kind that this build does not have
	sw    *vswitch.Port
	dev   port.Port // nil while waiting
	link  link.Link // as last seen; zero where there is none to see
	speed uint64    // of the link in bit/s, as last seen; 0: not known

	claimed chan struct{} // not nil while somebody works on its device; see claim
	changed bool          // its interface has changed meanwhile
	leaving bool          // it is to be removed once that is on disk

	state  api.State
	reason string // why it is waiting, or what shut it down

	unfit    *unfit    // not nil: its settings could not be put in force; it passes nothing
	shutBy   string    // the guard that shut it down, and why; empty: none did
	recovery time.Time // when it comes back by itself; zero: not at all
	unwatch  func()    // ends what follows the link of dev; see watchLink

	attached time.Time     // when dev was
	tried    time.Time     // when open was called last
	retry    time.Time     // when to call it next; zero: not by time
	backoff  time.Duration // what the next failure adds
}

// unfit is a port whose settings are kept and cannot be put in force.
type unfit struct {
	why      string
	settings setting.Patch // as they were kept
	openable bool          // those of its kind are right: its device is there for its machine
}

const (
	// A port that waits is tried again after minBackoff, then after twice as
	// long each time, up to maxBackoff: for what link events do not tell, such
	// as a device in another namespace, or a right that was granted.
	minBackoff = time.Second
	maxBackoff = 30 * time.Second

	// eventGap is how long after a failed try a link event can cause the
	// next: a try causes events itself.
	eventGap = 200 * time.Millisecond
)

// ifname is the name of the port's interface, as last seen.
func (p *managed) ifname() string {
	if p.link.Name != "" {
		return p.link.Name
	}
	return p.trace.Ifname
}

// adopted tells whether the port's device was there before the switch. Such a
// device is somebody else's to bring back.
func (p *managed) adopted() bool { return p.trace.Ifname != "" && !p.trace.Created }

// station reports whether one station is behind the port, not a network.
func (p *managed) station() bool { return p.kind == nil || p.kind.Describe().Station }

func (p *managed) unknownKind() error {
	return fmt.Errorf("port %s is of the kind %q, which this vswitch does not have; run one that has it, or remove the port", p.spec.Name, p.spec.Kind)
}

// open attaches the port, which is claimed or not known to others yet, to its
// device. An error leaves it as it was.
func (m *manager) open(p *managed) (err error) {
	p.tried, p.retry, p.changed = time.Now(), time.Time{}, false
	if p.kind == nil {
		return p.unknownKind()
	}
	if err := p.kind.Check(p.spec); err != nil {
		return err
	}
	spec, trace := p.spec, p.trace
	if p.adopted() {
		m.off(func() { err = m.there(spec, trace) })
		if err != nil {
			// What comes back under the name will be another device, with
			// settings of its own.
			p.trace = port.Trace{Ifname: spec.Name}
			return err
		}
	}
	var dev port.Port
	var seen sight
	defer func() {
		if dev != p.dev && dev != nil { // the switch stopped meanwhile
			dev.Close()
		}
	}()
	m.off(func() {
		if dev, err = p.kind.Open(spec, &trace); err == nil {
			seen = m.see(dev)
		}
	})
	if err != nil {
		return err
	}
	if err := p.sw.Attach(dev); err != nil {
		return err
	}
	p.trace = trace
	p.dev, p.attached = dev, time.Now()
	p.unwatch = m.watchLink(p, dev)
	m.note(p, seen)
	return nil
}

// there returns an error if an adopted device is gone.
func (m *manager) there(spec port.Spec, trace port.Trace) error {
	_, err := m.links.ByName(spec.Name)
	if err != nil && trace.Ifname != spec.Name {
		_, err = m.links.ByName(trace.Ifname)
	}
	if errors.Is(err, link.ErrNotFound) {
		return gone("interface " + spec.Name + " is not there; make it again and the port takes it up")
	}
	return nil
}

// sight is what the kernel says of a port's interface.
type sight struct {
	index int // 0: there is none to see
	link  link.Link
	speed uint64 // of its link in bit/s; 0: not known
	err   error
}

// see reads the interface of a port. The kernel may take its time, so it is called
// off the turn.
func (m *manager) see(dev port.Port) (s sight) {
	d, ok := dev.(port.Device)
	if !ok || d.Ifindex() == 0 {
		return s
	}
	s.index = d.Ifindex()
	s.link, s.err = m.links.ByIndex(s.index)
	if s.err == nil {
		s.speed = linkSpeed(s.link.Name)
	}
	return s
}

// note keeps what was seen of a port's interface, and reports whether it is there.
func (m *manager) note(p *managed, s sight) bool {
	p.link, p.speed = link.Link{}, s.speed
	switch {
	case s.index == 0:
		return true
	case errors.Is(s.err, link.ErrNotFound):
		return false
	case s.err != nil:
		// Better a guess that lets frames pass than a port shut in vain; the
		// next event corrects it.
		m.log.Warn("reading an interface", "port", p.spec.Name, "error", s.err)
		s.link = link.Link{Index: s.index, Name: p.ifname(), Up: true, Carrier: true}
	}
	p.link, p.trace.Ifname = s.link, s.link.Name
	return true
}

// settle brings the state of an attached port in line with what look saw.
func (m *manager) settle(p *managed) {
	switch l := p.link; {
	case p.unfit != nil:
		p.sw.SetForwarding(false)
		m.setState(p, api.StateDown, p.unfit.why)
	case p.shutBy != "":
		p.sw.SetForwarding(false)
		m.setState(p, api.StateDown, errDisabled+p.shutBy)
	case !p.connected():
		// Forwarding stays on, as without a carrier.
		p.sw.SetForwarding(true)
		if p.state == api.StateUp {
			m.forget(p)
		}
		m.setState(p, api.StateWaiting, p.linkError())
	case l.Index == 0:
		p.sw.SetForwarding(true)
		m.setState(p, api.StateUp, "")
	case !l.Up:
		p.sw.SetForwarding(false)
		m.setState(p, api.StateDown, "")
	case l.Carrier:
		p.sw.SetForwarding(true)
		m.setState(p, api.StateUp, "")
	default:
		// Forwarding stays on: a VM's first frame can be here before the news
		// of its carrier is, and must not be lost.
		p.sw.SetForwarding(true)
		if p.state == api.StateUp {
			m.forget(p)
		}
		m.setState(p, api.StateNoCarrier, "")
	}
}

// follow looks at the interface of a claimed port and does what its change asks.
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
		if !p.changed {
			return
		}
	}
}

func (m *manager) followTo(p *managed, seen sight) {
	name := p.trace.Ifname
	if !m.note(p, seen) {
		// The next device of that name is another one.
		if p.trace.Created {
			p.trace = port.Trace{}
		} else {
			p.trace = port.Trace{Ifname: p.spec.Name}
		}
		m.lose(p, gone("interface "+name+" was deleted or moved to another network namespace"))
		return
	}
	if p.trace.Ifname != name {
		m.log.Info("interface renamed", "port", p.spec.Name, "from", name, "to", p.trace.Ifname)
		m.saveTrace()
	}
	m.settle(p)
}

// linkChanged looks after the ports that a changed interface concerns.
func (m *manager) linkChanged(ev link.Event) {
	for _, p := range m.ports {
		switch d, ok := p.dev.(port.Device); {
		case ok && d.Ifindex() == ev.Index && p.claimed != nil:
			p.changed = true // whoever has the port looks, or the timer
		case ok && d.Ifindex() == ev.Index:
			m.attend(p, func() { m.follow(p) })
		case p.dev == nil && (ev.Name == p.spec.Name || ev.Name == p.trace.Ifname):
			p.changed = true // after it was looked at for the open that is under way, perhaps
			if !ev.Gone {
				p.retryAt(p.tried.Add(eventGap))
			}
		}
	}
}

// portLost does what is needed when a port's device ended by itself.
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

// lose detaches a claimed port whose device is gone, and has it tried again: at
// once, if it had been well for a while.
func (m *manager) lose(p *managed, why error) {
	p.unwatch()
	p.dev, p.link = nil, link.Link{}
	var err error
	m.off(func() { err = p.sw.Detach() })
	if err != nil {
		m.log.Debug("closing a lost port", "port", p.spec.Name, "error", err)
	}
	if time.Since(p.attached) >= maxBackoff {
		p.backoff = 0
	}
	m.setState(p, api.StateWaiting, why.Error())
	p.retry = time.Now().Add(p.backoff)
	p.raiseBackoff()
}

// wait records that a port could not be opened, and when to try again.
func (m *manager) wait(p *managed, why error) {
	m.setState(p, api.StateWaiting, why.Error())
	if p.kind == nil {
		return
	}
	p.raiseBackoff()
	p.retry = time.Now().Add(p.backoff)
}

func (p *managed) raiseBackoff() {
	p.backoff = min(max(2*p.backoff, minBackoff), maxBackoff)
}

// retryAt brings the next try forward.
func (p *managed) retryAt(t time.Time) {
	if p.kind != nil && (p.retry.IsZero() || t.Before(p.retry)) {
		p.retry = t
	}
}

// tryOpen opens a port that waits, and tells whether that did it.
func (m *manager) tryOpen(p *managed) bool {
	if p.unfit != nil && !p.unfit.openable {
		m.setState(p, api.StateDown, p.unfit.why)
		return false
	}
	if err := m.open(p); err != nil {
		m.wait(p, err)
		return false
	}
	m.settle(p)
	return true
}

// retryDue opens the ports whose time has come, and ends what guards did for a time.
func (m *manager) retryDue() {
	now := time.Now()
	m.recoverDue(now)
	m.releaseDue(now)
	if !m.resave.IsZero() && !m.resave.After(now) {
		m.saveTrace()
	}
	for _, p := range m.sorted() {
		switch {
		case p.claimed != nil:
		case p.dev != nil && p.changed:
			m.attend(p, func() { m.follow(p) })
		case p.dev == nil && !p.retry.IsZero() && !p.retry.After(now):
			m.attend(p, func() {
				if m.tryOpen(p) {
					m.saveTrace()
				}
			})
		}
	}
}

// nextRetry is how long until retryDue has something to do.
func (m *manager) nextRetry() time.Duration {
	next := m.moves.next(time.Now())
	if !m.resave.IsZero() {
		next = min(next, max(0, time.Until(m.resave)))
	}
	for _, p := range m.ports {
		switch {
		case p.claimed != nil: // whoever has it gives the turn back when done
		case p.dev == nil && !p.retry.IsZero():
			next = min(next, max(0, time.Until(p.retry)))
		case p.dev != nil && p.changed:
			next = 0
		}
		if !p.recovery.IsZero() {
			next = min(next, max(0, time.Until(p.recovery)))
		}
	}
	return next
}

// setState notes the state, and tells the log when it is another.
func (m *manager) setState(p *managed, to api.State, reason string) {
	from := p.state
	p.state, p.reason = to, reason
	if from == to {
		return
	}
	level := slog.LevelInfo
	if to == api.StateWaiting || to == api.StateDown {
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{
		slog.String("port", p.spec.Name), slog.String("kind", p.spec.Kind), slog.String("state", string(to)),
	}
	if from != "" {
		attrs = append(attrs, slog.String("was", string(from)))
	}
	if reason != "" {
		attrs = append(attrs, slog.String("reason", reason))
	}
	m.log.LogAttrs(context.Background(), level, "port state", attrs...)
	if to == api.StateUp {
		m.enter(p) // detaching the port's device forgot them
	}
	if was, is := from == api.StateUp, to == api.StateUp; was != is {
		m.linked(p, is)
	}
}

// gone is an error that says that the device is not there but may come.
type gone string

func (g gone) Error() string { return string(g) }
func (gone) Unwrap() error   { return port.ErrGone }
