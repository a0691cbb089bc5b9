package mirror

import (
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/packet/pfilter"
	"github.com/vswitch/vswitch/internal/table"
)

// flags are the flags of `mirror add`.
type flags struct {
	From      string    `json:"from,omitempty" arg:"PORTS" help:"ports to copy from, separated by commas"`
	FromVLAN  string    `json:"from_vlan,omitempty" arg:"LIST" help:"VLANs to copy from, such as 10,20-29"`
	Direction direction `json:"direction,omitempty" arg:"WHICH" default:"both" help:"frames to copy: those the source received (in), sent (out), or both"`
	To        string    `json:"to,omitempty" arg:"PORT" help:"port that copies leave by"`
	ToVLAN    uint16    `json:"to_vlan,omitempty" arg:"VID" min:"1" max:"4094" default:"none" help:"VLAN whose frames copies become"`
	SnapLen   int       `json:"snaplen,omitempty" arg:"BYTES" min:"14" default:"all" help:"copy the first bytes of each frame"`
	Filter    string    `json:"filter,omitempty" arg:"EXPR" default:"all" help:"copy the frames that an expression matches"`
}

type direction string

// Values implements setting.Enum.
func (direction) Values() []string { return []string{"in", "out", "both"} }

var commands = []feature.Command{
	{
		Name:  "mirror",
		Usage: "copy frames to a port or VLAN for inspection",
		Description: `A mirror copies frames of ports or VLANs to a port (SPAN) or into a VLAN (RSPAN).
The original frames are not affected.

Example:

    vswitch mirror list`,
	},
	{
		Name:  "mirror list",
		Usage: "list the mirrors",
		Description: `Lists the mirrors with what they copy and where to.

Example:

    vswitch mirror list -o json`,
		Run: list,
	},
	{
		Name:  "mirror add",
		Usage: "add a mirror",
		Description: `Copies the frames that the ports of --from receive or send, and the frames of the
VLANs of --from-vlan on all ports. The originals are not affected. --to is the port
that sends the copies; it carries nothing else until the mirror is removed. With
--to-vlan every port that carries that VLAN tagged sends the copies, with its tag in
front of their own. Mirrors survive a restart. A mirror whose port was removed goes
on when a port of that name is added.

--filter copies only the frames that an expression matches:

` + pfilter.Grammar + `

Example:

    vswitch mirror add m0 --from vm0 --to vm2
    vswitch mirror add dns --from vm0,vm1 --to mon0 --direction in --filter 'udp port 53'
    vswitch mirror add all10 --from-vlan 10 --to-vlan 900 --snaplen 128`,
		Args:  []string{"NAME"},
		Flags: flags{},
		Check: func(c *feature.Call) error {
			switch f := c.Flags.(flags); {
			case f.From == "" && f.FromVLAN == "":
				return errors.New("a mirror copies from somewhere; give --from or --from-vlan")
			case (f.To == "") == (f.ToVLAN == 0):
				return errors.New("a mirror has one target; give --to or --to-vlan")
			}
			return nil
		},
		Run: func(c *feature.Call) error {
			f := c.Flags.(flags)
			m := api.Mirror{
				Name: c.Args[0], FromVLAN: f.FromVLAN, Direction: string(f.Direction),
				To: f.To, ToVLAN: f.ToVLAN, SnapLen: f.SnapLen, Filter: f.Filter,
			}
			if f.From != "" {
				m.From = strings.Split(f.From, ",")
			}
			_, err := c.Client.AddMirror(c.Context, m)
			return err
		},
	},
	{
		Name:  "mirror del",
		Usage: "remove a mirror",
		Description: `Removes the mirror; its target takes part in switching again.

Example:

    vswitch mirror del m0`,
		Args: []string{"NAME"},
		Run:  func(c *feature.Call) error { return c.Client.DelMirror(c.Context, c.Args[0]) },
	},
}

func list(c *feature.Call) error {
	all, err := c.Client.Mirrors(c.Context)
	if err != nil {
		return err
	}
	return c.Show(all, func(w io.Writer) {
		table.Row(w, "NAME", "FROM", "DIRECTION", "TO", "SNAPLEN", "FILTER")
		for _, m := range all {
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
			table.Row(w, m.Name, strings.Join(from, ","), m.Direction, to, snapLen, table.Dash(m.Filter))
		}
	})
}
