package snoop

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/proto/mcast"
	"github.com/vswitch/vswitch/port"
)

// static is a group that a port gets whatever its hosts report.
type static struct {
	Group netip.Addr `json:"group" arg:"ADDRESS" help:"IP address of the group"`
	VLAN  uint16     `json:"vlan,omitempty" arg:"VID" max:"4094" min:"1" default:"1" help:"VLAN of the group"`
	Port  string     `json:"port" arg:"PORT" help:"port that gets the group"`
}

var _ feature.Item = static{}

var items = &feature.Items{
	Zero: static{}, Help: "multicast groups that always go to a port",
	Required: []string{"group", "port"}, PortBound: true,
	Possible: func(settings any) error {
		if !settings.(Settings).Snooping {
			return errors.New("static groups need multicast snooping; put `snooping: true` under switch")
		}
		return nil
	},
}

// AfterMerge implements setting.Merged.
func (g *static) AfterMerge(any, func(string) bool) {
	g.Group, g.VLAN = g.Group.Unmap(), cmp.Or(g.VLAN, port.DefaultVLAN)
}

// ID implements feature.Item.
func (g static) ID() string { return fmt.Sprintf("group %s vlan %d port %s", g.Group, g.VLAN, g.Port) }

// Words implements feature.Item.
func (static) Words() string { return "" }

// Check implements feature.Item.
func (g static) Check() error {
	if err := g.whole(); err != nil {
		return err
	}
	return mcast.CheckStatic(g.Group)
}

// whole returns what an item lacks. One that is whole may be of a group that an earlier version took and that
// goes everywhere.
func (g static) whole() error {
	switch {
	case !g.Group.IsMulticast():
		return errors.New("a group needs the address of a multicast group, such as 239.1.2.3")
	case g.VLAN < 1 || g.VLAN > port.MaxVID:
		return port.CheckVID(int(g.VLAN))
	case g.Port == "":
		return errors.New("a group needs a port")
	}
	return nil
}

// Needs implements feature.Item.
func (g static) Needs() (ports []string, vlan uint16) { return []string{g.Port}, g.VLAN }

func compare(a, b static) int {
	return cmp.Or(cmp.Compare(a.VLAN, b.VLAN), a.Group.Compare(b.Group), cmp.Compare(a.Port, b.Port))
}

// State implements feature.Kept.
func (sn *snooping) State() (json.RawMessage, error) {
	if len(sn.static) == 0 {
		return nil, nil
	}
	return json.Marshal(slices.SortedFunc(maps.Keys(sn.static), compare))
}

// Restore implements feature.Kept. What this program does not understand is an error: the next save
// would lose it.
func (sn *snooping) Restore(b json.RawMessage) error {
	kept, err := feature.ReadItems[static](b)
	if err != nil {
		return err
	}
	all := make(map[static]struct{})
	for _, g := range kept {
		if err := g.whole(); err != nil {
			return fmt.Errorf("%s: %w", g.ID(), err)
		}
		all[g] = struct{}{}
	}
	for g := range sn.static {
		if _, ok := all[g]; !ok {
			sn.leave(g)
		}
	}
	sn.static, sn.moved = all, true
	sn.do(func() {})
	return nil
}

// forget takes away the groups of a port that is removed.
func (sn *snooping) forget(name string) {
	n := len(sn.static)
	maps.DeleteFunc(sn.static, func(g static, _ struct{}) bool { return g.Port == name })
	if len(sn.static) != n {
		sn.host.Save()
	}
}

// enter tells the snooper of a static group if its VLAN and its port exist.
func (sn *snooping) enter(g static) {
	p, err := feature.FindPort(sn.host, g.Port)
	if err != nil || !sn.vlans.Has(g.VLAN) {
		return
	}
	if err := sn.core.AddStatic(g.VLAN, p.Number(), g.Group); err != nil {
		sn.host.Log().Error("multicast snooping", "group", g.Group, "port", g.Port, "error", err)
	}
}

// leave tells the snooper that a group is no longer static. If the group's VLAN is not snooped
// now, the snooper does not know the group.
func (sn *snooping) leave(g static) {
	sn.do(func() {
		if p, err := feature.FindPort(sn.host, g.Port); err == nil {
			_ = sn.core.RemoveStatic(g.VLAN, p.Number(), g.Group)
		}
	})
}

func (sn *snooping) add(req api.AddGroup) (api.Group, error) {
	if err := sn.on(); err != nil {
		return api.Group{}, err
	}
	p, err := feature.FindPort(sn.host, req.Port)
	if err != nil {
		return api.Group{}, err
	}
	g := static{req.Group.Unmap(), cmp.Or(req.VLAN, port.DefaultVLAN), req.Port}
	if carried := p.VLANs(); g.VLAN > port.MaxVID || !carried.Has(g.VLAN) {
		return api.Group{}, api.Errorf(api.CodeInvalid, "port %s does not carry VLAN %d; it carries %s", g.Port, g.VLAN, carried.String())
	}
	sn.do(func() { err = sn.core.AddStatic(g.VLAN, p.Number(), g.Group) })
	if err != nil {
		return api.Group{}, api.Errorf(api.CodeInvalid, "%w", err)
	}
	sn.static[g] = struct{}{}
	return api.Group{VLAN: g.VLAN, Group: g.Group, Port: g.Port, Type: groupType(true)}, nil
}

func (sn *snooping) remove(group netip.Addr, name string, vlan uint16) error {
	if err := sn.on(); err != nil {
		return err
	}
	g := static{group.Unmap(), cmp.Or(vlan, port.DefaultVLAN), name}
	if _, ok := sn.static[g]; !ok {
		return api.Errorf(api.CodeNotFound, "group %s is not static on port %s in VLAN %d; `vswitch mdb list` shows those that are", group, name, g.VLAN)
	}
	delete(sn.static, g)
	sn.leave(g)
	return nil
}

// on returns an error if there is no snooping.
func (sn *snooping) on() error {
	if sn.core == nil {
		return api.Errorf(api.CodeInvalid, "multicast snooping is off, all groups are flooded; turn it on with `vswitch set --snooping=on`")
	}
	return nil
}

// inVLAN is the query of a call that concerns one VLAN.
type inVLAN struct {
	VLAN uint16 `json:"vlan,omitempty" arg:"VLAN" min:"1" max:"4094" default:"1" help:"VLAN of the group"`
}

var routes = []feature.Route{
	{
		Method: "GET", Path: "/v1/mdb", ID: "getMDB", Help: "The multicast groups of ports, router ports and queriers", Answer: api.MDB{},
		Handle: func(i feature.Instance, _ *http.Request) (any, error) { return i.(*snooping).describe() },
	},
	{
		Method: "POST", Path: "/v1/mdb", ID: "addGroup", Help: "Send a group to a port whatever its hosts report",
		Request: api.AddGroup{}, Answer: api.Group{}, Change: true,
		Handle: func(i feature.Instance, r *http.Request) (any, error) {
			req, err := feature.Body[api.AddGroup](r)
			if err != nil {
				return nil, err
			}
			return i.(*snooping).add(req)
		},
	},
	{
		Method: "DELETE", Path: "/v1/mdb/{group}/{port}", ID: "delGroup", Help: "Take a static group from a port", Query: inVLAN{}, Change: true,
		Handle: func(i feature.Instance, r *http.Request) (any, error) {
			group, err := netip.ParseAddr(r.PathValue("group"))
			if err != nil {
				return nil, api.Errorf(api.CodeInvalid, "%q is not an IP address; write it as 239.1.2.3 or ff05::1:3", r.PathValue("group"))
			}
			q, err := feature.Query[inVLAN](r)
			if err != nil {
				return nil, err
			}
			return nil, i.(*snooping).remove(group, r.PathValue("port"), q.VLAN)
		},
	},
}
