package bgp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/vswitch/vswitch/internal/proto/evpn"
	"github.com/vswitch/vswitch/port"
)

var (
	ownID = netip.MustParseAddr("192.0.2.1")
	vtep2 = netip.MustParseAddr("192.0.2.2")
	rd2   = evpn.RD{0, 1, 192, 0, 2, 2, 0, 7}
	ours  = reader{as: 65001, routerID: ownID, as4: true, internal: true, own: port.VXLAN}
)

func macRoute(mac port.MAC, ip string, seq uint32) evpn.Route {
	r := evpn.Route{Key: evpn.Key{Kind: evpn.MAC, RD: rd2, MAC: mac}, Targets: evpn.Targets{100}, VTEP: vtep2, Seq: seq}
	if ip != "" {
		r.IP = netip.MustParseAddr(ip)
	}
	return r
}

func floodRoute() evpn.Route {
	return evpn.Route{Key: evpn.Key{Kind: evpn.Flood, RD: rd2, IP: vtep2}, Targets: evpn.Targets{100}, VTEP: vtep2}
}

// body returns the body of a message.
func body(t testing.TB, m *packet.BGPMessage) []byte {
	t.Helper()
	b, err := m.Serialize()
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > maxMessage {
		t.Fatalf("a message has %d bytes", len(b))
	}
	return b[headerLen:]
}

func read(t *testing.T, b []byte) []Update {
	t.Helper()
	updates, eor, err := ours.read(b, nil)
	if err != nil || eor {
		t.Fatalf("%x: %v, End-of-RIB: %v", b, err, eor)
	}
	return updates
}

// What is written is read the same, by this package and by GoBGP's codec.
func TestRoundTrip(t *testing.T) {
	six := floodRoute()
	six.IP, six.VTEP = netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("2001:db8::2")
	sticky := macRoute(5, "", 0)
	sticky.Sticky = true
	var many []evpn.Route
	for n := range maxUpdate {
		r := macRoute(port.MAC(0x0200_0000_0000+n), "2001:db8::1", 1<<32-1)
		r.Tag = uint32(n)
		many = append(many, r)
	}
	for _, w := range []writer{{65002, false, true, port.VXLAN}, {65002, false, false, port.VXLAN}, {65001, true, true, port.VXLAN}, {4200000001, false, false, port.VXLAN}} {
		for _, routes := range [][]evpn.Route{
			{floodRoute()}, {six}, {sticky}, {macRoute(1, "", 0), macRoute(2, "", 0)}, {macRoute(1, "10.0.0.1", 7)}, many,
		} {
			b := body(t, w.announce(routes))
			rd := ours
			rd.as4 = w.as4
			updates, _, err := rd.read(b, nil)
			if err != nil {
				t.Fatal(err)
			}
			var want []Update
			for _, r := range routes {
				want = append(want, Update{Route: r})
			}
			if !reflect.DeepEqual(updates, want) {
				t.Errorf("%+v: read %+v, want %+v", w, updates, want)
			}
			m, err := packet.ParseBGPBody(&packet.BGPHeader{Type: packet.BGP_MSG_UPDATE, Len: uint16(headerLen + len(b))}, b, &packet.MarshallingOption{Use2ByteAS: !w.as4})
			if err != nil {
				t.Errorf("GoBGP does not read it: %v", err)
			} else if again, err := m.Body.Serialize(); err != nil || !bytes.Equal(again, b) {
				t.Errorf("GoBGP reads something else: %v", err)
			}
		}
	}
	keys := []evpn.Key{macRoute(1, "10.0.0.1", 0).Key, floodRoute().Key}
	if got := read(t, body(t, writer{}.withdraw(keys))); !reflect.DeepEqual(got, []Update{{Route: evpn.Route{Key: keys[0]}, Withdrawn: true}, {Route: evpn.Route{Key: keys[1]}, Withdrawn: true}}) {
		t.Errorf("withdrawn: %+v", got)
	}
	if got, eor, err := ours.read(body(t, writer{}.withdraw(nil)), nil); len(got) != 0 || !eor || err != nil {
		t.Errorf("End-of-RIB: %v, %v, %v", got, eor, err)
	}
	if _, eor, err := ours.read([]byte{0, 0, 0, 0}, nil); eor || err != nil {
		t.Errorf("the End-of-RIB of IPv4 counts: %v, %v", eor, err)
	}
}

// The router flag is what GoBGP's codec itself refuses; others write it so.
func TestRouterFlag(t *testing.T) {
	r := macRoute(1, "2001:db8::1", 0)
	r.Router = true
	b := body(t, writer{65002, false, true, port.VXLAN}.announce([]evpn.Route{r}))
	if got := read(t, b); len(got) != 1 || got[0].Route != r {
		t.Errorf("%+v", got)
	}
	if !bytes.Contains(b, []byte{6, 8, 1, 0, 0, 0, 0, 0}) {
		t.Errorf("no community 06:08 with flag 1 in %x", b)
	}
}

// attributesOf returns the UPDATE of a route with its attributes edited; one without a value is
// left out.
func attributesOf(t *testing.T, r evpn.Route, edit func(kind byte, value []byte) (byte, []byte)) []byte {
	attrs, err := split(body(t, writer{65001, true, true, port.VXLAN}.announce([]evpn.Route{r})))
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	for len(attrs) > 0 {
		flags, kind, value, rest, ok := nextAttribute(attrs)
		if !ok {
			t.Fatal("bad attributes")
		}
		attrs = rest
		was := kind
		if kind, value = edit(kind, slices.Clone(value)); value != nil {
			if kind != was {
				flags = forms[kind].flags
			}
			out = append(out, flags|attrExtended, kind)
			out = binary.BigEndian.AppendUint16(out, uint16(len(value)))
			out = append(out, value...)
		}
	}
	b := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(len(out)))
	return append(b, out...)
}

// What is unknown is skipped, and the rest of the message counts.
func TestUnknown(t *testing.T) {
	r := macRoute(1, "10.0.0.1", 3)
	for what, edit := range map[string]func(byte, []byte) (byte, []byte){
		"route types 1, 4 to 8, 11 and 200": func(kind byte, v []byte) (byte, []byte) {
			if kind == attrReach {
				for _, k := range []byte{1, 4, 5, 6, 7, 8, 11, 200} {
					v = append(v, k, 3, 1, 2, 3)
				}
				v = append(v[:9:9], append([]byte{6, 2, 9, 9}, v[9:]...)...)
			}
			return kind, v
		},
		"communities": func(kind byte, v []byte) (byte, []byte) {
			if kind == attrCommunities {
				for _, c := range []string{"0606000000000001", "060e000000000000", "06ff000000000000", "4300000000000000", "ffff010203040506", "0603112233445566"} {
					b, _ := hex.DecodeString(c)
					v = append(b, v...)
				}
			}
			return kind, v
		},
		"an attribute":       func(kind byte, v []byte) (byte, []byte) { return kind, v },
		"an empty attribute": func(kind byte, v []byte) (byte, []byte) { return kind, v },
		"a repeated one":     func(kind byte, v []byte) (byte, []byte) { return kind, v },
	} {
		b := attributesOf(t, r, edit)
		var extra []byte
		switch what {
		case "an attribute":
			extra = []byte{0xc0, 250, 3, 1, 2, 3}
		case "an empty attribute":
			extra = []byte{0xc0, 99, 0}
		case "a repeated one":
			extra = []byte{0xc0, attrCommunities, 8, 0, 2, 0, 0, 0, 0, 0, 200}
		}
		b = append(b, extra...)
		binary.BigEndian.PutUint16(b[2:], binary.BigEndian.Uint16(b[2:])+uint16(len(extra)))
		if got := read(t, b); len(got) != 1 || got[0].Route != r || got[0].Withdrawn {
			t.Errorf("%s: %+v", what, got)
		}
	}
}

// A fault in an attribute, or a loop, makes the routes withdrawn; one in the routes ends the session.
func TestFaults(t *testing.T) {
	r := macRoute(1, "10.0.0.1", 3)
	replace := func(of byte, with ...byte) func(byte, []byte) (byte, []byte) {
		return func(kind byte, v []byte) (byte, []byte) {
			if kind == of {
				return kind, with
			}
			return kind, v
		}
	}
	insert := func(with byte, value ...byte) func(byte, []byte) (byte, []byte) {
		return func(kind byte, v []byte) (byte, []byte) {
			if kind == attrLocalPref { // which does not matter here
				return with, value
			}
			return kind, v
		}
	}
	for what, edit := range map[string]func(byte, []byte) (byte, []byte){
		"AS_PATH too short":   replace(attrASPath, 2, 5, 0, 0, 0, 1),
		"AS_PATH of one byte": replace(attrASPath, 2),
		"an empty segment":    replace(attrASPath, 2, 0, 2, 1, 0, 0, 0, 9),
		"a segment of type 0": replace(attrASPath, 0, 1, 0, 0, 0, 9),
		"a segment of type 5": replace(attrASPath, 2, 1, 0, 0, 0, 9, 5, 1, 0, 0, 0, 9),
		"an AS of 0":          replace(attrASPath, 2, 1, 0, 0, 0, 0),
		"no AS_PATH":          replace(attrASPath),
		"communities":         replace(attrCommunities, 0, 2, 0),
		"empty communities":   replace(attrCommunities, []byte{}...),
		"originator":          insert(attrOriginator, 1, 2),
		"an empty originator": insert(attrOriginator, []byte{}...),
		"no origin":           replace(attrOrigin),
		"an unknown origin":   replace(attrOrigin, 3),
		"an origin of two":    replace(attrOrigin, 0, 0),
		"local preference":    replace(attrLocalPref, 0, 100),
		"MED":                 insert(attrMED, 1, 2, 3),
		"clusters":            insert(attrClusters, 1, 2, 3, 4, 5),
		"standard":            insert(attrStandard, 1, 2),
	} {
		targets := r.Targets
		if strings.Contains(what, "communities") {
			targets = evpn.Targets{}
		}
		if got := read(t, attributesOf(t, r, edit)); len(got) != 1 || got[0] != leftOut(r, targets, Malformed) {
			t.Errorf("%s: %+v", what, got)
		}
	}
	// A loop says so, and whose address the route has: it may be another host's.
	for want, edit := range map[LeftOut]func(byte, []byte) (byte, []byte){
		OwnAS:       replace(attrASPath, 2, 2, 0, 0, 0, 9, 0, 0, 0xfd, 0xe9),
		OwnRouterID: insert(attrOriginator, 192, 0, 2, 1),
	} {
		if got := read(t, attributesOf(t, r, edit)); len(got) != 1 || got[0] != leftOut(r, r.Targets, want) {
			t.Errorf("loop %d: %+v", want, got)
		}
	}
	for what, edit := range map[string]func(byte, []byte) (byte, []byte){
		"next hop too long":  replace(attrReach, 0, 25, 70, 99, 1, 2, 3, 4, 0),
		"no next hop":        replace(attrReach, 0, 25, 70),
		"route too long":     replace(attrReach, 0, 25, 70, 4, 192, 0, 2, 2, 0, 2, 40, 1),
		"half a route":       replace(attrReach, 0, 25, 70, 4, 192, 0, 2, 2, 0, 2),
		"withdrawn too long": insert(attrUnreach, 0, 25, 70, 3, 17, 0),
		"withdrawn short":    insert(attrUnreach, 0, 25),
		"two sets of routes": insert(attrReach, 0, 25, 70, 4, 192, 0, 2, 2, 0),
	} {
		if got, _, err := ours.read(attributesOf(t, r, edit), nil); err == nil {
			t.Errorf("%s: %+v", what, got)
		}
	}
	// Other families do not matter, and what is wrong with what is withdrawn.
	for what, edit := range map[string]func(byte, []byte) (byte, []byte){
		"IPv6 routes":        insert(attrUnreach, 0, 2, 1, 3, 17, 0),
		"a MAC of 40 bits":   insert(attrUnreach, append([]byte{0, 25, 70, 2, 33}, bytes.Repeat([]byte{40}, 33)...)...),
		"a short route":      insert(attrUnreach, 0, 25, 70, 2, 3, 1, 2, 3),
		"an address of 3 B":  insert(attrUnreach, append([]byte{0, 25, 70, 3, 17}, append(make([]byte, 12), 24, 1, 2, 3, 4)...)...),
		"another origin":     replace(attrOrigin, 2),
		"a confederation":    replace(attrASPath, 3, 1, 0, 0, 0, 9, 4, 1, 0, 0, 0, 9, 1, 1, 0, 0, 0, 9),
		"another originator": insert(attrOriginator, 192, 0, 2, 2),
		"another AS":         replace(attrASPath, 2, 1, 0, 0, 0xfd, 0xea),
	} {
		if got := read(t, attributesOf(t, r, edit)); len(got) != 1 || got[0] != (Update{Route: r}) {
			t.Errorf("%s: %+v", what, got)
		}
	}
	// A route with a wrong length has no key. That beside it counts.
	for what, bad := range map[string][]byte{
		"a MAC of 40 bits":      append([]byte{2, 33}, bytes.Repeat([]byte{40}, 33)...),
		"an IP of 33 bits":      append([]byte{2, 37}, append(append(make([]byte, 22), 48, 2, 0, 0, 0, 0, 9, 33), make([]byte, 7)...)...),
		"an IP of 24 bits":      append([]byte{2, 36}, append(append(make([]byte, 22), 48, 2, 0, 0, 0, 0, 9, 24), make([]byte, 6)...)...),
		"a short route":         {2, 3, 1, 2, 3},
		"an empty one":          {3, 0},
		"an originator of 24 b": append([]byte{3, 16}, append(make([]byte, 12), 24, 1, 2, 3)...),
	} {
		got := read(t, attributesOf(t, r, func(kind byte, v []byte) (byte, []byte) {
			if kind == attrReach {
				v = append(v, bad...)
			}
			return kind, v
		}))
		if len(got) != 2 || got[0] != (Update{Route: r}) || got[1] != leftOut(evpn.Route{VTEP: r.VTEP}, r.Targets, WrongLength) {
			t.Errorf("%s: %+v", what, got)
		}
	}
	// Without a tunnel a flood route says where the host is, but not where to send copies.
	if got := read(t, attributesOf(t, floodRoute(), replace(attrPMSI))); len(got) != 1 || got[0] != leftOut(floodRoute(), floodRoute().Targets, NoTunnel) {
		t.Errorf("no PMSI attribute: %+v", got)
	}
	if got := read(t, attributesOf(t, floodRoute(), replace(attrPMSI, 0, 1, 0, 0, 100, 192, 0, 2, 2))); len(got) != 1 || got[0].LeftOut != NoTunnel {
		t.Errorf("an RSVP tunnel: %+v", got)
	}
}

// A message that ends within its lengths, or before what they count, has no attributes.
func TestCutShort(t *testing.T) {
	for _, b := range [][]byte{{}, {0}, {0, 1}, {0, 2, 9}, {0, 0}, {0, 0, 0}, {0, 0, 0, 1}, {0, 0, 0, 3, 1, 2}, {0xff, 0xff, 0, 0}} {
		if attrs, err := split(b); err == nil {
			t.Errorf("% x: the attributes are % x", b, attrs)
		}
	}
}

// An AS number of four octets is in a capability; the OPEN itself has AS_TRANS then (RFC 6793 section 4.1).
func TestOpenMessageHasTheAS(t *testing.T) {
	for as, want := range map[uint32]uint16{1: 1, 0xffff: 0xffff, 0x10000: asTrans, 4200000000: asTrans} {
		n := &neighbor{speaker: &Speaker{cfg: Config{AS: as, RouterID: netip.MustParseAddr("192.0.2.1")}}}
		m, err := n.openMessage()
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Body.(*packet.BGPOpen).MyAS; got != want {
			t.Errorf("AS %d: the message has %d, want %d", as, got, want)
		}
	}
}

// Attributes that cannot be read to the end make the routes withdrawn that were there before (RFC 7606 section 4). Where
// there were none, they were perhaps in what cannot be read, and the session ends (section 5.2).
func TestOverrun(t *testing.T) {
	r := macRoute(1, "10.0.0.1", 3)
	whole := func(kind byte, v []byte) (byte, []byte) { return kind, v }
	only := func(kept byte) func(byte, []byte) (byte, []byte) {
		return func(kind byte, v []byte) (byte, []byte) {
			if kind != kept {
				return kind, nil
			}
			return kind, v
		}
	}
	for what, rest := range map[string][]byte{
		"a length beyond the end":    {0xc0, 250, 9, 1, 2, 3},
		"a long one":                 {0xd0, 250, 1, 0, 1, 2, 3},
		"two octets":                 {0xc0, 250},
		"three, of a longer header":  {0xd0, 250, 0},
		"one octet":                  {0xc0},
		"known attributes, too long": {0x40, attrOrigin, 2, 0},
		"routes, too long":           {0x80, attrReach, 200, 0, 25, 70, 4},
		"withdrawn ones, too long":   {0x80, attrUnreach, 200, 0, 25, 70, 4},
	} {
		with := func(b []byte) []byte {
			b = append(slices.Clone(b), rest...)
			binary.BigEndian.PutUint16(b[2:], uint16(len(b)-4))
			return b
		}
		if got := read(t, with(attributesOf(t, r, whole))); len(got) != 1 || got[0] != leftOut(r, r.Targets, Malformed) {
			t.Errorf("%s: %+v", what, got)
		}
		for _, b := range [][]byte{{0, 0, 0, 0}, attributesOf(t, r, only(attrASPath)), body(t, writer{}.withdraw([]evpn.Key{r.Key}))} {
			if got, _, err := ours.read(with(b), nil); err == nil || len(got) > 0 {
				t.Errorf("%s, without routes before: %+v, %v", what, got, err)
			}
		}
	}
	// The routes themselves may be what overruns the message.
	b := attributesOf(t, r, only(attrReach))
	if got, _, err := ours.read(binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(len(b)-5)), nil); err == nil {
		t.Errorf("attributes longer than the message: %+v", got)
	}
	b = b[:len(b)-1]
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-4))
	if got, _, err := ours.read(b, nil); err == nil {
		t.Errorf("routes longer than the attributes: %+v", got)
	}
	// A fault where no routes come ends it as well, and one that says nothing does not.
	if got, _, err := ours.read(attributesOf(t, r, func(kind byte, v []byte) (byte, []byte) {
		if kind == attrOrigin {
			return kind, []byte{9}
		}
		return only(attrASPath)(kind, v)
	}), nil); err == nil {
		t.Errorf("a fault without routes: %+v", got)
	}
	if got, _, err := ours.read(attributesOf(t, r, only(attrASPath)), nil); err != nil || len(got) > 0 {
		t.Errorf("attributes without routes: %+v, %v", got, err)
	}
}

// Flags that an attribute cannot have are a fault of it (RFC 7606 section 3 (c)), also of the routes, which are
// there all the same.
func TestFlags(t *testing.T) {
	r := floodRoute()
	b := attributesOf(t, r, func(kind byte, v []byte) (byte, []byte) { return kind, v })
	tried := 0
	for at := 4; at < len(b); {
		_, kind, v, _, ok := nextAttribute(b[at:])
		if !ok {
			t.Fatal("bad attributes")
		}
		for _, flag := range []byte{attrOptional, attrTransitive, 0x20, 0x01} {
			wrong := slices.Clone(b)
			wrong[at] ^= flag
			got := read(t, wrong)
			if len(got) != 1 || (got[0].LeftOut == Malformed) != (flag >= attrTransitive) {
				t.Errorf("attribute %d with flags %#x: %+v", kind, wrong[at], got)
			}
			tried++
		}
		at += 4 + len(v)
	}
	if tried != 4*6 {
		t.Errorf("%d flags of an UPDATE are tried", tried)
	}
}

// What attributes say within an AS, neighbours of another one cannot say (RFC 7606 sections 7.5, 7.9 and 7.10).
func TestExternal(t *testing.T) {
	r, rd := macRoute(1, "10.0.0.1", 3), ours
	rd.internal = false
	for kind, v := range map[byte][]byte{attrLocalPref: {1}, attrOriginator: {192, 0, 2, 1}, attrClusters: {1, 2}} {
		b := attributesOf(t, r, func(is byte, was []byte) (byte, []byte) {
			if is == attrLocalPref {
				return kind, v
			}
			return is, was
		})
		if got, _, err := rd.read(b, nil); err != nil || len(got) != 1 || got[0] != (Update{Route: r}) {
			t.Errorf("attribute %d: %+v, %v", kind, got, err)
		}
		if got := read(t, b); len(got) != 1 || got[0].LeftOut == 0 {
			t.Errorf("attribute %d within an AS: %+v", kind, got)
		}
	}
}

// Each code that this package sends has words where it is received.
func TestNotificationsHaveWords(t *testing.T) {
	for _, n := range []*notification{
		errSync, errLength, errType, errAttributes, errRoutes, errHold, errUntaken, ceaseDeconfigured, ceaseRejected, ceaseCollision, ceaseDead, ceaseResources,
	} {
		if text := (received{n.code, n.subcode}).Error(); strings.Contains(text, "undefined") {
			t.Errorf("code %d, subcode %d: %s", n.code, n.subcode, text)
		}
	}
}

// leftOut is the update of a route that is left out.
func leftOut(r evpn.Route, targets evpn.Targets, why LeftOut) Update {
	return Update{Route: evpn.Route{Key: r.Key, VTEP: r.VTEP, Targets: targets}, Withdrawn: true, LeftOut: why}
}

// The label says which of several targets is the network of the frames, wherever it stands. One that no target names
// stays with the route, and none says nothing.
func TestLabels(t *testing.T) {
	flood, mac := floodRoute(), macRoute(1, "10.0.0.1", 3)
	for _, c := range []struct {
		targets []uint32
		label   uint32
		want    evpn.Targets
		left    evpn.VNI
	}{
		{[]uint32{4001, 100}, 100, evpn.Targets{100}, 0}, // of a host that routes, too (RFC 9135)
		{[]uint32{1, 2, 3, 4, 5, 100}, 100, evpn.Targets{100}, 0},
		{[]uint32{100, 200}, 0, evpn.Targets{100, 200}, 0},
		{[]uint32{100}, 200, evpn.Targets{100}, 200},
		{nil, 200, evpn.Targets{}, 200},
	} {
		for _, r := range []evpn.Route{flood, mac} {
			got := read(t, attributesOf(t, r, func(kind byte, v []byte) (byte, []byte) {
				l := []byte{byte(c.label >> 16), byte(c.label >> 8), byte(c.label)}
				switch {
				case kind == attrCommunities:
					v = slices.Clone(v[8:])
					for _, n := range c.targets {
						v = append(v, 0, 2, 0, 7, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
					}
				case kind == attrPMSI:
					copy(v[2:], l)
				case kind == attrReach && r.Kind == evpn.MAC:
					copy(v[len(v)-3:], l)
				}
				return kind, v
			}))
			want := r
			want.Targets, want.Label = c.want, c.left
			if len(got) != 1 || got[0] != (Update{Route: want}) {
				t.Errorf("%v, label %d: %+v", c.targets, c.label, got)
			}
		}
	}
}

// Targets that name a VNI are taken, whatever the AS in them.
func TestTargets(t *testing.T) {
	for hexed, want := range map[string]evpn.Targets{
		"0002fde900000064":                 {100},
		"0202fc56ea000064":                 {100},
		"0102c00002010064":                 {100},
		"00020007100027740002000700000064": {10100, 100}, // automatic (RFC 8365), then another
		"0002fde9ff000064":                 {},
		"0002fde900000000":                 {},
		"0002000100000001000200010000000200020001000000030002000100000004" + "0002000100000005": {1, 2, 3, 4},
	} {
		var a attributes
		b, _ := hex.DecodeString(hexed)
		ours.attribute(&a, attrCommunities, b)
		if a.bad || a.route.Targets != want {
			t.Errorf("%s: %v", hexed, a.route.Targets)
		}
	}
}

// A route says how its host is reached. One that names only what this switch does not do is none; one that names nothing
// is as the rest of the network.
func TestEncapsulations(t *testing.T) {
	for _, own := range []port.Encapsulation{port.VXLAN, port.Geneve} {
		b := body(t, writer{65002, false, true, own}.announce([]evpn.Route{macRoute(1, "", 0)}))
		if !bytes.Contains(b, []byte{3, 0x0c, 0, 0, 0, 0, 0, byte(own)}) {
			t.Errorf("no community 03:0c with type %d in %x", own, b)
		}
		for _, c := range []struct {
			named []port.Encapsulation
			want  bool
		}{
			{nil, true},
			{[]port.Encapsulation{own}, true},
			{[]port.Encapsulation{10, own, 2}, true}, // MPLS, GRE
			{[]port.Encapsulation{10}, false},
			{[]port.Encapsulation{port.VXLAN + port.Geneve - own}, false},
		} {
			b := attributesOf(t, macRoute(1, "", 3), func(kind byte, v []byte) (byte, []byte) {
				if kind == attrCommunities {
					v = append(v[:8:8], v[16:]...) // without what it names
					for _, e := range c.named {
						v = append(v, 3, 0x0c, 0, 0, 0, 0, 0, byte(e))
					}
				}
				return kind, v
			})
			rd := ours
			rd.own = own
			updates, _, err := rd.read(b, nil)
			if err != nil || len(updates) != 1 || updates[0].Withdrawn == c.want || c.want && updates[0].Seq != 3 {
				t.Errorf("for %d, a route with %v: %+v, %v", own, c.named, updates, err)
			}
		}
	}
}

// Whatever a neighbour sends, reading it ends, and what comes of it is in order. What GoBGP's
// codec reads without complaint is read alike.
func FuzzUpdate(f *testing.F) {
	w := writer{65002, false, true, port.VXLAN}
	r := macRoute(1, "10.0.0.1", 3)
	r.Router = true
	f.Add(body(f, w.announce([]evpn.Route{r, macRoute(2, "", 0)})))
	f.Add(body(f, w.announce([]evpn.Route{floodRoute()})))
	f.Add(body(f, w.withdraw([]evpn.Key{r.Key, floodRoute().Key})))
	f.Add(body(f, w.withdraw(nil)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > maxMessage-headerLen {
			return
		}
		updates, eor, err := ours.read(b, nil)
		if eor && len(updates) > 0 {
			t.Fatal("an End-of-RIB with routes")
		}
		known := 0
		for _, u := range updates {
			if u.LeftOut == WrongLength {
				if u.Key != (evpn.Key{}) || !u.Withdrawn {
					t.Fatalf("%+v", u)
				}
				continue
			}
			known++
			if u.Kind != evpn.MAC && u.Kind != evpn.Flood || u.Withdrawn && u.LeftOut == 0 && u.Route != (evpn.Route{Key: u.Key}) {
				t.Fatalf("%+v", u)
			}
		}
		if known > maxMessage/nlriMulticast {
			t.Fatalf("%d routes of %d bytes", known, len(b))
		}
		if err != nil {
			return
		}
		m, err := packet.ParseBGPBody(&packet.BGPHeader{Type: packet.BGP_MSG_UPDATE, Len: uint16(headerLen + len(b))}, b)
		if err != nil {
			return
		}
		others := 0
		for _, a := range m.Body.(*packet.BGPUpdate).PathAttributes {
			switch a := a.(type) {
			case *packet.PathAttributeMpReachNLRI:
				others += count(a.Value)
			case *packet.PathAttributeMpUnreachNLRI:
				others += count(a.Value)
			}
		}
		if others < known {
			t.Fatalf("%d routes are read, GoBGP's codec reads %d", known, others)
		}
	})
}

func count(of []packet.PathNLRI) (n int) {
	for _, p := range of {
		if e, ok := p.NLRI.(*packet.EVPNNLRI); ok && (e.RouteType == uint8(evpn.MAC) || e.RouteType == uint8(evpn.Flood)) {
			n++
		}
	}
	return n
}
