package daemon

import (
	"sync"
	"time"

	"github.com/vswitch/vswitch/port"
)

// connected tells whether the port's peer is there; ports whose device tells
// nothing of one always have it.
func (p *managed) connected() bool {
	l, ok := p.dev.(port.Linked)
	return !ok || l.Link()
}

// linkError says why it is not there, as far as the port knows.
func (p *managed) linkError() string {
	if l, ok := p.dev.(port.Linked); ok {
		if err := l.LinkError(); err != nil {
			return err.Error()
		}
	}
	return ""
}

// linkBurst looks at a port's link are made at once, then one every linkGap: so its peer does
// not take the daemon's time.
const (
	linkBurst = 10
	linkGap   = 20 * time.Millisecond
)

// watchLink has the state of the port follow its peer, until the function that it
// returns is called.
func (m *manager) watchLink(p *managed, dev port.Port) (stop func()) {
	l, ok := dev.(port.Linked)
	if !ok {
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		var due time.Time
		for {
			select {
			case <-done:
				return
			case <-m.ended:
				return
			case <-l.LinkChanged():
			}
			_ = m.do(func() error {
				if p.dev == dev {
					m.settle(p)
					m.notice(p)
				}
				return nil
			})
			// A peer may change it as often as it likes.
			now := time.Now()
			due = due.Add(linkGap)
			if early := now.Add(-linkBurst * linkGap); due.Before(early) {
				due = early
			}
			select {
			case <-done:
				return
			case <-m.ended:
				return
			case <-time.After(due.Sub(now)):
			}
		}
	}()
	return sync.OnceFunc(func() { close(done) })
}
