// Package vswitch is the forwarding core: a MAC-learning Ethernet switch (802.1Q-2018
// clause 8) between ports that its callers open. Any goroutine may use a Switch and its
// Ports. The core starts one worker per queue of an attached port. It knows no port kind
// and makes no system call. Every frame that it does not deliver has exactly one named
// drop reason.
//
// A frame passes the files in this order: worker, ingress, vlan, learn, forward, flood or
// multicast, egress, drop.
package vswitch

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
)

// MaxPorts is the most ports one switch can have: a port's number must fit the FDB entry
// and stay below fdb.NoPort.
const MaxPorts = 4096

var (
	// ErrExists is returned for a port whose name is taken.
	ErrExists = errors.New("port exists")
	// ErrClosed is returned by a Switch after Close.
	ErrClosed = errors.New("switch is closed")
)

// Config configures New. The zero Config is useful.
type Config struct {
	FDB fdb.Config

	// OnEvent receives events of the data path, one at a time, from one goroutine. While
	// it runs, workers continue; MAC moves beyond a small backlog are not reported.
	OnEvent func(Event)

	// OnControl receives the protocol frames selected by SetTree, SetTraps, SetGroups and
	// Traps. One goroutine calls it, not that of OnEvent. Frames beyond a port's share of
	// the queues are dropped.
	OnControl func(ControlFrame)

	// FastPath forwards what it can below the switch; nil: none.
	FastPath FastPath

	// Losses shows what the kernel's devices lose in silence; nil: nobody does.
	Losses Losses

	Traps []Trap // of all ports

	Held bool // no port receives before Resume
}

// Switch is one learning switch.
type Switch struct {
	fdb      *fdb.Table
	ports    atomic.Pointer[portSet]
	patient  atomic.Bool // see patience.go
	vecs     sync.Pool   // of *outputs
	fast     FastPath    // nil: none
	losses   Losses      // nil: none
	seen     *observers
	events   events
	polling  polling
	control  control
	traps    []Trap // Config.Traps
	start    time.Time
	injected atomic.Uint64

	mu           sync.Mutex // serialises changes of the set of ports
	byName       map[string]*Port
	workers      uint32 // started so far
	groups       *Groups
	stage        *Stage // of ports without one of their own
	mirrors      []Mirror
	watches      []*Watch
	groupForward uint16
	departed     PortStats // of removed ports
	batched      BatchSizes
	closed       bool
	held         bool        // no port receives; see Hold
	impatient    *time.Timer // ends patient; nil: it never began
	stop         chan struct{}
	running      sync.WaitGroup
}

// portSet is an immutable snapshot of the ports. A worker loads it once per batch; every
// change of a port publishes a new one.
type portSet struct {
	byNumber     []*member // nil where no port takes part in forwarding
	flood        []*member // the same without gaps
	groups       *Groups   // nil: multicast is flooded
	groupForward uint16    // reserved addresses that are forwarded
	mirrors      int       // number of mirrors
	watches      []watch
}

// member is what a worker needs of a port that takes part in forwarding.
type member struct {
	number uint16
	flags  flags
	vlanRules
	dev    port.Port
	queues []port.Queue
	tx     []txCounters

	port                *Port
	storm               storm
	police              *bucket
	traps               []Trap
	stage               *Stage // nil: none
	mirrorIn, mirrorOut []tap
	mirrorTo            uint8 // the first mirrors, a bit each, whose copies leave by it
	sampler             *Sampler
}

// New makes a switch without ports.
func New(cfg Config) *Switch {
	seen := &observers{first: cfg.FDB.Observer}
	if cfg.FastPath != nil {
		seen.first = cfg.FastPath
	}
	cfg.FDB.Observer = seen
	s := &Switch{
		fdb:    fdb.New(cfg.FDB),
		seen:   seen,
		fast:   cfg.FastPath,
		losses: cfg.Losses,
		byName: make(map[string]*Port),
		traps:  cfg.Traps,
		start:  time.Now(),
		stop:   make(chan struct{}),
		held:   cfg.Held,
	}
	s.ports.Store(&portSet{})
	if s.fast != nil {
		s.fast.Bind(s.fdb)
		s.fast.Show(s.showCopy)
		s.fast.TakeFloods(s.takesFloods)
	}
	s.vecs.New = func() any { return new(outputs) }
	s.events.init(cfg.OnEvent)
	s.control.init(cfg.OnControl)
	s.running.Go(func() { s.events.run(s.stop) })
	s.running.Go(func() { s.control.run(s.stop) })
	s.running.Go(s.age)
	return s
}

// FDB returns the switch's forwarding database.
func (s *Switch) FDB() *fdb.Table { return s.fdb }

// AddPort makes a port: a name, a number and counters. It carries nothing until a device
// is attached and forwarding is on.
func (s *Switch) AddPort(name string) (*Port, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if s.byName[name] != nil {
		return nil, fmt.Errorf("%w: %s", ErrExists, name)
	}
	used := make([]bool, len(s.byName)+1)
	for _, p := range s.byName {
		if int(p.number) < len(used) {
			used[p.number] = true
		}
	}
	number := slices.Index(used, false)
	if number >= MaxPorts {
		return nil, fmt.Errorf("the switch has %d ports, and can have no more", MaxPorts)
	}
	p := &Port{sw: s, name: name, number: uint16(number), tx: make([]txCounters, txShards)}
	for q := range p.lanes {
		p.lanes[q].port, p.lanes[q].queue = p, Queue(q)
	}
	p.vlan, _ = resolveVLAN(&p.config.VLAN) // the zero VLAN is valid
	s.byName[name] = p
	return p, nil
}

// Port returns the port of that name, or nil if there is none.
func (s *Switch) Port(name string) *Port {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byName[name]
}

// Ports returns all ports, ordered by number.
func (s *Switch) Ports() []*Port {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Port, 0, len(s.byName))
	for _, p := range s.byName {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *Port) int { return int(a.number) - int(b.number) })
	return all
}

// RemovePort detaches the port and removes it with all its FDB entries. A later port may
// get its number.
func (s *Switch) RemovePort(name string) error {
	s.mu.Lock()
	p := s.byName[name]
	s.mu.Unlock()
	if p == nil {
		return fmt.Errorf("no port %s", name)
	}
	err := p.Detach()
	st := p.Stats() // the last: nothing counts any more
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byName[name] == p {
		s.departed.add(st)
		s.batched.add(p.batchSizes())
		p.removed = true
		p.setShape(port.Rate{}).stop()
		s.fdb.RemovePort(p.number)
		delete(s.byName, name)
	}
	return err
}

// closeAtOnce is how many ports Close detaches at a time: the kernel takes tens of
// milliseconds to release a device, and no longer for several at once.
const closeAtOnce = 64

// Close detaches all ports and ends all goroutines. No event is reported after it returns.
func (s *Switch) Close() error { return s.close(port.Port.Close) }

func (s *Switch) close(end func(port.Port) error) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	ports := s.Ports()
	errs := make([]error, len(ports))
	slots := make(chan struct{}, closeAtOnce)
	var detached sync.WaitGroup
	for i, p := range ports {
		slots <- struct{}{}
		detached.Go(func() {
			errs[i] = p.detach(end)
			<-slots
		})
	}
	detached.Wait()
	s.mu.Lock()
	for _, p := range s.byName {
		p.setShape(port.Rate{}).stop()
	}
	if s.impatient != nil {
		s.impatient.Stop()
	}
	s.mu.Unlock()
	close(s.stop)
	s.running.Wait()
	return errors.Join(errs...)
}

// publish publishes a new snapshot to the workers. The caller holds mu.
func (s *Switch) publish() {
	set := &portSet{groups: s.groups, groupForward: s.groupForward}
	for _, p := range s.byName {
		if !p.active() {
			continue
		}
		if n := int(p.number) + 1; n > len(set.byNumber) {
			set.byNumber = slices.Grow(set.byNumber, n-len(set.byNumber))[:n]
		}
		m := &member{
			number: p.number, flags: p.flagsOf(), vlanRules: p.vlan,
			dev: p.at.dev, queues: p.at.queues, tx: p.tx,
			port: p, storm: p.storm, police: p.police, traps: p.trapsOf(), stage: p.stageOf(), sampler: p.sampler,
		}
		if p.shaper != nil {
			m.queues = p.shaper.attach(p.at.queues)
		}
		set.byNumber[p.number] = m
	}
	for _, m := range set.byNumber {
		if m != nil {
			set.flood = append(set.flood, m)
		}
	}
	s.addTaps(set)
	s.addWatches(set)
	s.ports.Store(set)
	s.publishFast(set)
	s.publishLosses(set)
}

// age advances the FDB's coarse clock and reclaims expired entries. Before that it calls
// Refresh if due, so that stations heard only by the fast path do not expire.
func (s *Switch) age() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var asked time.Time
	var took time.Duration
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
			s.fdb.Advance(time.Since(s.start))
			if now := time.Now(); s.fast != nil && now.Sub(asked) >= refreshEvery(s.fdb.Aging(), took) {
				s.fast.Refresh()
				asked, took = now, time.Since(now)
			}
			s.fdb.Sweep(0)
		}
	}
}
