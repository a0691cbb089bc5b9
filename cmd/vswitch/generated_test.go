package main

import (
	"bytes"
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
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

func TestKindsDoNotClash(t *testing.T) {
	if err := portCatalog().Check(); err != nil {
		t.Error(err)
	}
}

// The schema of configurations has the settings.
func TestSchemaIsGenerated(t *testing.T) {
	generated(t, "../../packaging/switch.schema.json", configFormat().Schema())
}
