package fastpath

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/fdb"
)

const (
	// backlog is how many changed stations may wait to be written to the kernel: as many
	// as a port that floods addresses makes during one walk of a large table.
	backlog = 1 << 16
)

// Changed implements fdb.Observer. If the backlog is full, run reconciles all stations.
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

// lookAtAll makes run reconcile every station soon.
func (p *Path) lookAtAll() {
	select {
	case p.all <- struct{}{}:
	default:
	}
}

// Backlog returns how many changed stations wait to be written to the kernel.
func (p *Path) Backlog() int { return len(p.changed) }

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

// ask sends run a request and returns when it is done.
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

// run keeps the kernel's stations consistent with the table's. On request it also refreshes
// the entries of the stations that the kernel heard.
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
		case done := <-p.suspend:
			p.drain()
			close(done)
			select {
			case <-p.resume:
			case <-p.stop:
				return
			}
		}
	}
}

// drain mirrors the stations in the backlog and puts the changes into force.
func (p *Path) drain() {
	for range len(p.changed) {
		p.mirror(<-p.changed)
	}
	p.bump()
}

// mirror makes one station in the kernel match the table as it is now, so the order of
// the notifications does not matter.
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

// put writes a station. If there is no place for it, the switch keeps forwarding to it.
func (p *Path) put(k fdb.Key, s bpfStation) {
	p.known.put(k, s, func(k fdb.Key, s bpfStation) bool {
		_, current := p.slots.port(k.VLAN(), s)
		return current
	})
}

// reconcile compares every station in the kernel with the table, and the reverse, and
// mends the kernel's.
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

// walk visits every station in the kernel. Stations at the port where the table has them
// are refreshed in the table, and added to right unless it is nil; the others are mended.
func (p *Path) walk(right map[fdb.Key]struct{}) {
	now := monotonic()
	p.known.each(func(k fdb.Key, s bpfStation) {
		number, known := p.portOf(k, s)
		switch {
		case !known || !p.table.Heard(k, number, since(now, s.Heard)):
			p.mirror(k)
		case p.isStale(k, since(now, s.Heard)):
			// Only the workers hear the stations of some ports. The next process must
			// not mistake them for silent ones.
			p.mirror(k)
			fallthrough
		default:
			if right != nil {
				right[k] = struct{}{}
			}
		}
	})
}

// staleAfter is how far the kernel's record of a station may lag behind the table's.
const staleAfter = 10 * time.Second

// isStale reports whether the kernel's record of a station, silent for that long, lags
// behind the table's by more than staleAfter.
func (p *Path) isStale(k fdb.Key, silent time.Duration) bool {
	if silent < staleAfter {
		return false
	}
	e, ok := p.table.Get(k)
	return ok && e.Kind != fdb.Static && e.Age+staleAfter < silent
}

// learn restores the stations that an earlier process left in the kernel to the table,
// with their ages.
func (p *Path) learn() {
	now := monotonic()
	p.known.each(func(k fdb.Key, s bpfStation) {
		number, known := p.portOf(k, s)
		if known {
			p.table.Restore(k, number, since(now, s.Heard))
		}
	})
}

// portOf returns the port of a station in the kernel; known is false if the record is out
// of date.
func (p *Path) portOf(k fdb.Key, s bpfStation) (number uint16, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.slots.port(k.VLAN(), s)
}

// The kernel's unit of time is 2^30 ns of CLOCK_MONOTONIC.
const heardShift = 30

func monotonic() time.Duration { return clock(unix.CLOCK_MONOTONIC) }

// coarse is monotonic as the programs read it, up to a tick behind.
func coarse() time.Duration { return clock(unix.CLOCK_MONOTONIC_COARSE) }

func clock(id int32) time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(id, &t) // never fails
	return time.Duration(t.Nano())
}

// heardAt converts an age to the kernel's unit. No program finds the result in its future.
func heardAt(age time.Duration) uint32 { return uint32(max(coarse()-age, 0) >> heardShift) }

// since returns how long before now a station was heard, within one unit: up to a unit too
// much for flows that the kernel remembers, up to a unit too little for others.
func since(now time.Duration, heard uint32) time.Duration {
	return max(now-time.Duration(heard+1)<<heardShift, 0)
}
