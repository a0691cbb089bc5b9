// Command gotest runs go test with the arguments it is given, flags before packages, and shows
// what go test shows:
//
//	go run ./internal/test/gotest -race ./...
//
// Real machines and clocks are in these tests, so a busy machine can fail one that is right.
// A few that fail run again, each alone. What passes then is no failure, but is named. At the
// end come the tests that were skipped, with the reason, and those that failed, with what they
// said: go test keeps the former to itself, and the latter is hard to find in a long log.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// again is how many tests may fail and run again. More of them are no accident.
const again = 3

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(1)
	}
}

func run(args []string, w io.Writer) error {
	all, err := goTest(args, w)
	if err != nil {
		return err
	}
	failed := all.failed
	if !all.broken && len(failed) <= again {
		flags := args[:len(args)-packages(args)]
		failed = nil
		for _, t := range all.failed {
			fmt.Fprintf(w, "\n%s %s failed, and runs alone:\n", t.pkg, t.name)
			alone, err := goTest(slices.Concat(flags, []string{"-run", "^" + t.name + "$", t.pkg}), w)
			if err != nil {
				return err
			}
			if alone.broken {
				return fmt.Errorf("%s is broken", t.pkg)
			}
			failed = append(failed, alone.failed...)
		}
		if passed := len(all.failed) - len(failed); passed > 0 {
			fmt.Fprintf(w, "\nfailed beside others and passed alone, %d of:\n%s", passed, list(all.failed))
		}
	}
	if len(all.skipped) > 0 {
		slices.Sort(all.skipped)
		fmt.Fprintf(w, "\nleft out, %d tests:\n%s", len(all.skipped), strings.Join(all.skipped, ""))
	}
	if len(failed) > 0 {
		return fmt.Errorf("%d tests failed:\n%s", len(failed), list(failed))
	}
	if all.broken {
		return errors.New("go test failed")
	}
	return nil
}

// packages counts the packages at the end of go test's arguments.
func packages(args []string) int {
	n := 0
	for _, arg := range slices.Backward(args) {
		if !strings.HasPrefix(arg, ".") {
			break
		}
		n++
	}
	return n
}

// goTest runs go test and shows what it prints.
func goTest(args []string, w io.Writer) (result, error) {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return result{}, err
	}
	if err := cmd.Start(); err != nil {
		return result{}, err
	}
	r, err := show(events, w)
	wait := cmd.Wait()
	if exit := new(exec.ExitError); errors.As(wait, &exit) {
		r.broken = r.broken || len(r.failed) == 0
		wait = nil
	}
	return r, errors.Join(err, wait)
}

// event is a line of go test -json; see go doc cmd/test2json.
type event struct {
	Action, Package, Test, Output string
}

// result is how the tests of a run ended.
type result struct {
	failed  []failure
	skipped []string
	broken  bool // something else failed, too: a build, a data race, a panic, a time limit
}

// failure is a test that failed.
type failure struct {
	pkg, name string
	said      []string // what it, and those below it, reported
}

func list(failed []failure) string {
	var b strings.Builder
	for _, t := range failed {
		fmt.Fprintf(&b, "  %s %s\n", t.pkg, t.name)
		for _, line := range t.said[:min(len(t.said), 10)] {
			fmt.Fprintf(&b, "      %.300s\n", line)
		}
	}
	return b.String()
}

var (
	// said is a line that a test reports, not one that goes on in the next.
	said = regexp.MustCompile(`^\s+\S+\.go:\d+: (.*)`)
	// never is what no busy machine causes.
	never = regexp.MustCompile(`WARNING: DATA RACE|^\s*(panic|fatal error): `)
)

// show writes the events in r to w as go test without -v does.
func show(r io.Reader, w io.Writer) (result, error) {
	type test struct{ pkg, name string }
	var res result
	output := map[test][]string{}
	below := map[test][]string{} // of a test at the top: what failed tests reported
	failedIn := map[string]bool{}
	d := json.NewDecoder(r)
	for {
		var e event
		if err := d.Decode(&e); err == io.EOF {
			break
		} else if err != nil {
			return res, fmt.Errorf("go test -json: %w", err)
		}
		t := test{e.Package, e.Test}
		name, _, _ := strings.Cut(e.Test, "/")
		top := test{e.Package, name}
		switch {
		case e.Action == "build-output",
			e.Action == "output" && e.Test == "" && e.Output != "PASS\n":
			fmt.Fprint(w, e.Output)
		case e.Action == "output" && !strings.HasPrefix(e.Output, "=== "):
			output[t] = append(output[t], e.Output)
		case e.Action == "build-fail":
			res.broken = true
		case e.Action == "fail":
			fmt.Fprint(w, strings.Join(output[t], ""))
			for _, line := range output[t] {
				res.broken = res.broken || never.MatchString(line)
				if said.MatchString(line) {
					below[top] = append(below[top], strings.TrimSpace(line))
				}
			}
			switch {
			case e.Test == "":
				res.broken = res.broken || !failedIn[e.Package]
			case t == top:
				res.failed = append(res.failed, failure{t.pkg, t.name, below[t]})
				failedIn[e.Package] = true
			}
			delete(output, t)
		case e.Action == "skip" && e.Test != "":
			res.skipped = append(res.skipped, fmt.Sprintf("  %s %s: %s\n", e.Package, e.Test, reason(output[t])))
			delete(output, t)
		case e.Action == "pass":
			delete(output, t)
		}
		if e.Test == "" && never.MatchString(e.Output) {
			res.broken = true
		}
	}
	return res, nil
}

// reason finds what t.Skip was told: the line behind the position in the source.
func reason(output []string) string {
	for _, line := range slices.Backward(output) {
		if strings.HasPrefix(strings.TrimSpace(line), "---") {
			continue
		}
		if m := said.FindStringSubmatch(line); m != nil {
			return strings.TrimPrefix(strings.TrimSpace(m[1]), "left out: ")
		}
	}
	return "no reason given"
}
