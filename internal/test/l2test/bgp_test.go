package l2test

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// bgpPeer is a BGP neighbor of switches that says whatever a test wants.
type bgpPeer struct {
	t     testing.TB
	conn  net.Conn
	ended chan struct{} // closed once the switch has ended the session
	asked atomic.Int32  // how often the switch has asked for all routes
	mu    sync.Mutex    // of writing
}

const peerAS = 65001

// peer is a namespace in the underlay, beside the sites; address is its.
func (o *overlay) peer() (ns *testenv.Netns, address string) {
	o.t.Helper()
	ns = quietNetns(o.t)
	o.join(ns, 1600)
	return ns, o.vtep(len(o.sites))
}

// connectPeer begins a session with the switch of a site, whose neighbor the namespace is.
func (o *overlay) connectPeer(ns *testenv.Netns, site int) *bgpPeer {
	o.t.Helper()
	p := &bgpPeer{t: o.t, ended: make(chan struct{})}
	var err error
	ns.Do(func() { p.conn, err = net.Dial("tcp", net.JoinHostPort(o.vtep(site), "179")) })
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { p.conn.Close() })
	open, _ := packet.NewBGPOpenMessage(peerAS, 90, netip.MustParseAddr("198.51.100.1"), []packet.OptionParameterInterface{
		packet.NewOptionParameterCapability([]packet.ParameterCapabilityInterface{packet.NewCapMultiProtocol(packet.RF_EVPN), packet.NewCapRouteRefresh()}),
	})
	p.say(open)
	p.say(packet.NewBGPKeepAliveMessage())
	established := make(chan struct{})
	go p.hear(established)
	select {
	case <-established:
	case <-p.ended:
		o.t.Fatal("the switch refuses the session")
	}
	return p
}

// hear reads what the switch says, and keeps the session alive.
func (p *bgpPeer) hear(established chan struct{}) {
	defer close(p.ended)
	quit := make(chan struct{})
	defer close(quit)
	go func() {
		for {
			select {
			case <-quit:
				return
			case <-time.After(10 * time.Second):
				p.say(packet.NewBGPKeepAliveMessage())
			}
		}
	}()
	for head := make([]byte, 19); ; {
		if _, err := io.ReadFull(p.conn, head); err != nil {
			return
		}
		if _, err := io.CopyN(io.Discard, p.conn, int64(binary.BigEndian.Uint16(head[16:]))-19); err != nil {
			return
		}
		switch head[18] {
		case packet.BGP_MSG_NOTIFICATION:
			return
		case packet.BGP_MSG_ROUTE_REFRESH:
			p.asked.Add(1)
		case packet.BGP_MSG_KEEPALIVE:
			if established != nil {
				close(established)
				established = nil
			}
		}
	}
}

// say sends a message.
func (p *bgpPeer) say(m *packet.BGPMessage) {
	b, err := m.Serialize()
	if err != nil {
		p.t.Error(err)
		return
	}
	p.write(b)
}

// write sends bytes, unless the switch has ended the session.
func (p *bgpPeer) write(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = p.conn.Write(b)
}

// peerRoute is a MAC route that a bgpPeer announces.
type peerRoute struct {
	rd   uint16
	mac  port.MAC
	ip   netip.Addr
	vtep netip.Addr
	vni  uint32
	seq  uint32
}

func (r *peerRoute) nlri() packet.PathNLRI {
	rd, _ := packet.ParseRouteDistinguisher("198.51.100.1:1")
	if v4, ok := rd.(*packet.RouteDistinguisherIPAddressAS); ok {
		v4.Assigned = r.rd
	}
	esi := packet.EthernetSegmentIdentifier{Value: make([]byte, 9)}
	n, _ := packet.NewEVPNMacIPAdvertisementRoute(rd, esi, 0, r.mac.String(), r.ip, []uint32{r.vni})
	return packet.PathNLRI{NLRI: n}
}

// announce sends routes that have their host, network and sequence number in common.
func (p *bgpPeer) announce(routes ...peerRoute) {
	const each = 60
	for ; len(routes) > 0; routes = routes[min(each, len(routes)):] {
		var nlris []packet.PathNLRI
		for i := range routes[:min(each, len(routes))] {
			nlris = append(nlris, routes[i].nlri())
		}
		r := &routes[0]
		reach, _ := packet.NewPathAttributeMpReachNLRI(packet.RF_EVPN, nlris, r.vtep)
		p.say(packet.NewBGPUpdateMessage(nil, []packet.PathAttributeInterface{
			reach, packet.NewPathAttributeOrigin(0), packet.NewPathAttributeAsPath(nil), packet.NewPathAttributeLocalPref(100),
			packet.NewPathAttributeExtendedCommunities([]packet.ExtendedCommunityInterface{
				packet.NewTwoOctetAsSpecificExtended(packet.EC_SUBTYPE_ROUTE_TARGET, peerAS, r.vni, true),
				packet.NewEncapExtended(packet.TUNNEL_TYPE_VXLAN), packet.NewMacMobilityExtended(r.seq, false),
			}),
		}, nil))
	}
}

// withdraw takes routes back.
func (p *bgpPeer) withdraw(routes ...peerRoute) {
	const each = 60
	for ; len(routes) > 0; routes = routes[min(each, len(routes)):] {
		var nlris []packet.PathNLRI
		for i := range routes[:min(each, len(routes))] {
			nlris = append(nlris, routes[i].nlri())
		}
		unreach, _ := packet.NewPathAttributeMpUnreachNLRI(packet.RF_EVPN, nlris)
		p.say(packet.NewBGPUpdateMessage(nil, []packet.PathAttributeInterface{unreach}, nil))
	}
}
