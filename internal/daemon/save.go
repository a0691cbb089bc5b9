package daemon

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/port"
)

const (
	// saveWait is how long a command waits for the disk. Clients wait longer (api.Client), so
	// they get the error.
	saveWait = 20 * time.Second

	// saveRetry is the delay after a failed write until the next try.
	saveRetry = 30 * time.Second

	// saveGap is the time between writes of what ports leave on the host. Each write is of all ports,
	// and a start may open them one after another.
	saveGap = time.Second

	// lastSaveWait is how long a stop waits for the disk.
	lastSaveWait = 5 * time.Second
)

// stateFile names the state in errors.
func (m *manager) stateFile() string {
	if m.stateDir == "" {
		return "the state"
	}
	return filepath.Join(m.stateDir, "state.json")
}

// snapshot returns the current desired state.
func (m *manager) snapshot() store.State {
	st := store.State{Switch: m.kept.patch(), Ports: []store.Port{}, Sections: m.featureStates()}
	for _, p := range m.sorted() {
		if p.leaving {
			st.Leaving = append(st.Leaving, p.saved())
		} else {
			st.Ports = append(st.Ports, p.saved())
		}
	}
	if len(m.applied) > 0 {
		m.dropMarks(st)
	}
	st.Applied, st.Pending = slices.Sorted(maps.Keys(m.applied)), m.pending.saved()
	return st
}

// saved returns the port as the state has it.
func (p *managed) saved() store.Port {
	return store.Port{Spec: store.Spec{Name: p.spec.Name, Kind: p.spec.Kind, Settings: p.settings()}, Trace: p.trace}
}

// save writes the desired state to disk for a command that change runs. If it fails, the command must
// revert its change. save waits without the turn.
func (m *manager) save() error {
	if m.saver == nil {
		return nil
	}
	m.resave, m.owed = time.Time{}, time.Time{} // what waits is in it
	return m.write(m.snapshot())
}

// write is save of another state.
func (m *manager) write(st store.State) error {
	former := m.whole
	g := m.put(st, true)
	var err error
	m.off(func() {
		t := time.NewTimer(saveWait)
		defer t.Stop()
		select {
		case <-g.Done():
			err = g.Err()
		case <-t.C:
			err = fmt.Errorf("the disk of %s has not answered for %v; nothing is changed, see what holds the disk up and try again", m.stateDir, saveWait)
		}
	})
	if err == nil {
		m.traceKept(nil)
		return nil
	}
	m.whole = former
	select {
	case <-g.Done():
		m.owed = time.Now().Add(saveRetry)
	default:
		// The write may still succeed: follow it with the state without the change.
		m.owed = time.Now()
	}
	return err
}

// saveTrace schedules a write of what a port has left on the host: at once, or when the former one is
// a saveGap ago.
func (m *manager) saveTrace() {
	if due := m.saved.Add(saveGap); due.After(time.Now()) {
		m.resave = due
		return
	}
	m.saveNow()
}

// saveNow schedules a write that no user waits for. While a command makes a change, or takes it back, the
// write waits until the command has ended: others have turns meanwhile, and would write half of it.
func (m *manager) saveNow() {
	m.resave = time.Time{}
	if m.midway {
		if m.owed.IsZero() {
			m.owed = time.Now()
		}
		return
	}
	m.saved = time.Now()
	if m.saver != nil {
		m.put(m.snapshot(), false)
	}
}

// put schedules a write of a state that has no half of a change.
func (m *manager) put(st store.State, awaited bool) *store.Saving {
	m.whole = &st
	return m.saver.Put(st, awaited)
}

// lastWhole returns the last state that has no half of a change.
func (m *manager) lastWhole() store.State {
	if m.whole == nil { // none was given to the writer yet
		st := m.snapshot()
		m.whole = &st
	}
	return *m.whole
}

// saveLast schedules the write of a stop. A command that the stop cut short has not returned, so the
// state is the one before it, or after it if the command was about to keep that, with what was learned
// since.
func (m *manager) saveLast() {
	if m.saver == nil {
		return
	}
	st := m.snapshot()
	if m.midway {
		st = m.learnedInto(m.lastWhole(), st)
	}
	m.put(st, false)
}

// learnedInto returns a former state with what nobody asked for as it is now: what ports have left on the
// host, and what features have learned.
func (m *manager) learnedInto(former, now store.State) store.State {
	traces := make(map[[2]string]port.Trace)
	for _, p := range now.Ports {
		traces[[2]string{p.Spec.Name, p.Spec.Kind}] = p.Trace
	}
	former.Ports = slices.Clone(former.Ports)
	for i := range former.Ports {
		p := &former.Ports[i]
		if trace, ok := traces[[2]string{p.Spec.Name, p.Spec.Kind}]; ok {
			p.Trace = trace
		}
	}
	sections := make(map[string]json.RawMessage)
	for _, h := range m.hosted {
		state, err := h.askedOf(former.Sections[h.key()])
		if err == nil {
			state, err = h.withLearned(state)
		}
		if err != nil { // it was logged
			state = former.Sections[h.key()]
		}
		if state != nil {
			sections[h.key()] = state
		}
	}
	former.Sections = sections
	return former
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
		return fail(api.CodeBusy, "another change has not ended for %v, its disk or device does not answer; nothing is changed, try again", changeWait)
	}
	defer func() { <-m.changing }()
	err := m.do(func() error {
		m.lastWhole()
		m.midway = true
		err := f()
		// Not deferred: if the manager stops meanwhile, f does not return, and the change stays half done
		// (saveLast).
		if m.midway = false; !m.owed.IsZero() {
			m.resave, m.owed = m.owed, time.Time{}
		}
		return err
	})
	if err == nil {
		m.generation.Add(1)
	}
	return err
}
