package stp

// Status describes a bridge to its administrator.
type Status struct {
	Bridge, Root BridgeID
	RootCost     uint32
	RootPort     uint16 // 0: this bridge is the root

	// HelloTime, MaxAge and ForwardDelay are the effective values in seconds: the first
	// is the bridge's own, the others are the root's.
	HelloTime, MaxAge, ForwardDelay int

	TopologyChanges     uint64
	SinceTopologyChange uint64 // seconds; since the start if there was none

	Ports []PortStatus // sorted by number
}

// PortStatus describes one of its ports.
type PortStatus struct {
	Number   uint16
	ID       PortID
	Role     Role
	State    State
	PathCost uint32
	Edge     bool // no bridge is heard there
	STP      bool // it speaks STP, because its neighbour does
	Shared   bool

	// Announced by the designated port of the link, this port or another.
	DesignatedRoot   BridgeID
	DesignatedCost   uint32
	DesignatedBridge BridgeID
	DesignatedPort   PortID

	BPDUGuarded bool // BPDU guard disabled it
	RecoverIn   int  // seconds until it recovers; 0: never
	RootGuarded bool // root guard keeps a better root out
	SelfLooped  bool // it hears itself
	Config      PortConfig

	Rx, Tx  Counters
	Invalid uint64 // frames to Group that are no BPDUs, or invalid ones
	Looped  uint64 // BPDUs that returned on the port that sent them
}

// Counters are numbers of BPDUs. BPDUs that BPDUFilter holds back do not count.
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

// Status returns a snapshot of the bridge.
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
