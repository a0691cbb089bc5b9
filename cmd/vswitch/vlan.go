package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
)

func vlanCommand() *cli.Command {
	return &cli.Command{
		Name:      "vlan",
		Usage:     "show the VLANs",
		UsageText: "vswitch vlan list",
		Description: `VLANs come by being named on ports: with --access, --trunk, --native or --qinq of
add-port and set-port.

Example:

    vswitch vlan list`,
		Subcommands: []*cli.Command{{
			Name:      "list",
			Usage:     "list the VLANs with their ports",
			UsageText: "vswitch vlan list [-o json]",
			Description: `Lists the VLANs that some port carries, and VLAN 1. A VLAN's frames leave by the
untagged ports without its tag, by the tagged ones with it. VLANs that follow each
other and have the same ports share a line.

Example:

    vswitch vlan list -o json`,
			Action: vlanList,
		}},
	}
}

func vlanList(c *cli.Context) error {
	return showing(c, (*api.Client).VLANs, printVLANs)
}

func printVLANs(w io.Writer, vlans []api.VLANMembers) {
	row(w, "VLAN", "UNTAGGED", "TAGGED")
	for len(vlans) > 0 {
		first, n := vlans[0], 1
		for n < len(vlans) && vlans[n].VLAN == first.VLAN+uint16(n) &&
			slices.Equal(vlans[n].Untagged, first.Untagged) && slices.Equal(vlans[n].Tagged, first.Tagged) {
			n++
		}
		name := fmt.Sprint(first.VLAN)
		if n > 1 {
			name += fmt.Sprintf("-%d", vlans[n-1].VLAN)
		}
		row(w, name, dash(strings.Join(first.Untagged, ",")), dash(strings.Join(first.Tagged, ",")))
		vlans = vlans[n:]
	}
}
