package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
)

// format returns the format that --output selects.
func format(c *cli.Context) (string, error) {
	switch f := c.String("output"); f {
	case "table", "json":
		return f, nil
	default:
		return "", usagef("there is no output format %q; use table or json", f)
	}
}

// showing implements a command without arguments that gets one thing from the daemon and
// prints it, as JSON or as a table.
func showing[T any](c *cli.Context, get func(*api.Client, context.Context) (T, error), table func(io.Writer, T)) error {
	return steering(func(c *cli.Context, cl *api.Client, _ []string) error {
		v, err := get(cl, c.Context)
		if err != nil {
			return err
		}
		return show(c, v, func(w io.Writer) { table(w, v) })
	})(c)
}

// show prints v as JSON, or calls table to print it for people.
func show(c *cli.Context, v any, table func(io.Writer)) error {
	f, err := format(c)
	if err != nil {
		return err
	}
	if f == "json" {
		e := json.NewEncoder(c.App.Writer)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	table(w)
	return w.Flush()
}

// row prints a row of a table.
func row(w io.Writer, cells ...any) {
	line := strings.TrimSuffix(strings.Repeat("%v\t", len(cells)), "\t") + "\n"
	fmt.Fprintf(w, line, cells...)
}

// dash returns "-" for an empty cell.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func dropped(c api.Counters) (sum uint64) {
	for _, n := range c.Dropped {
		sum += n
	}
	return sum
}

// traffic describes one direction: its totals, and the drops by reason.
func traffic(c api.Counters) string {
	s := fmt.Sprintf("%d frames, %d bytes, %d dropped", c.Frames, c.Bytes, dropped(c))
	var reasons []string
	for _, why := range slices.Sorted(maps.Keys(c.Dropped)) {
		reasons = append(reasons, fmt.Sprintf("%s %d", why, c.Dropped[why]))
	}
	if len(reasons) > 0 {
		s += " (" + strings.Join(reasons, ", ") + ")"
	}
	return s
}
