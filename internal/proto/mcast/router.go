package mcast

import (
	"maps"
	"slices"
	"time"
)

// routers are the ports toward a multicast router of the family (RFC 4541 section
// 2.1.1): learned from queries, from PIM hellos, and from RFC 4286 advertisements.
// Static ones are in PortConfig.
type routers struct {
	in    *instance
	until map[uint16]time.Duration
	timer timer
}

func (r *routers) init(in *instance) {
	r.in, r.until, r.timer.fire = in, map[uint16]time.Duration{}, r.expire
}

func (r *routers) learn(port uint16, hold time.Duration) {
	now := r.in.s.now
	if _, ok := r.until[port]; !ok {
		r.in.changed()
	}
	r.until[port] = max(r.until[port], now+hold)
	r.schedule()
}

func (r *routers) remove(port uint16) {
	if _, ok := r.until[port]; ok {
		delete(r.until, port)
		r.in.changed()
		r.schedule()
	}
}

func (r *routers) expire() {
	for port, until := range r.until {
		if until <= r.in.s.now {
			delete(r.until, port)
			r.in.changed()
		}
	}
	r.schedule()
}

func (r *routers) schedule() {
	timers := &r.in.s.timers
	if len(r.until) == 0 {
		timers.stop(&r.timer)
		return
	}
	timers.set(&r.timer, slices.Min(slices.Collect(maps.Values(r.until))))
}

// list returns the router ports, learned and static, sorted.
func (r *routers) list() []uint16 {
	ports := slices.Collect(maps.Keys(r.until))
	for id, p := range r.in.s.ports {
		if p.Router == RouterAlways {
			ports = append(ports, id)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}
