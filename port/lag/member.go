package lag

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/internal/linux/afpacket"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/nic"
	"github.com/vswitch/vswitch/internal/linux/owner"
	"github.com/vswitch/vswitch/internal/proto/lacp"
	"github.com/vswitch/vswitch/port"
)

// member is a member whose interface the port has.
type member struct {
	slot     *slot
	index    int // of the interface
	mac      port.MAC
	device   *nic.Device
	queue    port.Queue
	listener *afpacket.Listener
	parting  atomic.Pointer[[]byte] // the last frame that it sends; nil: none
	done     chan struct{}          // closed once it is closed

	parked, unparked chan struct{} // have a value while listen waits, and when it may go on

	looked bool // nobody else used it when it last changed
}

// take takes the interface of a member, with what another process gives of it, or notes why not.
// The caller holds mu, in the members' namespace.
func (p *Port) take(pl *place, from *givenMember) error {
	pl.again = time.Time{}
	m, l, t, err := p.openMember(pl, from)
	pl.link = l
	if err != nil {
		pl.why = err.Error()
		if !errors.Is(err, port.ErrGone) {
			pl.again = time.Now().Add(retryGap)
		}
		return err
	}
	pl.absent = false
	p.remember(pl.name, l, t)
	pl.why = unplugged(pl)
	p.look(pl, m)
	p.join(pl, m)
	p.pausing.Lock()
	if p.paused.Load() {
		m.device.Pause()
	}
	pl.slot.member.Store(m)
	p.pausing.Unlock()
	pl.slot.rouse()
	p.running.Go(func() { p.listen(m) })
	return nil
}

// openMember opens the interface of a member, with what another process gives unless from is nil.
func (p *Port) openMember(pl *place, from *givenMember) (_ *member, l link.Link, t port.Trace, err error) {
	t = p.traces[pl.name]
	l, err = p.kind.find(pl.name, t)
	if errors.Is(err, link.ErrNotFound) {
		p.miss(pl)
		return nil, l, t, port.Gone(fmt.Errorf("interface %s is not there; `ip link` lists those that are", pl.name))
	}
	if err != nil {
		return nil, l, t, err
	}
	if pl.absent && !owner.Marked(l, p.kind.Switch) {
		p.forget(pl.name) // another interface of that name, with its own settings
		t = port.Trace{}
	}
	// What the switch made itself is a port; what it took has a record, as has a member of former times.
	if (l.Kind == "tap" || l.Kind == "veth") && t.Before == nil && owner.Makes(l, p.kind.Switch, port.Trace{}) {
		return nil, l, t, fmt.Errorf("%s is the device of another port of this switch; a device is one port", l.Name)
	}
	how := p.settings.use()
	if from != nil {
		how.From = from.device()
	}
	intended := false
	t.Keep = func(t port.Trace) { intended = true; p.intend(pl.name, t) }
	defer func() {
		if intended && err != nil {
			p.intend("", port.Trace{})
		}
	}()
	d, err := p.kind.taker().Take(l, how, &t)
	if err != nil {
		return nil, l, t, err
	}
	m := &member{
		slot: pl.slot, index: l.Index, mac: port.MACFrom(l.MAC[:]), device: d, queue: d.Queues()[0],
		done: make(chan struct{}), parked: make(chan struct{}), unparked: make(chan struct{}),
	}
	if from != nil {
		m.listener, err = afpacket.TakeListener(l.Index, from.files[from.Files])
	} else {
		m.listener, err = afpacket.Listen(l.Index, lacp.EtherType)
	}
	if err != nil {
		d.Close()
		if from == nil { // another process needs it
			_ = p.kind.taker().Return(l, p.settings.use(), t)
		}
	}
	t.Keep = nil
	return m, l, t, err
}

// hostLinks are the host's interfaces.
type hostLinks struct{}

func (hostLinks) ByIndex(index int) (link.Link, error) { return link.ByIndex(index) }
func (hostLinks) IPv4(index int) (netip.Prefix, error) { return link.IPv4(index) }

// look finds out whether somebody else uses the interface of a member. The caller holds mu, in
// the members' namespace.
func (p *Port) look(pl *place, m *member) {
	m.looked, pl.again = true, time.Now().Add(lookGap)
	l, err := link.ByIndex(m.index)
	if err != nil || !m.device.Bound() {
		return // an event will tell
	}
	pl.link = l
	pl.why = unplugged(pl)
	why := owner.Held(hostLinks{}, l, p.kind.Switch, true)
	if err := m.device.Renew(); why == "" && err != nil {
		why = err.Error()
	}
	if pl.ahead = l.Ahead(); pl.ahead == "" {
		if other := m.device.Overtaken(); other != "" {
			pl.ahead = l.Name + ": " + other
		}
	}
	if err := m.device.Contested(); why == "" && err != nil {
		pl.again = time.Now().Add(retryGap)
		if time.Now().After(p.sharedUntil) {
			why = err.Error()
		}
	}
	if why != "" {
		pl.why = why
		pl.again = time.Now().Add(retryGap) // events do not report every end of that
	}
}

// listen reads the LACPDUs that come by a member, until that is closed.
func (p *Port) listen(m *member) {
	// A partner that floods the port with them gets no more of the processor than this.
	const rest = time.Millisecond
	b := make([]byte, lacp.Len+64)
	for {
		n, err := m.listener.Recv(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			select {
			case m.parked <- struct{}{}:
			case <-m.done:
				return
			}
			select {
			case <-m.unparked:
			case <-m.done:
				return
			}
			continue
		}
		if err != nil {
			return
		}
		p.mu.Lock()
		if m.slot.member.Load() == m && p.group != nil {
			now := time.Now()
			_ = p.group.Receive(now, m.slot.index, b[:n]) // its counters tell of an error
			p.act(now)
			p.poke()
		}
		p.mu.Unlock()
		select {
		case <-m.done:
			return
		case <-time.After(rest):
		}
	}
}

// unpark lets listen go on after Give.
func (m *member) unpark() {
	m.listener.Interrupt(false)
	select {
	case m.unparked <- struct{}{}:
	case <-m.done:
	}
}

// drop takes a member out: why says that its interface is gone. The caller holds mu.
func (p *Port) drop(m *member, why string) {
	if m.slot.member.Load() != m {
		return
	}
	m.slot.collects.Store(false)
	if p.group != nil {
		p.group.Remove(time.Now(), m.slot.index)
	}
	for _, pl := range p.order {
		if pl.slot == m.slot {
			if why != "" {
				p.miss(pl)
			}
			pl.link, pl.ahead, pl.why = link.Link{}, "", fmt.Sprintf("%s: %s", pl.name, why)
			pl.again = time.Now()
		}
	}
	p.takeOut(m)
	p.act(time.Now()) // the others take over
	m.close()
}

// takeOut makes a member none of the port. The caller holds mu.
func (p *Port) takeOut(m *member) {
	p.counting.Lock()
	defer p.counting.Unlock()
	p.overruns += m.device.Overruns()
	m.slot.member.Store(nil)
}

// close releases what a member holds that was taken out.
func (m *member) close() {
	_ = m.listener.Close()
	_ = m.device.Close()
	close(m.done)
}

// leave is close in a process that ends.
func (m *member) leave() {
	m.listener.Interrupt(true)
	_ = m.device.Leave()
	close(m.done)
}

// send sends an LACPDU before all that waits. The caller holds mu.
func (m *member) send(frame []byte) {
	var f port.Frame
	f.SetStripped(frame, 0)
	m.queue.Send([]port.Out{{Frame: &f, Flags: port.Control}})
}

// remember notes what to undo for a member, and where. The caller holds mu.
func (p *Port) remember(name string, l link.Link, t port.Trace) {
	owner.Note(&t, l)
	p.traces[name] = called(name, t)
	p.retrace()
}

// called returns a trace with the name of its member.
func called(name string, t port.Trace) port.Trace {
	t.Name = ""
	if t.Ifname != name {
		t.Name = name // it was renamed
	}
	return t
}

// miss notes that the interface of a member is not there. Its index may be another's by now. The
// caller holds mu.
func (p *Port) miss(pl *place) {
	pl.absent = true
	if t, ok := p.traces[pl.name]; ok {
		t.Ifindex = 0
		p.traces[pl.name] = t
		p.retrace()
	}
}

// forget forgets what to undo for a member.
func (p *Port) forget(name string) {
	if _, ok := p.traces[name]; ok {
		delete(p.traces, name)
		p.retrace()
		p.intend("", port.Trace{})
	}
}

// intend keeps what to undo for all members, with what is about to be done to one unless its name is empty.
func (p *Port) intend(name string, t port.Trace) {
	all := maps.Clone(p.traces)
	if t.Keep = nil; name != "" {
		all[name] = called(name, t)
	}
	port.Trace{Members: inOrder(all), Keep: p.keep}.Intend()
}

func (p *Port) retrace() { p.trace = inOrder(p.traces) }

// inOrder lists what to undo for members.
func inOrder(traces map[string]port.Trace) *[]port.Trace {
	all := []port.Trace{}
	for _, name := range slices.Sorted(maps.Keys(traces)) {
		all = append(all, traces[name])
	}
	return &all
}
