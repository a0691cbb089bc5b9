package daemon

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/config"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/setting"
)

// Items of features in configurations: a feature whose Items are set keeps a list of them, which
// changes at once, after all ports.

// Sections returns the sections of configurations that are items of features.
func Sections(features []feature.Feature) (all []config.Section) {
	for _, f := range features {
		if f.Items != nil {
			all = append(all, config.Section{
				Key: keyOf(&f), Help: f.Items.Help, Fields: setting.Fields(f.Items.Zero), Required: f.Items.Required, Named: f.Items.Named,
				Read: func(p setting.Patch) (setting.Patch, string, error) {
					item, err := readItem(f.Items, p)
					if err != nil {
						return nil, "", err
					}
					return setting.PatchOf(item), item.ID(), nil
				},
			})
		}
	}
	return all
}

// ConfigSections returns the keys of what other features keep, as the section features of a
// configuration has them.
func ConfigSections(features []feature.Feature) (keys []string) {
	for _, f := range features {
		if f.Items == nil {
			keys = append(keys, keyOf(&f))
		}
	}
	return keys
}

// format is the form of the switch's configurations.
func (m *manager) format() config.Format {
	return config.Format{Ports: m.kinds, Sections: Sections(m.featureList())}
}

// readItem reads an item with its defaults.
func readItem(of *feature.Items, p setting.Patch) (feature.Item, error) {
	rest := maps.Clone(p)
	v, err := setting.Merge(of.Zero, rest)
	if err != nil {
		return nil, err
	}
	for _, key := range rest.Keys() {
		return nil, fmt.Errorf("there is no setting %q", key)
	}
	item := v.(feature.Item)
	return item, item.Check()
}

// items returns the items that the feature keeps; nil: it has none.
func (h *hosted) items() (all []feature.Item, err error) {
	if h.Items == nil {
		return nil, nil
	}
	b, err := h.state()
	if err != nil || b == nil {
		return nil, err
	}
	if all, err = itemsIn(b, h.Items); err != nil {
		return nil, fmt.Errorf("%s: %w", h.key(), err)
	}
	return all, nil
}

// itemsIn returns the items in what a feature keeps.
func itemsIn(state json.RawMessage, of *feature.Items) (all []feature.Item, err error) {
	list := reflect.New(reflect.SliceOf(reflect.TypeOf(of.Zero)))
	if err := json.Unmarshal(state, list.Interface()); err != nil {
		return nil, err
	}
	for i := range list.Elem().Len() {
		all = append(all, list.Elem().Index(i).Interface().(feature.Item))
	}
	slices.SortFunc(all, func(a, b feature.Item) int { return strings.Compare(a.ID(), b.ID()) })
	return all, nil
}

// logOrphans says what of a state the switch will not have: items go with their ports, so those of
// ports that are not in it have nothing to be restored to.
func logOrphans(st store.State, features []feature.Feature, log *slog.Logger) {
	there := make(map[string]bool)
	for _, p := range st.Ports {
		there[p.Spec.Name] = true
	}
	for _, f := range features {
		state := st.Sections[keyOf(&f)]
		if f.Items == nil || !f.Items.PortBound || state == nil {
			continue
		}
		items, err := itemsIn(state, f.Items)
		if err != nil {
			continue // the feature says so, and does not start
		}
		for _, is := range items {
			ports, _ := is.Needs()
			for _, name := range ports {
				if !there[name] {
					log.Warn("left out of the state: its port is not there", "what", is.ID(), "port", name)
				}
			}
		}
	}
}

// itemsOf returns the items of a feature.
func (m *manager) itemsOf(h *hosted) []feature.Item {
	all, err := h.items()
	if err != nil {
		m.log.Error("a part of the configuration cannot be read", "part", h.key(), "error", err)
	}
	return all
}

// itemsNow returns the items of all features by their IDs.
func (m *manager) itemsNow() map[string]setting.Patch {
	all := make(map[string]setting.Patch)
	for _, h := range m.hosted {
		if h.Items == nil {
			continue
		}
		for _, is := range m.itemsOf(h) {
			all[is.ID()] = setting.PatchOf(is)
		}
	}
	return all
}

// targetItem is what becomes of an item.
type targetItem struct {
	targetMark
	Section string        `json:"section"`
	Item    setting.Patch `json:"item"` // null: it goes

	item feature.Item // what Item was read as; nil: not yet, or it goes
}

func itemGoes(h *hosted) *targetItem { return &targetItem{Section: h.key()} }

// itemNow is what an item is now, for what undoes its change.
func (m *manager) itemNow(h *hosted, is feature.Item) *targetItem {
	return &targetItem{m.marked(is.ID()), h.key(), setting.PatchOf(is), is}
}

// goWithPort has the items of a port go with it that are bound to it.
func (m *manager) goWithPort(w target, name string) {
	for _, h := range m.hosted {
		if h.Items == nil || !h.Items.PortBound {
			continue
		}
		for _, is := range m.itemsOf(h) {
			ports, _ := is.Needs()
			if _, named := w.Items[is.ID()]; !named && slices.Contains(ports, name) {
				w.Items[is.ID()] = itemGoes(h)
			}
		}
	}
}

// planItems plans the items of a feature. They change at once, after all ports: a port that is
// made again loses those bound to it meanwhile.
func (m *manager) planItems(p *plan, w target, h *hosted) {
	wanted := make(map[string]*targetItem)
	for id, to := range w.Items {
		if to.Section == h.key() {
			wanted[id] = to
		}
	}
	if len(wanted) == 0 && len(p.replaced) == 0 {
		return
	}
	at := config.Path(h.key())
	from, err := h.state()
	if err != nil {
		p.problems = append(p.problems, problem(at, "%s: %w", h.key(), err))
		return
	}
	all := make(map[string]feature.Item)
	for _, is := range m.itemsOf(h) {
		all[is.ID()] = is
	}
	var steps []api.ConfigStep
	for _, id := range slices.Sorted(maps.Keys(wanted)) {
		to := wanted[id]
		if to.Item != nil && to.item == nil {
			if to.item, err = readItem(h.Items, to.Item); err != nil {
				p.problems = append(p.problems, problem(at, "%s: %w", id, err))
				continue
			}
		}
		is, was := all[id]
		now := itemGoes(h)
		if was {
			now = m.itemNow(h, is)
		}
		s := api.ConfigStep{What: id}
		switch {
		case to.item == nil && !was:
			continue
		case to.item == nil:
			s.Change, s.How = changeRemove, is.Words()
			delete(all, id)
		case was && config.Same(now.Item, to.Item):
			if now.Applied != to.Applied {
				p.undo.Items[id] = now
			}
			continue
		default:
			s.Change, s.How = changeAdd, to.item.Words()
			if was {
				s.Change, s.How = changeSet, is.Words()+" → "+s.How
			}
			all[id] = to.item
		}
		p.undo.Items[id] = now
		steps = append(steps, s)
	}
	if len(steps) == 0 && len(p.replaced) == 0 {
		return
	}
	m.planList(p, h, steps, from, listJSON(all))
}

// planList plans that a feature has another list.
func (m *manager) planList(p *plan, h *hosted, steps []api.ConfigStep, from, to json.RawMessage) {
	give := func(list json.RawMessage) error {
		if now, err := h.state(); err == nil && sameJSON(now, list) {
			return nil
		}
		return m.giveFeature(h, list, from)
	}
	back := func() {
		if err := give(from); err != nil {
			m.log.Error("taking back a change", "of", h.key(), "error", err)
		}
	}
	at := config.Path(h.key())
	for _, s := range steps {
		p.steps = append(p.steps, step{s, at, func() error { return nil }, func() {}, false})
	}
	what := api.ConfigStep{What: h.key()}
	p.steps = append(p.steps, step{what, at, func() error { return give(to) }, func() {}, true})
	// Taking back ends with the list, since ports that go take their part of it along.
	p.steps = slices.Insert(p.steps, 0, step{what, at, func() error { return nil }, back, true})
}

// listJSON returns the items as a feature keeps them.
func listJSON(all map[string]feature.Item) json.RawMessage {
	if len(all) == 0 {
		return nil // features keep nothing then
	}
	list := make([]feature.Item, 0, len(all))
	for _, id := range slices.Sorted(maps.Keys(all)) {
		list = append(list, all[id])
	}
	b, err := json.Marshal(list)
	if err != nil {
		panic(err) // cannot fail: each was read from JSON
	}
	return b
}
