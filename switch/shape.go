package vswitch

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/vswitch/vswitch/port"
)

const (
	// shapeDelay bounds how long a frame waits at a shaped port: a queue that holds
	// more only adds delay, for the guests behind the port and those beside them.
	shapeDelay = 200 * time.Millisecond

	// shapeFloor is how many full frames may wait however slow the rate is: with
	// less, TCP cannot learn of a loss but by a timeout.
	shapeFloor = 8

	// shapeDepth and shapeBytes bound what may wait at high rates.
	shapeDepth = 1000
	shapeBytes = 2 << 20

	// shapeBurst is how far a shaped port may run ahead of its rate: timers
	// fire late by up to a millisecond, and what was missed then is made up.
	shapeBurst = 4 * time.Millisecond
)

// shaper stands between the workers and the queues of a port with an egress rate.
// It copies frames, for a batch's memory cannot wait, and sends them from a
// goroutine of its own. Workers hold its lock for the copy only. Frames of the switch's
// own pass by the queue.
type shaper struct {
	tx    *txCounters
	start time.Time
	more  chan struct{} // has a token when run must look again

	mu      sync.Mutex
	none    sync.Cond // nothing waits any more
	until   int64     // ns: what was sent has used up the rate until then
	fair    fairQueue
	sending bool         // run has a frame that waits no more
	queues  []port.Queue // of the last device; set before anything can wait
	open    bool         // the rate is off: what waits goes at once, and nothing joins it
	done    bool

	one [1]port.Out // run's
}

// shapedQueue is one queue of a shaped port, as workers see it.
type shapedQueue struct {
	*shaper
	index int
}

// setShape gives the port an egress rate. Without one, it returns the shaper that is
// no longer needed, once all that waited there has gone: after publish it is stopped.
// The caller holds sw.mu.
func (p *Port) setShape(r port.Rate) (unneeded *shaper) {
	if r.PerSecond == 0 {
		unneeded, p.shaper = p.shaper, nil
		unneeded.release()
		return unneeded
	}
	if p.shaper == nil {
		p.shaper = newShaper(&p.tx[0])
		p.sw.running.Go(p.shaper.run)
	}
	p.shaper.set(r)
	return nil
}

func newShaper(tx *txCounters) *shaper {
	s := &shaper{tx: tx, start: time.Now(), more: make(chan struct{}, 1), fair: fairQueue{seed: rand.Uint64()}}
	s.none.L = &s.mu
	return s
}

// set puts a rate into force at once: what was sent under another one does not count
// against it, and what waits and would wait too long now is dropped.
func (s *shaper) set(r port.Rate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fair.rate == r {
		return
	}
	s.until = 0
	s.fair.setRate(r)
	for s.fair.n > 1 && s.fair.waiting >= shapeLimit(r) {
		s.dropOne()
	}
	s.wake()
}

// dropOne drops the first frame of the flow that has to wait longest: so its sender
// learns soonest that it sends too much.
func (s *shaper) dropOne() {
	s.fair.free(s.fair.take(s.fair.longest()))
	s.tx.dropped[port.DropShaped].Add(1)
}

// shapeLimit returns how much of a rate's time may be used up when another frame joins.
func shapeLimit(r port.Rate) int64 {
	floor := uint64(shapeFloor)
	if r.Bits {
		floor *= 8 * 1514
	}
	return max(int64(shapeDelay), timeOf(floor, r))
}

// release lets go of what waits, and returns when nothing does. From then on workers send
// past the shaper by themselves, so nothing overtakes. A nil shaper has nothing.
func (s *shaper) release() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = true
	s.wake()
	s.waitForNone()
}

// waitForNone returns when nothing waits, with mu held as before. What is open is
// soon empty: queues take a frame or refuse it.
func (s *shaper) waitForNone() {
	for s.fair.n > 0 || s.sending {
		s.none.Wait()
	}
}

// attach sets where frames go from now on, and returns the queues
// that workers use in place of those.
func (s *shaper) attach(queues []port.Queue) []port.Queue {
	s.mu.Lock()
	s.queues = queues
	s.mu.Unlock()
	s.wake()
	shaped := make([]port.Queue, len(queues))
	for i := range shaped {
		shaped[i] = shapedQueue{s, i}
	}
	return shaped
}

// stop ends run once nothing waits. A nil shaper has none.
func (s *shaper) stop() {
	if s == nil {
		return
	}
	s.mu.Lock()
	s.done = true
	s.mu.Unlock()
	s.wake()
}

func (s *shaper) wake() {
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// clock returns the time in ns since the shaper was made.
func (s *shaper) clock() int64 { return int64(time.Since(s.start)) }

// Recv and Release are the attached queue's affair: no worker calls them here.
func (shapedQueue) Recv([]port.Frame) (int, error) { return 0, port.ErrClosed }
func (shapedQueue) Release()                       {}

// Send implements port.Queue. What joins the queue is counted when it is sent.
func (q shapedQueue) Send(out []port.Out) {
	s := q.shaper
	s.mu.Lock()
	queues := s.queues
	if s.open {
		s.waitForNone()
		s.mu.Unlock()
		queues[q.index%len(queues)].Send(out)
		return
	}
	now, control := s.clock(), false
	for i := range out {
		o := &out[i]
		if o.Control {
			s.spend(o.Frame, now)
			control = true
			continue
		}
		o.Drop = s.join(o, q.index, now)
	}
	s.mu.Unlock()
	s.wake()
	if !control {
		return
	}
	for i := range out {
		if out[i].Control {
			queues[q.index%len(queues)].Send(out[i : i+1])
		}
	}
}

// join puts a copy of a frame into the queue. Where there is no room, the flow that has
// to wait longest makes some. The caller holds mu.
func (s *shaper) join(o *port.Out, queue int, now int64) port.Drop {
	q := &s.fair
	f, size := q.flowOf(o.Frame), o.Len()
	for q.n > 0 && (q.n >= shapeDepth || q.bytes+size > shapeBytes || max(s.until-now, 0)+q.waiting >= shapeLimit(q.rate)) {
		if f.waiting >= q.longest().waiting {
			return port.DropShaped
		}
		s.dropOne()
	}
	return q.push(o, queue, f)
}

// spend counts a frame that is sent at a time. The caller holds mu.
func (s *shaper) spend(f *port.Frame, now int64) { s.until = max(s.until, now) + cost(f, s.fair.rate) }

// run sends what waits, at the rate, until stop.
func (s *shaper) run() {
	timer := time.NewTimer(0)
	<-timer.C
	for {
		wait, done := s.sendDue()
		switch {
		case done:
			return
		case wait == 0:
			<-s.more
		default:
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-s.more: // the rate may be another
			}
		}
	}
}

// sendDue sends what is due and returns how long the next frame has to wait, 0
// when there is none.
func (s *shaper) sendDue() (wait time.Duration, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.fair.n > 0 {
		now := s.clock()
		if !s.open && s.until > now+int64(shapeBurst) {
			return time.Duration(s.until-now) - shapeBurst/2, false
		}
		e := s.fair.pop()
		s.spend(&e.frame, now)
		queues := s.queues
		s.sending = true
		s.mu.Unlock()

		s.one[0] = e.out
		queues[e.queue%len(queues)].Send(s.one[:])
		s.tx.count(s.one[:])

		s.mu.Lock()
		s.fair.free(e)
		s.sending = false
	}
	s.none.Broadcast()
	return 0, s.done
}
