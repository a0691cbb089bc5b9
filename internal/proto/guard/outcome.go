package guard

import (
	"encoding/binary"
	"net/netip"

	"github.com/vswitch/vswitch/internal/packet/arp"
	"github.com/vswitch/vswitch/internal/packet/dhcp"
	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/internal/packet/ip"
	"github.com/vswitch/vswitch/internal/packet/ndp"
	"github.com/vswitch/vswitch/port"
)

// fate is what the rules behind the guard made of a frame.
type fate int

const (
	refused fate = iota // its sender may not send it
	lost                // it may, but nobody got the frame, because of a limit or for want of a receiver
	passed              // it went out, or the switch took it
)

func fateOf(drop port.Drop) fate {
	switch drop {
	case port.DropNone, port.DropConsumed, port.DropLocal:
		return passed
	case port.DropPoliced, port.DropStormBroadcast, port.DropStormMulticast, port.DropStormUnicast,
		port.DropControlFull, port.DropNoDestination, port.DropSamePort, port.DropIsolated:
		return lost
	}
	return refused
}

// subject says what a frame teaches about addresses.
type subject int

const (
	nothing subject = iota
	resolution
	discovery
	toClient // of DHCP
	toServer
	toClient6
	toServer6
)

// subjectOf returns what f is about, and the IP packet in it unless that is ARP.
func subjectOf(f *port.Frame) (about subject, p ip.Packet) {
	body, n := f.Data[port.HeaderLen:], f.DataLen()-port.HeaderLen
	var fault ip.Fault
	switch binary.BigEndian.Uint16(f.Data[12:]) {
	case eth.TypeARP:
		return resolution, p
	case eth.TypeIPv4:
		if len(body) < 20 || body[9] != ip.UDP {
			return nothing, p
		}
		p, fault = ip.Parse4(body, n)
	case eth.TypeIPv6:
		if len(body) < 40 || body[6] == ip.TCP {
			return nothing, p
		}
		p, fault = ip.Parse6(body, n, port.MinHead-port.HeaderLen)
	default:
		return nothing, p
	}
	if fault != ip.OK || p.Part != ip.Whole || len(p.Body) < udpLen {
		return nothing, p
	}
	is4 := p.Src.Is4()
	switch p.Proto {
	case ip.UDP:
		to := binary.BigEndian.Uint16(p.Body[2:])
		switch {
		case is4 && to == dhcp.ClientPort:
			return toClient, p
		case is4 && to == dhcp.ServerPort:
			return toServer, p
		case !is4 && to == dhcp.ClientPort6:
			return toClient6, p
		case !is4 && to == dhcp.ServerPort6:
			return toServer6, p
		}
	case ip.ICMPv6:
		if kind := p.Body[0]; !is4 && kind >= ndp.RouterAdvertisement && kind <= ndp.NeighborAdvertisement && p.HopLimit == 255 && !p.Short {
			return discovery, p
		}
	}
	return nothing, p
}

// Outcome learns from a frame that Check heeds, now that drop says why it does not leave, or
// that it does.
func (p *Port) Outcome(f *port.Frame, drop port.Drop) {
	is, t := fateOf(drop), p.table
	about, packet := subjectOf(f)
	if p.rules.Load().macOnly {
		if is != refused {
			t.objects(f, about, &packet)
		}
		return
	}
	switch about {
	case resolution:
		if m, ok := arp.Parse(f.Data[port.HeaderLen:]); ok {
			p.probed(f, m.Target, is)
		}
		return
	case discovery:
		m, ok := ndp.Parse(packet.Body)
		switch {
		case ok && m.Type == ndp.NeighborSolicitation:
			p.probed(f, m.Target, is)
		case ok && m.Type == ndp.RouterAdvertisement && is == passed:
			t.advertised(f.VLAN, &m)
		}
		return
	}
	if is != passed {
		return
	}
	b, ok := payload(&packet)
	if !ok {
		return
	}
	switch about {
	case toClient:
		t.served(f.VLAN, f.Src, toNetip(packet.Src), b)
	case toClient6:
		t.served6(f.VLAN, f.Src, toNetip(packet.Src), b)
	case toServer:
		if m, ok := dhcp.Parse(b); ok {
			p.asked(f.VLAN, &m)
		}
	case toServer6:
		if m, ok := dhcp.Parse6(b); ok {
			p.asked6(f.VLAN, f.Src, &m)
		}
	}
}

// probed deals with an address that the station has just asked for. If not all neighbours heard
// that, the switch asks in its place.
func (p *Port) probed(f *port.Frame, a netip.Addr, is fate) {
	t := p.table
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.owners[owner{f.VLAN, a}]
	switch {
	case e == nil || e.port != p || e.mac != f.Src || !e.isTentative():
	case is == refused:
		t.remove(e, Ended, "the switch refused the question for it")
	case is == lost || p.config.Isolated:
		p.ask(e)
	}
}

// ask has the switch ask all others for an address, which is bound if nobody objects for a second
// after that. If it asks for too many addresses already, the address goes. The caller holds table.mu.
func (p *Port) ask(e *entry) {
	t := p.table
	if len(t.claims) >= maxClaims {
		t.remove(e, NoRoom, "the switch asks for too many addresses already")
		return
	}
	c := &claim{vlan: e.vlan, addr: e.addr, port: p, mac: e.mac, probe: true}
	if e.usable.Load() != undecided { // else there must be room, too, which takes as long
		c.entry = e
		e.usable.Store(undecided)
		p.copyOut()
	}
	t.claims = append(t.claims, c)
}

// objects ends what is tentative of addresses that a frame claims. Its port may send any address;
// that does not make it the address's owner.
func (t *Table) objects(f *port.Frame, about subject, p *ip.Packet) {
	switch about {
	case resolution:
		if m, ok := arp.Parse(f.Data[port.HeaderLen:]); ok {
			a, _ := claimOf(&m)
			t.used(f.VLAN, a, false)
		}
	case discovery:
		m, ok := ndp.Parse(p.Body)
		if ok && (m.Type == ndp.NeighborAdvertisement || m.Type == ndp.NeighborSolicitation && p.Src == any6) {
			t.used(f.VLAN, m.Target, false)
		}
	}
}

// claimOf returns the address that a packet claims for its sender, and whether the sender has it
// already: a probe only asks.
func claimOf(m *arp.Packet) (a netip.Addr, has bool) {
	if m.Sender.IsUnspecified() && m.Op == arp.Request {
		return m.Target, false
	}
	return m.Sender, true
}

// isTentative reports whether the entry is not bound yet.
func (e *entry) isTentative() bool {
	t := e.port.table
	return int64(t.age(t.now())) < e.usable.Load()
}

// Watch learns from what a trusted port sends.
type Watch struct{ table *Table }

// Watch returns the check of trusted ports.
func (t *Table) Watch() *Watch { return &Watch{t} }

// Check refuses nothing. f has its VLAN unless classified says why it has none. heed asks for
// a call of Outcome.
func (w *Watch) Check(f *port.Frame, classified port.Drop) (why port.Drop, heed bool) {
	if classified != port.DropNone {
		return port.DropNone, false
	}
	about, _ := subjectOf(f)
	return port.DropNone, about != nothing && about != toServer && about != toServer6
}

// Outcome learns from a frame, now that drop says why it does not leave, or that it does. What
// a limit dropped still tells who uses an address.
func (w *Watch) Outcome(f *port.Frame, drop port.Drop) {
	is, t := fateOf(drop), w.table
	if is == refused {
		return
	}
	about, p := subjectOf(f)
	switch about {
	case resolution:
		if m, ok := arp.Parse(f.Data[port.HeaderLen:]); ok {
			a, has := claimOf(&m)
			t.used(f.VLAN, a, has)
		}
	case discovery:
		w.discovery(f.VLAN, &p, is)
	case toClient, toClient6:
		b, ok := payload(&p)
		switch {
		case !ok || is != passed:
		case about == toClient:
			t.served(f.VLAN, f.Src, toNetip(p.Src), b)
		default:
			t.served6(f.VLAN, f.Src, toNetip(p.Src), b)
		}
	}
}

// discovery notes a message of neighbour discovery.
func (w *Watch) discovery(vlan uint16, p *ip.Packet, is fate) {
	m, ok := ndp.Parse(p.Body)
	if !ok || m.Code != 0 {
		return
	}
	if p.Src != any6 {
		w.table.used(vlan, toNetip(p.Src), true)
	}
	switch m.Type {
	case ndp.RouterAdvertisement:
		if is == passed {
			w.table.advertised(vlan, &m)
		}
	case ndp.NeighborAdvertisement:
		w.table.used(vlan, m.Target, true)
	case ndp.NeighborSolicitation:
		if p.Src == any6 {
			w.table.used(vlan, m.Target, false)
		}
	}
}
