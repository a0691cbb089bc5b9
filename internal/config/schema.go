package config

import (
	"encoding/json"

	"github.com/vswitch/vswitch/internal/setting"
)

// node is a part of a JSON Schema.
type node map[string]any

// Schema returns the JSON Schema (draft 2020-12) of the format, for editors.
func (f Format) Schema() []byte {
	var everything []setting.Field
	for _, s := range f.Ports.Settings() {
		everything = append(everything, s.Field)
	}
	settings := object(everything)["properties"].(node)
	refer := func(fields []setting.Field) node {
		one := object(fields)
		for key := range one["properties"].(node) {
			one["properties"].(node)[key] = node{"$ref": "#/$defs/" + key}
		}
		return one
	}
	var kinds []any
	for _, k := range f.Ports.Kinds {
		one := refer(f.fieldsOf(k.Name()))
		one["description"] = k.Describe().Help
		kind := node{"const": k.Name()}
		if k.Name() == DefaultKind {
			kind["default"] = DefaultKind
			one["type"] = []string{"object", "null"}
		} else {
			one["required"] = []string{"kind"}
		}
		one["properties"].(node)["kind"] = kind
		kinds = append(kinds, one)
	}
	root := node{
		"$schema":              "https://json-schema.org/draft/2020-12/schema",
		"$id":                  SchemaURL,
		"title":                "vswitch configuration",
		"description":          "What a vswitch should have, as `vswitch apply` reads it",
		"type":                 "object",
		"required":             []string{"version"},
		"additionalProperties": false,
		"patternProperties":    node{"^x-": node{"description": "your own; vswitch does not read it"}},
		"$defs":                settings,
		"properties": node{
			"version":  node{"const": Version},
			"switch":   describe(object(f.Switch), "settings of the switch; those not named are unset"),
			"defaults": describe(refer(everything), "settings under those of each port whose kind has them"),
			"ports": node{
				"description":          "ports by name, each with all of its settings",
				"type":                 []string{"object", "null"},
				"additionalProperties": node{"anyOf": kinds},
			},
			"features": node{
				"description": "what features keep beside settings, by name",
				"type":        []string{"object", "null"},
			},
		},
	}
	for i := range f.Sections {
		root["properties"].(node)[f.Sections[i].Key] = f.Sections[i].schema()
	}
	b, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic(err) // a programming error
	}
	return append(b, '\n')
}

// object returns the schema of a mapping of settings.
func object(fields []setting.Field) node {
	properties := node{}
	for _, f := range fields {
		switch s := f.Schema(); {
		case textual(f):
			properties[f.Key] = node{
				"description": s.Description, "type": []string{"string", "integer", "array"},
				"items": node{"type": []string{"string", "integer"}},
			}
		case s.Type == "string" && s.Enum == nil: // 1000 is a user, too
			properties[f.Key] = node{"description": s.Description, "type": []string{"string", "number"}}
		default:
			properties[f.Key] = s
		}
	}
	return node{"type": []string{"object", "null"}, "additionalProperties": false, "properties": properties}
}

func describe(n node, text string) node {
	n["description"] = text
	return n
}

// schema returns the schema of a section.
func (s *Section) schema() node {
	one := object(s.fields())
	if s.Named {
		return node{"type": []string{"object", "null"}, "description": s.Help, "additionalProperties": one}
	}
	one["type"] = "object"
	one["required"] = s.Required
	return node{"type": []string{"array", "null"}, "description": s.Help, "items": one}
}
