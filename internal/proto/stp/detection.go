package stp

// detectionState is a state of Bridge Detection (17.25).
type detectionState uint8

const (
	detectionNotEdge detectionState = iota
	detectionEdge
)

// bridgeDetection is the Bridge Detection machine (17.25): a port is an edge port
// as long as no bridge is heard there.
func (p *port) bridgeDetection() bool {
	switch p.detection {
	case detectionEdge:
		if (p.enabled() || p.cfg.AdminEdge) && p.operEdge {
			return false
		}
		p.detection, p.operEdge = detectionNotEdge, false
	case detectionNotEdge:
		if !(!p.enabled() && p.cfg.AdminEdge ||
			p.edgeDelayWhile == 0 && p.cfg.AutoEdge && p.sendRSTP && p.proposing) {
			return false
		}
		p.detection, p.operEdge = detectionEdge, true
	}
	return true
}

// setAdminEdge applies the administrator's setting: at BEGIN (17.25), and when it
// changes while the link is up, where the standard would wait for the link to go down.
// A bridge that is heard later overrides it.
func (p *port) setAdminEdge() {
	p.operEdge = p.cfg.AdminEdge
	p.detection = detectionNotEdge
	if p.operEdge {
		p.detection = detectionEdge
	}
}
