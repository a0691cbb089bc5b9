package main

import (
	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
)

func delPortCommand() *cli.Command {
	return &cli.Command{
		Name:      "del-port",
		Usage:     "remove a port",
		UsageText: "vswitch del-port NAME",
		Description: `Removes the port with its FDB entries. A device that the switch made goes with
it; one that was there before is left as it was found.

Example:

    vswitch del-port vm0`,
		Action: steering(delPort, "NAME"),
	}
}

func delPort(c *cli.Context, cl *api.Client, args []string) error {
	return cl.DelPort(c.Context, args[0])
}
