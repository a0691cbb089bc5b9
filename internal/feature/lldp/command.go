package lldp

import (
	"io"
	"strings"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/table"
)

var commands = []feature.Command{{
	Name:  "lldp",
	Usage: "list the neighbours of ports",
	Description: `Lists the ports that speak LLDP and who is at the other end of their cables, as that
neighbour says. A neighbour that falls silent is forgotten after the time it gave. Of a lag
port each member speaks for itself, and is listed as PORT/MEMBER.
-o json has all that it said: descriptions, VLANs, the longest frame.

The switch speaks LLDP once --lldp is set, through ports to networks. --lldp of a
port turns it on for a station, or off.

Example:

    vswitch set --lldp --lldp-address 192.0.2.1
    vswitch set-port vm0 --lldp on
    vswitch lldp`,
	Run: list,
}}

func list(c *feature.Call) error {
	var all []Port
	if err := c.Client.Do(c.Context, "GET", "/v1/lldp", nil, &all); err != nil {
		return err
	}
	return c.Show(all, func(w io.Writer) {
		table.Row(w, "PORT", "SYSTEM", "CHASSIS", "ITS PORT", "ADDRESS", "CAPABILITIES", "TTL")
		for _, p := range all {
			name := p.Name
			if p.Member != "" {
				name += "/" + p.Member
			}
			for _, n := range p.Neighbors {
				var addresses []string
				for _, a := range n.Addresses {
					addresses = append(addresses, a.String())
				}
				table.Row(w, name, table.Dash(n.SystemName), n.Chassis, n.Port,
					table.Dash(strings.Join(addresses, ",")), table.Dash(strings.Join(n.Capabilities, ",")), n.TTLS)
			}
			if len(p.Neighbors) == 0 {
				table.Row(w, name, "-", "-", "-", "-", "-", "-")
			}
		}
	})
}
