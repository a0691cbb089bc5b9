package daemon

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/config"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
)

// Changes of a step.
const (
	changeAdd     = "add"
	changeSet     = "set"
	changeReplace = "replace"
	changeRemove  = "remove"
)

// step is a change of one item.
type step struct {
	api.ConfigStep
	at   config.Path
	do   func() error
	back func() // takes do back; it cannot fail, at worst a port waits

	hidden bool // it is part of others
}

// plan says how a change is carried out.
type plan struct {
	steps    []step
	last     []step   // removals of ports, once the rest is on disk: a machine that lost its device does not get it back
	leaving  []string // the ports of last
	undo     target
	problems []api.ConfigProblem
	replaced []api.ConfigProblem // ports that must be made again
	attended []api.ConfigProblem // ports that a machine would lose
}

// denied returns what o does not allow.
func (p *plan) denied(o how) (all []api.ConfigProblem) {
	if !o.replace {
		all = append(all, p.replaced...)
	}
	if !o.force {
		all = append(all, p.attended...)
	}
	return all
}

// plan returns the steps from the switch as it is to what is wanted.
func (m *manager) plan(w target, o how) *plan {
	p := &plan{undo: newTarget()}
	m.planPorts(p, w, o)
	m.planSwitch(p, w)
	for _, h := range m.hosted {
		if h.Items != nil {
			m.planItems(p, w, h)
		}
	}
	m.planFeatures(p, w)
	return p
}

// planPorts plans the ports: those first that make room for others, then those that are made
// again, then new ones, then changed ones. Ports that only go wait until the rest is on disk.
func (m *manager) planPorts(p *plan, w target, o how) {
	var first, replace, add, set []step
	taken := make(map[string]bool) // what new devices stand on
	for _, name := range slices.Sorted(maps.Keys(w.Ports)) {
		to, is := w.Ports[name], m.ports[name]
		at := config.At("ports", name)
		if to != nil && reflect.ValueOf(to.spec).IsZero() {
			var err error
			if to.spec, err = m.kinds.Spec(name, to.Kind, to.Settings); err != nil && (is != nil || !o.lenient) {
				p.problems = append(p.problems, problem(at, "port %s: %w", name, err))
				continue
			}
		}
		switch {
		case to == nil && is == nil:
			continue
		case to == nil: // below
		case is == nil:
			add = append(add, m.adding(name, to, o))
			claims(taken, name, to.Settings)
		case is.spec.Kind != to.Kind:
			replace = append(replace, m.replacing(p, is, to, o, fmt.Sprintf("kind %s → %s", is.spec.Kind, to.Kind)))
			claims(taken, name, to.Settings)
		case is.unfit == nil && (reflect.DeepEqual(is.spec, to.spec) || config.Same(is.spec.Patch(), to.Settings)):
			if m.applied[portMark(name)] != to.Applied {
				p.undo.Ports[name] = m.portNow(is)
			}
			continue
		default:
			changes := m.kinds.Changes(is.spec, to.spec)
			if i := slices.IndexFunc(changes, func(c port.Change) bool { return c.Fixed }); i >= 0 && is.unfit == nil {
				replace = append(replace, m.replacing(p, is, to, o, inWords(changes)))
				claims(taken, name, to.Settings)
			} else {
				set = append(set, m.setting(is, to, inWords(changes)))
			}
		}
		p.undo.Ports[name] = m.portNow(is)
	}
	for _, name := range slices.Sorted(maps.Keys(w.Ports)) {
		is := m.ports[name]
		if w.Ports[name] != nil || is == nil {
			continue
		}
		m.goWithPort(w, name)
		s := m.removing(p, is, o)
		if claimed(taken, name, is.settings()) {
			first = append(first, s)
		} else {
			p.last, p.leaving = append(p.last, s), append(p.leaving, name)
		}
	}
	before, after := m.yielding(w)
	p.steps = slices.Concat(p.steps, []step{before}, first, replace, add, set, []step{after})
}

// yielding returns the hidden steps around those of ports: ports give up what others will have,
// one way and, if the change is taken back, the other.
func (m *manager) yielding(w target) (before, after step) {
	next, former := make(map[string]*port.Spec), make(map[string]*port.Spec)
	for name, to := range w.Ports {
		is := m.ports[name]
		if to != nil && is != nil && reflect.DeepEqual(is.spec, to.spec) {
			continue
		}
		next[name], former[name] = nil, nil
		if to != nil {
			next[name] = &to.spec
		}
		if is != nil {
			spec := is.spec
			former[name] = &spec
		}
	}
	before, after = step{hidden: true}, step{hidden: true}
	before.do = func() error { m.yield(next); return nil }
	before.back = func() {
		for name := range next {
			if p := m.ports[name]; p != nil {
				m.configured(p)
			}
		}
	}
	after.do, after.back = func() error { return nil }, func() { m.yield(former) }
	return before, after
}

// claims records what a port stands on: the device of its name, and its socket.
func claims(taken map[string]bool, name string, p setting.Patch) {
	taken[name] = true
	if path, ok := p["path"]; ok {
		taken[string(path)] = true
	}
}

// claimed reports whether a new port stands on what a port has.
func claimed(taken map[string]bool, name string, p setting.Patch) bool {
	own := make(map[string]bool)
	claims(own, name, p)
	for what := range own {
		if taken[what] {
			return true
		}
	}
	return false
}

// portNow is what a port is now, for what undoes its change; nil: there is none.
func (m *manager) portNow(p *managed) *targetPort {
	if p == nil {
		return nil
	}
	return &targetPort{targetMark: m.marked(portMark(p.spec.Name)), Kind: p.spec.Kind, Settings: p.settings()}
}

// inWords describes changes of settings.
func inWords(changes []port.Change) string {
	parts := make([]string, len(changes))
	for i, c := range changes {
		parts[i] = fmt.Sprintf("%s %s → %s", c.Flag, c.From, c.To)
	}
	return strings.Join(parts, ", ")
}

// describeSettings describes a port's settings.
func (m *manager) describeSettings(kind string, p setting.Patch) string {
	parts := []string{kind}
	for _, s := range m.kinds.Settings() {
		text, ok := p[s.Key]
		if !ok {
			continue
		}
		var v any
		if json.Unmarshal(text, &v) != nil {
			continue
		}
		if v == true && s.Bool() {
			parts = append(parts, s.Flag)
		} else {
			parts = append(parts, s.Flag+" "+s.FlagText(v))
		}
	}
	return strings.Join(parts, ", ")
}

func (m *manager) portStep(change, name, how string) step {
	return step{ConfigStep: api.ConfigStep{Change: change, What: portMark(name), How: how}, at: config.At("ports", name)}
}

func (m *manager) adding(name string, to *targetPort, o how) step {
	s := m.portStep(changeAdd, name, m.describeSettings(to.Kind, to.Settings))
	s.do = func() error { return m.makePort(name, to, o.lenient) }
	s.back = func() { m.takeBack(name) }
	return s
}

// makePort adds a port. One whose device is absent waits; leniently, any that cannot be opened.
func (m *manager) makePort(name string, to *targetPort, lenient bool) error {
	if lenient {
		m.bringBack(store.Port{Spec: store.Spec{Name: name, Kind: to.Kind, Settings: to.Settings}})
		return nil
	}
	p, opened, err := m.bring(to.spec, m.kinds.Find(to.Kind), true)
	if err != nil {
		return err
	}
	defer p.release()
	if why := m.takenBy(p); opened == nil && why != "" {
		m.drop(p)
		m.off(func() { err = m.remove(p) })
		return errors.Join(errors.New(why), err)
	}
	m.ports[name] = p
	m.arrived(p, opened)
	return nil
}

// bringBack adds a port as the state has it. One that cannot be opened waits.
func (m *manager) bringBack(s store.Port) {
	p := m.restorePort(s)
	if p == nil {
		return
	}
	m.claim(p)
	defer p.release()
	m.tryOpen(p)
}

// takeBack removes a port that was added.
func (m *manager) takeBack(name string) {
	if p := m.ports[name]; p != nil {
		if err := m.takeOut(p); err != nil {
			m.log.Error("taking back a port", "port", name, "error", err)
		}
	}
}

// nowSaved is what a port is now, as the state has it, without what it left on the host.
func nowSaved(p *managed) store.Port {
	return store.Port{Spec: store.Spec{Name: p.spec.Name, Kind: p.spec.Kind, Settings: p.settings()}}
}

func (m *manager) replacing(p *plan, is *managed, to *targetPort, o how, why string) step {
	name := is.spec.Name
	s := m.portStep(changeReplace, name, why)
	p.replaced = append(p.replaced, problem(s.at, "port %s must be made again (%s), which cuts its machine off until it reconnects; allow that with --allow-replace", name, why))
	if who := m.attendedBy(is); who != "" {
		p.attended = append(p.attended, problem(s.at, "port %s is in use: %s; stop the machine first, or replace the port all the same with --force", name, who))
	}
	was := nowSaved(is)
	s.do = func() error {
		if p := m.ports[name]; p != nil {
			if err := m.takeOut(p); err != nil {
				m.bringBack(was)
				return err
			}
		}
		if err := m.makePort(name, to, o.lenient); err != nil {
			m.bringBack(was)
			return err
		}
		return nil
	}
	s.back = func() {
		m.takeBack(name)
		m.bringBack(was)
	}
	return s
}

func (m *manager) setting(is *managed, to *targetPort, what string) step {
	name := is.spec.Name
	s := m.portStep(changeSet, name, what)
	from, was := is.spec, is.unfit
	change := func(spec port.Spec) error {
		p := m.ports[name]
		if p == nil {
			return fmt.Errorf("port %s is gone meanwhile", name)
		}
		if err := m.respec(p, spec); err != nil {
			return err
		}
		m.emit(api.Event{Type: api.EventPortChanged, Port: name})
		m.resume(p)
		return nil
	}
	s.do = func() error { return change(to.spec) }
	s.back = func() {
		if err := change(from); err != nil {
			m.log.Error("taking back the settings of a port", "port", name, "error", err)
		}
		if p := m.ports[name]; p != nil {
			p.unfit = was
		}
	}
	return s
}

func (m *manager) removing(p *plan, is *managed, o how) step {
	name := is.spec.Name
	s := m.portStep(changeRemove, name, m.describeSettings(is.spec.Kind, is.settings()))
	if who := m.attendedBy(is); who != "" {
		p.attended = append(p.attended, problem("ports", "port %s is in use: %s; stop the machine first, or remove the port all the same with --force", name, who))
	}
	was := nowSaved(is)
	s.do = func() error {
		if p := m.ports[name]; p != nil {
			return m.takeOut(p)
		}
		return nil
	}
	s.back = func() { m.bringBack(was) }
	return s
}

// planSwitch plans the settings of the switch.
func (m *manager) planSwitch(p *plan, w target) {
	if w.Switch == nil {
		return
	}
	is := m.kept.patch()
	change := setting.Patch{}
	for key, v := range w.Switch {
		if !sameJSON(is[key], v) {
			change[key] = v
		}
	}
	for key := range is {
		if w.Switch[key] == nil {
			change.Set(key, nil)
		}
	}
	if len(change) == 0 {
		return
	}
	kept, err := m.noSettings().merge(w.Switch)
	if err != nil {
		p.problems = append(p.problems, problem("switch", "%w", err))
		return
	}
	inForce, err := m.settings.merge(change)
	if err != nil {
		p.problems = append(p.problems, problem("switch", "%w; `vswitch run` was given flags that contradict it", err))
		return
	}
	p.undo.Switch = is
	wasKept, wasInForce := m.kept, m.settings
	p.steps = append(p.steps, step{
		ConfigStep: api.ConfigStep{Change: changeSet, What: "switch", How: m.switchChanges(is, w.Switch)},
		at:         "switch",
		do: func() error {
			m.kept = kept
			err := m.apply(inForce)
			if err != nil {
				m.kept = wasKept
				return errors.Join(err, m.apply(wasInForce))
			}
			m.emit(api.Event{Type: api.EventSwitchChanged, Keys: change.Keys()})
			return nil
		},
		back: func() {
			m.kept = wasKept
			if err := m.apply(wasInForce); err != nil {
				m.log.Error("taking back settings of the switch", "error", err)
			}
		},
	})
}

// switchChanges describes changed settings of the switch.
func (m *manager) switchChanges(from, to setting.Patch) string {
	var parts []string
	for _, f := range SettingFields(m.featureList()) {
		if a, b := from[f.Key], to[f.Key]; !sameJSON(a, b) {
			parts = append(parts, fmt.Sprintf("%s %s → %s", f.Flag, valueText(f, a), valueText(f, b)))
		}
	}
	return strings.Join(parts, ", ")
}

func valueText(f setting.Field, text json.RawMessage) string {
	var v any
	if text == nil || json.Unmarshal(text, &v) != nil {
		return "unset"
	}
	return f.FlagText(v)
}

// planFeatures plans what features keep.
func (m *manager) planFeatures(p *plan, w target) {
	for _, name := range slices.Sorted(maps.Keys(w.Features)) {
		h := m.hostedFeature(name)
		if h == nil {
			continue
		}
		at := config.At("features", name)
		now, err := h.asked()
		if err != nil {
			p.problems = append(p.problems, problem(at, "%s: %w", name, err))
			continue
		}
		to := w.Features[name]
		if sameJSON(now, to) {
			continue
		}
		if _, keeps := h.instance.(feature.Kept); h.instance != nil && !keeps {
			p.problems = append(p.problems, problem(at, "%s keeps nothing beside settings", name))
			continue
		}
		p.undo.Features[name] = now
		p.steps = append(p.steps, step{
			ConfigStep: api.ConfigStep{Change: changeSet, What: "feature " + name, How: "what it keeps"}, at: at,
			do: func() error { return m.giveFeature(h, to, now) },
			back: func() {
				if err := m.giveFeature(h, now, now); err != nil {
					m.log.Error("taking back what a feature keeps", "feature", name, "error", err)
				}
			},
		})
	}
}

// giveFeature gives a feature what users ask it to keep from now on, beside what it has learned; null is
// nothing. With an error it keeps what it kept.
func (m *manager) giveFeature(h *hosted, state, former json.RawMessage) error {
	if sameJSON(state, nil) {
		state = nil
	}
	state, err1 := h.withLearned(state)
	former, err2 := h.withLearned(former)
	if err := cmp.Or(err1, err2); err != nil {
		return err
	}
	k, ok := h.instance.(feature.Kept)
	if !ok {
		h.kept = state
		return nil
	}
	err := k.Restore(state)
	if err != nil {
		err = errors.Join(err, k.Restore(former))
	}
	return err
}
