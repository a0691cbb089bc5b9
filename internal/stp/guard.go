package stp

// accept counts a frame and applies the guards. It tells whether the machines have
// something to do.
func (p *port) accept(frame []byte) bool {
	m, err := Parse(frame)
	if err != nil {
		p.invalid++
		return false
	}
	if p.cfg.BPDUFilter || !p.enabled() {
		return false
	}
	p.rx.count(m.Type)
	if p.cfg.BPDUGuard {
		p.tripped, p.recoverIn = true, p.b.cfg.GuardRecovery
		p.b.event(p, EventBPDUGuard)
		return true
	}
	p.msg, p.rcvdBPDU = m, true
	return true
}

// recover ends what BPDU guard began. The port starts as if its link came up.
func (p *port) recover() {
	p.tripped, p.recoverIn = false, 0
	p.b.event(p, EventRecovered)
}

// own tells whether m was sent by this very port: there is a loop behind it.
func (p *port) own(m *BPDU) bool {
	return m.Type != TypeTCN && m.Bridge.sameBridge(p.b.id) && m.Port.Number() == p.number
}
