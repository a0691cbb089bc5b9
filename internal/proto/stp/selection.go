package stp

// roleSelection is the Port Role Selection machine (17.28).
func (b *Bridge) roleSelection() bool {
	again := false
	for _, p := range b.ports {
		again = again || p.reselect
	}
	if !again {
		return false
	}
	for _, p := range b.ports { // 17.21.2 clearReselectTree
		p.reselect = false
	}
	b.updtRoles()
	for _, p := range b.ports { // 17.21.16 setSelectedTree
		p.selected = true
	}
	return true
}

// updtRoles is 17.21.25, updtRolesTree.
func (b *Bridge) updtRoles() {
	own := vector{root: b.id, bridge: b.id}
	best, root := own, (*port)(nil)
	b.rootTimes = times{maxAge: b.cfg.MaxAge, hello: b.cfg.HelloTime, forwardDelay: b.cfg.ForwardDelay}
	for _, p := range b.ports {
		if v, ok := p.rootPath(); ok && !p.cfg.RootGuard && better(v, p, best, root) {
			best, root = v, p
		}
	}
	b.rootPriority, b.rootPort = best, 0
	if root != nil {
		b.rootPort = root.number
		b.rootTimes = root.portTimes
		b.rootTimes.messageAge++
	}
	for _, p := range b.ports {
		p.designatedPriority = vector{root: best.root, cost: best.cost, bridge: b.id, port: p.id}
		p.designatedTimes = b.rootTimes
		p.designatedTimes.hello = b.cfg.HelloTime
		p.updtRole(p == root)
		v, ok := p.rootPath()
		p.guardsRoot = ok && p.cfg.RootGuard && better(v, p, best, root)
	}
}

// rootPath returns the port's root path priority vector, if it has one. A path to this
// bridge itself is none: it dates from when this bridge was root with another priority.
func (p *port) rootPath() (vector, bool) {
	ok := p.infoIs == infoReceived && !p.portPriority.bridge.sameBridge(p.b.id) && !p.portPriority.root.sameBridge(p.b.id)
	return p.portPriority.via(p.cfg.cost()), ok
}

// better reports whether v, a root path through p, is better than w, one through q.
// Port identifiers break a tie; in a tie with the bridge itself (q is nil), v is not
// better.
func better(v vector, p *port, w vector, q *port) bool {
	c := v.compare(w)
	return c < 0 || c == 0 && q != nil && p.id < q.id
}

// updtRole is 17.21.25 f) to l), for one port.
func (p *port) updtRole(isRoot bool) {
	switch p.infoIs {
	case infoDisabled:
		p.selectedRole = RoleDisabled
	case infoAged:
		p.selectedRole, p.updtInfo = RoleDesignated, true
	case infoMine:
		p.selectedRole = RoleDesignated
		if p.portPriority != p.designatedPriority || p.portTimes != p.designatedTimes {
			p.updtInfo = true
		}
	case infoReceived:
		switch {
		case isRoot:
			p.selectedRole, p.updtInfo = RoleRoot, false
		case p.designatedPriority.compare(p.portPriority) < 0:
			p.selectedRole, p.updtInfo = RoleDesignated, true
		case p.portPriority.bridge.sameBridge(p.b.id):
			p.selectedRole, p.updtInfo = RoleBackup, false
		default:
			p.selectedRole, p.updtInfo = RoleAlternate, false
		}
	}
}
