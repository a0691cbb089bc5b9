package port

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/vswitch/vswitch/internal/setting"
)

// Spec is the desired state of one port: its name, its kind, and the settings of the kind
// and of the switch. As JSON it is one flat object; Kinds.Spec reads it.
type Spec struct {
	Name string
	Kind string

	// Settings are the kind's settings, a struct of the type in its Description. For a
	// kind that this build does not have, they are the setting.Patch that was read.
	Settings any

	// Policy says what the switch does with the port's frames, whatever the kind.
	Policy

	// Sections are the settings of the program's features, in the order of the Catalog's.
	Sections []any
}

// MarshalJSON implements json.Marshaler.
func (s Spec) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	for _, part := range append([]any{struct {
		Name string `json:"name"`
		Kind string `json:"kind"`
	}{s.Name, s.Kind}, s.Settings, s.Policy}, s.Sections...) {
		if part == nil {
			continue
		}
		text, err := json.Marshal(part)
		if err != nil {
			return nil, err
		}
		switch fields := text[1 : len(text)-1]; {
		case b.Len() == 0:
			b.WriteByte('{')
			b.Write(fields)
		case len(fields) > 0:
			b.WriteByte(',')
			b.Write(fields)
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// Patch returns the spec's settings, without its name and kind.
func (s Spec) Patch() setting.Patch {
	p, ok := s.Settings.(setting.Patch)
	if !ok {
		p = setting.PatchOf(s.Settings)
	}
	all := setting.PatchOf(s.Policy)
	for _, of := range s.Sections {
		all.Add(setting.PatchOf(of))
	}
	all.Add(p)
	return all
}

// SettingsOf returns the kind's settings in a spec as a T; the zero T if there are none.
func SettingsOf[T any](s Spec) T {
	t, _ := s.Settings.(T)
	return t
}

// Section is implemented by settings of a feature that can contradict each other or the
// port's other settings.
type Section interface {
	// Check says what is wrong and how to fix it.
	Check(*Spec) error
}

// CheckCommon returns an error if settings that ports of all kinds have contradict each
// other.
func (s *Spec) CheckCommon() error {
	if err := s.Policy.Check(); err != nil {
		return err
	}
	for _, of := range s.Sections {
		if section, ok := of.(Section); ok {
			if err := section.Check(s); err != nil {
				return err
			}
		}
	}
	return nil
}

// SectionOf returns the settings of a feature in a spec as a T; the zero T if there are none.
func SectionOf[T any](s *Spec) (t T) {
	for _, of := range s.Sections {
		if t, ok := of.(T); ok {
			return t
		}
	}
	return t
}

// MaxName is the longest name of a network interface in bytes (IFNAMSIZ-1).
const MaxName = 15

// CheckName returns an error unless name can be an interface name, by the rules of the
// kernel's dev_valid_name, that also goes into a list with commas, a command line and QEMU's flags as
// it is. The error says what to write instead.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("a port needs a name; write one of 1 to %d characters, such as vm0", MaxName)
	case len(name) > MaxName:
		return fmt.Errorf("port name %q has %d bytes; an interface name has at most %d, write a shorter one", name, len(name), MaxName)
	case name == "." || name == "..", name == "all" || name == "default":
		// /proc/sys/net uses the last two names for all interfaces and for new ones.
		return fmt.Errorf("port name %q is not allowed; write one such as vm0", name)
	}
	const others = "-_.+@"
	for _, r := range name {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(others, r)) {
			return fmt.Errorf("port name %q has %q in it; use letters, digits and any of %s", name, string(r), others)
		}
	}
	if name[0] == '-' {
		return fmt.Errorf("port name %q begins like a flag; write one such as vm0", name)
	}
	return nil
}
