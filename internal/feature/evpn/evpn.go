// Package evpn joins switches of several hosts by BGP EVPN (RFC 7432) over a vxlan port
// (RFC 8365). It connects three parts: internal/proto/evpn, which decides where stations are;
// internal/bgp, which exchanges routes; and the tunnel behind the vxlan port. It hears of
// local stations from the FDB, and enters those of other hosts there.
package evpn

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/bfd"
	"github.com/vswitch/vswitch/internal/bgp"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/logqueue"
	"github.com/vswitch/vswitch/internal/proto/evpn"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Settings are the settings of EVPN.
type Settings struct {
	AS          uint32           `json:"evpn_as,omitempty" arg:"N" help:"share stations with other hosts by BGP EVPN, as a member of this autonomous system; needs a vxlan port"`
	RouterID    setting.Addr     `json:"router_id,omitzero" arg:"ADDRESS" default:"--local of the vxlan port" help:"with --evpn-as: BGP identifier, an IPv4 address that only this switch has"`
	Listen      *uint16          `json:"bgp_port,omitempty" arg:"N" default:"179" help:"with --evpn-as: TCP port where neighbors connect; 0 for none"`
	Suppression setting.Not      `json:"no_suppression,omitempty" flag:"suppression" arg:"on|off" default:"on" help:"with --evpn-as: answer ARP and neighbor discovery for stations of other hosts" schema:"do not answer ARP and neighbor discovery for stations of other hosts"`
	Hold        setting.Duration `json:"duplicate_hold,omitzero" arg:"TIME" default:"3m" help:"with --evpn-as: leave a station that is heard at two hosts at the other one for this long"`
}

// AfterMerge implements setting.Merged: when EVPN is turned off, its other settings are unset.
func (s *Settings) AfterMerge(former any, given func(key string) bool) {
	if former.(Settings).AS == 0 || s.AS != 0 {
		return
	}
	if !given("router_id") {
		s.RouterID = setting.Addr{}
	}
	if !given("bgp_port") {
		s.Listen = nil
	}
	if !given("no_suppression") {
		s.Suppression = false
	}
	if !given("duplicate_hold") {
		s.Hold = 0
	}
}

// Check returns what is wrong with the settings and how to fix it.
func (s Settings) Check() error {
	switch id := s.RouterID; {
	case s.AS == 0 && (id.IsValid() || s.Listen != nil || bool(s.Suppression) || s.Hold != 0):
		return errors.New("--router-id, --bgp-port, --suppression and --duplicate-hold are for EVPN; give --evpn-as as well")
	case id.IsValid() && (!id.Is4() || id.IsUnspecified() || id.IsMulticast()):
		return fmt.Errorf("%v is no BGP identifier; write --router-id as an IPv4 address such as 192.0.2.1", id)
	case s.Hold != 0 && time.Duration(s.Hold) < time.Second:
		return fmt.Errorf("--duplicate-hold cannot be %v; use 1s or more", s.Hold)
	}
	return nil
}

// Feature describes EVPN.
var Feature = feature.Feature{
	Name:    "evpn",
	Help:    "share stations with other hosts by BGP EVPN",
	Switch:  Settings{},
	Learned: []string{"sequences", "reserved"},
	Off:     "EVPN is off; turn it on with `vswitch set --evpn-as N`",
	On:      func(s any) bool { return s.(Settings).AS != 0 },
	New: func(h feature.Host, s any) (feature.Instance, error) {
		return newInstance(h, s.(Settings)), nil
	},
	Routes:   routes,
	Commands: commands,
}

// maxNeighbors bounds the neighbors: each has goroutines and buffers.
const maxNeighbors = 128

var errTooMany = fmt.Errorf("a switch has at most %d neighbors; use a route reflector", maxNeighbors)

// instance is a running EVPN.
type instance struct {
	host      feature.Host
	log       *slog.Logger // limited: guests and neighbors cause lines
	settings  Settings
	neighbors []neighbor // as users ask for
	peers     evpn.Peer  // the last number given to a neighbor
	sequences []evpn.Sequence
	reserved  uint32  // of a run that did not end by itself
	fabric    *fabric // nil: there is no vxlan port
}

// logRate bounds the lines about each neighbor: a session may come and go each second for days.
var logRate = logqueue.Rate{Subject: "neighbor", Burst: 10, Window: time.Minute}

// neighbor is a neighbor as it is kept.
type neighbor struct {
	api.AddEVPNNeighbor
	peer    evpn.Peer
	leftOut map[evpn.Key]string // why routes of this session are left out, maxLeftOut of them
}

// maxLeftOut bounds the routes of a neighbor of which it is remembered why they are left out.
const maxLeftOut = 1024

// problem says why routes are left out: for as many as fit a line.
func (n *neighbor) problem() string {
	const most = 3
	texts := slices.Compact(slices.Sorted(maps.Values(n.leftOut)))
	if more := len(texts) - most; more > 0 {
		texts = append(texts[:most], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, "; ")
}

func newInstance(h feature.Host, s Settings) *instance {
	return &instance{host: h, log: slog.New(logqueue.Limit(h.Log().Handler(), logRate)), settings: s}
}

// Set implements feature.Settable. Sessions end only with settings that neighbors are told.
func (i *instance) Set(settings any) error {
	from, to := i.settings, settings.(Settings)
	i.settings = to
	from.Suppression, from.Hold = to.Suppression, to.Hold
	f := i.fabric
	if f != nil && reflect.DeepEqual(from, to) {
		f.table.SetHold(time.Duration(to.Hold))
		for p := range i.host.Ports() {
			if p != f.uplink {
				f.local(p)
			}
		}
		return nil
	}
	if i.leave(); f != nil {
		i.see(f.uplink)
	}
	for p := range i.host.Ports() {
		if f == nil || p != f.uplink {
			i.see(p)
		}
	}
	return nil
}

// End implements feature.Ending: State has the sequence numbers as they are then, and nothing reserved.
func (i *instance) End() { i.leave() }

// Stop implements feature.Instance.
func (i *instance) Stop() { i.leave() }

// kept is what outlives the daemon.
type kept struct {
	Neighbors []api.AddEVPNNeighbor `json:"neighbors,omitempty"`
	Sequences []evpn.Sequence       `json:"sequences,omitempty"`
	Reserved  uint32                `json:"reserved,omitempty"`
}

// State implements feature.Kept.
func (i *instance) State() (json.RawMessage, error) {
	k := kept{Sequences: i.sequences, Reserved: i.reserved}
	for _, n := range i.neighbors {
		k.Neighbors = append(k.Neighbors, n.AddEVPNNeighbor)
	}
	if i.fabric != nil {
		k.Sequences, k.Reserved = i.fabric.table.Sequences(), i.fabric.table.Reserved()
	}
	if len(k.Neighbors) == 0 && len(k.Sequences) == 0 {
		return nil, nil
	}
	return json.Marshal(k)
}

// Restore implements feature.Kept. Sessions with neighbors that stay as they are go on. What this program does not
// understand is an error: the next save would lose it.
func (i *instance) Restore(b json.RawMessage) error {
	var k kept
	if err := feature.ReadKept(b, &k); err != nil {
		return err
	}
	var restored []neighbor
	for _, n := range k.Neighbors {
		if err := check(&n); err != nil {
			return err
		}
		if indexOf(restored, n.Address) >= 0 {
			return fmt.Errorf("neighbor %v is there twice", n.Address)
		}
		restored = append(restored, neighbor{AddEVPNNeighbor: n})
	}
	if len(restored) > maxNeighbors {
		return errTooMany
	}
	if k.Sequences != nil || k.Reserved > 0 {
		i.sequences, i.reserved = k.Sequences, k.Reserved
	}
	for _, n := range i.neighbors {
		if at := indexOf(restored, n.Address); at >= 0 && restored[at].AddEVPNNeighbor == n.AddEVPNNeighbor {
			restored[at] = n
		} else {
			i.disconnect(n)
		}
	}
	i.neighbors = restored
	for at := range restored {
		if n := &restored[at]; n.peer == 0 {
			i.peers++
			n.peer = i.peers
			i.connectLater(*n)
		}
	}
	return nil
}

// Configured implements feature.Configured.
func (i *instance) Configured(p feature.Port) { i.see(p) }

// Linked implements feature.Linked.
func (i *instance) Linked(p feature.Port, _ bool) { i.see(p) }

// Removed implements feature.Removed.
func (i *instance) Removed(p feature.Port) {
	if f := i.fabric; f != nil && f.uplink == p {
		f.speaker.Leave() // nobody reaches the stations by that tunnel any more
		i.leave()
		for other := range i.host.Ports() {
			if other != p {
				i.see(other)
			}
		}
	}
}

// tunnelOf returns the tunnel behind a port, nil if there is none.
func tunnelOf(p feature.Port) port.Tunnel {
	t, _ := p.Core().Device().(port.Tunnel)
	return t
}

// see takes note of a port that is new, changed, or has another device.
func (i *instance) see(p feature.Port) {
	t, f := tunnelOf(p), i.fabric
	switch {
	case f != nil && f.uplink == p:
		if t != nil && t.VTEP() != f.tunnel.VTEP() {
			f.speaker.Leave()
			i.leave()
			i.join(p, t)
		} else if t != nil {
			f.attach(t)
		}
	case t != nil && f == nil:
		i.join(p, t)
	case t != nil:
		i.log.Warn("EVPN uses one vxlan port; this one works on its own", "port", p.Name(), "evpn", f.uplink.Name())
	case f != nil:
		f.local(p)
	}
}

const noIdentifier = "EVPN over IPv6 needs a BGP identifier; set one with `vswitch set --router-id`"

// lacks says why there is no fabric.
func (i *instance) lacks() string {
	why := "there is no vxlan port; add one with `vswitch add-port NAME --kind vxlan`"
	for p := range i.host.Ports() {
		if tunnelOf(p) != nil {
			return noIdentifier
		}
		if p.Kind().Tunnel {
			why = fmt.Sprintf("the vxlan port %s is not open; `vswitch ports` says why", p.Name())
		}
	}
	return why
}

// join begins to exchange routes for a tunnel.
func (i *instance) join(p feature.Port, t port.Tunnel) {
	id := i.settings.RouterID.Addr
	if !id.IsValid() && t.VTEP().Is4() {
		id = t.VTEP()
	}
	if !id.IsValid() {
		i.log.Error(noIdentifier, "port", p.Name())
		return
	}
	i.fabric = newFabric(i, p, t, id)
	i.connectAll()
}

// leave ends what join began.
func (i *instance) leave() {
	if f := i.fabric; f != nil {
		i.sequences, i.reserved = f.table.Sequences(), 0
		i.fabric = nil
		f.close()
	}
}

// connect has the speaker connect to a neighbor.
func (i *instance) connect(n neighbor) error {
	if i.fabric == nil {
		return nil
	}
	err := i.fabric.speaker.Add(bgp.Neighbor{
		Peer: n.peer, Address: n.Address, AS: n.AS, Port: n.Port, Source: n.Source,
		Password: n.Password, Hold: time.Duration(n.HoldS) * time.Second,
	})
	if err == nil && n.BFD {
		i.fabric.bfd.Add(bfd.Neighbor{Address: n.Address, Source: n.Source})
	}
	return err
}

// connectAll connects to all neighbors.
func (i *instance) connectAll() {
	for _, n := range i.neighbors {
		i.connectLater(n)
	}
}

// connectLater is connect for a neighbor that users asked for before.
func (i *instance) connectLater(n neighbor) {
	if err := i.connect(n); err != nil {
		i.log.Error("a BGP neighbor is left out", "neighbor", n.Address, "error", err)
	}
}

func (i *instance) disconnect(n neighbor) {
	if i.fabric != nil {
		i.fabric.bfd.Remove(n.Address)
		i.fabric.speaker.Remove(n.Address)
		i.fabric.table.Down(time.Now(), n.peer, 0)
	}
}

// Queues implements feature.Queued.
func (i *instance) Queues() []vswitch.Queue { return []vswitch.Queue{vswitch.QueueResolution} }

// Receive implements feature.Queued: it answers a message of address resolution, or floods it.
func (i *instance) Receive(p feature.Port, c vswitch.ControlFrame) {
	if f := i.fabric; f != nil && f.answer(p, c) {
		return
	}
	if port.MACFrom(c.Data).IsGroup() {
		i.host.Switch().Flood(c)
	}
}

// check returns what is wrong with a neighbor and how to fix it.
func check(n *api.AddEVPNNeighbor) error {
	const shortest, longest = 3, 3600 // RFC 4271 section 4.2
	switch a := n.Address; {
	case !a.IsValid(), a.IsUnspecified(), a.IsMulticast(), a.Zone() != "", a.Is4In6():
		return fmt.Errorf("%v is not a neighbor's address; write it as 192.0.2.2 or 2001:db8::2", a)
	case n.AS == 0:
		return errors.New("a BGP neighbor needs its autonomous system; give --as")
	case n.Source.IsValid() && n.Source.Is4() != a.Is4():
		return fmt.Errorf("a session with %v cannot come from %v; give a --source of the same family", a, n.Source)
	case n.Source == a:
		return fmt.Errorf("%v cannot be the address of both ends; correct --source", a)
	case len(n.Password) > bgp.MaxPassword:
		return fmt.Errorf("the password has %d bytes; TCP MD5 takes at most %d", len(n.Password), bgp.MaxPassword)
	case n.HoldS != 0 && (n.HoldS < shortest || n.HoldS > longest):
		return fmt.Errorf("a hold time of %d s is not possible; use 3s to 1h", n.HoldS)
	}
	return nil
}

// add adds a neighbor.
func (i *instance) add(req api.AddEVPNNeighbor) (any, error) {
	if err := check(&req); err != nil {
		return nil, api.Errorf(api.CodeInvalid, "%w", err)
	}
	switch {
	case req.Address.Is6() && req.Address.IsLinkLocalUnicast():
		return nil, api.Errorf(api.CodeInvalid, "%v is a link-local address, which is not unique; use another one of the neighbor's", req.Address)
	case indexOf(i.neighbors, req.Address) >= 0:
		return nil, api.Errorf(api.CodeExists, "there is a neighbor %v; remove it first with `vswitch evpn neighbor del %v`", req.Address, req.Address)
	case len(i.neighbors) >= maxNeighbors:
		return nil, api.Errorf(api.CodeInvalid, "%w", errTooMany)
	}
	i.peers++
	n := neighbor{AddEVPNNeighbor: req, peer: i.peers}
	if err := i.connect(n); err != nil {
		return nil, api.Errorf(api.CodeFailed, "%w", err)
	}
	i.neighbors = append(i.neighbors, n)
	return i.view(n, nil), nil
}

// remove removes a neighbor.
func (i *instance) remove(address netip.Addr) error {
	at := indexOf(i.neighbors, address)
	if at < 0 {
		return api.Errorf(api.CodeNotFound, "there is no neighbor %v; `vswitch evpn neighbors` lists those there are", address)
	}
	i.disconnect(i.neighbors[at])
	i.neighbors = slices.Delete(i.neighbors, at, at+1)
	return nil
}

// indexOf returns the index of the neighbor with an address, -1 if there is none.
func indexOf(all []neighbor, a netip.Addr) int {
	return slices.IndexFunc(all, func(n neighbor) bool { return n.Address == a })
}

// list returns the neighbors by address.
func (i *instance) list() []api.EVPNNeighbor {
	statuses := make(map[netip.Addr]*bgp.Status)
	if i.fabric != nil {
		for _, s := range i.fabric.speaker.Neighbors() {
			statuses[s.Address] = &s
		}
	}
	all := []api.EVPNNeighbor{}
	for _, n := range i.neighbors {
		all = append(all, i.view(n, statuses[n.Address]))
	}
	slices.SortFunc(all, func(a, b api.EVPNNeighbor) int { return a.Address.Compare(b.Address) })
	return all
}

// view returns a neighbor as users see it; s is nil while there is no vxlan port.
func (i *instance) view(n neighbor, s *bgp.Status) api.EVPNNeighbor {
	v := api.EVPNNeighbor{
		Address: n.Address, AS: n.AS, Password: n.Password != "", Source: n.Source, Port: cmp.Or(n.Port, bgp.Port),
		HoldS: cmp.Or(n.HoldS, int64(bgp.DefaultHold/time.Second)), State: string(bgp.StateIdle),
	}
	switch {
	case s != nil:
		v.State, v.SinceS, v.RouterID = string(s.State), int64(time.Since(s.Since)/time.Second), s.RouterID
		v.Received, v.Sent, v.Problem = s.Received, s.Sent, s.Problem
		v.Routes = i.fabric.table.Count(n.peer)
		if s.State == bgp.StateEstablished {
			v.HoldS, v.RestartS = int64(s.Hold/time.Second), int64(s.Restart/time.Second)
		}
	case i.fabric == nil:
		v.Problem = i.lacks()
	}
	if s != nil {
		v.Problem = cmp.Or(v.Problem, n.problem())
		if left := i.fabric.table.LeftOut(n.peer); left > 0 {
			v.Problem = cmp.Or(v.Problem, fmt.Sprintf("%d routes are left out: a switch takes %d of all neighbors, which lead to %d hosts, and when it is full those of the neighbor with most", left, evpn.MaxRoutes, evpn.MaxVTEPs))
		}
	}
	if s != nil && n.BFD {
		watch, _ := i.fabric.bfd.Status(n.Address)
		v.BFD = watch.State.String()
		v.Problem = cmp.Or(v.Problem, watch.Problem)
	}
	return v
}
