package daemon

import (
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/internal/feature"
)

// duration says how long something took that happens again and again. Any goroutine may call
// its methods. The zero value is ready.
type duration struct {
	counts [len(durationBounds) + 1]atomic.Uint64 // by bound; the last: longer than all
	sum    atomic.Int64                           // ns
}

// durationBounds are the bounds that are told apart.
var durationBounds = [...]time.Duration{
	time.Millisecond, 3 * time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond,
	100 * time.Millisecond, 300 * time.Millisecond, time.Second, 3 * time.Second, 10 * time.Second,
}

// since adds what began at a time and ends now.
func (d *duration) since(begin time.Time) { d.add(time.Since(begin)) }

func (d *duration) add(took time.Duration) {
	i := 0
	for i < len(durationBounds) && took > durationBounds[i] {
		i++
	}
	d.counts[i].Add(1)
	d.sum.Add(int64(took))
}

// distribution returns it in seconds.
func (d *duration) distribution() feature.Distribution {
	all := feature.Distribution{AtMost: make(map[float64]uint64, len(durationBounds)), Sum: time.Duration(d.sum.Load()).Seconds()}
	for i := range d.counts {
		all.Count += d.counts[i].Load()
		if i < len(durationBounds) {
			all.AtMost[durationBounds[i].Seconds()] = all.Count
		}
	}
	return all
}

// durations are those of calls, by their names. The zero value is ready.
type durations struct {
	mu sync.Mutex
	by map[string]*duration
}

// of returns the one of a call. There are as many as names.
func (d *durations) of(call string) *duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.by == nil {
		d.by = make(map[string]*duration)
	}
	if d.by[call] == nil {
		d.by[call] = new(duration)
	}
	return d.by[call]
}

// all returns those of calls that there were.
func (d *durations) all() iter.Seq2[string, *duration] {
	return func(yield func(string, *duration) bool) {
		d.mu.Lock()
		by := make(map[string]*duration, len(d.by))
		for call, one := range d.by {
			by[call] = one
		}
		d.mu.Unlock()
		for call, one := range by {
			if !yield(call, one) {
				return
			}
		}
	}
}
