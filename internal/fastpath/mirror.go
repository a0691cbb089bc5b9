package fastpath

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/fdb"
)

const (
	// backlog is how many changed stations may wait for the kernel to be told: what
	// a port that floods addresses makes while one walk of a large table goes on.
	backlog = 1 << 16
)

// Changed implements fdb.Observer. What finds no room in the backlog is found by
// looking at all.
func (p *Path) Changed(k fdb.Key) {
	if !p.live.Load() {
		return
	}
	select {
	case p.changed <- k:
	default:
		p.lookAtAll()
	}
}

// lookAtAll has run look at every station, some time soon.
func (p *Path) lookAtAll() {
	select {
	case p.all <- struct{}{}:
	default:
	}
}

// Flushed implements fdb.Observer.
func (p *Path) Flushed(number uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.live.Load() {
		return
	}
	p.check("forgetting a port's stations", p.slots.forget(number))
	p.bump()
}

// Settle implements vswitch.FastPath.
func (p *Path) Settle() { p.ask(p.settle) }

// Refresh implements vswitch.FastPath.
func (p *Path) Refresh() { p.ask(p.refresh) }

// ask has run do something, and returns when it is done.
func (p *Path) ask(what chan chan<- struct{}) {
	if !p.live.Load() {
		return
	}
	done := make(chan struct{})
	select {
	case what <- done:
		<-done
	case <-p.stop:
	}
}

// run keeps the kernel's stations in line with the table's. When asked, it tells the table
// which ones the kernel heard.
func (p *Path) run() {
	for {
		select {
		case <-p.stop:
			return
		case k := <-p.changed:
			p.mirror(k)
			p.drain()
		case <-p.all:
			p.reconcile()
		case done := <-p.settle:
			select {
			case <-p.all:
				p.reconcile()
			default:
				p.drain()
			}
			close(done)
		case done := <-p.refresh:
			p.walk(nil)
			close(done)
		}
	}
}

// drain mirrors what is in the backlog, and puts it into force.
func (p *Path) drain() {
	for range len(p.changed) {
		p.mirror(<-p.changed)
	}
	p.mu.Lock()
	p.bump()
	p.mu.Unlock()
}

// mirror brings one station in the kernel in line with the table as it is now, so
// the order in which changes are told does not matter.
func (p *Path) mirror(k fdb.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, known := p.table.Get(k)
	if known {
		if l := p.slots.byNumber[e.Port]; l != nil && l.vlans.Has(k.VLAN()) {
			p.put(k, bpfStation{Slot: uint16(l.index), Generation: l.is.Generation, Heard: heardAt(e.Age)})
			return
		}
	}
	p.known.delete(k)
}

// put writes a station. One that finds no place stays with the switch.
func (p *Path) put(k fdb.Key, s bpfStation) {
	p.known.put(k, s, func(k fdb.Key, s bpfStation) bool {
		_, current := p.slots.port(k.VLAN(), s)
		return current
	})
}

// reconcile looks at every station, in the kernel and in the table.
func (p *Path) reconcile() {
	right := make(map[fdb.Key]struct{})
	p.walk(right)
	for e := range p.table.All() {
		if _, is := right[e.Key]; !is {
			p.mirror(e.Key)
		}
	}
	p.drain()
}

// walk looks at every station in the kernel. Those that are where the table has them
// are noted as heard, and in right unless it is nil; the rest is mended.
func (p *Path) walk(right map[fdb.Key]struct{}) {
	now := monotonic()
	p.known.each(func(k fdb.Key, s bpfStation) {
		number, known := p.portOf(k, s)
		switch {
		case !known || !p.table.Heard(k, number, since(now, s.Heard)):
			p.mirror(k)
		case p.isStale(k, since(now, s.Heard)):
			// The workers alone hear the stations of some ports. A next process must
			// not take those for silent.
			p.mirror(k)
			fallthrough
		default:
			if right != nil {
				right[k] = struct{}{}
			}
		}
	})
}

// staleAfter is how much longer the kernel may not have heard a station than the table.
const staleAfter = 10 * time.Second

// isStale reports whether the kernel has not heard a station for so long, and the table has.
func (p *Path) isStale(k fdb.Key, silent time.Duration) bool {
	if silent < staleAfter {
		return false
	}
	e, ok := p.table.Get(k)
	return ok && e.Kind != fdb.Static && e.Age+staleAfter < silent
}

// learn teaches the table the stations that a former process left in the kernel, as old
// as they are.
func (p *Path) learn() {
	now := monotonic()
	p.known.each(func(k fdb.Key, s bpfStation) {
		number, known := p.portOf(k, s)
		if known {
			p.table.Restore(k, number, since(now, s.Heard))
		}
	})
}

// portOf returns the port that a station in the kernel is behind, if that holds.
func (p *Path) portOf(k fdb.Key, s bpfStation) (number uint16, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.slots.port(k.VLAN(), s)
}

// The kernel's unit of time is 2^30 ns of CLOCK_MONOTONIC.
const heardShift = 30

func monotonic() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // never fails
	return time.Duration(t.Nano())
}

// heardAt is when a station was heard that was heard so long ago.
func heardAt(age time.Duration) uint32 { return uint32(max(monotonic()-age, 0) >> heardShift) }

// since is how long before now a station was heard, give or take a unit: up to that
// much more of frames that the kernel remembers, up to that much less of others.
func since(now time.Duration, heard uint32) time.Duration {
	return max(now-time.Duration(heard+1)<<heardShift, 0)
}
