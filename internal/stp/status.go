package stp

// Status is a bridge as its administrator sees it.
type Status struct {
	Bridge, Root BridgeID
	RootCost     uint32
	RootPort     uint16 // 0: this bridge is the root

	// HelloTime, MaxAge and ForwardDelay are those in force, in seconds: the
	// first is the bridge's own, the others are the root's.
	HelloTime, MaxAge, ForwardDelay int

	TopologyChanges     uint64
	SinceTopologyChange uint64 // seconds; since the start where there was none

	Ports []PortStatus // by ascending number
}

// PortStatus is one port of it.
type PortStatus struct {
	Number   uint16
	ID       PortID
	Role     Role
	State    State
	PathCost uint32
	Edge     bool // no bridge is heard there
	STP      bool // it speaks STP, because its neighbour does
	Shared   bool

	// What the designated port of the link tells, be it this port or another.
	DesignatedRoot   BridgeID
	DesignatedCost   uint32
	DesignatedBridge BridgeID
	DesignatedPort   PortID

	BPDUGuarded bool // BPDU guard disabled it
	RecoverIn   int  // seconds until it is enabled again; 0 is never
	RootGuarded bool // root guard keeps a better root out
	SelfLooped  bool // it hears itself
	Config      PortConfig

	Rx, Tx  Counters
	Invalid uint64 // frames to Group that are no BPDUs, or invalid ones
	Looped  uint64 // BPDUs that came back by the port they left
}

// Counters are numbers of BPDUs. What BPDUFilter holds back is not counted.
type Counters struct {
	Config, TCN, RST uint64
}

func (c *Counters) count(t Type) {
	switch t {
	case TypeConfig:
		c.Config++
	case TypeTCN:
		c.TCN++
	case TypeRST:
		c.RST++
	}
}

// Status returns a copy of what there is to know.
func (b *Bridge) Status() Status {
	s := Status{
		Bridge:              b.id,
		Root:                b.rootPriority.root,
		RootCost:            b.rootPriority.cost,
		RootPort:            b.rootPort,
		HelloTime:           b.cfg.HelloTime,
		MaxAge:              b.rootTimes.maxAge,
		ForwardDelay:        b.rootTimes.forwardDelay,
		TopologyChanges:     b.changes,
		SinceTopologyChange: b.sinceChange,
		Ports:               make([]PortStatus, 0, len(b.ports)),
	}
	for _, p := range b.ports {
		s.Ports = append(s.Ports, PortStatus{
			Number:           p.number,
			ID:               p.id,
			Role:             p.role,
			State:            p.state,
			PathCost:         p.cfg.cost(),
			Edge:             p.operEdge,
			STP:              !p.sendRSTP,
			Shared:           p.cfg.Shared,
			DesignatedRoot:   p.portPriority.root,
			DesignatedCost:   p.portPriority.cost,
			DesignatedBridge: p.portPriority.bridge,
			DesignatedPort:   p.portPriority.port,
			BPDUGuarded:      p.tripped,
			RecoverIn:        p.recoverIn,
			RootGuarded:      p.guardsRoot,
			SelfLooped:       p.loopWhile != 0,
			Config:           p.cfg,
			Rx:               p.rx,
			Tx:               p.tx,
			Invalid:          p.invalid,
			Looped:           p.looped,
		})
	}
	return s
}
