package main

import (
	"cmp"
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/daemon"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
)

// openapi.yaml has the settings of ports and of the switch, and the routes of the features.
func TestOpenAPIIsGenerated(t *testing.T) {
	const path = "../../api/openapi.yaml"
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	types := make(goTypes)
	text := string(old)
	for _, part := range []struct {
		of, indent, text string
	}{
		{"routes of features", "  ", routes(features, types)},
		{"settings", "    ", settingSchemas()},
		{"types of features", "    ", types.schemas()},
		{"items of features", "        ", itemSchemas()},
	} {
		begin, end := "# Generated from the "+part.of+": begin\n", part.indent+"# Generated from the "+part.of+": end\n"
		head, rest, ok1 := strings.Cut(text, begin)
		_, tail, ok2 := strings.Cut(rest, end)
		if !ok1 || !ok2 {
			t.Fatalf("%s has no part for the %s", path, part.of)
		}
		text = head + begin + part.text + end + tail
	}
	generated(t, path, []byte(text))
}

func settingSchemas() string {
	var b strings.Builder
	b.WriteString("    PortSettings:\n      type: object\n      properties:\n")
	for _, s := range portCatalog().Settings() {
		fmt.Fprintf(&b, "        %s: %s\n", s.Key, schemaOf(s))
	}
	b.WriteString("    SwitchSettings:\n      type: object\n      properties:\n")
	for _, f := range switchFields() {
		fmt.Fprintf(&b, "        %s: %s\n", f.Key, flow(f.Schema()))
	}
	return b.String()
}

// itemSchemas writes the sections of configurations that are items of features.
func itemSchemas() string {
	var b strings.Builder
	for _, s := range daemon.Sections(features) {
		var properties []string
		for _, f := range s.Fields {
			if !s.Named || f.Key != "name" {
				properties = append(properties, f.Key+": "+flow(f.Schema()))
			}
		}
		item := "{type: object, properties: {" + strings.Join(properties, ", ") + "}}"
		if s.Named {
			fmt.Fprintf(&b, "        %s: {type: object, description: %q, additionalProperties: %s}\n", s.Key, s.Help, item)
		} else {
			fmt.Fprintf(&b, "        %s: {type: array, description: %q, items: %s}\n", s.Key, s.Help, item)
		}
	}
	return b.String()
}

func schemaOf(s port.Setting) string {
	schema := s.Schema()
	if s.Kinds != nil {
		schema.Description = strings.Join(s.Kinds, ", ") + ": " + schema.Description
	}
	return flow(schema)
}

// flow writes a schema on one line of YAML.
func flow(s setting.Schema) string {
	parts := []string{"type: " + s.Type}
	if s.Enum != nil {
		b, _ := json.Marshal(s.Enum)
		parts = append(parts, "enum: "+strings.ReplaceAll(string(b), ",", ", "))
	}
	if s.Minimum != nil {
		parts = append(parts, fmt.Sprintf("minimum: %d", *s.Minimum))
	}
	if s.Maximum != nil {
		parts = append(parts, fmt.Sprintf("maximum: %d", *s.Maximum))
	}
	if s.Items != nil {
		parts = append(parts, "items: "+flow(*s.Items))
	}
	if s.Values != nil {
		parts = append(parts, "additionalProperties: "+flow(*s.Values))
	}
	if s.Description != "" {
		parts = append(parts, fmt.Sprintf("description: %q", s.Description))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// routes writes the paths of the features' routes, and collects the types that they use.
func routes(all []feature.Feature, types goTypes) string {
	type call struct {
		feature.Route
		of string
	}
	paths := make(map[string][]call)
	var order []string
	for _, f := range all {
		for _, r := range f.Routes {
			if paths[r.Path] == nil {
				order = append(order, r.Path)
			}
			paths[r.Path] = append(paths[r.Path], call{r, f.Name})
		}
	}
	var b strings.Builder
	line := func(indent int, format string, args ...any) {
		fmt.Fprintf(&b, strings.Repeat("  ", indent)+format+"\n", args...)
	}
	for _, path := range order {
		line(1, "%s:", path)
		for _, r := range paths[path] {
			line(2, "%s:", strings.ToLower(r.Method))
			line(3, "summary: %q", r.Help)
			line(3, "operationId: %s", cmp.Or(r.ID, operation(r.Route)))
			var parameters []string
			for _, name := range inPath(path) {
				parameters = append(parameters, fmt.Sprintf("{name: %s, in: path, required: true, schema: {type: string}}", name))
			}
			if r.Query != nil {
				for _, f := range setting.Fields(r.Query) {
					schema := f.Schema()
					what := schema.Description
					schema.Description = ""
					parameters = append(parameters, fmt.Sprintf("{name: %s, in: query, description: %q, schema: %s}", f.Key, what, flow(schema)))
				}
			}
			if parameters != nil {
				line(3, "parameters:")
				for _, p := range parameters {
					line(4, "- %s", p)
				}
			}
			if r.Request != nil {
				line(3, "requestBody: {required: true, content: {application/json: {schema: %s}}}", types.ref(r.of, reflect.TypeOf(r.Request)))
			}
			line(3, "responses:")
			switch {
			case r.Type != "":
				line(4, `"200": {description: "the answer", content: {%q: {schema: {type: string}}}}`, r.Type)
			case r.Answer != nil:
				line(4, `"200": {description: "the answer", content: {application/json: {schema: %s}}}`, types.ref(r.of, reflect.TypeOf(r.Answer)))
			default:
				line(4, `"204": {$ref: "#/components/responses/Done"}`)
			}
			line(4, `default: {$ref: "#/components/responses/Error"}`)
		}
	}
	return b.String()
}

// operation names a route by its method and path: getGuardBindings.
func operation(r feature.Route) string {
	words := strings.FieldsFunc(strings.TrimPrefix(r.Path, "/v1"), func(c rune) bool { return strings.ContainsRune("/{}-_.", c) })
	for i, w := range words {
		words[i] = title(w)
	}
	return strings.ToLower(r.Method) + strings.Join(words, "")
}

// inPath returns the names of the parameters in a path.
func inPath(path string) (names []string) {
	for _, part := range strings.Split(path, "/") {
		if strings.HasPrefix(part, "{") {
			names = append(names, strings.Trim(part, "{}."))
		}
	}
	return names
}

// goTypes are the struct types whose schemas openapi.yaml needs, by the schemas' names.
type goTypes map[string]goType

type goType struct {
	of string // the feature
	t  reflect.Type
}

// ref returns the schema of a type of a feature, which for a struct is a reference.
func (g goTypes) ref(of string, t reflect.Type) string {
	switch {
	case t.Kind() == reflect.Pointer:
		return g.ref(of, t.Elem())
	case t == reflect.TypeFor[time.Time]():
		return "{type: string, format: date-time}"
	case t == reflect.TypeFor[json.RawMessage]():
		return "{}"
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return "{type: string}"
	}
	switch t.Kind() {
	case reflect.Slice:
		return "{type: array, items: " + g.ref(of, t.Elem()) + "}"
	case reflect.Map:
		return "{type: object, additionalProperties: " + g.ref(of, t.Elem()) + "}"
	case reflect.Struct:
		name := title(of) + title(t.Name())
		if t.PkgPath() == reflect.TypeFor[api.Error]().PkgPath() {
			name = t.Name() // the API's own
		}
		if _, ok := g[name]; !ok {
			g[name] = goType{of, t}
			for _, f := range reflect.VisibleFields(t) {
				if f.IsExported() && !f.Anonymous {
					g.ref(of, f.Type)
				}
			}
		}
		return fmt.Sprintf(`{$ref: "#/components/schemas/%s"}`, name)
	case reflect.String:
		return "{type: string}"
	case reflect.Bool:
		return "{type: boolean}"
	case reflect.Float32, reflect.Float64:
		return "{type: number}"
	case reflect.Interface:
		return "{}"
	}
	return "{type: integer}"
}

func title(word string) string { return strings.ToUpper(word[:1]) + word[1:] }

// schemas writes the schemas of all types. A field's tag help describes it.
func (g goTypes) schemas() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(g)) {
		fmt.Fprintf(&b, "    %s:\n      type: object\n", name)
		var required []string
		properties := ""
		for _, f := range reflect.VisibleFields(g[name].t) {
			key, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous || !f.IsExported() || key == "-" {
				continue
			}
			key = cmp.Or(key, f.Name)
			schema := g.ref(g[name].of, f.Type)
			if help := f.Tag.Get("help"); help != "" {
				schema = strings.Replace(fmt.Sprintf("%s, description: %q}", strings.TrimSuffix(schema, "}"), help), "{, ", "{", 1)
			}
			properties += fmt.Sprintf("        %s: %s\n", key, schema)
			if !strings.HasPrefix(options, "omit") {
				required = append(required, key)
			}
		}
		if required != nil {
			fmt.Fprintf(&b, "      required: [%s]\n", strings.Join(required, ", "))
		}
		if properties != "" {
			fmt.Fprintf(&b, "      properties:\n%s", properties)
		}
	}
	return b.String()
}
