// Package mcast is IGMP and MLD snooping per VLAN (RFC 4541): it learns who wants which
// group (IGMPv1-3: RFC 1112, 2236, 3376; MLDv1-2: RFC 2710, 3810) and says which ports
// get it. Frames and time go in, frames and a Table come out: no I/O, clock or
// goroutine. A Snooper belongs to one goroutine of the control side. A Table is
// immutable and IsControl a pure function, so any worker may use them.
package mcast

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Decisions that RFC 4541 leaves open:
//
//   - Traffic is filtered by destination MAC. Source filters are kept per port as in
//     RFC 3376 section 6, and decide when a port no longer wants a group; as long as it
//     wants one source, it gets the group.
//   - A VLAN filters only while a querier is heard and the hosts have had the time to
//     answer it. Without a querier, memberships look the same as lapsed ones, so
//     everything is flooded, as without snooping.
//   - The control groups of a link always flood: routing, naming and IPv6 neighbour
//     discovery need them, and not all of their members report. By MAC these are
//     224.0.0.0/24, ff02::00-ff and solicited-node groups. The rest of ff02::/16
//     shares its MACs with groups of wider scope, so forwarding must look at the
//     destination address too.
//   - A query ages groups out, so it counts only where the hosts hear it: from a port
//     that may lead to a router, to the MAC of its group. The intervals it gives are
//     capped. When the querier changes, all groups live on long enough to be asked again.

const (
	// AllPorts, as the port given to Config.Send, means every port of the VLAN.
	AllPorts uint16 = 0xffff

	// DefaultMemberships bounds the memory that all hostile guests together can take, beside
	// 32 memberships of each port: about 300 bytes each without sources.
	DefaultMemberships = 32768

	// DefaultSources per membership is twice the kernel bridge's PG_SRC_ENT_LIMIT. A
	// port that asks for more gets the group from any source.
	DefaultSources = 64

	maxVLAN = 4094 // 802.1Q-2018 table 9-2
)

// Config is the configuration of a Snooper.
type Config struct {
	// MAC is the switch's own address, 48 bits with the first octet on top. It is the
	// source of queries.
	MAC uint64

	// Send sends a query, untagged, to one port or to AllPorts. The Snooper's methods
	// call it, so it must not call them. It may keep the frame.
	Send func(vlan, port uint16, frame []byte)

	// Bounds; 0 means the default.
	Memberships int // over all ports, a membership being (VLAN, group, port); 32 of each port are beside it
	Sources     int // per membership
}

// VLANConfig is how one VLAN is snooped. The zero value is passive: it sends no queries
// and uses the defaults of RFC 3376 section 8 and RFC 3810 section 9.
type VLANConfig struct {
	Querier bool // take part in the election, and query when elected

	// IPv4 is the source of IGMP queries. Without one they come from 0.0.0.0, which
	// never wins against a querier with an address (RFC 4541 section 2.1.1). IPv6 is
	// the source of MLD queries, a link-local address; by default it is derived from
	// Config.MAC.
	IPv4, IPv6 netip.Addr

	IGMPVersion int // of the queries: 2 or 3 (default)
	MLDVersion  int // of the queries: 1 or 2 (default)

	Robustness         int           // 1-7, default 2: losses in a row that do no harm, plus one
	QueryInterval      time.Duration // default 125 s
	ResponseInterval   time.Duration // default 10 s, shorter than QueryInterval
	LastMemberInterval time.Duration // default 1 s
	LastMemberCount    int           // default Robustness
	StartupInterval    time.Duration // default QueryInterval/4
	StartupCount       int           // default Robustness
	RouterTimeout      time.Duration // of a learned router port; default 255 s

	// RouterOnly sends groups that nobody asked for only to router ports, instead of
	// everywhere.
	RouterOnly bool
}

// RouterMode says whether a port leads to a multicast router, which gets all groups and
// all reports.
type RouterMode uint8

const (
	RouterAuto   RouterMode = iota // while it sends queries, PIM hellos or RFC 4286 advertisements
	RouterAlways                   // always
	RouterNever                    // never: messages that only routers send are dropped as RouterGuard
)

// PortConfig is how one port is snooped.
type PortConfig struct {
	Router RouterMode

	// Isolated ports exchange no frames with each other. The others do not hear a query
	// from one, so it elects nobody.
	Isolated bool

	// FastLeave ends a membership at the first leave, without asking whether
	// another host behind the port still listens. For ports with one host.
	FastLeave bool

	// MaxGroups bounds the groups learned on the port, over all VLANs; 0 means as many
	// as memory allows without taking other ports' share.
	MaxGroups int
}

// Snooper holds the memberships of all VLANs of a switch.
type Snooper struct {
	cfg    Config
	now    time.Duration
	timers timerHeap
	vlans  map[uint16]*vlan
	ports  map[uint16]*port

	memberships int
	stats       Stats
	table       *Table
	stale       []*vlan // changed since table was made
}

type vlan struct {
	id    uint16
	cfg   VLANConfig
	inst  [2]*instance // by Family
	stale bool
}

// instance is one protocol, IGMP or MLD, in one VLAN.
type instance struct {
	s       *Snooper
	v       *vlan
	family  Family
	groups  map[netip.Addr]*group
	routers routers
	querier querier

	extended time.Duration // until when extend does nothing
}

type port struct {
	PortConfig
	members map[*member]struct{}
	groups  int // learned memberships
	refused uint64
}

// New returns a Snooper that snoops no VLAN yet. It panics if Send is nil.
func New(cfg Config) *Snooper {
	if cfg.Send == nil {
		panic("mcast: Config.Send is nil")
	}
	if cfg.Memberships <= 0 {
		cfg.Memberships = DefaultMemberships
	}
	if cfg.Sources <= 0 {
		cfg.Sources = DefaultSources
	}
	return &Snooper{cfg: cfg, vlans: map[uint16]*vlan{}, ports: map[uint16]*port{}, table: &Table{}}
}

// SetVLAN starts snooping a VLAN, or changes how. What was learned stays.
func (s *Snooper) SetVLAN(id uint16, cfg VLANConfig) error {
	if id == 0 || id > maxVLAN {
		return fmt.Errorf("VLAN %d does not exist; use 1 to %d", id, maxVLAN)
	}
	if err := cfg.complete(s.cfg.MAC); err != nil {
		return err
	}
	v := s.vlans[id]
	if v == nil {
		v = s.newVLAN(id)
	}
	v.cfg = cfg
	for _, in := range v.inst {
		in.configure()
		in.changed()
	}
	return nil
}

func (s *Snooper) newVLAN(id uint16) *vlan {
	v := &vlan{id: id}
	for f := range v.inst {
		in := &instance{s: s, v: v, family: Family(f), groups: map[netip.Addr]*group{}}
		in.routers.init(in)
		in.querier.init(in)
		v.inst[f] = in
	}
	s.vlans[id] = v
	return v
}

// RemoveVLAN stops snooping a VLAN and forgets its groups, static ones too.
func (s *Snooper) RemoveVLAN(id uint16) {
	v := s.vlans[id]
	if v == nil {
		return
	}
	for _, in := range v.inst {
		for _, g := range in.groups {
			for _, m := range slices.Clone(g.members) {
				m.static = false
				m.forget()
			}
		}
		in.changed()
		s.timers.stop(&in.routers.timer)
		in.querier.stop()
	}
	delete(s.vlans, id)
}

// SetPort changes how a port is snooped. A lower MaxGroups removes no existing group.
func (s *Snooper) SetPort(id uint16, cfg PortConfig) {
	p := s.port(id)
	p.PortConfig = cfg
	for _, v := range s.vlans {
		for _, in := range v.inst {
			if cfg.Router == RouterNever {
				in.forgetRouter(id)
			}
			if cfg.Isolated {
				in.forgetQuerier(id)
			}
			in.changed()
		}
	}
}

// RemovePort forgets a port, its settings and static groups too.
func (s *Snooper) RemovePort(id uint16) {
	p := s.ports[id]
	if p == nil {
		return
	}
	for m := range p.members {
		m.static = false
	}
	s.PortDown(id)
	delete(s.ports, id)
	for _, v := range s.vlans {
		v.inst[IPv4].changed() // it may have been a static router port
	}
}

// PortDown forgets what was learned from a port whose link is down.
func (s *Snooper) PortDown(id uint16) {
	if p := s.ports[id]; p != nil {
		for m := range p.members {
			m.forget()
		}
	}
	for _, v := range s.vlans {
		for _, in := range v.inst {
			in.forgetRouter(id)
		}
	}
}

// PortUp queries the hosts behind a port for their groups, in each VLAN: its link came
// up, or it carries other VLANs than before. Send skips the VLANs that the port does
// not carry.
func (s *Snooper) PortUp(id uint16) {
	for _, v := range s.sortedVLANs() {
		for _, in := range v.inst {
			in.askPort(id)
		}
	}
}

// PortLeft forgets what was learned from a port in a VLAN that the port no longer
// carries.
func (s *Snooper) PortLeft(vlan, id uint16) {
	v := s.vlans[vlan]
	if v == nil {
		return
	}
	if p := s.ports[id]; p != nil {
		for m := range p.members {
			if m.g.in.v == v {
				m.forget()
			}
		}
	}
	for _, in := range v.inst {
		in.forgetRouter(id)
	}
}

// TopologyChange says that stations may now be behind other ports (RFC 4541 section
// 2.1.1). All VLANs flood until the hosts have answered the next query, which is sent
// at once where this switch is the querier.
func (s *Snooper) TopologyChange() {
	for _, v := range s.sortedVLANs() {
		for _, in := range v.inst {
			in.distrust()
		}
	}
}

// AddStatic makes a port get group whatever its hosts report. The group must be one
// that can be snooped: not in 224.0.0.0/24 or ff02::/16, which always flood, and not of
// node scope. No bound holds for it.
func (s *Snooper) AddStatic(vlan, port uint16, group netip.Addr) error {
	in, err := s.static(vlan, group)
	if err != nil {
		return err
	}
	m := in.member(port, group)
	if m == nil {
		m = in.join(port, group) // whatever guests have left of Memberships
	}
	m.static = true
	return nil
}

// RemoveStatic undoes AddStatic; what the port's hosts report counts again.
func (s *Snooper) RemoveStatic(vlan, port uint16, group netip.Addr) error {
	in, err := s.static(vlan, group)
	if err != nil {
		return err
	}
	m := in.member(port, group)
	if m == nil || !m.static {
		return fmt.Errorf("group %v is not static on that port in VLAN %d", group, vlan)
	}
	m.static = false
	m.reconcile()
	return nil
}

// CheckStatic returns an error unless the group can be given to AddStatic.
func CheckStatic(group netip.Addr) error {
	if group.Zone() != "" || !tracked(group) {
		return fmt.Errorf("%v cannot be a static group; use a multicast address outside 224.0.0.0/24 and ff02::/16, which go everywhere", group)
	}
	return nil
}

func (s *Snooper) static(vlan uint16, group netip.Addr) (*instance, error) {
	v := s.vlans[vlan]
	if v == nil {
		return nil, fmt.Errorf("VLAN %d is not snooped; turn multicast snooping on for it first", vlan)
	}
	if err := CheckStatic(group); err != nil {
		return nil, err
	}
	f := IPv6
	if group.Is4() {
		f = IPv4
	}
	return v.inst[f], nil
}

func (s *Snooper) port(id uint16) *port {
	p := s.ports[id]
	if p == nil {
		p = &port{members: map[*member]struct{}{}}
		s.ports[id] = p
	}
	return p
}

// config returns a port's configuration; zero for a port that nobody configured.
func (s *Snooper) config(id uint16) PortConfig {
	if p := s.ports[id]; p != nil {
		return p.PortConfig
	}
	return PortConfig{}
}

func (s *Snooper) sortedVLANs() []*vlan {
	return slices.SortedFunc(maps.Values(s.vlans), func(a, b *vlan) int { return int(a.id) - int(b.id) })
}

// Advance sets the time, on a clock that never goes back, and does what is due. Nothing
// is due before Next.
func (s *Snooper) Advance(now time.Duration) {
	s.now = max(s.now, now)
	s.timers.run(s.now)
}

// Next returns when something is due. ok is false if nothing is.
func (s *Snooper) Next() (at time.Duration, ok bool) { return s.timers.next() }
