package vswitch

import (
	"errors"
	"time"

	"github.com/vswitch/vswitch/port"
)

// Hold stops all ports from receiving, and returns when the frames that they took are sent;
// ports that are attached meanwhile do not receive either. What comes waits outside of the
// switch, as far as ports are port.Pausable. It waits at most that long, and reports whether
// nothing was left.
func (s *Switch) Hold(within time.Duration) bool {
	late := time.NewTimer(within)
	defer late.Stop()
	s.mu.Lock()
	s.held = true
	var paused []*attachment
	for _, p := range s.byName {
		if p.at == nil || p.at.closing || p.at.ended == nil {
			continue
		}
		if dev, ok := p.at.dev.(port.Pausable); ok && !p.at.paused {
			p.at.paused = true
			paused = append(paused, p.at)
			dev.Pause()
		}
	}
	s.mu.Unlock()
	for _, at := range paused {
		select {
		case <-at.ended:
		case <-late.C:
			return false
		}
	}
	return s.emptyShapers(late.C)
}

// emptyShapers returns true when no frame waits in a shaper, or false at the time late.
func (s *Switch) emptyShapers(late <-chan time.Time) bool {
	s.mu.Lock()
	var shapers []*shaper
	for _, p := range s.byName {
		if p.shaper != nil {
			shapers = append(shapers, p.shaper)
		}
	}
	s.mu.Unlock()
	if len(shapers) == 0 {
		return true
	}
	empty := make(chan struct{})
	go func() {
		for _, s := range shapers {
			s.mu.Lock()
			s.waitForNone()
			s.mu.Unlock()
		}
		close(empty)
	}()
	select {
	case <-empty:
		return true
	case <-late:
		return false
	}
}

// Resume lets all ports receive, after Hold or in a switch that began with Config.Held.
func (s *Switch) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = false
	s.bePatient()
	for _, p := range s.byName {
		switch at := p.at; {
		case at == nil || at.closing:
		case at.ended == nil:
			p.start(at)
		case at.paused:
			at.paused = false
			select {
			case <-at.ended:
				p.restart(at)
			default: // a worker has yet to see that it was paused
				go func() {
					<-at.ended
					s.mu.Lock()
					defer s.mu.Unlock()
					if p.at == at && !at.closing && !at.paused {
						p.restart(at)
					}
				}()
			}
		}
	}
}

// start starts the workers of a device. The caller holds sw.mu.
func (p *Port) start(at *attachment) {
	ended := make(chan struct{})
	at.ended = ended
	at.left.Store(int32(len(at.workers)))
	for _, w := range at.workers {
		go func() {
			err := w.run()
			if !errors.Is(err, port.ErrClosed) && !errors.Is(err, port.ErrPaused) {
				at.lost.Do(func() { p.sw.events.lost(PortLost{Port: p, Dev: at.dev, Err: err}, p.sw.stop) })
			}
			if at.left.Add(-1) == 0 {
				close(ended)
			}
		}()
	}
}

// restart starts the workers of a device again, which have ended by a pause. The caller holds
// sw.mu.
func (p *Port) restart(at *attachment) {
	at.dev.(port.Pausable).Resume()
	p.start(at)
}

// wait returns when the device's workers have ended.
func (at *attachment) wait() {
	if at.ended != nil {
		<-at.ended
	}
}

// Leave is Close in a process that ends: a port.Leaver leaves to the kernel what the kernel
// does after the process as well.
func (s *Switch) Leave() error { return s.close(leave) }

func leave(dev port.Port) error {
	if l, ok := dev.(port.Leaver); ok {
		return l.Leave()
	}
	return dev.Close()
}
