package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/port"
)

func portsCommand() *cli.Command {
	return &cli.Command{
		Name:      "ports",
		Usage:     "list the ports",
		UsageText: "vswitch ports [-o json]",
		Description: `A port is up, no-carrier (no virtual machine holds its device), waiting (its
device or its peer is gone; it goes on when that comes back) or down (its
interface was set down, or a guard shut the port down). VLAN is - where the port
is transparent to tags. rx is what came into the switch, tx what left it.

Example:

    vswitch ports -o json | jq -r '.[] | select(.state == "up").name'`,
		Action: listPorts,
	}
}

func listPorts(c *cli.Context) error {
	return showing(c, (*api.Client).Ports, func(w io.Writer, ports []api.Port) {
		row(w, "NAME", "KIND", "STATE", "IFNAME", "MTU", "VLAN", "RX", "DROPPED", "TX", "DROPPED", "REASON")
		for _, p := range ports {
			var mtu any = "-"
			if p.MTU != 0 {
				mtu = p.MTU
			}
			row(w, p.Name, p.Kind, p.State, dash(p.Ifname), mtu, vlan(p.VLAN),
				p.RX.Frames, dropped(p.RX), p.TX.Frames, dropped(p.TX), dash(p.Reason))
		}
	})
}

// vlan words how a port takes part in VLANs.
func vlan(v api.VLAN) string {
	switch v.Mode {
	case "access":
		return fmt.Sprintf("access=%d", v.Access)
	case "qinq":
		return fmt.Sprintf("qinq=%d", v.QinQ)
	case "trunk":
		var set port.VLANSet
		for _, vid := range v.Trunk {
			set.Add(vid)
		}
		s := "trunk=" + set.String()
		if v.Native != 0 {
			s += fmt.Sprintf(",native=%d", v.Native)
		}
		return s
	}
	return "-"
}
