package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
)

// Version is the format of state.json that this code writes, and the newest that it reads.
const Version = 1

// State is the content of state.json: what users requested, and what the switch needs to
// resume it.
type State struct {
	Version   int    `json:"version"`
	WrittenBy string `json:"written_by,omitempty"` // the version of vswitch

	Switch setting.Patch `json:"switch,omitempty"` // settings of the switch
	Ports  []Port        `json:"ports"`

	Applied []string `json:"applied,omitempty"` // what a configuration named
	Pending *Pending `json:"pending,omitempty"` // the change that waits for its confirmation

	// Leaving are ports that were there and will be removed once the state without them is on disk.
	Leaving []Port `json:"-"`

	// Sections are what features keep, by their names, beside the keys above.
	Sections map[string]json.RawMessage `json:"-"`
}

// MarshalJSON implements json.Marshaler.
func (st State) MarshalJSON() ([]byte, error) {
	type fields State
	b, err := json.Marshal(fields(st))
	if err != nil || len(st.Sections) == 0 {
		return b, err
	}
	sections, err := json.Marshal(st.Sections) // sorted
	return append(append(b[:len(b)-1], ','), sections[1:]...), err
}

// UnmarshalJSON implements json.Unmarshaler. It refuses unknown keys within what it knows.
func (st *State) UnmarshalJSON(b []byte) error {
	all := setting.Patch{}
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	known := map[string]any{
		"version": &st.Version, "written_by": &st.WrittenBy,
		"switch": &st.Switch, "ports": &st.Ports, "applied": &st.Applied, "pending": &st.Pending,
	}
	for key, to := range known {
		for other := range all {
			if other != key && strings.EqualFold(other, key) {
				return fmt.Errorf("json: unknown field %q", other)
			}
		}
		if text, ok := all[key]; ok {
			if other := setting.OtherCase(text, reflect.TypeOf(to).Elem()); other != "" {
				return fmt.Errorf("%s: json: unknown field %q", key, other)
			}
			d := json.NewDecoder(bytes.NewReader(text))
			d.DisallowUnknownFields()
			if err := d.Decode(to); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			delete(all, key)
		}
	}
	if len(all) > 0 {
		st.Sections = all
	}
	return nil
}

// Port is a port, and what its kind left at its device.
type Port struct {
	Spec  Spec       `json:"spec"`
	Trace port.Trace `json:"trace"`
}

// Spec is a port.Spec as one flat object. The kinds read its settings, which the state
// does not know; settings that a kind rejects stay in the state unchanged.
type Spec struct {
	Name, Kind string
	Settings   setting.Patch
}

// MarshalJSON implements json.Marshaler.
func (s Spec) MarshalJSON() ([]byte, error) {
	all := setting.Patch{}
	all.Add(s.Settings)
	all.Set("name", s.Name)
	all.Set("kind", s.Kind)
	return json.Marshal(all)
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *Spec) UnmarshalJSON(b []byte) error {
	var compact bytes.Buffer // without the file's indentation
	if err := json.Compact(&compact, b); err != nil {
		return err
	}
	if err := json.Unmarshal(compact.Bytes(), &s.Settings); err != nil {
		return err
	}
	return errors.Join(s.Settings.Take("name", &s.Name), s.Settings.Take("kind", &s.Kind))
}

// Pending is a change that is taken back unless a user confirms it.
type Pending struct {
	By    string          `json:"by"`
	Until time.Time       `json:"until"`
	TimeS int             `json:"time_s,omitempty"` // that it had in all; the clock may be another by now
	Undo  json.RawMessage `json:"undo"`             // the change that undoes it
}

// Parse parses a state and checks its consistency. Unknown content was written by
// another version, and the next save would lose it: that is an UnknownError.
func Parse(b []byte) (State, error) {
	var v struct {
		Version   int
		WrittenBy string `json:"written_by"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return State{}, inLine(b, setting.Plain(err))
	}
	switch {
	case v.Version > Version:
		return State{}, UnknownError(fmt.Sprintf("was written by %s in format %d, newer than format %d", writer(v.WrittenBy), v.Version, Version))
	case v.Version != Version:
		return State{}, fmt.Errorf("its version is %d, this vswitch reads %d", v.Version, Version)
	}
	if err := setting.CheckKeys(b); err != nil {
		return State{}, err
	}
	var st State
	if err := json.Unmarshal(b, &st); err != nil {
		if _, key, ok := strings.Cut(err.Error(), "json: unknown field "); ok {
			return State{}, UnknownKey(key, v.WrittenBy)
		}
		return State{}, setting.Plain(err)
	}
	seen := make(map[string]bool)
	for _, p := range st.Ports {
		if err := port.CheckName(p.Spec.Name); err != nil {
			return State{}, err
		}
		if seen[p.Spec.Name] {
			return State{}, fmt.Errorf("port %s is there twice", p.Spec.Name)
		}
		seen[p.Spec.Name] = true
	}
	return st, nil
}

// inLine says in which line of a document an error of its syntax is.
func inLine(b []byte, err error) error {
	var e *json.SyntaxError
	switch {
	case len(b) == 0:
		return errors.New("the file is empty")
	case errors.As(err, &e):
		before := b[:min(max(e.Offset-1, 0), int64(len(b)))]
		return fmt.Errorf("line %d: %w", 1+bytes.Count(before, []byte("\n")), err)
	}
	return err
}

// UnknownError says what this code does not know in a state.
type UnknownError string

func (e UnknownError) Error() string { return string(e) }

// writer names the vswitch that wrote a state.
func writer(version string) string {
	if version == "" {
		return "another vswitch"
	}
	return "vswitch " + version
}

// UnknownKey returns the error for a key that this program does not know, which vswitch of the given
// version wrote.
func UnknownKey(key, version string) UnknownError {
	return UnknownError(fmt.Sprintf("has the key %s, which %s wrote or a slip of the pen", key, writer(version)))
}

// RunTheOther returns the advice that goes with an UnknownError, program being the version of this
// vswitch.
func RunTheOther(program string) string {
	return fmt.Sprintf("this is vswitch %s: run the other one, or keep the state elsewhere with --state", program)
}
