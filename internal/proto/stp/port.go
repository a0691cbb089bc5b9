package stp

// Role is a port's role in the tree (17.7).
type Role uint8

// The roles.
const (
	RoleDisabled   Role = iota // its link is down, or a guard disabled it
	RoleRoot                   // the way to the root bridge
	RoleDesignated             // the way to the root bridge for those behind it
	RoleAlternate              // another way to the root bridge, kept in reserve
	RoleBackup                 // a second port to a link where this bridge is already designated
)

func (r Role) String() string {
	return [...]string{"disabled", "root", "designated", "alternate", "backup"}[r]
}

// infoIs says where portPriority and portTimes come from (17.19.10).
type infoIs uint8

const (
	infoDisabled infoIs = iota
	infoAged
	infoMine
	infoReceived
)

// port holds the per-port variables of 17.19 under their names there, and the states of
// its machines. Two of 17.19 have no field: portEnabled is the method enabled; fdbFlush
// is carried out when it would be set, so it never is.
type port struct {
	b      *Bridge
	number uint16
	id     PortID
	cfg    PortConfig

	link      bool
	tripped   bool // by BPDU guard
	recoverIn int  // seconds; 0: never

	receive     receiveState
	migration   migrationState
	detection   detectionState
	information informationState
	transitions transitionsState
	state       State
	topology    topologyState

	agree, agreed              bool
	disputed                   bool
	forward, learn             bool
	mcheck                     bool
	newInfo                    bool
	operEdge                   bool
	proposed, proposing        bool
	rcvdBPDU, rcvdMsg          bool
	rcvdRSTP, rcvdSTP          bool
	rcvdTc, rcvdTcAck, rcvdTcn bool
	reRoot                     bool
	reselect, selected         bool
	sendRSTP                   bool
	sync, synced               bool
	tcAck, tcProp              bool
	updtInfo                   bool

	infoIs             infoIs
	role, selectedRole Role
	msg                BPDU

	msgPriority, portPriority, designatedPriority vector
	msgTimes, portTimes, designatedTimes          times

	timers

	tcRoom     int  // topology changes that the neighbour may report now
	guardsRoot bool // root guard keeps a better root out

	// Values last reported by events.
	reportedRole                             Role
	reportedGuard, reportedSTP, reportedLoop bool

	rx, tx          Counters
	invalid, looped uint64
}

// begin starts all machines of the port: condition BEGIN of 17.18.1.
func (p *port) begin() {
	p.designatedTimes = p.b.rootTimes
	p.designatedTimes.hello = p.b.cfg.HelloTime
	p.enterDiscard()
	p.enterCheckingRSTP()
	p.setAdminEdge()
	p.enterInfoDisabled()
	p.enterInitPort()
	p.enterDiscarding()
	p.enterInactive()
	p.tcRoom = tcBurst
	p.txCount, p.helloWhen = 0, p.helloTime()
}

// set applies cfg. Parameters that affect roles cause them to be computed again
// (17.13).
func (p *port) set(cfg PortConfig) {
	old := p.cfg
	p.cfg = cfg
	p.id = makePortID(cfg.Priority, p.number)
	if cfg.AdminEdge != old.AdminEdge {
		p.setAdminEdge()
	}
	if p.tripped && !cfg.BPDUGuard {
		p.recover()
	}
	p.recompute()
}

// recompute requests a new selection of roles.
func (p *port) recompute() { p.reselect, p.selected = true, false }

// enabled is portEnabled (17.19.18).
func (p *port) enabled() bool { return p.link && !p.tripped }

// The state's bits in BPDUs (17.19.9, 17.19.12). A forwarding port also learns, so the
// machines need not check both.
func (p *port) learning() bool   { return p.state >= Learning }
func (p *port) forwarding() bool { return p.state == Forwarding }

// helloTime is HelloTime of 17.20.7: the bridge's own, as 17.21.25 sets it.
func (p *port) helloTime() int { return p.designatedTimes.hello }

// maxAge is MaxAge of 17.20.8, kept within its range whatever the root says.
func (p *port) maxAge() int { return min(max(p.designatedTimes.maxAge, minMaxAge), maxMaxAge) }

// fwdDelay is FwdDelay of 17.20.6, kept within its range whatever the root says.
func (p *port) fwdDelay() int {
	return min(max(p.designatedTimes.forwardDelay, minForwardDelay), maxForwardDelay)
}

// forwardDelay is that of 17.20.5: a port that speaks RSTP need not wait as in STP.
func (p *port) forwardDelay() int {
	if p.sendRSTP {
		return p.helloTime()
	}
	return p.fwdDelay()
}

// edgeDelay is EdgeDelay of 17.20.4.
func (p *port) edgeDelay() int {
	if p.cfg.Shared {
		return p.maxAge()
	}
	return migrateTime
}
