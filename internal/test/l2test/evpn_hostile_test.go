package l2test

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"time"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// nlriMAC is a MAC route as on the wire, with lengths that need not be right.
func nlriMAC(mac port.MAC, macBits, ipBits byte, ip []byte) []byte {
	b := append([]byte{0, 1, 198, 51, 100, 1, 0, 9}, make([]byte, 10+4)...) // RD, ESI, tag
	b = append(append(append(b, macBits), mac.HardwareAddr()...), ipBits)
	b = append(append(b, ip...), 0, 39, 26) // VNI 10010
	return append([]byte{2, byte(len(b))}, b...)
}

// bgpUpdate is an UPDATE of routes as on the wire, with further attributes.
func bgpUpdate(nlri []byte, more ...packet.PathAttributeInterface) []byte {
	reach := append([]byte{0, 25, 70, 4, 192, 0, 2, 77, 0}, nlri...)
	attrs := binary.BigEndian.AppendUint16([]byte{0x90, 14}, uint16(len(reach)))
	attrs = append(attrs, reach...)
	for _, a := range append([]packet.PathAttributeInterface{
		packet.NewPathAttributeOrigin(0), packet.NewPathAttributeAsPath(nil), packet.NewPathAttributeLocalPref(100),
		packet.NewPathAttributeExtendedCommunities([]packet.ExtendedCommunityInterface{packet.NewTwoOctetAsSpecificExtended(packet.EC_SUBTYPE_ROUTE_TARGET, peerAS, 10010, true)}),
	}, more...) {
		b, _ := a.Serialize()
		attrs = append(attrs, b...)
	}
	body := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(len(attrs)))
	return bgpMessage(packet.BGP_MSG_UPDATE, append(body, attrs...))
}

func bgpMessage(kind byte, body []byte) []byte {
	b := []byte(strings.Repeat("\xff", 16))
	return append(append(binary.BigEndian.AppendUint16(b, uint16(19+len(body))), kind), body...)
}

// TestEVPNHostile: whatever a neighbor says, the switch answers, its stations and those of other
// neighbors stay reachable, and nothing of it is left once it is gone.
func TestEVPNHostile(t *testing.T) {
	t.Parallel()
	o := newOverlay(t, 2, 1600, false)
	o.evpn("--vni 10010", "90s")
	first, second := &lan{t: t, sw: o.sites[0].sw, hosts: o.hosts}, &lan{t: t, sw: o.sites[1].sw, hosts: o.hosts}
	h1, h2 := o.hosts[0], o.hosts[1]
	o.speak()
	ns, address := o.peer()
	o.sites[0].sw.ctl("evpn neighbor add %s --as 65001 --hold 90s", address)
	p := o.connectPeer(ns, 0)
	at := netip.MustParseAddr("192.0.2.77")
	route := func(mac port.MAC) peerRoute { return peerRoute{rd: 1, mac: mac, vtep: at, vni: 10010} }
	// last announces one more station and waits until the switch has taken all until then.
	marks := port.MAC(0)
	last := func(what string) {
		t.Helper()
		marks++
		p.announce(route(0x0600_0000_ff00 + marks))
		testenv.Eventually(t, "the switch has heard "+what, func() bool { return o.station(0, 0x0600_0000_ff00+marks).MAC != 0 })
		first.want(h1, h1.to(h2), h2)
		second.want(h2, h2.to(h1), h1)
	}
	last("a first station")

	// Routes that make no sense. They change nothing.
	about, err := o.sites[0].sw.Client.Switch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, mac := range []port.MAC{0, port.Broadcast, 0x0180_c200_0000, 0x0100_5e00_0001, about.MAC} {
		p.announce(route(mac))
	}
	for i, vtep := range []string{"192.0.2.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1", "2001:db8::9"} {
		r := route(0x0600_0000_0100 + port.MAC(i))
		r.vtep = netip.MustParseAddr(vtep)
		p.announce(r)
	}
	other := route(0x0600_0000_0200)
	other.vni = 999
	p.announce(other)
	last("senseless routes")
	for _, s := range o.stations(0) {
		if s.MAC != h1.mac && s.MAC != h2.mac && s.MAC != 0x0600_0000_ff01 && s.MAC != 0x0600_0000_ff02 {
			t.Errorf("it took %+v", s)
		}
	}

	// Addresses that no station can have. The station is taken, its address is not.
	for i, ip := range []string{"0.0.0.0", "::", "255.255.255.255", "224.0.0.1", "ff02::1", "127.0.0.1", "::1"} {
		r := route(0x0600_0000_0300 + port.MAC(i))
		r.ip = netip.MustParseAddr(ip)
		p.announce(r)
	}
	last("senseless addresses")
	if s := o.station(0, 0x0600_0000_0300); s.VTEP != at || len(s.IPs) > 0 {
		t.Errorf("a station with the address 0.0.0.0 is %+v", s)
	}

	// Lengths that are wrong, beside a route that is right; and attributes as long as they can be.
	for i, bad := range [][]byte{
		nlriMAC(0x0600_0000_0400, 47, 0, nil), nlriMAC(0x0600_0000_0400, 64, 0, nil), nlriMAC(0x0600_0000_0400, 48, 33, make([]byte, 4)),
		nlriMAC(0x0600_0000_0400, 48, 128, make([]byte, 4)), nlriMAC(0x0600_0000_0400, 48, 255, nil), {2, 3, 1, 2, 3}, {2, 0}, {3, 1, 0}, {255, 0},
	} {
		p.write(bgpUpdate(append(bad, nlriMAC(0x0600_0000_0500+port.MAC(i), 48, 0, nil)...)))
	}
	var communities []packet.ExtendedCommunityInterface
	for n := range 400 {
		communities = append(communities, packet.NewTwoOctetAsSpecificExtended(packet.EC_SUBTYPE_ROUTE_TARGET, uint16(n), uint32(n), true))
	}
	p.write(bgpUpdate(nlriMAC(0x0600_0000_0600, 48, 0, nil), packet.NewPathAttributeUnknown(0xc0, 250, make([]byte, 250)), packet.NewPathAttributeExtendedCommunities(communities)))
	last("wrong lengths")
	if o.station(0, 0x0600_0000_0400).MAC != 0 || o.station(0, 0x0600_0000_0508).VTEP != at {
		t.Error("a route with wrong lengths is taken, or one beside it is not")
	}

	// A station by very many routes, with all sequence numbers; an address that very many have.
	var flood []peerRoute
	for n := range 5_000 {
		r := route(0x0600_0000_0700)
		r.rd, r.ip = uint16(n), netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)})
		flood = append(flood, r)
	}
	p.announce(flood...)
	same := make([]peerRoute, 5_000)
	for n := range same {
		same[n] = route(0x0700_0000_0000 + port.MAC(n))
		same[n].ip = netip.MustParseAddr("10.2.0.1")
	}
	p.announce(same...)
	last("10,000 routes")
	p.withdraw(same...)
	p.withdraw(flood...)
	for range 1_000 { // one that comes and goes
		p.announce(flood[0])
		p.withdraw(flood[0])
	}
	refresh := bgpMessage(packet.BGP_MSG_ROUTE_REFRESH, []byte{0, 25, 0, 70})
	for range 20 {
		p.write([]byte(strings.Repeat(string(refresh), 1000)))
	}
	last("much")

	// A war about a station: it stays at the neighbor in the end, and the log says so. The highest
	// sequence number is not exceeded.
	for n := range uint32(8) {
		r := route(h1.mac)
		r.seq = ^uint32(0) - 20 + 2*n
		if n == 7 {
			r.seq = ^uint32(0)
		}
		p.announce(r)
		testenv.Eventually(t, "the station is at the neighbor", func() bool { return o.station(0, h1.mac).VTEP == at })
		if err := h1.Send(h1.toAll().head(), port.Offload{}); err != nil {
			t.Fatal(err)
		}
		if n < 4 {
			o.awaitStation(h1.mac, 0)
		}
	}
	testenv.Eventually(t, "it is held there", func() bool { return o.station(0, h1.mac).Held })
	if !strings.Contains(o.sites[0].sw.Log(), "they have one address, or there is a loop") {
		t.Error("the log does not say so")
	}

	// Routes that cannot be told apart end the session, and nothing is left of it.
	p.write(bgpUpdate([]byte{2, 200, 1}))
	<-p.ended
	testenv.Eventually(t, "nothing of it is left", func() bool {
		for _, s := range o.stations(0) {
			if s.VTEP == at {
				return false
			}
		}
		return true
	})
	if err := h1.Send(h1.toAll().head(), port.Offload{}); err != nil {
		t.Fatal(err)
	}
	o.awaitStation(h1.mac, 0)
	first.want(h1, h1.to(h2), h2)
	second.want(h2, h2.to(h1), h1)
}

// TestEVPNRefresh: routes that lead to more hosts than a switch takes are left out, and asked for once there is room.
func TestEVPNRefresh(t *testing.T) {
	t.Parallel()
	o, p := reflected(t)
	const hosts, most = 4100, 4095
	route := func(n int) peerRoute {
		return peerRoute{rd: uint16(n), mac: 0x0600_0000_0000 + port.MAC(n), vtep: netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), vni: 999}
	}
	announce := func() {
		for n := range hosts {
			p.announce(route(n))
		}
	}
	announce()
	testenv.Eventually(t, "some are left out", func() bool { return strings.HasPrefix(o.neighbors(0)[0].Problem, "5 routes are left out") })
	for n := range hosts - most {
		p.withdraw(route(n))
	}
	testenv.Eventually(t, "some are gone", func() bool { return o.neighbors(0)[0].Routes == 2*most-hosts })
	if n := p.asked.Load(); n != 0 {
		t.Errorf("the neighbor is asked %d times for its routes without room for more", n)
	}
	for n := range 300 {
		p.withdraw(route(n))
	}
	testenv.Eventually(t, "the neighbor is asked for its routes", func() bool { return p.asked.Load() == 1 && o.neighbors(0)[0].Problem == "" })
	for n := 300; n < hosts; n++ {
		p.announce(route(n))
	}
	testenv.Eventually(t, "all are there", func() bool { return o.neighbors(0)[0].Routes == hosts-300 })
}

// TestEVPNFlapping: a neighbor that comes and goes all the time costs ten lines a minute of each message.
func TestEVPNFlapping(t *testing.T) {
	t.Parallel()
	o := newOverlay(t, 1, 1600, false)
	sw := o.sites[0].sw
	sw.ctl("add-port up0 --kind vxlan --local %s --vni 10010", o.vtep(0))
	sw.ctl("set --evpn-as 65001")
	ns, address := o.peer()
	sw.ctl("evpn neighbor add %s --as 65001 --hold 90s", address)
	const flaps = 40
	begin := time.Now()
	for range flaps {
		o.connectPeer(ns, 0).conn.Close()
		testenv.Eventually(t, "the switch has noticed", func() bool { return o.neighbors(0)[0].State != "established" })
	}
	minutes := 1 + int(time.Since(begin)/time.Minute)
	for _, message := range []string{"BGP session established", "BGP session ended"} {
		if n := strings.Count(sw.Log(), message); n == 0 || n > 10*minutes {
			t.Errorf("%d flaps are %d lines %q in %d minutes", flaps, n, message, minutes)
		}
	}
}
