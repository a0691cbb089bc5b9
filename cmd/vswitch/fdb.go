package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/port"
)

func fdbCommand() *cli.Command {
	vlan := func(usage, otherwise string) cli.Flag {
		return &cli.UintFlag{Name: "vlan", Usage: usage, DefaultText: otherwise}
	}
	return &cli.Command{
		Name:      "fdb",
		Usage:     "list and change the forwarding database",
		UsageText: "vswitch fdb list|add|del|flush",
		Description: `The forwarding database says which address is behind which port. The switch
learns it from the frames it sees.

Example:

    vswitch fdb list`,
		Subcommands: []*cli.Command{{
			Name:      "list",
			Usage:     "list the entries",
			UsageText: "vswitch fdb list [-o json]",
			Description: `The age is in seconds since the address was last seen.

Example:

    vswitch fdb list -o json`,
			Action: fdbList,
		}, {
			Name:      "add",
			Usage:     "add a static or a sticky entry",
			UsageText: "vswitch fdb add MAC PORT [--vlan V] [--sticky]",
			Description: `A static entry does not age, and is not moved by frames that come by another
port. It is kept over a restart. A sticky one is not moved either, but it ages when
the station is silent; it is there again when its port comes up.

Example:

    vswitch fdb add 52:54:00:12:34:56 vm0
    vswitch fdb add 52:54:00:12:34:57 vm1 --vlan 10 --sticky`,
			Flags: []cli.Flag{
				vlan("`VLAN` of the entry", "1"),
				&cli.BoolFlag{Name: "sticky", Usage: "let the entry age"},
			},
			Action: steering(fdbAdd, "MAC", "PORT"),
		}, {
			Name:      "del",
			Usage:     "remove an entry",
			UsageText: "vswitch fdb del MAC [--vlan V]",
			Description: `Removes the entry of an address, whether learned or static.

Example:

    vswitch fdb del 52:54:00:12:34:56`,
			Flags:  []cli.Flag{vlan("`VLAN` of the entry", "1")},
			Action: steering(fdbDel, "MAC"),
		}, {
			Name:      "flush",
			Usage:     "forget learned entries",
			UsageText: "vswitch fdb flush [--port P] [--vlan V]",
			Description: `Forgets all learned entries, or those of a port or a VLAN; static ones stay.

Example:

    vswitch fdb flush --port vm0`,
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "port", Usage: "only entries of this `PORT`"},
				vlan("only entries of this `VLAN`", "all"),
			},
			Action: steering(fdbFlush),
		}},
	}
}

// vlanFlag returns the value of --vlan, or 0 if it was not given.
func vlanFlag(c *cli.Context) (uint16, error) {
	v := c.Uint("vlan")
	if c.IsSet("vlan") && (v < 1 || v > 4094) {
		return 0, usagef("there is no VLAN %d; use 1 to 4094", v)
	}
	return uint16(v), nil
}

func fdbList(c *cli.Context) error {
	return showing(c, (*api.Client).FDB, func(w io.Writer, entries []api.FDBEntry) {
		row(w, "MAC", "VLAN", "PORT", "TYPE", "AGE")
		for _, e := range entries {
			row(w, e.MAC, e.VLAN, dash(e.Port), e.Type, e.AgeS)
		}
	})
}

func fdbAdd(c *cli.Context, cl *api.Client, args []string) error {
	mac, vlan, err := station(c, args[0])
	if err != nil {
		return err
	}
	_, err = cl.AddFDB(c.Context, api.AddFDB{MAC: mac, VLAN: vlan, Port: args[1], Sticky: c.Bool("sticky")})
	return err
}

func fdbDel(c *cli.Context, cl *api.Client, args []string) error {
	mac, vlan, err := station(c, args[0])
	if err != nil {
		return err
	}
	return cl.DelFDB(c.Context, mac, vlan)
}

// station reads the address and VLAN of an entry from the command line.
func station(c *cli.Context, address string) (port.MAC, uint16, error) {
	mac, err := port.ParseMAC(address)
	if err != nil {
		return 0, 0, usageError(err.Error())
	}
	vlan, err := vlanFlag(c)
	return mac, vlan, err
}

func fdbFlush(c *cli.Context, cl *api.Client, _ []string) error {
	vlan, err := vlanFlag(c)
	if err != nil {
		return err
	}
	n, err := cl.FlushFDB(c.Context, api.FlushFDB{Port: c.String("port"), VLAN: vlan})
	if err != nil {
		return err
	}
	return show(c, api.Flushed{Flushed: n}, func(w io.Writer) { fmt.Fprintf(w, "%d entries forgotten\n", n) })
}
