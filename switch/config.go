package vswitch

import (
	"fmt"
	"time"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
)

// PortConfig holds a port's settings. The zero PortConfig is that of a new port:
// transparent to tags in port.DefaultVLAN, without limits.
type PortConfig struct {
	VLAN port.VLAN

	Isolated   bool // exchanges no frames with other isolated ports
	Tunnel     bool // nor a tunnel with other tunnels: the hosts behind them reach each other
	Locked     bool // accepts frames only from stations with an FDB entry at this port
	NoLearning bool
	NoFlood    Class // classes not flooded to the port

	LearnLimit  int // maximum of learned stations; 0: no limit
	LearnAction LearnAction

	Storm         StormRates // per class, on ingress
	StormShutdown bool       // report StormHit as well as dropping the excess
	Police        port.Rate  // of all frames, on ingress

	// PoliceBurst is how long a policed port may send at any speed after silence; 0: 400
	// ms, or longer if a super-frame needs it.
	PoliceBurst time.Duration

	Shape port.Rate // of all frames, on egress

	// ShapedBelow: the port's device keeps Shape (port.Shaping), so the switch need not.
	ShapedBelow bool
	NotBelow    string // why it does not, in words
}

// Class is a bit set of the classes of flooded frames.
type Class uint8

const (
	Broadcast Class = 1 << iota
	Multicast
	UnknownUnicast
)

// StormRates limit the frames of each class that a port accepts.
type StormRates struct{ Broadcast, Multicast, UnknownUnicast port.Rate }

// LearnAction says what happens to frames from a new station when the port is at its
// LearnLimit.
type LearnAction uint8

const (
	LearnForward  LearnAction = iota // forward them, do not learn the station
	LearnProtect                     // drop them
	LearnShutdown                    // drop them and report LimitHit
)

// flags is a port's flag word: one bit per feature, so that one test skips all features
// of a stage that are off.
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
	flagBlocked  // spanning tree: discarding or learning
	flagLearning // spanning tree: learning while blocked
	flagMirrorTarget
	flagMirrorIn
	flagMirrorOut
	flagWatchIn
	flagWatchOut
	flagPuntDrops
	flagSeeDrops
	flagSampled
	flagResolution
	flagStage   // a stage checks what it receives
	flagGuarded // that stage is the port's own, and the fast path does not know it
	flagTunnel
	flagRouterGuard

	flagNoFloodShift = 24 // three bits, in the order of Class

	// The masks that each stage tests.
	ingressFlags = flagPolice | flagMirrorTarget | flagRouterGuard
	learnFlags   = flagLocked | flagNoLearn | flagProtect | flagShutdown | flagBlocked
)

// Configure replaces the port's settings under traffic. It removes the port's FDB
// entries in VLANs that the port no longer carries.
func (p *Port) Configure(c PortConfig) error {
	v, err := resolveVLAN(&c.VLAN)
	if err != nil {
		return fmt.Errorf("port %s: %w", p.name, err)
	}
	if c.PoliceBurst < 0 {
		return fmt.Errorf("port %s: a burst of %v makes no sense; use 0 for the usual one", p.name, c.PoliceBurst)
	}
	if c.LearnLimit < 0 {
		return fmt.Errorf("port %s: a learn limit of %d makes no sense; use 0 for none", p.name, c.LearnLimit)
	}
	s := p.sw
	s.mu.Lock()
	defer s.mu.Unlock()
	p.storm = p.storm.limit(c.Storm)
	p.setPolice(c.Police, c.PoliceBurst)
	p.config, p.vlan = c, v
	var shape port.Rate
	if !c.ShapedBelow {
		shape = c.Shape
	}
	unneeded := p.setShape(shape)
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

// flagsOf computes the port's flag word. The caller holds sw.mu.
func (p *Port) flagsOf() flags {
	c := &p.config
	f := flags(c.NoFlood) << flagNoFloodShift
	set := func(on bool, bit flags) {
		if on {
			f |= bit
		}
	}
	set(c.Isolated, flagIsolated)
	set(c.Tunnel, flagTunnel)
	set(c.Locked, flagLocked)
	set(c.NoLearning, flagNoLearn)
	set(c.LearnLimit != 0 && c.LearnAction == LearnProtect, flagProtect)
	set(c.LearnLimit != 0 && c.LearnAction == LearnShutdown, flagShutdown)
	set(p.vlan.untaggedOnly, flagUntaggedOnly)
	set(c.Storm != StormRates{}, flagStorm)
	set(c.StormShutdown, flagStormShutdown)
	set(c.Police != port.Rate{}, flagPolice)
	set(p.sampler != nil, flagSampled)
	set(p.tree != TreeForwarding, flagBlocked)
	set(p.tree == TreeLearning, flagLearning)
	set(p.resolution, flagResolution)
	set(p.routerGuard, flagRouterGuard)
	set(p.stageOf() != nil, flagStage)
	set(p.stage != nil && !p.stage.Fast, flagGuarded)
	set(p.stage != nil && !p.stage.Unknown, flags(UnknownUnicast)<<flagNoFloodShift)
	return f
}
