// Package lldp tells the neighbours of ports who the switch is, and learns who they are
// (LLDP, 802.1AB). internal/proto/lldp has the protocol; this feature gives each link of a port
// an agent, and its part of the settings, the API and the command line. The daemon calls it with
// its turn; its only I/O is the frames it sends.
package lldp

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/proto/lldp"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Settings are the settings of the switch.
type Settings struct {
	LLDP    bool         `json:"lldp,omitempty" help:"speak LLDP with the neighbours of ports to networks"`
	Name    string       `json:"lldp_name,omitempty" arg:"NAME" default:"the host's name" help:"with --lldp: the system name that neighbours hear"`
	Address setting.Addr `json:"lldp_address,omitzero" arg:"ADDRESS" help:"with --lldp: the management address that neighbours hear"`
}

// maxName is the longest system name in bytes (802.1AB-2016 clause 8.5.6.3).
const maxName = 255

// Check returns what is wrong with the settings and how to fix it.
func (s Settings) Check() error {
	switch {
	case !s.LLDP && (s.Name != "" || s.Address.IsValid()):
		return errors.New("--lldp-name and --lldp-address are for neighbours; give --lldp as well")
	case len(s.Name) > maxName || s.Name != lldp.Text(s.Name):
		return fmt.Errorf("--lldp-name has at most %d bytes, all printable", maxName)
	case s.Address.IsValid() && (s.Address.IsUnspecified() || s.Address.IsMulticast() || s.Address.Zone() != ""):
		return fmt.Errorf("nobody reaches the switch at %v; write --lldp-address as 192.0.2.1 or 2001:db8::1", s.Address)
	}
	return nil
}

// AfterMerge implements setting.Merged: without LLDP its settings are unset, too.
func (s *Settings) AfterMerge(former any, given func(key string) bool) {
	if !former.(Settings).LLDP || s.LLDP {
		return
	}
	if !given("lldp_name") {
		s.Name = ""
	}
	if !given("lldp_address") {
		s.Address = setting.Addr{}
	}
}

// PortSettings are the settings of each port.
type PortSettings struct {
	LLDP port.AutoOnOff `json:"lldp,omitempty" arg:"auto|on|off" default:"auto: on where a network is behind the port" help:"speak LLDP through the port, if the switch does"`
}

// Feature describes LLDP.
var Feature = feature.Feature{
	Name:   "lldp",
	Help:   "names the neighbours of ports",
	Off:    "LLDP is off; `vswitch set --lldp` turns it on",
	Switch: Settings{},
	Port:   PortSettings{},
	On:     func(s any) bool { return s.(Settings).LLDP },
	New:    func(h feature.Host, s any) (feature.Instance, error) { return start(h, s.(Settings)), nil },
	Routes: []feature.Route{{
		Method: "GET", Path: "/v1/lldp", ID: "listNeighbors", Help: "The ports that speak LLDP, with their neighbours", Answer: []Port{},
		Handle: func(i feature.Instance, _ *http.Request) (any, error) { return i.(*speaker).list(time.Now()), nil },
	}},
	Commands: commands,
}

// Port is a port that speaks LLDP, or one of the interfaces that carry it.
type Port struct {
	Name      string        `json:"name"`
	Member    string        `json:"member,omitempty"` // the interface, of a port that several carry
	Counters  lldp.Counters `json:"counters"`
	Neighbors []Neighbor    `json:"neighbors"`
}

// Neighbor is what a neighbour said last. All texts are printable.
type Neighbor struct {
	Chassis           string       `json:"chassis"` // an address, mostly
	Port              string       `json:"port"`    // of the neighbour
	PortDescription   string       `json:"port_description,omitempty"`
	SystemName        string       `json:"system_name,omitempty"`
	SystemDescription string       `json:"system_description,omitempty"`
	Capabilities      []string     `json:"capabilities,omitempty"` // those that are enabled
	Addresses         []netip.Addr `json:"addresses,omitempty"`    // of its management
	PVID              uint16       `json:"pvid,omitempty"`         // the VLAN of untagged frames
	VLANs             []VLAN       `json:"vlans,omitempty"`
	MaxFrame          uint16       `json:"max_frame,omitempty"`  // bytes, with header and FCS
	Aggregated        uint32       `json:"aggregated,omitempty"` // the number of its port that several links carry, this one among them
	AgeS              int          `json:"age_s"`                // since it was first heard
	TTLS              int          `json:"ttl_s"`                // until it is forgotten
}

// VLAN is a VLAN of a neighbour's port.
type VLAN struct {
	ID   uint16 `json:"id"`
	Name string `json:"name"`
}

// speaker is a running LLDP.
type speaker struct {
	host   feature.Host
	system lldp.PDU                  // what is the same for all ports
	agents map[feature.Port][]*agent // of ports that speak
	stop   func()                    // cancels the next second
}

// link is a cable of a port.
type link struct {
	member string // of a port that several carry; "": the port has no other
	queue  int    // of the port, where its frames come and leave
	up     bool   // somebody is at its other end
}

// agent is a link's agent, and what it says.
type agent struct {
	lldp.Agent
	link
	says lldp.PDU
}

// linksOf returns the links of a port.
func linksOf(p feature.Port) (all []link) {
	b, several := p.Core().Device().(port.Bundled)
	if !several {
		return []link{{up: p.Up()}}
	}
	for _, m := range b.Members() {
		switch m.State {
		case port.MemberActive, port.MemberStandby, port.MemberNegotiating:
			all = append(all, link{m.Ifname, m.Queue, true})
		case port.MemberNoCarrier, port.MemberDown:
			all = append(all, link{m.Ifname, m.Queue, false})
		}
	}
	return all
}

// follow gives the links of a port that speaks their agents.
func (s *speaker) follow(p feature.Port) {
	var agents []*agent
	for _, l := range linksOf(p) {
		i := slices.IndexFunc(s.agents[p], func(a *agent) bool { return a.member == l.member && a.queue == l.queue })
		if i < 0 {
			agents = append(agents, &agent{link: l})
			continue
		}
		a := s.agents[p][i]
		if a.up != l.up {
			a.turn(l.up)
		}
		agents = append(agents, a)
	}
	s.agents[p] = agents
}

// turn notes that somebody is at the other end of the link, or nobody any more.
func (a *agent) turn(up bool) {
	a.up = up
	a.Reset()
}

// send sends a frame by the link. One that is lost is followed by others.
func (a *agent) send(p feature.Port, frame []byte) {
	if a.member != "" {
		_ = p.Core().TransmitBy(a.queue, frame)
	} else {
		_ = p.Core().Transmit(0, frame)
	}
}

// setParting has a member send a frame when it is taken out of the port, which nobody else then
// has time for.
func (a *agent) setParting(p feature.Port, frame []byte) {
	if b, several := p.Core().Device().(port.Bundled); several {
		b.SetParting(a.queue, frame)
	}
}

func start(h feature.Host, o Settings) *speaker {
	s := &speaker{host: h, agents: make(map[feature.Port][]*agent)}
	s.system = lldp.PDU{
		Chassis: lldp.ID{Kind: lldp.KindMAC, Value: string(h.MAC().HardwareAddr())}, TTL: lldp.TTL,
		SystemName: o.Name, SystemDescription: "vswitch, a virtual Ethernet switch",
		Capabilities: lldp.Bridge, Enabled: lldp.Bridge,
	}
	if o.Name == "" {
		s.system.SystemName, _ = os.Hostname()
	}
	if o.Address.IsValid() {
		s.system.Addresses = []netip.Addr{o.Address.Addr}
	}
	s.stop = h.After(time.Second, s.second)
	return s
}

// Stop implements feature.Instance. Neighbours forget the switch at once.
func (s *speaker) Stop() {
	s.stop()
	s.Part()
}

// Part implements feature.Parting.
func (s *speaker) Part() {
	for p := range s.agents {
		s.remove(p)
	}
}

// speaks reports whether a port is to speak LLDP.
func speaks(p feature.Port) bool {
	switch feature.PortSettings[PortSettings](p).LLDP {
	case port.AutoOn:
		return true
	case port.AutoOff:
		return false
	}
	return !p.Station()
}

// traps take the frames of LLDP alone: other protocols use the group, too. A port without
// LLDP treats them like other frames to a reserved address.
var traps = []vswitch.Trap{{Dst: lldp.Group, Type: lldp.EtherType, Queue: vswitch.QueueLink}}

// Configured implements feature.Configured.
func (s *speaker) Configured(p feature.Port) {
	switch _, there := s.agents[p]; {
	case speaks(p) && !there:
		s.follow(p)
		p.Core().SetTraps(vswitch.QueueLink, traps)
	case !speaks(p) && there:
		s.remove(p)
	}
}

// Removed implements feature.Removed.
func (s *speaker) Removed(p feature.Port) {
	if _, there := s.agents[p]; there {
		s.remove(p)
	}
}

// remove ends a port's agents. The frames that say so may be lost; then the TTL tells.
func (s *speaker) remove(p feature.Port) {
	p.Core().SetTraps(vswitch.QueueLink, nil)
	for _, a := range s.agents[p] {
		a.send(p, s.farewell(p, a))
		a.setParting(p, nil)
	}
	delete(s.agents, p)
}

// farewell returns the frame that has neighbours forget a link of a port.
func (s *speaker) farewell(p feature.Port, a *agent) []byte {
	return lldp.Shutdown(s.host.MAC(), s.sayings(p, a))
}

// Linked implements feature.Linked.
func (s *speaker) Linked(p feature.Port, up bool) {
	for _, a := range s.agents[p] {
		if a.member == "" && a.up != up { // members have carriers of their own
			a.turn(up)
		}
	}
}

// second is called every second.
func (s *speaker) second() {
	s.stop = s.host.After(time.Second, s.second)
	now := time.Now()
	for p := range s.agents {
		s.follow(p)
		for _, a := range s.agents[p] {
			if says := s.sayings(p, a); !reflect.DeepEqual(says, a.says) {
				a.says = says
				a.Announce()
			}
			if a.up {
				s.speak(p, a, a.Tick(now))
			}
			if a.member != "" {
				a.setParting(p, s.farewell(p, a))
			}
		}
	}
}

// speak sends a message of an agent.
func (s *speaker) speak(p feature.Port, a *agent, m lldp.Message) {
	switch pdu := a.says; m {
	case lldp.Farewell:
		a.send(p, s.farewell(p, a))
	case lldp.Greeting:
		pdu.MED = lldp.NetworkConnectivity
		fallthrough
	case lldp.Reminder:
		a.send(p, lldp.Append(nil, s.host.MAC(), &pdu))
	}
}

// What a frame has beside its payload, in bytes: the Ethernet header and the FCS; and a tag.
const (
	headers = port.HeaderLen + 4
	tagLen  = 4
)

// sayings returns what the switch says about a link of a port.
func (s *speaker) sayings(p feature.Port, a *agent) lldp.PDU {
	says := s.system
	says.Port = lldp.ID{Kind: lldp.KindIfName, Value: p.Name()}
	says.PortDescription = p.Policy().Description
	if a.member != "" {
		says.Port.Value = a.member
		says.PortDescription = strings.TrimSpace(p.Name() + " " + says.PortDescription)
		says.Aggregated = uint32(p.Number()) + 1
	}
	vlan := p.Policy().VLAN
	if mtu := p.MTU(); mtu > 0 {
		n := mtu + headers
		if vlan.Trunk.Len() > 0 {
			n += tagLen
		}
		says.MaxFrame = uint16(min(n, 0xffff))
	}
	switch {
	case vlan.Access != 0:
		says.PVID = vlan.Access
	case vlan.QinQ != 0:
		says.PVID = vlan.QinQ
	case vlan.Trunk.Len() > 0:
		says.PVID = vlan.Native
	default:
		return says // it is transparent to tags
	}
	vlans := p.VLANs()
	for vid := range vlans.All() {
		if len(says.VLANs) == lldp.MaxVLANs {
			break
		}
		says.VLANs = append(says.VLANs, lldp.VLAN{ID: vid, Name: fmt.Sprintf("VLAN%04d", vid)})
	}
	return says
}

// Queues implements feature.Queued.
func (s *speaker) Queues() []vswitch.Queue { return []vswitch.Queue{vswitch.QueueLink} }

// Receive implements feature.Queued.
func (s *speaker) Receive(p feature.Port, f vswitch.ControlFrame) {
	for _, a := range s.agents[p] {
		if a.member != "" && a.queue != f.By {
			continue
		}
		if err := a.Receive(time.Now(), f.Data); err != nil {
			s.host.Log().Debug("a frame of LLDP is not understood", "port", p.Name(), "member", a.member, "error", err)
		}
		return
	}
}

// list lists the ports that speak LLDP, and the members of those that several links carry.
func (s *speaker) list(now time.Time) []Port {
	all := []Port{}
	for p := range s.host.Ports() {
		for _, a := range s.agents[p] {
			one := Port{Name: p.Name(), Member: a.member, Counters: a.Counters, Neighbors: []Neighbor{}}
			for _, n := range a.Neighbors() {
				one.Neighbors = append(one.Neighbors, describe(&n, now))
			}
			all = append(all, one)
		}
	}
	return all
}

// describe makes a neighbour printable.
func describe(n *lldp.Neighbor, now time.Time) Neighbor {
	d := Neighbor{
		Chassis: n.Chassis.String(), Port: n.Port.String(),
		PortDescription: lldp.Text(n.PortDescription), SystemName: lldp.Text(n.SystemName), SystemDescription: lldp.Text(n.SystemDescription),
		Capabilities: n.Enabled.Names(), Addresses: n.Addresses, PVID: n.PVID, MaxFrame: n.MaxFrame, Aggregated: n.Aggregated,
		AgeS: int(now.Sub(n.Since).Seconds()), TTLS: max(0, int(n.Until.Sub(now).Seconds())),
	}
	for _, v := range n.VLANs {
		d.VLANs = append(d.VLANs, VLAN{v.ID, lldp.Text(v.Name)})
	}
	return d
}
