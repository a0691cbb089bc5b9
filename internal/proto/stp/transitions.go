package stp

// transitionsState is a lasting state of Port Role Transitions (17.29); the others lead
// back to one of these at once, by UCT.
type transitionsState uint8

const (
	disablePort transitionsState = iota
	disabledPort
	rootPort
	designatedPort
	blockPort
	alternatePort // and backup
)

// roleTransitions is the Port Role Transitions machine (17.29): it brings a port to
// its role without opening a loop on the way.
func (p *port) roleTransitions() bool {
	if !p.selected || p.updtInfo { // qualifies every transition
		return false
	}
	if p.role != p.selectedRole {
		p.role = p.selectedRole
		switch p.role {
		case RoleDisabled:
			p.transitions, p.learn, p.forward = disablePort, false, false
		case RoleRoot:
			p.enterRootPort()
		case RoleDesignated:
			p.transitions = designatedPort
		case RoleAlternate, RoleBackup:
			p.transitions, p.learn, p.forward = blockPort, false, false
		}
		return true
	}
	switch p.transitions {
	case disablePort, disabledPort:
		return p.disabledTransitions()
	case rootPort:
		return p.rootTransitions()
	case designatedPort:
		return p.designatedTransitions()
	}
	return p.alternateTransitions()
}

// enterInitPort is INIT_PORT, and DISABLE_PORT after it (17.29.1).
func (p *port) enterInitPort() {
	p.transitions = disablePort
	p.role, p.selectedRole = RoleDisabled, RoleDisabled
	p.learn, p.forward = false, false
	p.synced = false
	p.sync, p.reRoot = true, true
	p.rrWhile, p.fdWhile, p.rbWhile = p.fwdDelay(), p.maxAge(), 0
}

// disabledTransitions are those of 17.29.1.
func (p *port) disabledTransitions() bool {
	if p.transitions == disablePort {
		if p.state != Discarding {
			return false
		}
	} else if p.fdWhile == p.maxAge() && !p.sync && !p.reRoot && p.synced {
		return false
	}
	p.transitions = disabledPort
	p.fdWhile = p.maxAge()
	p.synced, p.rrWhile, p.sync, p.reRoot = true, 0, false, false
	return true
}

func (p *port) enterRootPort() {
	p.transitions = rootPort
	p.rrWhile = p.fwdDelay()
}

// rootTransitions are those of 17.29.2.
func (p *port) rootTransitions() bool {
	ready := p.fdWhile == 0 || p.reRooted() && p.rbWhile == 0
	switch {
	case p.proposed && !p.agree: // ROOT_PROPOSED
		p.setSyncTree()
		p.proposed = false
	case p.allSynced() && !p.agree, p.proposed && p.agree: // ROOT_AGREED
		p.proposed, p.sync = false, false
		p.agree, p.newInfo = true, true
	case !p.forward && !p.reRoot: // REROOT
		for _, q := range p.b.ports { // 17.21.15 setReRootTree
			q.reRoot = true
		}
	case ready && !p.learn: // ROOT_LEARN
		p.fdWhile = p.forwardDelay()
		p.learn = true
	case ready && p.learn && !p.forward: // ROOT_FORWARD
		p.fdWhile = 0
		p.forward = true
	case p.reRoot && p.forward: // REROOTED
		p.reRoot = false
	case p.rrWhile != p.fwdDelay(): // ROOT_PORT
	default:
		return false
	}
	p.enterRootPort()
	return true
}

// designatedTransitions are those of 17.29.3.
func (p *port) designatedTransitions() bool {
	ready := (p.fdWhile == 0 || p.agreed || p.operEdge) && (p.rrWhile == 0 || !p.reRoot) && !p.sync
	switch {
	case (p.sync && !p.synced || p.reRoot && p.rrWhile != 0 || p.disputed) &&
		!p.operEdge && (p.learn || p.forward): // DESIGNATED_DISCARD
		p.learn, p.forward, p.disputed = false, false, false
		p.fdWhile = p.forwardDelay()
	case !p.forward && !p.agreed && !p.proposing && !p.operEdge: // DESIGNATED_PROPOSE
		p.proposing = true
		p.edgeDelayWhile = p.edgeDelay()
		p.newInfo = true
	case !p.synced && (p.state == Discarding || p.agreed || p.operEdge),
		p.sync && p.synced: // DESIGNATED_SYNCED
		p.rrWhile = 0
		p.synced, p.sync = true, false
	case p.rrWhile == 0 && p.reRoot: // DESIGNATED_RETIRED
		p.reRoot = false
	case ready && !p.learn: // DESIGNATED_LEARN
		p.learn = true
		p.fdWhile = p.forwardDelay()
	case ready && p.learn && !p.forward: // DESIGNATED_FORWARD
		p.forward = true
		p.fdWhile = 0
		p.agreed = p.sendRSTP
	default:
		return false
	}
	return true
}

// alternateTransitions are those of 17.29.4.
func (p *port) alternateTransitions() bool {
	switch {
	case p.transitions == blockPort && p.state != Discarding:
		return false
	case p.transitions == blockPort:
	case p.proposed && !p.agree: // ALTERNATE_PROPOSED
		p.setSyncTree()
		p.proposed = false
	case p.allSynced() && !p.agree, p.proposed && p.agree: // ALTERNATE_AGREED
		p.proposed = false
		p.agree, p.newInfo = true, true
	case p.role == RoleBackup && p.rbWhile != 2*p.helloTime(): // BACKUP_PORT
		p.rbWhile = 2 * p.helloTime()
	case p.fdWhile != p.forwardDelay() || p.sync || p.reRoot || !p.synced: // ALTERNATE_PORT
	default:
		return false
	}
	p.transitions = alternatePort
	p.fdWhile = p.forwardDelay()
	p.synced, p.rrWhile, p.sync, p.reRoot = true, 0, false, false
	return true
}

// allSynced is the condition of 17.20.3.
func (p *port) allSynced() bool {
	for _, q := range p.b.ports {
		if !q.selected || q.updtInfo || q.role != q.selectedRole || !q.synced && q.role != RoleRoot {
			return false
		}
	}
	return true
}

// reRooted is the condition of 17.20.10: no other port was root recently.
func (p *port) reRooted() bool {
	for _, q := range p.b.ports {
		if q != p && q.rrWhile != 0 {
			return false
		}
	}
	return true
}

// setSyncTree is 17.21.14.
func (p *port) setSyncTree() {
	for _, q := range p.b.ports {
		q.sync = true
	}
}
