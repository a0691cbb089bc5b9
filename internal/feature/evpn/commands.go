package evpn

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/internal/table"
)

// flags are the flags of `evpn neighbor add`.
type flags struct {
	AS       uint32           `json:"as,omitempty" arg:"N" help:"autonomous system of the neighbor"`
	Password string           `json:"password,omitempty" arg:"TEXT" default:"none" help:"of TCP MD5 signatures; both ends need it"`
	Source   setting.Addr     `json:"source,omitzero" arg:"ADDRESS" default:"the system's choice" help:"own address of the session"`
	Hold     setting.Duration `json:"hold,omitzero" arg:"TIME" default:"9s" help:"silence after which the neighbor counts as dead, 3s to 1h; the shorter one of both ends applies"`
	BFD      bool             `json:"bfd,omitempty" help:"notice within a second that the neighbor is dead; it has to speak BFD (RFC 5880), too"`
	Port     uint16           `json:"port,omitempty" arg:"N" min:"1" default:"179" help:"TCP port of the neighbor"`
}

var commands = []feature.Command{
	{
		Name:  "evpn",
		Usage: "share stations with other hosts by BGP EVPN",
		Description: `With EVPN (RFC 7432) each switch announces its stations to the others by BGP, so that
known stations are never flooded and one that moves is found at once. It needs a
vxlan port, which carries the frames.

Example:

    vswitch add-port up0 --kind vxlan --local 192.0.2.1 --vni 10010
    vswitch set --evpn-as 65001
    vswitch evpn neighbor add 192.0.2.254 --as 65001`,
	},
	{
		Name:  "evpn neighbors",
		Usage: "list the BGP neighbors and their sessions",
		Description: `Lists the neighbors with the state of their sessions, for how long it has been so, the
number of routes received, and why there is no session.

Example:

    vswitch evpn neighbors -o json | jq -r '.[] | select(.state != "established").address'`,
		Run: listNeighbors,
	},
	{
		Name:  "evpn routes",
		Usage: "list the routes, own and of neighbors",
		Description: `Lists the routes that this switch announces and those that its neighbors announce:
stations (mac), with an IP address or without, and hosts that get floods (flood).
Routes of virtual networks that this switch does not have are listed, too, as unused. So are
those with a label, which is the VNI that their host wants in frames, if no route target names it.
Routes that are left out are not listed; evpn neighbors says why they are.

Example:

    vswitch evpn routes`,
		Run: listRoutes,
	},
	{
		Name:  "evpn macs",
		Usage: "list the stations and the hosts where they are",
		Description: `Lists the stations of all virtual networks: those here with their port, those of other
hosts with the host's VTEP, the mobility sequence number and the known IP addresses.
A station that is sticky must not move. One that is held was heard at two hosts, and
stays at one for a while.

Example:

    vswitch evpn macs -o json | jq -r '.[] | select(.vtep == "192.0.2.2").mac'`,
		Run: listMACs,
	},
	{
		Name:  "evpn neighbor",
		Usage: "add and remove BGP neighbors",
		Description: `A neighbor is another switch, or a route reflector that passes the routes of all on, such
as FRR or a router of the fabric. Neighbors survive a restart.

Example:

    vswitch evpn neighbor add 192.0.2.254 --as 65000`,
	},
	{
		Name:  "evpn neighbor add",
		Usage: "exchange routes with a BGP neighbor",
		Description: `Exchanges routes with a neighbor: of the same autonomous system (iBGP) or of another
(eBGP). Both ends connect. The neighbor must activate the address family l2vpn evpn.
In iBGP each switch needs a session with each other one, or with a route reflector.

Example:

    vswitch evpn neighbor add 192.0.2.254 --as 65000
    vswitch evpn neighbor add 192.0.2.253 --as 65000 --password s3cret --bfd`,
		Args:  []string{"ADDRESS"},
		Flags: flags{},
		Check: func(c *feature.Call) error {
			if _, err := address(c); err != nil {
				return err
			}
			if f := c.Flags.(flags); f.AS == 0 {
				return errors.New("a BGP neighbor needs its autonomous system; give --as")
			} else if time.Duration(f.Hold)%time.Second != 0 {
				return fmt.Errorf("a hold time is whole seconds, not %v", f.Hold)
			}
			return nil
		},
		Run: func(c *feature.Call) error {
			a, err := address(c)
			if err != nil {
				return err
			}
			f := c.Flags.(flags)
			_, err = c.Client.AddEVPNNeighbor(c.Context, api.AddEVPNNeighbor{
				Address: a, AS: f.AS, Password: f.Password, Source: f.Source.Addr, Port: f.Port, BFD: f.BFD, HoldS: int64(time.Duration(f.Hold) / time.Second),
			})
			return err
		},
	},
	{
		Name:  "evpn neighbor del",
		Usage: "end the exchange with a BGP neighbor",
		Description: `Ends the session. The stations that were known by this neighbor alone are forgotten.

Example:

    vswitch evpn neighbor del 192.0.2.254`,
		Args:  []string{"ADDRESS"},
		Check: func(c *feature.Call) error { _, err := address(c); return err },
		Run: func(c *feature.Call) error {
			a, err := address(c)
			if err != nil {
				return err
			}
			return c.Client.DelEVPNNeighbor(c.Context, a)
		},
	},
}

// address returns the argument of a call.
func address(c *feature.Call) (netip.Addr, error) {
	a, err := netip.ParseAddr(c.Args[0])
	if err != nil {
		return a, fmt.Errorf("%q is not an IP address; write it as 192.0.2.2 or 2001:db8::2", c.Args[0])
	}
	return a, nil
}

func listNeighbors(c *feature.Call) error {
	all, err := c.Client.EVPNNeighbors(c.Context)
	if err != nil {
		return err
	}
	return c.Show(all, func(w io.Writer) {
		table.Row(w, "NEIGHBOR", "AS", "STATE", "SINCE", "ROUTES", "BFD", "PROBLEM")
		for _, n := range all {
			table.Row(w, n.Address, n.AS, n.State, time.Duration(n.SinceS)*time.Second, n.Routes, table.Dash(n.BFD), table.Dash(n.Problem))
		}
	})
}

func listRoutes(c *feature.Call) error {
	all, err := c.Client.EVPNRoutes(c.Context)
	if err != nil {
		return err
	}
	return c.Show(all, func(w io.Writer) {
		table.Row(w, "TYPE", "VNI", "MAC", "IP", "VTEP", "SEQ", "FLAGS", "RD", "NEIGHBOR")
		for _, r := range all {
			mac, neighbor := "", "own"
			if r.MAC != 0 {
				mac = r.MAC.String()
			}
			if r.Neighbor.IsValid() {
				neighbor = r.Neighbor.String()
			}
			table.Row(w, r.Type, r.VNI, table.Dash(mac), table.Dash(addrText(r.IP)), r.VTEP, r.Seq,
				marks(mark{"sticky", r.Sticky}, mark{"router", r.Router}, mark{"stale", r.Stale}, mark{"unused", !r.Used}, mark{fmt.Sprintf("label %d", r.Label), r.Label != 0}), r.RD, neighbor)
		}
	})
}

func listMACs(c *feature.Call) error {
	all, err := c.Client.EVPNMACs(c.Context)
	if err != nil {
		return err
	}
	return c.Show(all, func(w io.Writer) {
		table.Row(w, "VNI", "VLAN", "MAC", "PORT", "VTEP", "SEQ", "FLAGS", "IP")
		for _, m := range all {
			var ips []string
			for _, ip := range m.IPs {
				ips = append(ips, ip.String())
			}
			table.Row(w, m.VNI, m.VLAN, m.MAC, table.Dash(m.Port), m.VTEP, m.Seq, marks(mark{"sticky", m.Sticky}, mark{"held", m.Held}), table.Dash(strings.Join(ips, ",")))
		}
	})
}

// mark is a word for a cell that lists what is true.
type mark struct {
	word string
	on   bool
}

func marks(all ...mark) string {
	var on []string
	for _, m := range all {
		if m.on {
			on = append(on, m.word)
		}
	}
	return table.Dash(strings.Join(on, ","))
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
