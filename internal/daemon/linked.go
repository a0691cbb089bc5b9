package daemon

import (
	"sync"
	"time"

	"github.com/vswitch/vswitch/port"
)

// connected reports whether the port's peer is there; ports that cannot tell count as connected.
func (p *managed) connected() bool {
	l, ok := p.dev.(port.Linked)
	return !ok || l.Link()
}

// linkError returns why the peer is not there, as far as the port knows.
func (p *managed) linkError() string {
	if l, ok := p.dev.(port.Linked); ok {
		if err := l.LinkError(); err != nil {
			return err.Error()
		}
	}
	return ""
}

// A port's changes are looked at changeBurst times at once, then once every changeGap, so that a
// peer cannot take up the daemon's time.
const (
	changeBurst = 10
	changeGap   = 20 * time.Millisecond
)

// retrace keeps what the port's deletion must undo by now.
func (m *manager) retrace(p *managed) {
	t, ok := p.dev.(port.Tracer)
	if !ok {
		return
	}
	if now := t.Trace(); now.Members != p.trace.Members || now.Before != p.trace.Before {
		p.trace.Members, p.trace.Before = now.Members, now.Before
		m.saveNow()
	}
}

// watchLink keeps the port's state in step with its peer until stop is called.
func (m *manager) watchLink(p *managed, dev port.Port) (stop func()) {
	l, ok := dev.(port.Linked)
	if !ok {
		return func() {}
	}
	return m.onChange(p, dev, l.LinkChanged(), func() {
		m.retrace(p)
		m.reconcile(p)
		m.notice(p)
	})
}

// onChange calls do in the manager's turn after each change of dev, while that is the port's,
// until stop is called.
func (m *manager) onChange(p *managed, dev port.Port, changed <-chan struct{}, do func()) (stop func()) {
	done := make(chan struct{})
	go func() {
		var due time.Time
		for {
			select {
			case <-done:
				return
			case <-m.ended:
				return
			case <-changed:
			}
			_ = m.do(func() error {
				if p.dev == dev {
					do()
				}
				return nil
			})
			// The peer may change at any rate.
			now := time.Now()
			due = due.Add(changeGap)
			if early := now.Add(-changeBurst * changeGap); due.Before(early) {
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
