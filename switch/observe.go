package vswitch

import (
	"slices"
	"sync/atomic"

	"github.com/vswitch/vswitch/fdb"
)

// observers is the FDB's observer: it tells one that is there from the start, and those of
// Observe.
type observers struct {
	first fdb.Observer // nil: none
	more  atomic.Pointer[[]fdb.Observer]
}

// Observe tells o of the FDB's changes, beside the fast path. After stop has returned, calls
// may still come from batches in flight. Any goroutine may call both.
func (s *Switch) Observe(o fdb.Observer) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen.set(append(slices.Clone(s.seen.added()), o))
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.seen.set(slices.DeleteFunc(slices.Clone(s.seen.added()), func(other fdb.Observer) bool { return other == o }))
	}
}

func (o *observers) set(all []fdb.Observer) { o.more.Store(&all) }

func (o *observers) added() []fdb.Observer {
	if all := o.more.Load(); all != nil {
		return *all
	}
	return nil
}

// Changed implements fdb.Observer.
func (o *observers) Changed(k fdb.Key) {
	if o.first != nil {
		o.first.Changed(k)
	}
	for _, other := range o.added() {
		other.Changed(k)
	}
}

// Flushed implements fdb.Observer.
func (o *observers) Flushed(port uint16) {
	if o.first != nil {
		o.first.Flushed(port)
	}
	for _, other := range o.added() {
		other.Flushed(port)
	}
}
