package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/vswitch/vswitch/internal/setting"
)

// SchemaURL is where editors find the schema of the format.
const SchemaURL = "https://raw.githubusercontent.com/vswitch/vswitch/main/packaging/switch.schema.json"

// YAML writes a document as a file that Parse reads: one line for each port, entry and mirror,
// so that two of them differ in the lines that mean something else.
func (f Format) YAML(d Document) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# yaml-language-server: $schema=%s\nversion: %d\n", SchemaURL, Version)
	if d.Switch != nil {
		b.WriteString("switch:" + block(d.Switch, f.Switch))
	}
	if d.Ports != nil {
		b.WriteString("ports:")
		if len(d.Ports) == 0 {
			b.WriteString(" {}")
		}
		b.WriteByte('\n')
		fields := make(map[string][]setting.Field)
		for _, name := range slices.Sorted(maps.Keys(d.Ports)) {
			var kind string
			_ = json.Unmarshal(d.Ports[name]["kind"], &kind) // a kind is a text
			if fields[kind] == nil {
				fields[kind] = append([]setting.Field{kindField}, f.fieldsOf(kind)...)
			}
			fmt.Fprintf(&b, "  %s: %s\n", text(name), flow(d.Ports[name], fields[kind]))
		}
	}
	for i := range f.Sections {
		if s := &f.Sections[i]; d.Items[s.Key] != nil {
			s.write(&b, d.Items[s.Key])
		}
	}
	if len(d.Features) > 0 {
		b.WriteString("features:\n")
		for _, name := range slices.Sorted(maps.Keys(d.Features)) {
			fmt.Fprintf(&b, "  %s: %s\n", text(name), value(d.Features[name]))
		}
	}
	return b.Bytes()
}

// write writes a section of items.
func (s *Section) write(b *bytes.Buffer, items []setting.Patch) {
	fields := s.fields()
	b.WriteString(s.Key + ":")
	switch {
	case len(items) > 0:
		b.WriteByte('\n')
	case s.Named:
		b.WriteString(" {}\n")
	default:
		b.WriteString(" []\n")
	}
	for _, item := range items {
		if !s.Named {
			b.WriteString("  - " + flow(item, fields) + "\n")
			continue
		}
		rest := maps.Clone(item)
		delete(rest, nameKey)
		fmt.Fprintf(b, "  %s: %s\n", text(name(item)), flow(rest, fields))
	}
}

// block writes settings on lines of their own.
func block(p setting.Patch, fields []setting.Field) string {
	if len(p) == 0 {
		return " {}\n"
	}
	var b strings.Builder
	b.WriteByte('\n')
	for _, key := range ordered(p, fields) {
		b.WriteString("  " + key + ": " + value(p[key]) + "\n")
	}
	return b.String()
}

// flow writes settings on one line.
func flow(p setting.Patch, fields []setting.Field) string {
	var parts []string
	for _, key := range ordered(p, fields) {
		parts = append(parts, key+": "+value(p[key]))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// ordered returns the keys in the order of the fields, then the others.
func ordered(p setting.Patch, fields []setting.Field) (keys []string) {
	for _, f := range fields {
		if p[f.Key] != nil {
			keys = append(keys, f.Key)
		}
	}
	for _, key := range p.Keys() {
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// value writes JSON as a YAML value that stands in a flow collection.
func value(b json.RawMessage) string {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return "null" // cannot be: settings are JSON
	}
	return scalarOrFlow(v)
}

func scalarOrFlow(v any) string {
	switch v := v.(type) {
	case string:
		return text(v)
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			parts[i] = scalarOrFlow(e)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case map[string]any:
		var parts []string
		for _, key := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, text(key)+": "+scalarOrFlow(v[key]))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	if v == nil {
		return "null"
	}
	return fmt.Sprint(v)
}

// plain is a text that every reader of YAML takes as a text without quotes: a word that begins
// with a letter.
var plain = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_./-]*$`)

// text writes a text, in quotes unless it is surely taken as one without.
func text(s string) string {
	if plain.MatchString(s) && !slices.Contains(reserved, strings.ToLower(s)) {
		return s
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a text always has JSON
	return strings.TrimSuffix(b.String(), "\n")
}

// reserved are words that YAML 1.1 or 1.2 takes as something else than a text.
var reserved = []string{"true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf"}
