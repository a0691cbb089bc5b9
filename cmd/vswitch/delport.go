package main

import "github.com/urfave/cli/v2"

func delPortCommand() *cli.Command {
	return &cli.Command{
		Name:      "del-port",
		Usage:     "remove a port",
		UsageText: "vswitch del-port NAME",
		Description: `Removes the port with its FDB entries. A device that the switch made goes with
it; one that was there before is left as it was found.

Example:

    vswitch del-port vm0`,
		Action: delPort,
	}
}

func delPort(c *cli.Context) error {
	w, err := words(c, "NAME")
	if err != nil {
		return err
	}
	cl, err := client(c)
	if err != nil {
		return err
	}
	defer cl.Close()
	return cl.DelPort(c.Context, w[0])
}
