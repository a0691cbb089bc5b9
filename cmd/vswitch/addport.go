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

    vswitch add-port vm0 --owner libvirt-qemu
    vswitch add-port gw0 --kind host --address 10.0.0.1/24`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "kind", Value: "tap", Usage: "`KIND` of port: tap, host or netdev"},
			&cli.BoolFlag{Name: "no-wait", Usage: "add the port even when its device is not there yet"},
		}, portFlags()...),
		Action: addPort,
	}
}

// portFlags are the settings of ports that can also be changed later.
func portFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "owner", Usage: "tap: `USER` who may open the device, by name or number"},
		&cli.StringFlag{Name: "group", Usage: "tap: `GROUP` who may open the device, by name or number"},
		&cli.IntFlag{Name: "mtu", Usage: "longest payload in `BYTES`", DefaultText: "the device's own"},
		&cli.StringSliceFlag{Name: "address", Usage: "host: `ADDRESS/LENGTH` of the host's end; can be given several times"},
		&cli.StringFlag{Name: "netns", Usage: "host: network namespace for the host's end, `NAME` or path"},
		&cli.BoolFlag{Name: "exclusive", Usage: "netdev: hide the interface's frames from the host's own stack"},
	}
}

// addresses returns what --address was given, "" standing for none.
func addresses(c *cli.Context) []string {
	all := []string{}
	for _, a := range c.StringSlice("address") {
		if a != "" {
			all = append(all, a)
		}
	}
	return all
}

func addPort(c *cli.Context) error {
	w, err := words(c, "NAME")
	if err != nil {
		return err
	}
	cl, err := client(c)
	if err != nil {
		return err
	}
	defer cl.Close()
	_, err = cl.AddPort(c.Context, api.AddPort{
		Spec: port.Spec{
			Name:      w[0],
			Kind:      c.String("kind"),
			Owner:     c.String("owner"),
			Group:     c.String("group"),
			MTU:       c.Int("mtu"),
			Address:   addresses(c),
			Netns:     c.String("netns"),
			Exclusive: c.Bool("exclusive"),
		},
		NoWait: c.Bool("no-wait"),
	})
	var e *api.Error
	if errors.As(err, &e) && e.Code == api.CodeGone {
		return fmt.Errorf("%w; with --no-wait the port is added and waits for it", err)
	}
	return err
}
