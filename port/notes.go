package port

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Notes hold what people and programs store with a port. The switch does not use them.
type Notes struct {
	Description string `json:"description,omitempty" arg:"TEXT" help:"a line for people"`
	Labels      Labels `json:"labels,omitempty" flag:"label" arg:"KEY=VALUE" help:"a label for programs; KEY= takes it off; can be given several times"`
}

// Labels map names to texts.
type Labels map[string]string

// Bounds of notes, so that a thousand ports fit into a request and a screen.
const (
	maxDescription = 255
	maxLabels      = 32
	maxLabelValue  = 255
)

var labelKey = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_./-]{0,61}[A-Za-z0-9])?$`)

// ReadFlags implements setting.FlagsReader.
func (Labels) ReadFlags(texts []string) (json.RawMessage, error) {
	change := make(map[string]*string)
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("%q is no label; write it as KEY=VALUE", text)
		}
		if _, twice := change[key]; twice {
			return nil, fmt.Errorf("label %q is given twice; give it once", key)
		}
		change[key] = nil
		if value != "" {
			change[key] = &value
		}
	}
	return json.Marshal(change)
}

// FlagText implements setting.FlagWriter.
func (Labels) FlagText(v any) string {
	labels, _ := v.(map[string]any)
	var all []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		all = append(all, fmt.Sprintf("%s=%v", key, labels[key]))
	}
	return strings.Join(all, " --label ")
}

// Check returns an error if n is invalid.
func (n *Notes) Check() error {
	if err := line("the description", n.Description, maxDescription); err != nil {
		return err
	}
	if len(n.Labels) > maxLabels {
		return fmt.Errorf("%d labels are too many; a port has at most %d", len(n.Labels), maxLabels)
	}
	for key, value := range n.Labels {
		if !labelKey.MatchString(key) {
			return fmt.Errorf("%q cannot be a label's name; use up to 63 letters, digits, '.', '_', '-' and '/'", key)
		}
		if err := line("label "+key, value, maxLabelValue); err != nil {
			return err
		}
	}
	return nil
}

// line returns an error unless text is one line of printable text.
func line(what, text string, limit int) error {
	if len(text) > limit {
		return fmt.Errorf("%s has %d bytes; write at most %d", what, len(text), limit)
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }); i >= 0 {
		return fmt.Errorf("%s has a character that cannot be printed at byte %d; write one line of text", what, i)
	}
	return nil
}
