package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
)

func stpCommand() *cli.Command {
	return &cli.Command{
		Name:      "stp",
		Usage:     "show the spanning tree",
		UsageText: "vswitch stp [-o json]",
		Description: `Shows the root bridge, and each port's role, state, path cost, designated bridge
and BPDUs in both directions. vswitch set --stp=on makes the switch take part in a
spanning tree; add-port and set-port have the settings of ports.

Example:

    vswitch stp -o json | jq -r '.ports[] | select(.role == "root").port'`,
		Action: showTree,
	}
}

func showTree(c *cli.Context) error {
	return showing(c, (*api.Client).STP, func(w io.Writer, tree api.STP) {
		row(w, "Bridge", tree.Bridge)
		if tree.RootPort == "" {
			row(w, "Root", "this switch")
		} else {
			row(w, "Root", fmt.Sprintf("%s, cost %d, by %s", tree.Root, tree.RootCost, tree.RootPort))
		}
		row(w, "Times", fmt.Sprintf("hello %d s, max age %d s, forward delay %d s", tree.HelloTimeS, tree.MaxAgeS, tree.ForwardDelayS))
		row(w, "Changes", fmt.Sprintf("%d, the last %d s ago", tree.TopologyChanges, tree.SinceTopologyChangeS))
		fmt.Fprintln(w)
		row(w, "PORT", "ROLE", "STATE", "COST", "PRIO", "TYPE", "DESIGNATED", "RX", "TX", "BLOCKED")
		for _, p := range tree.Ports {
			kind := p.Protocol
			if p.Edge {
				kind += " edge"
			}
			row(w, p.Port, p.Role, p.State, p.Cost, p.Priority, kind, p.DesignatedBridge,
				bpdus(p.RX), bpdus(p.TX), dash(p.Blocked))
		}
	})
}

func bpdus(n api.BPDUs) uint64 { return n.Config + n.TCN + n.RST }
