package main

import (
	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
)

func setPortCommand() *cli.Command {
	return &cli.Command{
		Name:      "set-port",
		Usage:     "change a port while it runs",
		UsageText: "vswitch set-port NAME FLAGS",
		Description: `Changes the settings that are given; the others, and the traffic, stay. An
empty value takes a setting back.

Example:

    vswitch set-port vm0 --mtu 9000`,
		Flags:  portFlags(),
		Action: setPort,
	}
}

func setPort(c *cli.Context) error {
	w, err := words(c, "NAME")
	if err != nil {
		return err
	}
	if c.NumFlags() == 0 {
		return usagef("nothing to change; give at least one flag, see `vswitch set-port --help`")
	}
	cl, err := client(c)
	if err != nil {
		return err
	}
	defer cl.Close()
	var req api.SetPort
	given(c, "owner", &req.Owner, c.String)
	given(c, "group", &req.Group, c.String)
	given(c, "mtu", &req.MTU, c.Int)
	given(c, "address", &req.Address, func(string) []string { return addresses(c) })
	given(c, "netns", &req.Netns, c.String)
	given(c, "exclusive", &req.Exclusive, c.Bool)
	_, err = cl.SetPort(c.Context, w[0], req)
	return err
}

// given sets to to the value of a flag that is on the command line.
func given[T any](c *cli.Context, flag string, to **T, value func(string) T) {
	if c.IsSet(flag) {
		v := value(flag)
		*to = &v
	}
}
