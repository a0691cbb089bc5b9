// Package guard is the tenant guard: a VM behind a guarded port cannot take a MAC, IPv4 or
// IPv6 address of others, nor play DHCP server or router. Package internal/proto/guard
// decides; this one connects it to the switch's ports, keeps what it learned over a restart,
// and tells users. The daemon calls it with its turn; the checks run in the workers.
package guard

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/feature"
	proto "github.com/vswitch/vswitch/internal/proto/guard"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Feature describes the guard.
var Feature = feature.Feature{
	Name:   "guard",
	Help:   "keep tenants from taking each other's addresses",
	Switch: SwitchSettings{},
	Port:   Settings{},

	Learned: []string{"written", "ports"},
	New: func(h feature.Host, s any) (feature.Instance, error) {
		settings := s.(SwitchSettings)
		protect, err := settings.config()
		if err != nil {
			return nil, err
		}
		return start(h, protect), nil
	},
	Routes:   routes,
	Commands: commands,
}

// guard is the running guard.
type guard struct {
	host  feature.Host
	table *proto.Table
	ports map[uint16]*guarded
	watch *vswitch.Stage
	stop  func() // cancels the next tick; nil: none is due

	started time.Time
	// restored are the bindings of ports that are not configured yet, by name.
	restored map[string][]proto.Binding
	// lost are the bindings of ports whose last change took some, by number.
	lost map[uint16]lost

	drops map[reason]*summary
}

// lost are bindings that a port had before a change.
type lost struct {
	at  time.Time
	all []proto.Binding
}

// guarded is a guarded port.
type guarded struct {
	port  feature.Port
	rules *proto.Port
	stage *vswitch.Stage
	macs  []port.MAC           // of its stations, as far as the settings say
	told  map[port.Drop]uint64 // of the port's drops, those that events have told of
}

const (
	gap = time.Second // between ticks

	// restoreTime is how long the bindings of ports that are not there are kept: the daemon
	// restores its ports meanwhile.
	restoreTime = 5 * time.Minute

	// lostTime is how long a change of a port may be taken back without loss of its bindings: longer than
	// a command waits for the disk.
	lostTime = time.Minute
)

func start(h feature.Host, protect []netip.Prefix) *guard {
	g := &guard{
		host: h, table: proto.New(time.Now, protect),
		ports: make(map[uint16]*guarded), restored: make(map[string][]proto.Binding), lost: make(map[uint16]lost),
		drops: make(map[reason]*summary), started: time.Now(),
	}
	w := g.table.Watch()
	g.watch = &vswitch.Stage{Check: w.Check, Outcome: w.Outcome}
	if h.Switch().Fast() {
		g.table.SetMirror(mirror{h.Switch()})
	}
	return g
}

// Stop implements feature.Instance. The ports stay guarded as they are.
func (g *guard) Stop() {
	if g.stop != nil {
		g.stop()
	}
}

// Set implements feature.Settable.
func (g *guard) Set(s any) error {
	settings := s.(SwitchSettings)
	protect, err := settings.config()
	if err == nil {
		g.table.Protect(protect)
	}
	return err
}

// configOf returns what a port may send by its settings.
func (g *guard) configOf(p feature.Port) (c proto.Config, s Settings, err error) {
	s = feature.PortSettings[Settings](p)
	c, err = s.config(g.host.StationMAC(p), p.VLANs())
	c.Isolated = bool(p.Policy().Isolated)
	if err == nil {
		err = s.check(&c)
	}
	return c, s, err
}

// Refuse implements feature.Refusing.
func (g *guard) Refuse(p feature.Port) error {
	if s := feature.PortSettings[Settings](p); !s.on() {
		return nil
	}
	c, _, err := g.configOf(p)
	if err != nil {
		return err
	}
	return g.table.Refuse(p.Number(), &c)
}

// Yield implements feature.Yielding.
func (g *guard) Yield(next map[string]*port.Spec) {
	will := make(map[string]proto.Config)
	for name, spec := range next {
		if spec == nil {
			continue
		}
		if s := port.SectionOf[Settings](spec); s.on() {
			// What is wrong with it comes up in its turn.
			if c, err := s.config(g.stationOf(name), spec.Carried()); err == nil {
				will[name] = c
			}
		}
	}
	for n, x := range g.ports {
		name := x.port.Name()
		if _, changes := next[name]; !changes {
			continue
		}
		is, _, err := g.configOf(x.port)
		if err != nil {
			continue
		}
		less := is
		for other, c := range will {
			if other != name {
				less = less.Without(&c)
			}
		}
		if len(less.MACs) != len(is.MACs) || len(less.Addresses) != len(is.Addresses) {
			g.table.Guard(n, name, less)
		}
	}
}

// stationOf returns the MAC address that qemu-args gives a port, or 0.
func (g *guard) stationOf(name string) port.MAC {
	if p, err := feature.FindPort(g.host, name); err == nil {
		return g.host.StationMAC(p)
	}
	return 0
}

// Configured implements feature.Configured. When it returns, no frame passes by former rules.
func (g *guard) Configured(p feature.Port) {
	n := p.Number()
	had := g.table.Learned(n)
	defer func() {
		if len(g.table.Learned(n)) < len(had) {
			g.lost[n] = lost{time.Now(), had}
		}
	}()
	if s := feature.PortSettings[Settings](p); !s.on() {
		p.Core().SetStage(nil)
		g.unguard(n)
		return
	}
	c, s, err := g.configOf(p)
	if err != nil {
		// A port that cannot be guarded as its settings say sends nothing.
		g.host.Log().Error("a guarded port accepts nothing", "port", p.Name(), "reason", err)
		c = proto.Config{VLANs: p.VLANs()}
	}
	x := g.ports[n]
	if x == nil {
		x = &guarded{port: p, told: make(map[port.Drop]uint64)}
		for why, n := range p.Core().Stats().RX.Dropped {
			if n != 0 {
				x.told[port.Drop(why)] = n
			}
		}
		g.ports[n] = x
	}
	x.rules, x.macs = g.table.Guard(n, p.Name(), c), c.MACs
	g.table.Restore(n, g.restored[p.Name()]...)
	delete(g.restored, p.Name())
	if l := g.lost[n]; time.Since(l.at) < lostTime { // the change may have been taken back
		g.table.Restore(n, l.all...)
	}
	learns := !c.MACOnly && c.Learn&(proto.LearnDHCP|proto.LearnARP|proto.LearnPD) != 0 // from what is sent to it
	unknown := s.Unknown || p.Policy().NoFlood.AsksUnknown()
	if x.stage == nil || x.stage.Unknown != unknown || x.stage.Snoop != learns {
		x.stage = &vswitch.Stage{Check: x.rules.Check, Outcome: x.rules.Outcome, Why: x.rules.Why, Setting: "--guard", Fast: true, Snoop: learns, Unknown: unknown}
	}
	g.rewatch()
	p.Core().SetStage(x.stage)
	g.forget(n, x.rules)
	g.introduce(x)
	if g.stop == nil {
		g.stop = g.host.After(gap, g.tick)
	}
}

// forget removes the stations that the port learned and may not have.
func (g *guard) forget(number uint16, rules *proto.Port) {
	core := g.host.Switch()
	if core.FDB().Flush(func(e fdb.Entry) bool {
		return e.Port == number && !rules.Has(port.MAC(e.Key.MAC()))
	}) != 0 {
		core.Settle()
	}
}

// maxVLANs bounds the VLANs in which a station is introduced.
const maxVLANs = 16

// introduce enters the stations of a port into the FDB where it does not know them, as their
// first frame would. Frames to unknown stations do not go to a guarded port, so one that is
// silent after a restart could not be reached.
func (g *guard) introduce(x *guarded) {
	policy, core := x.port.Policy(), g.host.Switch()
	if !x.port.Up() || !x.port.Passes() || bool(policy.NoLearning) || policy.Locked {
		return
	}
	vlans, left, learned := x.port.VLANs(), maxVLANs, false
	for vid := range vlans.All() {
		if left--; left < 0 {
			break
		}
		for _, mac := range x.macs {
			k := fdb.MakeKey(vid, uint64(mac))
			if _, known := core.FDB().Get(k); !known {
				core.FDB().Learn(k, x.port.Number())
				learned = true
			}
		}
	}
	if learned {
		core.Settle()
	}
}

// Linked implements feature.Linked.
func (g *guard) Linked(p feature.Port, up bool) {
	if x := g.ports[p.Number()]; x != nil && up {
		g.introduce(x)
	}
}

// Forgotten implements feature.Forgotten.
func (g *guard) Forgotten(p feature.Port) {
	if x := g.ports[p.Number()]; x != nil {
		g.introduce(x)
	}
}

// Removed implements feature.Removed.
func (g *guard) Removed(p feature.Port) {
	g.unguard(p.Number())
	delete(g.lost, p.Number())
}

func (g *guard) unguard(number uint16) {
	if g.ports[number] == nil {
		return
	}
	delete(g.ports, number)
	g.table.Unguard(number)
	g.rewatch()
}

// rewatch watches trusted ports while a guarded port may learn from them.
func (g *guard) rewatch() {
	if g.table.Learns() {
		g.host.Switch().SetDefaultStage(g.watch)
	} else {
		g.host.Switch().SetDefaultStage(nil)
	}
}

// tick runs once a second while there are guarded ports.
func (g *guard) tick() {
	g.stop = nil
	if len(g.ports) != 0 {
		g.stop = g.host.After(gap, g.tick)
	}
	now := time.Now()
	if now.Sub(g.started) > restoreTime {
		clear(g.restored) // of ports that are gone
	}
	for _, x := range g.ports {
		g.introduce(x)
	}
	events, asks := g.table.Tick()
	for _, a := range asks {
		g.ask(a)
	}
	events = g.dropped(events)
	for _, ev := range events {
		g.report(ev, now)
	}
	g.shut(events)
	g.sumUp(now)
	if g.table.Changed() {
		g.host.Save()
	}
}

// ask sends a question to a port, or to all others.
func (g *guard) ask(a proto.Ask) {
	to := []uint16{a.Port}
	if a.Others {
		to = to[:0]
		for p := range g.host.Ports() {
			if p.Number() != a.Port {
				to = append(to, p.Number())
			}
		}
	}
	g.host.Speak(a.VLAN)
	g.host.Switch().Send(vswitch.ControlFrame{VLAN: a.VLAN, Data: a.Frame(g.host.MAC())}, to...)
}

// kept is what the guard keeps: the bindings that are not in the settings of a port.
type kept struct {
	Added   map[string][]keptEntry `json:"added,omitempty"`   // by `guard add`, for each port
	Written int64                  `json:"written,omitempty"` // when Ports was, in seconds since 1970
	Ports   map[string][]keptEntry `json:"ports,omitempty"`   // what was learned; added ones, too, in states of before
}

// put adds a binding that a port has now.
func (k *kept) put(port string, b *proto.Binding, now time.Time) {
	to := &k.Ports
	if b.Source == proto.Static {
		to = &k.Added
	} else {
		k.Written = now.Unix()
	}
	if *to == nil {
		*to = make(map[string][]keptEntry)
	}
	(*to)[port] = append((*to)[port], keep(b, now, now))
}

type keptEntry struct {
	VLAN    uint16       `json:"vlan"`
	MAC     port.MAC     `json:"mac"`
	Address netip.Addr   `json:"address"`
	Bits    int          `json:"bits,omitempty"` // of a prefix
	Source  proto.Source `json:"source"`
	Expires int64        `json:"expires,omitempty"` // in seconds since 1970; 0: never
	Server  string       `json:"server,omitempty"`
}

// keep converts a binding. now is the time, and wall what the clock shows, which somebody may have set since the
// binding was made.
func keep(b *proto.Binding, now, wall time.Time) keptEntry {
	e := keptEntry{VLAN: b.VLAN, MAC: b.MAC, Address: b.Prefix.Addr(), Source: b.Source}
	if !b.Prefix.IsSingleIP() {
		e.Bits = b.Prefix.Bits()
	}
	if !b.Expiry.IsZero() {
		e.Expires = wall.Add(b.Expiry.Sub(now)).Unix()
	}
	if b.Server.IsValid() {
		e.Server = b.Server.String()
	}
	return e
}

// binding is the reverse of keep. at converts when it expires.
func (e *keptEntry) binding(at func(time.Time) time.Time) (b proto.Binding, err error) {
	b = proto.Binding{VLAN: e.VLAN, MAC: e.MAC, Source: e.Source}
	switch e.Source {
	case proto.Static, proto.DHCP, proto.SLAAC, proto.ARP, proto.PD:
	default:
		return b, fmt.Errorf("there is no source %q of bindings", e.Source)
	}
	if !e.Address.IsValid() {
		return b, errors.New("a binding has no address")
	}
	if b.Prefix = netip.PrefixFrom(e.Address, cmp.Or(e.Bits, e.Address.BitLen())); !b.Prefix.IsValid() {
		return b, fmt.Errorf("%v has no prefix of %d bits", e.Address, e.Bits)
	}
	if e.Expires != 0 {
		b.Expiry = at(time.Unix(e.Expires, 0))
	}
	if e.Server != "" {
		if b.Server, err = netip.ParseAddr(e.Server); err != nil {
			return b, err
		}
	}
	return b, nil
}

// left returns a conversion of times by a clock that showed written to those of this clock, now:
// what was left then is left. Nobody changes what is left by setting the clock.
func left(written int64, now time.Time) func(time.Time) time.Time {
	return func(t time.Time) time.Time { return now.Add(t.Sub(time.Unix(written, 0))) }
}

// State implements feature.Kept.
func (g *guard) State() (json.RawMessage, error) {
	now := time.Now()
	var k kept
	for name, all := range g.restored {
		for i := range all {
			k.put(name, &all[i], now)
		}
	}
	for _, b := range g.table.Bindings() {
		if b.Learned && b.Bound {
			k.put(b.Port, &b, now)
		}
	}
	if len(k.Added)+len(k.Ports) == 0 {
		return nil, nil
	}
	return json.Marshal(k)
}

// Restore implements feature.Kept. What cannot be read is left out: the station then waits
// until its address is learned again.
func (g *guard) Restore(text json.RawMessage) error {
	var k kept
	if text == nil { // there was nothing
		text = json.RawMessage("{}")
	}
	if err := json.Unmarshal(text, &k); err != nil {
		g.host.Log().Error("the bindings of guarded ports cannot be read; stations wait until their addresses are learned again", "error", setting.Plain(err))
		return nil
	}
	now := time.Now()
	at := left(max(k.Written, now.Unix()), now) // it was set back if it showed more
	clear(g.restored)                           // State had them
	for _, ports := range []map[string][]keptEntry{k.Added, k.Ports} {
		for name, all := range ports {
			for i := range all {
				b, err := all[i].binding(at)
				if err != nil {
					g.host.Log().Error("a binding of a guarded port cannot be read", "port", name, "error", err)
					continue
				}
				g.restored[name] = append(g.restored[name], b)
			}
		}
	}
	for n, x := range g.ports { // a change is taken back
		g.table.Clear(n)
		g.table.Restore(n, g.restored[x.port.Name()]...)
		delete(g.restored, x.port.Name())
	}
	return nil
}
