package stp

// informationState is a lasting state of Port Information (17.27); UCT leaves the
// others at once.
type informationState uint8

const (
	informationDisabled informationState = iota
	informationAged
	informationCurrent
)

// portInformation is the Port Information machine (17.27): it keeps the best
// information received on the port's link or to be sent there.
func (p *port) portInformation() bool {
	if !p.enabled() && p.infoIs != infoDisabled {
		p.enterInfoDisabled()
		return true
	}
	switch p.information {
	case informationDisabled:
		switch {
		case p.enabled():
			p.enterAged()
		case p.rcvdMsg:
			p.enterInfoDisabled()
		default:
			return false
		}
	case informationAged:
		if !p.selected || !p.updtInfo {
			return false
		}
		p.passUpdate()
	case informationCurrent:
		switch {
		case p.selected && p.updtInfo:
			p.passUpdate()
		case p.rcvdMsg && !p.updtInfo:
			p.passReceive()
		case p.infoIs == infoReceived && p.rcvdInfoWhile == 0 && !p.updtInfo && !p.rcvdMsg:
			p.enterAged()
		default:
			return false
		}
	}
	return true
}

func (p *port) enterInfoDisabled() {
	p.information = informationDisabled
	p.rcvdMsg = false
	p.proposing, p.proposed, p.agree, p.agreed = false, false, false, false
	p.rcvdInfoWhile = 0
	p.infoIs = infoDisabled
	p.recompute()
}

func (p *port) enterAged() {
	p.information = informationAged
	p.infoIs = infoAged
	p.recompute()
}

// passUpdate is UPDATE, and CURRENT after it.
func (p *port) passUpdate() {
	p.information = informationCurrent
	p.proposing, p.proposed = false, false
	// 17.21.1 betterorsameInfo(Mine), and the root must be the same. In the standard,
	// an agreement to one root holds for another. When a root is lost and old
	// information about it circulates, that lets frames circulate too.
	p.agreed = p.agreed && p.infoIs == infoMine && p.designatedPriority.root == p.portPriority.root &&
		p.designatedPriority.compare(p.portPriority) <= 0
	p.synced = p.synced && p.agreed
	p.portPriority, p.portTimes = p.designatedPriority, p.designatedTimes
	p.updtInfo = false
	p.infoIs = infoMine
	p.newInfo = true
}

// passReceive is RECEIVE, the state to which the message leads, and CURRENT again.
func (p *port) passReceive() {
	switch p.rcvInfo() {
	case superiorDesignated:
		p.agreed, p.proposing = false, false
		p.recordProposal()
		p.setTcFlags()
		// 17.21.1 betterorsameInfo(Received)
		p.agree = p.agree && p.infoIs == infoReceived && p.msgPriority.compare(p.portPriority) <= 0
		p.portPriority, p.portTimes = p.msgPriority, p.msgTimes // 17.21.12, 17.21.13
		p.updtRcvdInfoWhile()
		p.infoIs = infoReceived
		p.recompute()
	case repeatedDesignated:
		p.recordProposal()
		p.setTcFlags()
		p.updtRcvdInfoWhile()
	case inferiorDesignated:
		p.recordDispute()
	case inferiorRootAlternate:
		p.recordAgreement()
		p.setTcFlags()
	case tcn:
		p.setTcFlags()
	case ownInfo:
		p.looped++
		p.loopWhile = 3 * p.helloTime()
		p.disputed, p.agreed = true, false
	}
	p.rcvdMsg = false
}

// rcvdInfo is what a message means to the port (17.21.8).
type rcvdInfo uint8

const (
	otherInfo rcvdInfo = iota
	superiorDesignated
	repeatedDesignated
	inferiorDesignated
	inferiorRootAlternate
	tcn     // other info in 17.21.8, which sets rcvdTcn on the way
	ownInfo // the port hears itself
)

// rcvInfo is 17.21.8. By the standard's rules, a message that the port sent itself
// would be superior or repeated information. Here it disputes the port's right to
// forward, so that a link looped back on itself stays blocked.
func (p *port) rcvInfo() rcvdInfo {
	m := &p.msg
	if m.Type == TypeTCN {
		return tcn
	}
	p.msgPriority = vector{root: m.Root, cost: m.RootCost, bridge: m.Bridge, port: m.Port}
	p.msgTimes = times{
		messageAge:   seconds(m.MessageAge),
		maxAge:       seconds(m.MaxAge),
		hello:        min(max(seconds(m.HelloTime), 1), 10), // 17.21.13, and Hello Time's upper bound
		forwardDelay: seconds(m.ForwardDelay),
	}
	if p.own(m) {
		return ownInfo
	}
	worse := p.msgPriority.compare(p.portPriority)
	if m.designated() {
		switch {
		case p.msgPriority.superior(p.portPriority), worse == 0 && p.msgTimes != p.portTimes:
			return superiorDesignated
		case worse == 0 && p.infoIs == infoReceived:
			return repeatedDesignated
		case worse > 0:
			return inferiorDesignated
		}
	} else if worse >= 0 {
		return inferiorRootAlternate
	}
	return otherInfo
}

// updtRcvdInfoWhile is 17.21.23: information that travelled too far is aged out at
// once.
func (p *port) updtRcvdInfoWhile() {
	p.rcvdInfoWhile = 0
	if p.portTimes.messageAge+1 <= p.portTimes.maxAge {
		p.rcvdInfoWhile = 3 * p.portTimes.hello
	}
}

// recordAgreement is 17.21.9, for an agreement on the root that the port announced: see
// passUpdate. A neighbour that meant an older root agrees again when asked.
func (p *port) recordAgreement() {
	p.agreed = !p.cfg.Shared && p.msg.Flags&FlagAgreement != 0 && p.msgPriority.root == p.portPriority.root
	if p.agreed {
		p.proposing = false
	}
}

// recordDispute is 17.21.10, as 802.1Q corrected it: the neighbour learns where this
// port should, so it does not hear this port, and the port must not forward.
func (p *port) recordDispute() {
	if p.msg.Type == TypeRST && p.msg.Flags&FlagLearning != 0 {
		p.disputed, p.agreed = true, false
	}
}

// recordProposal is 17.21.11.
func (p *port) recordProposal() {
	if p.msg.Flags&FlagProposal != 0 {
		p.proposed = true
	}
}

// setTcFlags is 17.21.17.
func (p *port) setTcFlags() {
	if p.msg.Type == TypeTCN {
		p.rcvdTcn = true
		return
	}
	p.rcvdTc = p.rcvdTc || p.msg.Flags&FlagTC != 0
	p.rcvdTcAck = p.rcvdTcAck || p.msg.Flags&FlagTCAck != 0
}
