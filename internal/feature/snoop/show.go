package snoop

import (
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/proto/mcast"
	"github.com/vswitch/vswitch/internal/table"
)

// Describe implements feature.Described.
func (sn *snooping) Describe(s *api.Switch) {
	s.Snooping, s.Querier = sn.set.Snooping, sn.set.Querier
}

func (sn *snooping) describe() (api.MDB, error) {
	if err := sn.on(); err != nil {
		return api.MDB{}, err
	}
	sn.do(func() {})
	names := make(map[uint16]string)
	for p := range sn.host.Ports() {
		names[p.Number()] = p.Name()
	}
	a := api.MDB{Groups: []api.Group{}, Routers: []api.RouterPort{}, Queriers: []api.Querier{}, Unregistered: string(Flood)}
	if sn.set.Unregistered != "" {
		a.Unregistered = string(sn.set.Unregistered)
	}
	for _, g := range sn.core.Groups() {
		a.Groups = append(a.Groups, describeGroup(names[g.Port], &g))
	}
	for _, r := range sn.core.Routers() {
		a.Routers = append(a.Routers, api.RouterPort{
			VLAN: r.VLAN, Family: r.Family.String(), Port: names[r.Port], Type: groupType(r.Static), ExpiresS: seconds(r.Expires),
		})
	}
	for _, q := range sn.core.Queriers() {
		a.Queriers = append(a.Queriers, describeQuerier(names, &q))
	}
	st := sn.core.Stats()
	a.Messages = api.SnoopedMessages{
		Queries: st.Queries, Reports: st.Reports, Leaves: st.Leaves, QueriesSent: st.QueriesSent,
		Dropped: make(map[string]uint64),
	}
	for why, n := range st.Dropped {
		if n > 0 {
			a.Messages.Dropped[mcast.Reason(why).String()] = n
		}
	}
	return a, nil
}

func describeGroup(name string, g *mcast.Membership) api.Group {
	a := api.Group{VLAN: g.VLAN, Group: g.Group, Port: name, Type: groupType(g.Static), ExpiresS: seconds(g.Expires)}
	if !g.Learned {
		return a
	}
	a.Protocol, a.Filter = protocol(g.Group.Is4(), g.Version), "include"
	if g.Exclude {
		a.Filter = "exclude"
	}
	for _, src := range g.Sources {
		if src.Blocked == g.Exclude {
			a.Sources = append(a.Sources, src.Addr)
		}
	}
	return a
}

func describeQuerier(names map[uint16]string, q *mcast.QuerierState) api.Querier {
	a := api.Querier{VLAN: q.VLAN, Family: q.Family.String(), Own: q.Own, Filtering: q.Filtering, ExpiresS: seconds(q.Expires)}
	if q.Addr.IsValid() {
		a.Address, a.Protocol = q.Addr.String(), protocol(q.Family == mcast.IPv4, q.Version)
		if !q.Own {
			a.Port = names[q.Port]
		}
	}
	return a
}

func groupType(static bool) string {
	if static {
		return "static"
	}
	return "learned"
}

func protocol(ipv4 bool, version int) string {
	names := [...]string{"", "mldv1", "mldv2"}
	if ipv4 {
		return [...]string{"", "igmpv1", "igmpv2", "igmpv3"}[version]
	}
	return names[version]
}

// seconds rounds up: an existing entry has not expired.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

var commands = []feature.Command{
	{
		Name:  "mdb",
		Usage: "list and change the multicast groups of ports",
		Description: `With snooping (vswitch set --snooping=on) the switch hears by IGMP and MLD which hosts
join which groups, and sends a group only to their ports and to routers.

Example:

    vswitch mdb list`,
	},
	{
		Name:  "mdb list",
		Usage: "list groups, router ports and queriers",
		Description: `Lists the groups of each port, static or learned from its hosts; the ports to
multicast routers, which get all groups; and the querier of each VLAN, which asks
the hosts for their groups. A VLAN is flooded until a querier is heard and the hosts
had time to answer. Where no router asks, use vswitch set --snooping --querier.

Example:

    vswitch mdb list -o json | jq -r '.groups[].group'`,
		Run: func(c *feature.Call) error {
			mdb, err := c.Client.MDB(c.Context)
			if err != nil {
				return err
			}
			return c.Show(mdb, func(w io.Writer) { print(w, mdb) })
		},
	},
	{
		Name:  "mdb add",
		Usage: "always send a group to a port",
		Description: `Sends a group to a port whatever its hosts report. It is kept over a restart.

Example:

    vswitch mdb add 239.1.2.3 vm0
    vswitch mdb add ff05::1:3 vm0 --vlan 10`,
		Args:  []string{"GROUP", "PORT"},
		Flags: inVLAN{},
		Check: checkGroup,
		Run: func(c *feature.Call) error {
			_, err := c.Client.AddGroup(c.Context, api.AddGroup{
				Group: netip.MustParseAddr(c.Args[0]), Port: c.Args[1], VLAN: c.Flags.(inVLAN).VLAN,
			})
			return err
		},
	},
	{
		Name:  "mdb del",
		Usage: "take back `mdb add`",
		Description: `Takes a static group back. The port still gets what its hosts report.

Example:

    vswitch mdb del 239.1.2.3 vm0`,
		Args:  []string{"GROUP", "PORT"},
		Flags: inVLAN{},
		Check: checkGroup,
		Run: func(c *feature.Call) error {
			return c.Client.DelGroup(c.Context, netip.MustParseAddr(c.Args[0]), c.Args[1], c.Flags.(inVLAN).VLAN)
		},
	},
}

func checkGroup(c *feature.Call) error {
	if group, err := netip.ParseAddr(c.Args[0]); err != nil || !group.IsMulticast() {
		return fmt.Errorf("%q is not a multicast group; write it as 239.1.2.3 or ff05::1:3", c.Args[0])
	}
	return nil
}

func print(w io.Writer, mdb api.MDB) {
	table.Row(w, "GROUP", "VLAN", "PORT", "TYPE", "PROTOCOL", "SOURCES", "EXPIRES")
	for _, g := range mdb.Groups {
		table.Row(w, g.Group, g.VLAN, g.Port, g.Type, table.Dash(g.Protocol), sources(g), expires(g.ExpiresS))
	}
	fmt.Fprintln(w)
	table.Row(w, "ROUTER PORT", "VLAN", "FAMILY", "TYPE", "EXPIRES")
	for _, r := range mdb.Routers {
		table.Row(w, r.Port, r.VLAN, r.Family, r.Type, expires(r.ExpiresS))
	}
	fmt.Fprintln(w)
	table.Row(w, "QUERIER", "VLAN", "FAMILY", "PORT", "PROTOCOL", "MULTICAST", "EXPIRES")
	for _, q := range mdb.Queriers {
		state := "flooded"
		if q.Filtering {
			state = "filtered"
		}
		table.Row(w, table.Dash(q.Address), q.VLAN, q.Family, querierPort(q), table.Dash(q.Protocol), state, expires(q.ExpiresS))
	}
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
	return table.Dash(q.Port)
}

func expires(seconds int64) string {
	if seconds == 0 {
		return "-"
	}
	return fmt.Sprint(seconds)
}
