package vswitch

import (
	"fmt"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
)

// PortConfig is what an administrator sets on a port. The zero PortConfig is that
// of a new port: it is transparent to tags in DefaultVLAN and nothing is limited.
type PortConfig struct {
	VLAN VLAN

	Isolated   bool // exchanges no frame with another isolated port
	Locked     bool // takes frames only from stations that have an entry here
	NoLearning bool
	NoFlood    Class // classes that are not flooded to the port

	LearnLimit  int // most learned stations; 0 is any number
	LearnAction LearnAction

	Storm         StormRates // per class, on input
	StormShutdown bool       // a storm is not only dropped, StormHit is reported
	Police        port.Rate  // of all frames, on input
	Shape         port.Rate  // of all frames, on output
}

// Class is a set of kinds of frames that are flooded.
type Class uint8

const (
	Broadcast Class = 1 << iota
	Multicast
	UnknownUnicast
)

// StormRates limit how much of each class comes in by a port.
type StormRates struct{ Broadcast, Multicast, UnknownUnicast port.Rate }

// LearnAction says what becomes of frames from a new station when a port has as
// many as it may.
type LearnAction uint8

const (
	LearnForward  LearnAction = iota // they pass, the station is not learned
	LearnProtect                     // they are dropped
	LearnShutdown                    // they are dropped, and LimitHit is reported
)

// flags is everything that may differ from a plain port, in one word: a worker
// whose port has none of a stage's flags has tested all its features at once.
type flags uint32

const (
	flagIsolated flags = 1 << iota
	flagLocked
	flagNoLearn
	flagProtect
	flagShutdown
	flagUntaggedOnly
	flagStorm
	flagStormShutdown
	flagPolice
	flagBlocked  // spanning tree: discarding, or learning
	flagLearning // spanning tree: learning while blocked
	flagMirrorTarget
	flagMirrorIn
	flagMirrorOut

	flagNoFloodShift = 24 // three bits, as in Class

	// What the stages ask for at once.
	ingressFlags = flagPolice | flagMirrorTarget
	learnFlags   = flagLocked | flagNoLearn | flagProtect | flagShutdown | flagBlocked
)

// Configure replaces the port's settings, while frames flow. Entries of VLANs
// that the port no longer carries are forgotten.
func (p *Port) Configure(c PortConfig) error {
	v, err := c.VLAN.resolve()
	if err != nil {
		return fmt.Errorf("port %s: %w", p.name, err)
	}
	if c.LearnLimit < 0 {
		return fmt.Errorf("port %s: a learn limit of %d makes no sense; use 0 for none", p.name, c.LearnLimit)
	}
	s := p.sw
	s.mu.Lock()
	defer s.mu.Unlock()
	p.storm, p.police = p.storm.limit(c.Storm), p.police.police(c.Police)
	p.config, p.vlan = c, v
	unneeded := p.setShape(c.Shape)
	s.fdb.SetLimit(p.number, c.LearnLimit)
	p.publish()
	unneeded.stop()
	p.quiesce()
	s.fdb.Flush(func(e fdb.Entry) bool { return e.Port == p.number && !v.vlans.Has(e.Key.VLAN()) })
	s.Settle()
	return nil
}

// Config returns the port's settings.
func (p *Port) Config() PortConfig {
	p.sw.mu.Lock()
	defer p.sw.mu.Unlock()
	return p.config
}

// flagsOf sums up what workers must heed of a port. The caller holds sw.mu.
func (p *Port) flagsOf() flags {
	c := &p.config
	f := flags(c.NoFlood) << flagNoFloodShift
	set := func(on bool, bit flags) {
		if on {
			f |= bit
		}
	}
	set(c.Isolated, flagIsolated)
	set(c.Locked, flagLocked)
	set(c.NoLearning, flagNoLearn)
	set(c.LearnLimit != 0 && c.LearnAction == LearnProtect, flagProtect)
	set(c.LearnLimit != 0 && c.LearnAction == LearnShutdown, flagShutdown)
	set(p.vlan.untaggedOnly, flagUntaggedOnly)
	set(c.Storm != StormRates{}, flagStorm)
	set(c.StormShutdown, flagStormShutdown)
	set(c.Police != port.Rate{}, flagPolice)
	set(p.tree != TreeForwarding, flagBlocked)
	set(p.tree == TreeLearning, flagLearning)
	return f
}
