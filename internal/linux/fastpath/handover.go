package fastpath

import "os"

// Two processes may have a Path of the same pins while one replaces the other; the one changes
// nothing after Suspend, the other nothing before Start.

// Lock returns the lock of the pins, which the next process needs; nil if nothing is pinned, or was removed for good.
func (p *Path) Lock() *os.File {
	if p.pins == nil {
		return nil
	}
	if p.live.Load() && !p.pins.restore(&p.programs) {
		return nil
	}
	p.pins.mu.Lock()
	defer p.pins.mu.Unlock()
	return p.pins.lock.File
}

// Suspend brings the kernel's stations up to date, and leaves the kernel as it is until Continue.
func (p *Path) Suspend() {
	if !p.live.Load() {
		return
	}
	done := make(chan struct{})
	p.suspend <- done
	<-done
	p.mu.Lock()
	defer p.mu.Unlock()
	p.guards.suspend(true)
	p.live.Store(false)
	p.suspended = true
	p.check("flooding again", p.slots.returnFloods()) // the sockets hold only so much while nobody reads
}

// Continue goes on because the next process failed. That one may have put its programs at the
// devices, whether this one is suspended or not.
func (p *Path) Continue() {
	p.mu.Lock()
	if p.pins != nil {
		for ifindex := range p.attached {
			for _, h := range p.hooksOf(ifindex) {
				if l := p.pins.link(ifindex, h.suffix); l != nil {
					p.check("putting a program back", p.adopt(l, ifindex, h))
					l.Close()
				}
			}
		}
	}
	for ifindex, u := range p.underlays {
		if p.update(u.Link, unwrapHook) != nil {
			_ = p.uncover(ifindex) // until the ways are set again
		}
	}
	suspended := p.suspended
	if suspended {
		p.suspended = false
		p.live.Store(true)
		p.check("going on with copies", p.rings.putBack())
		p.apply(p.published, p.flood)
		p.guards.suspend(false)
	}
	p.mu.Unlock()
	if suspended {
		p.resume <- struct{}{}
		p.lookAtAll()
	}
}
