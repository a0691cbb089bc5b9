package l2test

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// leaf is a host of a fabric that a bgpPeer speaks of, as the leaves of Arista or Cumulus Linux are announced.
type leaf struct {
	rd   packet.RouteDistinguisherInterface
	vtep netip.Addr
}

func newLeaf(t *testing.T, vtep string) leaf {
	rd, err := packet.ParseRouteDistinguisher(vtep + ":10")
	if err != nil {
		t.Fatal(err)
	}
	return leaf{rd, netip.MustParseAddr(vtep)}
}

// segment is the Ethernet segment of the tests: a type 3 identifier, of a MAC address and a number.
var segment = packet.EthernetSegmentIdentifier{Type: packet.ESI_MAC, Value: []byte{0x02, 0, 0, 0, 0xaa, 0xaa, 0, 0, 1}}

// perES is the Ethernet tag of a type 1 route for all of a segment (RFC 7432 section 8.2.1).
const perES = 0xffffffff

func (l leaf) discovery(tag uint32) packet.NLRI {
	return packet.NewEVPNEthernetAutoDiscoveryRoute(l.rd, segment, tag, 0)
}

func (l leaf) segment() packet.NLRI {
	n, _ := packet.NewEVPNEthernetSegmentRoute(l.rd, segment, l.vtep)
	return n
}

func (l leaf) station(mac port.MAC, esi packet.EthernetSegmentIdentifier, ip string, tag uint32, labels ...uint32) packet.NLRI {
	a, _ := netip.ParseAddr(ip)
	n, _ := packet.NewEVPNMacIPAdvertisementRoute(l.rd, esi, tag, mac.String(), a, labels)
	return n
}

func (l leaf) flood() packet.NLRI {
	n, _ := packet.NewEVPNMulticastEthernetTagRoute(l.rd, 0, l.vtep)
	return n
}

// replication is the attribute of a flood route.
func (l leaf) replication() packet.PathAttributeInterface {
	id, _ := packet.NewIngressReplTunnelID(l.vtep)
	return packet.NewPathAttributePmsiTunnel(packet.PMSI_TUNNEL_TYPE_INGRESS_REPL, false, 10010, id)
}

func targetOf(vni uint32) packet.ExtendedCommunityInterface {
	return packet.NewTwoOctetAsSpecificExtended(packet.EC_SUBTYPE_ROUTE_TARGET, peerAS, vni, true)
}

// tell announces a route of a leaf with the target of VNI 10010 and further communities.
func (p *bgpPeer) tell(l leaf, n packet.NLRI, more ...packet.ExtendedCommunityInterface) {
	p.t.Helper()
	attrs := []packet.PathAttributeInterface{
		packet.NewPathAttributeExtendedCommunities(append([]packet.ExtendedCommunityInterface{targetOf(10010), packet.NewEncapExtended(packet.TUNNEL_TYPE_VXLAN)}, more...)),
	}
	if e, ok := n.(*packet.EVPNNLRI); ok && e.RouteType == packet.EVPN_INCLUSIVE_MULTICAST_ETHERNET_TAG {
		attrs = append(attrs, l.replication())
	}
	p.tellWith(l.vtep, n, attrs...)
}

// tellWith announces a route with a next hop and attributes.
func (p *bgpPeer) tellWith(hop netip.Addr, n packet.NLRI, attrs ...packet.PathAttributeInterface) {
	p.t.Helper()
	reach, err := packet.NewPathAttributeMpReachNLRI(packet.RF_EVPN, []packet.PathNLRI{{NLRI: n}}, hop)
	if err != nil {
		p.t.Fatal(err)
	}
	p.say(packet.NewBGPUpdateMessage(nil, append([]packet.PathAttributeInterface{
		reach, packet.NewPathAttributeOrigin(0), packet.NewPathAttributeAsPath(nil), packet.NewPathAttributeLocalPref(100),
	}, attrs...), nil))
}

func (p *bgpPeer) takeBack(n packet.NLRI) {
	p.t.Helper()
	unreach, _ := packet.NewPathAttributeMpUnreachNLRI(packet.RF_EVPN, []packet.PathNLRI{{NLRI: n}})
	p.say(packet.NewBGPUpdateMessage(nil, []packet.PathAttributeInterface{unreach}, nil))
}

// reflected is an overlay whose first switch hears of the others, which know nothing of EVPN, from a neighbor.
func reflected(t *testing.T) (o *overlay, p *bgpPeer) {
	o = newOverlay(t, 3, 1600, false)
	for i, l := range o.sites[1:] {
		l.sw.ctl("add-port up0 --kind vxlan --local %s --peers %s --vni 10010", o.vtep(1+i), o.vtep(0))
	}
	o.sites[0].sw.ctl("add-port up0 --kind vxlan --local %s --vni 10010", o.vtep(0))
	o.sites[0].sw.ctl("set --evpn-as 65001")
	ns, address := o.peer()
	o.sites[0].sw.ctl("evpn neighbor add %s --as 65001 --hold 90s", address)
	return o, o.connectPeer(ns, 0)
}

// TestEVPNMultihomed: a station that two hosts announce by one Ethernet segment is at one of them, and at the other
// once that takes its route back. What they say beside it (types 1 and 4) and say again changes nothing, and is no move.
func TestEVPNMultihomed(t *testing.T) {
	t.Parallel()
	o, p := reflected(t)
	h1, h2, h3 := o.hosts[0], o.hosts[1], o.hosts[2]
	first := &lan{t: t, sw: o.sites[0].sw, hosts: o.hosts}
	a, b := newLeaf(t, o.vtep(1)), newLeaf(t, o.vtep(2))
	mac := h2.mac
	all := func(seq uint32) {
		for _, l := range []leaf{b, a} {
			p.tell(l, l.segment(), packet.NewESImportRouteTarget("02:00:00:00:aa:aa"))
			p.tell(l, l.discovery(perES), packet.NewESILabelExtended(0, false))
			p.tell(l, l.discovery(0))
			p.tell(l, l.flood())
			p.tell(l, l.station(mac, segment, "", 0, 10010), packet.NewMacMobilityExtended(seq, false))
			p.tell(l, l.station(mac, segment, "10.0.0.77", 0, 10010), packet.NewMacMobilityExtended(seq, false))
		}
	}
	at := func(what string, vtep string, seq uint32) {
		t.Helper()
		testenv.Eventually(t, what, func() bool {
			m := o.station(0, mac)
			return m.MAC == mac && m.VTEP.String() == vtep && m.Seq == seq && !m.Held
		})
	}
	all(0)
	at("the station is at the first leaf", o.vtep(1), 0)
	first.want(h1, h1.to(h2), h2)
	for range 50 { // both say it again and again
		all(0)
	}
	// The machine comes here and goes back. Each return is announced by both leaves, and is one move here.
	for n := range uint32(4) {
		if err := h1.Send(append((frame{dst: port.Broadcast, src: mac}).head(), make([]byte, 50)...), port.Offload{}); err != nil {
			t.Fatal(err)
		}
		at("the station is here", o.vtep(0), 2*n+1)
		for _, l := range []leaf{a, b} {
			p.takeBack(l.station(mac, segment, "", 0, 0))
			p.takeBack(l.station(mac, segment, "10.0.0.77", 0, 0))
		}
		all(2*n + 2)
		at("the station is back", o.vtep(1), 2*n+2)
	}
	if log := o.sites[0].sw.Log(); strings.Contains(log, "they have one address") {
		t.Errorf("it counts as a duplicate: %s", log)
	}

	// The first leaf loses its link: it takes back type 1, which ends nothing here, and then each station.
	p.takeBack(a.discovery(perES))
	p.takeBack(a.discovery(0))
	p.takeBack(a.segment())
	p.takeBack(a.station(mac, segment, "", 0, 0))
	p.takeBack(a.station(mac, segment, "10.0.0.77", 0, 0))
	at("the station is at the second leaf", o.vtep(2), 8)
	third := &lan{t: t, sw: o.sites[2].sw, hosts: o.hosts}
	third.want(h3, frame{dst: h1.mac, src: mac}, h1) // it sends there, too
	first.want(h1, h1.to(h2), h3)
	for _, m := range o.stations(0) {
		if m.MAC == mac && len(m.IPs) != 1 {
			t.Errorf("%+v", m)
		}
	}
	p.takeBack(b.station(mac, segment, "", 0, 0))
	p.takeBack(b.station(mac, segment, "10.0.0.77", 0, 0))
	testenv.Eventually(t, "the station is nowhere", func() bool { return o.station(0, mac).MAC == 0 })
	if n := o.neighbors(0)[0]; n.State != "established" || n.Problem != "" {
		t.Errorf("%+v", n)
	}
}

// TestEVPNForeign: what vendors announce beside or unlike what this switch does ends no session and moves no station, and
// `evpn neighbors` and `evpn routes` say what is left out.
func TestEVPNForeign(t *testing.T) {
	t.Parallel()
	o, p := reflected(t)
	h1, h2 := o.hosts[0], o.hosts[1]
	sw := o.sites[0].sw
	first := &lan{t: t, sw: sw, hosts: o.hosts}
	a, b := newLeaf(t, o.vtep(1)), newLeaf(t, o.vtep(2))
	none := packet.EthernetSegmentIdentifier{Value: make([]byte, 9)}
	if err := h1.Send(h1.toAll().head(), port.Offload{}); err != nil {
		t.Fatal(err)
	}
	// settled announces a station and waits until it is there, so that all before it has been read.
	marks := port.MAC(0x0600_0000_ff00)
	settled := func(what string) {
		t.Helper()
		marks++
		p.tell(a, a.station(marks, none, "", 0, 10010))
		testenv.Eventually(t, "the switch has read "+what, func() bool { return o.station(0, marks).MAC != 0 })
		if m := o.station(0, h1.mac); m.Port != h1.port {
			t.Errorf("%s: the station here is %+v", what, m)
		}
		first.want(h1, h1.to(h2), h2)
	}
	problem := func() string { return o.neighbors(0)[0].Problem }
	p.tell(a, a.station(h2.mac, none, "", 0, 10010))
	settled("a station")

	// Taken: with tag 10, several targets in any place, two labels (of a host that routes, too), communities that nobody
	// knows; beside it routes of other types.
	communities := []packet.ExtendedCommunityInterface{
		targetOf(4001), targetOf(4002), targetOf(4003), targetOf(4004), targetOf(4005), packet.NewRoutersMacExtended("02:00:00:00:bb:bb"),
		packet.NewUnknownExtended(packet.EC_TYPE_EVPN, []byte{6, 1, 2, 3, 4, 5, 6}), packet.NewUnknownExtended(0xff, []byte{1, 2, 3, 4, 5, 6, 7}),
	}
	taken := port.MAC(0x0600_0000_0001)
	p.tellWith(a.vtep, a.station(taken, none, "10.0.0.9", 10, 10010, 4001),
		packet.NewPathAttributeExtendedCommunities(append(communities, targetOf(10010))), packet.NewPathAttributeUnknown(0xc0, 251, make([]byte, 9)))
	for kind := byte(5); kind < 16; kind++ {
		for _, n := range []int{0, 1, 34, 200} {
			p.write(bgpUpdate(append(append([]byte{kind, byte(n)}, make([]byte, n)...), nlriMAC(0x0600_0000_0020+port.MAC(kind), 48, 0, nil)...)))
		}
	}
	settled("routes of other types")
	if m := o.station(0, taken); m.VTEP != a.vtep || len(m.IPs) != 1 {
		t.Errorf("a station with all that is unknown is %+v", m)
	}
	if m := o.station(0, 0x0600_0000_002f); m.MAC == 0 {
		t.Error("a station beside routes of other types is not taken")
	}
	if got := problem(); got != "" {
		t.Errorf("what is not left out is a problem: %s", got)
	}

	// Left out, each with its reason for as long as it is announced.
	about, err := sw.Client.Switch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	vxlan := packet.NewPathAttributeExtendedCommunities([]packet.ExtendedCommunityInterface{targetOf(10010), packet.NewEncapExtended(packet.TUNNEL_TYPE_VXLAN)})
	bad := func(mac port.MAC) packet.NLRI { return b.station(mac, none, "", 0, 10010) }
	tree := packet.NewPathAttributePmsiTunnel(packet.PMSI_TUNNEL_TYPE_PIM_SM_TREE, false, 10010, packet.NewDefaultPmsiTunnelID(make([]byte, 8)))
	hop := func(s string) netip.Addr { return netip.MustParseAddr(s) }
	for _, c := range []struct {
		hop   netip.Addr
		route packet.NLRI
		attrs []packet.PathAttributeInterface
		want  string
	}{
		{hop("2001:db8::9"), bad(h1.mac), nil, "routes of 2001:db8::9 are left out: tunnels of one network have either IPv4 or IPv6 addresses"},
		{hop("0.0.0.0"), bad(h1.mac), nil, "routes of 0.0.0.0 are left out"},
		{hop("127.0.0.1"), bad(h1.mac), nil, "routes of 127.0.0.1 are left out"},
		{hop("239.1.1.1"), bad(h1.mac), nil, "routes of 239.1.1.1 are left out"},
		{hop(o.vtep(0)), bad(h1.mac), nil, "another host announces the address " + o.vtep(0)},
		{b.vtep, bad(about.MAC), nil, "has the address of this switch itself"},
		{b.vtep, bad(0), nil, "no station can have the address 00:00:00:00:00:00"},
		{b.vtep, bad(0x0100_5e00_0001), nil, "no station can have the address 01:00:5e:00:00:01"},
		{b.vtep, b.station(h1.mac, none, "", 0, 20), nil, "that host wants VNI 20 in frames"},
		{b.vtep, bad(h1.mac), []packet.PathAttributeInterface{packet.NewPathAttributeExtendedCommunities([]packet.ExtendedCommunityInterface{
			targetOf(10010), packet.NewEncapExtended(packet.TUNNEL_TYPE_MPLS)})}, "that host takes no packets of VXLAN"},
		{b.vtep, b.flood(), nil, "floods do not go to " + o.vtep(2)},
		{b.vtep, b.flood(), []packet.PathAttributeInterface{vxlan, tree}, "floods do not go to " + o.vtep(2)},
	} {
		attrs := c.attrs
		if attrs == nil {
			attrs = []packet.PathAttributeInterface{vxlan}
		}
		p.tellWith(c.hop, c.route, attrs...)
		settled(c.want)
		if got := problem(); !strings.Contains(got, c.want) {
			t.Errorf("the problem is %q, want %q", got, c.want)
		}
		if listed := strings.Contains(sw.ctl("evpn routes"), "label 20"); listed != strings.Contains(c.want, "VNI 20 ") {
			t.Errorf("%s: evpn routes lists a route with another label: %v", c.want, listed)
		}
		p.takeBack(c.route)
		settled(c.want + ", withdrawn")
		if got := problem(); got != "" {
			t.Errorf("%s: it is withdrawn, and the problem is %q", c.want, got)
		}
	}
	p.write(bgpUpdate(nlriMAC(h1.mac, 40, 0, nil)))
	p.write(bgpUpdate(nlriMAC(h1.mac, 48, 33, make([]byte, 4))))
	settled("wrong lengths")
	if got := problem(); !strings.Contains(got, "an address in them has a wrong length") {
		t.Errorf("the problem is %q", got)
	}

	// An attribute that overruns its message costs that message's routes, and not the session.
	overrun := bgpUpdate(nlriMAC(0x0600_0000_0098, 48, 0, nil), packet.NewPathAttributeUnknown(0xc0, 250, make([]byte, 9)))
	overrun[len(overrun)-10] = 200
	p.write(overrun)
	settled("an overrun")
	if got := problem(); !strings.Contains(got, "an attribute of theirs is malformed") {
		t.Errorf("the problem is %q", got)
	}

	// A message of 4,096 bytes is read. The neighbor goes amid the next one: all of it is gone, and said.
	long := bgpUpdate(nlriMAC(0x0600_0000_0099, 48, 0, nil), packet.NewPathAttributeUnknown(0xd0, 250, make([]byte, 3000)))
	long = bgpUpdate(nlriMAC(0x0600_0000_0099, 48, 0, nil), packet.NewPathAttributeUnknown(0xd0, 250, make([]byte, 3000+4096-len(long))))
	if n := binary.BigEndian.Uint16(long[16:]); n != 4096 {
		t.Fatalf("the message has %d bytes", n)
	}
	p.write(append(append([]byte{}, long...), long[:3000]...))
	testenv.Eventually(t, "the station of the long message", func() bool { return o.station(0, 0x0600_0000_0099).MAC != 0 })
	p.conn.Close()
	testenv.Eventually(t, "nothing of the neighbor is left", func() bool {
		n := o.neighbors(0)[0]
		return len(o.stations(0)) == 1 && n.Routes == 0 && (n.Problem == "the neighbor closed the connection" || strings.HasPrefix(n.Problem, "cannot connect"))
	})
}
