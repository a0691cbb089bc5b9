package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
)

var update = flag.Bool("update", false, "write the generated files anew")

// generated holds a file to what it should be, or writes it with -update.
func generated(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil && !*update {
		t.Fatal(err)
	}
	if bytes.Equal(got, want) {
		return
	}
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("%s is not what its sources make; run `go generate ./cmd/vswitch` (-is +should be):\n%s",
		path, cmp.Diff(string(got), string(want)))
}

// openapi.yaml has the settings of ports as the kinds describe them.
func TestOpenAPIHasTheSettings(t *testing.T) {
	const path, begin, end = "../../api/openapi.yaml", ": begin\n", "    # Generated: end\n"
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok1 := strings.Cut(string(old), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no part that is generated", path)
	}
	var b strings.Builder
	b.WriteString(head + begin + "    PortSettings:\n      type: object\n      properties:\n")
	for _, s := range kindList().Settings() {
		fmt.Fprintf(&b, "        %s: %s\n", s.Key, schemaOf(s))
	}
	b.WriteString("    SwitchSettings:\n      type: object\n      properties:\n")
	for _, f := range switchFields() {
		fmt.Fprintf(&b, "        %s: %s\n", f.Key, flow(f.Schema()))
	}
	generated(t, path, []byte(b.String()+end+tail))
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

func TestKindsDoNotClash(t *testing.T) {
	if err := kindList().Check(); err != nil {
		t.Error(err)
	}
}
