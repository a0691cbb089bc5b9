package vswitch

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/vswitch/vswitch/port"
)

const (
	// shapeDelay bounds how long a frame waits at a shaped port. A longer queue only adds
	// delay, for the guests behind the port and those beside them.
	shapeDelay = 200 * time.Millisecond

	// shapeFloor is how many full-size frames may wait even at the slowest rate: with
	// fewer, TCP learns of a loss only by a timeout.
	shapeFloor = 8

	// shapeDepth bounds the queue at high rates, as ShapeBytes does.
	shapeDepth = 1000

	// shapeBurst is how far a shaped port may run ahead of its rate: timers fire up to a
	// millisecond late, and the port makes up for the lost time.
	shapeBurst = 4 * time.Millisecond

	// shapeLate is how much lost time the port makes up for if frames waited all along: on a
	// busy machine timers fire much later, and the rate would not be reached.
	shapeLate = 50 * time.Millisecond
)

// ShapeBytes is how many bytes of frames a port with an egress rate queues at most.
const ShapeBytes = 2 << 20

// shaper stands between the workers and the queues of a port with an egress rate. It
// copies frames, since a batch's memory cannot wait, and sends them from its own
// goroutine. Workers hold its lock only for the copy. Frames that the switch originates
// bypass the queue.
type shaper struct {
	port  *Port
	tx    *txCounters
	start time.Time
	more  chan struct{} // has a token when run must look again

	mu      sync.Mutex
	none    sync.Cond // signalled when nothing waits
	until   int64     // ns: sent frames use up the rate until then
	since   int64     // when frames began to wait
	fair    fairQueue
	sending bool         // run is sending a frame it took from the queue
	queues  []port.Queue // of the last device; set before any frame can wait
	open    bool         // the rate is off: waiting frames leave at once, and none join
	done    bool

	one [1]port.Out // run's
}

// shapedQueue is one queue of a shaped port, as workers see it.
type shapedQueue struct {
	*shaper
	index int
}

// setShape sets the port's egress rate. Without a rate, it waits until the shaper is
// empty and returns it; the caller stops it after publish. The caller holds sw.mu.
func (p *Port) setShape(r port.Rate) (unneeded *shaper) {
	if r.PerSecond == 0 {
		unneeded, p.shaper = p.shaper, nil
		unneeded.release()
		return unneeded
	}
	if p.shaper == nil {
		p.shaper = newShaper(p)
		p.sw.running.Go(p.shaper.run)
	}
	p.shaper.set(r)
	return nil
}

func newShaper(p *Port) *shaper {
	s := &shaper{port: p, tx: &p.tx[0], start: time.Now(), more: make(chan struct{}, 1), fair: fairQueue{seed: rand.Uint64()}}
	s.none.L = &s.mu
	return s
}

// set applies a rate at once. Frames sent under the old rate do not count against it;
// waiting frames that would now wait too long are dropped.
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

// dropOne drops the first frame of the flow that has to wait longest, so that its sender
// learns as soon as possible that it sends too much.
func (s *shaper) dropOne() {
	e := s.fair.take(s.fair.longest())
	s.tx.dropped[port.DropShaped].Add(1)
	if set := s.port.sw.ports.Load(); set.watches != nil {
		e.out.Drop = port.DropShaped
		set.showSent(s.port, []port.Out{e.out})
	}
	s.fair.free(e)
}

// shapeLimit returns how much of the rate's time, in ns, the queue may use and still admit
// another frame.
func shapeLimit(r port.Rate) int64 {
	return max(int64(shapeDelay), shapeFloor*fullCost(r))
}

// release sends all waiting frames and returns when none is left. From then on workers
// bypass the shaper, so no frame overtakes another. A nil shaper is empty.
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

// waitForNone returns when nothing waits, with mu held as before. An open shaper is soon
// empty, since queues take or refuse a frame at once.
func (s *shaper) waitForNone() {
	for s.fair.n > 0 || s.sending {
		s.none.Wait()
	}
}

// attach sets the queues that frames go to from now on, and returns the queues that
// workers use in their place.
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

// stop ends run once nothing waits. On a nil shaper it does nothing.
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

// Workers call Recv and Release on the attached queue, never on this one.
func (shapedQueue) Recv([]port.Frame) (int, error) { return 0, port.ErrClosed }
func (shapedQueue) Release()                       {}

// Send implements port.Queue. Frames that join the queue are counted when they are sent.
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
	now := s.clock()
	for i := range out {
		o := &out[i]
		if o.Flags&port.Control != 0 {
			s.spend(o.Frame, now)
			continue
		}
		o.Drop = s.join(o, q.index, now)
	}
	s.mu.Unlock()
	s.wake()
	for i := range out {
		if out[i].Flags&port.Control != 0 {
			queues[q.index%len(queues)].Send(out[i : i+1])
		}
	}
}

// join queues a copy of a frame. To make room, it drops frames of the flow that has to
// wait longest. The caller holds mu.
func (s *shaper) join(o *port.Out, queue int, now int64) port.Drop {
	q := &s.fair
	f, size := q.flowOf(o.Frame), o.Len()
	for q.n > 0 && (q.n >= shapeDepth || q.bytes+size > ShapeBytes || max(s.until-now, 0)+q.waiting >= shapeLimit(q.rate)) {
		if f.waiting >= q.longest().waiting {
			return port.DropShaped
		}
		s.dropOne()
	}
	if q.n == 0 {
		s.since = now
	}
	return q.push(o, queue, f)
}

// spend charges the rate for a frame sent now. The caller holds mu.
func (s *shaper) spend(f *port.Frame, now int64) { s.until = max(s.until, now) + cost(f, s.fair.rate) }

// spendLate is spend for a frame that waited. If one was there when its turn came, the time
// counts from then on, though it may be later by now. The caller holds mu.
func (s *shaper) spendLate(f *port.Frame, now int64) {
	if s.since <= s.until {
		now -= int64(shapeLate)
	}
	s.spend(f, now)
}

// run sends waiting frames at the rate until stop.
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
			case <-s.more: // the rate may have changed
			}
		}
	}
}

// sendDue sends the frames that are due, and returns how long the next one has to wait; 0
// if there is none.
func (s *shaper) sendDue() (wait time.Duration, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.fair.n > 0 {
		now := s.clock()
		if !s.open && s.until > now+int64(shapeBurst) {
			return time.Duration(s.until-now) - shapeBurst/2, false
		}
		e := s.fair.pop()
		s.spendLate(&e.frame, now)
		queues := s.queues
		s.sending = true
		s.mu.Unlock()

		s.one[0] = e.out
		queues[e.queue%len(queues)].Send(s.one[:])
		s.tx.count(s.one[:])
		if set := s.port.sw.ports.Load(); set.watches != nil {
			set.showSent(s.port, s.one[:])
		}

		s.mu.Lock()
		s.fair.free(e)
		s.sending = false
	}
	s.none.Broadcast()
	return 0, s.done
}
