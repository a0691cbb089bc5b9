package guard

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"net/netip"

	"github.com/vswitch/vswitch/internal/packet/ip"
	"github.com/vswitch/vswitch/port"
)

// rules are an immutable snapshot of what a port may send.
type rules struct {
	macs     []port.MAC
	types    []uint16
	macOnly  bool
	allow    Allow
	learn    Learn
	anyVLAN  bool // there are bindings for every VLAN
	prefixes []prefixRule
	virtual  []virtual
	bound    []slot // in order, if they are not few
	table    *Table
}

// few is how many bindings are compared one after the other; of more, half are left out at once.
const few = 8

// key is a triple that is allowed. VLAN 0 stands for every VLAN.
type key struct {
	station uint64 // VLAN and MAC
	addr    ip.Addr
}

func station(vlan uint16, mac port.MAC) uint64 { return uint64(vlan)<<48 | uint64(mac) }

type slot struct {
	key
	entry *entry
}

func (s slot) compare(k key) int {
	return cmp.Or(cmp.Compare(s.station, k.station), cmp.Compare(s.addr.Hi, k.addr.Hi), cmp.Compare(s.addr.Lo, k.addr.Lo))
}

// prefixRule allows all addresses of a prefix that stations may have.
type prefixRule struct {
	vlan uint16 // 0: every VLAN
	mac  port.MAC
	netip.Prefix
	entry *entry // nil: it is configured
}

// virtual is the MAC of a virtual router, and that of the station behind it.
type virtual struct{ mac, base port.MAC }

// publish makes a new snapshot. The caller holds table.mu.
func (p *Port) publish() {
	if p.held {
		return
	}
	c := &p.config
	r := &rules{
		macs: p.macs(), types: c.EtherTypes, macOnly: c.MACOnly, allow: c.Allow, learn: c.Learn, table: p.table,
	}
	all := slices.Concat(p.statics, p.learned)
	all = slices.DeleteFunc(all, func(e *entry) bool {
		if e.bits != 0 {
			r.prefixes = append(r.prefixes, prefixRule{e.vlan, e.mac, e.network(), e})
		}
		return e.bits != 0
	})
	r.bound = make([]slot, 0, len(all))
	for _, e := range all {
		r.anyVLAN = r.anyVLAN || e.vlan == 0
		r.bound = append(r.bound, slot{key{station(e.vlan, e.mac), addrOf(e.addr)}, e})
	}
	if len(r.bound) > few {
		// Of two with one key, that of the settings is first, which comes first in all.
		slices.SortStableFunc(r.bound, func(a, b slot) int { return a.compare(b.key) })
	}
	for _, a := range c.Addresses {
		if !a.IsSingleIP() && len(c.MACs) > 0 {
			r.prefixes = append(r.prefixes, prefixRule{a.VLAN, c.MACs[0], a.Prefix, nil})
		}
	}
	for _, pair := range c.Pairs {
		if !pair.IsSingleIP() {
			r.prefixes = append(r.prefixes, prefixRule{pair.VLAN, pair.MAC, pair.Prefix, nil})
		}
		if pair.VRRP && len(c.MACs) > 0 {
			r.allow |= AllowVRRP
			r.virtual = append(r.virtual, virtual{pair.MAC, c.MACs[0]})
		}
	}
	p.rules.Store(r)
	p.copyOut()
}

// own reports whether a station has an address in a VLAN.
func (r *rules) own(vlan uint16, mac port.MAC, a ip.Addr) bool {
	if r.isBound(key{station(vlan, mac), a}) || r.anyVLAN && r.isBound(key{station(0, mac), a}) {
		return true
	}
	if len(r.prefixes) == 0 {
		return false
	}
	n := toNetip(a)
	for i := range r.prefixes {
		x := &r.prefixes[i]
		if x.mac == mac && (x.vlan == 0 || x.vlan == vlan) && x.Contains(n) && unicast(n) && (x.entry == nil || x.entry.live(r)) {
			return true
		}
	}
	return false
}

func (r *rules) isBound(k key) bool {
	all := r.bound
	if len(all) > few {
		at, found := slices.BinarySearchFunc(all, k, slot.compare)
		return found && all[at].entry.live(r)
	}
	for i := range all {
		if all[i].key == k {
			return all[i].entry.live(r)
		}
	}
	return false
}

// live reports whether the binding holds, and notes that its station was heard.
func (e *entry) live(r *rules) bool {
	if at := e.usable.Load(); at != 0 {
		if int64(r.table.age(r.table.now())) < at {
			return false
		}
		e.usable.Store(0)
	}
	if c := r.table.clock.Load(); e.heard.Load() != c {
		e.heard.Store(c)
	}
	if e.asked.Load() {
		e.asked.Store(false)
	}
	return true
}

// toNetip is the reverse of addrOf; a mapped address becomes IPv4.
func toNetip(a ip.Addr) netip.Addr {
	var b [16]byte
	for i := range 8 {
		b[i], b[8+i] = byte(a.Hi>>(56-8*i)), byte(a.Lo>>(56-8*i))
	}
	return netip.AddrFrom16(b).Unmap()
}

// bucket limits a port's DHCP messages and claims of addresses.
type bucket struct {
	mu     sync.Mutex
	tokens float64
	at     time.Time
}

func (b *bucket) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.at.IsZero() {
		b.tokens = dhcpBurst
	} else {
		b.tokens = min(dhcpBurst, b.tokens+dhcpRate*now.Sub(b.at).Seconds())
	}
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
