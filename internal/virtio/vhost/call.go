package vhost

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A front end shares the descriptors of its calls. It can make one block, and so stop a worker
// of another port that sends to its guest. So a goroutine looks after all rings that have such
// a descriptor: a call that is not over when it looks again is ended by reading from the
// eventfd, and the front end is disconnected.

// callPatience is how often the goroutine looks. A call takes a microsecond.
const callPatience = 100 * time.Millisecond

// callers are the rings that have a call descriptor. Only with mu held is one closed, so what
// the goroutine reads from is a ring's.
var callers struct {
	mu   sync.Mutex
	seen map[*Ring]uint32 // the ring's calls when the goroutine last looked
}

// ErrCall is why a ring broke whose front end made a call block.
var ErrCall = errors.New("a call descriptor that blocks; the front end changed it after it gave it")

// one is the value written to an eventfd.
var one = []byte{1, 0, 0, 0, 0, 0, 0, 0}

// signal calls the driver. A descriptor that takes no more already has a call pending.
func (r *Ring) signal() {
	if r.call >= 0 {
		r.calls.Add(1)
		_, _ = unix.Write(r.call, one)
		r.calls.Add(1)
	}
}

// setCall changes the ring's call descriptor, which it owns; -1: no calls wanted. The caller
// has locked the ring.
func (r *Ring) setCall(fd int) {
	callers.mu.Lock()
	defer callers.mu.Unlock()
	if r.call >= 0 {
		unix.Close(r.call)
	}
	r.call = fd
	if fd < 0 {
		delete(callers.seen, r)
		return
	}
	if callers.seen == nil {
		callers.seen = make(map[*Ring]uint32)
		go watchCalls()
	}
	callers.seen[r] = r.calls.Load()
}

// watchCalls ends calls that block, until no ring has a call descriptor.
func watchCalls() {
	tick := time.NewTicker(callPatience)
	defer tick.Stop()
	for range tick.C {
		if !endCalls() {
			return
		}
	}
}

// endCalls reports whether a ring has a call descriptor.
func endCalls() bool {
	callers.mu.Lock()
	defer callers.mu.Unlock()
	if len(callers.seen) == 0 {
		callers.seen = nil
		return false
	}
	for r, seen := range callers.seen {
		now := r.calls.Load()
		callers.seen[r] = now
		if now == seen && now%2 == 1 {
			// RWF_NOWAIT, since the descriptor's own flag is what the front end changes.
			_, _ = unix.Preadv2(r.call, [][]byte{make([]byte, len(one))}, -1, unix.RWF_NOWAIT)
			r.broke(fmt.Errorf("ring %d: %w", r.index, ErrCall))
		}
	}
	return true
}
