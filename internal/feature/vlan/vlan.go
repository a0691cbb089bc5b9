// Package vlan tells which ports carry which VLANs. What a port carries is in its settings,
// and the core decides by those.
package vlan

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/table"
	"github.com/vswitch/vswitch/port"
)

// Feature describes the list of VLANs.
var Feature = feature.Feature{
	Name: "vlan",
	Help: "show the VLANs",
	New:  func(h feature.Host, _ any) (feature.Instance, error) { return vlans{h}, nil },
	Routes: []feature.Route{{
		Method: "GET", Path: "/v1/vlans", ID: "listVLANs", Help: "The VLANs that ports carry, and VLAN 1, with the ports",
		Answer: []api.VLANMembers{},
		Handle: func(i feature.Instance, _ *http.Request) (any, error) { return i.(vlans).list(), nil },
	}},
	Commands: []feature.Command{
		{
			Name:  "vlan",
			Usage: "show the VLANs",
			Description: `VLANs come by being named on ports: with --access, --trunk, --native or --qinq of
add-port and set-port.

Example:

    vswitch vlan list`,
		},
		{
			Name:  "vlan list",
			Usage: "list the VLANs with their ports",
			Description: `Lists the VLANs that some port carries, and VLAN 1. A VLAN's frames leave by the
untagged ports without its tag, by the tagged ones with it. VLANs that follow each
other and have the same ports share a line.

Example:

    vswitch vlan list -o json`,
			Run: func(c *feature.Call) error {
				all, err := c.Client.VLANs(c.Context)
				if err != nil {
					return err
				}
				return c.Show(all, func(w io.Writer) { print(w, all) })
			},
		},
	},
}

// vlans lists the VLANs of a switch.
type vlans struct{ host feature.Host }

// Stop implements feature.Instance.
func (vlans) Stop() {}

func (v vlans) list() []api.VLANMembers {
	type part struct {
		name     string
		carried  port.VLANSet
		untagged uint16
	}
	var named port.VLANSet
	named.Add(port.DefaultVLAN)
	var ports []part
	for p := range v.host.Ports() {
		ports = append(ports, part{p.Name(), p.VLANs(), p.Policy().Untagged()})
		for i, some := range p.VLANs() {
			named[i] |= some
		}
	}
	all := make([]api.VLANMembers, 0, named.Len())
	for vid := range named.All() {
		m := api.VLANMembers{VLAN: vid, Untagged: []string{}, Tagged: []string{}}
		for i := range ports {
			switch p := &ports[i]; {
			case !p.carried.Has(vid):
			case vid != p.untagged:
				m.Tagged = append(m.Tagged, p.name)
			default:
				m.Untagged = append(m.Untagged, p.name)
			}
		}
		all = append(all, m)
	}
	return all
}

func print(w io.Writer, vlans []api.VLANMembers) {
	table.Row(w, "VLAN", "UNTAGGED", "TAGGED")
	for len(vlans) > 0 {
		first, n := vlans[0], 1
		for n < len(vlans) && vlans[n].VLAN == first.VLAN+uint16(n) &&
			slices.Equal(vlans[n].Untagged, first.Untagged) && slices.Equal(vlans[n].Tagged, first.Tagged) {
			n++
		}
		name := fmt.Sprint(first.VLAN)
		if n > 1 {
			name += fmt.Sprintf("-%d", vlans[n-1].VLAN)
		}
		table.Row(w, name, table.Dash(strings.Join(first.Untagged, ",")), table.Dash(strings.Join(first.Tagged, ",")))
		vlans = vlans[n:]
	}
}
