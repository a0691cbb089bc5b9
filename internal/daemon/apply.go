package daemon

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/config"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
)

// Configurations: many changes as one. An apply goes through these steps:
//
//	config.Document ──compile──▶ target ──plan──▶ steps ──carryOut──▶ one save
//	                               ▲                │
//	                  history, pending change ◀──undo
//
// compile and plan change nothing. carryOut takes all steps back if one fails or the state
// cannot be written. It gives the turn away between steps, so protocols and other calls go on;
// other changes wait (see change).

// target says what becomes of the items that it names; the others stay. What undoes a change
// has this form, too, so it is kept on disk.
type target struct {
	Switch  setting.Patch            `json:"switch,omitzero"` // all settings of the switch
	Ports   map[string]*targetPort   `json:"ports,omitempty"` // nil: it goes; so below
	FDB     map[fdb.Key]*targetEntry `json:"fdb,omitempty"`
	Groups  map[groupKey]*targetMark `json:"groups,omitempty"`
	Mirrors map[string]*targetMirror `json:"mirrors,omitempty"`

	Features map[string]json.RawMessage `json:"features,omitempty"` // what each keeps; null: nothing
}

func newTarget() target {
	return target{
		Ports: make(map[string]*targetPort), FDB: make(map[fdb.Key]*targetEntry),
		Groups: make(map[groupKey]*targetMark), Mirrors: make(map[string]*targetMirror),
		Features: make(map[string]json.RawMessage),
	}
}

// targetMark says whether a configuration named the item, so that pruning may remove it.
type targetMark struct {
	Applied bool `json:"applied,omitempty"`
}

type targetPort struct {
	targetMark
	Kind     string        `json:"kind"`
	Settings setting.Patch `json:"settings"`

	spec port.Spec // as it was read; zero: not yet
}

type targetEntry struct {
	targetMark
	Port   string `json:"port"`
	Sticky bool   `json:"sticky,omitempty"`
}

type targetMirror struct {
	targetMark
	api.Mirror
}

// groupKey is a static multicast group, whose VLAN is set.
type groupKey config.Group

// MarshalText implements encoding.TextMarshaler: groups are keys of target.
func (g groupKey) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "%d %s %s", g.VLAN, g.Group, g.Port), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (g *groupKey) UnmarshalText(b []byte) error {
	var group string
	if _, err := fmt.Sscanf(string(b), "%d %s %s", &g.VLAN, &group, &g.Port); err != nil {
		return fmt.Errorf("%q is no VLAN, group and port", b)
	}
	var err error
	g.Group, err = netip.ParseAddr(group)
	return err
}

// over returns the change that does w and then, where that names the same items, other.
func (w target) over(other target) target {
	if other.Switch != nil {
		w.Switch = other.Switch
	}
	w.Ports = overlay(w.Ports, other.Ports)
	w.FDB = overlay(w.FDB, other.FDB)
	w.Groups = overlay(w.Groups, other.Groups)
	w.Mirrors = overlay(w.Mirrors, other.Mirrors)
	w.Features = overlay(w.Features, other.Features)
	return w
}

func overlay[K comparable, V any](a, b map[K]V) map[K]V {
	all := make(map[K]V, len(a)+len(b))
	maps.Copy(all, a)
	maps.Copy(all, b)
	return all
}

// Marks of items that a configuration named, as in savedState.Applied. They are also the
// items' names in a plan.
func portMark(name string) string   { return "port " + name }
func mirrorMark(name string) string { return "mirror " + name }
func entryMark(k fdb.Key) string    { return fmt.Sprintf("fdb %s vlan %d", port.MAC(k.MAC()), k.VLAN()) }
func groupMark(g groupKey) string {
	return fmt.Sprintf("group %s vlan %d port %s", g.Group, g.VLAN, g.Port)
}

// marked returns the mark of an item.
func (m *manager) marked(what string) targetMark { return targetMark{m.applied[what]} }

// dropMarks forgets the marks of items that are not in the state: a user removed them.
func (m *manager) dropMarks(st savedState) {
	there := make(map[string]bool, len(m.applied))
	for _, p := range st.Ports {
		there[portMark(p.Spec.Name)] = true
	}
	for _, e := range st.FDB {
		there[entryMark(fdb.MakeKey(e.VLAN, uint64(e.MAC)))] = true
	}
	for _, g := range m.groups() {
		there[groupMark(g)] = true
	}
	for _, a := range m.mirrors() {
		there[mirrorMark(a.Name)] = true
	}
	maps.DeleteFunc(m.applied, func(what string, _ bool) bool { return !there[what] })
}

// how says in which way a change is carried out.
type how struct {
	replace bool          // ports may be removed and made again
	force   bool          // also those that a machine is attached to
	lenient bool          // a port that cannot be opened waits, as at a start
	dry     bool          // plan only
	ends    bool          // no change waits for its confirmation afterwards
	by      string        // who asked
	plan    string        // the expected plan; empty: any
	confirm time.Duration // until it is taken back; 0: never
}

// maxConfirm is the longest time in seconds that a change can wait for its confirmation.
const maxConfirm = 7 * 24 * 3600

// applyConfig makes the switch as a configuration says. It is called without the turn.
func (m *manager) applyConfig(req api.ApplyConfig) (done api.AppliedConfig, err error) {
	doc, err := config.Decode(req.Config.RawMessage)
	switch {
	case err != nil:
		return done, fail(api.CodeInvalid, "the configuration is not understood: %w", err)
	case !slices.Contains([]string{api.PruneNone, api.PruneApplied, api.PruneAll}, req.Prune):
		return done, fail(api.CodeInvalid, "there is no prune %q; use applied or all", req.Prune)
	case req.ConfirmS < 0 || req.ConfirmS > maxConfirm:
		return done, fail(api.CodeInvalid, "a confirmation within %d s is not possible; use 1 to %d", req.ConfirmS, maxConfirm)
	}
	r, problems := m.read(doc) // a thousand ports take a while
	o := how{
		replace: req.AllowReplace, force: req.Force, dry: req.DryRun, by: cmp.Or(req.By, "apply"),
		plan: req.Plan, confirm: time.Duration(req.ConfirmS) * time.Second,
	}
	err = m.changeConfig(func() (err error) {
		if m.pending != nil && o.confirm == 0 && !o.dry {
			return m.stillPending()
		}
		w, more := m.compile(doc, r, req.Prune)
		done, err = m.carry(w, o, append(problems, more...))
		return err
	})
	return done, err
}

// begin applies the configuration of the start, once the ports are restored, and then tells
// the service manager that the switch is ready.
func (m *manager) begin(o Options) {
	m.awaitRestored()
	if o.Config.Config.RawMessage != nil {
		m.applyAtStart(o.Config, o.ConfigError)
	}
	_ = m.do(func() error {
		m.service.Send(fmt.Sprintf("READY=1\nSTATUS=switch %s has %d ports", m.name, len(m.ports)))
		return nil
	})
}

// awaitRestored waits until the ports of the state are open, or the switch ends.
func (m *manager) awaitRestored() {
	select {
	case <-m.restored:
	case <-m.ended:
	}
}

// applyAtStart applies a configuration. With an error the switch goes on as it was before: its
// machines run.
func (m *manager) applyAtStart(req api.ApplyConfig, reword func(error) error) {
	_, err := m.applyConfig(req)
	if err == nil {
		return
	}
	if reword != nil {
		err = reword(err)
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		m.log.Error("the configuration is not applied; the switch goes on as it was", "error", line)
	}
}

// changeConfig is change for a configuration: meanwhile, other changes are told why they wait.
func (m *manager) changeConfig(f func() error) error {
	return m.change(func() error {
		m.applying.Store(true)
		defer m.applying.Store(false)
		return f()
	})
}

// problem is an error at a part of a document.
func problem(at config.Path, format string, args ...any) api.ConfigProblem {
	message := strings.ReplaceAll(fmt.Errorf(format, args...).Error(), "\n", "; ")
	return api.ConfigProblem{At: string(at), Message: message}
}

// refused returns the error for what is wrong with a configuration.
func refused(code string, problems []api.ConfigProblem) error {
	slices.SortFunc(problems, func(a, b api.ConfigProblem) int {
		return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Message, b.Message))
	})
	text := problems[0].Message
	if n := len(problems) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more)", n)
	}
	return &api.Error{Code: code, Message: text, Problems: problems}
}

// readDocument is what read makes of a document.
type readDocument struct {
	ports   map[string]*targetPort
	entries map[fdb.Key]*targetEntry
	at      map[fdb.Key]config.Path
}

// read reads the parts of a document that mean the same on any switch. It may be called
// without the turn.
func (m *manager) read(doc config.Document) (r readDocument, problems []api.ConfigProblem) {
	r = readDocument{make(map[string]*targetPort), make(map[fdb.Key]*targetEntry), make(map[fdb.Key]config.Path)}
	f := config.Format{Ports: m.kinds}
	for name, p := range doc.Ports {
		at := config.At("ports", name)
		spec, err := f.Spec(name, p)
		if err != nil {
			problems = append(problems, problem(at, "port %s: %w", name, err))
			continue
		}
		r.ports[name] = &targetPort{targetMark{true}, spec.Kind, spec.Patch(), spec}
	}
	for i, e := range doc.FDB {
		at := config.At("fdb", i)
		k, err := fdbKey(e.MAC, e.VLAN)
		switch {
		case err != nil:
			problems = append(problems, problem(at, "%w", err))
		case r.entries[k] != nil:
			problems = append(problems, problem(at, "%s has two entries in VLAN %d", e.MAC, k.VLAN()))
		default:
			r.entries[k], r.at[k] = &targetEntry{targetMark{true}, e.Port, e.Sticky}, at
		}
	}
	for name, mi := range doc.Mirrors {
		if err := mi.Check(name); err != nil {
			problems = append(problems, problem(config.At("mirrors", name), "%w", err))
		}
	}
	return r, problems
}

// compile returns what a document asks of the switch as it is now.
func (m *manager) compile(doc config.Document, r readDocument, prune string) (w target, problems []api.ConfigProblem) {
	w = newTarget()
	w.Ports, w.FDB = r.ports, r.entries
	maps.Copy(w.Features, doc.Features)
	for name, c := range doc.Mirrors {
		w.Mirrors[name] = &targetMirror{targetMark{true}, mirrorOf(name, c)}
	}
	for _, g := range doc.Groups {
		w.Groups[groupFor(g)] = &targetMark{true}
	}
	m.prune(w, doc, prune)

	if doc.Switch != nil {
		to, err := m.noSettings().merge(doc.Switch)
		if err != nil {
			problems = append(problems, problem("switch", "%w", err))
		}
		w.Switch = to.patch()
	}
	at := func(what config.Path, item, name string, vlan uint16) {
		if p, named := w.Ports[name]; doc.Ports[name] != nil && !named {
			// The port is a problem already.
		} else if m.ports[name] == nil && p == nil || named && p == nil {
			problems = append(problems, problem(what, "%s: there is no port %s", item, name))
		} else if carried := m.willCarry(w, name); vlan != 0 && (vlan > port.MaxVID || !carried.Has(vlan)) {
			problems = append(problems, problem(what, "%s: port %s does not carry VLAN %d; it carries %s", item, name, vlan, carried.String()))
		}
	}
	for i, g := range doc.Groups {
		at(config.At("groups", i), fmt.Sprintf("group %s", g.Group), g.Port, groupFor(g).VLAN)
	}
	if len(doc.Groups) > 0 && !m.willSnoop(w) {
		problems = append(problems, problem("groups", "static groups need multicast snooping; put `snooping: true` under switch"))
	}
	for k, e := range w.FDB {
		if e != nil {
			at(r.at[k], fmt.Sprintf("entry %s", port.MAC(k.MAC())), e.Port, k.VLAN())
		}
	}
	for name, c := range doc.Mirrors {
		for _, p := range append(slices.Clone(c.From), c.To) {
			if p != "" {
				at(config.At("mirrors", name), "mirror "+name, p, 0)
			}
		}
	}
	for name := range doc.Features {
		if m.hostedFeature(name) == nil {
			problems = append(problems, problem(config.At("features", name), "there is no feature %q", name))
		}
	}
	return w, problems
}

// prune adds to a change that what a document does not name goes.
func (m *manager) prune(w target, doc config.Document, prune string) {
	goes := func(mark string) bool { return prune == api.PruneAll || prune == api.PruneApplied && m.applied[mark] }
	for name := range m.ports {
		if doc.Ports[name] == nil && goes(portMark(name)) {
			w.Ports[name] = nil
		}
	}
	for k := range m.static {
		if w.FDB[k] == nil && goes(entryMark(k)) {
			w.FDB[k] = nil
		}
	}
	for _, g := range m.groups() {
		if w.Groups[g] == nil && goes(groupMark(g)) {
			w.Groups[g] = nil
		}
	}
	for _, a := range m.mirrors() {
		if w.Mirrors[a.Name] == nil && goes(mirrorMark(a.Name)) {
			w.Mirrors[a.Name] = nil
		}
	}
}

func mirrorOf(name string, c config.Mirror) api.Mirror {
	return api.Mirror{
		Name: name, From: c.From, FromVLAN: c.FromVLAN, Direction: cmp.Or(string(c.Direction), "both"),
		To: c.To, ToVLAN: c.ToVLAN, SnapLen: c.SnapLen, Filter: c.Filter,
	}
}

func mirrorConfig(a api.Mirror) config.Mirror {
	direction := config.Direction(a.Direction)
	if direction == "both" {
		direction = ""
	}
	return config.Mirror{
		From: a.From, FromVLAN: a.FromVLAN, Direction: direction,
		To: a.To, ToVLAN: a.ToVLAN, SnapLen: a.SnapLen, Filter: a.Filter,
	}
}

func groupFor(g config.Group) groupKey {
	return groupKey{Group: g.Group.Unmap(), VLAN: cmp.Or(g.VLAN, port.DefaultVLAN), Port: g.Port}
}

// willCarry returns the VLANs that a port carries after a change.
func (m *manager) willCarry(w target, name string) port.VLANSet {
	if p := w.Ports[name]; p != nil {
		return p.spec.Carried()
	}
	return m.ports[name].vlans()
}

// willSnoop reports whether multicast is snooped after a change.
func (m *manager) willSnoop(w target) bool {
	if w.Switch == nil {
		return m.settings.patch()["snooping"] != nil
	}
	return w.Switch["snooping"] != nil
}

// Keys of what features keep that have sections of their own in a configuration. Both are
// lists.
const (
	mirrorsKey = "mirrors"
	groupsKey  = "groups"
)

// ConfigSections returns the keys of what features keep, as the section features has them.
func ConfigSections(features []feature.Feature) (keys []string) {
	for _, f := range features {
		if key := keyOf(&f); key != mirrorsKey && key != groupsKey {
			keys = append(keys, key)
		}
	}
	return keys
}

// mirrors returns the mirrors by name, groups the static groups.
func (m *manager) mirrors() []api.Mirror { return listOf[api.Mirror](m, mirrorsKey) }
func (m *manager) groups() (all []groupKey) {
	for _, g := range listOf[config.Group](m, groupsKey) {
		all = append(all, groupKey(g))
	}
	return all
}

// listOf returns a list that a feature keeps.
func listOf[T any](m *manager, key string) (all []T) {
	h := m.hostedFeature(key)
	if h == nil {
		return nil
	}
	b, err := h.state()
	if err == nil && b != nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		m.log.Error("a part of the configuration cannot be read", "part", key, "error", err)
	}
	return all
}

// hostedFeature returns the feature that keeps something under a key.
func (m *manager) hostedFeature(key string) *hosted {
	i := slices.IndexFunc(m.hosted, func(h *hosted) bool { return h.key() == key })
	if i < 0 {
		return nil
	}
	return m.hosted[i]
}

// noSettings returns the settings of this switch with none set.
func (m *manager) noSettings() switchSettings { return noSettings(m.featureList()) }

func (m *manager) featureList() (all []feature.Feature) {
	for _, h := range m.hosted {
		all = append(all, h.Feature)
	}
	return all
}

// carry plans a change and, unless o says that this is all, carries it out.
func (m *manager) carry(w target, o how, problems []api.ConfigProblem) (done api.AppliedConfig, err error) {
	p := m.plan(w, o)
	if problems = append(problems, p.problems...); len(problems) > 0 {
		return done, refused(api.CodeInvalid, problems)
	}
	done = api.AppliedConfig{Steps: []api.ConfigStep{}}
	for _, s := range slices.Concat(p.steps, p.last) {
		if !s.hidden {
			done.Steps = append(done.Steps, s.ConfigStep)
		}
	}
	done.Plan = identify(done.Steps)
	if o.plan != "" && o.plan != done.Plan {
		return done, fail(api.CodeConflict, "the switch changed since the plan was made; nothing is changed, look at the new plan")
	}
	document := m.document()
	switch denied := p.denied(o); {
	case o.dry:
		for _, d := range denied {
			done.Notes = append(done.Notes, d.Message)
		}
	case len(denied) > 0:
		return done, refused(api.CodeInUse, denied)
	case len(done.Steps) > 0 || o.confirm != 0 || o.ends && m.pending != nil || !m.sameMarks(w):
		if done.Notes, err = m.carryOut(w, p, o, done.Steps); err != nil {
			return done, err
		}
		document = m.document()
	}
	done.Pending = m.describePending()
	m.off(func() { // a thousand ports take a while
		doc := document()
		if o.dry {
			change(&doc, w)
		}
		done.Config = asConfig(doc)
	})
	return done, nil
}

// identify returns an identifier of steps.
func identify(steps []api.ConfigStep) string {
	h := sha256.New()
	for _, s := range steps {
		fmt.Fprintf(h, "%q %q %q\n", s.Change, s.What, s.How)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// carryOut carries out a plan: all of it, or nothing.
func (m *manager) carryOut(w target, p *plan, o how, steps []api.ConfigStep) (notes []string, err error) {
	former := m.pending
	if o.confirm != 0 {
		undo := p.undo
		if former != nil {
			undo = undo.over(former.Undo) // to what was before the first change
		}
		m.pending = &pendingChange{By: o.by, Until: time.Now().Add(o.confirm).Round(0).UTC(), Undo: undo}
		// On disk before the first step: a daemon that is killed takes the change back.
		if err := m.save(); err != nil {
			m.pending = former
			return nil, fail(api.CodeFailed, "%w", err)
		}
	}
	if o.ends {
		m.pending = nil
	}
	m.halfway = true
	var done []step
	back := func(err error) error {
		for _, s := range slices.Backward(done) {
			s.back()
			m.off(func() {})
		}
		m.pending, m.halfway = former, false
		m.saveTrace()
		return err
	}
	for _, s := range p.steps {
		if err := s.do(); err != nil {
			code := api.CodeFailed
			if e := new(api.Error); errors.As(err, &e) {
				code = e.Code
			}
			return nil, back(refused(code, []api.ConfigProblem{problem(s.at, "%s: %w; nothing is changed", s.What, err)}))
		}
		done = append(done, s)
		m.off(func() {}) // others have their turn
	}
	marks := m.setMarks(w)
	m.leave(p, true)
	m.halfway = false
	if err := m.save(); err != nil {
		m.leave(p, false)
		m.applied, m.halfway = marks, true
		return nil, back(fail(api.CodeFailed, "%w", err))
	}
	for _, s := range p.last {
		if err := s.do(); err != nil {
			notes = append(notes, err.Error())
		}
		m.off(func() {})
	}
	m.armPending()
	if len(steps) > 0 {
		if err := m.record(o.by, steps, p.undo); err != nil {
			m.log.Error("the history of configurations is not written", "error", err)
			notes = append(notes, fmt.Sprintf("the history is not written, so rollback does not know this change: %v", err))
		}
	}
	m.emit(api.Event{Type: api.EventConfigApplied, Reason: o.by, Count: uint64(len(steps))})
	m.log.Info("configuration applied", "by", o.by, "changes", len(steps))
	return append(notes, m.waiting(w)...), nil
}

// leave says whether the ports that a plan removes last are in the state.
func (m *manager) leave(p *plan, leaving bool) {
	for _, name := range p.leaving {
		if is := m.ports[name]; is != nil {
			is.leaving = leaving
		}
	}
}

// waiting says which of the ports that a change names wait for their devices.
func (m *manager) waiting(w target) (notes []string) {
	for _, name := range slices.Sorted(maps.Keys(w.Ports)) {
		if p := m.ports[name]; p != nil && p.dev == nil && p.state == api.StateWaiting {
			notes = append(notes, fmt.Sprintf("port %s waits: %s", name, p.reason))
		}
	}
	return notes
}

// setMarks marks what a change names and returns the former marks.
func (m *manager) setMarks(w target) (former map[string]bool) {
	former = maps.Clone(m.applied)
	mark := func(what string, applied bool) {
		if applied {
			m.applied[what] = true
		} else {
			delete(m.applied, what)
		}
	}
	for name, p := range w.Ports {
		mark(portMark(name), p != nil && p.Applied)
	}
	for k, e := range w.FDB {
		mark(entryMark(k), e != nil && e.Applied)
	}
	for g, e := range w.Groups {
		mark(groupMark(g), e != nil && e.Applied)
	}
	for name, a := range w.Mirrors {
		mark(mirrorMark(name), a != nil && a.Applied)
	}
	return former
}

// sameMarks reports whether a change marks nothing new.
func (m *manager) sameMarks(w target) bool {
	former := m.setMarks(w)
	same := maps.Equal(former, m.applied)
	m.applied = former
	return same
}

// document returns the configuration of the switch as it is now. The function that writes its
// ports may be called without the turn.
func (m *manager) document() func() config.Document {
	doc := config.Document{Version: config.Version, Switch: m.kept.patch(), Ports: make(map[string]setting.Patch)}
	specs := make([]port.Spec, 0, len(m.ports))
	for name, p := range m.ports {
		if p.unfit != nil {
			doc.Ports[name] = p.settings().With("kind", p.spec.Kind)
		} else {
			specs = append(specs, p.spec)
		}
	}
	for k, e := range m.static {
		doc.FDB = append(doc.FDB, entryOf(k, e))
	}
	for _, g := range m.groups() {
		doc.Groups = append(doc.Groups, config.Group(g))
	}
	for _, a := range m.mirrors() {
		if doc.Mirrors == nil {
			doc.Mirrors = make(map[string]config.Mirror)
		}
		doc.Mirrors[a.Name] = mirrorConfig(a)
	}
	states := m.featureStates((*hosted).asked)
	delete(states, mirrorsKey)
	delete(states, groupsKey)
	if len(states) > 0 {
		doc.Features = states
	}
	return func() config.Document {
		for _, s := range specs {
			doc.Ports[s.Name] = config.Of(s)
		}
		sortDocument(&doc)
		return doc
	}
}

// settings returns what was asked of the port, also where that cannot be applied.
func (p *managed) settings() setting.Patch {
	if p.unfit != nil {
		return p.unfit.settings
	}
	return p.spec.Patch()
}

func entryOf(k fdb.Key, e staticEntry) config.Entry {
	return config.Entry{MAC: port.MAC(k.MAC()), VLAN: k.VLAN(), Port: e.port, Sticky: e.sticky}
}

func sortDocument(doc *config.Document) {
	slices.SortFunc(doc.FDB, func(a, b config.Entry) int {
		return cmp.Or(cmp.Compare(a.VLAN, b.VLAN), cmp.Compare(a.MAC, b.MAC))
	})
	slices.SortFunc(doc.Groups, func(a, b config.Group) int {
		return cmp.Or(cmp.Compare(a.VLAN, b.VLAN), a.Group.Compare(b.Group), cmp.Compare(a.Port, b.Port))
	})
}

// change changes a document as a change would change the switch.
func change(doc *config.Document, w target) {
	if w.Switch != nil {
		doc.Switch = w.Switch
	}
	for name, p := range w.Ports {
		if p == nil {
			delete(doc.Ports, name)
		} else {
			doc.Ports[name] = p.Settings.With("kind", p.Kind)
		}
	}
	doc.FDB = slices.DeleteFunc(doc.FDB, func(e config.Entry) bool {
		_, named := w.FDB[fdb.MakeKey(e.VLAN, uint64(e.MAC))]
		return named
	})
	for k, e := range w.FDB {
		if e != nil {
			doc.FDB = append(doc.FDB, entryOf(k, staticEntry{e.Port, e.Sticky}))
		}
	}
	doc.Groups = slices.DeleteFunc(doc.Groups, func(g config.Group) bool {
		_, named := w.Groups[groupFor(g)]
		return named
	})
	for g, e := range w.Groups {
		if e != nil {
			doc.Groups = append(doc.Groups, config.Group(g))
		}
	}
	doc.Mirrors = overlay(doc.Mirrors, nil)
	for name, a := range w.Mirrors {
		if a == nil {
			delete(doc.Mirrors, name)
		} else {
			doc.Mirrors[name] = mirrorConfig(a.Mirror)
		}
	}
	if len(doc.Mirrors) == 0 {
		doc.Mirrors = nil
	}
	if len(w.Features) > 0 {
		doc.Features = overlay(doc.Features, w.Features)
	}
	sortDocument(doc)
}

func asConfig(doc config.Document) api.Config {
	b, err := json.Marshal(doc)
	if err != nil {
		panic(err) // cannot fail: its parts were read from JSON
	}
	return api.Config{RawMessage: b}
}

// sameJSON reports whether two texts of JSON have the same value; none is null.
func sameJSON(a, b json.RawMessage) bool {
	var x, y any
	return (a == nil || json.Unmarshal(a, &x) == nil) && (b == nil || json.Unmarshal(b, &y) == nil) && reflect.DeepEqual(x, y)
}
