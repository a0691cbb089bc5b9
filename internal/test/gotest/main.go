// Command gotest runs go test with the arguments it is given, shows what go test
// shows, and names at the end the tests that were skipped, with the reason, which
// go test keeps to itself:
//
//	go run ./internal/test/gotest -race ./...
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

func main() {
	cmd := exec.Command("go", append([]string{"test", "-json"}, os.Args[1:]...)...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		err = errors.Join(show(events, os.Stdout), cmd.Wait())
	}
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		os.Exit(1)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(1)
	}
}

// event is a line of go test -json; see go doc cmd/test2json.
type event struct {
	Action, Package, Test, Output string
}

// show writes the events in r to w as go test without -v does, and then the skipped
// tests.
func show(r io.Reader, w io.Writer) error {
	type test struct{ pkg, name string }
	output := map[test][]string{}
	var skipped []string
	d := json.NewDecoder(r)
	for {
		var e event
		if err := d.Decode(&e); err == io.EOF {
			break
		} else if err != nil {
			return fmt.Errorf("go test -json: %w", err)
		}
		t := test{e.Package, e.Test}
		switch {
		case e.Action == "build-output",
			e.Action == "output" && e.Test == "" && e.Output != "PASS\n":
			fmt.Fprint(w, e.Output)
		case e.Action == "output" && !strings.HasPrefix(e.Output, "=== "):
			output[t] = append(output[t], e.Output)
		case e.Action == "fail":
			fmt.Fprint(w, strings.Join(output[t], ""))
			delete(output, t)
		case e.Action == "skip" && e.Test != "":
			skipped = append(skipped, fmt.Sprintf("  %s %s: %s\n", e.Package, e.Test, reason(output[t])))
			delete(output, t)
		case e.Action == "pass":
			delete(output, t)
		}
	}
	if len(skipped) > 0 {
		slices.Sort(skipped)
		fmt.Fprintf(w, "\nleft out, %d tests:\n%s", len(skipped), strings.Join(skipped, ""))
	}
	return nil
}

// reason finds what t.Skip was told: the line behind the position in the source.
func reason(output []string) string {
	for _, line := range slices.Backward(output) {
		if strings.HasPrefix(strings.TrimSpace(line), "---") {
			continue
		}
		_, behind, _ := strings.Cut(line, ".go:")
		if _, text, ok := strings.Cut(behind, ": "); ok {
			return strings.TrimPrefix(strings.TrimSpace(text), "left out: ")
		}
	}
	return "no reason given"
}
