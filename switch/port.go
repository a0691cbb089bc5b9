package vswitch

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/vswitch/vswitch/port"
)

// Port is a port of the switch: what stays the same while devices come and go.
type Port struct {
	sw     *Switch
	name   string
	number uint16
	tx     []txCounters // shards; see txShards

	lanes [numQueues]lane
	moves atomic.Int32 // to the port, that wait to be reported

	// Below, guarded by sw.mu.
	config     PortConfig
	vlan       vlanRules
	storm      storm
	police     *bucket
	tree       TreeState
	bpdus      bool   // bpduTrap is set
	traps      []Trap // besides bpduTrap and those of all ports
	shaper     *shaper
	rx         []*rxCounters // by queue; kept from one device to the next
	overruns   uint64        // of devices that were detached
	lost       uint64        // by devices that were detached
	fast       PortStats     // of the fast path, for devices that were detached
	at         *attachment   // nil while nothing is attached
	forwarding bool
	removed    bool
}

// attachment is a device behind a port, with the workers that serve it.
type attachment struct {
	dev     port.Port
	queues  []port.Queue
	workers []*worker
	running sync.WaitGroup
	lost    sync.Once // reports the first worker that ended by itself
	closing bool      // guarded by sw.mu
}

// Name is the port's name, unique in its switch.
func (p *Port) Name() string { return p.name }

// Number is the port's number in FDB entries.
func (p *Port) Number() uint16 { return p.number }

// Attach puts dev behind the port and starts a worker for each of its queues.
// From then on the port owns dev: Detach closes it.
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
			sw: s, queue: q, index: i, in: p.number, rx: p.rx[i], shard: s.workers % txShards,
		})
		s.workers++
	}
	p.at = at
	p.publish()
	for _, w := range at.workers {
		at.running.Go(func() {
			if err := w.run(); !errors.Is(err, port.ErrClosed) {
				at.lost.Do(func() { s.events.lost(PortLost{Port: p, Dev: dev, Err: err}, s.stop) })
			}
		})
	}
	return nil
}

// Detach takes the device from the port, closes it, and returns when its workers
// have ended. Learned entries go; counters stay. Without a device it does nothing.
func (p *Port) Detach() error {
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

	err := at.dev.Close()
	at.running.Wait()

	s.mu.Lock()
	defer s.mu.Unlock()
	if p.at == at { // else another Detach was faster
		if o, ok := at.dev.(port.Overrun); ok {
			p.overruns += o.Overruns()
		}
		var fast PortStats
		if s.fast != nil {
			fast = s.fast.Release(p.number)
			p.fast.add(fast)
		}
		if l, ok := at.dev.(port.Lossy); ok {
			p.lost += l.Lost(fast.TX.Frames)
		}
		p.at = nil
		s.fdb.FlushPort(p.number)
	}
	return err
}

// SetForwarding opens the port for frames, or shuts it: then nothing goes in or
// out, and what was learned behind it is forgotten. A new port is shut.
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

// active tells whether frames may pass. The caller holds sw.mu.
func (p *Port) active() bool { return p.forwarding && p.at != nil && !p.at.closing }

// publish makes the workers' picture anew, unless the port is not in it. The caller
// holds sw.mu.
func (p *Port) publish() {
	if p.active() {
		p.sw.publish()
	}
}

// quiesce returns when no worker of the port goes by a former picture any more:
// what is done to its entries then is not undone by a batch that was on its way.
// A batch takes microseconds and needs no lock that is held here.
func (p *Port) quiesce() {
	if p.at == nil {
		return
	}
	for _, w := range p.at.workers {
		for at := w.batch.Load(); at&1 != 0 && w.batch.Load() == at; {
			runtime.Gosched()
		}
	}
}
