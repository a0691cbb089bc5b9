// Package stp is the Rapid Spanning Tree Protocol of IEEE 802.1D-2004 clause 17, with
// fallback to STP on ports that hear it. Frames and seconds go in, frames and port
// states come out; it does no I/O, reads no clock and starts no goroutine. A Bridge is
// not safe for concurrent use: its owner calls one method at a time.
package stp

import (
	"cmp"
	"fmt"
	"slices"
)

// Actions is what a Bridge needs from its owner. The Bridge's methods call these
// methods, which must not call the Bridge.
type Actions interface {
	// SendBPDU sends a frame, without FCS, out of a port in any state. The source
	// address is the bridge's. frame is valid only during the call.
	SendBPDU(port uint16, frame []byte)

	// SetState changes a port's state before it returns: the tree relies on it.
	SetState(port uint16, s State)

	// Flush forgets the addresses learned on a port.
	Flush(port uint16)

	// Event reports what an administrator may want to read in a log.
	Event(e Event)
}

// Bridge is one bridge of the spanning tree: the per-bridge variables of 17.18.
type Bridge struct {
	cfg   Config
	act   Actions
	ports []*port // sorted by number

	id           BridgeID
	rootPriority vector
	rootPort     uint16 // number of the root port; 0: this bridge is the root
	rootTimes    times

	reportedRoot BridgeID
	changes      uint64 // topology changes seen
	sinceChange  uint64 // seconds since the last of them
	buf          [FrameLen]byte
}

// New returns a bridge without ports.
func New(cfg Config, act Actions) (*Bridge, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	b := &Bridge{act: act}
	b.set(cfg)
	b.reportedRoot = b.id
	b.updtRoles()
	return b, nil
}

// Configure changes the bridge's parameters; the tree follows at once.
func (b *Bridge) Configure(cfg Config) error {
	if err := cfg.Check(); err != nil {
		return err
	}
	b.set(cfg)
	b.updtRoles()
	b.run()
	return nil
}

// set applies cfg as 17.13 says: after any change, roles are computed again and the
// transmit counters restart.
func (b *Bridge) set(cfg Config) {
	b.cfg = cfg
	b.id = makeBridgeID(cfg.Priority, cfg.Address)
	for _, p := range b.ports {
		p.txCount = 0
		p.recompute()
	}
}

// AddPort adds a port, numbered from 1 to MaxPort, whose link is down.
func (b *Bridge) AddPort(number uint16, cfg PortConfig) error {
	if number == 0 || number > MaxPort {
		return fmt.Errorf("spanning tree cannot number a port %d; it takes 1 to %d", number, MaxPort)
	}
	i, found := b.search(number)
	if found {
		return fmt.Errorf("port %d takes part in the spanning tree already", number)
	}
	if err := cfg.Check(); err != nil {
		return err
	}
	p := &port{b: b, number: number}
	p.set(cfg)
	b.ports = slices.Insert(b.ports, i, p)
	p.begin()
	b.run()
	return nil
}

// SetPort changes a port's parameters and disturbs the port no more than they require.
func (b *Bridge) SetPort(number uint16, cfg PortConfig) error {
	p := b.port(number)
	if p == nil {
		return errNoPort(number)
	}
	if err := cfg.Check(); err != nil {
		return err
	}
	p.set(cfg)
	b.run()
	return nil
}

// RemovePort removes a port from the tree and leaves it discarding.
func (b *Bridge) RemovePort(number uint16) {
	i, found := b.search(number)
	if !found {
		return
	}
	b.ports[i].link = false
	b.run()
	b.ports = slices.Delete(b.ports, i, i+1)
}

// SetLink sets whether a port's link is up.
func (b *Bridge) SetLink(number uint16, up bool) {
	if p := b.port(number); p != nil && p.link != up {
		p.link = up
		b.run()
	}
}

// Link reports whether a port's link is up.
func (b *Bridge) Link(number uint16) bool {
	p := b.port(number)
	return p != nil && p.link
}

// Recover recovers a port that BPDU guard disabled, before its time.
func (b *Bridge) Recover(number uint16) {
	if p := b.port(number); p != nil && p.tripped {
		p.recover()
		b.run()
	}
}

// Recheck makes a port that fell back to STP try RSTP again (17.19.13, mcheck).
func (b *Bridge) Recheck(number uint16) {
	if p := b.port(number); p != nil {
		p.mcheck = true
		b.run()
	}
}

// Receive takes an untagged frame that arrived on a port for the address Group,
// starting with its destination address. It does not keep frame. A frame that is no
// BPDU is counted and trips BPDU guard, but is otherwise ignored.
func (b *Bridge) Receive(number uint16, frame []byte) {
	if p := b.port(number); p != nil && p.accept(frame) {
		b.run()
	}
}

// Guard is Receive for a frame that only BPDU guard considers: one with a VLAN tag, or
// to an address of another protocol's BPDUs.
func (b *Bridge) Guard(number uint16, frame []byte) {
	p := b.port(number)
	if p == nil {
		return
	}
	p.count(frame)
	if p.cfg.BPDUGuard && !p.cfg.BPDUFilter && p.enabled() {
		p.trip()
		b.run()
	}
}

// Tick advances the time by one second (17.22).
func (b *Bridge) Tick() {
	b.sinceChange++
	for _, p := range b.ports {
		p.tick()
	}
	b.run()
}

// machines are the per-port state machines that depend on each other. Port Transmit is
// not one of them: no machine depends on it, and it sends after all are stable.
var machines = [...]func(*port) bool{
	(*port).portReceive,
	(*port).protocolMigration,
	(*port).bridgeDetection,
	(*port).portInformation,
	(*port).roleTransitions,
	(*port).stateTransition,
	(*port).topologyChange,
}

// run lets the machines step until none can, then sends and reports.
func (b *Bridge) run() {
	for moved := true; moved; {
		moved = b.roleSelection()
		for _, p := range b.ports {
			for _, machine := range machines {
				for machine(p) {
					moved = true
				}
			}
		}
	}
	for _, p := range b.ports {
		p.portTransmit()
	}
	b.report()
}

func (b *Bridge) search(number uint16) (int, bool) {
	return slices.BinarySearchFunc(b.ports, number, func(p *port, n uint16) int {
		return cmp.Compare(p.number, n)
	})
}

func (b *Bridge) port(number uint16) *port {
	if i, found := b.search(number); found {
		return b.ports[i]
	}
	return nil
}

func errNoPort(number uint16) error {
	return fmt.Errorf("port %d takes no part in the spanning tree; add it first", number)
}
