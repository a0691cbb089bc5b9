package daemon

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/config"
	"github.com/vswitch/vswitch/internal/daemon/store"
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
	Switch setting.Patch          `json:"switch,omitzero"` // all settings of the switch
	Ports  map[string]*targetPort `json:"ports,omitempty"` // nil: it goes
	Items  map[string]*targetItem `json:"items,omitempty"` // by ID

	Features map[string]json.RawMessage `json:"features,omitempty"` // what each keeps; null: nothing
}

func newTarget() target {
	return target{
		Ports: make(map[string]*targetPort), Items: make(map[string]*targetItem),
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

// over returns the change that does w and then, where that names the same items, other.
func (w target) over(other target) target {
	if other.Switch != nil {
		w.Switch = other.Switch
	}
	w.Ports = overlay(w.Ports, other.Ports)
	w.Items = overlay(w.Items, other.Items)
	w.Features = overlay(w.Features, other.Features)
	return w
}

func overlay[K comparable, V any](a, b map[K]V) map[K]V {
	all := make(map[K]V, len(a)+len(b))
	maps.Copy(all, a)
	maps.Copy(all, b)
	return all
}

// portMark is the mark of a port that a configuration named, as in store.State.Applied; that of an
// item is its ID. Marks are also names in a plan.
func portMark(name string) string { return "port " + name }

// marked returns the mark of an item.
func (m *manager) marked(what string) targetMark { return targetMark{m.applied[what]} }

// dropMarks forgets the marks of items that are not in the state: a user removed them.
func (m *manager) dropMarks(st store.State) {
	there := make(map[string]bool, len(m.applied))
	for _, p := range st.Ports {
		there[portMark(p.Spec.Name)] = true
	}
	for _, h := range m.hosted {
		for _, is := range m.itemsOf(h) {
			there[is.ID()] = true
		}
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
	doc, err := m.format().Decode(req.Config.RawMessage)
	switch {
	case err != nil:
		return done, fail(api.CodeInvalid, "the configuration is not understood: %w", err)
	case !slices.Contains([]string{api.PruneNone, api.PruneApplied, api.PruneAll}, req.Prune):
		return done, fail(api.CodeInvalid, "there is no prune %q; use applied or all", req.Prune)
	case req.ConfirmS < 0 || req.ConfirmS > maxConfirm:
		return done, fail(api.CodeInvalid, "a confirmation within %d s is not possible; use 1 s to %d s, which is a week", req.ConfirmS, maxConfirm)
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
	ports map[string]*targetPort
	items map[string]*targetItem
	at    map[string]config.Path // of items
}

// read reads the parts of a document that mean the same on any switch. It may be called
// without the turn.
func (m *manager) read(doc config.Document) (r readDocument, problems []api.ConfigProblem) {
	r = readDocument{make(map[string]*targetPort), make(map[string]*targetItem), make(map[string]config.Path)}
	f := m.format()
	for name, p := range doc.Ports {
		at := config.At("ports", name)
		spec, err := f.Spec(name, p)
		if err != nil {
			problems = append(problems, problem(at, "port %s: %w", name, err))
			continue
		}
		r.ports[name] = &targetPort{targetMark{true}, spec.Kind, spec.Patch(), spec}
	}
	for i := range f.Sections {
		s := &f.Sections[i]
		of := m.hostedFeature(s.Key).Items
		for n, p := range doc.Items[s.Key] {
			item, err := readItem(of, p)
			if err != nil {
				problems = append(problems, problem(s.At(n, p), "%w", err))
				continue
			}
			id := item.ID()
			if r.items[id] != nil {
				problems = append(problems, problem(s.At(n, p), "%s is there twice", id))
				continue
			}
			r.items[id], r.at[id] = &targetItem{targetMark{true}, s.Key, setting.PatchOf(item), item}, s.At(n, p)
		}
	}
	return r, problems
}

// compile returns what a document asks of the switch as it is now.
func (m *manager) compile(doc config.Document, r readDocument, prune string) (w target, problems []api.ConfigProblem) {
	w = newTarget()
	w.Ports, w.Items = r.ports, r.items
	maps.Copy(w.Features, doc.Features)
	m.prune(w, doc, prune)

	after := m.settings
	if doc.Switch != nil {
		to, err := m.noSettings().merge(doc.Switch)
		if err != nil {
			problems = append(problems, problem("switch", "%w", err))
		}
		w.Switch = to.patch()
		after = to
	}
	now, coming := m.itemsNow(), make(map[string]bool) // coming: sections with an item that is new or another one
	for id, to := range w.Items {
		if to.item == nil {
			continue
		}
		is, was := now[id]
		stays := was && config.Same(is, to.Item)
		coming[to.Section] = coming[to.Section] || !stays
		ports, vlan := to.item.Needs()
		for _, name := range ports {
			if doc.Ports[name] != nil && w.Ports[name] == nil {
				continue // the port is a problem already
			}
			// An item that stays may lack what it lacks already: it takes part again once that is there.
			if lack := m.lacks(w, name, vlan); lack != "" && (!stays || m.lacks(newTarget(), name, vlan) == "") {
				problems = append(problems, problem(r.at[id], "%s: %s", id, lack))
			}
		}
	}
	for i, h := range m.hosted {
		if h.Items == nil || h.Items.Possible == nil || !coming[h.key()] {
			continue
		}
		if err := h.Items.Possible(after.features[i]); err != nil {
			problems = append(problems, problem(config.Path(h.key()), "%w", err))
		}
	}
	for name := range doc.Features {
		if h := m.hostedFeature(name); h == nil || h.Items != nil {
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
	for _, h := range m.hosted {
		for _, is := range m.itemsOf(h) {
			if w.Items[is.ID()] == nil && goes(is.ID()) {
				w.Items[is.ID()] = itemGoes(h)
			}
		}
	}
}

// lacks says what an item lacks of a port that it needs, as it will be: the port, or a VLAN unless that is 0.
func (m *manager) lacks(w target, name string, vlan uint16) string {
	is := m.ports[name]
	to, named := w.Ports[name]
	if to == nil && (named || is == nil) {
		return "there is no port " + name
	}
	var carried port.VLANSet
	if to != nil {
		carried = to.spec.Carried()
	} else {
		carried = is.vlans()
	}
	if vlan != 0 && (vlan > port.MaxVID || !carried.Has(vlan)) {
		return fmt.Sprintf("port %s does not carry VLAN %d; it carries %s", name, vlan, carried.String())
	}
	return ""
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
			m.foresee(&doc, w)
		}
		done.Config = m.asConfig(doc)
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
		m.pending = &pendingChange{By: o.by, Until: time.Now().Add(o.confirm).UTC(), Time: o.confirm, Undo: undo}
		// On disk before the first step: a daemon that is killed takes the change back.
		if err := m.save(); err != nil {
			m.pending = former
			return nil, fail(api.CodeFailed, "%w", err)
		}
	}
	if o.ends {
		m.pending = nil
	}
	var done []step
	back := func(err error) error {
		for _, s := range slices.Backward(done) {
			s.back()
			m.off(func() {})
		}
		m.pending = former
		m.saveNow()
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
	if err := m.save(); err != nil {
		m.leave(p, false)
		m.applied = marks
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
	for id, to := range w.Items {
		mark(id, to.Item != nil && to.Applied)
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
	doc := config.Document{
		Version: config.Version, Switch: m.kept.patch(),
		Ports: make(map[string]setting.Patch), Items: make(map[string][]setting.Patch),
	}
	specs := make([]port.Spec, 0, len(m.ports))
	for name, p := range m.ports {
		if p.unfit != nil {
			doc.Ports[name] = p.settings().With("kind", p.spec.Kind)
		} else {
			specs = append(specs, p.spec)
		}
	}
	for _, h := range m.hosted {
		for _, is := range m.itemsOf(h) {
			doc.Items[h.key()] = append(doc.Items[h.key()], setting.PatchOf(is))
		}
	}
	states := m.featuresAsked()
	for _, h := range m.hosted {
		if h.Items != nil {
			delete(states, h.key())
		}
	}
	if len(states) > 0 {
		doc.Features = states
	}
	return func() config.Document {
		for _, s := range specs {
			doc.Ports[s.Name] = config.Of(s)
		}
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

// foresee changes a document as a change would change the switch.
func (m *manager) foresee(doc *config.Document, w target) {
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
	for _, s := range m.format().Sections {
		changeItems(doc, w, s)
	}
	if len(w.Features) > 0 {
		doc.Features = overlay(doc.Features, w.Features)
	}
}

// changeItems changes the items of a section of a document.
func changeItems(doc *config.Document, w target, s config.Section) {
	all := make(map[string]setting.Patch)
	for _, p := range doc.Items[s.Key] {
		if _, id, err := s.Read(p); err == nil {
			all[id] = p
		}
	}
	for id, to := range w.Items {
		switch {
		case to.Section != s.Key:
		case to.Item == nil:
			delete(all, id)
		default:
			all[id] = to.Item
		}
	}
	delete(doc.Items, s.Key)
	for _, id := range slices.Sorted(maps.Keys(all)) {
		doc.Items[s.Key] = append(doc.Items[s.Key], all[id])
	}
}

func (m *manager) asConfig(doc config.Document) api.Config {
	b, err := m.format().Encode(doc)
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
