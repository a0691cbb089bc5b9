package vswitch

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/port"
)

// A worker that polls takes a processor, and most looks find nothing. If each of several did so in
// a goroutine of its own, the processor would go from one to the next after each look, which takes
// as long as to forward a few frames. So the workers that poll form groups, as many as there are
// processors. In each, one worker's goroutine leads: it looks at the queues of all in turn and
// runs the batches of all, while the others' goroutines sleep.

// polling is the groups of a switch.
type polling struct {
	limit  atomic.Int32 // of groups: processors when the last worker began to poll
	number atomic.Int32 // of groups
	shared atomic.Int32 // how many workers would not be in a group if each had one of its own

	mu     sync.Mutex
	groups []*pollGroup
}

// pollGroup is workers whose queues one goroutine polls, the leader's.
type pollGroup struct {
	members []*worker // the leader's alone; passed on with the group

	size    int       // number of members, with those to come; guarded by polling.mu
	coming  []*worker // whom the leader has not met yet; guarded by polling.mu
	arrived atomic.Bool
	helper  atomic.Pointer[pollGroup] // a group that had no work lately
}

// polled is what a worker is as a member of a group.
type polled struct {
	queue port.Polled
	role  chan *pollGroup // the group that it is to lead; nil: it has left its group
	err   error           // of the queue

	busy  bool      // had frames since the last rest
	since time.Time // has had none since then
}

const (
	// restAfter is what a leader does between two rests: so many looks, or batches that count as
	// several. In a rest, other goroutines may run, and the clock is read. It takes 250 ns, a look 30.
	restAfter    = 256
	batchInLooks = 8
)

// runPolled is run for a queue that is polled while frames come at short intervals.
func (w *worker) runPolled(q port.Polled) error {
	w.polled = polled{queue: q, role: make(chan *pollGroup, 1)}
	for {
		n, err := q.Poll(w.frames[:])
		if n > 0 {
			w.pass(n)
		}
		if err == nil && q.Eager(0) {
			err = w.poll()
		}
		if err != nil {
			return err
		}
		q.Wait()
	}
}

// poll returns when frames come too seldom for the queue to be polled, or with its error.
func (w *worker) poll() error {
	w.polled.since = time.Now()
	g := w.sw.polling.join(w)
	if g == nil {
		g = <-w.polled.role
	}
	for g != nil {
		if w.lead(g) {
			break
		}
		g = <-w.polled.role
	}
	return w.polled.err
}

// lead looks after a group until the worker has left it, or is led by another.
func (w *worker) lead(g *pollGroup) (left bool) {
	p := &w.sw.polling
	for {
		g.work()
		runtime.Gosched()
		busy, gone, left := g.review(w)
		switch {
		case gone > 0 || g.arrived.Load():
			p.update(g, gone)
			if !left {
				continue
			}
			if len(g.members) > 0 {
				g.members[0].polled.role <- g
			}
			return true
		case p.crowded(w, 0):
			if p.merge(g, w) {
				return false
			}
		case busy == 0 && p.shared.Load() > 0:
			p.offer(g)
		case busy > 1 && (g.helper.Load() != nil || p.number.Load() < p.limit.Load()):
			p.share(g, w)
		}
	}
}

// work polls the members in turn until it is time to rest.
func (g *pollGroup) work() {
	for _, m := range g.members {
		m.polled.busy = false
	}
	for done := 0; done < restAfter && !g.arrived.Load(); {
		for _, m := range g.members {
			n, err := m.polled.queue.Poll(m.frames[:])
			switch {
			case err != nil:
				m.polled.err = err
				return
			case n > 0:
				m.pass(n)
				m.polled.busy = true
				done += batchInLooks
			default:
				done++
			}
		}
	}
}

// review ends the membership of those whose queues failed, or have few frames. It returns how many
// of the members had frames, how many left, and whether the leader is among those.
func (g *pollGroup) review(leader *worker) (busy, gone int, left bool) {
	now := time.Now()
	before := len(g.members)
	g.members = slices.DeleteFunc(g.members, func(m *worker) bool {
		if m.polled.busy {
			busy++
			m.polled.since = now
		}
		if m.polled.err == nil && m.polled.queue.Eager(now.Sub(m.polled.since)) {
			return false
		}
		if m == leader {
			left = true
		} else {
			m.polled.role <- nil
		}
		return true
	})
	return busy, before - len(g.members), left
}

// join adds a worker to a group. It returns the group if the worker is to lead it.
func (p *polling) join(w *worker) (led *pollGroup) {
	// Go may have been given more processors than the host has.
	p.limit.Store(int32(min(runtime.GOMAXPROCS(0), runtime.NumCPU())))
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.count()
	if p.crowded(w, 1) {
		p.smallest(nil).add(w)
		return nil
	}
	return p.begin(w)
}

// begin makes a group of one worker, which is to lead it.
func (p *polling) begin(w *worker) *pollGroup {
	g := &pollGroup{members: []*worker{w}, size: 1}
	p.groups = append(p.groups, g)
	return g
}

// crowded reports whether there are too many groups if there are so many more. After a pause, when
// a worker may wait for a full queue, it has a group of its own, in which others do not wait with it.
func (p *polling) crowded(w *worker, more int32) bool {
	return p.number.Load()+more > p.limit.Load() && !w.sw.patient.Load()
}

// count counts the groups. The caller holds mu, as do those of begin, smallest, add, meet, and end.
func (p *polling) count() {
	shared := -len(p.groups)
	for _, g := range p.groups {
		shared += g.size
	}
	p.shared.Store(int32(shared))
	p.number.Store(int32(len(p.groups)))
}

// smallest returns the group with the fewest members, except one.
func (p *polling) smallest(except *pollGroup) (least *pollGroup) {
	for _, g := range p.groups {
		if g != except && (least == nil || g.size < least.size) {
			least = g
		}
	}
	return least
}

// add adds workers to a group.
func (g *pollGroup) add(ws ...*worker) {
	g.size += len(ws)
	g.coming = append(g.coming, ws...)
	g.arrived.Store(true)
}

// meet makes members of those to come.
func (g *pollGroup) meet() {
	g.members = append(g.members, g.coming...)
	clear(g.coming)
	g.coming = g.coming[:0]
	g.arrived.Store(false)
}

// update notes that members have left, and makes members of those to come. A group without any
// ends.
func (p *polling) update(g *pollGroup, gone int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	g.size -= gone
	g.meet()
	if len(g.members) == 0 {
		p.end(g)
	}
	p.count()
}

func (p *polling) end(g *pollGroup) {
	p.groups = slices.DeleteFunc(p.groups, func(o *pollGroup) bool { return o == g })
}

// merge adds a group's members to another group, if there are still too many groups.
func (p *polling) merge(g *pollGroup, leader *worker) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.crowded(leader, 0) {
		return false
	}
	to := p.smallest(g)
	g.meet()
	to.add(g.members...)
	p.end(g)
	p.count()
	return true
}

// offer lets the largest group know that this one has no work.
func (p *polling) offer(g *pollGroup) {
	p.mu.Lock()
	defer p.mu.Unlock()
	largest := g
	for _, o := range p.groups {
		if o.size > largest.size {
			largest = o
		}
	}
	if largest != g {
		largest.helper.Store(g)
	}
}

// share gives one of the members that had frames to a group that had no work, or to one of its
// own if there may be more groups.
func (p *polling) share(g *pollGroup, leader *worker) {
	i := slices.IndexFunc(g.members, func(m *worker) bool { return m != leader && m.polled.busy })
	if i < 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.count()
	m := g.members[i]
	switch helper := g.helper.Swap(nil); {
	case slices.Contains(p.groups, helper):
		helper.add(m)
	case !p.crowded(leader, 1):
		m.polled.role <- p.begin(m)
	default:
		return
	}
	g.members = slices.Delete(g.members, i, i+1)
	g.size--
}
