package guard

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"
	"unique"

	"github.com/vswitch/vswitch/internal/packet/dhcp"
	"github.com/vswitch/vswitch/port"
)

// transaction is a client's request for addresses that a server may still answer.
type transaction struct {
	txn
	port      *Port
	mac       port.MAC
	requested netip.Addr // by DHCPv4
	until     time.Time
}

// txn identifies a transaction: of DHCPv4 by the client's MAC, of DHCPv6 by its DUID (RFC
// 8415 section 11: at most 130 bytes).
type txn struct {
	vlan uint16
	v6   bool
	xid  uint32
	mac  port.MAC
	duid [130]byte
	n    uint8
}

// asked notes a client's DHCPv4 message that passed its check.
func (p *Port) asked(vlan uint16, m *dhcp.Message) {
	t := p.table
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case m.Type == dhcp.Release:
		p.drop(vlan, m.MAC, m.Client, DHCP, "released")
	case m.Type == dhcp.Decline:
		p.drop(vlan, m.MAC, m.Requested, DHCP, "declined")
	case p.config.Learn&LearnDHCP == 0:
	case m.Type == dhcp.Request, m.Type == dhcp.Discover && m.Rapid:
		requested := m.Requested
		if !requested.IsValid() {
			requested = m.Client
		}
		p.await(transaction{txn: txn{vlan: vlan, xid: m.XID, mac: m.MAC}, mac: m.MAC, requested: requested})
	}
}

// asked6 notes a client's DHCPv6 message that passed its check.
func (p *Port) asked6(vlan uint16, mac port.MAC, m *dhcp.Message6) {
	t := p.table
	t.mu.Lock()
	defer t.mu.Unlock()
	switch m.Type {
	case dhcp.Release6, dhcp.Decline6:
		for _, l := range m.Leases() {
			p.drop6(vlan, mac, l, "released")
		}
		return
	case dhcp.Request6, dhcp.Renew6, dhcp.Rebind6:
	case dhcp.Solicit6:
		if !m.Rapid {
			return
		}
	default:
		return
	}
	if k, ok := txn6(vlan, m); ok && p.config.Learn&(LearnDHCP|LearnPD) != 0 {
		p.await(transaction{txn: k, mac: mac})
	}
}

func txn6(vlan uint16, m *dhcp.Message6) (k txn, ok bool) {
	k = txn{vlan: vlan, v6: true, xid: m.XID, n: uint8(len(m.Client))}
	if len(m.Client) == 0 || len(m.Client) > len(k.duid) {
		return k, false
	}
	copy(k.duid[:], m.Client)
	return k, true
}

// await remembers a transaction. The caller holds table.mu.
func (p *Port) await(w transaction) {
	t := p.table
	w.port, w.until = p, t.now().Add(pendingTime)
	if old := t.pending[w.txn]; old != nil {
		if old.port != p {
			return // another port's transaction; its station is not disturbed
		}
		t.finish(old)
	}
	if len(p.waiting) == maxPending {
		t.finish(p.waiting[0])
	}
	p.waiting = append(p.waiting, &w)
	t.pending[w.txn] = &w
}

// finish forgets a transaction. The caller holds mu.
func (t *Table) finish(w *transaction) {
	delete(t.pending, w.txn)
	w.port.waiting = slices.DeleteFunc(w.port.waiting, func(x *transaction) bool { return x == w })
}

// served learns from a message to a DHCPv4 client, by a port that may send it.
func (t *Table) served(vlan uint16, from port.MAC, src netip.Addr, b []byte) {
	m, ok := dhcp.Parse(b)
	if !ok || m.Op != dhcp.BootReply || m.HLen != 6 || m.Type != dhcp.Ack && m.Type != dhcp.Nak {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.serves(server{vlan, from, src})
	w := t.pending[txn{vlan: vlan, xid: m.XID, mac: m.MAC}]
	switch {
	case w == nil && m.Type == dhcp.Ack && !m.Your.IsUnspecified():
		t.unmatched(vlan, m.MAC)
	case w == nil:
	case m.Type == dhcp.Nak:
		t.finish(w)
		w.port.drop(vlan, w.mac, w.requested, DHCP, "refused by the server")
	case m.Your.IsUnspecified() || m.Lease == 0: // an answer to INFORM
	default:
		t.finish(w)
		server := m.Server
		if !server.IsValid() {
			server = src
		}
		w.port.bind(vlan, w.mac, m.Your, DHCP, t.after(m.Lease), server, 0)
	}
}

// served6 learns from a message to a DHCPv6 client, by a port that may send it.
func (t *Table) served6(vlan uint16, from port.MAC, src netip.Addr, b []byte) {
	m, ok := dhcp.Parse6(b)
	if !ok || m.Type != dhcp.Reply6 || m.Failed {
		return
	}
	k, ok := txn6(vlan, &m)
	if !ok {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.serves(server{vlan, from, src})
	w := t.pending[k]
	if w == nil {
		return
	}
	t.finish(w)
	for _, l := range m.Leases() {
		switch {
		case l.Valid == 0:
			w.port.drop6(vlan, w.mac, l, "ended by the server")
		case l.PD && w.port.config.Learn&LearnPD != 0:
			w.port.delegate(vlan, w.mac, l.Prefix, t.after(l.Valid), src)
		case !l.PD && w.port.config.Learn&LearnDHCP != 0:
			w.port.bind(vlan, w.mac, l.Addr(), DHCP, t.after(l.Valid), src, 0)
		}
	}
}

// server is a DHCP server.
type server struct {
	vlan uint16
	mac  port.MAC
	addr netip.Addr
}

// serverTime is how long a server is remembered that is not heard.
const serverTime = 24 * time.Hour

// serves notes that a DHCP server answers clients. The caller holds mu.
func (t *Table) serves(s server) {
	if _, known := t.servers[s]; !known {
		if len(t.servers) >= maxServers {
			return
		}
		t.event(Event{Kind: Server, VLAN: s.vlan, MAC: s.mac, Address: s.addr})
	}
	t.servers[s] = t.now()
}

// unmatched counts a server's answer to a station that has not asked. The caller holds mu.
func (t *Table) unmatched(vlan uint16, mac port.MAC) {
	for _, p := range t.ports {
		if p.config.VLANs.Has(vlan) && p.Has(mac) {
			p.count(Unmatched)
		}
	}
}

// after returns when a lease ends; the zero time is never.
func (t *Table) after(seconds uint32) time.Time {
	if seconds == dhcp.Forever {
		return time.Time{}
	}
	return t.now().Add(time.Duration(seconds) * time.Second)
}

// detect handles duplicate address detection for a target that the station does not have,
// and reports whether the solicitation may go on: the station then has the address unless
// somebody objects within a second.
func (c *check) detect(target netip.Addr) bool {
	p, t := c.port, c.port.table
	if !target.Is6() || target.Is4In6() || !target.IsGlobalUnicast() && !target.IsLinkLocalUnicast() {
		return false
	}
	if !c.dry && !p.rate.take(c.table.now()) {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.owner(c.vlan, target); e != nil {
		own := e.port == p && e.mac == c.f.Src // again, before it is bound
		if !own && !c.dry {
			p.count(Disputed)
		}
		return own
	}
	if !p.learns(SLAAC, target) {
		return false
	}
	until, ok := p.formed(c.vlan, target)
	why := Outside
	if ok = ok && !isReserved(target); ok {
		why, ok = t.free(c.vlan, target)
	}
	switch {
	case c.dry:
		return ok
	case !ok:
		p.count(why)
		return false
	}
	c.heed = p.bind(c.vlan, c.f.Src, target, SLAAC, until, netip.Addr{}, tentative)
	return c.heed
}

// isReserved reports whether no host may form an address with its interface identifier (RFC 5453):
// it is that of all routers, of the addresses of IANA's that virtual routers and proxies have, or
// of a group of hosts of which the nearest answers.
func isReserved(a netip.Addr) bool {
	b := a.As16()
	id := binary.BigEndian.Uint64(b[8:])
	return id == 0 || id>>16 == 0x0200_5eff_fe00 || id >= 0xfdff_ffff_ffff_ff80 && id <= 0xfdff_ffff_ffff_ffff
}

// linkLocal is where hosts form link-local addresses (RFC 4291 section 2.5.6); the rest of
// fe80::/10 is nobody's.
var linkLocal = netip.MustParsePrefix("fe80::/64")

// firstUse handles the first address that a station uses, if the port learns it. It reports
// whether the frame, a probe, may go on.
func (c *check) firstUse(a netip.Addr, probe bool) bool {
	p, t := c.port, c.port.table
	if c.learn&LearnARP == 0 || !unicast4(a) || !c.dry && !p.rate.take(c.table.now()) {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.owner(c.vlan, a); e != nil {
		own := e.port == p && e.mac == c.f.Src
		if !own && !c.dry {
			p.count(Disputed)
		}
		return own
	}
	if slices.ContainsFunc(p.learned, func(e *entry) bool { return e.source == ARP }) {
		return false
	}
	why, ok := t.free(c.vlan, a)
	switch {
	case c.dry:
		return ok
	case !ok:
		p.count(why)
		return false
	case probe:
		c.heed = p.bind(c.vlan, c.f.Src, a, ARP, time.Time{}, netip.Addr{}, tentative)
		return c.heed
	}
	// It would already change what others believe, so the switch asks.
	if p.bind(c.vlan, c.f.Src, a, ARP, time.Time{}, netip.Addr{}, tentative) {
		p.ask(t.owners[owner{c.vlan, a}])
	}
	return false
}

func unicast4(a netip.Addr) bool {
	return a.Is4() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func unicast(a netip.Addr) bool {
	return unicast4(a) || a.Is6() && !a.Is4In6() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast()
}

// owner returns the entry that has an address in a VLAN, or nil. The caller holds mu.
func (t *Table) owner(vlan uint16, a netip.Addr) *entry {
	if e := t.owners[owner{vlan, a}]; e != nil {
		return e
	}
	if e := t.owners[owner{0, a}]; e != nil && e.port.config.VLANs.Has(vlan) {
		return e
	}
	return nil
}

// free reports whether a port may learn an address that has no owner: it is not protected,
// not in a prefix or pair of a port, and no trusted port uses it. Else why says how to count
// that. The caller holds mu.
func (t *Table) free(vlan uint16, a netip.Addr) (why Count, ok bool) {
	k := owner{vlan, a}
	for _, h := range t.heard {
		if _, ok := h[k]; ok {
			return Disputed, false
		}
	}
	if t.protects(a) {
		return Protected, false
	}
	return Disputed, !t.claimed(vlan, a, nil)
}

// claimed reports whether the settings of a port other than one have an address that is not
// in the index of owners. The caller holds mu.
func (t *Table) claimed(vlan uint16, a netip.Addr, except *Port) bool {
	ports := t.wide
	if a.IsLinkLocalUnicast() {
		ports = t.ports
	}
	for _, p := range ports {
		if p != except && p.claims(vlan, a) {
			return true
		}
	}
	return false
}

// protects reports whether no port may learn an address.
func (t *Table) protects(a netip.Addr) bool {
	return slices.ContainsFunc(t.protect, func(x netip.Prefix) bool { return x.Contains(a) })
}

// claims reports whether the port has an address that the index of owners does not: in a
// prefix, or in a pair.
func (p *Port) claims(vlan uint16, a netip.Addr) bool {
	has := func(x Address) bool { return (x.VLAN == 0 || x.VLAN == vlan) && x.Contains(a) }
	delegated := func(e *entry) bool { return e.bits != 0 && e.vlan == vlan && e.network().Contains(a) }
	return p.config.VLANs.Has(vlan) && (slices.ContainsFunc(p.config.Addresses, has) || slices.ContainsFunc(p.learned, delegated) ||
		slices.ContainsFunc(p.config.Pairs, func(x Pair) bool { return has(x.Address) }) ||
		a.IsLinkLocalUnicast() && slices.ContainsFunc(p.macs(), func(m port.MAC) bool { return LinkLocal(m) == a }))
}

// bind gives the port an address, after wait, and reports whether it has it. The caller
// holds table.mu.
func (p *Port) bind(vlan uint16, mac port.MAC, a netip.Addr, source Source, expiry time.Time, server netip.Addr, wait time.Duration) bool {
	t := p.table
	refuse := func(why string) bool {
		t.event(Event{Kind: Refused, Port: p.name, VLAN: vlan, MAC: mac, Address: a, Text: why})
		return false
	}
	if !unicast(a) || !p.hasMAC(mac) {
		return refuse("no address for a station")
	}
	if source != Static && t.protects(a) {
		p.count(Protected)
		return refuse("the address is protected")
	}
	if e := t.owner(vlan, a); e != nil {
		switch {
		case e.bits != 0:
			p.count(Disputed)
			return refuse("it begins a prefix that is delegated")
		case e.port == p && e.source != Static && e.mac == mac:
			if e.source != source || e.server.Value() != server {
				t.event(Event{Kind: Changed, Port: p.name, VLAN: vlan, MAC: mac, Address: a, Source: source})
			}
			e.expiry, e.server, e.source = expiry, unique.Make(server), source
			e.usable.Store(0)
			t.changed = true
			p.copyOut()
			return true
		case e.port == p && e.mac == mac:
			return true // static already
		case source != DHCP || e.source == Static:
			p.count(Disputed)
			t.event(Event{Kind: Conflict, Port: p.name, VLAN: vlan, MAC: mac, Address: a, Other: e.port.name, Text: "another port has the address"})
			return false
		}
		t.dispute(e, p, mac, expiry, server)
		return false
	}
	if source != Static && t.claimed(vlan, a, p) {
		p.count(Disputed)
		t.event(Event{Kind: Conflict, Port: p.name, VLAN: vlan, MAC: mac, Address: a, Text: "another port's settings have the address"})
		return false
	}
	if len(t.owners) >= maxBindings {
		return p.refuseFull(vlan, mac, a, "the switch has as many bindings as it can keep")
	}
	silent, ok := p.room(source, a, mac)
	if !ok {
		return p.refuseFull(vlan, mac, a, "the port has as many addresses as it may learn")
	}
	e := &entry{port: p, vlan: vlan, mac: mac, addr: a, source: source, server: unique.Make(server), expiry: expiry}
	e.heard.Store(t.clock.Load())
	if wait != 0 {
		e.usable.Store(int64(t.age(t.now()) + wait))
	}
	if len(silent) != 0 {
		e.usable.Store(undecided)
		t.claims = append(t.claims, &claim{vlan: vlan, addr: a, port: p, mac: mac, entry: e, silent: silent})
	}
	p.learned = append(p.learned, e)
	t.owners[owner{vlan, a}] = e
	t.changed = true
	p.publish()
	p.count(Learned)
	t.event(Event{Kind: Bound, Port: p.name, VLAN: vlan, MAC: mac, Address: a, Source: source})
	return true
}

// delegate gives the port a prefix that a server delegated to it, unless any address of it is
// another's or protected. The caller holds table.mu.
func (p *Port) delegate(vlan uint16, mac port.MAC, x netip.Prefix, expiry time.Time, server netip.Addr) {
	t := p.table
	refuse := func(kind EventKind, other, why string) {
		t.event(Event{Kind: kind, Port: p.name, VLAN: vlan, MAC: mac, Address: x.Addr(), Other: other, Text: why})
	}
	if !p.hasMAC(mac) || x != x.Masked() || !x.Addr().Is6() || !x.Addr().IsGlobalUnicast() || x.Bits() < minPD || x.IsSingleIP() {
		refuse(Refused, "", "no prefix for a station")
		return
	}
	for _, e := range p.learned {
		if e.vlan == vlan && e.mac == mac && e.network() == x {
			e.expiry, e.server = expiry, unique.Make(server)
			t.changed = true
			p.copyOut()
			return
		}
	}
	if slices.ContainsFunc(t.protect, x.Overlaps) {
		p.count(Protected)
		refuse(Refused, "", "an address of the prefix is protected")
		return
	}
	for k, e := range t.owners {
		if (k.vlan == vlan || k.vlan == 0 && e.port.config.VLANs.Has(vlan)) && e.port != p && e.network().Overlaps(x) {
			p.count(Disputed)
			refuse(Conflict, e.port.name, "another port has an address of the prefix")
			return
		}
	}
	for _, q := range t.ports {
		overlaps := func(a Address) bool { return (a.VLAN == 0 || a.VLAN == vlan) && a.Overlaps(x) }
		if q != p && q.config.VLANs.Has(vlan) && (slices.ContainsFunc(q.config.Addresses, overlaps) ||
			slices.ContainsFunc(q.config.Pairs, func(a Pair) bool { return overlaps(a.Address) })) {
			p.count(Disputed)
			refuse(Conflict, q.name, "another port's settings have an address of the prefix")
			return
		}
	}
	if _, ok := p.room(PD, x.Addr(), mac); !ok || len(t.owners) >= maxBindings || t.owners[owner{vlan, x.Addr()}] != nil {
		p.count(NoRoom)
		refuse(Refused, "", "the port has as many prefixes as it may learn")
		return
	}
	e := &entry{port: p, vlan: vlan, mac: mac, addr: x.Addr(), bits: uint8(x.Bits()), source: PD, server: unique.Make(server), expiry: expiry}
	e.heard.Store(t.clock.Load())
	p.learned = append(p.learned, e)
	t.owners[owner{vlan, e.addr}] = e
	t.wide[p.number] = p
	t.changed = true
	p.publish()
	p.count(Learned)
	t.event(Event{Kind: Bound, Port: p.name, VLAN: vlan, MAC: mac, Address: e.addr, Source: PD})
}

// minPD is the shortest length of a prefix that a station is delegated: more than a site.
const minPD = 32

// refuseFull counts that there is no room for an address, and reports it once a minute. It
// returns false. The caller holds table.mu.
func (p *Port) refuseFull(vlan uint16, mac port.MAC, a netip.Addr, why string) bool {
	p.count(NoRoom)
	if now := p.table.now(); p.full.IsZero() || now.Sub(p.full) >= fullGap {
		p.full = now
		p.table.event(Event{Kind: Refused, Port: p.name, VLAN: vlan, MAC: mac, Address: a, Text: why})
	}
	return false
}

// room makes room for one more learned address, and reports whether there is. For one that a
// station forms, it may have to ask first: silent are then those of which one makes room, unless
// all answer, the longest unheard first. The caller holds table.mu.
func (p *Port) room(source Source, a netip.Addr, mac port.MAC) (silent []*entry, ok bool) {
	limit, counts := 0, func(e *entry) bool { return e.source != Static }
	switch {
	case source == Static:
		return nil, len(p.statics)+len(p.learned) < 256
	case p.config.Limit != 0:
		limit = p.config.Limit
	case source == DHCP && a.Is4():
		limit, counts = maxLeases4, func(e *entry) bool { return e.source == DHCP && e.addr.Is4() }
	case source == DHCP:
		limit, counts = maxLeases6, func(e *entry) bool { return e.source == DHCP && e.addr.Is6() }
	case source == PD:
		limit, counts = maxPD, func(e *entry) bool { return e.source == PD }
	case source == ARP:
		limit, counts = 1, func(e *entry) bool { return e.source == ARP }
	case p.config.Learn&LearnSLAAC == 0:
		limit, counts = maxLocal, func(e *entry) bool { return e.source == SLAAC }
	default:
		limit, counts = maxSLAAC, func(e *entry) bool { return e.source == SLAAC && e.mac == mac }
	}
	n, t := 0, p.table
	for _, e := range p.learned {
		if !counts(e) {
			continue
		}
		n++
		e.listen()
		stays := e.source == Static || e.source == ARP || e.bits != 0 && source == SLAAC // a prefix cannot be asked
		if !stays && e.usable.Load() != undecided && t.clock.Load()-e.heard.Load() >= int64(recent/time.Second) {
			silent = append(silent, e)
		}
	}
	if n < limit {
		return nil, true
	}
	if len(silent) == 0 {
		return nil, false
	}
	slices.SortStableFunc(silent, func(a, b *entry) int { return cmp.Compare(a.heard.Load(), b.heard.Load()) })
	if source != SLAAC {
		p.table.remove(silent[0], Displaced, displaced)
		return nil, true
	}
	open := 0
	for _, c := range t.claims {
		if c.port == p && c.silent != nil {
			open++
		}
	}
	return silent[:min(len(silent), maxAsked)], open < maxOpen && len(t.claims) < maxClaims
}

const displaced = "displaced by another address of the port"

// drop takes an address from the port if a source gave it. The caller holds table.mu.
func (p *Port) drop(vlan uint16, mac port.MAC, a netip.Addr, source Source, why string) {
	if e := p.table.owners[owner{vlan, a}]; e != nil && e.port == p && e.mac == mac && e.source == source {
		p.table.remove(e, Ended, why)
	}
}

// drop6 takes an address or a prefix of DHCPv6 from the port, but none for a part of it. The caller
// holds table.mu.
func (p *Port) drop6(vlan uint16, mac port.MAC, l dhcp.Lease6, why string) {
	source := DHCP
	if l.PD {
		source = PD
	}
	if e := p.table.owners[owner{vlan, l.Addr()}]; e != nil && e.network() == l.Prefix {
		p.drop(vlan, mac, l.Addr(), source, why)
	}
}

// remove takes away a learned entry and counts it; why is for users. The caller holds mu.
func (t *Table) remove(e *entry, as Count, why string) {
	p := e.port
	t.disown(e)
	n := len(p.learned)
	p.learned = slices.DeleteFunc(p.learned, func(x *entry) bool { return x == e })
	if len(p.learned) == n {
		return
	}
	t.changed = true
	p.publish()
	p.count(as)
	t.event(Event{Kind: Removed, Port: p.name, VLAN: e.vlan, MAC: e.mac, Address: e.addr, Source: e.source, Text: why})
}

// used notes that a trusted port uses an address or, if it does not say that it has it,
// wants to. A tentative binding of it ends.
func (t *Table) used(vlan uint16, a netip.Addr, has bool) {
	if !unicast(a) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.owner(vlan, a); e != nil && e.isTentative() {
		t.event(Event{Kind: Conflict, Port: e.port.name, VLAN: vlan, MAC: e.mac, Address: a, Text: "a trusted port has the address"})
		t.remove(e, Defended, "somebody else has it")
	}
	if !has {
		return
	}
	if now := t.now(); now.Sub(t.turned) >= heardTime || len(t.heard[0]) >= maxHeard {
		t.heard[1], t.heard[0] = t.heard[0], make(map[owner]struct{})
		if now.Sub(t.turned) >= 2*heardTime {
			clear(t.heard[1])
		}
		t.turned = now
	}
	t.heard[0][owner{vlan, a}] = struct{}{}
}
