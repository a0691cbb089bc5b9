package stp

import (
	"fmt"
	"io"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/proto/stp"
	"github.com/vswitch/vswitch/internal/table"
	"github.com/vswitch/vswitch/port"
)

// Describe implements feature.Described.
func (t *tree) Describe(s *api.Switch) { s.STP = true }

// Explain implements feature.Explained.
func (t *tree) Explain(p feature.Port, why port.Drop) string {
	if why != port.DropBlocked {
		return ""
	}
	for _, s := range t.bridge.Status().Ports {
		if s.Number == number(p) {
			return fmt.Sprintf("spanning tree: %s is the %s port of its link, %s; see `vswitch stp`", p.Name(), s.Role, s.State)
		}
	}
	return ""
}

func (t *tree) describe() api.STP {
	s := t.bridge.Status()
	a := api.STP{
		Bridge: s.Bridge.String(), Root: s.Root.String(), RootCost: s.RootCost,
		HelloTimeS: s.HelloTime, MaxAgeS: s.MaxAge, ForwardDelayS: s.ForwardDelay,
		TopologyChanges: s.TopologyChanges, SinceTopologyChangeS: s.SinceTopologyChange,
		Ports: []api.STPPort{},
	}
	for _, sp := range s.Ports {
		p := t.members[sp.Number]
		if sp.Number == s.RootPort {
			a.RootPort = p.Name()
		}
		a.Ports = append(a.Ports, describePort(p.Name(), &sp))
	}
	return a
}

func describePort(name string, s *stp.PortStatus) api.STPPort {
	a := api.STPPort{
		Port: name, Role: s.Role.String(), State: s.State.String(),
		Cost: s.PathCost, Priority: s.ID.Priority(), Edge: s.Edge, Protocol: "rstp",
		DesignatedBridge: s.DesignatedBridge.String(), DesignatedPort: s.DesignatedPort.String(),
		DesignatedCost: s.DesignatedCost,
		RX:             api.BPDUs(s.Rx), TX: api.BPDUs(s.Tx), Invalid: s.Invalid,
	}
	if s.STP {
		a.Protocol = "stp"
	}
	switch {
	case s.BPDUGuarded:
		a.Blocked = "bpdu_guard"
	case s.RootGuarded:
		a.Blocked = "root_guard"
	case s.SelfLooped:
		a.Blocked = "loop"
	}
	return a
}

var show = feature.Command{
	Name:  "stp",
	Usage: "show the spanning tree",
	Description: `Shows the root bridge, and each port's role, state, path cost, designated bridge
and BPDUs in both directions. vswitch set --stp=on makes the switch take part in a
spanning tree; add-port and set-port have the settings of ports.

Example:

    vswitch stp -o json | jq -r '.ports[] | select(.role == "root").port'`,
	Run: func(c *feature.Call) error {
		tree, err := c.Client.STP(c.Context)
		if err != nil {
			return err
		}
		return c.Show(tree, func(w io.Writer) { print(w, tree) })
	},
}

func print(w io.Writer, tree api.STP) {
	table.Row(w, "Bridge", tree.Bridge)
	if tree.RootPort == "" {
		table.Row(w, "Root", "this switch")
	} else {
		table.Row(w, "Root", fmt.Sprintf("%s, cost %d, by %s", tree.Root, tree.RootCost, tree.RootPort))
	}
	table.Row(w, "Times", fmt.Sprintf("hello %d s, max age %d s, forward delay %d s", tree.HelloTimeS, tree.MaxAgeS, tree.ForwardDelayS))
	table.Row(w, "Changes", fmt.Sprintf("%d, the last %d s ago", tree.TopologyChanges, tree.SinceTopologyChangeS))
	fmt.Fprintln(w)
	table.Row(w, "PORT", "ROLE", "STATE", "COST", "PRIO", "TYPE", "DESIGNATED", "RX", "TX", "BLOCKED")
	for _, p := range tree.Ports {
		kind := p.Protocol
		if p.Edge {
			kind += " edge"
		}
		table.Row(w, p.Port, p.Role, p.State, p.Cost, p.Priority, kind, p.DesignatedBridge,
			bpdus(p.RX), bpdus(p.TX), table.Dash(p.Blocked))
	}
}

func bpdus(n api.BPDUs) uint64 { return n.Config + n.TCN + n.RST }
