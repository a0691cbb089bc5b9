package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
)

func addPortCommand() *cli.Command {
	return &cli.Command{
		Name:      "add-port",
		Usage:     "add a port and attach it",
		UsageText: "vswitch add-port NAME [flags]",
		Description: `Returns once the port is attached; when that fails, nothing is left behind.

The kinds of port:

` + kindsHelp() + `
The switch makes the socket of vhost-user, stream and dgram, by default SWITCH/NAME.sock beside
its control socket, and listens there; with --client it connects to --path.

Example:

    vswitch add-port vm0 --owner libvirt-qemu --access 10
    vswitch add-port gw0 --kind host --address 10.0.0.1/24
    vswitch add-port eth1 --kind netdev --trunk 10,20-29 --native 1
    vswitch add-port web0 --kind veth --netns web --address 10.0.0.7/24
    vswitch add-port fast0 --kind vhost-user --path /run/vm/fast0.sock
    vswitch add-port up0 --kind vxlan --local 192.0.2.1 --peers 192.0.2.2 --vni 100`,
		Flags: append([]cli.Flag{
			oneOf(&cli.StringFlag{Name: "kind", Value: "tap", Usage: "`KIND` of port: " + strings.Join(kindList().Names(), ", ")}, kindList().Names()),
			&cli.BoolFlag{Name: "server", Usage: "vhost-user, stream, dgram: the opposite of --client, as without both"},
			&cli.BoolFlag{Name: "no-wait", Usage: "add the port even when its device is not there yet"},
			&cli.BoolFlag{Name: "may-exist", Usage: "do nothing where a port of this name and kind has these settings already"},
		}, portFlags(false)...),
		Action: steering(addPort, "NAME"),
	}
}

func addPort(c *cli.Context, cl *api.Client, args []string) error {
	set, err := settings(c, false)
	if err != nil {
		return err
	}
	if c.Bool("server") {
		if c.Bool("client") {
			return usagef("--client and --server exclude each other; use one of them")
		}
		set.Set("client", false)
	}
	kind := c.String("kind")
	if c.Bool("client") && c.String("path") == "" {
		return usagef("--client needs the socket to connect to; name it with --path")
	}
	if _, err := portCatalog().Read(args[0], kind, set); err != nil {
		return usageError(err.Error())
	}
	p, err := cl.AddPort(c.Context, api.AddPort{Name: args[0], Kind: kind, Settings: sent(set), NoWait: c.Bool("no-wait"), MayExist: c.Bool("may-exist")})
	var e *api.Error
	switch {
	case errors.As(err, &e) && e.Code == api.CodeGone:
		return fmt.Errorf("%w; with --no-wait the port is added and waits for it", err)
	case err != nil:
		return err
	}
	return show(c, p, func(io.Writer) {})
}
