package daemon

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/files/durable"
	"github.com/vswitch/vswitch/internal/setting"
)

// A change that waits for its confirmation is taken back when its time is over. It is on disk
// before its first step, with what undoes it, so it is also taken back by a daemon that starts
// after that time.

// pendingChange is the change that waits for its confirmation.
type pendingChange struct {
	By    string
	Until time.Time     // by the monotonic clock, if this process set it
	Time  time.Duration // that it had in all
	Undo  target
}

// saved returns the change as in the state; c may be nil.
func (c *pendingChange) saved() *store.Pending {
	if c == nil {
		return nil
	}
	undo, _ := json.Marshal(c.Undo) // it has nothing that JSON lacks
	return &store.Pending{By: c.By, Until: c.Until.Round(0), TimeS: int(c.Time / time.Second), Undo: undo}
}

// pendingFrom reads the change in a state. Another version may undo more than this one knows. The
// change never waits longer than it was given: the host's clock may have been set back meanwhile.
func pendingFrom(s *store.Pending) (*pendingChange, error) {
	if s == nil {
		return nil, nil
	}
	if s.TimeS < 0 || s.TimeS > maxConfirm {
		return nil, fmt.Errorf("the change that waits for its confirmation has %d s for that; it has 1 to %d", s.TimeS, maxConfirm)
	}
	c := &pendingChange{By: s.By, Until: s.Until, Time: time.Duration(cmp.Or(s.TimeS, maxConfirm)) * time.Second}
	if time.Until(c.Until) > c.Time {
		c.Until = time.Now().Add(c.Time).UTC()
	}
	d := json.NewDecoder(bytes.NewReader(s.Undo))
	d.DisallowUnknownFields()
	if err := d.Decode(&c.Undo); err != nil {
		return nil, fmt.Errorf("the change that waits for its confirmation cannot be read: %w", setting.Plain(err))
	}
	return c, nil
}

func (m *manager) describePending() *api.PendingConfig {
	if m.pending == nil {
		return nil
	}
	return &api.PendingConfig{By: m.pending.By, Until: m.pending.Until}
}

// stillPending returns the error for a change while another waits for its confirmation.
func (m *manager) stillPending() error {
	return fail(api.CodeConflict, "the change by %s waits for its confirmation until %s; keep it with `vswitch confirm` or take it back with `vswitch rollback` first",
		m.pending.By, m.pending.Until.Local().Format(time.TimeOnly))
}

// armPending sets the timer of the pending change.
func (m *manager) armPending() {
	if m.expire != nil {
		m.expire.Stop()
		m.expire = nil
	}
	if m.pending != nil {
		m.expireIn(max(0, time.Until(m.pending.Until)))
	}
}

func (m *manager) expireIn(d time.Duration) {
	this := m.pending
	m.expire = time.AfterFunc(d, func() {
		m.awaitRestored()
		err := m.changeConfig(func() error {
			if m.pending != this {
				return nil // confirmed, taken back or prolonged meanwhile
			}
			m.emit(api.Event{Type: api.EventConfigExpired, Reason: this.By})
			m.log.Warn("a change was not confirmed in time and is taken back", "by", this.By)
			_, err := m.undo(this.Undo, "no confirmation of "+this.By)
			return err
		})
		if e := new(api.Error); err == nil || errors.As(err, &e) && e.Code == api.CodeStopping {
			return
		}
		m.log.Error("taking back a change that was not confirmed; it is tried again", "every", saveRetry, "error", err)
		_ = m.do(func() error {
			if m.pending == this {
				m.expireIn(saveRetry)
			}
			return nil
		})
	})
}

// undo carries out what takes changes back.
func (m *manager) undo(w target, by string) (api.AppliedConfig, error) {
	return m.carry(newTarget().over(w), how{replace: true, force: true, lenient: true, ends: true, by: by}, nil)
}

// confirm keeps the pending change.
func (m *manager) confirm() error {
	if m.pending == nil {
		return fail(api.CodeNotFound, "no change waits for a confirmation; it was confirmed or taken back, see `vswitch config history`")
	}
	was := m.pending
	m.pending = nil
	if err := m.save(); err != nil {
		m.pending = was
		return fail(api.CodeFailed, "%w", err)
	}
	m.armPending()
	m.emit(api.Event{Type: api.EventConfigKept, Reason: was.By})
	m.log.Info("configuration confirmed", "by", was.By)
	return nil
}

// rollback takes back the pending change, or changes of the history.
func (m *manager) rollback(req api.RollbackConfig) (api.AppliedConfig, error) {
	h := m.history
	switch {
	case req.To == 0 && m.pending != nil:
		return m.undo(m.pending.Undo, "rollback of "+m.pending.By)
	case m.pending != nil:
		return api.AppliedConfig{}, m.stillPending()
	case len(h) == 0:
		return api.AppliedConfig{}, fail(api.CodeNotFound, "there is no change to take back; `vswitch config history` lists those that `vswitch apply` made")
	case req.To == 0:
		req.To = h[len(h)-1].Number
	}
	i := slices.IndexFunc(h, func(c pastChange) bool { return c.Number == req.To })
	if i < 0 {
		return api.AppliedConfig{}, fail(api.CodeNotFound, "the history has no change %d; it has %d to %d", req.To, h[0].Number, h[len(h)-1].Number)
	}
	w := newTarget()
	for _, c := range slices.Backward(h[i:]) { // the oldest last: it counts
		w = w.over(c.Undo)
	}
	return m.undo(w, fmt.Sprintf("rollback to %d", req.To))
}

// pastChange is an entry of the history.
type pastChange struct {
	api.ConfigChange
	Undo target `json:"undo"`
}

// maxHistory is the number of changes in the history.
const maxHistory = 10

// historyPath returns the path of the history; it is empty if none is kept.
func (m *manager) historyPath() string {
	if m.stateDir == "" {
		return ""
	}
	return filepath.Join(m.stateDir, "history.json")
}

// loadHistory reads the history. One that cannot be read is left out: the state does not need
// it.
func (m *manager) loadHistory() {
	path := m.historyPath()
	if path == "" {
		return
	}
	b, err := durable.ReadRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var h []pastChange
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields() // another version may undo more than this one knows
		err = d.Decode(&h)
	}
	if err != nil {
		// Another version may know what it says.
		aside, notKept := durable.SetAside(durable.Host{}, path)
		m.log.Warn("the history of configurations cannot be read; it begins anew", "kept_as", aside, "error", errors.Join(err, notKept))
		return
	}
	m.history = h
}

// record adds a change to the history.
func (m *manager) record(by string, steps []api.ConfigStep, undo target) error {
	number := 1
	if n := len(m.history); n > 0 {
		number = m.history[n-1].Number + 1
	}
	c := pastChange{api.ConfigChange{Number: number, Time: time.Now().Round(0).UTC(), By: by, Steps: steps}, undo}
	h := append(slices.Clone(m.history), c)
	m.history = h[max(0, len(h)-maxHistory):]
	path := m.historyPath()
	if path == "" {
		return nil
	}
	h = m.history
	var err error
	m.off(func() {
		var b []byte
		if b, err = json.Marshal(h); err == nil {
			err = durable.Replace(durable.Host{}, path, append(b, '\n'))
		}
	})
	return err
}

// describeHistory returns the history, oldest first.
func (m *manager) describeHistory() []api.ConfigChange {
	all := []api.ConfigChange{}
	for _, c := range m.history {
		all = append(all, c.ConfigChange)
	}
	return all
}
