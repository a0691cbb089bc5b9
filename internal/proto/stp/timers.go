package stp

// timers are those of 17.17, and the count of BPDUs sent in this second. All are in
// seconds and count down to zero.
type timers struct {
	edgeDelayWhile, fdWhile, helloWhen, mdelayWhile int
	rbWhile, rcvdInfoWhile, rrWhile, tcWhile        int

	txCount   int
	loopWhile int // since the port heard itself; not of 17.17
}

// tick is the Port Timers machine (17.22), the recovery from BPDU guard, and the refill of tcRoom.
func (p *port) tick() {
	for _, t := range [...]*int{
		&p.edgeDelayWhile, &p.fdWhile, &p.helloWhen, &p.mdelayWhile,
		&p.rbWhile, &p.rcvdInfoWhile, &p.rrWhile, &p.tcWhile, &p.txCount, &p.loopWhile,
	} {
		*t = max(*t-1, 0)
	}
	p.tcRoom = min(p.tcRoom+1, tcBurst)
	if p.tripped && p.recoverIn > 0 {
		if p.recoverIn--; p.recoverIn == 0 {
			p.recover()
		}
	}
}
