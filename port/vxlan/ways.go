package vxlan

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/internal/linux/link"
)

// Where a host is reached by an Ethernet device alone, the kernel's programs put small frames into
// packets themselves, and take them out at that device: the short way. For that they have to
// know the route to the host, which is read anew whenever routes change, and from time to time.

// sampled is how many of the hosts' routes are read from time to time, in case that a change was
// not told: each has its turn, and a tunnel with thousands of hosts asks for few.
const sampled = 64

// ways keeps the kernel's part of a tunnel in the know of the routes to its hosts.
type ways struct {
	mu     sync.Mutex
	found  map[netip.Addr]wayFound // of each host
	done   bool                    // that is in force
	why    atomic.Pointer[string]  // a host is not reached by a short way
	detour atomic.Pointer[string]  // frames do not take it, when last asked
	events chan struct{}           // routes have changed
}

// wayFound is how a host is reached, or why it is not by a short way.
type wayFound struct {
	link.Way
	err error
}

// findWays reads how hosts are reached of which that is not known, and tells the kernel. Up to so many
// are forgotten first.
func (r *replica) findWays(forget int) {
	w := &r.ways
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make(map[netip.Addr]link.Way)
	var why string
	if r.t.local.Is4() {
		if err := w.find(r.t.local, *r.t.byAddr.Load(), forget); err != nil {
			why = err.Error()
		}
		for a, f := range w.found {
			if f.err == nil {
				all[a] = f.Way
			} else if why == "" {
				why = f.err.Error()
			}
		}
	} else {
		why = "the tunnel's addresses are IPv6"
	}
	w.why.Store(&why)
	w.done = r.halted.Load() || r.kernel.SetWays(r.t.header, r.t.udpPort, all)
}

// find makes found complete. The caller holds mu.
func (w *ways) find(local netip.Addr, hosts map[netip.Addr]*vtep, forget int) error {
	next := make(map[netip.Addr]wayFound, len(hosts)) // maps do not shrink
	for a, f := range w.found {                       // in an order that changes
		if forget--; forget < 0 && hosts[a] != nil {
			next[a] = f
		}
	}
	w.found = next
	if len(next) == len(hosts) {
		return nil
	}
	return link.WaysTo(local, func(yield func(netip.Addr) bool) {
		for a := range hosts {
			if _, known := next[a]; !known && !yield(a) {
				return
			}
		}
	}, func(a netip.Addr, way link.Way, err error) { next[a] = wayFound{way, err} })
}

// checkWays asks the kernel which way frames take, and tells it the ways again if it did not take them.
func (r *replica) checkWays() {
	why := r.kernel.Detour()
	r.ways.detour.Store(&why)
	r.ways.mu.Lock()
	done := r.ways.done
	r.ways.mu.Unlock()
	if !done {
		r.findWays(0)
	}
}

// followWays reads the routes when they change, until quit is closed. A storm of changes
// takes a twentieth of a processor.
func (r *replica) followWays(quit <-chan struct{}) {
	for {
		select {
		case <-quit:
			return
		case <-r.ways.events:
		}
		start := time.Now()
		r.t.measureDevice()
		r.t.measure(true)
		r.findWays(maxVTEPs)
		select {
		case <-quit:
			return
		case <-time.After(max(20*time.Since(start), 100*time.Millisecond)):
		}
	}
}

// detour says why frames take the device's way; empty if none does.
func (r *replica) detour() string {
	for _, p := range []*atomic.Pointer[string]{&r.ways.why, &r.ways.detour} {
		if why := p.Load(); why != nil && *why != "" {
			return *why
		}
	}
	return ""
}

// Ways implements port.Routed.
func (p *device) Ways() string {
	if why := p.replica.detour(); why != "" {
		return "by the kernel's tunnel: " + why
	}
	return "frames straight by the devices that lead to the hosts"
}
