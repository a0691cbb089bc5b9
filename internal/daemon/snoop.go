package daemon

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/proto/mcast"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Snooping configures multicast snooping, the same in all VLANs.
type Snooping struct {
	Querier     bool       // query the hosts if no router does
	Address     netip.Addr // source of IGMP queries; invalid: 0.0.0.0
	RoutersOnly bool       // groups without members go to router ports only
}

// snooping runs mcast.Snooper over the manager's ports: messages of hosts and routers go in,
// the members of each group come out. A nil one is a switch without snooping: its methods do
// nothing, except those for users.
type snooping struct {
	m      *manager
	opts   Snooping
	core   *mcast.Snooper
	timer  *time.Timer
	vlans  port.VLANSet              // VLANs being snooped
	rules  map[*managed]vswitch.VLAN // VLANs of each port when its hosts were last queried
	moved  bool                      // ports or their VLANs changed since vlans was computed
	stale  bool                      // the switch uses an older snapshot than it could
	shown  time.Time                 // when the switch last got a snapshot
	effort time.Duration
}

// staticGroup is a group that a port gets whatever its hosts report.
type staticGroup struct {
	vlan  uint16
	group netip.Addr
	port  string
}

// vlans returns the VLANs that a port carries.
func (p *managed) vlans() port.VLANSet { return vlansOf(p.sw.Config().VLAN) }

func vlansOf(v vswitch.VLAN) port.VLANSet {
	set := port.VLANSet{}
	if v.Mode == vswitch.Trunk {
		set = v.Allowed
	} else if v.VID == 0 {
		v.VID = defaultVLAN
	}
	if v.VID != 0 {
		set.Add(v.VID)
	}
	return set
}

func compareGroups(a, b staticGroup) int {
	return cmp.Or(cmp.Compare(a.vlan, b.vlan), a.group.Compare(b.group), cmp.Compare(a.port, b.port))
}

// Guests can change the snapshot of groups with every frame they send. The switch gets a new
// one at most once per groupGap, and this takes at most a tenth of the time.
const (
	groupGap   = 50 * time.Millisecond
	groupShare = 10
)

func newSnooping(m *manager, o *Snooping) *snooping {
	if o == nil {
		return nil
	}
	sn := &snooping{m: m, opts: *o, timer: time.NewTimer(0), rules: make(map[*managed]vswitch.VLAN), moved: true}
	sn.core = mcast.New(mcast.Config{MAC: uint64(m.mac), Send: sn.send})
	return sn
}

func (sn *snooping) stop() {
	if sn != nil {
		sn.timer.Stop()
	}
}

// due returns the channel that fires when run has work.
func (sn *snooping) due() <-chan time.Time {
	if sn == nil {
		return nil
	}
	wait := time.Hour
	if at, ok := sn.core.Next(); ok {
		wait = at - time.Since(sn.m.start)
	}
	if sn.stale || sn.core.Changed() {
		wait = min(wait, time.Until(sn.shown.Add(max(groupGap, groupShare*sn.effort))))
	}
	if sn.moved {
		wait = 0
	}
	sn.timer.Reset(max(wait, 0))
	return sn.timer.C
}

// run does what is due.
func (sn *snooping) run() {
	sn.begin()
	now := time.Now()
	if !sn.stale && !sn.core.Changed() || now.Sub(sn.shown) < max(groupGap, groupShare*sn.effort) {
		return
	}
	sn.m.sw.SetGroups(&vswitch.Groups{VLANs: sn.vlans, IsControl: mcast.IsControl, Lookup: sn.core.Table().Lookup})
	sn.stale, sn.shown, sn.effort = false, now, time.Since(now)
}

// begin advances the snooper to the present; call it before every other use.
func (sn *snooping) begin() {
	sn.core.Advance(time.Since(sn.m.start))
	if !sn.moved {
		return
	}
	sn.moved, sn.stale = false, true
	want := port.VLANSet{}
	want.Add(defaultVLAN)
	for _, p := range sn.m.ports {
		set := p.vlans()
		for i := range want {
			want[i] |= set[i]
		}
	}
	have := sn.vlans
	sn.vlans = want
	for vid := range have.All() {
		if !want.Has(vid) {
			sn.core.RemoveVLAN(vid)
		}
	}
	for vid := range want.All() {
		if have.Has(vid) {
			continue
		}
		cfg := mcast.VLANConfig{Querier: sn.opts.Querier, IPv4: sn.opts.Address, RouterOnly: sn.opts.RoutersOnly}
		if err := sn.core.SetVLAN(vid, cfg); err != nil {
			sn.m.log.Error("multicast snooping", "vlan", vid, "error", err)
		}
	}
	for g := range sn.m.groups {
		sn.addStatic(g)
	}
}

// addStatic adds a static group if its VLAN and its port exist.
func (sn *snooping) addStatic(g staticGroup) {
	p := sn.m.ports[g.port]
	if p == nil || !sn.vlans.Has(g.vlan) {
		return
	}
	if err := sn.core.AddStatic(g.vlan, p.sw.Number(), g.group); err != nil {
		sn.m.log.Error("multicast snooping", "group", g.group, "port", g.port, "error", err)
	}
}

// configure passes the settings of a port, which may be new, to the snooper.
func (sn *snooping) configure(p *managed) {
	if sn == nil {
		return
	}
	sn.core.Advance(time.Since(sn.m.start))
	sn.core.SetPort(p.sw.Number(), snoopConfig(p.spec.Policy, p.station()))
	sn.moved = true
	was, known := sn.rules[p]
	rules := p.sw.Config().VLAN
	sn.rules[p] = rules
	if !known || rules == was {
		return // a new port's hosts are queried when its link comes up
	}
	sn.begin()
	left, carried := vlansOf(was), vlansOf(rules)
	for vid := range left.All() {
		if !carried.Has(vid) {
			sn.core.PortLeft(vid, p.sw.Number())
		}
	}
	sn.core.PortUp(p.sw.Number())
}

// snoopConfig returns a port's configuration for snooping. Behind a port for a station, no
// router is believed.
func snoopConfig(spec port.Policy, station bool) mcast.PortConfig {
	c := mcast.PortConfig{Isolated: spec.Isolated, FastLeave: spec.FastLeave, MaxGroups: spec.GroupLimit}
	switch {
	case spec.RouterPort:
		c.Router = mcast.RouterAlways
	case spec.RouterGuard == port.AutoOn, spec.RouterGuard != port.AutoOff && station:
		c.Router = mcast.RouterNever
	}
	return c
}

// link tells the snooper that a port came up or went down.
func (sn *snooping) link(p *managed, up bool) {
	if sn == nil {
		return
	}
	sn.begin()
	if up {
		sn.core.PortUp(p.sw.Number())
	} else {
		sn.core.PortDown(p.sw.Number())
	}
}

// remove forgets a port.
func (sn *snooping) remove(p *managed) {
	if sn == nil {
		return
	}
	sn.core.Advance(time.Since(sn.m.start))
	sn.core.RemovePort(p.sw.Number())
	delete(sn.rules, p)
	sn.moved = true
}

// topologyChange tells the snooper that stations may now be behind other ports.
func (sn *snooping) topologyChange() {
	if sn != nil {
		sn.begin()
		sn.core.TopologyChange()
	}
}

// receive handles a message of a host or router and forwards it to the ports concerned.
func (sn *snooping) receive(f vswitch.ControlFrame) {
	if sn == nil {
		return
	}
	sn.begin()
	switch r := sn.core.Receive(f.VLAN, f.Port.Number(), f.Data); r.Verdict {
	case mcast.Data, mcast.Flood:
		sn.m.sw.Flood(f)
	case mcast.ToRouters:
		sn.m.sw.Send(f, r.Ports...)
	}
}

// send sends a query of the snooper. If one is lost, the protocol repeats it.
func (sn *snooping) send(vlan, number uint16, frame []byte) {
	f := vswitch.ControlFrame{VLAN: vlan, Data: frame}
	if number == mcast.AllPorts {
		sn.m.sw.Flood(f)
	} else {
		sn.m.sw.Send(f, number)
	}
}

// snoops returns an error if there is no snooping.
func (m *manager) snoops() error {
	if m.snoop == nil {
		return fail(api.CodeInvalid, "multicast snooping is off, all groups are flooded; start the switch with `vswitch run --snooping` to have it")
	}
	m.snoop.begin()
	return nil
}

func (m *manager) addGroup(req api.AddGroup) (api.Group, error) {
	if err := m.snoops(); err != nil {
		return api.Group{}, err
	}
	p, err := m.find(req.Port)
	if err != nil {
		return api.Group{}, err
	}
	g := staticGroup{cmp.Or(req.VLAN, defaultVLAN), req.Group.Unmap(), req.Port}
	if carried := p.vlans(); g.vlan > maxVLAN || !carried.Has(g.vlan) {
		return api.Group{}, fail(api.CodeInvalid, "port %s does not carry VLAN %d; it carries %s", g.port, g.vlan, carried.String())
	}
	if err := m.snoop.core.AddStatic(g.vlan, p.sw.Number(), g.group); err != nil {
		return api.Group{}, fail(api.CodeInvalid, "%w", err)
	}
	_, was := m.groups[g]
	m.groups[g] = struct{}{}
	if err := m.save(); err != nil {
		if !was {
			delete(m.groups, g)
			m.dropStatic(g)
		}
		return api.Group{}, fail(api.CodeFailed, "%w", err)
	}
	return api.Group{VLAN: g.vlan, Group: g.group, Port: g.port, Type: "static"}, nil
}

func (m *manager) delGroup(group netip.Addr, name string, vlan uint16) error {
	if err := m.snoops(); err != nil {
		return err
	}
	g := staticGroup{cmp.Or(vlan, defaultVLAN), group.Unmap(), name}
	if _, ok := m.groups[g]; !ok {
		return fail(api.CodeNotFound, "group %s is not static on port %s in VLAN %d; `vswitch mdb list` shows those that are", group, name, g.vlan)
	}
	delete(m.groups, g)
	if err := m.save(); err != nil {
		m.groups[g] = struct{}{}
		return fail(api.CodeFailed, "%w", err)
	}
	m.dropStatic(g)
	return nil
}

// dropStatic tells the snooper that a group is no longer static; if the group's VLAN is not
// snooped now, the snooper does not know the group.
func (m *manager) dropStatic(g staticGroup) {
	if p := m.ports[g.port]; p != nil {
		_ = m.snoop.core.RemoveStatic(g.vlan, p.sw.Number(), g.group)
	}
}

func (m *manager) describeMDB() (api.MDB, error) {
	if err := m.snoops(); err != nil {
		return api.MDB{}, err
	}
	names := make(map[uint16]string)
	for _, p := range m.ports {
		names[p.sw.Number()] = p.spec.Name
	}
	core := m.snoop.core
	a := api.MDB{Groups: []api.Group{}, Routers: []api.RouterPort{}, Queriers: []api.Querier{}, Unregistered: "flood"}
	if m.snoop.opts.RoutersOnly {
		a.Unregistered = "routers"
	}
	for _, g := range core.Groups() {
		a.Groups = append(a.Groups, describeGroup(names[g.Port], &g))
	}
	for _, r := range core.Routers() {
		a.Routers = append(a.Routers, api.RouterPort{
			VLAN: r.VLAN, Family: r.Family.String(), Port: names[r.Port], Type: groupType(r.Static), ExpiresS: seconds(r.Expires),
		})
	}
	for _, q := range core.Queriers() {
		a.Queriers = append(a.Queriers, describeQuerier(names, &q))
	}
	st := core.Stats()
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
