package daemon

import (
	"sync"

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

// watchLink has the state of the port follow its peer, until the function that it
// returns is called.
func (m *manager) watchLink(p *managed, dev port.Port) (stop func()) {
	l, ok := dev.(port.Linked)
	if !ok {
		return func() {}
	}
	done := make(chan struct{})
	go func() {
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
				}
				return nil
			})
		}
	}()
	return sync.OnceFunc(func() { close(done) })
}
