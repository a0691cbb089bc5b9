package daemon

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/port"
)

// saver writes states to disk on a goroutine of its own, one after the other. A
// state that still waits when a newer one comes is not written: the newer one has
// all that it had.
type saver struct {
	write  func(savedState) error
	report func(error) // told how a write went that nobody waits for

	mu   sync.Mutex
	next *saving       // not begun; nil: none
	wake chan struct{} // has a value when there may be a next
	quit chan struct{}
	done chan struct{} // closed when the goroutine has ended
}

// saving is one write, of one state or of several that came before it began.
type saving struct {
	state   savedState
	awaited bool
	done    chan struct{} // closed when err says how it went
	err     error
}

func newSaver(write func(savedState) error, report func(error)) *saver {
	return &saver{
		write: write, report: report,
		wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
	}
}

// put has st written. It does not wait.
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

// stop writes what waits, and reports whether that was done within the time.
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
	// saveWait is how long a command waits for the disk. Clients wait longer
	// (api.Client), so they hear of it.
	saveWait = 20 * time.Second

	// saveRetry is how long after a write that failed the state is written again.
	saveRetry = 30 * time.Second

	// lastSaveWait is how long a stop waits for the disk.
	lastSaveWait = 5 * time.Second
)

// snapshot is the desired state as it is now.
func (m *manager) snapshot() savedState {
	st := savedState{Switch: m.kept.patch(), Ports: []savedPort{}, FDB: []savedEntry{}}
	leaving := make(map[string]bool)
	for _, p := range m.sorted() {
		if p.leaving {
			leaving[p.spec.Name] = true
			continue
		}
		settings := p.spec.Patch()
		if p.unfit != nil {
			settings = p.unfit.settings
		}
		s := savedPort{savedSpec{p.spec.Name, p.spec.Kind, settings}, p.trace}
		if b := p.trace.Before; b != nil {
			before := *b // the kind may change it while the state is written
			s.Trace.Before = &before
		}
		st.Ports = append(st.Ports, s)
	}
	for k, e := range m.static {
		if !leaving[e.port] {
			st.FDB = append(st.FDB, savedEntry{port.MAC(k.MAC()), k.VLAN(), e.port, e.sticky})
		}
	}
	slices.SortFunc(st.FDB, func(a, b savedEntry) int {
		return cmp.Or(cmp.Compare(a.VLAN, b.VLAN), cmp.Compare(a.MAC, b.MAC))
	})
	st.Mirrors = m.mirrors
	for _, g := range slices.SortedFunc(maps.Keys(m.groups), compareGroups) {
		if !leaving[g.port] {
			st.Groups = append(st.Groups, savedGroup{g.group, g.vlan, g.port})
		}
	}
	return st
}

// save writes the desired state to disk for a command, which must take its change
// back where it fails. It waits off the turn.
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
		// It may still be written: after it comes the state without the change,
		// once the command has taken that back.
		m.resave = time.Now()
	}
	return err
}

// finished reports whether the state was written, or could not be.
func (g *saving) finished() bool {
	select {
	case <-g.done:
		return true
	default:
		return false
	}
}

// saveTrace has the state written where no user waits for the answer.
func (m *manager) saveTrace() {
	m.resave = time.Time{}
	if m.saver != nil {
		m.saver.put(m.snapshot(), false)
	}
}

// traceKept is told how it went. What failed is tried again, and logged once.
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

// change runs a command that changes the desired state in a turn. Such commands
// come one after the other, so that each can take its change back.
func (m *manager) change(f func() error) error {
	t := time.NewTimer(changeWait)
	defer t.Stop()
	select {
	case m.changing <- struct{}{}:
	case <-t.C:
		return fail(api.CodeFailed, "another change has not ended for %v, its disk or device does not answer; nothing is changed, try again", changeWait)
	}
	defer func() { <-m.changing }()
	return m.do(f)
}
