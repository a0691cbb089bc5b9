// Package guard keeps the stations behind some ports from passing for others: it checks
// every frame that such a port receives, and learns from DHCP, duplicate address detection
// and ARP which addresses a station has. It does no I/O. Workers call Port.Check and
// Watch.Check, several at a time; whoever configures ports and keeps the table calls the
// rest from any goroutine. Checks of ordinary traffic read an immutable snapshot; only
// frames that may change a binding take the table's lock.
//
// A port is guarded, or trusted: what it sends is watched, never checked. What is allowed
// are triples (VLAN, MAC, address): an address belongs to its MAC, not to the port. Each
// stage of a check may only drop, and what cannot be understood is dropped.
package guard

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/vswitch/vswitch/internal/packet/ip"
	"github.com/vswitch/vswitch/port"
)

// Config says what a guarded port may send.
type Config struct {
	MACOnly    bool           // check MAC address, tag, EtherType and offload alone
	MACs       []port.MAC     // of the station; Addresses belong to the first
	Addresses  []Address      // static
	Pairs      []Pair         // further addresses with MACs of their own
	VLANs      port.VLANSet   // that the port carries
	Learn      Learn          // where further addresses are learned from
	Allow      Allow          // roles that the station may play
	EtherTypes []uint16       // beside IPv4, ARP, RARP and IPv6
	Prefixes   []netip.Prefix // in which addresses may be formed, beside those that routers advertise
	Limit      int            // most learned addresses; 0: the default of each source
	Isolated   bool           // isolated neighbours do not hear the station
}

// Address is an address, or a whole prefix, in one VLAN.
type Address struct {
	netip.Prefix
	VLAN uint16 // 0: every VLAN of the port
}

// Pair is an address that belongs to a MAC other than the station's own.
type Pair struct {
	MAC port.MAC
	Address

	// VRRP marks a virtual router's: the station may send advertisements from its own
	// addresses with the MAC, and the address with its own MAC.
	VRRP bool
}

// Learn is a set of sources of bindings.
type Learn uint8

const (
	LearnDHCP  Learn = 1 << iota // leases of DHCP and DHCPv6
	LearnSLAAC                   // duplicate address detection
	LearnARP                     // the first address that the station uses
	LearnPD                      // prefixes that DHCPv6 delegates (RFC 8415 section 6.3)
)

// Allow is a set of roles.
type Allow uint8

const (
	AllowDHCPServer Allow = 1 << iota
	AllowRouter
	AllowVRRP
)

// Source says where a binding comes from.
type Source string

const (
	Static Source = "static" // configured
	OfPair Source = "pair"   // likewise, with a MAC of its own
	Local  Source = "local"  // the link-local address that a MAC makes (RFC 4291 appendix A)
	DHCP   Source = "dhcp"
	SLAAC  Source = "slaac"
	ARP    Source = "arp"
	PD     Source = "pd"
)

// Sources lists all sources.
var Sources = []Source{Static, OfPair, Local, DHCP, SLAAC, ARP, PD}

// Limits of learned bindings and pending transactions.
const (
	maxBindings = 65536
	maxLeases4  = 4
	maxLeases6  = 16
	maxPD       = 4
	maxSLAAC    = 32
	maxLocal    = 4 // link-local addresses of a port that learns no others
	maxPending  = 16
	maxHeard    = 8192
	maxServers  = 64

	pendingTime = 120 * time.Second
	tentative   = time.Second // RFC 4862: one second without an answer
	slaacTime   = 24 * time.Hour
	recent      = 60 * time.Second // a station heard since is not displaced
	heardTime   = 5 * time.Minute
	fullGap     = time.Minute // between events that a port has no room

	dhcpRate  = 10 // a second
	dhcpBurst = 50
)

// Table holds the bindings of a switch.
type Table struct {
	now   func() time.Time
	made  time.Time
	clock atomic.Int64 // seconds of age, as of the last Tick

	mu       sync.Mutex
	ports    map[uint16]*Port
	wide     map[uint16]*Port // those with pairs or prefixes
	owners   map[owner]*entry
	pending  map[txn]*transaction
	protect  []netip.Prefix
	prefixes map[uint16][]advertised // by VLAN
	heard    [2]map[owner]struct{}   // of trusted ports, in this period and the one before
	turned   time.Time               // when the period began
	renewals []renewal               // of prefixes, since the last Tick
	servers  map[server]time.Time    // of DHCP, and when each was last heard
	claims   []*claim
	events   []Event
	counts   Counts
	changed  bool
	quiet    bool // report no events
	mirror   Mirror
}

// Mirror is a copy of what guarded ports may send, by which others check, such as the kernel.
// Its methods are called with the table's lock held, by workers too.
type Mirror interface {
	// Publish replaces what a port may send; nil: it is trusted. What is no longer allowed does
	// not pass when it returns.
	Publish(number uint16, s *Snapshot)

	// Heard returns how long ago the mirror heard a binding's station; ok is false if it never
	// did.
	Heard(number uint16, b *Binding) (ago time.Duration, ok bool)
}

// Snapshot is what a port may send.
type Snapshot struct {
	MACs      []port.MAC
	VLANs     port.VLANSet
	MACOnly   bool
	MoreTypes bool // EtherTypes beside IPv4, ARP, RARP and IPv6
	Bindings  []Binding

	// Exceptions says that frames from other addresses may be accepted, too: a first use, or an
	// advertisement of a virtual router.
	Exceptions bool
}

// SetMirror names the mirror, before there are ports.
func (t *Table) SetMirror(m Mirror) { t.mirror = m }

// owner is the key by which an address has one owner in a VLAN.
type owner struct {
	vlan uint16
	addr netip.Addr
}

// entry is a binding.
type entry struct {
	port   *Port
	mac    port.MAC
	addr   netip.Addr
	vlan   uint16      // 0: every VLAN of the port
	bits   uint8       // of a prefix, whose first address addr is; 0: it is an address
	asked  atomic.Bool // somebody else claims the address, and nothing was heard since
	source Source
	server unique.Handle[netip.Addr] // few servers give many addresses
	expiry time.Time                 // zero: never

	published int64 // the expiry that the mirror and the state have, in seconds since 1970; 0: none

	usable atomic.Int64 // when it is bound, in ns of Table.age; 0: it is
	heard  atomic.Int64 // seconds of Table.clock; 0: never
}

// numReasons is how many reasons there are for which the guard drops frames.
const numReasons = port.DropGuardRouter - port.DropGuardMAC + 1

// Port is a guarded port.
type Port struct {
	table  *Table
	number uint16
	name   string

	rules atomic.Pointer[rules]

	// Guarded by table.mu.
	config  Config
	statics []*entry
	learned []*entry
	waiting []*transaction
	held    bool      // changes are published later, all at once
	full    time.Time // when an event last told that there is no room
	counts  Counts

	rate       bucket
	violations [numReasons]violation
}

// New makes a table. now is its clock, and protect lists addresses that no port learns.
func New(now func() time.Time, protect []netip.Prefix) *Table {
	t := &Table{
		now: now, protect: protect,
		ports: make(map[uint16]*Port), wide: make(map[uint16]*Port), owners: make(map[owner]*entry),
		pending: make(map[txn]*transaction), prefixes: make(map[uint16][]advertised),
		servers: make(map[server]time.Time), turned: now(), made: now().Add(-time.Second),
	}
	t.heard[0], t.heard[1] = make(map[owner]struct{}), make(map[owner]struct{})
	t.clock.Store(seconds(t.age(now())))
	return t
}

// age is a clock that begins at one second when the table is made. Unlike the time of day, which
// somebody may set, it passes as time does: a binding neither ends early nor begins late.
func (t *Table) age(now time.Time) time.Duration { return now.Sub(t.made) }

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// Refuse returns why a port cannot have this configuration: another port has the address or
// the MAC in the same VLAN.
func (t *Table) Refuse(number uint16, c *Config) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var first *Port // the one with the lowest number, for the same words each time
	for _, p := range t.ports {
		if what, _ := c.shares(&p.config); what != "" && p.number != number && (first == nil || p.number < first.number) {
			first = p
		}
	}
	if first == nil {
		return nil
	}
	what, vlan := c.shares(&first.config)
	return fmt.Errorf("port %s has the %s in VLAN %d already; an address belongs to one port, or give it to both with --guard-pair", first.name, what, vlan)
}

// shares returns in words an address that two configurations have in the same VLAN, or "".
func (c *Config) shares(o *Config) (what string, vlan uint16) {
	// Nearly always nothing is the same, in whatever VLAN.
	sameMAC := func(m port.MAC) bool { return slices.Contains(o.MACs, m) }
	same := func(a Address) bool {
		return slices.ContainsFunc(o.Addresses, func(b Address) bool { return a.Overlaps(b.Prefix) })
	}
	if !slices.ContainsFunc(c.MACs, sameMAC) && !slices.ContainsFunc(c.Addresses, same) {
		return "", 0
	}
	for _, vlan := range common(&c.VLANs, &o.VLANs) {
		for _, mac := range c.MACs {
			if sameMAC(mac) {
				return "MAC address " + mac.String(), vlan
			}
		}
		for _, a := range c.Addresses {
			for _, b := range o.Addresses {
				if a.overlaps(b, vlan) {
					return "address " + text(b.Prefix), vlan
				}
			}
		}
	}
	return "", 0
}

// overlaps reports whether two addresses are the same in a VLAN.
func (a Address) overlaps(b Address, vlan uint16) bool {
	return a.Overlaps(b.Prefix) && (a.VLAN == 0 || a.VLAN == vlan) && (b.VLAN == 0 || b.VLAN == vlan)
}

// Without returns c without the MACs and addresses that it shares with o. An address whose MAC
// goes, goes as well.
func (c Config) Without(o *Config) Config {
	vlans := common(&c.VLANs, &o.VLANs)
	if len(vlans) == 0 {
		return c
	}
	if len(c.MACs) > 0 && slices.Contains(o.MACs, c.MACs[0]) {
		c.Addresses = nil // they belong to the first
	}
	c.MACs = slices.DeleteFunc(slices.Clone(c.MACs), func(m port.MAC) bool { return slices.Contains(o.MACs, m) })
	c.Addresses = slices.DeleteFunc(slices.Clone(c.Addresses), func(a Address) bool {
		return slices.ContainsFunc(o.Addresses, func(b Address) bool {
			return slices.ContainsFunc(vlans, func(vlan uint16) bool { return a.overlaps(b, vlan) })
		})
	})
	return c
}

// text writes a prefix of one address as that address.
func text(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// common returns the VLANs that are in both sets.
func common(a, b *port.VLANSet) (vlans []uint16) {
	for vid := range a.All() {
		if b.Has(vid) {
			vlans = append(vlans, vid)
		}
	}
	return vlans
}

// sorted returns the ports by number. The caller holds mu.
func (t *Table) sorted() []*Port {
	all := make([]*Port, 0, len(t.ports))
	for _, p := range t.ports {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *Port) int { return int(a.number) - int(b.number) })
	return all
}

// Guard makes a port guarded, or changes what it may send. Learned bindings stay as far as
// the configuration still allows them.
func (t *Table) Guard(number uint16, name string, c Config) *Port {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.ports[number]
	if p == nil {
		p = &Port{table: t, number: number, name: name}
		for i := range p.violations {
			p.violations[i].armed.Store(true)
		}
		t.ports[number] = p
	}
	p.config = c
	if delete(t.wide, number); len(c.Pairs) != 0 || slices.ContainsFunc(c.Addresses, func(a Address) bool { return !a.IsSingleIP() }) {
		t.wide[number] = p
	}
	if slices.ContainsFunc(p.learned, func(e *entry) bool { return e.bits != 0 }) {
		t.wide[number] = p
	}
	for _, e := range p.statics {
		t.disown(e)
	}
	p.statics = p.statics[:0]
	p.addStatics()
	p.learned = slices.DeleteFunc(p.learned, func(e *entry) bool {
		keep := t.owners[owner{e.vlan, e.addr}] == e && c.VLANs.Has(e.vlan) && p.hasMAC(e.mac) && p.learns(e.source, e.addr)
		if !keep {
			t.disown(e)
			t.changed = true
		}
		return !keep
	})
	p.publish()
	return p
}

// Unguard makes a port trusted. It forgets its bindings.
func (t *Table) Unguard(number uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.ports[number]
	if p == nil {
		return
	}
	for _, e := range slices.Concat(p.statics, p.learned) {
		t.disown(e)
	}
	for _, w := range p.waiting {
		delete(t.pending, w.txn)
	}
	t.changed = t.changed || len(p.learned) != 0
	p.statics, p.learned, p.waiting = nil, nil, nil
	if t.mirror != nil {
		t.mirror.Publish(number, nil)
	}
	delete(t.ports, number)
	delete(t.wide, number)
}

// Protect replaces the addresses that no port learns. What ports have stays.
func (t *Table) Protect(protect []netip.Prefix) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.protect = protect
}

// addStatics makes the entries of the configuration. The caller holds table.mu.
func (p *Port) addStatics() {
	c := &p.config
	add := func(vlan uint16, mac port.MAC, addr netip.Addr, source Source) {
		if vlan == 0 && c.VLANs.Len() == 1 {
			for vid := range c.VLANs.All() {
				vlan = vid
			}
		}
		e := &entry{port: p, vlan: vlan, mac: mac, addr: addr, source: source, server: unique.Make(netip.Addr{})}
		p.statics = append(p.statics, e)
		if source != Static {
			return // several ports may have it
		}
		// What is configured goes before what was learned.
		for vid := range c.VLANs.All() {
			if old := p.table.owners[owner{vid, addr}]; old != nil && (vlan == 0 || vlan == vid) && old.source != Static {
				p.table.remove(old, Ended, "configured for another port")
			}
		}
		for _, q := range p.table.wide {
			for _, old := range slices.Clone(q.learned) {
				if q != p && old.bits != 0 && (vlan == 0 || vlan == old.vlan) && c.VLANs.Has(old.vlan) && old.network().Contains(addr) {
					p.table.remove(old, Ended, "an address of it is configured for another port")
				}
			}
		}
		p.table.owners[owner{vlan, addr}] = e
	}
	for _, mac := range p.macs() {
		add(0, mac, LinkLocal(mac), Local)
	}
	for _, a := range c.Addresses {
		switch {
		case len(c.MACs) == 0:
		case a.IsSingleIP():
			add(a.VLAN, c.MACs[0], a.Addr(), Static)
		default:
			p.take(a)
		}
	}
	for _, pair := range c.Pairs {
		if !pair.IsSingleIP() {
			continue
		}
		add(pair.VLAN, pair.MAC, pair.Addr(), OfPair)
		if pair.VRRP && len(c.MACs) > 0 {
			add(pair.VLAN, c.MACs[0], pair.Addr(), OfPair)
		}
	}
}

// take takes what other ports learned in a configured prefix from them. The caller holds table.mu.
func (p *Port) take(a Address) {
	t := p.table
	var gone []*entry
	for k, e := range t.owners {
		if e.port != p && e.source != Static && (a.VLAN == 0 || a.VLAN == k.vlan) && p.config.VLANs.Has(k.vlan) && e.network().Overlaps(a.Prefix) {
			gone = append(gone, e)
		}
	}
	for _, e := range gone {
		t.remove(e, Ended, "configured for another port")
	}
}

// macs returns the MACs that the port may use.
func (p *Port) macs() []port.MAC {
	all := slices.Clone(p.config.MACs)
	for _, pair := range p.config.Pairs {
		if !slices.Contains(all, pair.MAC) {
			all = append(all, pair.MAC)
		}
	}
	return all
}

func (p *Port) hasMAC(mac port.MAC) bool { return slices.Contains(p.macs(), mac) }

// learns reports whether the port learns such an address from such a source, or has it because somebody
// added it.
func (p *Port) learns(s Source, a netip.Addr) bool {
	switch s {
	case Static:
		return true
	case DHCP:
		return p.config.Learn&LearnDHCP != 0
	case SLAAC:
		return p.config.Learn&LearnSLAAC != 0 || linkLocal.Contains(a)
	case ARP:
		return p.config.Learn&LearnARP != 0
	case PD:
		return p.config.Learn&LearnPD != 0
	}
	return false
}

// Learns reports whether any port learns addresses from what trusted ports send.
func (t *Table) Learns() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.ports {
		if !p.config.MACOnly {
			return true
		}
	}
	return false
}

// network returns the addresses of an entry.
func (e *entry) network() netip.Prefix {
	if e.bits != 0 {
		return netip.PrefixFrom(e.addr, int(e.bits))
	}
	return netip.PrefixFrom(e.addr, e.addr.BitLen())
}

// disown takes an entry out of the index. The caller holds mu.
func (t *Table) disown(e *entry) {
	if k := (owner{e.vlan, e.addr}); t.owners[k] == e {
		delete(t.owners, k)
	}
}

// LinkLocal returns the link-local address that a MAC makes (RFC 4291 appendix A, RFC 2464
// section 4).
func LinkLocal(mac port.MAC) netip.Addr {
	m := mac.HardwareAddr()
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
}

// addrOf converts a to the form in which packets are compared.
func addrOf(a netip.Addr) ip.Addr {
	b := a.As16()
	return ip.From16(b[:])
}
