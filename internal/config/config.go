// Package config is the declarative form of a switch: the ports, settings, static entries and
// mirrors it should have. Parse reads it from a YAML file and names every error with its line
// and column; YAML writes it; Schema describes it to editors. A Document as JSON is what the
// API takes. The package is a pure function of texts and of the settings that a program has,
// and may be used from any goroutine.
package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/vswitch/vswitch/internal/packet/pfilter"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
)

// Version is the version of the format.
const Version = 1

// Document says what a switch should have. A section that is absent (nil) is left alone; a port,
// mirror or entry that a section names is completely described, and one that no section names
// stays as it is unless the document is applied with pruning.
type Document struct {
	Version int `json:"version"`

	// Switch are the settings of the switch. Those it does not name are unset.
	Switch setting.Patch `json:"switch,omitzero"`

	// Ports are the settings of each port by its name, with its kind at the key kind.
	Ports map[string]setting.Patch `json:"ports,omitzero"`

	FDB     []Entry           `json:"fdb,omitzero"`
	Groups  []Group           `json:"groups,omitzero"`
	Mirrors map[string]Mirror `json:"mirrors,omitzero"`

	// Features is what features keep beside settings, by their names, in a form of their own.
	Features map[string]json.RawMessage `json:"features,omitzero"`
}

// Entry is a static or sticky entry of the forwarding database.
type Entry struct {
	MAC    port.MAC `json:"mac" arg:"MAC" help:"address of the station"`
	VLAN   uint16   `json:"vlan,omitempty" arg:"VID" max:"4094" min:"1" default:"1" help:"VLAN of the station"`
	Port   string   `json:"port" arg:"PORT" help:"port that leads to it"`
	Sticky bool     `json:"sticky,omitempty" help:"the entry ages; until then the station cannot move"`
}

// Group is a multicast group that always goes to a port.
type Group struct {
	Group netip.Addr `json:"group" arg:"ADDRESS" help:"IP address of the group"`
	VLAN  uint16     `json:"vlan,omitempty" arg:"VID" max:"4094" min:"1" default:"1" help:"VLAN of the group"`
	Port  string     `json:"port" arg:"PORT" help:"port that gets the group"`
}

// Mirror is api.Mirror without its name.
type Mirror struct {
	From      []string  `json:"from,omitempty" arg:"PORTS" help:"ports to copy from"`
	FromVLAN  string    `json:"from_vlan,omitempty" arg:"LIST" help:"VLANs to copy from, such as 10,20-29"`
	Direction Direction `json:"direction,omitempty" arg:"WHICH" default:"both" help:"copy frames that the source received (in), sent (out), or both"`
	To        string    `json:"to,omitempty" arg:"PORT" help:"port that copies leave by"`
	ToVLAN    uint16    `json:"to_vlan,omitempty" arg:"VID" max:"4094" min:"1" default:"none" help:"VLAN as whose frames copies leave"`
	SnapLen   int       `json:"snaplen,omitempty" arg:"BYTES" min:"14" default:"all" help:"copy the first bytes of each frame"`
	Filter    string    `json:"filter,omitempty" arg:"EXPR" default:"all" help:"copy the frames that the expression means"`
}

// maxMirrorName is the longest name of a mirror.
const maxMirrorName = 32

// Check returns an error if the mirror cannot be, whatever the ports are.
func (m Mirror) Check(name string) error {
	switch {
	case name == "" || len(name) > maxMirrorName || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '/' }):
		return fmt.Errorf("a mirror's name has 1 to %d characters, and neither spaces nor '/'", maxMirrorName)
	case m.From == nil && m.FromVLAN == "":
		return fmt.Errorf("mirror %s copies from somewhere; give from or from_vlan", name)
	case (m.To == "") == (m.ToVLAN == 0):
		return fmt.Errorf("mirror %s has one target; give to or to_vlan", name)
	}
	if m.FromVLAN != "" {
		if _, err := port.ParseVLANSet(m.FromVLAN); err != nil {
			return fmt.Errorf("mirror %s: %w", name, err)
		}
	}
	if m.Filter != "" {
		if _, err := pfilter.Compile(m.Filter); err != nil {
			return fmt.Errorf("mirror %s: %w", name, err)
		}
	}
	return nil
}

// Direction is which frames of its sources a mirror copies.
type Direction string

// Values implements setting.Enum.
func (Direction) Values() []string { return []string{"in", "out", "both"} }

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

	// Features are the names of the features that may keep something.
	Features []string
}

// Decode reads a Document from JSON. Its settings are not checked.
func Decode(b []byte) (d Document, err error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return Document{}, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return Document{}, errors.New("something follows the document")
	}
	return d, checkVersion(d.Version)
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

// read merges settings into a struct, whose type has the fields.
func read[T any](p setting.Patch) (T, error) {
	var zero T
	v, err := setting.Merge(zero, p)
	if err != nil {
		return zero, err
	}
	return v.(T), nil
}

// textual reports whether a field is text in JSON that may be written as a list.
func textual(f setting.Field) bool { return f.Type == reflect.TypeFor[port.VLANSet]() }
