package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
)

func showCommand() *cli.Command {
	return &cli.Command{
		Name:      "show",
		Usage:     "show the switch and its totals",
		UsageText: "vswitch show [-o json]",
		Description: `Shows the daemon, how many ports are in which state, how full the forwarding
database is, and what all ports together carried and dropped.

Example:

    vswitch show --name lab`,
		Action: showSwitch,
	}
}

func showSwitch(c *cli.Context) error {
	return showing(c, (*api.Client).Switch, func(w io.Writer, s api.Switch) {
		row(w, "Name", s.Name)
		row(w, "Process", fmt.Sprintf("%d, up %v", s.PID, time.Duration(s.UptimeS)*time.Second))
		row(w, "Version", s.Version)
		if s.StateDir == "" {
			row(w, "State", "not kept")
		} else {
			row(w, "State", s.StateDir)
		}
		row(w, "Sandbox", dash(strings.Join(s.Sandbox, ", ")))
		row(w, "Ports", portsByState(s.Ports))
		aging := "no ageing"
		if s.FDB.AgingS != 0 {
			aging = fmt.Sprintf("ageing %d s", s.FDB.AgingS)
		}
		row(w, "FDB", fmt.Sprintf("%d of %d entries, %s", s.FDB.Size, s.FDB.Capacity, aging))
		if s.FDB.Moves > 0 {
			row(w, "MAC moves", fmt.Sprintf("%d, flapping %d times, %d stations held", s.FDB.Moves, s.FDB.Flaps, s.FDB.Held))
		}
		row(w, "Fast path", fastPath(s.FastPath, s.RX.Frames))
		row(w, "Guards", guards(s))
		row(w, "Protocols", protocols(s))
		row(w, "Settings", made(s.Settings))
		row(w, "Received", traffic(s.RX))
		row(w, "Sent", traffic(s.TX))
	})
}

// made returns the settings that are set, as flags.
func made(s api.Spec) string {
	var flags []string
	all := s.Settings()
	for _, f := range switchFields() {
		if v, ok := all[f.Key]; ok {
			flags = append(flags, fmt.Sprintf("--%s=%s", f.Flag, f.FlagText(v)))
		}
	}
	return dash(strings.Join(flags, " "))
}

// fastPath describes whether the kernel forwards, and if not, why.
func fastPath(f api.FastPath, received uint64) string {
	paths := fmt.Sprintf("%d frames by it, %d by the daemon", f.Frames, received-min(f.Frames, received))
	switch {
	case !f.On:
		return "off: " + f.Reason
	case !f.Pinned:
		return fmt.Sprintf("on until the daemon ends; %s", paths)
	}
	return "on; " + paths
}

// protocols describes the protocols that the switch speaks.
func protocols(s api.Switch) string {
	var parts []string
	if s.STP {
		parts = append(parts, "spanning tree")
	}
	switch {
	case s.Querier:
		parts = append(parts, "multicast snooping and querier")
	case s.Snooping:
		parts = append(parts, "multicast snooping")
	}
	return dash(strings.Join(parts, ", "))
}

// guards describes what the switch guards against.
func guards(s api.Switch) string {
	recovery := "no recovery"
	if s.RecoveryS != 0 {
		recovery = fmt.Sprintf("recovery %v", seconds(s.RecoveryS))
	}
	parts := []string{recovery}
	if s.LoopDetect {
		parts = append(parts, "loop detection")
	}
	if s.HoldDownS != 0 {
		parts = append(parts, fmt.Sprintf("hold-down %v", seconds(s.HoldDownS)))
	}
	if s.GroupForward != 0 {
		parts = append(parts, fmt.Sprintf("group forward %#04x", s.GroupForward))
	}
	return strings.Join(parts, ", ")
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func portsByState(ports map[api.State]int) string {
	sum, parts := 0, []string{}
	for _, state := range api.States {
		if n := ports[state]; n > 0 {
			sum += n
			parts = append(parts, fmt.Sprintf("%d %s", n, state))
		}
	}
	if sum == 0 {
		return "none"
	}
	return fmt.Sprintf("%d (%s)", sum, strings.Join(parts, ", "))
}
