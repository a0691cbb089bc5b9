package main

import (
	"errors"
	"fmt"
	"path/filepath"

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

    vhost-user  a virtual machine's NIC in memory shared with QEMU: the fastest.
    stream      a virtual machine behind a unix socket, without rights: QEMU's
    dgram       -netdev stream or dgram, vfkit, libkrun, passt.

The switch makes the socket of the last three, by default SWITCH/NAME.sock beside
its control socket, and listens there; with --client it connects to --path.

Example:

    vswitch add-port vm0 --owner libvirt-qemu --access 10
    vswitch add-port gw0 --kind host --address 10.0.0.1/24
    vswitch add-port eth1 --kind netdev --trunk 10,20-29 --native 1
    vswitch add-port fast0 --kind vhost-user --path /run/vm/fast0.sock`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "kind", Value: "tap", Usage: "`KIND` of port: tap, host, netdev, vhost-user, stream or dgram"},
			&cli.IntFlag{Name: "queues", Usage: "tap, netdev: `N` queues, each with a thread of its own", DefaultText: "1"},
			&cli.StringFlag{Name: "path", TakesFile: true, Usage: "vhost-user, stream, dgram: `PATH` of the socket"},
			&cli.BoolFlag{Name: "client", Usage: "vhost-user, stream, dgram: connect to the socket"},
			&cli.BoolFlag{Name: "server", Usage: "vhost-user, stream, dgram: make the socket and listen (the default)"},
			&cli.BoolFlag{Name: "no-wait", Usage: "add the port even when its device is not there yet"},
		}, portFlags()...),
		Action: steering(addPort, "NAME"),
	}
}

func addPort(c *cli.Context, cl *api.Client, args []string) error {
	set, err := settings(c)
	if err != nil {
		return err
	}
	spec := set.Apply(port.Spec{Name: args[0], Kind: c.String("kind"), Queues: c.Int("queues")})
	if err := socketFlags(c, &spec); err != nil {
		return err
	}
	_, err = cl.AddPort(c.Context, api.AddPort{Spec: spec, NoWait: c.Bool("no-wait")})
	var e *api.Error
	if errors.As(err, &e) && e.Code == api.CodeGone {
		return fmt.Errorf("%w; with --no-wait the port is added and waits for it", err)
	}
	return err
}

// socketFlags reads the flags of the kinds that stand on a unix socket.
func socketFlags(c *cli.Context, spec *port.Spec) error {
	spec.Path, spec.Client = c.String("path"), c.Bool("client")
	switch {
	case spec.Client && c.Bool("server"):
		return usagef("--client and --server exclude each other; use one of them")
	case spec.Client && spec.Path == "":
		return usagef("--client needs the socket to connect to; name it with --path")
	case spec.Path != "" || spec.Client || c.Bool("server"):
		if k := spec.Kind; k == "tap" || k == "host" || k == "netdev" {
			return usagef("a %s port has no socket; leave --path, --client and --server out, or choose another --kind", k)
		}
	}
	if spec.Path == "" {
		return nil
	}
	var err error
	spec.Path, err = filepath.Abs(spec.Path)
	return err
}
