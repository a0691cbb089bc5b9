package port

import (
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

// Setting is one setting of ports, and the kinds that have it.
type Setting struct {
	setting.Field
	Kinds []string // nil: all
}

// Settings returns the settings of all kinds, then those of every port. A setting that
// several kinds share appears once.
func (ks Kinds) Settings() (all []Setting) {
	for _, k := range ks {
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
	for _, f := range setting.Fields(Policy{}) {
		all = append(all, Setting{f, nil})
	}
	return all
}

// Spec makes and checks the spec of a new port. It keeps the settings of a kind that is
// not among ks as they are: another build wrote them.
func (ks Kinds) Spec(name, kind string, p setting.Patch) (Spec, error) {
	s, err := ks.Read(name, kind, p)
	if err != nil {
		return Spec{}, err
	}
	return s, ks.check(s)
}

// Read is Spec with fewer checks: it checks each setting by itself, but neither the name
// nor the combination of settings, which can depend on the host. If only the Policy is
// wrong, the Spec returned with the error has the kind's settings and no Policy.
func (ks Kinds) Read(name, kind string, p setting.Patch) (Spec, error) {
	s := Spec{Name: name, Kind: kind}
	if k := ks.Find(kind); k != nil {
		s.Settings = k.Describe().Settings
	}
	return ks.apply(s, p)
}

// Merge returns the checked spec of a port with a patch applied. It does not change the
// patch.
func (ks Kinds) Merge(s Spec, p setting.Patch) (Spec, error) {
	to, err := ks.apply(s, p)
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
	return to, ks.check(to)
}

// Differences says in which settings of a patch a port differs from it, in flags.
func (ks Kinds) Differences(s Spec, p setting.Patch) (all []string, err error) {
	to, err := ks.apply(s, p)
	if err != nil {
		return nil, err
	}
	for _, pair := range [][2]any{{s.Settings, to.Settings}, {s.Policy, to.Policy}} {
		if pair[0] == nil {
			continue
		}
		for _, f := range setting.Fields(pair[0]) {
			if !reflect.DeepEqual(f.Get(pair[0]), f.Get(pair[1])) {
				all = append(all, fmt.Sprintf("--%s is %s, not %s", f.Flag, text(f, pair[0]), text(f, pair[1])))
			}
		}
	}
	return all, nil
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
func (ks Kinds) apply(s Spec, p setting.Patch) (Spec, error) {
	rest := setting.Patch{}
	rest.Add(p)
	policy, wrong := setting.Merge(s.Policy, rest)
	if ks.Find(s.Kind) == nil {
		s.Settings = rest
	} else if s.Settings != nil {
		var err error
		if s.Settings, err = setting.Merge(s.Settings, rest); err != nil {
			return Spec{}, err
		}
	}
	if wrong != nil {
		s.Policy = Policy{}
		return s, wrong
	}
	s.Policy = policy.(Policy)
	if ks.Find(s.Kind) == nil {
		return s, nil
	}
	for _, key := range rest.Keys() {
		return Spec{}, ks.lacks(s.Kind, key)
	}
	return s, nil
}

func (ks Kinds) check(s Spec) error {
	if err := CheckName(s.Name); err != nil {
		return err
	}
	if k := ks.Find(s.Kind); k != nil {
		if err := k.Check(s); err != nil {
			return err
		}
	}
	return s.Policy.Check()
}

// lacks returns the error for a setting that a kind does not have; it names those that do.
func (ks Kinds) lacks(kind, key string) error {
	for _, s := range ks.Settings() {
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

// Check returns an error if the kinds themselves conflict, such as by keys or flags of
// settings. A program's composition root calls it once.
func (ks Kinds) Check() error {
	var errs []error
	names := make(map[string]bool)
	for _, k := range ks {
		if names[k.Name()] {
			errs = append(errs, fmt.Errorf("two kinds are called %s", k.Name()))
		}
		names[k.Name()] = true
	}
	byKey := make(map[string]setting.Field)
	byFlag := make(map[string]string)
	for _, k := range ks {
		var fields []setting.Field
		if of := k.Describe().Settings; of != nil {
			fields = setting.Fields(of)
		}
		for _, f := range append(fields, setting.Fields(Policy{})...) {
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
