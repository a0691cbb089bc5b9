package port

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/vswitch/vswitch/internal/setting"
)

// Kinds are the port kinds of a program, with the settings of each.
type Kinds []Kind

// Find returns the kind of that name, or nil if there is none.
func (ks Kinds) Find(name string) Kind {
	for _, k := range ks {
		if k.Name() == name {
			return k
		}
	}
	return nil
}

// Names returns the kinds' names in order.
func (ks Kinds) Names() (names []string) {
	for _, k := range ks {
		names = append(names, k.Name())
	}
	return names
}

// Catalog is what the ports of a program can be: their kinds, and the settings that the
// program's features add to every port.
type Catalog struct {
	Kinds
	Sections []any // the zero value of one settings struct each
}

// Setting is one setting of ports, and the kinds that have it.
type Setting struct {
	setting.Field
	Kinds []string // nil: all
}

// Settings returns the settings of all kinds, then those of every port. A setting that
// several kinds share appears once.
func (c Catalog) Settings() (all []Setting) {
	for _, k := range c.Kinds {
		d := k.Describe()
		if d.Settings == nil {
			continue
		}
		for _, f := range setting.Fields(d.Settings) {
			i := slices.IndexFunc(all, func(s Setting) bool { return s.Key == f.Key })
			if i < 0 {
				all = append(all, Setting{f, []string{k.Name()}})
				continue
			}
			all[i].Kinds = append(all[i].Kinds, k.Name())
			all[i].Min, all[i].Max = min(all[i].Min, f.Min), max(all[i].Max, f.Max)
		}
	}
	for _, f := range c.common() {
		all = append(all, Setting{f, nil})
	}
	return all
}

// common returns the settings that ports of every kind have.
func (c Catalog) common() []setting.Field {
	all := setting.Fields(Policy{})
	for _, s := range c.Sections {
		all = append(all, setting.Fields(s)...)
	}
	return all
}

// Spec makes and checks the spec of a new port. It keeps the settings of a kind that is
// not among ks as they are: another build wrote them.
func (c Catalog) Spec(name, kind string, p setting.Patch) (Spec, error) {
	s, err := c.Read(name, kind, p)
	if err != nil {
		return Spec{}, err
	}
	return s, c.check(s)
}

// Read is Spec with fewer checks: it checks each setting by itself, but neither the name
// nor the combination of settings, which can depend on the host. If only settings that all
// kinds have are wrong, the Spec returned with the error has the kind's settings and none of
// those.
func (c Catalog) Read(name, kind string, p setting.Patch) (Spec, error) {
	s := Spec{Name: name, Kind: kind, Sections: c.Sections}
	if k := c.Find(kind); k != nil {
		s.Settings = k.Describe().Settings
	}
	return c.apply(s, p)
}

// Merge returns the checked spec of a port with a patch applied. It does not change the
// patch.
func (c Catalog) Merge(s Spec, p setting.Patch) (Spec, error) {
	to, err := c.apply(s, p)
	if err != nil {
		return Spec{}, err
	}
	if s.Settings != nil {
		for _, f := range setting.Fields(s.Settings) {
			if f.Fixed && !reflect.DeepEqual(f.Get(s.Settings), f.Get(to.Settings)) {
				return Spec{}, fmt.Errorf("--%s is set when the port is added; delete the port and add it again", f.Flag)
			}
		}
	}
	return to, c.check(to)
}

// Differences says in which settings of a patch a port differs from it, in flags.
func (c Catalog) Differences(s Spec, p setting.Patch) (all []string, err error) {
	to, err := c.apply(s, p)
	if err != nil {
		return nil, err
	}
	for _, d := range c.Changes(s, to) {
		all = append(all, fmt.Sprintf("--%s is %s, not %s", d.Flag, d.From, d.To))
	}
	return all, nil
}

// Change is a setting that differs between two specs, with its values as its flag takes them.
type Change struct {
	setting.Field
	From, To string
}

// Changes returns in which settings two specs of one kind differ.
func (c Catalog) Changes(from, to Spec) (all []Change) {
	pairs := [][2]any{{from.Settings, to.Settings}, {from.Policy, to.Policy}}
	others := c.sectionsOf(to)
	for i, of := range c.sectionsOf(from) {
		pairs = append(pairs, [2]any{of, others[i]})
	}
	for _, pair := range pairs {
		if pair[0] == nil {
			continue
		}
		for _, f := range setting.Fields(pair[0]) {
			if !reflect.DeepEqual(f.Get(pair[0]), f.Get(pair[1])) {
				all = append(all, Change{f, text(f, pair[0]), text(f, pair[1])})
			}
		}
	}
	return all
}

// text is a setting of a struct as its flag takes it.
func text(f setting.Field, of any) string {
	if f.IsZero(of) {
		return "unset"
	}
	var v any
	b, err := json.Marshal(f.Get(of))
	if err != nil || json.Unmarshal(b, &v) != nil {
		return fmt.Sprint(f.Get(of))
	}
	return f.FlagText(v)
}

// apply merges a patch into a spec.
func (c Catalog) apply(s Spec, p setting.Patch) (Spec, error) {
	former, rest := s, setting.Patch{}
	rest.Add(p)
	policy, sections, wrong := c.applyCommon(s, rest)
	known := c.Find(s.Kind) != nil
	if !known {
		s.Settings = rest
	} else if s.Settings != nil {
		var err error
		if s.Settings, err = setting.Merge(s.Settings, rest); err != nil {
			return Spec{}, err
		}
	}
	s.Policy, s.Sections = policy, sections
	if wrong != nil || !known {
		return s, wrong
	}
	for _, key := range rest.Keys() {
		return Spec{}, c.lacks(s.Kind, key)
	}
	if complete := c.Find(s.Kind).Describe().Complete; complete != nil {
		complete(&s, former, func(key string) bool { _, ok := p[key]; return ok })
	}
	return s, nil
}

// sectionsOf returns a spec's sections, which are the zero ones if it was made by hand.
func (c Catalog) sectionsOf(s Spec) []any {
	if s.Sections == nil {
		return c.Sections
	}
	return s.Sections
}

// applyCommon merges those settings of a patch into a spec's that all kinds have, and takes
// them out of the patch. It returns none of them with an error.
func (c Catalog) applyCommon(s Spec, rest setting.Patch) (Policy, []any, error) {
	policy, wrong := setting.Merge(s.Policy, rest)
	var sections []any
	for _, of := range c.sectionsOf(s) {
		to, err := setting.Merge(of, rest)
		sections, wrong = append(sections, to), cmp.Or(wrong, err)
	}
	if wrong != nil {
		return Policy{}, c.Sections, wrong
	}
	return policy.(Policy), sections, nil
}

func (c Catalog) check(s Spec) error {
	if err := CheckName(s.Name); err != nil {
		return err
	}
	if k := c.Find(s.Kind); k != nil {
		if err := k.Check(s); err != nil {
			return err
		}
	}
	return s.CheckCommon()
}

// lacks returns the error for a setting that a kind does not have; it names those that do.
func (c Catalog) lacks(kind, key string) error {
	for _, s := range c.Settings() {
		if s.Key == key {
			return fmt.Errorf("a %s port has no --%s; that is a setting of %s ports", kind, s.Flag, list(s.Kinds))
		}
	}
	return fmt.Errorf("there is no setting %q; GET /v1/openapi.yaml lists those that exist", key)
}

// list joins names as in a sentence.
func list(names []string) string {
	if n := len(names); n > 1 {
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
	return strings.Join(names, "")
}

// Check returns an error if the kinds or sections conflict, such as by keys or flags of
// settings. A program's composition root calls it once.
func (c Catalog) Check() error {
	var errs []error
	names := make(map[string]bool)
	for _, k := range c.Kinds {
		if names[k.Name()] {
			errs = append(errs, fmt.Errorf("two kinds are called %s", k.Name()))
		}
		names[k.Name()] = true
	}
	byKey := make(map[string]setting.Field)
	byFlag := make(map[string]string)
	for _, k := range c.Kinds {
		var fields []setting.Field
		if of := k.Describe().Settings; of != nil {
			fields = setting.Fields(of)
		}
		for _, f := range append(fields, c.common()...) {
			if same, ok := byKey[f.Key]; ok && (same.Type != f.Type || same.Flag != f.Flag) {
				errs = append(errs, fmt.Errorf("the setting %s of %s ports differs from that of another kind", f.Key, k.Name()))
			}
			if key, ok := byFlag[f.Flag]; ok && key != f.Key {
				errs = append(errs, fmt.Errorf("the flag --%s stands for %s and for %s", f.Flag, key, f.Key))
			}
			if f.Key == "name" || f.Key == "kind" {
				errs = append(errs, fmt.Errorf("a setting of %s ports is called %s", k.Name(), f.Key))
			}
			byKey[f.Key], byFlag[f.Flag] = f, f.Key
		}
	}
	return errors.Join(errs...)
}
