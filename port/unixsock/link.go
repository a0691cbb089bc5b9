package unixsock

import (
	"sync"
	"sync/atomic"
)

// link is whether a port's peer is there. It implements port.Linked.
type link struct {
	up      atomic.Bool
	changed chan struct{}

	mu  sync.Mutex
	why error
}

func newLink(why error) link { return link{changed: make(chan struct{}, 1), why: why} }

// Link implements port.Linked.
func (l *link) Link() bool { return l.up.Load() }

// LinkChanged implements port.Linked.
func (l *link) LinkChanged() <-chan struct{} { return l.changed }

// LinkError implements port.Linked.
func (l *link) LinkError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.why
}

// setLink notes a change, if it is one, and why it is down.
func (l *link) setLink(up bool, why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.why = why
	if l.up.Swap(up) == up {
		return
	}
	select {
	case l.changed <- struct{}{}:
	default: // the last change is not received yet
	}
}
