package daemon

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/vswitch/vswitch/api"
)

// saver writes states to disk one after another, on its own goroutine. A waiting state is
// skipped when a newer one comes, which contains all of its changes.
type saver struct {
	write  func(savedState) error
	report func(error) // receives the result of a write that nobody awaits

	mu   sync.Mutex
	next *saving       // not begun; nil: none
	wake chan struct{} // holds a value when there may be a next
	quit chan struct{}
	done chan struct{} // closed when the goroutine has ended

	writing chan struct{} // has a value while a state is written, or the saver is paused
	paused  bool          // of the caller of pause and resume
}

// saving is one write, of the newest of the states that came before it began.
type saving struct {
	state   savedState
	awaited bool
	done    chan struct{} // closed when err is set
	err     error
}

func newSaver(write func(savedState) error, report func(error)) *saver {
	return &saver{
		write: write, report: report,
		wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
		writing: make(chan struct{}, 1),
	}
}

// put schedules a write of st. It does not wait.
func (s *saver) put(st savedState, awaited bool) *saving {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		s.next = &saving{done: make(chan struct{})}
	}
	s.next.state = st
	s.next.awaited = s.next.awaited || awaited
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return s.next
}

func (s *saver) take() *saving {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.next
	s.next = nil
	return next
}

func (s *saver) run() {
	defer close(s.done)
	for {
		select {
		case <-s.wake:
		case <-s.quit:
			s.writeNext()
			return
		}
		s.writeNext()
	}
}

func (s *saver) writeNext() {
	s.writing <- struct{}{}
	defer func() { <-s.writing }()
	g := s.take()
	if g == nil {
		return
	}
	g.err = s.write(g.state)
	close(g.done)
	if !g.awaited {
		s.report(g.err)
	}
}

// pause makes the saver write nothing until resume, and reports whether the write under way
// ended in time.
func (s *saver) pause(within time.Duration) bool {
	select {
	case s.writing <- struct{}{}:
		s.paused = true
		return true
	case <-time.After(within):
		return false
	}
}

// resume undoes pause, if there was one.
func (s *saver) resume() {
	if s.paused {
		s.paused = false
		<-s.writing
	}
}

// stop writes what is pending and reports whether that finished in time.
func (s *saver) stop(within time.Duration) bool {
	close(s.quit)
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case <-s.done:
		return true
	case <-t.C:
		return false
	}
}

const (
	// saveWait is how long a command waits for the disk. Clients wait longer (api.Client), so
	// they get the error.
	saveWait = 20 * time.Second

	// saveRetry is the delay after a failed write until the next try.
	saveRetry = 30 * time.Second

	// lastSaveWait is how long a stop waits for the disk.
	lastSaveWait = 5 * time.Second
)

// snapshot returns the current desired state.
func (m *manager) snapshot() savedState {
	st := savedState{Switch: m.kept.patch(), Ports: []savedPort{}, Sections: m.featureStates((*hosted).state)}
	for _, p := range m.sorted() {
		if p.leaving {
			continue
		}
		s := savedPort{savedSpec{p.spec.Name, p.spec.Kind, p.settings()}, p.trace}
		if b := p.trace.Before; b != nil {
			before := *b // the kind may change it during the write
			s.Trace.Before = &before
		}
		st.Ports = append(st.Ports, s)
	}
	if len(m.applied) > 0 {
		m.dropMarks(st)
	}
	st.Applied, st.Pending = slices.Sorted(maps.Keys(m.applied)), m.pending
	return st
}

// save writes the desired state to disk for a command. If it fails, the command must revert
// its change. save waits without the turn.
func (m *manager) save() error {
	if m.saver == nil {
		return nil
	}
	g := m.saver.put(m.snapshot(), true)
	var err error
	m.off(func() {
		t := time.NewTimer(saveWait)
		defer t.Stop()
		select {
		case <-g.done:
			err = g.err
		case <-t.C:
			err = fmt.Errorf("the disk of %s has not answered for %v; nothing is changed, see what holds the disk up and try again", m.stateDir, saveWait)
		}
	})
	switch {
	case err == nil:
		m.resave = time.Time{}
		m.traceKept(nil)
	case g.finished():
		m.resave = time.Now().Add(saveRetry)
	default:
		// The write may still succeed: follow it with the state without the change, once the
		// command has reverted it.
		m.resave = time.Now()
	}
	return err
}

// finished reports whether the write has ended, successfully or not.
func (g *saving) finished() bool {
	select {
	case <-g.done:
		return true
	default:
		return false
	}
}

// saveTrace schedules a write that no user waits for.
func (m *manager) saveTrace() {
	m.resave = time.Time{}
	if m.halfway {
		return // the end of the change is written, or that it was taken back
	}
	if m.saver != nil {
		m.saver.put(m.snapshot(), false)
	}
}

// traceKept receives the result of such a write. A failure is retried, and logged once.
func (m *manager) traceKept(err error) {
	switch {
	case err != nil:
		m.resave = time.Now().Add(saveRetry)
		if !m.unkept {
			m.log.Error("keeping the state; it is tried again", "every", saveRetry, "error", err)
		}
	case m.unkept:
		m.log.Info("the state is kept again")
	}
	m.unkept = err != nil
}

// changeWait is how long a command waits for another to finish.
const changeWait = 5 * time.Second

// change runs, in a turn, a command that changes the desired state. Such commands run one
// after another, so that each can revert its change.
func (m *manager) change(f func() error) error {
	t := time.NewTimer(changeWait)
	defer t.Stop()
	select {
	case m.changing <- struct{}{}:
	case <-t.C:
		if m.applying.Load() {
			return fail(api.CodeConflict, "a configuration is being applied; nothing is changed, try again when it is done")
		}
		return fail(api.CodeFailed, "another change has not ended for %v, its disk or device does not answer; nothing is changed, try again", changeWait)
	}
	defer func() { <-m.changing }()
	return m.do(f)
}
