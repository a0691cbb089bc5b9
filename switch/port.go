package vswitch

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/vswitch/vswitch/port"
)

// Port is a port of the switch. It persists while devices come and go.
type Port struct {
	sw     *Switch
	name   string
	number uint16
	tx     []txCounters // shards; see txShards

	lanes [numQueues]lane
	moves atomic.Int32 // moves to the port that wait to be reported

	mirrored atomic.Uint64 // copies of frames that a fast path showed

	stuck atomic.Bool // it takes nothing; see patience.go

	asking sync.Mutex // comes before sw.mu; see Stats

	// The fields below are guarded by sw.mu.
	config      PortConfig
	vlan        vlanRules
	storm       storm
	police      *bucket
	turn        uint8 // of the last bucket; see FastRate
	tree        TreeState
	inTree      bool              // a spanning tree decides about tree
	resolution  bool              // SetResolution
	routerGuard bool              // SetRouterGuard
	traps       [numQueues][]Trap // beside those of all ports
	stage       *Stage            // its own; nil: none
	sampler     *Sampler          // nil: none
	shaper      *shaper
	rx          []*rxCounters // by queue; kept across devices
	overruns    uint64        // of detached devices
	behind      behind        // see takesFloods
	lost        uint64        // by detached devices
	unrouted    uint64        // of that, what had no route
	unplugged   bool          // nobody holds the other end
	told        uint64        // of all lost, how many are attributed to a reason
	nobody      uint64        // of those, how many were lost because nobody held it
	dropped     uint64        // by queues of detached devices
	silent      silent        // what of all that makes of the counters
	fast        PortStats     // of the fast path, for detached devices
	carried     PortStats     // of a former process
	at          *attachment   // nil while nothing is attached
	forwarding  bool
	removed     bool
}

// attachment is a device behind a port, with the workers that serve it.
type attachment struct {
	dev     port.Port
	queues  []port.Queue
	workers []*worker
	left    atomic.Int32 // workers that run
	lost    sync.Once    // reports the first worker that failed

	// The fields below are guarded by sw.mu.
	ended   chan struct{} // closed when no worker runs; nil: none was started
	paused  bool
	closing bool
}

// Name is the port's name, unique in its switch.
func (p *Port) Name() string { return p.name }

// Number is the port's number in FDB entries.
func (p *Port) Number() uint16 { return p.number }

// Device returns what is attached to the port; nil if nothing is. Its methods that any
// goroutine may call are for the caller's use; the rest is the switch's.
func (p *Port) Device() port.Port {
	p.sw.mu.Lock()
	defer p.sw.mu.Unlock()
	if p.at == nil {
		return nil
	}
	return p.at.dev
}

// Attach puts dev behind the port and starts a worker for each of its queues, unless the switch
// is held. The port then owns dev: Detach closes it.
func (p *Port) Attach(dev port.Port) error {
	s := p.sw
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return ErrClosed
	case p.removed:
		return fmt.Errorf("port %s was removed", p.name)
	case p.at != nil:
		return fmt.Errorf("port %s has a device already", p.name)
	}
	at := &attachment{dev: dev, queues: dev.Queues()}
	for i, q := range at.queues {
		if i == len(p.rx) {
			p.rx = append(p.rx, new(rxCounters))
		}
		at.workers = append(at.workers, &worker{
			sw: s, queue: q, index: i, port: p, in: p.number, rx: p.rx[i], shard: s.workers % txShards,
		})
		s.workers++
	}
	p.at = at
	p.publish()
	if !s.held {
		p.start(at)
	}
	return nil
}

// Detach closes the port's device and returns when its workers have ended. It removes
// learned entries and keeps counters. Without a device it does nothing.
func (p *Port) Detach() error { return p.detach(port.Port.Close) }

func (p *Port) detach(end func(port.Port) error) error {
	s := p.sw
	s.mu.Lock()
	at := p.at
	if at == nil {
		s.mu.Unlock()
		return nil
	}
	at.closing = true
	s.publish()
	s.mu.Unlock()

	err := end(at.dev)
	at.wait()

	a := p.ask()
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.at == at { // else a concurrent Detach was faster
		if o, ok := at.dev.(port.Overrun); ok {
			p.overruns += o.Overruns()
		}
		if s.fast != nil {
			p.fast.add(s.fast.Release(p.number))
		}
		p.lost += a.lost
		p.unrouted += a.unrouted
		p.dropped += a.dropped
		p.attribute(p.lost)
		p.at = nil
		s.fdb.FlushPort(p.number)
	}
	return err
}

// SetPlugged says whether somebody holds the other end of the port's device. What the device
// loses by itself meanwhile is counted accordingly; a new port counts as plugged.
func (p *Port) SetPlugged(is bool) {
	p.asking.Lock()
	defer p.asking.Unlock()
	p.sw.mu.Lock()
	same := p.unplugged == !is
	p.sw.mu.Unlock()
	if same {
		return
	}
	a := p.ask()
	p.sw.mu.Lock()
	defer p.sw.mu.Unlock()
	if p.at == a.at {
		p.attribute(p.lost + a.lost)
	}
	p.unplugged = !is
}

// attribute attributes what the devices lost since the last call. The caller holds Switch.mu.
func (p *Port) attribute(lost uint64) {
	if lost > p.told && p.unplugged {
		p.nobody += lost - p.told
	}
	p.told = max(p.told, lost)
}

// SetForwarding turns forwarding on or off. A port that does not forward passes no frames
// and loses its learned entries. A new port does not forward.
func (p *Port) SetForwarding(on bool) {
	s := p.sw
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.forwarding == on {
		return
	}
	p.forwarding = on
	s.publish()
	if !on {
		p.quiesce()
		s.fdb.FlushPort(p.number)
	}
}

// active reports whether frames may pass. The caller holds sw.mu.
func (p *Port) active() bool { return p.forwarding && p.at != nil && !p.at.closing }

// publish publishes a new snapshot to the workers if the port is in it. The caller holds
// sw.mu.
func (p *Port) publish() {
	if p.active() {
		p.sw.publish()
	}
}

// quiesce returns when no worker of the port uses an earlier snapshot, so that no batch in
// flight can undo a later change of the port's entries. A batch takes microseconds, a
// patient one a millisecond, and needs no lock that is held here.
func (p *Port) quiesce() {
	if p.at == nil {
		return
	}
	for _, w := range p.at.workers {
		w.hurry.Add(1)
		for at := w.batch.Load(); at&1 != 0 && w.batch.Load() == at; {
			runtime.Gosched()
		}
		w.hurry.Add(-1)
	}
}
