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

// ways keeps the kernel's part of a tunnel in the know of the routes to its hosts.
type ways struct {
	mu     sync.Mutex
	done   bool                   // what was found last is in force
	why    atomic.Pointer[string] // a host is not reached by a short way
	detour atomic.Pointer[string] // frames do not take it, when last asked
	events chan struct{}          // routes have changed
}

// findWays reads how all hosts are reached, and tells the kernel.
func (r *replica) findWays() {
	w := &r.ways
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make(map[netip.Addr]link.Way)
	var why string
	if r.t.local.Is4() {
		for a := range *r.t.byAddr.Load() {
			way, err := link.WayTo(r.t.local, a)
			if err == nil {
				all[a] = way
			} else if why == "" {
				why = err.Error()
			}
		}
	} else {
		why = "the tunnel's addresses are IPv6"
	}
	w.why.Store(&why)
	w.done = r.halted.Load() || r.kernel.SetWays(r.t.udpPort, all)
}

// checkWays asks the kernel which way frames take, and tells it the ways again if it did not take them.
func (r *replica) checkWays() {
	why := r.kernel.Detour()
	r.ways.detour.Store(&why)
	r.ways.mu.Lock()
	done := r.ways.done
	r.ways.mu.Unlock()
	if !done {
		r.findWays()
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
		r.t.measure(true)
		r.findWays()
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
	return "small frames straight by the devices that lead to the hosts"
}
