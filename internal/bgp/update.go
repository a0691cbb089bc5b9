package bgp

import (
	"encoding/binary"
	"net/netip"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/vswitch/vswitch/internal/proto/evpn"
	"github.com/vswitch/vswitch/port"
)

// How an UPDATE is read
//
// A neighbour may send what this program does not know: other route types, attributes and
// extended communities. They are skipped. A fault in an attribute makes the routes of the
// message withdrawn, and those alone (RFC 7606 section 2, "treat-as-withdraw"). Only where the
// routes themselves cannot be told apart, or were perhaps in what cannot be read, does the session end.

// Update is a route that a neighbour announces or withdraws. A withdrawn one has only its Key, and one
// that is LeftOut its next hop and targets, too.
type Update struct {
	evpn.Route
	Withdrawn bool
	LeftOut   LeftOut
}

// LeftOut says why a route that is announced counts as withdrawn.
type LeftOut uint8

const (
	OwnAS       LeftOut = 1 + iota // the AS of this switch is in its path (RFC 4271 section 9.1.2)
	OwnRouterID                    // its originator has the router ID of this switch (RFC 4456 section 8)
	Malformed                      // an attribute
	WrongLength                    // of an address in it: it has no Key
	Unreachable                    // its host takes other encapsulations (RFC 8365 section 5.1.3)
	NoTunnel                       // of a flood route: there is no tunnel to send copies to
)

// Attribute types and flags (IANA, BGP Path Attributes; RFC 4271 section 4.3).
const (
	attrOrigin      = 1
	attrASPath      = 2
	attrMED         = 4
	attrLocalPref   = 5
	attrStandard    = 8 // communities
	attrOriginator  = 9
	attrClusters    = 10
	attrReach       = 14
	attrUnreach     = 15
	attrCommunities = 16
	attrPMSI        = 22

	attrOptional   = 0x80
	attrTransitive = 0x40
	attrExtended   = 0x10
)

// form is how an attribute has to be.
type form struct {
	flags    byte // optional, transitive
	length   int  // 0: any
	unit     int  // of the length, which is not 0; 0: any
	internal bool // a neighbour of another AS has no say in it
}

// forms are those of the attributes whose faults count (RFC 7606 sections 3 (c) and 7).
var forms = map[byte]form{
	attrOrigin:      {flags: attrTransitive, length: 1},
	attrASPath:      {flags: attrTransitive},
	attrMED:         {flags: attrOptional, length: 4},
	attrLocalPref:   {flags: attrTransitive, length: 4, internal: true},
	attrStandard:    {flags: attrOptional | attrTransitive, unit: 4},
	attrOriginator:  {flags: attrOptional, length: 4, internal: true},
	attrClusters:    {flags: attrOptional, unit: 4, internal: true},
	attrReach:       {flags: attrOptional},
	attrCommunities: {flags: attrOptional | attrTransitive, unit: 8},
	attrPMSI:        {flags: attrOptional | attrTransitive},
}

// fits reports whether an attribute has the form.
func (f form) fits(flags byte, b []byte) bool {
	return flags&(attrOptional|attrTransitive) == f.flags && (f.length == 0 || len(b) == f.length) && (f.unit == 0 || len(b) > 0 && len(b)%f.unit == 0)
}

// Kinds of segments of an AS_PATH (RFC 4271 section 4.3, RFC 5065 section 3).
const (
	firstSegment = 1 // AS_SET
	lastSegment  = 4 // AS_CONFED_SET
)

// Extended communities, type and subtype (IANA, BGP Extended Communities).
const (
	targetAS2       = 0x0002
	targetIP        = 0x0102
	targetAS4       = 0x0202
	encapsulation   = 0x030c
	defaultGateway  = 0x030d
	macMobility     = 0x0600
	neighborFlags   = 0x0608 // RFC 9047
	mobilitySticky  = 0x01
	neighborRouter  = 0x01
	autoTargetVXLAN = 0x10 // the upper octet of an automatic target (RFC 8365 section 5.1.2.1)
)

const (
	afiL2VPN = 25
	safiEVPN = 70

	nlriMAC       = 33 // shortest: RD, ESI, tag, a MAC address, no IP address, a label
	nlriMulticast = 17 // shortest: RD, tag, an IPv4 address

	pmsiIngressReplication = 6
)

// reader reads the UPDATEs of a neighbour.
type reader struct {
	as       uint32     // own
	routerID netip.Addr // own
	as4      bool       // AS numbers have four octets
	internal bool       // the neighbour has the same AS
	own      port.Encapsulation
}

// attributes are those of an UPDATE that matter here.
type attributes struct {
	route   evpn.Route // without a key
	targets []byte     // the extended communities: route targets, and others
	tunnel  netip.Addr // of the PMSI attribute
	label   evpn.VNI   // likewise
	bad     bool       // one is malformed: the routes count as withdrawn
	named   bool       // encapsulations are
	own     bool       // and that of this switch is among them
	loop    LeftOut    // they look like routes of this switch; 0: they do not
}

// read appends the routes of an UPDATE to updates. eor reports whether it is an End-of-RIB of EVPN.
func (rd reader) read(b []byte, updates []Update) (_ []Update, eor bool, err error) {
	attrs, err := split(b)
	if err != nil {
		return updates, false, err
	}
	var a attributes
	var reach, unreach []byte
	seen := uint64(0)
	unreached := false
	for len(attrs) > 0 {
		flags, kind, value, rest, ok := nextAttribute(attrs)
		if !ok { // what follows cannot be read (RFC 7606 section 4)
			a.bad = true
			break
		}
		attrs = rest
		if kind < 64 {
			if seen&(1<<kind) != 0 {
				if kind == attrReach || kind == attrUnreach {
					return updates, false, errAttributes // RFC 7606 section 3 (g)
				}
				continue // the first counts
			}
			seen |= 1 << kind
		}
		if f, known := forms[kind]; known && (rd.internal || !f.internal) && !f.fits(flags, value) {
			a.bad = true
			if kind != attrReach {
				continue
			}
		}
		switch kind {
		case attrReach:
			if reach, err = a.reach(value); err != nil {
				return updates, false, err
			}
		case attrUnreach:
			if len(value) < 3 {
				return updates, false, errAttributes
			}
			if isEVPN(value) {
				unreach, unreached = value[3:], true
			}
		default:
			rd.attribute(&a, kind, value)
		}
	}
	switch reached, needs := seen&(1<<attrReach) != 0, uint64(1<<attrOrigin|1<<attrASPath); {
	case a.bad && !reached: // what cannot be read may be routes (section 5.2)
		return updates, false, errAttributes
	case reached && seen&needs != needs: // section 3 (d)
		a.bad = true
	}
	if updates, err = rd.routes(unreach, nil, updates); err != nil {
		return updates, false, err
	}
	if updates, err = rd.routes(reach, &a, updates); err != nil {
		return updates, false, err
	}
	return updates, unreached && len(unreach) == 0 && reach == nil, nil
}

// split returns the attributes of an UPDATE. Its IPv4 routes do not matter here.
func split(b []byte) (attrs []byte, err error) {
	for range 2 {
		if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
			return nil, errAttributes
		}
		n := 2 + int(binary.BigEndian.Uint16(b))
		attrs, b = b[2:n], b[n:]
	}
	return attrs, nil
}

func nextAttribute(b []byte) (flags, kind byte, value, rest []byte, ok bool) {
	if len(b) < 3 {
		return 0, 0, nil, nil, false
	}
	n, head := int(b[2]), 3
	if b[0]&attrExtended != 0 {
		if len(b) < 4 {
			return 0, 0, nil, nil, false
		}
		n, head = int(binary.BigEndian.Uint16(b[2:])), 4
	}
	if len(b) < head+n {
		return 0, 0, nil, nil, false
	}
	return b[0], b[1], b[head : head+n], b[head+n:], true
}

func isEVPN(b []byte) bool { return binary.BigEndian.Uint16(b) == afiL2VPN && b[2] == safiEVPN }

// reach reads the next hop of an MP_REACH_NLRI and returns its routes (RFC 4760 section 3).
func (a *attributes) reach(b []byte) (routes []byte, err error) {
	if len(b) < 5 || len(b) < 5+int(b[3]) {
		return nil, errAttributes
	}
	if !isEVPN(b) {
		return nil, nil
	}
	hop := b[4 : 4+b[3]]
	if len(hop) == 32 { // a link-local address follows (RFC 2545 section 3)
		hop = hop[:16]
	}
	vtep, ok := netip.AddrFromSlice(hop)
	a.route.VTEP = vtep.Unmap()
	a.bad = a.bad || !ok
	return b[5+b[3]:], nil
}

// attribute reads any other attribute, which has its form.
func (rd reader) attribute(a *attributes, kind byte, b []byte) {
	switch kind {
	case attrOrigin:
		const last = 2
		a.bad = a.bad || b[0] > last
	case attrASPath:
		rd.path(a, b)
	case attrOriginator:
		if rd.internal && netip.AddrFrom4([4]byte(b)) == rd.routerID {
			a.loop = OwnRouterID
		}
	case attrCommunities:
		a.targets = b
		for n := 0; len(b) >= 8 && n < len(a.route.Targets); b = b[8:] {
			if vni := target(b); vni != 0 {
				a.route.Targets[n] = vni
				n++
			}
		}
		for b = a.targets; len(b) >= 8; b = b[8:] {
			a.community([8]byte(b), rd.own)
		}
	case attrPMSI: // RFC 6514 section 5
		if len(b) >= 5 && b[1] == pmsiIngressReplication {
			tunnel, _ := netip.AddrFromSlice(b[5:])
			a.tunnel, a.label = tunnel.Unmap(), label(b[2:])
		}
	}
}

// path looks for the own AS in an AS_PATH.
func (rd reader) path(a *attributes, b []byte) {
	size := 2
	if rd.as4 {
		size = 4
	}
	for len(b) > 0 {
		if len(b) < 2 || b[0] < firstSegment || b[0] > lastSegment || b[1] == 0 || len(b) < 2+int(b[1])*size {
			a.bad = true // RFC 7606 section 7.2
			return
		}
		n := int(b[1])
		for i := range n {
			as := uint32(binary.BigEndian.Uint16(b[2+i*size:]))
			if rd.as4 {
				as = binary.BigEndian.Uint32(b[2+i*size:])
			}
			switch as {
			case 0: // RFC 7607
				a.bad = true
			case rd.as:
				a.loop = OwnAS
			}
		}
		b = b[2+n*size:]
	}
}

func (a *attributes) community(c [8]byte, own port.Encapsulation) {
	r := &a.route
	switch binary.BigEndian.Uint16(c[:]) {
	case encapsulation: // RFC 9012 section 4.1
		a.named = true
		a.own = a.own || binary.BigEndian.Uint16(c[6:]) == uint16(own)
	case macMobility:
		r.Seq = binary.BigEndian.Uint32(c[4:])
		r.Sticky = r.Sticky || c[2]&mobilitySticky != 0
	case defaultGateway:
		r.Sticky = true
	case neighborFlags:
		r.Router = c[2]&neighborRouter != 0
	}
}

// target returns the VNI of an extended community that is a route target, else 0: the AS in it does not matter.
func target(c []byte) evpn.VNI {
	var number uint32
	switch binary.BigEndian.Uint16(c) {
	case targetAS2:
		number = binary.BigEndian.Uint32(c[4:])
	case targetIP, targetAS4:
		number = uint32(binary.BigEndian.Uint16(c[6:]))
	}
	if number>>24 != 0 && number>>28 != autoTargetVXLAN>>4 {
		return 0
	}
	return evpn.VNI(number) & evpn.MaxVNI
}

// label returns a label, which is a VNI (RFC 8365 section 5.1.3).
func label(b []byte) evpn.VNI { return evpn.VNI(b[0])<<16 | evpn.VNI(b[1])<<8 | evpn.VNI(b[2]) }

// network enters at a route which of the VNIs in its targets its frames have: that of its label. A label that no target
// names stays as it is: then frames with the VNI of a target would be of another network there. 0 names none.
func (a *attributes) network(r *evpn.Route, label evpn.VNI) {
	if r.Label = label; label == 0 {
		return
	}
	for b := a.targets; len(b) >= 8; b = b[8:] {
		if target(b) == label {
			r.Targets, r.Label = evpn.Targets{label}, 0
			return
		}
	}
}

// why returns why the routes of a kind are left out; 0: they are not.
func (a *attributes) why(kind evpn.Kind) LeftOut {
	switch {
	case a.bad:
		return Malformed
	case a.named != a.own:
		return Unreachable
	case a.loop != 0:
		return a.loop
	case kind == evpn.Flood && !a.tunnel.IsValid():
		return NoTunnel
	}
	return 0
}

// routes appends the routes of an attribute (RFC 7432 section 7): announced ones have
// attributes.
func (rd reader) routes(b []byte, a *attributes, updates []Update) ([]Update, error) {
	for len(b) > 0 {
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return updates, errRoutes
		}
		kind, nlri := evpn.Kind(b[0]), b[2:2+int(b[1])]
		b = b[2+len(nlri):]
		var k evpn.Key
		var label evpn.VNI
		var ok bool
		switch kind {
		case evpn.MAC:
			label, ok = readMAC(&k, nlri)
		case evpn.Flood:
			ok = readMulticast(&k, nlri)
		default:
			continue
		}
		u := Update{Withdrawn: true}
		switch {
		case a == nil && ok:
			u.Key = k
		case a == nil:
			continue
		case !ok:
			u.VTEP, u.Targets, u.LeftOut = a.route.VTEP, a.route.Targets, WrongLength
		default:
			if u.LeftOut = a.why(kind); u.LeftOut != 0 {
				u.VTEP, u.Targets = a.route.VTEP, a.route.Targets
			} else {
				u.Route, u.Withdrawn = a.route, false
				if kind == evpn.Flood {
					u.VTEP, label = a.tunnel, a.label
				}
				a.network(&u.Route, label)
			}
			u.Key = k
		}
		updates = append(updates, u)
	}
	return updates, nil
}

func readMAC(k *evpn.Key, b []byte) (vni evpn.VNI, ok bool) {
	if len(b) < nlriMAC || b[22] != 48 {
		return 0, false
	}
	k.Kind, k.RD, k.Tag, k.MAC = evpn.MAC, evpn.RD(b), binary.BigEndian.Uint32(b[18:]), port.MACFrom(b[23:])
	n := int(b[29]) / 8
	if b[29]%8 != 0 || len(b) < nlriMAC+n {
		return 0, false
	}
	return label(b[30+n:]), readIP(&k.IP, b[30:30+n], true)
}

func readMulticast(k *evpn.Key, b []byte) bool {
	if len(b) < nlriMulticast || len(b) != 13+int(b[12])/8 {
		return false
	}
	k.Kind, k.RD, k.Tag = evpn.Flood, evpn.RD(b), binary.BigEndian.Uint32(b[8:])
	return readIP(&k.IP, b[13:], false)
}

// readIP reads an address of 4 or 16 octets, or none.
func readIP(ip *netip.Addr, b []byte, mayLack bool) (ok bool) {
	if len(b) == 0 {
		return mayLack
	}
	*ip, ok = netip.AddrFromSlice(b)
	return ok
}

// asTrans stands for an AS number of four octets where two are the most (RFC 6793).
const asTrans = 23456

// writer builds UPDATEs for a neighbour.
type writer struct {
	as       uint32 // own
	internal bool   // the neighbour has the same AS
	as4      bool
	tunnel   port.Encapsulation
}

// maxUpdate bounds the routes of an UPDATE, so that it fits the 4096 bytes of a message: a
// route has at most 54 bytes, the rest less than 300.
const maxUpdate = 64

// announce returns an UPDATE of routes that differ in their keys only.
func (w writer) announce(routes []evpn.Route) *packet.BGPMessage {
	r := &routes[0]
	vni := uint32(r.Targets[0])
	var nlris []packet.PathNLRI
	for i := range routes {
		nlris = append(nlris, packet.PathNLRI{NLRI: nlriOf(&routes[i].Key, vni)})
	}
	reach, _ := packet.NewPathAttributeMpReachNLRI(packet.RF_EVPN, nlris, r.VTEP)
	communities := []packet.ExtendedCommunityInterface{
		packet.NewTwoOctetAsSpecificExtended(packet.EC_SUBTYPE_ROUTE_TARGET, uint16(w.as), vni, true),
		packet.NewEncapExtended(packet.TunnelType(w.tunnel)),
	}
	if r.Kind == evpn.MAC && (r.Seq != 0 || r.Sticky) {
		communities = append(communities, packet.NewMacMobilityExtended(r.Seq, r.Sticky))
	}
	if r.Router {
		communities = append(communities, packet.NewUnknownExtended(packet.EC_TYPE_EVPN, []byte{neighborFlags & 0xff, neighborRouter, 0, 0, 0, 0, 0}))
	}
	attrs := []packet.PathAttributeInterface{packet.NewPathAttributeOrigin(0), w.path()}
	if w.internal {
		attrs = append(attrs, packet.NewPathAttributeLocalPref(100))
	}
	attrs = append(attrs, packet.NewPathAttributeExtendedCommunities(communities))
	if r.Kind == evpn.Flood {
		id, _ := packet.NewIngressReplTunnelID(r.VTEP)
		attrs = append(attrs, packet.NewPathAttributePmsiTunnel(packet.PMSI_TUNNEL_TYPE_INGRESS_REPL, false, vni, id))
	}
	// The routes come first, as RFC 7606 section 5.1 wants it.
	return packet.NewBGPUpdateMessage(nil, append([]packet.PathAttributeInterface{reach}, attrs...), nil)
}

// path returns the AS_PATH: the own AS, for neighbours of another.
func (w writer) path() packet.PathAttributeInterface {
	switch {
	case w.internal:
		return packet.NewPathAttributeAsPath(nil)
	case w.as4:
		return packet.NewPathAttributeAsPath([]packet.AsPathParamInterface{packet.NewAs4PathParam(packet.BGP_ASPATH_ATTR_TYPE_SEQ, []uint32{w.as})})
	}
	as := uint16(asTrans)
	if w.as <= 0xffff {
		as = uint16(w.as)
	}
	return packet.NewPathAttributeAsPath([]packet.AsPathParamInterface{packet.NewAsPathParam(packet.BGP_ASPATH_ATTR_TYPE_SEQ, []uint16{as})})
}

// withdraw returns an UPDATE that withdraws routes; without keys it is the End-of-RIB.
func (writer) withdraw(keys []evpn.Key) *packet.BGPMessage {
	nlris := []packet.PathNLRI{}
	for i := range keys {
		nlris = append(nlris, packet.PathNLRI{NLRI: nlriOf(&keys[i], 0)})
	}
	unreach, _ := packet.NewPathAttributeMpUnreachNLRI(packet.RF_EVPN, nlris)
	return packet.NewBGPUpdateMessage(nil, []packet.PathAttributeInterface{unreach}, nil)
}

func nlriOf(k *evpn.Key, vni uint32) *packet.EVPNNLRI {
	rd := packet.GetRouteDistinguisher(k.RD[:])
	if k.Kind == evpn.Flood {
		n, _ := packet.NewEVPNMulticastEthernetTagRoute(rd, k.Tag, k.IP)
		return n
	}
	single := packet.EthernetSegmentIdentifier{Value: make([]byte, 9)}
	n, _ := packet.NewEVPNMacIPAdvertisementRoute(rd, single, k.Tag, k.MAC.String(), k.IP, []uint32{vni})
	return n
}
