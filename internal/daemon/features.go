package daemon

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// hosted is a feature of the program and its running instance.
type hosted struct {
	feature.Feature
	instance feature.Instance // nil: off
	kept     json.RawMessage  // what it keeps, while no instance has that; nil: nothing
	given    *feature.Parcel  // what the instance before gave, for the next; nil: nothing

	former json.RawMessage // what the instance kept when it could last say so
	mute   bool            // it cannot now, which was logged

	serving atomic.Pointer[feature.Instance] // instance, for calls that have no turn; nil: off
}

// key is the key in the state of what the feature keeps.
func (h *hosted) key() string { return keyOf(&h.Feature) }

func keyOf(f *feature.Feature) string { return cmp.Or(f.Key, f.Name) }

// on reports whether settings turn the feature on.
func (h *hosted) on(settings any) bool { return h.On == nil || h.On(settings) }

// state returns what the feature keeps.
func (h *hosted) state() (json.RawMessage, error) {
	if k, ok := h.instance.(feature.Kept); ok {
		return k.State()
	}
	return h.kept, nil
}

// asked returns what users asked the feature to keep.
func (h *hosted) asked() (json.RawMessage, error) {
	state, err := h.state()
	if err != nil {
		return nil, err
	}
	return h.askedOf(state)
}

// askedOf returns the part of a state of the feature that users asked for.
func (h *hosted) askedOf(state json.RawMessage) (json.RawMessage, error) {
	if state == nil || len(h.Learned) == 0 {
		return state, nil
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(state, &keys); err != nil {
		return nil, err
	}
	for _, k := range h.Learned {
		delete(keys, k)
	}
	if len(keys) == 0 {
		return nil, nil
	}
	return json.Marshal(keys)
}

// withLearned adds to what users ask the feature to keep what it has learned, but for keys that asked has.
func (h *hosted) withLearned(asked json.RawMessage) (json.RawMessage, error) {
	state, err := h.state()
	if err != nil || state == nil || len(h.Learned) == 0 {
		return asked, err
	}
	var keys, now map[string]json.RawMessage
	if err := json.Unmarshal(state, &now); err != nil {
		return nil, err
	}
	if asked != nil {
		if err := json.Unmarshal(asked, &keys); err != nil {
			return asked, nil // the feature says what is wrong
		}
	}
	learned := false
	all := maps.Clone(keys)
	for _, k := range h.Learned {
		if text, ok := now[k]; ok && all[k] == nil {
			if all == nil {
				all = make(map[string]json.RawMessage)
			}
			all[k], learned = text, true
		}
	}
	if !learned {
		return asked, nil
	}
	return json.Marshal(all)
}

// restore gives a new instance what the feature keeps.
func (h *hosted) restore(i feature.Instance) error {
	h.former, h.mute = h.kept, false
	if k, ok := i.(feature.Kept); ok && h.kept != nil {
		return k.Restore(h.kept)
	}
	return nil
}

// keeps returns what the state has of a feature: what it keeps, or what it kept before if it fails to
// say so.
func (m *manager) keeps(h *hosted) json.RawMessage {
	state, err := h.state()
	if err == nil {
		h.former, h.mute = state, false
	} else if !h.mute {
		h.mute = true
		m.log.Error("a feature does not say what it keeps; the state has what it kept before", "feature", h.Name, "error", err)
	}
	return h.former
}

// end tells the instance that it is about to be stopped.
func (h *hosted) end() {
	if e, ok := h.instance.(feature.Ending); ok {
		e.End()
	}
}

// give has the instance give what the next one needs, if anything.
func (h *hosted) give() (err error) {
	h.given = nil
	if heir, ok := h.instance.(feature.Heir); ok {
		h.given, err = heir.Give()
	}
	return err
}

// take gives a new instance what the one before has given, if anything.
func (h *hosted) take(i feature.Instance) error {
	given := h.given
	h.given = nil
	if heir, ok := i.(feature.Heir); ok && given != nil {
		return heir.Take(given)
	}
	return nil
}

// instances yields the running instances that have an ability.
func instances[A any](m *manager) iter.Seq[A] {
	return func(yield func(A) bool) {
		for _, h := range m.hosted {
			if a, ok := h.instance.(A); ok && !yield(a) {
				return
			}
		}
	}
}

// setFeatures starts and stops features as their settings change.
func (m *manager) setFeatures(from, to []any) error {
	var failed error
	changed := false
	for i, h := range m.hosted {
		if h.instance != nil == h.on(to[i]) && reflect.DeepEqual(from[i], to[i]) {
			continue
		}
		changed = true
		if set, ok := h.instance.(feature.Settable); ok && h.on(to[i]) {
			if err := set.Set(to[i]); err != nil {
				failed = err
			}
			continue
		}
		if h.instance != nil {
			h.end()
			h.kept = m.keeps(h)
			h.instance.Stop()
			h.run(nil)
		}
		if !h.on(to[i]) {
			continue
		}
		instance, err := h.New(host{m}, to[i])
		if err != nil {
			failed = err
			continue
		}
		if err := h.restore(instance); err != nil {
			instance.Stop()
			failed = fmt.Errorf("what %s has at the key %q cannot be restored: %w; mend or remove it there", m.stateFile(), h.key(), setting.Plain(err))
			continue
		}
		if err := h.take(instance); err != nil {
			m.log.Warn("a feature starts anew", "feature", h.Name, "reason", err)
		}
		h.run(instance)
		if _, ok := instance.(feature.Kept); ok {
			h.kept = nil // the instance has it now
		}
		for _, p := range m.sorted() {
			tellConfigured(instance, p)
		}
		m.upPorts(func(p *managed) { tellLinked(instance, p, true) })
	}
	if changed {
		m.sw.SetTraps(m.traps())
		m.shareMoves()
		m.shareObservers()
	}
	return failed
}

// featureStates returns what the state has of features, by their keys.
func (m *manager) featureStates() map[string]json.RawMessage {
	all := make(map[string]json.RawMessage)
	for _, h := range m.hosted {
		if state := m.keeps(h); state != nil {
			all[h.key()] = state
		}
	}
	return all
}

// featuresAsked returns what users asked features to keep, by their keys.
func (m *manager) featuresAsked() map[string]json.RawMessage {
	all := make(map[string]json.RawMessage)
	for _, h := range m.hosted {
		state, err := h.asked()
		if err != nil {
			m.log.Error("what a feature keeps is left out of the configuration", "feature", h.Name, "error", err)
			continue
		}
		if state != nil {
			all[h.key()] = state
		}
	}
	return all
}

// serveFeature answers a call of a feature's route.
func (m *manager) serveFeature(h *hosted, rt feature.Route, w http.ResponseWriter, r *http.Request) {
	if rt.Serve != nil {
		// Whether the daemon's turn comes may be the very question, so this does not wait for it.
		i := h.serving.Load()
		if i == nil {
			feature.Refuse(w, h.isOff())
			return
		}
		// The server's limit is for requests; an answer may go on.
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
		rt.Serve(*i, w, r)
		return
	}
	// The turn must not wait for the client.
	body, err := feature.ReadBody(r)
	if err != nil {
		feature.Refuse(w, err)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	defer m.durations.of(rt.Method + " " + rt.Path).since(time.Now())
	var answer any
	handle := func() (err error) { answer, err = m.callFeature(h, rt, r); return err }
	if rt.Change {
		err = m.change(handle)
	} else {
		err = m.do(handle)
	}
	m.answer(w, answer, err)
}

// callFeature calls a route's Handle, and keeps what it changes.
func (m *manager) callFeature(h *hosted, rt feature.Route, r *http.Request) (any, error) {
	i, err := h.running()
	if err != nil {
		return nil, err
	}
	if !rt.Change {
		return rt.Handle(i, r)
	}
	kept, ok := i.(feature.Kept)
	var before json.RawMessage
	if ok {
		if before, err = kept.State(); err != nil {
			return nil, fail(api.CodeFailed, "%w", err)
		}
	}
	answer, err := rt.Handle(i, r)
	if err != nil {
		return nil, err
	}
	if err := m.save(); err != nil {
		if ok && h.instance == i {
			err = errors.Join(err, kept.Restore(before))
		}
		return nil, fail(api.CodeFailed, "%w", err)
	}
	return answer, nil
}

// running returns the instance of the feature, or the error of a call while it is off.
func (h *hosted) running() (feature.Instance, error) {
	if h.instance == nil {
		return nil, h.isOff()
	}
	return h.instance, nil
}

func (h *hosted) isOff() error {
	return fail(api.CodeInvalid, "%s", cmp.Or(h.Off, h.Name+" is off; `vswitch set --help` lists what turns it on"))
}

// run makes i the running instance; nil: the feature is off.
func (h *hosted) run(i feature.Instance) {
	h.instance = i
	if i == nil {
		h.serving.Store(nil)
		return
	}
	h.serving.Store(&i)
}

// shareMoves gives the switch's event goroutine the features that receive moves.
func (m *manager) shareMoves() {
	all := slices.Collect(instances[feature.Moved](m))
	m.heedMoves.Store(&all)
}

// traps returns the traps of all features.
func (m *manager) traps() (all []vswitch.Trap) {
	for f := range instances[feature.Framed](m) {
		all = append(all, f.Traps()...)
	}
	return all
}

// receive passes a frame to the feature that its queue belongs to.
func (m *manager) receive(p *managed, f vswitch.ControlFrame) {
	for q := range instances[feature.Queued](m) {
		if slices.Contains(q.Queues(), f.Queue) {
			q.Receive(p, f)
			return
		}
	}
	for i := range instances[feature.Framed](m) {
		if slices.ContainsFunc(i.Traps(), func(t vswitch.Trap) bool { return t.Queue == f.Queue }) {
			i.Receive(p, f)
			return
		}
	}
}

// endFeatures tells the features that they are about to be stopped.
func (m *manager) endFeatures() {
	for _, h := range m.hosted {
		h.end()
	}
}

func (m *manager) stopFeatures() {
	for _, h := range m.hosted {
		if h.instance != nil {
			h.instance.Stop()
		}
	}
}

func tellConfigured(i any, p *managed) {
	if c, ok := i.(feature.Configured); ok {
		c.Configured(p)
	}
}

func tellLinked(i any, p *managed, up bool) {
	if l, ok := i.(feature.Linked); ok {
		l.Linked(p, up)
	}
}

// host is the manager as features see it.
type host struct{ m *manager }

var _ feature.Host = host{}

func (h host) Log() *slog.Logger                         { return h.m.log }
func (h host) MAC() port.MAC                             { return h.m.mac }
func (h host) Switch() *vswitch.Switch                   { return h.m.sw }
func (h host) Speak(vlan uint16)                         { h.m.ownStation(vlan) }
func (h host) Forget(p feature.Port)                     { h.m.forget(p.(*managed)) }
func (h host) Shut(p feature.Port, why string)           { h.m.shut(p.(*managed), why) }
func (h host) Collect(add feature.Add)                   { h.m.collect(add) }
func (h host) Distributions(add feature.AddDistribution) { h.m.distributions(add) }
func (h host) Emit(e api.Event)                          { h.m.emit(e) }
func (h host) API() http.Handler                         { return h.m.handler() }

// Pinned implements feature.Host.
func (h host) Pinned(k fdb.Key) bool {
	for i := range instances[feature.Pinning](h.m) {
		if i.Pins(k) {
			return true
		}
	}
	return false
}

// Why implements feature.Host.
func (h host) Why(p feature.Port, why port.Drop) string {
	for e := range instances[feature.Explained](h.m) {
		if words := e.Explain(p, why); words != "" {
			return words
		}
	}
	return ""
}

// Ports implements feature.Host. A port that is about to go is none of them.
func (h host) Ports() iter.Seq[feature.Port] {
	return func(yield func(feature.Port) bool) {
		for _, p := range h.m.sorted() {
			if !p.leaving && !yield(p) {
				return
			}
		}
	}
}

// StationMAC implements feature.Host.
func (h host) StationMAC(p feature.Port) port.MAC { return h.m.stationMAC(p.(*managed)) }

// Port implements feature.Host.
func (h host) Port(number uint16) feature.Port {
	for _, p := range h.m.ports {
		if p.sw.Number() == number {
			return p
		}
	}
	return nil
}

// After implements feature.Host.
func (h host) After(d time.Duration, f func()) (stop func()) {
	stopped := false // guarded by the turn
	t := time.AfterFunc(d, func() {
		_ = h.m.do(func() error {
			if !stopped {
				f()
			}
			return nil
		})
	})
	return func() { stopped = true; t.Stop() }
}

// TellTopology implements feature.Host.
func (h host) TellTopology() {
	for t := range instances[feature.Topology](h.m) {
		t.TopologyChanged()
	}
}

// Save implements feature.Host.
func (h host) Save() { h.m.saveNow() }

// Do implements feature.Host.
func (h host) Do(f func()) bool {
	return h.m.do(func() error { f(); return nil }) == nil
}

// managed is a feature.Port.
var _ feature.Port = (*managed)(nil)

func (p *managed) Name() string         { return p.spec.Name }
func (p *managed) Number() uint16       { return p.sw.Number() }
func (p *managed) Spec() *port.Spec     { return &p.spec }
func (p *managed) Policy() *port.Policy { return &p.spec.Policy }
func (p *managed) VLANs() port.VLANSet  { return p.spec.Carried() } // also before it applies
func (p *managed) Up() bool             { return p.state == api.StateUp }
func (p *managed) Passes() bool         { return p.dev != nil && p.state != api.StateDown }
func (p *managed) Disabled() bool       { return p.shutBy != "" }
func (p *managed) Speed() uint64        { return p.speed }
func (p *managed) MTU() int             { return p.link.MTU }
func (p *managed) Station() bool        { return p.hasStation() }
func (p *managed) Core() *vswitch.Port  { return p.sw }

// Own implements feature.Port.
func (p *managed) Own() port.MAC {
	if !p.Kind().Own {
		return 0
	}
	return port.MACFrom(p.link.MAC[:])
}

// Kind implements feature.Port.
func (p *managed) Kind() port.Description {
	if p.kind == nil {
		return port.Description{Station: true}
	}
	return p.kind.Describe()
}
