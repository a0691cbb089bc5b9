package guard

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/internal/packet/arp"
	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/internal/packet/ip"
	"github.com/vswitch/vswitch/internal/packet/ndp"
	"github.com/vswitch/vswitch/port"
)

// Binding is an address of a station, as users see it.
type Binding struct {
	Port    string
	VLAN    uint16 // 0: every VLAN of the port
	MAC     port.MAC
	Prefix  netip.Prefix
	Source  Source
	Bound   bool      // false: not yet, somebody may still object
	From    time.Time // when it is bound; zero: it is
	Expiry  time.Time
	Server  netip.Addr
	Heard   time.Time // zero: never, or it is not learned
	Learned bool      // it is not part of the port's settings
}

// Bindings returns all bindings, ordered by port, VLAN, MAC and address.
func (t *Table) Bindings() (all []Binding) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.sorted() {
		first := len(all)
		all = p.bindings(all)
		slices.SortStableFunc(all[first:], func(a, b Binding) int {
			return cmp.Or(cmp.Compare(a.VLAN, b.VLAN), cmp.Compare(a.MAC, b.MAC), a.Prefix.Addr().Compare(b.Prefix.Addr()))
		})
	}
	return all
}

// Learned returns the bindings that a port learned, or that somebody added.
func (t *Table) Learned(number uint16) []Binding {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.ports[number]
	if p == nil {
		return nil
	}
	return slices.DeleteFunc(p.bindings(nil), func(b Binding) bool { return !b.Learned })
}

// bindings appends those of a port. The caller holds table.mu.
func (p *Port) bindings(all []Binding) []Binding {
	now := p.table.now()
	for i, e := range slices.Concat(p.statics, p.learned) {
		b := Binding{
			Port: p.name, VLAN: e.vlan, MAC: e.mac, Prefix: e.network(),
			Source: e.source, Bound: true, Expiry: e.expiry, Server: e.server.Value(), Learned: i >= len(p.statics),
		}
		if left := time.Duration(e.usable.Load()) - p.table.age(now); left > 0 {
			b.Bound, b.From = false, now.Add(left)
		}
		if s := e.heard.Load(); s != 0 {
			b.Heard = now.Add(time.Duration(s)*time.Second - p.table.age(now))
		}
		all = append(all, b)
	}
	for _, x := range p.rules.Load().prefixes {
		if x.entry != nil {
			continue // it is among the learned
		}
		all = append(all, Binding{Port: p.name, VLAN: x.vlan, MAC: x.mac, Prefix: x.Prefix, Source: Static, Bound: true})
	}
	return all
}

// copyOut tells the mirror what the port may send. The caller holds table.mu.
func (p *Port) copyOut() {
	for _, e := range p.learned {
		e.published = 0
		if !e.expiry.IsZero() {
			e.published = e.expiry.Unix()
		}
	}
	if m := p.table.mirror; m != nil && !p.held {
		r := p.rules.Load()
		m.Publish(p.number, &Snapshot{MACs: r.macs, VLANs: p.config.VLANs, MACOnly: r.macOnly, MoreTypes: len(r.types) != 0,
			Exceptions: len(r.virtual) != 0 || r.learn&LearnARP != 0, Bindings: p.bindings(nil)})
	}
}

// Listen notes when the mirror last heard the stations of a port's learned bindings.
func (t *Table) Listen(number uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.ports[number]; p != nil {
		for _, e := range p.learned {
			e.listen()
		}
	}
}

// listen notes when the mirror last heard the station. The caller holds table.mu.
func (e *entry) listen() {
	t := e.port.table
	if t.mirror == nil || e.bits != 0 {
		return
	}
	b := Binding{VLAN: e.vlan, MAC: e.mac, Prefix: netip.PrefixFrom(e.addr, e.addr.BitLen())}
	if ago, ok := t.mirror.Heard(e.port.number, &b); ok {
		e.heard.Store(max(e.heard.Load(), seconds(t.age(t.now())-ago)))
	}
}

// Restore gives a port bindings that it had. What the port's configuration no longer allows, and
// what has expired, is ignored.
func (t *Table) Restore(number uint16, all ...Binding) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.ports[number]
	if p == nil || len(all) == 0 {
		return
	}
	t.quiet, p.held = true, true
	for i := range all {
		p.restore(&all[i])
	}
	t.quiet, p.held = false, false
	p.publish()
}

// restore is Restore of one binding. The caller holds table.mu.
func (p *Port) restore(b *Binding) {
	switch {
	case b.Prefix.IsSingleIP() == (b.Source == PD), !p.config.VLANs.Has(b.VLAN):
	case !p.learns(b.Source, b.Prefix.Addr()):
	case !b.Expiry.IsZero() && !p.table.now().Before(b.Expiry):
	case b.Source == PD:
		p.delegate(b.VLAN, b.MAC, b.Prefix, b.Expiry, b.Server)
	default:
		p.bind(b.VLAN, b.MAC, b.Prefix.Addr(), b.Source, b.Expiry, b.Server, 0)
	}
}

// Add gives a port a static address. An error says why it cannot have it.
func (t *Table) Add(number uint16, vlan uint16, mac port.MAC, a netip.Addr) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.ports[number]
	switch {
	case p == nil:
		return fmt.Errorf("the port is not guarded; set --guard on first")
	case !p.hasMAC(mac):
		return fmt.Errorf("port %s may not use the MAC address %v; name it with --guard-mac or --guard-pair", p.name, mac)
	case !p.config.VLANs.Has(vlan):
		return fmt.Errorf("port %s does not carry VLAN %d", p.name, vlan)
	case !unicast(a):
		return fmt.Errorf("%v is no address of a station", a)
	}
	for _, q := range t.wide {
		has := func(x Address) bool { return (x.VLAN == 0 || x.VLAN == vlan) && x.Contains(a) }
		if q != p && q.config.VLANs.Has(vlan) && slices.ContainsFunc(q.config.Addresses, has) {
			return fmt.Errorf("port %s has the address %v already, in a prefix of its settings", q.name, a)
		}
	}
	if e := t.owner(vlan, a); e != nil {
		if e.source == Static && (e.port != p || e.mac != mac) {
			return fmt.Errorf("port %s has the address %v already", e.port.name, a)
		}
		if e.source == Static {
			return nil
		}
		t.remove(e, Ended, "given to port "+p.name)
	}
	if !p.bind(vlan, mac, a, Static, time.Time{}, netip.Addr{}, 0) {
		return fmt.Errorf("port %s has as many addresses as it can have", p.name)
	}
	return nil
}

// Delete takes learned and added bindings from a port: that of an address, or all if a is
// the zero Addr. It returns how many.
func (t *Table) Delete(number uint16, a netip.Addr) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.ports[number]
	if p == nil {
		return 0
	}
	for _, e := range slices.Clone(p.learned) {
		if !a.IsValid() && e.source == Static || a.IsValid() && e.addr != a {
			continue
		}
		t.remove(e, Ended, "deleted by a user")
		n++
	}
	return n
}

// Changed reports whether learned bindings changed since the last call.
func (t *Table) Changed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.changed
	t.changed = false
	return was
}

// Tick advances the clock, about once a second: it ends bindings whose time is over. It
// returns what happened since the last call and what to ask in the network.
func (t *Table) Tick() (events []Event, asks []Ask) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	t.clock.Store(seconds(t.age(now)))
	maps.DeleteFunc(t.servers, func(_ server, heard time.Time) bool { return now.Sub(heard) > serverTime })
	for _, p := range t.ports {
		if len(t.renewals) != 0 {
			p.renew(now)
		}
		for _, e := range slices.Clone(p.learned) {
			silent := func() bool { return e.source == SLAAC && t.clock.Load()-e.heard.Load() > seconds(slaacTime) }
			if silent() {
				e.listen()
			}
			if silent() || !e.expiry.IsZero() && !now.Before(e.expiry) {
				t.remove(e, Expired, "expired")
			}
		}
		for _, w := range slices.Clone(p.waiting) {
			if now.After(w.until) {
				t.finish(w)
			}
		}
		for why := range p.violations {
			v := &p.violations[why]
			if n := v.count.Swap(0); n != 0 {
				var ev Event
				if v.sample != nil {
					ev, v.sample = *v.sample, nil
				}
				ev.Kind, ev.Port, ev.Reason, ev.Count = Violation, p.name, port.DropGuardMAC+port.Drop(why), n
				t.events = append(t.events, ev)
			}
			v.armed.Store(true)
		}
	}
	t.renewals = t.renewals[:0]
	asks = t.settle(now)
	events, t.events = t.events, nil
	return events, asks
}

// EventKind says what an Event is about.
type EventKind string

const (
	Violation EventKind = "violation"
	Bound     EventKind = "bound"
	Changed   EventKind = "changed"
	Removed   EventKind = "removed"
	Refused   EventKind = "refused"
	Conflict  EventKind = "conflict"
	Server    EventKind = "server" // a DHCP server was heard, which none was before
)

// Event is something that users may want to know.
type Event struct {
	Kind    EventKind
	Port    string
	VLAN    uint16
	MAC     port.MAC
	Address netip.Addr // claimed, for a violation
	Source  Source
	Other   string    // the other port of a conflict
	Reason  port.Drop // of a violation
	Claimed port.MAC  // the MAC that an ARP or ND packet names
	Count   uint64    // frames, for a violation
	Text    string
}

// maxEvents bounds the events between two ticks.
const maxEvents = 256

// event keeps an event for the next Tick. The caller holds mu.
func (t *Table) event(ev Event) {
	if !t.quiet && len(t.events) < maxEvents {
		t.events = append(t.events, ev)
	}
}

// violation counts the frames of a port that were dropped for a reason since the last tick.
type violation struct {
	count atomic.Uint64
	armed atomic.Bool // the next frame is the sample
	// Table.mu guards it. A frame that was counted may not be here yet.
	sample *Event
}

// violated counts a dropped frame. The first in each second is kept as the sample.
func (p *Port) violated(why port.Drop, f *port.Frame) {
	if !why.ByGuard() {
		return
	}
	v := &p.violations[why-port.DropGuardMAC]
	if v.armed.Load() && v.armed.CompareAndSwap(true, false) {
		ev := &Event{VLAN: f.VLAN, MAC: f.Src}
		ev.Claimed, ev.Address = claimed(f.Data)
		p.table.mu.Lock()
		v.sample = ev
		p.table.mu.Unlock()
	}
	v.count.Add(1)
}

// claimed returns the MAC, if any, and the address that a frame claims for its sender.
func claimed(data []byte) (mac port.MAC, a netip.Addr) {
	body := data[port.HeaderLen:]
	switch binary.BigEndian.Uint16(data[12:]) {
	case eth.TypeARP:
		if p, ok := arp.Parse(body); ok {
			if p.Sender.IsUnspecified() {
				return p.SenderMAC, p.Target
			}
			return p.SenderMAC, p.Sender
		}
	case eth.TypeIPv4:
		if len(body) >= 20 {
			return 0, toNetip(ip.From4(body[12:]))
		}
	case eth.TypeIPv6:
		if len(body) < 40 {
			return 0, a
		}
		a = toNetip(ip.From16(body[8:]))
		p, fault := ip.Parse6(body, len(body), port.MinHead)
		if fault != ip.OK || p.Proto != ip.ICMPv6 {
			return 0, a
		}
		if m, ok := ndp.Parse(p.Body); ok {
			if m.Target.IsValid() && m.Type != ndp.Redirect {
				a = m.Target
			}
			return m.LinkLayer, a
		}
	}
	return 0, a
}

// Clear takes all learned and added bindings from a port.
func (t *Table) Clear(number uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.ports[number]; p != nil {
		for _, e := range slices.Clone(p.learned) {
			t.remove(e, Ended, "replaced")
		}
	}
}

// Has reports whether the port may use a MAC.
func (p *Port) Has(mac port.MAC) bool { return slices.Contains(p.rules.Load().macs, mac) }
