package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/table"
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
func showing[T any](c *cli.Context, get func(*api.Client, context.Context) (T, error), print func(io.Writer, T)) error {
	return steering(func(c *cli.Context, cl *api.Client, _ []string) error {
		v, err := get(cl, c.Context)
		if err != nil {
			return err
		}
		return show(c, v, func(w io.Writer) { print(w, v) })
	})(c)
}

// show prints v as JSON, or calls print to print it for people.
func show(c *cli.Context, v any, print func(io.Writer)) error {
	f, err := format(c)
	if err != nil {
		return err
	}
	return table.Show(c.App.Writer, f == "json", v, print)
}

// row and dash write tables.
var (
	row  = table.Row
	dash = table.Dash
)

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
