package main

import (
	"io"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/daemon"
	"github.com/vswitch/vswitch/port"
)

func mirrorCommand() *cli.Command {
	return &cli.Command{
		Name:      "mirror",
		Usage:     "copy frames to a port or VLAN for inspection",
		UsageText: "vswitch mirror list|add|del",
		Description: `A mirror copies frames of ports or VLANs to a port (SPAN) or into a VLAN (RSPAN).
The original frames are not affected.

Example:

    vswitch mirror list`,
		Subcommands: []*cli.Command{{
			Name:      "list",
			Usage:     "list the mirrors",
			UsageText: "vswitch mirror list [-o json]",
			Description: `Lists the mirrors with what they copy and where to.

Example:

    vswitch mirror list -o json`,
			Action: mirrorList,
		}, {
			Name:      "add",
			Usage:     "add a mirror",
			UsageText: "vswitch mirror add NAME --from PORT[,PORT] | --from-vlan LIST --to PORT | --to-vlan VID [flags]",
			Description: `Copies the frames that the ports of --from receive or send, and the frames of the
VLANs of --from-vlan on all ports. --to is the port that sends the copies; it carries
nothing else until the mirror is removed. With --to-vlan every port that carries that
VLAN tagged sends the copies, with its tag in front of their own. Mirrors survive a
restart. A mirror whose port was removed goes on when a port of that name is added.

--filter copies only the frames that an expression matches:

` + daemon.FilterGrammar + `

Example:

    vswitch mirror add m0 --from vm0 --to vm2
    vswitch mirror add dns --from vm0,vm1 --to mon0 --direction in --filter 'udp port 53'
    vswitch mirror add all10 --from-vlan 10 --to-vlan 900 --snaplen 128`,
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "from", Usage: "`PORTS` to copy from, separated by commas"},
				&cli.StringFlag{Name: "from-vlan", Usage: "VLANs to copy from, a `LIST` as 10,20-29"},
				oneOf(&cli.StringFlag{Name: "direction", Value: "both", Usage: "`WHICH` frames to copy: those the source received (in), sent (out), or both"}, []string{"in", "out", "both"}),
				&cli.StringFlag{Name: "to", Usage: "`PORT` that copies leave by"},
				&cli.IntFlag{Name: "to-vlan", Usage: "`VID` as whose frames copies leave", DefaultText: "none"},
				&cli.IntFlag{Name: "snaplen", Usage: "copy the first `BYTES` of each frame", DefaultText: "all"},
				&cli.StringFlag{Name: "filter", Usage: "copy the frames that `EXPR` means", DefaultText: "all"},
			},
			Action: steering(mirrorAdd, "NAME"),
		}, {
			Name:      "del",
			Usage:     "remove a mirror",
			UsageText: "vswitch mirror del NAME",
			Description: `Removes the mirror; its target takes part in switching again.

Example:

    vswitch mirror del m0`,
			Action: steering(mirrorDel, "NAME"),
		}},
	}
}

func mirrorList(c *cli.Context) error {
	return showing(c, (*api.Client).Mirrors, func(w io.Writer, mirrors []api.Mirror) {
		row(w, "NAME", "FROM", "DIRECTION", "TO", "SNAPLEN", "FILTER")
		for _, m := range mirrors {
			from := m.From
			if m.FromVLAN != "" {
				from = append(from, "vlan="+m.FromVLAN)
			}
			to := m.To
			if m.ToVLAN != 0 {
				to = "vlan=" + strconv.Itoa(int(m.ToVLAN))
			}
			var snapLen any = "-"
			if m.SnapLen != 0 {
				snapLen = m.SnapLen
			}
			row(w, m.Name, strings.Join(from, ","), m.Direction, to, snapLen, dash(m.Filter))
		}
	})
}

func mirrorAdd(c *cli.Context, cl *api.Client, args []string) error {
	m := api.Mirror{
		Name: args[0], FromVLAN: c.String("from-vlan"), Direction: c.String("direction"),
		To: c.String("to"), SnapLen: c.Int("snaplen"), Filter: c.String("filter"),
	}
	if from := c.String("from"); from != "" {
		m.From = strings.Split(from, ",")
	}
	if v := c.Int("to-vlan"); c.IsSet("to-vlan") {
		if err := port.CheckVID(v); err != nil {
			return usagef("--to-vlan: %v", err)
		}
		m.ToVLAN = uint16(v)
	}
	switch {
	case m.From == nil && m.FromVLAN == "":
		return usagef("a mirror copies from somewhere; give --from or --from-vlan")
	case (m.To == "") == (m.ToVLAN == 0):
		return usagef("a mirror has one target; give --to or --to-vlan")
	}
	_, err := cl.AddMirror(c.Context, m)
	return err
}

func mirrorDel(c *cli.Context, cl *api.Client, args []string) error {
	return cl.DelMirror(c.Context, args[0])
}
