package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/port"
)

func addPortCommand() *cli.Command {
	return &cli.Command{
		Name:      "add-port",
		Usage:     "add a port and attach it",
		UsageText: "vswitch add-port NAME [flags]",
		Description: `Returns once the port is attached; when that fails, nothing is left behind.

The kinds of port:

    tap     a virtual machine's NIC: makes the TAP device NAME, or takes the one
            that is there. The machine may start before or after.
    host    a NIC of this host, or of a network namespace, in the VMs' network.
    netdev  the network interface NAME that is there: a veth end, a physical NIC.

Example:

    vswitch add-port vm0 --owner libvirt-qemu --access 10
    vswitch add-port gw0 --kind host --address 10.0.0.1/24
    vswitch add-port eth1 --kind netdev --trunk 10,20-29 --native 1`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "kind", Value: "tap", Usage: "`KIND` of port: tap, host or netdev"},
			&cli.IntFlag{Name: "queues", Usage: "tap, netdev: `N` queues, each with a thread of its own", DefaultText: "1"},
			&cli.BoolFlag{Name: "no-wait", Usage: "add the port even when its device is not there yet"},
		}, portFlags()...),
		Action: addPort,
	}
}

func addPort(c *cli.Context) error {
	w, err := words(c, "NAME")
	if err != nil {
		return err
	}
	set, err := settings(c)
	if err != nil {
		return err
	}
	cl, err := client(c)
	if err != nil {
		return err
	}
	defer cl.Close()
	req := api.AddPort{
		Spec:   set.Apply(port.Spec{Name: w[0], Kind: c.String("kind"), Queues: c.Int("queues")}),
		NoWait: c.Bool("no-wait"),
	}
	_, err = cl.AddPort(c.Context, req)
	var e *api.Error
	if errors.As(err, &e) && e.Code == api.CodeGone {
		return fmt.Errorf("%w; with --no-wait the port is added and waits for it", err)
	}
	return err
}
