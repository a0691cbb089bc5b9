package stp

// portTransmit is the Port Transmit machine (17.26). Its only lasting state is IDLE;
// while the port is not enabled it stays in TRANSMIT_INIT, as in 802.1Q.
func (p *port) portTransmit() {
	if !p.enabled() {
		p.newInfo, p.txCount, p.helloWhen = false, 0, p.helloTime()
		return
	}
	if !p.selected || p.updtInfo {
		return
	}
	if p.helloWhen == 0 { // TRANSMIT_PERIODIC
		p.newInfo = p.newInfo || p.role == RoleDesignated || p.role == RoleRoot && p.tcWhile != 0
		p.helloWhen = p.helloTime()
	}
	if !p.newInfo || p.txCount >= p.b.cfg.TxHoldCount {
		return
	}
	switch {
	case p.sendRSTP: // TRANSMIT_RSTP
		p.txRstp()
		p.tcAck = false
	case p.role == RoleDesignated: // TRANSMIT_CONFIG
		p.txConfig()
		p.tcAck = false
	case p.role == RoleRoot: // TRANSMIT_TCN
		p.send(&BPDU{Type: TypeTCN}) // 17.21.21 txTcn
	default:
		return
	}
	p.newInfo = false
	p.txCount++
	p.helloWhen = p.helloTime()
}

// txConfig is 17.21.19.
func (p *port) txConfig() {
	m := BPDU{Type: TypeConfig}
	if p.tcWhile != 0 {
		m.Flags |= FlagTC
	}
	if p.tcAck {
		m.Flags |= FlagTCAck
	}
	p.fill(&m)
	p.send(&m)
}

// txRstp is 17.21.20.
func (p *port) txRstp() {
	m := BPDU{Type: TypeRST, Flags: p.role.flags()}
	for _, f := range [...]struct {
		set  bool
		flag Flags
	}{
		{p.tcWhile != 0, FlagTC},
		{p.proposing, FlagProposal},
		{p.learning(), FlagLearning},
		{p.forwarding(), FlagForwarding},
		{p.agree, FlagAgreement},
	} {
		if f.set {
			m.Flags |= f.flag
		}
	}
	p.fill(&m)
	p.send(&m)
}

// flags returns the role as encoded in a BPDU (9.2.9).
func (r Role) flags() Flags {
	switch r {
	case RoleRoot:
		return roleRoot
	case RoleDesignated:
		return roleDesignated
	case RoleAlternate, RoleBackup:
		return roleAlternateBackup
	}
	return roleUnknown
}

func (p *port) fill(m *BPDU) {
	v, t := p.designatedPriority, p.designatedTimes
	m.Root, m.RootCost, m.Bridge, m.Port = v.root, v.cost, v.bridge, v.port
	m.MessageAge, m.MaxAge = ticks256(t.messageAge), ticks256(t.maxAge)
	m.HelloTime, m.ForwardDelay = ticks256(t.hello), ticks256(t.forwardDelay)
}

func (p *port) send(m *BPDU) {
	if p.cfg.BPDUFilter {
		return
	}
	p.tx.count(m.Type)
	p.b.act.SendBPDU(p.number, m.Put(&p.b.buf, p.b.cfg.Address))
}
