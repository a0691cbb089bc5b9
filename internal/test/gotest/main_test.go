package main

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestShow(t *testing.T) {
	const events = `
{"ImportPath":"p/broken","Action":"build-output","Output":"x.go:1: broken\n"}
{"ImportPath":"p/broken","Action":"build-fail"}
{"Action":"start","Package":"p/a"}
{"Action":"run","Package":"p/a","Test":"TestGood"}
{"Action":"output","Package":"p/a","Test":"TestGood","Output":"=== RUN   TestGood\n"}
{"Action":"output","Package":"p/a","Test":"TestGood","Output":"    a_test.go:1: chatter\n"}
{"Action":"output","Package":"p/a","Test":"TestGood","Output":"--- PASS: TestGood (0.00s)\n"}
{"Action":"pass","Package":"p/a","Test":"TestGood"}
{"Action":"output","Package":"p/a","Test":"TestRoot","Output":"=== RUN   TestRoot\n"}
{"Action":"output","Package":"p/a","Test":"TestRoot","Output":"    a_test.go:9: left out: needs root: see README\n"}
{"Action":"output","Package":"p/a","Test":"TestRoot","Output":"--- SKIP: TestRoot (0.00s)\n"}
{"Action":"skip","Package":"p/a","Test":"TestRoot"}
{"Action":"output","Package":"p/a","Output":"PASS\n"}
{"Action":"output","Package":"p/a","Output":"ok  \tp/a\t0.01s\n"}
{"Action":"pass","Package":"p/a"}
{"Action":"output","Package":"p/b","Test":"TestBad","Output":"=== RUN   TestBad\n"}
{"Action":"output","Package":"p/b","Test":"TestBad","Output":"    b_test.go:3: wrong\n"}
{"Action":"output","Package":"p/b","Test":"TestBad","Output":"--- FAIL: TestBad (0.00s)\n"}
{"Action":"fail","Package":"p/b","Test":"TestBad"}
{"Action":"output","Package":"p/b","Output":"FAIL\tp/b\t0.01s\n"}
{"Action":"fail","Package":"p/b"}
{"Action":"output","Package":"p/c","Output":"?   \tp/c\t[no test files]\n"}
{"Action":"skip","Package":"p/c"}
`
	const want = `x.go:1: broken
ok  	p/a	0.01s
    b_test.go:3: wrong
--- FAIL: TestBad (0.00s)
FAIL	p/b	0.01s
?   	p/c	[no test files]
`
	var got strings.Builder
	res, err := show(strings.NewReader(events), &got)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Error(diff)
	}
	wants := result{
		failed:  []failure{{"p/b", "TestBad", []string{"b_test.go:3: wrong"}}},
		skipped: []string{"  p/a TestRoot: needs root: see README\n"},
		broken:  true, // the build of p/broken
	}
	if diff := cmp.Diff(wants, res, cmp.AllowUnexported(result{}, failure{})); diff != "" {
		t.Error(diff)
	}
	if _, err := show(strings.NewReader("no JSON"), &got); err == nil {
		t.Error("what is no JSON is taken")
	}
}

// TestRun runs go test on a package whose tests fail: one always, one only beside others, one
// with a data race in a program that it starts.
func TestRun(t *testing.T) {
	const head = "package p\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\nvar _ = os.Args\n\n"
	const good = "func TestGood(t *testing.T) { t.Skip(\"needs a friend\") }\n"
	const beside = "func TestBeside(t *testing.T) {\n\tif _, err := os.Stat(\"before\"); err != nil {\n\t\tos.WriteFile(\"before\", nil, 0o600)\n\t\tt.Error(\"beside others\")\n\t}\n}\n"
	const never = "func TestNever(t *testing.T) { t.Run(\"part\", func(t *testing.T) { t.Error(\"never\") }) }\n"
	const races = "func TestRaces(t *testing.T) { t.Error(\"log\\nWARNING: DATA RACE\") }\n"
	for _, tt := range []struct {
		name, tests string
		err         string
		out         []string
	}{
		{"all pass", good, "", []string{"left out, 1 tests:\n  p TestGood: needs a friend\n"}},
		{"one fails beside others", good + beside, "", []string{
			"p TestBeside failed, and runs alone:\n", "left out, 1 tests:",
			"failed beside others and passed alone, 1 of:\n  p TestBeside\n      p_test.go:14: beside others\n",
		}},
		{"one fails alone, too", beside + never, "1 tests failed:\n  p TestNever\n      p_test.go:16: never\n", []string{"failed beside others and passed alone, 1 of:\n  p TestBeside\n"}},
		{"a race", races, "1 tests failed:\n  p TestRaces\n", nil},
		{"a build", "nonsense", "go test failed", nil},
		{"a panic", "func TestPanics(t *testing.T) { panic(1) }\n", "1 tests failed:\n  p TestPanics\n", nil},
		{"an end in the middle", "func TestEnds(t *testing.T) { os.Exit(1) }\n", "go test failed", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			for name, text := range map[string]string{"go.mod": "module p\n\ngo 1.25\n", "p_test.go": head + tt.tests} {
				if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var out strings.Builder
			err := run([]string{"-count=1", "."}, &out)
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			for _, want := range tt.out {
				if !strings.Contains(out.String(), want) {
					t.Errorf("it does not say %q", want)
				}
			}
			if t.Failed() {
				t.Log(out.String())
			}
		})
	}
}
