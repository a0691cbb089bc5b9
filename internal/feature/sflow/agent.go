package sflow

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/proto/sflow"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

const (
	// queueLen is how many samples and notifications wait to be sent.
	queueLen = 1024

	// wakeAt is how many of them wake the sender before its time. To wake it for each would
	// take longer than all else that a sample does.
	wakeAt = 256

	// flushEvery is how long a sample waits for others, so that one datagram has several. In all, a
	// sample may wait a second, some of it for the fast path.
	flushEvery = 250 * time.Millisecond
)

// agent is a running sFlow.
type agent struct {
	host     feature.Host
	set      Settings
	subAgent uint32
	unwatch  func() // nil: drops are not wanted
	refresh  func() // cancels the next refreshing
	queue    chan item
	wake     chan struct{} // many wait in it
	allowed  atomic.Int32  // notifications in this second
	round    atomic.Uint32 // of ticks
	sender   *sender

	mu      sync.RWMutex
	sources [vswitch.MaxPorts]*source // by port number
}

// source is a port as a data source.
type source struct {
	core  *vswitch.Port
	index uint32
	oneIn atomic.Uint32 // 0: not sampled

	// What workers count, and what the sender reads.
	pool, lost, silent atomic.Uint32                // frames; lost samples; drops without notification
	told               [port.NumDrops]atomic.Uint32 // the round of the last notification of each reason

	// Guarded by agent.mu.
	speed     uint64
	up, admin bool
	due       time.Time // of the next counters

	// The sender's, but for readers of the status.
	flows, counters, discards atomic.Uint32 // sequence numbers
}

// item is a sample or a notification that waits to be sent.
type item struct {
	from     *source
	discard  bool
	oneIn    uint32
	pool     uint32
	lost     uint32
	input    uint32
	output   sflow.Interface // of a notification: an ifIndex
	reason   sflow.Reason
	vlanIn   uint16
	prioIn   uint16
	vlanOut  uint16
	prioOut  uint16
	length   int
	size     int
	contents [vswitch.SampleLen]byte
}

func start(h feature.Host, settings Settings) (*agent, error) {
	a := &agent{host: h, set: settings.withDefaults(), subAgent: uint32(h.MAC()), queue: make(chan item, queueLen), wake: make(chan struct{}, 1)}
	s, err := newSender(a)
	if err != nil {
		return nil, err
	}
	a.sender = s
	if a.set.Drops > 0 {
		a.unwatch = h.Switch().Watch(&vswitch.Watch{Drops: true, Some: true, SnapLen: int(a.set.HeaderLen), See: a.seeDrop})
	}
	a.refresh = h.After(time.Duration(a.set.Interval), a.refreshAll)
	go s.run()
	return a, nil
}

// Stop implements feature.Instance.
func (a *agent) Stop() {
	a.refresh()
	if a.unwatch != nil {
		a.unwatch()
	}
	for _, s := range a.all() {
		s.core.Sample(nil)
	}
	a.sender.end()
}

// all returns the sources by number.
func (a *agent) all() (all []*source) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, s := range a.sources {
		if s != nil {
			all = append(all, s)
		}
	}
	return all
}

// source returns the source of a port; nil: it is gone.
func (a *agent) source(of *vswitch.Port) *source {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if s := a.sources[of.Number()]; s != nil && s.core == of {
		return s
	}
	return nil
}

// Configured implements feature.Configured.
func (a *agent) Configured(p feature.Port) {
	s := a.source(p.Core())
	if s == nil {
		s = &source{core: p.Core(), index: indexOf(p.Core())}
		// Counters of many ports do not come all at once.
		s.due = time.Now().Add(time.Duration(a.set.Interval) / 64 * time.Duration(p.Number()%64))
		a.mu.Lock()
		a.sources[p.Number()] = s
		a.mu.Unlock()
	}
	a.update(p, s)
	oneIn := feature.PortSettings[PortSettings](p).OneIn.of(a.set.OneIn)
	if s.oneIn.Swap(oneIn) == oneIn {
		return
	}
	if oneIn == 0 {
		p.Core().Sample(nil)
		return
	}
	p.Core().Sample(&vswitch.Sampler{OneIn: oneIn, See: func(v vswitch.Sample) { a.see(s, oneIn, &v) }})
}

// Linked implements feature.Linked.
func (a *agent) Linked(p feature.Port, _ bool) {
	if s := a.source(p.Core()); s != nil {
		a.update(p, s)
	}
}

// Removed implements feature.Removed.
func (a *agent) Removed(p feature.Port) {
	p.Core().Sample(nil)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sources[p.Number()] = nil
}

// update notes what the daemon knows of a port.
func (a *agent) update(p feature.Port, s *source) {
	speed, up, admin := p.Speed(), p.Up(), !p.Disabled()
	a.mu.Lock()
	defer a.mu.Unlock()
	s.speed, s.up, s.admin = speed, up, admin
}

// refreshAll updates all ports, whose peers come and go.
func (a *agent) refreshAll() {
	a.refresh = a.host.After(time.Duration(a.set.Interval), a.refreshAll)
	for p := range a.host.Ports() {
		if s := a.source(p.Core()); s != nil {
			a.update(p, s)
		}
	}
}

// indexOf returns the ifIndex of a port. 0 is no interface.
func indexOf(p *vswitch.Port) uint32 { return uint32(p.Number()) + 1 }

// see takes a sample. Workers and the fast path call it, several at a time.
func (a *agent) see(s *source, oneIn uint32, v *vswitch.Sample) {
	one := item{from: s, oneIn: oneIn, pool: s.pool.Add(v.Of), lost: s.lost.Add(v.Missed), input: s.index}
	why := v.Out.Drop
	switch {
	case why == port.DropConsumed || why == port.DropLocal:
		one.output = sflow.Internal
	case why != port.DropNone:
		one.output = sflow.Discarded(sflow.ReasonOf(why))
	case v.To != nil:
		one.output = sflow.Index(indexOf(v.To))
	default:
		one.output = sflow.Several
	}
	one.vlanIn, one.prioIn = v.VLAN, v.Out.Tag.TCI()>>13
	if why == port.DropNone {
		one.vlanOut, one.prioOut = v.VLAN, v.ToTag.TCI()>>13
		if v.ToTag.VID() != 0 {
			one.vlanOut = v.ToTag.VID()
		}
	}
	one.copy(&v.Sight, a.set.HeaderLen)
	if !a.put(&one) {
		s.lost.Add(1)
	}
}

// seeDrop takes a dropped frame. Workers and the fast path call it, several at a time.
func (a *agent) seeDrop(v vswitch.Sight) {
	s := a.source(v.Port)
	why := v.Out.Drop
	if s == nil || why == port.DropConsumed || why >= port.NumDrops {
		return
	}
	if v.Missed > 0 {
		s.silent.Add(v.Missed)
	}
	// In a round there is one notification of each reason at a port: a flood hides no other.
	round := a.round.Load()
	if s.told[why].Swap(round) == round || a.allowed.Add(-1) < 0 {
		s.silent.Add(1)
		return
	}
	one := item{from: s, discard: true, reason: sflow.ReasonOf(why)}
	if v.Sent {
		one.output = sflow.Interface(s.index)
	} else {
		one.input = s.index
	}
	one.copy(&v, a.set.HeaderLen)
	if !a.put(&one) {
		s.silent.Add(1)
	}
}

// copy copies the beginning of a frame.
func (one *item) copy(v *vswitch.Sight, most uint16) {
	one.length = v.Len()
	one.size = v.CopyTo(one.contents[:min(int(most), len(one.contents))])
}

// put puts an item into the queue, or returns false if that is full.
func (a *agent) put(one *item) bool {
	select {
	case a.queue <- *one:
		if len(a.queue) >= wakeAt {
			select {
			case a.wake <- struct{}{}:
			default:
			}
		}
		return true
	default:
		return false
	}
}

// status answers GET /v1/sflow.
func (a *agent) status() Status {
	st := a.sender.status()
	st.SubAgent, st.Ports = a.subAgent, []PortStatus{}
	for _, s := range a.all() {
		st.Ports = append(st.Ports, PortStatus{
			Name: s.core.Name(), Index: s.index, OneIn: s.oneIn.Load(),
			Samples: s.flows.Load(), Lost: s.lost.Load(), Drops: s.discards.Load(),
		})
	}
	return st
}

// localAddress returns the address from which an address is reached. Nothing is sent.
func localAddress(to Collector) (net.IP, error) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to.AddrPort))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).IP, nil
}
