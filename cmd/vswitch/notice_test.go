package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// packaging/NOTICE has the licence of everything that is linked into the program.
// It changes with every version of a module, so only continuous integration compares it.
func TestNoticeIsGenerated(t *testing.T) {
	if !*update && os.Getenv("CI") == "" {
		t.Skip("left out: continuous integration compares it")
	}
	var b bytes.Buffer
	b.WriteString("vswitch is under the Apache License 2.0, see LICENSE. The program contains:\n")
	for _, m := range linked(t) {
		fmt.Fprintf(&b, "\n%s\n%s\n\n", strings.Repeat("=", 78), m.name)
		for _, text := range licences(t, m.dir) {
			b.WriteString(text + "\n")
		}
	}
	fmt.Fprintf(&b, "\n%s\nThe kernel's part, internal/linux/fastpath/bpf: GPL-2.0-only OR BSD-2-Clause\n\n", strings.Repeat("=", 78))
	for _, text := range licences(t, "../../internal/linux/fastpath/bpf") {
		b.WriteString(text + "\n")
	}
	generated(t, "../../packaging/NOTICE", b.Bytes())
}

type module struct{ name, dir string }

// linked returns the modules that are linked into the programs, and Go itself.
func linked(t *testing.T) (all []module) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command("go", "list", "-deps", "-json=Module", ".", "../vswitch-cni")
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, &errs)
	}
	seen := make(map[string]bool)
	for d := json.NewDecoder(&out); ; {
		var p struct {
			Module *struct {
				Path, Version, Dir string
				Main               bool
			}
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if m := p.Module; m != nil && !m.Main && !seen[m.Path] {
			seen[m.Path] = true
			all = append(all, module{m.Path + " " + m.Version, m.Dir})
		}
	}
	slices.SortFunc(all, func(a, b module) int { return strings.Compare(a.name, b.name) })
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return append(all, module{"The Go runtime and standard library", strings.TrimSpace(string(root))})
}

// licences returns the texts of the licence and notice files of a module, which must have one.
func licences(t *testing.T, dir string) (texts []string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name := strings.ToUpper(f.Name())
		if f.IsDir() || !slices.ContainsFunc([]string{"LICENSE", "LICENCE", "COPYING", "NOTICE"}, func(p string) bool { return strings.HasPrefix(name, p) }) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, strings.TrimSpace(string(text)))
	}
	if texts == nil {
		t.Errorf("%s has no licence", dir)
	}
	return texts
}
