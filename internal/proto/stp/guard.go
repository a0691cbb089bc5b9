package stp

// accept counts a frame and applies the guards. It reports whether the machines have
// something to do.
func (p *port) accept(frame []byte) bool {
	m, ok := p.count(frame)
	switch {
	case p.cfg.BPDUFilter || !p.enabled():
		return false
	case p.cfg.BPDUGuard:
		p.trip()
		return true
	case !ok:
		return false
	}
	p.msg, p.rcvdBPDU = m, true
	return true
}

// count counts a frame and reports whether it is a BPDU.
func (p *port) count(frame []byte) (BPDU, bool) {
	m, err := Parse(frame)
	if err != nil {
		p.invalid++
		return m, false
	}
	if !p.cfg.BPDUFilter && p.enabled() {
		p.rx.count(m.Type)
	}
	return m, true
}

// trip disables the port. It does not matter whether the frame is a BPDU: no station
// sends anything to the addresses of BPDUs.
func (p *port) trip() {
	p.tripped, p.recoverIn = true, p.b.cfg.GuardRecovery
	p.b.event(p, EventBPDUGuard)
}

// recover ends the effect of BPDU guard. The port starts as if its link came up.
func (p *port) recover() {
	p.tripped, p.recoverIn = false, 0
	p.b.event(p, EventRecovered)
}

// own reports whether this very port sent m: then there is a loop behind it.
func (p *port) own(m *BPDU) bool {
	return m.Type != TypeTCN && m.Bridge.sameBridge(p.b.id) && m.Port.Number() == p.number
}
