package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/port"
)

// manual returns a manual page, and the same as its reader sees hyphens.
func manual(t *testing.T, args ...string) (source, page string) {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(append([]string{"vswitch", "man"}, args...), &out, &errs); code != 0 {
		t.Fatalf("exit status %d: %s", code, &errs)
	}
	return out.String(), strings.ReplaceAll(out.String(), `\-`, "-")
}

func TestManHasEveryCommand(t *testing.T) {
	_, page := manual(t)
	if !strings.HasPrefix(page, ".TH vswitch 8") {
		t.Errorf("no title:\n%.200s", page)
	}
	eachCommand(newApp(nil).Commands, nil, func(path []string, c *cli.Command) {
		name := strings.Join(append([]string{"vswitch"}, path...), " ")
		if got := strings.Contains(page, name); got == c.Hidden {
			t.Errorf("%s on the page: %v", name, got)
		}
		for _, f := range c.Flags {
			if f.Names()[0] != "help" && !strings.Contains(page, "--"+f.Names()[0]) {
				t.Errorf("%s: flag %s is not on the page", name, f.Names()[0])
			}
		}
	})
}

func TestManIsComplete(t *testing.T) {
	_, tool := manual(t)
	_, state := manual(t, "state")
	for _, section := range []string{
		"NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "PORT KINDS", "PORT SETTINGS", "SWITCH SETTINGS", "PORT STATES",
		"DROP REASONS", "UNITS", "FILES", "ENVIRONMENT", "EXIT STATUS", "SIGNALS", "SEE ALSO",
	} {
		if strings.Count(tool, "\n.SH "+section+"\n") != 1 {
			t.Errorf("vswitch(8) needs one section %s", section)
		}
	}
	has := func(page, term, what string) {
		if !strings.Contains(page, "\n\\fB"+term) {
			t.Errorf("%s does not explain %s", what, term)
		}
	}
	for d := port.DropNone + 1; d < port.NumDrops; d++ {
		has(tool, d.String()+" (", "vswitch(8)")
	}
	for _, code := range []string{"0", "1", "2", "3"} {
		has(tool, code+"\\fR", "vswitch(8)")
	}
	if n := len(exitCodes); n != exitNoDaemon+1 {
		t.Errorf("%d exit codes are explained", n)
	}
	fields := switchFields()
	for _, s := range portCatalog().Settings() {
		fields = append(fields, s.Field)
	}
	for _, f := range fields {
		has(tool, "--"+f.Flag, "vswitch(8)")
		has(state, f.Key+" (", "vswitch.state(5)")
	}
	for _, k := range kindList() {
		has(tool, k.Name()+"\\fR", "vswitch(8)")
	}
}

// Every key of a state file is in vswitch.state(5).
func TestManHasKeysOfState(t *testing.T) {
	_, page := manual(t, "state")
	file, err := os.ReadFile("testdata/state-1.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{string(file), stateExample} {
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		eachKey(v, func(key string) {
			if !strings.Contains(page, key) {
				t.Errorf("the key %s is not on the page", key)
			}
		})
	}
}

func eachKey(v any, f func(string)) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			f(key)
			eachKey(value, f)
		}
	case []any:
		for _, value := range v {
			eachKey(value, f)
		}
	}
}

// The formatters that are installed take the pages without complaint.
func TestManFormats(t *testing.T) {
	for _, args := range [][]string{nil, {"state"}} {
		source, _ := manual(t, args...)
		file := filepath.Join(t.TempDir(), "page")
		if err := os.WriteFile(file, []byte(source), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, c := range [][]string{
			{"mandoc", "-T", "lint", "-W", "error", file},
			{"groff", "-man", "-Tutf8", "-ww", "-z", file},
		} {
			if _, err := exec.LookPath(c[0]); err != nil {
				t.Logf("without %s, which is not installed", c[0])
				continue
			}
			if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%q of page %q: %v\n%s", c[0], args, err, out)
			}
		}
	}
}

func TestManRefusesOtherPages(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run([]string{"vswitch", "man", "bridge"}, &out, &errs); code != exitUsage || !strings.Contains(errs.String(), "vswitch man state") {
		t.Errorf("exit status %d: %s", code, &errs)
	}
}

func TestRoff(t *testing.T) {
	const want = `\&.a\-b \e \(aqc\(aq \[u2026]` + "\n" + `\&.d`
	if got := roff(".a-b \\ 'c' …\n.d"); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
