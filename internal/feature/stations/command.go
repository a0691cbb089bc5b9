package stations

import (
	"fmt"
	"io"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/table"
	"github.com/vswitch/vswitch/port"
)

// addFlags are the flags of `fdb add`.
type addFlags struct {
	VLAN   uint16 `json:"vlan,omitempty" arg:"VLAN" min:"1" max:"4094" default:"1" help:"VLAN of the entry"`
	Sticky bool   `json:"sticky,omitempty" help:"let the entry age"`
}

// flushFlags are the flags of `fdb flush`.
type flushFlags struct {
	Port string `json:"port,omitempty" arg:"PORT" help:"only entries of this port"`
	VLAN uint16 `json:"vlan,omitempty" arg:"VLAN" min:"1" max:"4094" default:"all" help:"only entries of this VLAN"`
}

var commands = []feature.Command{
	{
		Name:  "fdb",
		Usage: "list and change the forwarding database",
		Description: `The forwarding database says which address is behind which port. The switch
learns it from the frames it sees.

Example:

    vswitch fdb list`,
	},
	{
		Name:  "fdb list",
		Usage: "list the entries",
		Description: `The age is in seconds since the address was last seen.

Example:

    vswitch fdb list -o json`,
		Run: func(c *feature.Call) error {
			entries, err := c.Client.FDB(c.Context)
			if err != nil {
				return err
			}
			return c.Show(entries, func(w io.Writer) {
				table.Row(w, "MAC", "VLAN", "PORT", "TYPE", "AGE")
				for _, e := range entries {
					table.Row(w, e.MAC, e.VLAN, table.Dash(e.Port), e.Type, e.AgeS)
				}
			})
		},
	},
	{
		Name:  "fdb add",
		Usage: "add a static or a sticky entry",
		Description: `A static entry does not age, and is not moved by frames that come by another
port. It is kept over a restart. A sticky one is not moved either, but it ages when
the station is silent; it is there again when its port comes up.

Example:

    vswitch fdb add 52:54:00:12:34:56 vm0
    vswitch fdb add 52:54:00:12:34:57 vm1 --vlan 10 --sticky`,
		Args:  []string{"MAC", "PORT"},
		Flags: addFlags{},
		Check: checkMAC,
		Run: func(c *feature.Call) error {
			f := c.Flags.(addFlags)
			mac, _ := port.ParseMAC(c.Args[0]) // was checked
			_, err := c.Client.AddFDB(c.Context, api.AddFDB{MAC: mac, VLAN: f.VLAN, Port: c.Args[1], Sticky: f.Sticky})
			return err
		},
	},
	{
		Name:  "fdb del",
		Usage: "remove an entry",
		Description: `Removes the entry of an address, whether learned or static.

Example:

    vswitch fdb del 52:54:00:12:34:56`,
		Args:  []string{"MAC"},
		Flags: inVLAN{},
		Check: checkMAC,
		Run: func(c *feature.Call) error {
			mac, _ := port.ParseMAC(c.Args[0]) // was checked
			return c.Client.DelFDB(c.Context, mac, c.Flags.(inVLAN).VLAN)
		},
	},
	{
		Name:  "fdb flush",
		Usage: "forget learned entries",
		Description: `Forgets all learned entries, or those of a port or a VLAN; static ones stay.

Example:

    vswitch fdb flush --port vm0`,
		Flags: flushFlags{},
		Run: func(c *feature.Call) error {
			f := c.Flags.(flushFlags)
			n, err := c.Client.FlushFDB(c.Context, api.FlushFDB{Port: f.Port, VLAN: f.VLAN})
			if err != nil {
				return err
			}
			return c.Show(api.Flushed{Flushed: n}, func(w io.Writer) { fmt.Fprintf(w, "%d entries forgotten\n", n) })
		},
	},
}

func checkMAC(c *feature.Call) error {
	_, err := port.ParseStation(c.Args[0])
	return err
}
