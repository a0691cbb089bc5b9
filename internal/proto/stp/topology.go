package stp

// topologyState is a lasting state of Topology Change (17.31); the others lead back to
// one of these at once, by UCT.
type topologyState uint8

const (
	topologyInactive topologyState = iota
	topologyLearning
	topologyActive
)

// A neighbour may report changes at any rate, and each has all other ports forget their stations
// and all hosts asked for their groups. Of a port, tcBurst reports are heeded at once, and beyond
// them one a second; later ones wait together. A change is reported until its reporter's tcWhile
// is over, some three times, so a network that converges does not wait.
const tcBurst = 10

// topologyChange is the Topology Change machine (17.31): it makes all bridges forget
// what they learned when stations may have moved behind other ports.
func (p *port) topologyChange() bool {
	active := p.role == RoleRoot || p.role == RoleDesignated
	told := p.rcvdTc || p.rcvdTcn || p.rcvdTcAck || p.tcProp
	switch p.topology {
	case topologyInactive:
		if !p.learn {
			return false
		}
		p.enterTopologyLearning()
	case topologyLearning:
		switch {
		case active && p.forward && !p.operEdge: // DETECTED
			p.topology = topologyActive
			p.newTcWhile()
			p.setTcPropTree()
			p.newInfo = true
			p.b.topologyChanged(p, EventTopologyDetected)
		case told:
			p.enterTopologyLearning()
		case !active && !p.learn && !p.learning():
			p.enterInactive()
		default:
			return false
		}
	case topologyActive:
		switch {
		case !active || p.operEdge:
			p.enterTopologyLearning()
		case (p.rcvdTcn || p.rcvdTc) && p.tcRoom > 0: // NOTIFIED_TCN, NOTIFIED_TC
			p.tcRoom--
			if p.rcvdTcn {
				p.newTcWhile()
			}
			p.rcvdTcn, p.rcvdTc = false, false
			p.tcAck = p.tcAck || p.role == RoleDesignated
			p.setTcPropTree()
			p.b.topologyChanged(p, EventTopologyNotified)
		case p.tcProp: // PROPAGATING
			p.newTcWhile()
			p.b.act.Flush(p.number)
			p.tcProp = false
		case p.rcvdTcAck: // ACKNOWLEDGED
			p.tcWhile = 0
			p.rcvdTcAck = false
		default:
			return false
		}
	}
	return true
}

func (p *port) enterInactive() {
	p.topology = topologyInactive
	p.b.act.Flush(p.number)
	p.tcWhile = 0
	p.tcAck = false
}

func (p *port) enterTopologyLearning() {
	p.topology = topologyLearning
	p.rcvdTc, p.rcvdTcn, p.rcvdTcAck, p.tcProp = false, false, false, false
}

// newTcWhile is 17.21.7.
func (p *port) newTcWhile() {
	switch {
	case p.tcWhile != 0:
	case p.sendRSTP:
		p.tcWhile = p.helloTime() + 1
		p.newInfo = true
	default:
		p.tcWhile = p.maxAge() + p.fwdDelay()
	}
}

// setTcPropTree is 17.21.18.
func (p *port) setTcPropTree() {
	for _, q := range p.b.ports {
		if q != p {
			q.tcProp = true
		}
	}
}
