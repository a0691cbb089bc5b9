package events

import (
	"sync"
	"time"

	"github.com/vswitch/vswitch/api"
)

// ringSize is how many events are remembered: about 1 MB. Kinds of events that a guest can
// cause are limited where they happen, so it holds hours.
const ringSize = 4096

// ring remembers the last events. Writers never wait for readers: a reader that falls behind
// loses events and is told how many. Any goroutine may use it.
type ring struct {
	epoch string
	size  uint64

	mu     sync.Mutex
	events []api.Event   // event seq is at (seq-1) % size
	last   uint64        // sequence number of the newest event; 0: there is none
	news   chan struct{} // closed when something changes; nil: nobody waits
	ended  bool          // no event follows
}

func newRing(epoch string, size int) *ring {
	return &ring{epoch: epoch, size: uint64(size)}
}

// add appends an event.
func (r *ring) add(e api.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return
	}
	r.last++
	e.Seq, e.Epoch = r.last, r.epoch
	if r.last <= r.size {
		r.events = append(r.events, e)
	} else {
		*r.at(r.last) = e
	}
	r.wake()
}

// at returns the event with a number that the ring has.
func (r *ring) at(seq uint64) *api.Event { return &r.events[(seq-1)%r.size] }

// end says that no event follows.
func (r *ring) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	r.wake()
}

func (r *ring) wake() {
	if r.news != nil {
		close(r.news)
		r.news = nil
	}
}

// first returns the sequence number of the oldest event; last+1 if there is none.
func (r *ring) first() uint64 { return r.last - uint64(len(r.events)) + 1 }

// batch is what a reader gets at a time.
type batch struct {
	events []api.Event
	lost   uint64          // events before them that the ring no longer has
	news   <-chan struct{} // if there are no events: closed when there are more
	ended  bool            // these are the last
}

// after returns up to most events that follow the one with the given number.
func (r *ring) after(seq uint64, most int) (b batch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if first := r.first(); seq+1 < first {
		b.lost = first - 1 - seq
		seq = first - 1
	}
	for ; seq < r.last && len(b.events) < most; seq++ {
		b.events = append(b.events, *r.at(seq + 1))
	}
	b.ended = r.ended && seq == r.last
	if len(b.events) == 0 {
		if r.news == nil {
			r.news = make(chan struct{})
		}
		b.news = r.news
	}
	return b
}

// newest returns the number of the newest event.
func (r *ring) newest() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// oldest returns the number before the oldest event.
func (r *ring) oldest() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.first() - 1
}

// since returns the number before the first event at or after a time.
func (r *ring) since(t time.Time) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	seq := r.last
	for seq+1 > r.first() && !r.at(seq).Time.Before(t) {
		seq--
	}
	return seq
}

// find returns the number of the event at a cursor, or an error if what follows it is not
// known any more.
func (r *ring) find(c api.Cursor) (uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	const advice = "leave --since out for all that is remembered"
	switch {
	case c.Epoch != "" && c.Epoch != r.epoch:
		return 0, api.Errorf(api.CodeExpired, "event %v is of an earlier run of the daemon; this run is %s; %s", c, r.epoch, advice)
	case c.Seq > r.last:
		return 0, api.Errorf(api.CodeExpired, "there was no event %d in this run of the daemon, the last is %d; %s", c.Seq, r.last, advice)
	case c.Seq+1 < r.first():
		return 0, api.Errorf(api.CodeExpired, "events after %d are forgotten, the oldest is %d; %s", c.Seq, r.first(), advice)
	}
	return c.Seq, nil
}
