package daemon

import (
	"fmt"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/port"
)

// facts are everything that determines the state of a port.
type facts struct {
	was api.State

	opened bool   // its device or socket is open
	failed string // why it is not

	unfit  string // why its settings could not be applied; empty: they are
	shutBy string // the guard that shut it down, and why; empty: none
	taken  string // who else uses its device, see takenBy; empty: nobody

	connected bool   // its peer is there, or the port cannot tell
	unlinked  string // why it is not

	device link.Link // its interface; zero if the switch sees none
}

// status is what the state of a port means for the switch and for users.
type status struct {
	state      api.State
	reason     string // in every state but up
	forwarding bool   // it passes frames
	flush      bool   // forget what was learned behind the port
}

// next derives the status from the facts. All decisions about a port's state are made here.
func next(f facts) status {
	// Forwarding stays on without a peer or carrier: a machine's first frame can arrive
	// before the event that it is there, and must not be lost.
	unplugged := func(state api.State, reason string) status {
		return status{state, reason, true, f.was == api.StateUp}
	}
	switch d := f.device; {
	case f.unfit != "":
		return status{state: api.StateDown, reason: f.unfit}
	case !f.opened:
		return status{state: api.StateWaiting, reason: f.failed}
	case f.shutBy != "":
		return status{state: api.StateDown, reason: errDisabled + f.shutBy}
	case f.taken != "":
		return status{state: api.StateDown, reason: f.taken}
	case !f.connected:
		return unplugged(api.StateWaiting, f.unlinked)
	case d.Index != 0 && !d.Up:
		return status{state: api.StateDown, reason: fmt.Sprintf("interface %s is set down; `ip link set %s up` brings it back", d.Name, d.Name)}
	case d.Index != 0 && !d.Carrier && d.Kind == "tap":
		return unplugged(api.StateNoCarrier, fmt.Sprintf("no virtual machine holds TAP %s", d.Name))
	case d.Index != 0 && !d.Carrier:
		return unplugged(api.StateNoCarrier, fmt.Sprintf("the other end of %s is down or not there", d.Name))
	}
	return status{state: api.StateUp, forwarding: true}
}

// facts gathers the facts about a port.
func (m *manager) facts(p *managed) facts {
	f := facts{was: p.state, opened: p.dev != nil, failed: p.failed, shutBy: p.shutBy, device: p.link}
	if p.unfit != nil {
		f.unfit = p.unfit.why
	}
	if f.opened {
		f.taken, f.connected, f.unlinked = m.takenBy(p), p.connected(), p.linkError()
	}
	return f
}

// reconcile brings a port's status in line with its facts.
func (m *manager) reconcile(p *managed) {
	f := m.facts(p)
	m.enact(p, next(f))
	if p.dev != nil {
		p.retry = time.Time{}
		if f.taken != "" {
			p.retry = time.Now().Add(takenGap)
		}
	}
}

// enact applies a status.
func (m *manager) enact(p *managed, s status) {
	p.sw.SetPlugged(s.state != api.StateNoCarrier)
	p.sw.SetForwarding(s.forwarding)
	if s.flush {
		m.forget(p)
	}
	was, old := p.state, p.reason
	p.state, p.reason = s.state, s.reason
	if was == s.state && (s.state != api.StateDown || old == s.reason) {
		return
	}
	m.emit(api.Event{Type: api.EventPortState, Port: p.spec.Name, From: string(was), To: string(s.state), Reason: s.reason})
	m.logState(p, was)
	if was == s.state {
		return
	}
	if was, is := was == api.StateUp, s.state == api.StateUp; was != is {
		m.linked(p, is)
	}
}

// reserve gives the port the sole right to open its kind's device: a device belongs to one
// port, whatever names it has.
func (m *manager) reserve(p *managed) error {
	f, ok := as[port.Finder](p.kind)
	if !ok {
		return nil
	}
	spec, trace, n := p.spec, p.trace, 0
	var device link.Link
	var err error
	m.off(func() {
		if err = m.claimed.Take(); err == nil {
			n, _ = f.Find(spec, trace)
			device, _ = m.links.ByIndex(n)
		}
	})
	if err != nil {
		return err
	}
	if has := m.devices[n]; has != nil && has != p {
		return fmt.Errorf("%s is the device of port %s already, and port %s would have it as well; a device is one port", device.Name, has.spec.Name, spec.Name)
	}
	m.index(p, n)
	return nil
}

// index records the index of the port's device, by which link events find the port.
func (m *manager) index(p *managed, number int) {
	if number != p.indexed {
		m.unindex(p)
	}
	if number != 0 {
		m.devices[number], p.indexed = p, number
	}
}

func (m *manager) unindex(p *managed) {
	if m.devices[p.indexed] == p {
		delete(m.devices, p.indexed)
	}
	p.indexed = 0
}

// forget removes the entries learned behind a port.
func (m *manager) forget(p *managed) {
	m.sw.FDB().FlushPort(p.sw.Number())
	for f := range instances[feature.Forgotten](m) {
		f.Forgotten(p)
	}
}
