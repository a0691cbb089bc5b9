package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
)

func mdbCommand() *cli.Command {
	vlan := &cli.UintFlag{Name: "vlan", Usage: "`VLAN` of the group (default: 1)"}
	return &cli.Command{
		Name:      "mdb",
		Usage:     "list and change the multicast groups of ports",
		UsageText: "vswitch mdb list|add|del",
		Description: `With snooping (vswitch set --snooping=on) the switch hears by IGMP and MLD which hosts
join which groups, and sends a group only to their ports and to routers.

Example:

    vswitch mdb list`,
		Subcommands: []*cli.Command{{
			Name:      "list",
			Usage:     "list groups, router ports and queriers",
			UsageText: "vswitch mdb list [-o json]",
			Description: `Lists the groups of each port, static or learned from its hosts; the ports to
multicast routers, which get all groups; and the querier of each VLAN, which asks
the hosts for their groups. A VLAN is flooded until a querier is heard and the hosts
had time to answer. Where no router asks, use vswitch set --snooping --querier.

Example:

    vswitch mdb list -o json | jq -r '.groups[].group'`,
			Action: mdbList,
		}, {
			Name:      "add",
			Usage:     "always send a group to a port",
			UsageText: "vswitch mdb add GROUP PORT [--vlan V]",
			Description: `Sends a group to a port whatever its hosts report. It is kept over a restart.

Example:

    vswitch mdb add 239.1.2.3 vm0
    vswitch mdb add ff05::1:3 vm0 --vlan 10`,
			Flags: []cli.Flag{vlan},
			Action: mdbChange(func(ctx context.Context, cl *api.Client, g api.AddGroup) error {
				_, err := cl.AddGroup(ctx, g)
				return err
			}),
		}, {
			Name:      "del",
			Usage:     "take back `mdb add`",
			UsageText: "vswitch mdb del GROUP PORT [--vlan V]",
			Description: `Takes a static group back. The port still gets what its hosts report.

Example:

    vswitch mdb del 239.1.2.3 vm0`,
			Flags: []cli.Flag{vlan},
			Action: mdbChange(func(ctx context.Context, cl *api.Client, g api.AddGroup) error {
				return cl.DelGroup(ctx, g.Group, g.Port, g.VLAN)
			}),
		}},
	}
}

// mdbChange returns the action of a command that changes a static group.
func mdbChange(change func(context.Context, *api.Client, api.AddGroup) error) cli.ActionFunc {
	return steering(func(c *cli.Context, cl *api.Client, args []string) error {
		group, err := netip.ParseAddr(args[0])
		if err != nil || !group.IsMulticast() {
			return usagef("%q is not a multicast group; write it as 239.1.2.3 or ff05::1:3", args[0])
		}
		vlan, err := vlanFlag(c)
		if err != nil {
			return err
		}
		return change(c.Context, cl, api.AddGroup{Group: group, Port: args[1], VLAN: vlan})
	}, "GROUP", "PORT")
}

func mdbList(c *cli.Context) error {
	return showing(c, (*api.Client).MDB, func(w io.Writer, mdb api.MDB) {
		row(w, "GROUP", "VLAN", "PORT", "TYPE", "PROTOCOL", "SOURCES", "EXPIRES")
		for _, g := range mdb.Groups {
			row(w, g.Group, g.VLAN, g.Port, g.Type, dash(g.Protocol), sources(g), expires(g.ExpiresS))
		}
		fmt.Fprintln(w)
		row(w, "ROUTER PORT", "VLAN", "FAMILY", "TYPE", "EXPIRES")
		for _, r := range mdb.Routers {
			row(w, r.Port, r.VLAN, r.Family, r.Type, expires(r.ExpiresS))
		}
		fmt.Fprintln(w)
		row(w, "QUERIER", "VLAN", "FAMILY", "PORT", "PROTOCOL", "MULTICAST", "EXPIRES")
		for _, q := range mdb.Queriers {
			state := "flooded"
			if q.Filtering {
				state = "filtered"
			}
			row(w, dash(q.Address), q.VLAN, q.Family, querierPort(q), dash(q.Protocol), state, expires(q.ExpiresS))
		}
	})
}

// sources describes which sources of a group are wanted.
func sources(g api.Group) string {
	switch {
	case g.Protocol == "" || g.Filter == "exclude" && len(g.Sources) == 0:
		return "all"
	case g.Filter == "exclude":
		return "all but " + join(g.Sources)
	}
	return join(g.Sources)
}

func join(addrs []netip.Addr) (list string) {
	for i, a := range addrs {
		if i > 0 {
			list += ","
		}
		list += a.String()
	}
	return list
}

func querierPort(q api.Querier) string {
	if q.Own {
		return "this switch"
	}
	return dash(q.Port)
}

func expires(seconds int64) string {
	if seconds == 0 {
		return "-"
	}
	return fmt.Sprint(seconds)
}
