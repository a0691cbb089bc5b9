package guard

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/vswitch/vswitch/internal/packet/arp"
	"github.com/vswitch/vswitch/internal/packet/dhcp"
	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/internal/packet/ip"
	"github.com/vswitch/vswitch/internal/packet/ndp"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// EtherTypes beside those of package eth.
const (
	typeRARP    uint16 = 0x8035
	typeOldQinQ uint16 = 0x9100
	minType     uint16 = 0x0600 // below it is a length (802.3-2018 clause 3.2.6)
)

// check is a check in progress. A dry one changes nothing.
type check struct {
	*rules
	port *Port
	f    *port.Frame
	vlan uint16
	dry  bool
	heed bool // Outcome has to know what becomes of the frame
}

// Check returns why a guarded port may not accept f, or DropNone. f has its VLAN, unless
// classified says why the port carries it in none. heed asks for a call of Outcome.
func (p *Port) Check(f *port.Frame, classified port.Drop) (why port.Drop, heed bool) {
	c := check{rules: p.rules.Load(), port: p, f: f, vlan: f.VLAN}
	why = c.frame(classified)
	if why != port.DropNone {
		p.violated(why, f)
		return why, false
	}
	return why, c.heed
}

// Why is Check without any effect.
func (p *Port) Why(f *port.Frame, classified port.Drop) port.Drop {
	c := check{rules: p.rules.Load(), port: p, f: f, vlan: f.VLAN, dry: true}
	return c.frame(classified)
}

// frame checks the Ethernet header and what it announces.
func (c *check) frame(classified port.Drop) port.Drop {
	f := c.f
	kind := binary.BigEndian.Uint16(f.Data[12:])
	switch {
	case f.Tag.Present() && (classified != port.DropNone || f.Opaque && f.Tag != priority(f.Tag)):
		return port.DropGuardTag
	case classified != port.DropNone:
		return classified
	case kind == eth.TypeVLAN || kind == eth.TypeQinQ || kind == typeOldQinQ:
		return port.DropGuardTag
	case !slices.Contains(c.macs, f.Src):
		return port.DropGuardMAC
	}
	known := kind == eth.TypeIPv4 || kind == eth.TypeARP || kind == eth.TypeIPv6 || kind == typeRARP
	if !known && (kind < minType || !slices.Contains(c.types, kind)) {
		return port.DropGuardType
	}
	if !c.offload() {
		return port.DropGuardOffload
	}
	if c.macOnly {
		if kind != eth.TypeIPv4 {
			about, _ := subjectOf(f)
			c.heed = about == resolution || about == discovery
		}
		return port.DropNone
	}
	body := f.Data[port.HeaderLen:]
	switch kind {
	case eth.TypeIPv4:
		return c.ipv4(body)
	case eth.TypeIPv6:
		return c.ipv6(body)
	case eth.TypeARP:
		return c.arp(body)
	case typeRARP:
		return c.rarp(body)
	}
	return port.DropNone
}

// priority returns t if it is a tag for a priority alone, which hosts look behind.
func priority(t port.Tag) port.Tag { return port.MakeTag(port.TPIDCustomer, t.TCI()&^0xfff) }

// offload reports whether the work that the frame leaves to others is on its own TCP or
// UDP. Elsewhere it would change bytes after they were checked.
func (c *check) offload() bool {
	f := c.f
	if f.Offload.Flags&port.NeedsCsum != 0 && !vnet.PartialOuter(f.Data, f.DataLen(), f.Offload) {
		return false
	}
	if f.Offload.IsGSO() {
		o, ok := vnet.Inspect(f.Data, f.DataLen(), f.Offload)
		return ok && o.GSOType&port.GSOTunnel == 0
	}
	return true
}

// arp checks an ARP packet (RFC 826). Requests poison caches as replies do.
func (c *check) arp(body []byte) port.Drop {
	p, ok := arp.Parse(body)
	switch {
	case !ok:
		return port.DropGuardMalformed
	case p.Op != arp.Request && p.Op != arp.Reply, p.SenderMAC != c.f.Src:
		return port.DropGuardARP
	case p.Sender.IsUnspecified():
		// A probe (RFC 5227 section 2.1.1) denies an address to others.
		if p.Op != arp.Request || !c.own(c.vlan, c.f.Src, addrOf(p.Target)) && (c.f.Dst != port.Broadcast || !c.firstUse(p.Target, true)) {
			return port.DropGuardARP
		}
	case !c.own(c.vlan, c.f.Src, addrOf(p.Sender)):
		if p.Op == arp.Request {
			c.firstUse(p.Sender, false)
		}
		return port.DropGuardARP
	}
	return port.DropNone
}

// rarp checks the frame by which VMMs announce a guest that moved.
func (c *check) rarp(body []byte) port.Drop {
	p, ok := arp.Parse(body)
	if !ok {
		return port.DropGuardMalformed
	}
	if p.Op != arp.ReverseRequest || p.SenderMAC != c.f.Src || p.TargetMAC != c.f.Src || !p.Sender.IsUnspecified() || !p.Target.IsUnspecified() {
		return port.DropGuardARP
	}
	return port.DropNone
}

// broadcast4 is 255.255.255.255, and any4 and any6 are the addresses of hosts that have
// none yet.
var (
	broadcast4 = ip.From4([]byte{255, 255, 255, 255})
	any4       = ip.From4([]byte{0, 0, 0, 0})
	any6       = ip.Addr{}
)

// isGroup4 reports whether a is an IPv4 group.
func isGroup4(a ip.Addr) bool { return a.Hi == 0 && a.Lo>>28 == 0xffff_e }

// isGroup6 reports whether a is an IPv6 group.
func isGroup6(a ip.Addr) bool { return a.Hi>>56 == 0xff }

// ipv4 checks an IPv4 packet.
func (c *check) ipv4(body []byte) port.Drop {
	p, fault := ip.Parse4(body, c.f.DataLen()-port.HeaderLen)
	if fault != ip.OK {
		return port.DropGuardMalformed
	}
	if !c.own(c.vlan, c.f.Src, p.Src) && !c.advertises(&p) {
		client := p.Proto == ip.UDP && p.Part == ip.Whole && p.Dst == broadcast4 && ports(p.Body, dhcp.ClientPort, dhcp.ServerPort)
		member := p.Proto == ip.IGMP && p.Part == ip.Whole && isGroup4(p.Dst)
		if p.Src != any4 || !client && !member {
			return port.DropGuardIPv4
		}
	}
	if p.Part == ip.Later {
		return port.DropNone // the first part was checked, and is needed
	}
	switch p.Proto {
	case ip.UDP:
		return c.udp4(&p)
	case ip.ICMP:
		if len(p.Body) < 1 {
			return port.DropGuardMalformed
		}
		if p.Body[0] == 5 || p.Body[0] == 9 { // redirect, router advertisement
			return c.role(AllowRouter)
		}
	case ip.IGMP:
		if len(p.Body) < 1 {
			return port.DropGuardMalformed
		}
		switch p.Body[0] {
		case 0x12, 0x16, 0x17, 0x22: // reports and leaves
		default: // queries, multicast router discovery and what else routers send
			return c.role(AllowRouter)
		}
	case ip.PIM:
		return c.role(AllowRouter)
	case ip.VRRP:
		return c.role(AllowVRRP)
	}
	return port.DropNone
}

// advertises reports whether p is an advertisement of a virtual router: those that come from
// its MAC have the address of the station behind it.
func (c *check) advertises(p *ip.Packet) bool {
	if p.Proto != ip.VRRP {
		return false
	}
	for _, v := range c.virtual {
		if v.mac == c.f.Src && c.own(c.vlan, v.base, p.Src) {
			return true
		}
	}
	return false
}

// role returns DropNone if the station may play a role, else the reason.
func (c *check) role(a Allow) port.Drop {
	switch {
	case c.allow&a != 0:
		return port.DropNone
	case a == AllowDHCPServer:
		return port.DropGuardServer
	}
	return port.DropGuardRouter
}

// ports reports whether a UDP datagram goes from one port to another.
func ports(udp []byte, from, to uint16) bool {
	return len(udp) >= 4 && binary.BigEndian.Uint16(udp) == from && binary.BigEndian.Uint16(udp[2:]) == to
}

const udpLen = 8 // of its header

// payload returns what a UDP datagram carries. ok is false if its length is not that of the
// packet: clients that read packets themselves go by either.
func payload(p *ip.Packet) (b []byte, ok bool) {
	if p.Short || int(binary.BigEndian.Uint16(p.Body[4:])) != len(p.Body) {
		return nil, false
	}
	return p.Body[udpLen:], true
}

// udp4 checks a UDP datagram. Clients of DHCP look at the destination port alone.
func (c *check) udp4(p *ip.Packet) port.Drop {
	if len(p.Body) < udpLen {
		return port.DropGuardMalformed
	}
	from, to := binary.BigEndian.Uint16(p.Body), binary.BigEndian.Uint16(p.Body[2:])
	switch {
	case to == dhcp.ClientPort || from == dhcp.ServerPort:
		c.heed = to == dhcp.ClientPort
		return c.role(AllowDHCPServer)
	case to != dhcp.ServerPort:
		return port.DropNone
	case p.Part != ip.Whole || c.f.Offload.IsGSO():
		return port.DropGuardDHCP // no client sends fragments, or segments of which only the first is read
	}
	b, ok := payload(p)
	if !ok {
		return port.DropGuardMalformed
	}
	return c.dhcp(b)
}

// dhcp checks a client's message to a DHCP server.
func (c *check) dhcp(b []byte) port.Drop {
	m, ok := dhcp.Parse(b)
	if !ok {
		return port.DropGuardMalformed
	}
	if m.Op != dhcp.BootRequest || m.HType != 1 || m.HLen != 6 || m.MAC != c.f.Src || !m.Relay.IsUnspecified() || m.Agent {
		return port.DropGuardDHCP
	}
	// An identifier of the type Ethernet is an address; others are opaque. Of several, a server
	// may take any.
	if m.Identified != 0 && (m.Identifiers > 1 || m.ClientID[0] == 1 && (m.Identified != 7 || port.MACFrom(m.ClientID[1:]) != c.f.Src)) {
		return port.DropGuardDHCP
	}
	own := c.own(c.vlan, c.f.Src, addrOf(m.Client))
	if !own && !m.Client.IsUnspecified() {
		return port.DropGuardDHCP
	}
	switch m.Type {
	case dhcp.Discover, dhcp.Request, dhcp.Inform:
	case dhcp.Release:
		if !own {
			return port.DropGuardDHCP
		}
	case dhcp.Decline:
		if !m.Requested.IsValid() || !c.own(c.vlan, c.f.Src, addrOf(m.Requested)) {
			return port.DropGuardDHCP
		}
	default:
		return port.DropGuardDHCP
	}
	if c.dry {
		return port.DropNone
	}
	if !c.port.rate.take(c.table.now()) {
		return port.DropGuardDHCPRate
	}
	c.heed = true
	return port.DropNone
}

// owns reports whether the station has all addresses and prefixes that a DHCPv6 message names.
func (c *check) owns(m *dhcp.Message6) bool {
	for _, l := range m.Leases() {
		if l.PD && !c.ownPrefix(l.Prefix) || !l.PD && !c.own6(l.Addr()) {
			return false
		}
	}
	return !m.More
}

// ICMPv6 types beside those of package ndp (IANA).
const (
	mldQuery   = 130
	mldReport  = 131
	mldDone    = 132
	mldReport2 = 143

	inverseSolicitation  = 141 // of networks other than Ethernet: who has this link-layer address? (RFC 3122)
	inverseAdvertisement = 142
	fastHandover         = 154 // by proxies of routers (RFC 5568)
	lossyRouting         = 155 // RFC 6550
	duplicateRequest     = 157 // RFC 8505: routers ask each other whether an address is in use
	duplicateConfirm     = 158
)

// ofRouters reports whether only routers send messages of an ICMPv6 type.
func ofRouters(t byte) bool {
	switch t {
	case mldQuery, ndp.RouterAdvertisement, ndp.Redirect, 138, 146, 147, 149, 151, 152, 153, fastHandover, lossyRouting, duplicateRequest, duplicateConfirm:
		return true
	}
	return false
}

// neverFragmented reports whether hosts must ignore a message in fragments (RFC 6980), or
// nobody has reason to send one.
func neverFragmented(t byte) bool {
	return t >= mldQuery && t <= ndp.Redirect || t >= inverseSolicitation && t <= mldReport2 || t == 148 || t == 149 ||
		t >= 151 && t <= lossyRouting || t == duplicateRequest || t == duplicateConfirm
}

// ipv6 checks an IPv6 packet.
func (c *check) ipv6(body []byte) port.Drop {
	p, fault := ip.Parse6(body, c.f.DataLen()-port.HeaderLen, port.MinHead-port.HeaderLen)
	if fault == ip.Bad {
		return port.DropGuardMalformed
	}
	nobody := p.Src == any6
	if p.Src.Is4() {
		return port.DropGuardIPv6 // a mapped address stands for no station
	}
	if !nobody && !c.own(c.vlan, c.f.Src, p.Src) && !c.advertises(&p) {
		return port.DropGuardIPv6
	}
	if fault == ip.BadChain {
		return port.DropGuardExtHeader
	}
	if p.Part == ip.Later {
		if nobody {
			return port.DropGuardIPv6
		}
		return port.DropNone
	}
	short := port.DropGuardMalformed
	if p.Part == ip.First {
		short = port.DropGuardExtHeader
	}
	switch p.Proto {
	case ip.ICMPv6:
		if len(p.Body) < 4 {
			return short
		}
		return c.icmpv6(&p, nobody)
	case ip.UDP:
		if len(p.Body) < udpLen {
			return short
		}
		if !nobody {
			return c.udp6(&p)
		}
	case ip.PIM:
		if !nobody {
			return c.role(AllowRouter)
		}
	case ip.VRRP:
		if !nobody {
			return c.role(AllowVRRP)
		}
	}
	if nobody {
		return port.DropGuardIPv6
	}
	return port.DropNone
}

// udp6 checks a UDP datagram.
func (c *check) udp6(p *ip.Packet) port.Drop {
	from, to := binary.BigEndian.Uint16(p.Body), binary.BigEndian.Uint16(p.Body[2:])
	switch {
	case to == dhcp.ClientPort6 || from == dhcp.ServerPort6:
		c.heed = to == dhcp.ClientPort6
		return c.role(AllowDHCPServer)
	case to != dhcp.ServerPort6:
		return port.DropNone
	case p.Part != ip.Whole || c.f.Offload.IsGSO():
		return port.DropGuardDHCP
	}
	b, ok := payload(p)
	if !ok || len(b) < 4 {
		return port.DropGuardMalformed
	}
	switch dhcp.Type6(b[0]) {
	case dhcp.Solicit6, dhcp.Request6, dhcp.Confirm6, dhcp.Renew6, dhcp.Rebind6, dhcp.Release6, dhcp.Decline6, dhcp.InformationRequest6, dhcp.AddrRegInform6:
	case dhcp.Advertise6, dhcp.Reply6, dhcp.Reconfigure6, dhcp.RelayForward6, dhcp.RelayReply6:
		return port.DropGuardServer
	default:
		return port.DropGuardDHCP
	}
	m, ok := dhcp.Parse6(b)
	switch {
	case !ok:
		return port.DropGuardMalformed
	case (m.Type == dhcp.Release6 || m.Type == dhcp.Decline6) && !c.owns(&m):
		return port.DropGuardDHCP
	case c.dry:
		return port.DropNone
	case !c.port.rate.take(c.table.now()):
		return port.DropGuardDHCPRate
	}
	c.heed = true
	return port.DropNone
}

// icmpv6 checks an ICMPv6 message. nobody means that its source is the unspecified address.
func (c *check) icmpv6(p *ip.Packet, nobody bool) port.Drop {
	kind := p.Body[0]
	switch {
	case p.Part != ip.Whole && neverFragmented(kind):
		return port.DropGuardND
	case nobody && kind != ndp.NeighborSolicitation && kind != ndp.RouterSolicitation &&
		kind != mldReport && kind != mldDone && kind != mldReport2:
		return port.DropGuardIPv6
	case nobody && kind != ndp.NeighborSolicitation && !isGroup6(p.Dst): // where no answer is wanted
		return port.DropGuardIPv6
	case ofRouters(kind):
		if why := c.role(AllowRouter); why != port.DropNone || kind != ndp.RouterAdvertisement {
			return why
		}
	case kind == inverseSolicitation || kind == inverseAdvertisement:
		return port.DropGuardND
	case kind < ndp.RouterSolicitation || kind > ndp.Redirect:
		return port.DropNone
	}
	m, ok := ndp.Parse(p.Body)
	switch {
	case p.Short || !ok:
		return port.DropGuardMalformed
	case p.HopLimit != 255 || m.Code != 0 || !c.linkLayer(&m):
		return port.DropGuardND
	}
	switch kind {
	case ndp.RouterSolicitation:
		if nobody && m.LinkLayers != 0 {
			return port.DropGuardND
		}
	case ndp.RouterAdvertisement:
		c.heed = true
	case ndp.NeighborSolicitation:
		// The owner has to hear it, so it goes to the group on Ethernet, too (RFC 2464 section 7).
		group := solicited(m.Target.As16())
		if nobody && (m.LinkLayers != 0 || p.Dst != group || c.f.Dst != port.MAC(0x3333<<32|group.Lo&0xffff_ffff) ||
			!c.own6(m.Target) && !c.detect(m.Target)) {
			return port.DropGuardND
		}
	case ndp.NeighborAdvertisement:
		if !c.own6(m.Target) {
			return port.DropGuardND
		}
	}
	return port.DropNone
}

// own6 reports whether the station has an IPv6 address.
func (c *check) own6(a netip.Addr) bool {
	return a.Is6() && !a.Is4In6() && c.own(c.vlan, c.f.Src, addrOf(a))
}

// ownPrefix reports whether the station has all addresses of an IPv6 prefix.
func (c *check) ownPrefix(x netip.Prefix) bool {
	return slices.ContainsFunc(c.prefixes, func(r prefixRule) bool {
		return r.mac == c.f.Src && (r.vlan == 0 || r.vlan == c.vlan) && r.Bits() <= x.Bits() && r.Contains(x.Addr()) && (r.entry == nil || r.entry.live(c.rules))
	})
}

// linkLayer reports whether the link-layer addresses that a message gives are its sender's.
func (c *check) linkLayer(m *ndp.Message) bool {
	if m.LinkLayers == 0 {
		return true
	}
	want := uint8(ndp.SourceLinkLayer)
	if m.Type == ndp.NeighborAdvertisement {
		want = ndp.TargetLinkLayer
	}
	return m.LinkLayers == 1 && !m.Odd && m.LinkLayerType == want && m.LinkLayer == c.f.Src
}

// solicited returns the group to which solicitations for a target go (RFC 4291 section
// 2.7.1).
func solicited(target [16]byte) ip.Addr {
	return ip.Addr{Hi: 0xff02 << 48, Lo: 0x1_ff00_0000 | uint64(target[13])<<16 | uint64(target[14])<<8 | uint64(target[15])}
}
