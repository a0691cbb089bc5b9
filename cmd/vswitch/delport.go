package main

import (
	"errors"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
)

func delPortCommand() *cli.Command {
	return &cli.Command{
		Name:      "del-port",
		Usage:     "remove a port",
		UsageText: "vswitch del-port NAME [flags]",
		Description: `Removes the port with its FDB entries. A device that the switch made goes with
it; one that was there before is left as it was found.

A port whose machine is attached stays: the machine would lose its network, and a
TAP that is made again is another device, which the machine does not have open.
Stop the machine first, or use --force.

Example:

    vswitch del-port vm0
    vswitch del-port vm0 --if-exists --force`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "if-exists", Usage: "do nothing where there is no such port"},
			&cli.BoolFlag{Name: "force", Usage: "remove the port also where its machine is attached"},
		},
		Action: steering(delPort, "NAME"),
	}
}

func delPort(c *cli.Context, cl *api.Client, args []string) error {
	del := cl.DelPort
	if c.Bool("force") {
		del = cl.ForceDelPort
	}
	err := del(c.Context, args[0])
	var e *api.Error
	if c.Bool("if-exists") && errors.As(err, &e) && e.Code == api.CodeNotFound {
		return nil
	}
	return err
}
