package main

import (
	"io"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
)

func setCommand() *cli.Command {
	return &cli.Command{
		Name:      "set",
		Usage:     "change settings of the switch while it runs",
		UsageText: "vswitch set FLAGS",
		Description: `Changes the given settings at once and keeps them over a restart; the others stay.
An empty value or =off takes a setting back. The same flags of vswitch run override
what was kept, for that run only.

Turning spanning tree on stops ports to networks until the tree has converged; ports
with stations go on at once.

Example:

    vswitch set --aging 60s
    vswitch set --stp --stp-priority 4096
    vswitch set --snooping=on --querier=on --querier-address 192.0.2.1`,
		Flags:  switchFlags(),
		Action: steering(setSwitch),
	}
}

func setSwitch(c *cli.Context, cl *api.Client, _ []string) error {
	set, err := read(c, switchFields())
	if err == nil {
		err = refuseZero(c, switchFields(), "; an empty value takes the setting back")
	}
	if err != nil {
		return err
	}
	if len(set) == 0 {
		return usagef("nothing to change; give at least one flag, see `vswitch set --help`")
	}
	s, err := cl.SetSwitch(c.Context, sent(set))
	if err != nil {
		return err
	}
	return show(c, s, func(io.Writer) {})
}
