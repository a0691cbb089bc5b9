package daemon

import (
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// shaping says who keeps the egress rate of a port. The device does if it can (port.Shaping), since
// the port stays on the fast path then; else the switch. While the device gets a rate, or loses it,
// the switch keeps the rate, so that nothing is sent past it.
type shaping struct {
	below   uint64 // the rate of the device, in bit/s; 0: none
	lifting bool   // it is about to lose the rate
	how     string // the device keeps it, in words
	why     string // the device does not keep it, in words
}

// lifted is more than any port sends.
var lifted = port.Rate{PerSecond: 4e12, Bits: true}

// configure says in c who keeps the rate.
func (s shaping) configure(c *vswitch.PortConfig) {
	c.ShapedBelow = s.below != 0 && c.Shape == port.Rate{PerSecond: s.below, Bits: true}
	c.NotBelow = s.why
	if s.lifting {
		c.Shape, c.ShapedBelow = lifted, false
	}
}

// shapes returns the rate that a device should keep; 0: none, and why not if the port has one.
func (m *manager) shapes(kind port.Kind, dev port.Port, r port.Rate) (bits uint64, why string) {
	end, ok := dev.(port.KernelEnd)
	switch {
	case r.PerSecond == 0, m.fast == nil, !ok:
		return 0, ""
	case kind.Describe().Tunnel:
		return 0, "which the switch keeps: programs send past the tunnel's device"
	case !exclusive(dev):
		return 0, "which the switch keeps: the interface is shared with the host, whose frames would wait as well (--exclusive)"
	case !end.Punted():
		return 0, ""
	case !r.Bits:
		return 0, "which the switch keeps: the kernel has no rate in frames"
	}
	return r.PerSecond, ""
}

// shapeNew gives the device of a port that is being opened its rate, without the turn. One that
// another process still uses gets it later.
func (m *manager) shapeNew(p *managed, dev port.Port, spec port.Spec) (s shaping) {
	d, ok := dev.(port.Shaping)
	if !ok || p.from != nil && !d.Shapes() {
		return s
	}
	s.below, s.why = m.shapes(p.kind, dev, spec.RateOut)
	return s.with(d.Shape(s.below))
}

// with returns s after the device was told, which may have failed.
func (s shaping) with(how string, err error) shaping {
	s.how = how
	if err != nil && s.below != 0 {
		s.below, s.why = 0, "which the switch keeps: "+err.Error()
	}
	return s
}

// shape brings the device of a claimed port in line with the port's rate. kept says that the device
// keeps the one that it has, or that an error has left it there.
func (m *manager) shape(p *managed, kept bool) {
	d, ok := p.dev.(port.Shaping)
	if !ok || m.handing.Load() || m.taking.Load() { // the other process may be sending
		return
	}
	next := shaping{}
	next.below, next.why = m.shapes(p.kind, p.dev, p.spec.RateOut)
	if next.below == p.shaping.below && kept == (next.below != 0) {
		next.how = p.shaping.how
		m.keepsRate(p, next)
		return
	}
	switch {
	case next.below == 0 && p.shaping.below == 0: // what an error has left
	case next.below == 0:
		m.keepsRate(p, shaping{lifting: true})
	case next.below == p.shaping.below: // somebody took it off
		m.keepsRate(p, shaping{})
	}
	dev, first := p.dev, p.shaping.lifting
	m.off(func() {
		how, err := d.Shape(next.below)
		if err != nil && first {
			m.log.Warn("a device keeps the queue of an egress rate; the switch tries to take it off again", "port", p.spec.Name, "error", err)
		}
		next = next.with(how, err)
	})
	if p.dev == dev {
		m.keepsRate(p, next)
	}
}

// keepsRate tells the core who keeps the rate of a port.
func (m *manager) keepsRate(p *managed, s shaping) {
	if s == p.shaping {
		return
	}
	p.shaping = s
	if p.unfit != nil {
		return
	}
	if err := p.apply(); err != nil {
		m.log.Error("who keeps an egress rate", "port", p.spec.Name, "error", err)
	}
}
