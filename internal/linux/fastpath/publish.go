package fastpath

import (
	"errors"

	vswitch "github.com/vswitch/vswitch/switch"
)

// Publish implements vswitch.FastPath.
func (p *Path) Publish(ports []vswitch.FastPort, flood vswitch.FastFlood) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.published, p.flood = ports, flood
	if p.live.Load() {
		p.apply(ports, flood)
	}
}

// apply puts the ports into force. A port that the kernel refuses stays with the switch or
// is shut: no port keeps forwarding by outdated rules.
func (p *Path) apply(ports []vswitch.FastPort, flood vswitch.FastFlood) {
	vlans, err := p.floods.change(&p.bpf, ports, flood)
	p.check("stopping floods", errors.Join(err, p.groups.change(&p.bpf, ports, flood)))
	changed, err := p.slots.shut(ports)
	p.check("taking ports out", err)
	p.check("aiming mirrors", p.slots.aim(ports, p.bump))
	needed := needs(ports)
	p.check("starting copies", p.rings.start(needed, p.read, p.asked))
	for _, one := range ports {
		c, others, err := p.slots.set(one)
		p.check("setting a port", err)
		changed = changed || c
		if others {
			p.lookAtAll()
		}
	}
	p.check("flooding", errors.Join(p.floods.start(&p.bpf, &p.slots, vlans), p.groups.start(&p.bpf, &p.slots, flood)))
	if changed || p.floods.changed || p.groups.changed {
		p.bump()
	}
	p.floods.changed, p.groups.changed = false, false
	p.check("ending copies", p.rings.stop(needed))
}

// bump makes changes apply to flows that the kernel remembers, too. Each number is written once:
// whoever is overtaken writes one that no flow was remembered with before.
func (p *Path) bump() {
	p.check("telling of a change", p.bpf.Epochs.Put(uint32(0), p.epoch.Add(1)))
}

// Counters implements vswitch.FastPath.
func (p *Path) Counters(number uint16) vswitch.PortStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.slots.byNumber[number]
	if l == nil || !p.live.Load() {
		return vswitch.PortStats{}
	}
	st, err := l.counters(&p.bpf)
	p.check("reading counters", err)
	return st
}

// Release implements vswitch.FastPath.
func (p *Path) Release(number uint16) vswitch.PortStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.live.Load() {
		return vswitch.PortStats{}
	}
	st, err := p.slots.release(number)
	p.check("freeing a port", err)
	p.bump()
	return st
}
