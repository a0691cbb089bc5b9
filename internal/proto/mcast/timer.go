package mcast

import (
	"container/heap"
	"time"
)

// timer calls fire once, when due. A zero timer with fire set is stopped.
type timer struct {
	fire func()
	due  time.Duration
	slot int // in the heap, from 1; 0: stopped
}

func (t *timer) running() bool { return t.slot != 0 }

// timerHeap holds the running timers, the next one first.
type timerHeap struct{ h timerQueue }

// set starts t, or moves it.
func (q *timerHeap) set(t *timer, due time.Duration) {
	t.due = due
	if t.running() {
		heap.Fix(&q.h, t.slot-1)
		return
	}
	heap.Push(&q.h, t)
}

func (q *timerHeap) stop(t *timer) {
	if t.running() {
		heap.Remove(&q.h, t.slot-1)
	}
}

// run fires what is due. It terminates because a timer set by a firing one is always
// later than now.
func (q *timerHeap) run(now time.Duration) {
	for len(q.h) > 0 && q.h[0].due <= now {
		heap.Pop(&q.h).(*timer).fire()
	}
}

func (q *timerHeap) next() (time.Duration, bool) {
	if len(q.h) == 0 {
		return 0, false
	}
	return q.h[0].due, true
}

// timerQueue is a heap.Interface.
type timerQueue []*timer

func (q timerQueue) Len() int           { return len(q) }
func (q timerQueue) Less(i, j int) bool { return q[i].due < q[j].due }
func (q timerQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].slot, q[j].slot = i+1, j+1
}

func (q *timerQueue) Push(x any) {
	t := x.(*timer)
	*q = append(*q, t)
	t.slot = len(*q)
}

func (q *timerQueue) Pop() any {
	old := *q
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	t.slot = 0
	return t
}
