package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/port"
)

func portsCommand() *cli.Command {
	return &cli.Command{
		Name:      "ports",
		Usage:     "list the ports, or show one with all its settings",
		UsageText: "vswitch ports [NAME] [--rate] [-o json]",
		Description: `Lists the ports. A port is in one of four states: up; no-carrier, when no virtual
machine holds its device; waiting, when its device or peer is gone, until that
comes back; down, when its interface was set down or a guard error-disabled it.
VLAN is - where the port is transparent to tags. rx counts what came into the
switch, tx what left it.

With a NAME, shows all about one port: its settings, where its traffic goes, and
which setting keeps it off the kernel's fast path.

With --rate, shows what ports carry in a second, measured for a second; see also
vswitch top.

Example:

    vswitch ports vm0
    vswitch ports --rate
    vswitch ports -o json | jq -r '.[] | select(.state == "up").name'`,
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "rate", Usage: "show what ports carry in a second"}},
		Action: steering(portsOrOne, "[NAME]"),
	}
}

func portsOrOne(c *cli.Context, cl *api.Client, args []string) error {
	if c.Bool("rate") {
		return portRates(c, cl, args[0])
	}
	if args[0] != "" {
		p, err := cl.Port(c.Context, args[0])
		if err != nil {
			return err
		}
		return show(c, p, func(w io.Writer) { printPort(w, p) })
	}
	ports, err := cl.Ports(c.Context)
	if err != nil {
		return err
	}
	return show(c, ports, func(w io.Writer) {
		row(w, "NAME", "KIND", "STATE", "IFNAME", "MTU", "VLAN", "RX", "DROPPED", "TX", "DROPPED", "REASON")
		for _, p := range ports {
			var mtu any = "-"
			if p.MTU != 0 {
				mtu = p.MTU
			}
			row(w, p.Name, p.Kind, p.State, dash(p.Ifname), mtu, inVLANs(p.VLAN),
				p.RX.Frames, dropped(p.RX), p.TX.Frames, dropped(p.TX), dash(p.Reason))
		}
	})
}

// portRates prints the rates of a port, or of all.
func portRates(c *cli.Context, cl *api.Client, name string) error {
	if name != "" {
		if _, err := cl.Port(c.Context, name); err != nil {
			return err
		}
	}
	return showRates(c, cl, time.Second, "name", func(all []rate) []rate {
		return slices.DeleteFunc(all, func(r rate) bool { return name != "" && r.Name != name })
	})
}

// printPort prints everything about one port.
func printPort(w io.Writer, p api.Port) {
	state := string(p.State)
	if p.Reason != "" {
		state += ": " + p.Reason
	}
	row(w, "Name", p.Name)
	row(w, "Kind", p.Kind)
	row(w, "State", state)
	if p.Ifname != "" {
		row(w, "Interface", fmt.Sprintf("%s, MTU %d", p.Ifname, p.MTU))
	}
	if p.GuestMAC != 0 {
		row(w, "Machine", "MAC "+p.GuestMAC.String()+" (qemu-args)")
	}
	row(w, "VLAN", inVLANs(p.VLAN))
	fast := "on"
	if p.FastPath.By != "" {
		fast += ", " + p.FastPath.By
	}
	if !p.FastPath.On {
		fast = "off: " + strings.Join(p.FastPath.Off, "; ")
	}
	row(w, "Fast path", fmt.Sprintf("%s; %d frames received by it, %d by the daemon", fast, p.FastPath.Frames, p.RX.Frames-min(p.FastPath.Frames, p.RX.Frames)))
	for i, m := range p.Members {
		title := ""
		if i == 0 {
			title = "Members"
		}
		row(w, title, memberLine(m))
	}
	row(w, "Received", traffic(p.RX))
	row(w, "Sent", traffic(p.TX))
	title := "Settings"
	spec := p.Spec.Settings()
	for _, s := range portCatalog().Settings() {
		if v, ok := spec[s.Key]; ok {
			row(w, title, fmt.Sprintf("--%s %s", s.Flag, s.FlagText(v)))
			title = ""
		}
	}
	if title != "" {
		row(w, title, "-")
	}
}

// memberLine describes one of the interfaces of a port.
func memberLine(m api.Member) string {
	line := fmt.Sprintf("%s %s", m.Ifname, m.State)
	if m.Reason != "" {
		line += ": " + m.Reason
	}
	if l := m.LACP; l != nil {
		if p := l.Partner; p != nil {
			line += fmt.Sprintf("; partner %v, key %d, port %d (%s)", p.System, p.Key, p.Port, strings.Join(p.State, " "))
		}
		line += fmt.Sprintf("; LACPDUs %d received, %d sent", l.Received, l.Sent)
		if l.Churn {
			line += "; churn: the two ends have not agreed for a minute"
		}
	}
	return line
}

// inVLANs describes how a port takes part in VLANs.
func inVLANs(v api.VLAN) string {
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
