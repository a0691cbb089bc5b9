package daemon

import (
	"encoding"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/api"
)

// openapi.yaml says what the server has: its routes, and the JSON of its types.

// without returns openapi.yaml without the parts generated from the features, which the
// command's tests hold to their sources.
func without(t *testing.T) string {
	t.Helper()
	text := string(api.OpenAPI)
	for _, of := range []string{"routes", "types", "items"} {
		head, rest, ok1 := strings.Cut(text, "# Generated from the "+of+" of features: begin\n")
		_, tail, ok2 := strings.Cut(rest, "# Generated from the "+of+" of features: end\n")
		if !ok1 || !ok2 {
			t.Fatalf("openapi.yaml has no part for the %s of features", of)
		}
		text = strings.TrimRight(head, " ") + tail
	}
	return text
}

func TestOpenAPIHasTheRoutes(t *testing.T) {
	doc := readYAML(t, without(t))
	var documented, served []string
	for path, item := range doc["paths"].(map[string]any) {
		for method := range item.(map[string]any) {
			if method != "parameters" {
				documented = append(documented, strings.ToUpper(method)+" "+path)
			}
		}
	}
	for _, r := range new(manager).routes() {
		served = append(served, r.method+" "+r.path)
	}
	slices.Sort(documented)
	slices.Sort(served)
	if diff := cmp.Diff(served, documented); diff != "" {
		t.Errorf("routes (-served +documented):\n%s", diff)
	}
}

func TestOpenAPIHasTheTypes(t *testing.T) {
	doc := readYAML(t, without(t))
	schemas := doc["components"].(map[string]any)["schemas"].(map[string]any)
	types := map[string]reflect.Type{
		"Port": reflect.TypeFor[api.Port](), "VLAN": reflect.TypeFor[api.VLAN](),
		"Counters": reflect.TypeFor[api.Counters](), "PortFastPath": reflect.TypeFor[api.PortFastPath](), "DropReason": reflect.TypeFor[api.DropReason](),
		"Member": reflect.TypeFor[api.Member](), "LACP": reflect.TypeFor[api.LACP](), "LACPPartner": reflect.TypeFor[api.LACPPartner](),
		"Switch": reflect.TypeFor[api.Switch](), "FDBInfo": reflect.TypeFor[api.FDBInfo](), "FastPath": reflect.TypeFor[api.FastPath](),
		"ApplyConfig": reflect.TypeFor[api.ApplyConfig](), "AppliedConfig": reflect.TypeFor[api.AppliedConfig](),
		"ConfigStep": reflect.TypeFor[api.ConfigStep](), "PendingConfig": reflect.TypeFor[api.PendingConfig](),
		"ConfigChange": reflect.TypeFor[api.ConfigChange](), "RollbackConfig": reflect.TypeFor[api.RollbackConfig](),
		"ConfigProblem": reflect.TypeFor[api.ConfigProblem](),
		"Error":         reflect.TypeFor[api.Error](),
	}
	// These are made of the settings, which the command that has the kinds of port knows.
	for _, name := range []string{"PortSettings", "SwitchSettings", "Spec", "AddPort", "Config"} {
		if schemas[name] == nil {
			t.Errorf("no schema %s", name)
		}
		delete(schemas, name)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(types)), slices.Sorted(maps.Keys(schemas))); diff != "" {
		t.Errorf("schemas (-types +documented):\n%s", diff)
	}
	// The one is the schema of Spec where it is a port's, the other where it is the switch's.
	schemas["Switch"].(map[string]any)["properties"].(map[string]any)["settings"] = map[string]any{"$ref": "#/components/schemas/Spec"}
	for name, typ := range types {
		schema, ok := schemas[name].(map[string]any)
		if !ok {
			continue
		}
		want := make(map[string]string)
		var required []string
		for _, f := range reflect.VisibleFields(typ) {
			key, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous {
				continue
			}
			want[key] = jsonType(f.Type)
			if !strings.HasPrefix(options, "omit") {
				required = append(required, key)
			}
		}
		got := make(map[string]string)
		for key, s := range schema["properties"].(map[string]any) {
			got[key] = schemaType(s.(map[string]any))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-type +documented):\n%s", name, diff)
		}
		var documented []string
		if list, ok := schema["required"].([]any); ok {
			for _, key := range list {
				documented = append(documented, key.(string))
			}
		}
		slices.Sort(required)
		slices.Sort(documented)
		if diff := cmp.Diff(required, documented); diff != "" {
			t.Errorf("%s: required (-type +documented):\n%s", name, diff)
		}
	}
}

// jsonType names the JSON of a Go type as a schema does.
func jsonType(t reflect.Type) string {
	if t == reflect.TypeFor[api.Spec]() {
		return "Spec"
	}
	if t == reflect.TypeFor[api.Config]() {
		return "Config"
	}
	if t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
		return "string"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return jsonType(t.Elem())
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Slice:
		return "array of " + jsonType(t.Elem())
	case reflect.Map:
		return "object of " + jsonType(t.Elem())
	case reflect.Struct:
		return t.Name()
	case reflect.Int, reflect.Int64, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "integer"
	case reflect.Float64:
		return "number"
	}
	return "unknown: " + t.String()
}

func schemaType(s map[string]any) string {
	if ref, ok := s["$ref"].(string); ok {
		return strings.TrimPrefix(ref, "#/components/schemas/")
	}
	switch s["type"] {
	case "array":
		return "array of " + schemaType(s["items"].(map[string]any))
	case "object":
		return "object of " + schemaType(s["additionalProperties"].(map[string]any))
	}
	return fmt.Sprint(s["type"])
}

// Every reference leads somewhere.
func TestOpenAPIReferences(t *testing.T) {
	doc := readYAML(t, string(api.OpenAPI))
	n := 0
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				n++
				at := any(doc)
				for _, key := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
					m, _ := at.(map[string]any)
					at = m[key]
				}
				if at == nil {
					t.Errorf("%s leads nowhere", ref)
				}
			}
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(doc)
	if n < 20 {
		t.Errorf("only %d references were found", n)
	}
}

// readYAML reads the part of YAML 1.2 that openapi.yaml keeps to: mappings by
// indentation, sequences of them, folded text (>-), flow collections on one line,
// and scalars that are all taken as text. What it does not know ends the test.
func readYAML(t *testing.T, text string) map[string]any {
	t.Helper()
	y := &yamlReader{t: t}
	for i, l := range strings.Split(text, "\n") {
		if s := strings.TrimSpace(l); s != "" && s[0] != '#' {
			y.lines = append(y.lines, yamlLine{i + 1, len(l) - len(strings.TrimLeft(l, " ")), s})
		}
	}
	m := y.mapping(0)
	if len(y.lines) > 0 {
		y.fail("is indented unlike the lines before")
	}
	return m
}

type yamlLine struct {
	number, indent int
	text           string
}

type yamlReader struct {
	t     *testing.T
	lines []yamlLine
	flow  string // what is left of a flow collection
}

func (y *yamlReader) fail(what string) {
	y.t.Helper()
	if len(y.lines) > 0 {
		y.t.Fatalf("openapi.yaml, line %d %s: %s", y.lines[0].number, what, y.lines[0].text)
	}
	y.t.Fatalf("openapi.yaml, at its end: %s", what)
}

// at reports whether the next line stands at indent.
func (y *yamlReader) at(indent int) bool { return len(y.lines) > 0 && y.lines[0].indent == indent }

func (y *yamlReader) mapping(indent int) map[string]any {
	m := make(map[string]any)
	for y.at(indent) && !strings.HasPrefix(y.lines[0].text, "- ") {
		key, value, ok := strings.Cut(y.lines[0].text, ":")
		if key = strings.Trim(key, `"`); !ok || m[key] != nil {
			y.fail("is no key, or one that was there before")
		}
		m[key] = y.value(indent, strings.TrimSpace(value))
	}
	return m
}

func (y *yamlReader) value(indent int, value string) any {
	switch {
	case value == ">-":
		y.lines = y.lines[1:]
		var words []string
		for len(y.lines) > 0 && y.lines[0].indent > indent {
			words = append(words, y.lines[0].text)
			y.lines = y.lines[1:]
		}
		return strings.Join(words, " ")
	case value != "":
		v := y.inline(value)
		y.lines = y.lines[1:]
		return v
	}
	y.lines = y.lines[1:]
	if len(y.lines) == 0 || y.lines[0].indent <= indent {
		y.fail("follows a key without a value")
	}
	indent = y.lines[0].indent
	if !strings.HasPrefix(y.lines[0].text, "- ") {
		return y.mapping(indent)
	}
	var list []any
	for y.at(indent) && strings.HasPrefix(y.lines[0].text, "- ") {
		item := strings.TrimPrefix(y.lines[0].text, "- ")
		if item[0] == '{' {
			list = append(list, y.inline(item))
			y.lines = y.lines[1:]
			continue
		}
		y.lines[0].text = item
		y.lines[0].indent = indent + 2
		list = append(list, y.mapping(indent+2))
	}
	return list
}

// inline reads a value that stands on one line.
func (y *yamlReader) inline(s string) any {
	if s[0] != '{' && s[0] != '[' && s[0] != '"' {
		if strings.Contains(s, ": ") || strings.Contains(s, " #") || strings.ContainsAny(s[:1], "&*!|>%@`'") {
			y.fail("has a value that must be quoted")
		}
		return s
	}
	y.flow = s
	v := y.flowValue()
	if y.flow != "" {
		y.fail("goes on after its value")
	}
	return v
}

func (y *yamlReader) flowValue() any {
	switch y.flow[0] {
	case '"':
		s, rest, ok := strings.Cut(y.flow[1:], `"`)
		if !ok {
			y.fail("has a quote without an end")
		}
		y.flow = rest
		return s
	case '[':
		list := []any{}
		for y.next('[', ']') {
			list = append(list, y.flowValue())
		}
		return list
	case '{':
		m := make(map[string]any)
		for y.next('{', '}') {
			key, rest, ok := strings.Cut(y.flow, ": ")
			if !ok || m[key] != nil {
				y.fail("has no key, or one twice")
			}
			y.flow = rest
			m[key] = y.flowValue()
		}
		return m
	}
	end := strings.IndexAny(y.flow, ",]}")
	if end < 0 {
		y.fail("has a collection without an end")
	}
	s := y.flow[:end]
	if strings.Contains(s, ": ") {
		y.fail("has a value that must be quoted")
	}
	y.flow = y.flow[end:]
	return s
}

// next moves to the next entry of a flow collection; false at its end.
func (y *yamlReader) next(open, end byte) bool {
	if y.flow == "" {
		y.fail("has a collection without an end")
	}
	switch c := y.flow[0]; c {
	case open, ',':
		y.flow = strings.TrimLeft(y.flow[1:], " ")
		if y.flow != "" && y.flow[0] == end {
			y.flow = y.flow[1:]
			return false
		}
		return y.flow != ""
	case end:
		y.flow = y.flow[1:]
		return false
	default:
		y.fail(fmt.Sprintf("has %q where a collection goes on", c))
		return false
	}
}
