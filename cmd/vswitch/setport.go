package main

import (
	"errors"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
)

func setPortCommand() *cli.Command {
	return &cli.Command{
		Name:      "set-port",
		Usage:     "change a port while it runs",
		UsageText: "vswitch set-port NAME FLAGS",
		Description: `Changes the given settings under traffic; the others stay. An empty value, 0 or
=off takes a setting back. --access, --trunk and --qinq replace each other.

It also brings back an error-disabled port, one that a guard shut down; for that
alone, give no flag.

Example:

    vswitch set-port vm0 --mtu 9000
    vswitch set-port vm0 --access 10 --isolated --storm-broadcast 100pps
    vswitch set-port vm0 --learn-limit 4 --learn-action protect
    vswitch set-port eth1 --trunk 10,20-29 --native 1`,
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "no-vlan", Usage: "make the port transparent to tags again, in VLAN 1"},
		}, portFlags(true)...),
		Action: steering(setPort, "NAME"),
	}
}

func setPort(c *cli.Context, cl *api.Client, args []string) error {
	set, err := settings(c, true)
	if err != nil {
		return err
	}
	p, err := cl.SetPort(c.Context, args[0], sent(set))
	var e *api.Error
	if c.NumFlags() == 0 && errors.As(err, &e) && e.Code == api.CodeInvalid {
		return usageError(err.Error())
	}
	if err != nil {
		return err
	}
	return show(c, p, func(io.Writer) {})
}
