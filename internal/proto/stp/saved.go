package stp

import (
	"errors"
	"fmt"
	"slices"
)

// Saved is a Bridge for another process, which goes on with it without a word to the
// neighbours. It has what must last between two calls of the Bridge, in the names of
// clause 17.
type Saved struct {
	ID           BridgeID
	ReportedRoot BridgeID
	Changes      uint64
	SinceChange  uint64
	Ports        []SavedPort // sorted by number
}

// SavedPort is a port of a Saved Bridge.
type SavedPort struct {
	Number    uint16
	ID        PortID
	Link      bool
	Tripped   bool `json:",omitempty"`
	RecoverIn int  `json:",omitempty"`

	Receive, Migration, Detection, Information, Transitions, Topology uint8
	State                                                             State
	Role                                                              Role
	InfoIs                                                            uint8

	// Set lists the flags that are set.
	Set []string

	Priority, DesignatedPriority SavedVector
	Times, DesignatedTimes       SavedTimes
	Timers                       SavedTimers

	ReportedRole Role
	Rx, Tx       Counters
	Invalid      uint64 `json:",omitempty"`
	Looped       uint64 `json:",omitempty"`
}

// SavedVector is a priority vector.
type SavedVector struct {
	Root   BridgeID
	Cost   uint32
	Bridge BridgeID
	Port   PortID
}

// SavedTimes are the times of a port, in seconds.
type SavedTimes struct{ MessageAge, MaxAge, Hello, ForwardDelay int }

// SavedTimers are the timers of a port: what is left of them, in seconds.
type SavedTimers struct {
	EdgeDelayWhile, FdWhile, HelloWhen, MdelayWhile int
	RbWhile, RcvdInfoWhile, RrWhile, TcWhile        int
	TxCount, LoopWhile                              int
}

func (v vector) save() SavedVector   { return SavedVector{v.root, v.cost, v.bridge, v.port} }
func (s SavedVector) vector() vector { return vector{s.Root, s.Cost, s.Bridge, s.Port} }
func (t times) save() SavedTimes     { return SavedTimes{t.messageAge, t.maxAge, t.hello, t.forwardDelay} }
func (s SavedTimes) times() times    { return times{s.MessageAge, s.MaxAge, s.Hello, s.ForwardDelay} }
func (t *timers) save() SavedTimers {
	return SavedTimers{t.edgeDelayWhile, t.fdWhile, t.helloWhen, t.mdelayWhile, t.rbWhile, t.rcvdInfoWhile, t.rrWhile, t.tcWhile, t.txCount, t.loopWhile}
}
func (s *SavedTimers) timers() timers {
	return timers{s.EdgeDelayWhile, s.FdWhile, s.HelloWhen, s.MdelayWhile, s.RbWhile, s.RcvdInfoWhile, s.RrWhile, s.TcWhile, s.TxCount, s.LoopWhile}
}

// flags are those of a port that last, by their names in 17.19.
func (p *port) flags() map[string]*bool {
	return map[string]*bool{
		"agree": &p.agree, "agreed": &p.agreed, "disputed": &p.disputed, "forward": &p.forward, "learn": &p.learn,
		"mcheck": &p.mcheck, "newInfo": &p.newInfo, "operEdge": &p.operEdge, "proposed": &p.proposed, "proposing": &p.proposing,
		"rcvdRSTP": &p.rcvdRSTP, "rcvdSTP": &p.rcvdSTP, "rcvdTc": &p.rcvdTc, "rcvdTcAck": &p.rcvdTcAck, "rcvdTcn": &p.rcvdTcn,
		"reRoot": &p.reRoot, "selected": &p.selected, "sendRSTP": &p.sendRSTP, "sync": &p.sync, "synced": &p.synced,
		"tcAck": &p.tcAck, "tcProp": &p.tcProp, "updtInfo": &p.updtInfo,
		"guardsRoot": &p.guardsRoot, "reportedGuard": &p.reportedGuard, "reportedSTP": &p.reportedSTP, "reportedLoop": &p.reportedLoop,
	}
}

// Save returns the Bridge as it is.
func (b *Bridge) Save() *Saved {
	s := &Saved{ID: b.id, ReportedRoot: b.reportedRoot, Changes: b.changes, SinceChange: b.sinceChange}
	for _, p := range b.ports {
		v := SavedPort{
			Number: p.number, ID: p.id, Link: p.link, Tripped: p.tripped, RecoverIn: p.recoverIn,
			Receive: uint8(p.receive), Migration: uint8(p.migration), Detection: uint8(p.detection),
			Information: uint8(p.information), Transitions: uint8(p.transitions), Topology: uint8(p.topology),
			State: p.state, Role: p.role, InfoIs: uint8(p.infoIs),
			Priority: p.portPriority.save(), DesignatedPriority: p.designatedPriority.save(),
			Times: p.portTimes.save(), DesignatedTimes: p.designatedTimes.save(), Timers: p.timers.save(),
			ReportedRole: p.reportedRole, Rx: p.rx, Tx: p.tx, Invalid: p.invalid, Looped: p.looped,
		}
		for name, set := range p.flags() {
			if *set {
				v.Set = append(v.Set, name)
			}
		}
		slices.Sort(v.Set)
		s.Ports = append(s.Ports, v)
	}
	return s
}

// Restore returns the Bridge that was saved, with these parameters of its ports. It calls
// act.SetState for each port, and nothing else. The error says why the state does not fit: the
// bridge or a port has another identifier, there are other ports, or it is the state of no
// bridge.
func Restore(cfg Config, ports map[uint16]PortConfig, s *Saved, act Actions) (*Bridge, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	b := &Bridge{act: act, reportedRoot: s.ReportedRoot, changes: s.Changes, sinceChange: s.SinceChange}
	b.set(cfg)
	if s.ID != b.id {
		return nil, fmt.Errorf("the bridge was %v and is %v", s.ID, b.id)
	}
	if len(s.Ports) != len(ports) {
		return nil, fmt.Errorf("the tree had %d ports, and the switch has %d", len(s.Ports), len(ports))
	}
	for i := range s.Ports {
		v := &s.Ports[i]
		c, there := ports[v.Number]
		switch {
		case !there:
			return nil, fmt.Errorf("the tree had a port %d, and the switch has none", v.Number)
		case i > 0 && v.Number <= s.Ports[i-1].Number || v.Number == 0 || v.Number > MaxPort:
			return nil, errors.New("the ports are out of order")
		}
		if err := errors.Join(c.Check(), v.check()); err != nil {
			return nil, err
		}
		p := v.restore(b, c)
		if p.id != v.ID {
			return nil, fmt.Errorf("port %d was %v and is %v", v.Number, v.ID, p.id)
		}
		b.ports = append(b.ports, p)
	}
	// Roles follow from what ports hold; a state with others was never a bridge's.
	b.updtRoles()
	for i, p := range b.ports {
		if role := s.Ports[i].Role; p.selectedRole != role {
			return nil, fmt.Errorf("port %d was %v and would be %v", p.number, role, p.selectedRole)
		}
	}
	for _, p := range b.ports {
		act.SetState(p.number, p.state)
	}
	return b, nil
}

// check reports what no port can have. A wrong value that passes is the tree's own, such as
// a message could have brought about, and does not last longer.
func (v *SavedPort) check() error {
	const longest = 3 * 40 // seconds, of any timer: 3 times the longest hello, or two times of table 17-1
	for _, r := range [...]struct{ value, most int }{
		{int(v.Receive), int(receiveReceive)}, {int(v.Migration), int(migrationSensing)}, {int(v.Detection), int(detectionEdge)},
		{int(v.Information), int(informationCurrent)}, {int(v.Transitions), int(alternatePort)}, {int(v.Topology), int(topologyActive)},
		{int(v.State), int(Forwarding)}, {int(v.Role), int(RoleBackup)}, {int(v.ReportedRole), int(RoleBackup)},
		{int(v.InfoIs), int(infoReceived)},
		{v.RecoverIn, 1 << 30}, {v.Timers.TxCount, 10},
		{v.Timers.EdgeDelayWhile, longest}, {v.Timers.FdWhile, longest}, {v.Timers.HelloWhen, longest}, {v.Timers.MdelayWhile, longest},
		{v.Timers.RbWhile, longest}, {v.Timers.RcvdInfoWhile, longest}, {v.Timers.RrWhile, longest}, {v.Timers.TcWhile, longest}, {v.Timers.LoopWhile, longest},
		{v.Times.MessageAge, 1 << 9}, {v.Times.MaxAge, 1 << 9}, {v.Times.Hello, 10}, {v.Times.ForwardDelay, 1 << 9},
		{v.DesignatedTimes.MessageAge, 1 << 9}, {v.DesignatedTimes.MaxAge, 1 << 9}, {v.DesignatedTimes.Hello, 10}, {v.DesignatedTimes.ForwardDelay, 1 << 9},
	} {
		if r.value < 0 || r.value > r.most {
			return fmt.Errorf("port %d is in no state of a port", v.Number)
		}
	}
	// What keeps a loop open: a port forwards only as a root or designated port.
	if v.State != Discarding && v.Role != RoleRoot && v.Role != RoleDesignated {
		return fmt.Errorf("port %d is %v and %v at once", v.Number, v.Role, v.State)
	}
	return nil
}

func (v *SavedPort) restore(b *Bridge, cfg PortConfig) *port {
	p := &port{
		b: b, number: v.Number, id: makePortID(cfg.Priority, v.Number), cfg: cfg,
		link: v.Link, tripped: v.Tripped, recoverIn: v.RecoverIn,
		receive: receiveState(v.Receive), migration: migrationState(v.Migration), detection: detectionState(v.Detection),
		information: informationState(v.Information), transitions: transitionsState(v.Transitions), topology: topologyState(v.Topology),
		state: v.State, role: v.Role, infoIs: infoIs(v.InfoIs),
		portPriority: v.Priority.vector(), designatedPriority: v.DesignatedPriority.vector(),
		portTimes: v.Times.times(), designatedTimes: v.DesignatedTimes.times(), timers: v.Timers.timers(),
		reportedRole: v.ReportedRole, rx: v.Rx, tx: v.Tx, invalid: v.Invalid, looped: v.Looped,
		tcRoom: tcBurst,
	}
	flags := p.flags()
	for _, name := range v.Set {
		if set := flags[name]; set != nil {
			*set = true
		}
	}
	return p
}
