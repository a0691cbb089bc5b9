package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestMutants(t *testing.T) {
	for text, want := range map[string][]string{
		"if a < b { f() }":                      {"`a < b` → `!(a < b)`", "`<` → `<=`", "`f()` → nothing"},
		"if a == b { return }":                  {"`==` → `!=`", "`return` → nothing"},
		"a = 1; b++":                            {"`a = 1; b++` → nothing", "`a` → `_`", "`b++` → nothing", "`1` → `(1+1)`", "`++` → `--`"},
		"a = nil":                               {"`a = nil` → nothing"},
		"switch { case a && !b: x := 1; f(x) }": {"`a && !b` → `!(a && !b)`", "`&&` → `||`", "`!` → nothing", "`1` → `(1+1)`", "`f(x)` → nothing"},
		`log.Info("x", "n", 1); a.log.With("n", 1).Warn("y", "z", !b); f(1)`: {"`log.Info(\"x\", \"n\", 1); a.log.With(\"n\", 1).Warn(\"y\", \"z\", !b)…` → nothing", "`f(1)` → nothing", "`1` → `(1+1)`"},
		`a = make([]int, 1, 2); err = fmt.Errorf("%d", 3+4)`:                 {"`a = make([]int, 1, 2); err = fmt.Errorf(\"%d\", 3+4)` → nothing", "`a` → `_`", "`err` → `_`", "`1` → `(1+1)`"},
		"var x [4]int; _ = max(x[0], 2)":                                     {"`var x [4]int; _ = max(x[0], 2)` → nothing", "`max` → `min`", "`0` → `(0+1)`", "`2` → `(2+1)`"},
	} {
		f := &source{path: "x.go", text: []byte("package x\nfunc g() {\n" + text + "\n}")}
		all, err := mutants(f)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range all {
			if !m.isAt("x.go") || !m.isAt("x.go:3") || m.isAt("x.go:4") || m.isAt("y.go") {
				t.Errorf("%v: at another place", &m)
			}
			got = append(got, strings.TrimPrefix(m.String(), "x.go:3: "))
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n%s\nwant\n%s", text, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// A change that no test notices is printed, one that some test notices, be it by a program that
// it builds, is not. The files stay as they are.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{
		"go.mod": "module x\n\ngo 1.25\n",
		"x.go": `package x

func abs(n int) int {
	if n < 0 {
		return -n
	}
	return n
}

func Count(n int) (c int) {
	for range n {
		c++
	}
	return c
}
`,
		"cmd/main.go": `package main

import "x"

func main() {
	if x.Count(3) != 3 {
		panic("wrong")
	}
}
`,
		"x_test.go": `package x

import (
	"os/exec"
	"testing"
)

func Test(t *testing.T) {
	if abs(-1) != 1 || abs(1) != 1 || exec.Command("go", "run", "./cmd").Run() != nil {
		t.Fail()
	}
}
`,
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	var out strings.Builder
	o := options{pkg: ".", jobs: 1}
	if err := o.run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	// Of 0, both branches make 0.
	want := "x.go:4: `<` → `<=`\nx.go:4: `0` → `(0+1)`\n.: 2 of 5 mutants survived (40 %)\n"
	if out.String() != want {
		t.Errorf("printed\n%swant\n%s", out.String(), want)
	}
	for name, text := range files {
		if now, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(now) != text {
			t.Errorf("%s has changed: %v", name, err)
		}
	}
}

func TestJudge(t *testing.T) {
	for out, want := range map[string]result{
		"--- FAIL: Test (0.00s)\nFAIL\tx\t0.002s\nFAIL\n":                            killed,
		"panic: test timed out after 20s\n\trunning tests:\n\t\tTest (20s)\n":        hung,
		"# x [x.test]\n./x.go:4:2: declared and not used: a\nFAIL\tx [build failed]": unbuilt,
	} {
		if got := judge([]byte(out)); got != want {
			t.Errorf("%q: %d, want %d", out, got, want)
		}
	}
}
