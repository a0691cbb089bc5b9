package vswitch

import (
	"slices"
	"sync"
	"time"

	"github.com/vswitch/vswitch/port"
)

const (
	// shapeDepth and shapeBytes bound what may wait at a shaped port: a fifth
	// of a second at 100 Mbit/s, and one super-frame at any rate.
	shapeDepth = 1000
	shapeBytes = 2 << 20

	// shapeBurst is how far a shaped port may run ahead of its rate: timers
	// fire late by up to a millisecond, and what was missed then is made up.
	shapeBurst = 4 * time.Millisecond
)

// shaper stands between the workers and the queues of a port with an egress rate.
// It copies frames, for a batch's memory cannot wait, and sends them from a
// goroutine of its own, in order. Workers hold its lock for the copy only.
type shaper struct {
	rate  bucket
	tx    *txCounters
	start time.Time

	mu     sync.Mutex
	more   chan struct{} // has a token when run must look again
	none   sync.Cond     // nothing waits any more
	ring   []shaped
	head   int
	n      int
	bytes  int
	queues []port.Queue // of the last device; set before anything can wait
	open   bool         // the rate is off: what waits goes at once, and nothing joins it
	done   bool

	scratch [1][]byte // Send's

	one [1]port.Out // run's
}

// shaped is one frame that waits.
type shaped struct {
	frame port.Frame
	out   port.Out
	queue int
	buf   []byte
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
	if r == (port.Rate{}) {
		unneeded, p.shaper = p.shaper, nil
		unneeded.release()
		return unneeded
	}
	if p.shaper == nil {
		p.shaper = newShaper(&p.tx[0])
		p.sw.running.Go(p.shaper.run)
	}
	p.shaper.rate.set(r)
	return nil
}

func newShaper(tx *txCounters) *shaper {
	s := &shaper{tx: tx, start: time.Now(), more: make(chan struct{}, 1), ring: make([]shaped, shapeDepth)}
	s.none.L = &s.mu
	return s
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
	for s.n > 0 {
		s.none.Wait()
	}
}

// attach tells the shaper where frames go from now on, and returns the queues
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

// Recv and Release are the attached queue's affair: no worker calls them here.
func (shapedQueue) Recv([]port.Frame) (int, error) { return 0, port.ErrClosed }
func (shapedQueue) Release()                       {}

// Send implements port.Queue. What finds room is counted when it is sent.
func (q shapedQueue) Send(out []port.Out) {
	s := q.shaper
	s.mu.Lock()
	if s.open {
		s.waitForNone()
		queues := s.queues
		s.mu.Unlock()
		queues[q.index%len(queues)].Send(out)
		return
	}
	for i := range out {
		o := &out[i]
		size := o.Len()
		if s.n == len(s.ring) || s.n > 0 && s.bytes+size > shapeBytes {
			o.Drop = port.DropShaped
			continue
		}
		e := &s.ring[(s.head+s.n)%len(s.ring)]
		e.buf = slices.Grow(e.buf[:0], o.Frame.DataLen())[:o.Frame.DataLen()]
		if !o.Frame.CopyTo(e.buf, &s.scratch) {
			o.Drop = port.DropMemoryGone
			continue
		}
		e.frame, e.out, e.queue = *o.Frame, *o, q.index
		e.frame.Data, e.frame.Tail = e.buf, nil
		e.out.Frame = &e.frame
		s.n++
		s.bytes += size
		o.Drop = countedLater
	}
	s.mu.Unlock()
	s.wake()
}

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
	for {
		s.mu.Lock()
		done := s.done
		if s.n == 0 {
			s.none.Broadcast()
			s.mu.Unlock()
			return 0, done
		}
		e, queues := &s.ring[s.head], s.queues
		now := int64(time.Since(s.start))
		until := s.rate.until.Load()
		if !s.open && until > now+int64(shapeBurst) {
			s.mu.Unlock()
			return time.Duration(until-now) - shapeBurst/2, false
		}
		s.rate.until.Store(max(until, now) + s.rate.cost(&e.frame))
		s.mu.Unlock()

		// The slot stays taken while it is sent, so no worker writes to it.
		s.one[0] = e.out
		one := s.one[:]
		queues[e.queue%len(queues)].Send(one)
		s.tx.count(one)

		s.mu.Lock()
		s.bytes -= e.out.Len()
		s.head = (s.head + 1) % len(s.ring)
		s.n--
		s.mu.Unlock()
	}
}
