// Package config is the declarative form of a switch: the ports, settings and items of
// features it should have. Parse reads it from a YAML file and names every error with its line
// and column; YAML writes it; Schema describes it to editors. A Document as JSON is what the
// API takes. The package is a pure function of texts and of the settings that a program has,
// and may be used from any goroutine.
package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
)

// Version is the version of the format.
const Version = 1

// Document says what a switch should have. A section that is absent (nil) is left alone; a port
// or item that a section names is completely described, and one that no section names stays as
// it is unless the document is applied with pruning. Format.Encode writes its JSON.
type Document struct {
	Version int `json:"version"`

	// Switch are the settings of the switch. Those it does not name are unset.
	Switch setting.Patch `json:"switch,omitzero"`

	// Ports are the settings of each port by its name, with its kind at the key kind.
	Ports map[string]setting.Patch `json:"ports,omitzero"`

	// Items are the items of each section, by its key.
	Items map[string][]setting.Patch `json:"-"`

	// Features is what features keep beside settings and items, by their names, in a form of
	// their own.
	Features map[string]json.RawMessage `json:"features,omitzero"`
}

// Path names a place in a document, such as ports/vm0/access. No name has a slash in it.
type Path string

// At returns the path of a part of a document.
func At(parts ...any) Path {
	texts := make([]string, len(parts))
	for i, p := range parts {
		texts[i] = fmt.Sprint(p)
	}
	return Path(strings.Join(texts, "/"))
}

// DefaultKind is the kind of a port that names none, as on the command line.
const DefaultKind = "tap"

// Format is a program's form of documents: the settings that its kinds of port and its switch
// have.
type Format struct {
	Ports  port.Catalog
	Switch []setting.Field

	// CheckSwitch returns an error if settings of the switch contradict each other.
	CheckSwitch func(setting.Patch) error

	Sections []Section

	// Features are the names of the features that may keep something else.
	Features []string
}

func checkVersion(v int) error {
	if v != Version {
		return fmt.Errorf("version %d is not known; this vswitch reads version %d", v, Version)
	}
	return nil
}

// Spec returns the spec of a port of a document.
func (f Format) Spec(name string, p setting.Patch) (port.Spec, error) {
	all := setting.Patch{}
	all.Add(p)
	kind := DefaultKind
	if err := all.Take("kind", &kind); err != nil {
		return port.Spec{}, err
	}
	if f.Ports.Find(kind) == nil {
		return port.Spec{}, fmt.Errorf("there is no port kind %q; use one of %s", kind, strings.Join(f.Ports.Names(), ", "))
	}
	return f.Ports.Spec(name, kind, all)
}

// Of returns a port's spec as a document has it.
func Of(s port.Spec) setting.Patch {
	p := s.Patch()
	p.Set("kind", s.Kind)
	return p
}

// Same reports whether two patches have the same keys and values.
func Same(a, b setting.Patch) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a.Keys(), func(key string) bool {
		return string(a[key]) != string(b[key])
	})
}

// fieldsOf returns the settings that a port of a kind can have.
func (f Format) fieldsOf(kind string) (all []setting.Field) {
	for _, s := range f.Ports.Settings() {
		if s.Kinds == nil || slices.Contains(s.Kinds, kind) {
			all = append(all, s.Field)
		}
	}
	return all
}

// lacking returns the error for a key that settings do not have.
func lacking(key string, fields []setting.Field, kinds []string) error {
	text := fmt.Sprintf("there is no setting %q", key)
	if len(kinds) > 0 {
		return fmt.Errorf("%q is a setting of %s ports", key, strings.Join(kinds, ", "))
	}
	keys := make([]string, len(fields))
	for i, s := range fields {
		keys[i] = s.Key
		if s.Flag == strings.ReplaceAll(key, "_", "-") {
			return fmt.Errorf("%s; did you mean %s?", text, s.Key)
		}
	}
	if near := closest(key, keys); near != "" {
		return fmt.Errorf("%s; did you mean %s?", text, near)
	}
	return errors.New(text)
}

// textual reports whether a field is text in JSON that may be written as a list.
func textual(f setting.Field) bool { return f.Type == reflect.TypeFor[port.VLANSet]() }
