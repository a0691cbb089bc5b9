package unixsock

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// link records whether a port's peer is there. It implements port.Linked.
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

// setLink records a change, if it is one, and why the link is down.
func (l *link) setLink(up bool, why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	news := l.up.Swap(up) != up || !up && text(l.why) != text(why)
	l.why = why
	if news {
		signal(l.changed)
	}
}

// setReason records why the link is down, if it is.
func (l *link) setReason(why error) {
	if !l.up.Load() {
		l.setLink(false, why)
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// signal puts a value into a channel that has none yet.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// refusals counts frames of machines that were refused because another machine has the
// port. It implements port.Noticer.
type refusals struct {
	mu    sync.Mutex
	last  address // the refused sender
	count uint64
	at    time.Time // when
	told  time.Time // of the last notice to the user
}

const (
	// A notice covers the last minute; the user gets one at most every ten seconds.
	noticeFor   = time.Minute
	noticeEvery = 10 * time.Second
)

// refused records a frame of another machine, and signals changed.
func (r *refusals) refused(from *address, changed chan struct{}) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last, r.at = *from, now
	r.count++
	if now.Sub(r.told) >= noticeEvery {
		r.told = now
		signal(changed)
	}
}

// accepted forgets what was refused of a machine that has the port now.
func (r *refusals) accepted(from *address) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == *from {
		r.count = 0
	}
}

// Notice implements port.Noticer.
func (r *refusals) Notice() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count == 0 || time.Since(r.at) >= noticeFor {
		return ""
	}
	return fmt.Sprintf("a second machine, at %s, is refused while the first has the port; give it a port of its own (%d frames)", show(r.last.name()), r.count)
}
