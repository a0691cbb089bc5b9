package setting

import (
	"cmp"
	"encoding/json"
	"reflect"
)

// Schema is the JSON Schema of one setting.
type Schema struct {
	Type        string   `json:"type"`
	Enum        []string `json:"enum,omitempty"`
	Minimum     *int64   `json:"minimum,omitempty"`
	Maximum     *uint64  `json:"maximum,omitempty"`
	Items       *Schema  `json:"items,omitempty"`
	Values      *Schema  `json:"additionalProperties,omitempty"`
	Description string   `json:"description,omitempty"`
}

// Schema describes the setting's JSON.
func (s *Field) Schema() Schema {
	d := cmp.Or(s.schema, s.Help)
	if s.Default != "" && s.schema == "" {
		d += "; default: " + s.Default
	}
	if s.Fixed {
		d += "; fixed when it is made"
	}
	out := schemaOf(s.Type)
	out.Description = d
	switch {
	case out.Type == "integer":
		if s.Min >= 0 {
			out.Minimum = new(int64) // 0 unsets it, whatever Min is
		}
		if s.bounded {
			out.Maximum = &s.Max
		}
	case out.Type == "string" && s.Values != nil:
		out.Enum = append([]string{""}, s.Values...)
	case out.Items != nil && s.Values != nil:
		out.Items.Enum = s.Values
	}
	return out
}

// schemaOf derives the JSON type of a Go type from its zero value's JSON.
func schemaOf(t reflect.Type) Schema {
	if t.Kind() == reflect.Pointer {
		return schemaOf(t.Elem())
	}
	if t.Kind() == reflect.Slice {
		items := schemaOf(t.Elem())
		return Schema{Type: "array", Items: &items}
	}
	if t.Kind() == reflect.Map {
		values := schemaOf(t.Elem())
		return Schema{Type: "object", Values: &values}
	}
	b, err := json.Marshal(reflect.Zero(t).Interface())
	if err != nil || len(b) == 0 {
		panic("setting: " + t.String() + " has no JSON")
	}
	switch b[0] {
	case '"':
		return Schema{Type: "string"}
	case 't', 'f':
		return Schema{Type: "boolean"}
	case '{':
		return Schema{Type: "object"}
	}
	return Schema{Type: "integer"}
}
