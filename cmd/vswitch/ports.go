package main

import (
	"io"

	"github.com/urfave/cli/v2"
)

func portsCommand() *cli.Command {
	return &cli.Command{
		Name:      "ports",
		Usage:     "list the ports",
		UsageText: "vswitch ports [-o json]",
		Description: `A port is up, no-carrier (no virtual machine holds its device), waiting (its
device is gone; it is attached again when the device comes back) or down (its
interface was set down). rx is what came into the switch, tx what left it.

Example:

    vswitch ports -o json | jq -r '.[] | select(.state == "up").name'`,
		Action: listPorts,
	}
}

func listPorts(c *cli.Context) error {
	if _, err := words(c); err != nil {
		return err
	}
	cl, err := client(c)
	if err != nil {
		return err
	}
	defer cl.Close()
	ports, err := cl.Ports(c.Context)
	if err != nil {
		return err
	}
	return show(c, ports, func(w io.Writer) {
		row(w, "NAME", "KIND", "STATE", "IFNAME", "MTU", "RX", "DROPPED", "TX", "DROPPED", "REASON")
		for _, p := range ports {
			var mtu any = "-"
			if p.MTU != 0 {
				mtu = p.MTU
			}
			row(w, p.Name, p.Kind, p.State, dash(p.Ifname), mtu,
				p.RX.Frames, dropped(p.RX), p.TX.Frames, dropped(p.TX), dash(p.Reason))
		}
	})
}
