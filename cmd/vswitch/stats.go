package main

import (
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
)

func statsCommand() *cli.Command {
	return &cli.Command{
		Name:      "stats",
		Usage:     "show what ports carried, and why frames were dropped",
		UsageText: "vswitch stats [NAME] [-o json]",
		Description: `Shows the counters of one port or of all. rx counts what came into the switch by
the port, tx what left by it. Each frame that was not delivered is counted once, at
the port where it was lost, under its reason: as rx if no copy left the switch, as
tx if one copy did not.

Example:

    vswitch stats vm0`,
		Action: steering(portStats, "[NAME]"),
	}
}

// stats are a port's counters, as -o json prints them.
type stats struct {
	Name string       `json:"name"`
	RX   api.Counters `json:"rx"`
	TX   api.Counters `json:"tx"`
}

func portStats(c *cli.Context, cl *api.Client, args []string) error {
	reasons := make(map[string]string)
	if known, err := cl.Drops(c.Context); err == nil { // otherwise without descriptions
		for _, r := range known {
			reasons[r.Name] = r.Words
		}
	}
	if args[0] != "" {
		p, err := cl.Port(c.Context, args[0])
		if err != nil {
			return err
		}
		return show(c, stats{p.Name, p.RX, p.TX}, func(w io.Writer) { printStats(w, p, reasons) })
	}
	ports, err := cl.Ports(c.Context)
	if err != nil {
		return err
	}
	all := []stats{}
	for _, p := range ports {
		all = append(all, stats{p.Name, p.RX, p.TX})
	}
	return show(c, all, func(w io.Writer) {
		for i, p := range ports {
			if i > 0 {
				row(w)
			}
			printStats(w, p, reasons)
		}
	})
}

func printStats(w io.Writer, p api.Port, reasons map[string]string) {
	row(w, "Port "+p.Name, "FRAMES", "BYTES", "")
	row(w, "  rx", p.RX.Frames, p.RX.Bytes, "came into the switch")
	if p.RX.Copies > 0 {
		row(w, "  rx copies", p.RX.Copies, "", "made of them to reach more than one port")
	}
	printDrops(w, reasons, "rx", p.Name, p.RX)
	row(w, "  tx", p.TX.Frames, p.TX.Bytes, "left the switch")
	printDrops(w, reasons, "tx", p.Name, p.TX)
}

func printDrops(w io.Writer, reasons map[string]string, direction, name string, c api.Counters) {
	for _, why := range slices.Sorted(maps.Keys(c.Dropped)) {
		row(w, "  "+direction+" "+why, c.Dropped[why], "", dash(strings.ReplaceAll(reasons[why], "DEV", name)))
	}
}
