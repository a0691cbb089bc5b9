// Package table prints what a command got from the daemon: as JSON for programs, or as a
// table for people. Commands of the command line and of features call it. It writes to the
// given writer only.
package table

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Show prints v as JSON, or calls table to print it with Row. It writes all at once: behind a pipe a
// reader may end as soon as it has found what it looks for, as grep -q does.
func Show(w io.Writer, asJSON bool, v any, table func(io.Writer)) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false) // no browser shows it, and people read frames: A > B
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	var all bytes.Buffer
	t := tabwriter.NewWriter(&all, 0, 0, 2, ' ', 0)
	table(t)
	if err := t.Flush(); err != nil || all.Len() == 0 {
		return err
	}
	_, err := w.Write(all.Bytes())
	return err
}

// Row prints a row of a table.
func Row(w io.Writer, cells ...any) {
	line := strings.TrimSuffix(strings.Repeat("%v\t", len(cells)), "\t") + "\n"
	fmt.Fprintf(w, line, cells...)
}

// Dash returns "-" for an empty cell.
func Dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
