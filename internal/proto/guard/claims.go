package guard

import (
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/vswitch/vswitch/internal/packet/arp"
	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/internal/packet/ip"
	"github.com/vswitch/vswitch/internal/packet/ndp"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// claim is an address that the switch asks for: because a server gave it to another port
// than the one that has it, because a station uses it first, or because a port has no room for it.
type claim struct {
	vlan  uint16
	addr  netip.Addr
	port  *Port    // the claimant
	mac   port.MAC // the claimant's
	probe bool     // ask everybody else; entry, if any, is bound if nobody objects

	// For a dispute with the port that has the address:
	entry  *entry
	expiry time.Time
	server netip.Addr
	due    time.Time // zero: not asked yet

	// For room: entry is new, and one of these goes for it, the first that is silent.
	silent []*entry
}

// Bounds of what is asked for at a time.
const (
	maxClaims = 256
	maxOpen   = 2 // new addresses of a port that wait for room
	maxAsked  = 4 // addresses that are asked for the sake of each
)

// undecided is when an address is bound of which it is open whether there is room for it.
const undecided = math.MaxInt64

// dispute asks the port that has an address whether it is still there. If it is silent for
// a second, the other port has it. The caller holds mu.
func (t *Table) dispute(e *entry, p *Port, mac port.MAC, expiry time.Time, server netip.Addr) {
	t.event(Event{Kind: Conflict, Port: p.name, VLAN: e.vlan, MAC: mac, Address: e.addr, Other: e.port.name, Text: "a server gave the port an address of another port; the switch asks there"})
	if len(t.claims) >= maxClaims || slices.ContainsFunc(t.claims, func(c *claim) bool { return c.entry == e }) {
		return
	}
	t.claims = append(t.claims, &claim{vlan: e.vlan, addr: e.addr, mac: mac, entry: e, port: p, expiry: expiry, server: server})
}

// Ask is a question that the switch sends: who has an address in a VLAN?
type Ask struct {
	VLAN    uint16
	Address netip.Addr
	Port    uint16
	Others  bool // ask at all ports but that one; false: there alone
}

// Frame returns the frame that asks, from a MAC of the switch's. It claims no address: it is
// an ARP probe (RFC 5227), or a solicitation as duplicate address detection sends it.
func (a Ask) Frame(mac port.MAC) []byte {
	if a.Address.Is4() {
		b := append(port.Broadcast.HardwareAddr(), mac.HardwareAddr()...)
		b = binary.BigEndian.AppendUint16(b, eth.TypeARP)
		b = arp.Packet{Op: arp.Request, SenderMAC: mac, Sender: netip.IPv4Unspecified(), Target: a.Address}.Append(b)
		return append(b, make([]byte, 18)...)
	}
	target := a.Address.As16()
	group := [16]byte{0xff, 0x02, 11: 1, 12: 0xff, 13: target[13], target[14], target[15]}
	b := append([]byte{0x33, 0x33, 0xff}, target[13:]...)
	b = append(b, mac.HardwareAddr()...)
	b = binary.BigEndian.AppendUint16(b, eth.TypeIPv6)
	b = append(b, 0x60, 0, 0, 0, 0, 24, ip.ICMPv6, 255)
	at := len(b)
	b = append(append(b, make([]byte, 16)...), group[:]...)
	b = append(b, ndp.NeighborSolicitation, 0, 0, 0, 0, 0, 0, 0)
	b = append(b, target[:]...)
	sum := uint32(vnet.Sum(b[at:])) + 24 + uint32(ip.ICMPv6)
	binary.BigEndian.PutUint16(b[at+34:], ^uint16(sum+sum>>16))
	return b
}

// settle returns what to ask, and ends the disputes that are due. The caller holds mu.
func (t *Table) settle(now time.Time) (asks []Ask) {
	all := t.claims
	t.claims = nil
	for _, c := range all {
		switch {
		case c.probe:
			asks = append(asks, Ask{c.vlan, c.addr, c.port.number, true})
			if e := c.entry; e != nil && t.owners[owner{c.vlan, c.addr}] == e && e.usable.CompareAndSwap(undecided, int64(t.age(now)+tentative)) {
				c.port.copyOut()
			}
		case t.owners[owner{c.vlan, c.addr}] != c.entry || t.ports[c.port.number] != c.port:
		case c.silent != nil && now.Before(c.due):
			t.claims = append(t.claims, c)
		case c.silent != nil && c.due.IsZero():
			c.due = now.Add(tentative)
			for _, e := range c.silent {
				e.asked.Store(true)
				asks = append(asks, Ask{e.vlan, e.addr, c.port.number, false})
			}
			t.claims = append(t.claims, c)
		case c.silent != nil:
			c.makeRoom(now)
		case c.due.IsZero():
			c.due = now.Add(tentative)
			c.entry.asked.Store(true)
			asks = append(asks, Ask{c.vlan, c.addr, c.entry.port.number, false})
			t.claims = append(t.claims, c)
		case now.Before(c.due):
			t.claims = append(t.claims, c)
		case c.entry.asked.Load():
			t.remove(c.entry, Ended, "the server gave it to port "+c.port.name)
			c.port.bind(c.vlan, c.mac, c.addr, DHCP, c.expiry, c.server, 0)
		}
	}
	return asks
}

// makeRoom ends a question for room: an address that nobody answered for goes, or the new one.
// The caller holds table.mu.
func (c *claim) makeRoom(now time.Time) {
	t := c.port.table
	if c.entry.usable.Load() != undecided {
		return // a server gave it to the station meanwhile
	}
	for _, e := range c.silent {
		if e.asked.Load() && t.owners[owner{e.vlan, e.addr}] == e {
			c.entry.usable.Store(int64(t.age(now)))
			t.remove(e, Displaced, displaced)
			return
		}
	}
	t.remove(c.entry, NoRoom, "the port has as many addresses as it may learn, and they are in use")
}
