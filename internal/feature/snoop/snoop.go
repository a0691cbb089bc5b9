// Package snoop sends multicast groups only to the ports whose hosts ask for them (RFC 4541):
// it runs internal/proto/mcast over the ports. IGMP and MLD messages go in; the members of
// each group come out, and go to the core. It keeps the groups that users gave to ports, also
// while snooping is off.
package snoop

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/proto/mcast"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Settings are the settings of the switch.
type Settings struct {
	Snooping       bool         `json:"snooping,omitempty" help:"send multicast groups only to hosts that ask for them by IGMP or MLD"`
	Querier        bool         `json:"querier,omitempty" help:"with --snooping: query hosts for their groups if no router does"`
	QuerierAddress setting.Addr `json:"querier_address,omitzero" arg:"ADDRESS" default:"0.0.0.0, so that any router takes over" help:"with --querier: source address of IGMP queries, one that no station has; a router with a lower one takes over"`
	Unregistered   Unregistered `json:"unregistered,omitempty" arg:"WHERE" default:"flood" help:"with --snooping: where to send groups that nobody asked for: flood or routers"`

	Queries
}

// Queries are how hosts are queried, and how long what they say counts (RFC 3376 section 8,
// RFC 3810 section 9).
type Queries struct {
	IGMPVersion        int              `json:"igmp_version,omitempty" arg:"N" min:"2" max:"3" default:"3" help:"with --snooping: IGMP version of queries"`
	MLDVersion         int              `json:"mld_version,omitempty" arg:"N" min:"1" max:"2" default:"2" help:"with --snooping: MLD version of queries"`
	Robustness         int              `json:"mcast_robustness,omitempty" arg:"N" min:"1" max:"7" default:"2" help:"with --snooping: one more than messages that may be lost in a row without harm"`
	QueryInterval      setting.Duration `json:"query_interval,omitzero" arg:"TIME" default:"125s" help:"with --snooping: time between general queries"`
	ResponseInterval   setting.Duration `json:"query_response_interval,omitzero" arg:"TIME" default:"10s" help:"with --snooping: time that hosts have to answer a general query"`
	LastMemberInterval setting.Duration `json:"last_member_interval,omitzero" arg:"TIME" default:"1s" help:"with --snooping: time between queries for a group that a host left"`
	LastMemberCount    int              `json:"last_member_count,omitempty" arg:"N" min:"1" max:"10" default:"--mcast-robustness" help:"with --snooping: number of queries for a group that a host left"`
	StartupInterval    setting.Duration `json:"startup_query_interval,omitzero" arg:"TIME" default:"a quarter of --query-interval" help:"with --snooping: time between the first general queries"`
	StartupCount       int              `json:"startup_query_count,omitempty" arg:"N" min:"1" max:"10" default:"--mcast-robustness" help:"with --snooping: number of first general queries"`
	RouterTimeout      setting.Duration `json:"mcast_router_timeout,omitzero" arg:"TIME" default:"255s" help:"with --snooping: how long a port that a router was heard at leads to it"`
}

// config returns how a VLAN is snooped.
func (s Settings) config() mcast.VLANConfig {
	q := s.Queries
	return mcast.VLANConfig{
		Querier: s.Querier, IPv4: s.QuerierAddress.Addr, RouterOnly: s.Unregistered == Routers,
		IGMPVersion: q.IGMPVersion, MLDVersion: q.MLDVersion, Robustness: q.Robustness,
		QueryInterval: time.Duration(q.QueryInterval), ResponseInterval: time.Duration(q.ResponseInterval),
		LastMemberInterval: time.Duration(q.LastMemberInterval), LastMemberCount: q.LastMemberCount,
		StartupInterval: time.Duration(q.StartupInterval), StartupCount: q.StartupCount,
		RouterTimeout: time.Duration(q.RouterTimeout),
	}
}

// Unregistered is where multicast groups without members go. Empty means Flood.
type Unregistered string

const (
	Flood   Unregistered = "flood"
	Routers Unregistered = "routers"
)

// Values implements setting.Enum.
func (Unregistered) Values() []string { return []string{"flood", "routers"} }

// Check returns what is wrong with the settings and how to fix it.
func (s Settings) Check() error {
	switch a := s.QuerierAddress; {
	case !s.Snooping && (s.Querier || a.IsValid() || s.Unregistered != ""):
		return errors.New("--querier, --querier-address and --unregistered are for multicast snooping; give --snooping as well")
	case a.IsValid() && !a.Is4():
		return fmt.Errorf("%v is not an IPv4 address; write --querier-address as 192.0.2.1", a)
	case a.IsValid() && (a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.As4()[0] >= 240):
		return fmt.Errorf("queries cannot come from %v; use an address of this network that no station has", a)
	case a.IsValid() && !s.Querier:
		return errors.New("--querier-address is for a switch that asks; give --querier as well")
	case !s.Snooping && s.Queries != Queries{}:
		return fmt.Errorf("--%s is for multicast snooping; give --snooping as well", firstSet(s.Queries))
	}
	return s.config().Check()
}

// firstSet returns the flag of a setting that is set.
func firstSet(q Queries) string {
	for _, f := range setting.Fields(q) {
		if !f.IsZero(q) {
			return f.Flag
		}
	}
	return ""
}

// AfterMerge implements setting.Merged: what belongs to something that is turned off is unset.
func (s *Settings) AfterMerge(former any, given func(key string) bool) {
	was := former.(Settings)
	if was.Snooping && !s.Snooping {
		if !given("querier") {
			s.Querier = false
		}
		if !given("unregistered") {
			s.Unregistered = ""
		}
		if !slices.ContainsFunc(setting.Fields(s.Queries), func(f setting.Field) bool { return given(f.Key) }) {
			s.Queries = Queries{}
		}
	}
	if was.Querier && !s.Querier && !given("querier_address") {
		s.QuerierAddress = setting.Addr{}
	}
}

// PortSettings are the settings of a port.
type PortSettings struct {
	FastLeave   bool           `json:"mcast_fast_leave,omitempty" help:"multicast: end a group at the first leave; for ports with one listener"`
	Router      bool           `json:"mcast_router,omitempty" help:"multicast: a router is behind the port"`
	Limit       int            `json:"mcast_limit,omitempty" arg:"N" min:"0" default:"0" help:"multicast: maximum number of groups to join; 0 for any number"`
	RouterGuard port.AutoOnOff `json:"mcast_router_guard,omitempty" arg:"auto|on|off" default:"auto: off where a network is behind the port, else on" help:"multicast: drop queries and other messages that only routers send"`
}

// Check implements port.Section.
func (s PortSettings) Check(*port.Spec) error {
	if s.Router && s.RouterGuard == port.AutoOn {
		return errors.New("a port that leads to a router is not guarded against routers; leave out one of --mcast-router and --mcast-router-guard")
	}
	return nil
}

// Feature describes multicast snooping.
var Feature = feature.Feature{
	Name:     "snooping",
	Key:      "groups",
	Help:     "send multicast groups to those who ask for them",
	Switch:   Settings{},
	Port:     PortSettings{},
	New:      func(h feature.Host, s any) (feature.Instance, error) { return start(h, s.(Settings)), nil },
	Items:    items,
	Routes:   routes,
	Commands: commands,
}

// snooping runs mcast.Snooper over the ports of a switch.
type snooping struct {
	host   feature.Host
	set    Settings
	static map[static]struct{}

	core   *mcast.Snooper // nil: snooping is off
	began  time.Time
	vlans  port.VLANSet           // VLANs being snooped
	rules  map[feature.Port]rules // of each port when its hosts were last queried
	taken  map[feature.Port]bool  // ports whose hosts the former process has queried, until they are Linked
	moved  bool                   // ports or their VLANs changed since vlans was computed
	stale  bool                   // the switch uses an older snapshot than it could
	shown  time.Time              // when the switch last got a snapshot
	effort time.Duration          // that took

	due    time.Time // when run is called; zero: it is not
	cancel func()
}

// rules are a port's part in VLANs, and the VLANs that it carries.
type rules struct {
	vlan    port.VLAN
	carried port.VLANSet
}

// Guests can change the snapshot of groups with every frame they send. The switch gets a new
// one at most once per groupGap, and this takes at most a tenth of the time.
const (
	groupGap   = 50 * time.Millisecond
	groupShare = 10
)

func start(h feature.Host, s Settings) *snooping {
	sn := &snooping{
		host: h, set: s, static: make(map[static]struct{}), began: time.Now(),
		rules: make(map[feature.Port]rules), taken: make(map[feature.Port]bool), moved: true, cancel: func() {},
	}
	if s.Snooping {
		sn.core = mcast.New(mcast.Config{MAC: uint64(h.MAC()), Send: sn.send})
		h.Speak(port.DefaultVLAN)
		sn.schedule()
	}
	return sn
}

// Stop implements feature.Instance: without snooping, groups are flooded.
func (sn *snooping) Stop() {
	sn.cancel()
	if sn.core != nil {
		sn.host.Switch().SetGroups(nil)
		for p := range sn.rules {
			p.Core().SetRouterGuard(false)
		}
	}
}

// do advances the snooper to the present, calls f, and sees to it that run is called in time.
// Every use of the snooper is in do.
func (sn *snooping) do(f func()) {
	if sn.core == nil {
		return
	}
	sn.advance()
	sn.move()
	f()
	sn.schedule()
}

// absence is how late something may be done. Who is later was stopped (SIGSTOP, a debugger), and asked nobody
// for that time.
const absence = 5 * time.Second

// advance tells the snooper the time. After an absence, memberships have lapsed whose hosts were not asked: groups go
// everywhere until they have answered the query that is sent now.
func (sn *snooping) advance() {
	at, ok := sn.core.Next()
	now := time.Since(sn.began)
	sn.core.Advance(now)
	if ok && now-at > absence {
		sn.core.TopologyChange()
	}
}

// schedule has run called when it has work.
func (sn *snooping) schedule() {
	wait := time.Hour
	if at, ok := sn.core.Next(); ok {
		wait = at - time.Since(sn.began)
	}
	if sn.stale || sn.core.Changed() {
		wait = min(wait, time.Until(sn.shown.Add(max(groupGap, groupShare*sn.effort))))
	}
	if sn.moved {
		wait = 0
	}
	at := time.Now().Add(max(wait, 0))
	if !sn.due.IsZero() && !at.Before(sn.due) {
		return // run is called before, and calls schedule
	}
	sn.cancel()
	sn.due, sn.cancel = at, sn.host.After(time.Until(at), sn.run)
}

// run does what is due.
func (sn *snooping) run() {
	sn.due = time.Time{}
	sn.do(func() {
		if !sn.stale && !sn.core.Changed() || time.Since(sn.shown) < max(groupGap, groupShare*sn.effort) {
			return
		}
		sn.publish()
	})
}

// publish gives the switch the snapshot of groups.
func (sn *snooping) publish() {
	now, t := time.Now(), sn.core.Table()
	sn.host.Switch().SetGroups(&vswitch.Groups{VLANs: sn.vlans, IsControl: mcast.IsControl, IsQuery: mcast.IsQuery, Lookup: t.Lookup, Each: t.Each, Rest: t.Rest})
	sn.stale, sn.shown, sn.effort = false, now, time.Since(now)
}

// move follows the VLANs that the ports carry.
func (sn *snooping) move() {
	if !sn.moved {
		return
	}
	sn.moved, sn.stale = false, true
	want := port.VLANSet{}
	want.Add(port.DefaultVLAN)
	for _, r := range sn.rules { // not Host.Ports, which lacks a port that is being opened
		for i := range want {
			want[i] |= r.carried[i]
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
		if err := sn.core.SetVLAN(vid, sn.set.config()); err != nil {
			sn.host.Log().Error("multicast snooping", "vlan", vid, "error", err)
		}
	}
	for g := range sn.static {
		sn.enter(g)
	}
}

// Configured implements feature.Configured.
func (sn *snooping) Configured(p feature.Port) {
	if sn.core == nil {
		return
	}
	was, known := sn.rules[p]
	sn.advance()
	now := sn.enrol(p)
	if !known || now == was {
		sn.schedule()
		return // a new port's hosts are queried when its link comes up
	}
	sn.do(func() {
		for vid := range was.carried.All() {
			if !now.carried.Has(vid) {
				sn.core.PortLeft(vid, p.Number())
			}
		}
		sn.core.PortUp(p.Number())
	})
}

// enrol tells the snooper of a port's settings, and returns its rules.
func (sn *snooping) enrol(p feature.Port) rules {
	now := rules{p.Core().Config().VLAN, p.VLANs()}
	sn.rules[p] = now
	c := portConfig(p)
	sn.core.SetPort(p.Number(), c)
	p.Core().SetRouterGuard(c.Router == mcast.RouterNever)
	sn.moved = true
	return now
}

// portConfig returns a port's configuration for the snooper. Behind a port for a station, no
// router is believed.
func portConfig(p feature.Port) mcast.PortConfig {
	s := feature.PortSettings[PortSettings](p)
	c := mcast.PortConfig{Isolated: p.Policy().Isolated, FastLeave: s.FastLeave, MaxGroups: s.Limit}
	switch {
	case s.Router:
		c.Router = mcast.RouterAlways
	case s.RouterGuard == port.AutoOn, s.RouterGuard != port.AutoOff && p.Kind().Station:
		c.Router = mcast.RouterNever
	}
	return c
}

// Linked implements feature.Linked.
func (sn *snooping) Linked(p feature.Port, up bool) {
	if up && sn.taken[p] {
		delete(sn.taken, p)
		return
	}
	sn.do(func() {
		if up {
			sn.core.PortUp(p.Number())
		} else {
			sn.core.PortDown(p.Number())
		}
	})
}

// Removed implements feature.Removed.
func (sn *snooping) Removed(p feature.Port) {
	sn.forget(p.Name())
	if sn.core == nil {
		return
	}
	sn.advance()
	sn.core.RemovePort(p.Number())
	delete(sn.rules, p)
	delete(sn.taken, p)
	sn.moved = true
	sn.schedule()
}

// TopologyChanged implements feature.Topology: hosts may be behind other ports.
func (sn *snooping) TopologyChanged() { sn.do(func() { sn.core.TopologyChange() }) }

// Queues implements feature.Queued.
func (sn *snooping) Queues() []vswitch.Queue { return []vswitch.Queue{vswitch.QueueGroups} }

// Receive implements feature.Queued: it handles a message of a host or router and forwards it
// to the ports concerned.
func (sn *snooping) Receive(p feature.Port, f vswitch.ControlFrame) {
	sn.do(func() {
		switch r := sn.core.Receive(f.VLAN, p.Number(), f.Data); r.Verdict {
		case mcast.Data, mcast.Flood:
			sn.host.Switch().Flood(f)
		case mcast.ToRouters:
			sn.host.Switch().Send(f, r.Ports...)
		}
	})
}

// send sends a query of the snooper. If one is lost, the protocol repeats it.
func (sn *snooping) send(vlan, number uint16, frame []byte) {
	f := vswitch.ControlFrame{VLAN: vlan, Data: frame}
	sn.host.Speak(vlan)
	if number == mcast.AllPorts {
		sn.host.Switch().Flood(f)
	} else {
		sn.host.Switch().Send(f, number)
	}
}
