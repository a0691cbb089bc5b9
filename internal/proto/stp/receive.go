package stp

// receiveState is a state of Port Receive (17.23, figure 17-14).
type receiveState uint8

const (
	receiveDiscard receiveState = iota
	receiveReceive
)

// portReceive is the Port Receive machine (17.23).
func (p *port) portReceive() bool {
	switch {
	case !p.enabled() && (p.rcvdBPDU || p.edgeDelayWhile != migrateTime):
		p.enterDiscard()
	case p.rcvdBPDU && p.enabled() && (p.receive == receiveDiscard || !p.rcvdMsg):
		p.receive = receiveReceive
		p.updtBPDUVersion()
		p.operEdge, p.rcvdBPDU = false, false
		p.rcvdMsg = true
		p.edgeDelayWhile = migrateTime
	default:
		return false
	}
	return true
}

func (p *port) enterDiscard() {
	p.receive = receiveDiscard
	p.rcvdBPDU, p.rcvdRSTP, p.rcvdSTP = false, false, false
	p.rcvdMsg = false
	p.edgeDelayWhile = migrateTime
}

// updtBPDUVersion is 17.21.22.
func (p *port) updtBPDUVersion() {
	if p.msg.Type == TypeRST {
		p.rcvdRSTP = true
	} else {
		p.rcvdSTP = true
	}
}
