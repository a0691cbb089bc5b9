package guard_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	. "github.com/vswitch/vswitch/internal/packet/packettest"
	"github.com/vswitch/vswitch/internal/proto/guard"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

const (
	macA port.MAC = 0x5254_0099_000a
	macV port.MAC = 0x5254_0099_000b
	macT port.MAC = 0x5254_0000_0001
)

// bench is a table with a clock of the test's own. Port 1 is A's, port 2 V's, if guarded.
type bench struct {
	*guard.Table
	now time.Time
	a   *guard.Port
}

func newBench(t *testing.T, c guard.Config, protect ...string) *bench {
	t.Helper()
	b := &bench{now: time.Unix(1_800_000_000, 0)}
	var prefixes []netip.Prefix
	for _, p := range protect {
		prefixes = append(prefixes, netip.MustParsePrefix(p))
	}
	b.Table = guard.New(func() time.Time { return b.now }, prefixes)
	b.a = b.Guard(1, "vm0", with(c, macA))
	return b
}

// with completes a configuration for a port with a MAC in VLAN 1.
func with(c guard.Config, mac port.MAC) guard.Config {
	if c.MACs == nil {
		c.MACs = []port.MAC{mac}
	}
	if c.VLANs.Len() == 0 {
		c.VLANs.Add(1)
	}
	return c
}

func addresses(all ...string) (list []guard.Address) {
	for _, a := range all {
		addr := netip.MustParseAddr(a)
		list = append(list, guard.Address{Prefix: netip.PrefixFrom(addr, addr.BitLen())})
	}
	return list
}

// frameOf is a frame as a port in VLAN 1 receives it.
func frameOf(wire []byte) *port.Frame {
	f := new(port.Frame)
	f.SetWire(append([]byte{}, wire...))
	f.VLAN = 1
	return f
}

// stage is what a frame passes.
type stage interface {
	Check(f *port.Frame, classified port.Drop) (why port.Drop, heed bool)
	Outcome(f *port.Frame, drop port.Drop)
}

// check passes a frame that no later rule drops.
func check(s stage, f *port.Frame) port.Drop {
	why, heed := s.Check(f, port.DropNone)
	if heed {
		s.Outcome(f, port.DropNone)
	}
	return why
}

// want checks what becomes of a frame from A.
func (b *bench) want(t *testing.T, what string, wire []byte, why port.Drop) {
	t.Helper()
	if got := check(b.a, frameOf(wire)); got != why {
		t.Errorf("%s: %v, want %v", what, got, why)
	}
}

// trusted has a trusted port send a frame.
func (b *bench) trusted(t *testing.T, wire []byte) {
	t.Helper()
	if got := check(b.Watch(), frameOf(wire)); got != port.DropNone {
		t.Fatalf("a trusted port's frame is dropped: %v", got)
	}
}

// pass lets time pass, and returns what the table says and asks meanwhile.
func (b *bench) pass(d time.Duration) (said []string, asks []guard.Ask) {
	for end := b.now.Add(d); b.now.Before(end); {
		b.now = b.now.Add(min(time.Second, end.Sub(b.now)))
		events, more := b.Tick()
		for _, ev := range events {
			said = append(said, fmt.Sprint(ev.Kind, " ", ev.Port, " ", ev.Address, " ", ev.Text))
		}
		asks = append(asks, more...)
	}
	return said, asks
}

// bound returns the addresses of a port that are not configured.
func (b *bench) bound(port string) string {
	var all []string
	for _, x := range b.Bindings() {
		if x.Port == port && x.Learned {
			all = append(all, x.Prefix.Addr().String())
		}
	}
	return strings.Join(all, " ")
}

func from4(mac port.MAC, a string) []byte {
	return Eth(Broadcast, mac, 0x0800, IPv4(a, "255.255.255.255", 1, make([]byte, 32)))
}

func from6(a string) []byte {
	return Eth(0x3333_0000_0001, macA, 0x86dd, ICMPv6(a, "ff02::1", 128, make([]byte, 8)))
}

func garp(mac port.MAC, a string) []byte { return Eth(Broadcast, mac, 0x0806, ARP(1, mac, a, 0, a)) }

func probe(mac port.MAC, a string) []byte {
	return Eth(Broadcast, mac, 0x0806, ARP(1, mac, "0.0.0.0", 0, a))
}

func detect(mac port.MAC, a string) []byte {
	x := Addr(a)
	return Eth(0x3333_ff00_0000|port.MAC(x[13])<<16|port.MAC(x[14])<<8|port.MAC(x[15]), mac, 0x86dd,
		ICMPv6("::", fmt.Sprintf("ff02::1:ff%02x:%02x%02x", x[13], x[14], x[15]), 135, ND(a)))
}

func routerAdvert(prefix string, valid uint32) []byte {
	x := netip.MustParsePrefix(prefix)
	body := append([]byte{64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4, byte(x.Bits()), 0xc0}, binary.BigEndian.AppendUint32(nil, valid)...)
	body = append(append(body, 0, 0, 0, 0, 0, 0, 0, 0), x.Addr().AsSlice()...)
	return Eth(0x3333_0000_0001, macT, 0x86dd, ICMPv6("fe80::1", "ff02::1", 134, body))
}

// dhcp4 is a DHCPv4 message.
func dhcp4(op, kind byte, xid uint32, mac port.MAC, client, your string, options ...byte) []byte {
	b := make([]byte, 240)
	b[0], b[1], b[2] = op, 1, 6
	binary.BigEndian.PutUint32(b[4:], xid)
	copy(b[12:], Addr(client))
	copy(b[16:], Addr(your))
	copy(b[28:], mac.HardwareAddr())
	binary.BigEndian.PutUint32(b[236:], 0x6382_5363)
	return append(append(b, 53, 1, kind), append(options, 255)...)
}

func request(mac port.MAC, xid uint32, a string) []byte {
	m := dhcp4(1, 3, xid, mac, "0.0.0.0", "0.0.0.0", append([]byte{50, 4}, Addr(a)...)...)
	return Eth(Broadcast, mac, 0x0800, IPv4("0.0.0.0", "255.255.255.255", 17, UDP(68, 67, m)))
}

func ack(mac port.MAC, xid uint32, a string, lease uint32) []byte {
	m := dhcp4(2, 5, xid, mac, "0.0.0.0", a, binary.BigEndian.AppendUint32([]byte{51, 4}, lease)...)
	return Eth(Broadcast, macT, 0x0800, IPv4("10.99.0.1", "255.255.255.255", 17, UDP(67, 68, m)))
}

const none, ipv4, ipv6, nd = port.DropNone, port.DropGuardIPv4, port.DropGuardIPv6, port.DropGuardND

func TestLease(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnDHCP}, "10.99.0.1/32")
	lease := func(xid uint32, a string, seconds uint32) {
		b.want(t, "request", request(macA, xid, a), none)
		b.trusted(t, ack(macA, xid, a, seconds))
	}
	lease(1, "10.99.0.10", 60)
	b.want(t, "within the lease", from4(macA, "10.99.0.10"), none)
	b.pass(50 * time.Second)
	lease(2, "10.99.0.10", 30) // shorter than before would have been left in vain
	b.pass(29 * time.Second)
	b.want(t, "after renewal", from4(macA, "10.99.0.10"), none)
	b.pass(2 * time.Second)
	b.want(t, "after the lease", from4(macA, "10.99.0.10"), ipv4)

	lease(3, "10.99.0.1", 60)
	b.want(t, "a protected address", from4(macA, "10.99.0.1"), ipv4)
	lease(4, "224.0.0.5", 60)
	lease(5, "0.0.0.0", 60)
	lease(6, "10.99.0.11", 0)
	if got := b.bound("vm0"); got != "" {
		t.Errorf("bound: %s", got)
	}
	lease(7, "10.99.0.12", 0xffff_ffff)
	b.pass(time.Hour)
	b.want(t, "a lease for good", from4(macA, "10.99.0.12"), none)

	// An ACK long after the request, or for another transaction, binds nothing.
	b.want(t, "request", request(macA, 8, "10.99.0.13"), none)
	b.pass(121 * time.Second)
	b.trusted(t, ack(macA, 8, "10.99.0.13", 60))
	b.want(t, "request", request(macA, 9, "10.99.0.13"), none)
	b.trusted(t, ack(macA, 10, "10.99.0.13", 60))
	b.trusted(t, ack(macV, 9, "10.99.0.13", 60))
	b.want(t, "unasked", from4(macA, "10.99.0.13"), ipv4)

	// Nor does a second one.
	lease(11, "10.99.0.14", 60)
	b.trusted(t, ack(macA, 11, "10.99.0.15", 60))
	b.want(t, "the second answer", from4(macA, "10.99.0.15"), ipv4)
}

// Which addresses nobody learns may change. What a port has it keeps.
func TestProtect(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnDHCP}, "10.99.0.1/32")
	lease := func(xid uint32, a string) {
		b.want(t, "request", request(macA, xid, a), none)
		b.trusted(t, ack(macA, xid, a, 60))
	}
	lease(1, "10.99.0.10")
	b.Protect([]netip.Prefix{netip.MustParsePrefix("10.99.0.8/29")})
	b.want(t, "had before", from4(macA, "10.99.0.10"), none)
	lease(2, "10.99.0.11")
	b.want(t, "protected now", from4(macA, "10.99.0.11"), ipv4)
	lease(3, "10.99.0.1")
	b.want(t, "protected no longer", from4(macA, "10.99.0.1"), none)
}

// dhcp6 is a DHCPv6 message with a client and one delegated prefix.
func dhcp6(kind byte, xid byte, prefix string, valid uint32) []byte {
	x := netip.MustParsePrefix(prefix)
	b := []byte{kind, 0, 0, xid, 0, 1, 0, 10, 0, 3, 0, 1, 0x52, 0x54, 0, 0x99, 0, 0xa}
	b = append(b, 0, 25, 0, 12+4+25, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 26, 0, 25)
	b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, valid), valid)
	return append(append(b, byte(x.Bits())), x.Addr().AsSlice()...)
}

// A prefix that a server delegates to a station is the station's, until its time is over.
func TestDelegation(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnPD}, "fd95::1/128")
	v := b.Guard(2, "vm1", with(guard.Config{Addresses: append(addresses("fd96::77"), guard.Address{Prefix: netip.MustParsePrefix("fd92::/48")}), Prefixes: []netip.Prefix{netip.MustParsePrefix("fd97::/48")}, Learn: guard.LearnSLAAC}, macV))
	xid := byte(0)
	ask := func(kind byte, prefix string) {
		xid++
		b.want(t, "request", Eth(0x3333_0001_0002, macA, 0x86dd, IPv6("fe80::5054:ff:fe99:a", "ff02::1:2", 17, UDP(546, 547, dhcp6(kind, xid, prefix, 0)))), none)
	}
	delegate := func(prefix string, valid uint32) {
		ask(3, prefix)
		b.trusted(t, Eth(macA, macT, 0x86dd, IPv6("fe80::1", "fe80::5054:ff:fe99:a", 17, UDP(547, 546, dhcp6(7, xid, prefix, valid)))))
	}
	b.want(t, "before", from6("fd97::1"), ipv6)
	delegate("fd97::/56", 60)
	b.want(t, "in the prefix", from6("fd97:0:0:ff::1"), none)
	b.want(t, "beside it", from6("fd97:0:0:100::1"), ipv6)
	if why := check(v, frameOf(detect(macV, "fd97::99"))); why != nd {
		t.Errorf("another's detection in the prefix: %v", why)
	}
	if why := check(v, frameOf(detect(macV, "fd97:0:0:100::99"))); why != none {
		t.Errorf("another's detection beside the prefix: %v", why)
	}
	b.pass(50 * time.Second)
	delegate("fd97::/56", 60)
	b.pass(50 * time.Second)
	b.want(t, "renewed", from6("fd97::1"), none)
	if all := b.Bindings(); !slices.ContainsFunc(all, func(x guard.Binding) bool {
		return x.Prefix.String() == "fd97::/56" && x.Source == guard.PD && x.Learned && x.Expiry.Equal(b.now.Add(10*time.Second))
	}) {
		t.Errorf("bindings: %+v", all)
	}
	b.pass(11 * time.Second)
	b.want(t, "after its time", from6("fd97::1"), ipv6)

	// What has an address of somebody else, or of none.
	for i, x := range []string{"fd96::/64", "fd92:0:0:1::/64"} {
		b.Tick()
		delegate(x, 60)
		b.want(t, "another's settings", from6(x[:len(x)-3]+"1"), ipv6)
		if said, _ := b.Tick(); len(said) == 0 || said[0].Kind != guard.Conflict || said[0].Other != "vm1" {
			t.Errorf("of %s, said %+v", x, said)
		}
		if n := b.Counts(1)[guard.Disputed]; n != uint64(i+1) {
			t.Errorf("%d disputed", n)
		}
	}
	delegate("fd95::/64", 60)
	b.want(t, "a protected address", from6("fd95::2"), ipv6)
	delegate("fc00::/7", 60)
	b.want(t, "far too many", from6("fd33::1"), ipv6)
	delegate("fe80::/64", 60)
	b.want(t, "link-local", from6("fe80::9"), ipv6)
	delegate("fd97:0:0:100::/56", 60)
	b.want(t, "with an address that another has formed", from6("fd97:0:0:101::1"), ipv6)

	// It is given back, is taken away by settings, and is kept.
	delegate("fd94::/64", 600)
	b.want(t, "another prefix", from6("fd94::1"), none)
	kept := b.Bindings()
	ask(8, "fd94::/64")
	b.want(t, "given back", from6("fd94::1"), ipv6)
	for _, x := range kept {
		if x.Source == guard.PD {
			b.Restore(1, x)
		}
	}
	b.want(t, "restored", from6("fd94::1"), none)
	var vlans port.VLANSet // the address is for both
	vlans.Add(1)
	vlans.Add(2)
	b.Guard(3, "vm2", with(guard.Config{Addresses: addresses("fd94::5"), VLANs: vlans}, 0x5254_0099_000c))
	b.want(t, "an address of it is configured elsewhere", from6("fd94::1"), ipv6)
	if got := b.bound("vm0"); got != "" {
		t.Errorf("bound: %s", got)
	}

	// A port that does not learn prefixes.
	b.a = b.Guard(1, "vm0", with(guard.Config{Learn: guard.LearnDHCP}, macA))
	delegate("fd93::/64", 60)
	b.want(t, "not learned", from6("fd93::1"), ipv6)
}

// A client's identifier of the type Ethernet is its MAC address; others say what they like.
func TestClientIdentifier(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnDHCP})
	id := func(kind byte, mac port.MAC, more ...byte) []byte {
		v := append(append([]byte{kind}, mac.HardwareAddr()...), more...)
		return append([]byte{61, byte(len(v))}, v...)
	}
	for what, c := range map[string]struct {
		options []byte
		why     port.Drop
	}{
		"none":                {nil, none},
		"its MAC":             {id(1, macA), none},
		"another's MAC":       {id(1, macV), port.DropGuardDHCP},
		"its MAC and more":    {id(1, macA, 0), port.DropGuardDHCP},
		"a part of its MAC":   {[]byte{61, 6, 1, 0x52, 0x54, 0, 0x99, 0}, port.DropGuardDHCP},
		"a DUID":              {id(255, macV, 1, 2, 3, 4), none},
		"a DUID of one octet": {[]byte{61, 1, 255}, none},
		"its MAC twice":       {append(id(1, macA), id(1, macA)...), port.DropGuardDHCP},
	} {
		m := dhcp4(1, 3, 1, macA, "0.0.0.0", "0.0.0.0", c.options...)
		b.want(t, what, Eth(Broadcast, macA, 0x0800, IPv4("0.0.0.0", "255.255.255.255", 17, UDP(68, 67, m))), c.why)
	}
}

// A client and the guard must agree where a message ends.
func TestLengthOfMessage(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnDHCP})
	for _, by := range []int{-1, 0, 1} {
		wire, want := request(macA, 1, "10.99.0.10"), none
		length := wire[14+20+4:]
		binary.BigEndian.PutUint16(length, uint16(int(binary.BigEndian.Uint16(length))+by))
		if by != 0 {
			want = port.DropGuardMalformed
		}
		b.want(t, fmt.Sprintf("a UDP length that is %d too large", by), wire, want)
	}
}

// Messages of ICMPv6 that only routers send are refused as such, and no others are.
func TestMessagesOfRouters(t *testing.T) {
	routers := []byte{130, 134, 137, 138, 146, 147, 149, 151, 152, 153, 154, 155, 157, 158}
	b := newBench(t, guard.Config{Addresses: addresses("fd99::10")})
	for kind := range 256 {
		wire := Eth(0x3333_0000_0001, macA, 0x86dd, ICMPv6("fd99::10", "ff02::1", byte(kind), make([]byte, 60)))
		why := check(b.a, frameOf(wire))
		if of := slices.Contains(routers, byte(kind)); of != (why == port.DropGuardRouter) {
			t.Errorf("type %d, of routers %v: %v", kind, of, why)
		}
	}
}

// A delegated prefix ends with a configured address only where both are.
func TestDelegatedElsewhere(t *testing.T) {
	set := func(vids ...uint16) (s port.VLANSet) {
		for _, vid := range vids {
			s.Add(vid)
		}
		return s
	}
	at := func(a string, vlan uint16) []guard.Address {
		return []guard.Address{{Prefix: addresses(a)[0].Prefix, VLAN: vlan}}
	}
	for _, c := range []struct {
		what   string
		number uint16
		config guard.Config
		stays  bool
	}{
		{"in another VLAN", 2, guard.Config{VLANs: set(2), Addresses: addresses("fd94::5")}, true},
		{"in other VLANs", 2, guard.Config{VLANs: set(2, 3), Addresses: addresses("fd94::5")}, true},
		{"in another VLAN of the port", 2, guard.Config{VLANs: set(1, 2), Addresses: at("fd94::5", 2)}, true},
		{"in a VLAN that the port has not", 2, guard.Config{VLANs: set(2), Addresses: at("fd94::5", 1)}, true},
		{"beside the prefix", 2, guard.Config{VLANs: set(1), Addresses: addresses("fd95::5")}, true},
		{"of the port itself", 1, guard.Config{VLANs: set(1, 2), Learn: guard.LearnPD, Addresses: addresses("fd94::5")}, true},
		{"in its VLAN", 2, guard.Config{VLANs: set(1, 2), Addresses: at("fd94::5", 1)}, false},
		{"in all VLANs", 2, guard.Config{VLANs: set(1, 2), Addresses: addresses("fd94::5")}, false},
	} {
		b := newBench(t, guard.Config{VLANs: set(1, 2), Learn: guard.LearnPD})
		b.Restore(1, guard.Binding{VLAN: 1, MAC: macA, Prefix: netip.MustParsePrefix("fd94::/64"), Source: guard.PD})
		mac := macA
		if c.number == 2 {
			mac = macV
		}
		b.Guard(c.number, "other", with(c.config, mac))
		if got := len(b.Learned(1)) == 1; got != c.stays {
			t.Errorf("an address %s: the prefix is there %v, want %v", c.what, got, c.stays)
		}
	}
}

func TestTooManyTransactions(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnDHCP})
	for xid := range uint32(17) {
		b.want(t, "request", request(macA, xid, "10.99.0.10"), none)
	}
	b.trusted(t, ack(macA, 0, "10.99.0.10", 60))
	b.want(t, "the oldest", from4(macA, "10.99.0.10"), ipv4)
	b.trusted(t, ack(macA, 16, "10.99.0.10", 60))
	b.want(t, "the newest", from4(macA, "10.99.0.10"), none)
}

func TestRate(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnDHCP})
	for xid := range uint32(50) {
		b.want(t, "within the burst", request(macA, xid, "10.99.0.10"), none)
	}
	b.want(t, "beyond it", request(macA, 50, "10.99.0.10"), port.DropGuardDHCPRate)
	b.pass(time.Second)
	for xid := range uint32(10) {
		b.want(t, "a second later", request(macA, xid, "10.99.0.10"), none)
	}
	b.want(t, "and beyond", request(macA, 50, "10.99.0.10"), port.DropGuardDHCPRate)
}

// A server gives a port the address of another: the switch asks there first.
func TestDispute(t *testing.T) {
	for _, alive := range []bool{true, false} {
		b := newBench(t, guard.Config{Learn: guard.LearnDHCP})
		v := b.Guard(2, "vm1", with(guard.Config{Learn: guard.LearnDHCP}, macV))
		if got := check(v, frameOf(request(macV, 1, "10.99.0.10"))); got != none {
			t.Fatal(got)
		}
		b.trusted(t, ack(macV, 1, "10.99.0.10", 3600))
		b.want(t, "request", request(macA, 2, "10.99.0.10"), none)
		b.trusted(t, ack(macA, 2, "10.99.0.10", 3600))
		b.want(t, "not at once", from4(macA, "10.99.0.10"), ipv4)
		_, asks := b.pass(time.Second)
		if len(asks) != 1 || asks[0].Port != 2 || asks[0].Others || asks[0].Address.String() != "10.99.0.10" {
			t.Fatalf("asked %+v", asks)
		}
		if alive {
			reply := Eth(macT, macV, 0x0806, ARP(2, macV, "10.99.0.10", macT, "0.0.0.0"))
			if got := check(v, frameOf(reply)); got != none {
				t.Fatal(got)
			}
		}
		b.pass(2 * time.Second)
		if alive {
			b.want(t, "the other is there", from4(macA, "10.99.0.10"), ipv4)
			continue
		}
		b.want(t, "the other is silent", from4(macA, "10.99.0.10"), none)
		if got := check(v, frameOf(from4(macV, "10.99.0.10"))); got != ipv4 {
			t.Errorf("the other still has it: %v", got)
		}
	}
}

func TestDetection(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnSLAAC}, "fd98::1/128")
	b.want(t, "no prefix", detect(macA, "fd98::10"), nd)
	b.trusted(t, routerAdvert("fd98::/64", 3600))
	b.want(t, "detection", detect(macA, "fd98::10"), none)
	b.want(t, "detection again", detect(macA, "fd98::10"), none)
	b.now = b.now.Add(900 * time.Millisecond)
	b.want(t, "within the second", from6("fd98::10"), ipv6)
	b.now = b.now.Add(200 * time.Millisecond)
	b.want(t, "after it", from6("fd98::10"), none)
	b.want(t, "a protected address", detect(macA, "fd98::1"), nd)
	b.want(t, "another prefix", detect(macA, "fd97::10"), nd)
	b.want(t, "a mapped address", detect(macA, "::ffff:10.0.0.1"), nd)
	b.want(t, "a group", detect(macA, "ff02::5"), nd)

	// Somebody objects, before or after.
	b.want(t, "detection", detect(macA, "fd98::20"), none)
	b.trusted(t, Eth(0x3333_0000_0001, macT, 0x86dd, ICMPv6("fd98::20", "ff02::1", 136, ND("fd98::20", LinkLayer(2, macT)...))))
	b.pass(2 * time.Second)
	b.want(t, "the address of somebody else", from6("fd98::20"), ipv6)
	b.want(t, "detection again", detect(macA, "fd98::20"), nd)
	b.pass(11 * time.Minute)
	b.trusted(t, Eth(macA, macT, 0x86dd, ICMPv6("fe80::1", "fd98::10", 135, ND("fd98::10"))))
	b.want(t, "long after", detect(macA, "fd98::20"), none)

	// A silent address ends after a day.
	b.trusted(t, routerAdvert("fd98::/64", 48*3600))
	b.Tick()
	b.want(t, "heard", from6("fd98::10"), none)
	b.now = b.now.Add(25 * time.Hour)
	b.Tick()
	b.want(t, "silent for a day", from6("fd98::10"), ipv6)
}

// A formed address ends with its prefix, of which routers cannot leave less than two hours.
func TestLifetime(t *testing.T) {
	const configured, advertised = "fd97::10", "fd98::10"
	b := newBench(t, guard.Config{Learn: guard.LearnSLAAC, Prefixes: []netip.Prefix{netip.MustParsePrefix("fd97::/64")}})
	b.trusted(t, routerAdvert("fd98::/64", 3600))
	for _, a := range []string{configured, advertised, "fe80::1234"} {
		b.want(t, "detection", detect(macA, a), none)
	}
	b.pass(2 * time.Second)
	left := func() int {
		t.Helper()
		b.pass(time.Second)
		for _, x := range b.Bindings() {
			if x.Prefix.Addr().String() == advertised {
				return int(x.Expiry.Sub(b.now).Seconds())
			}
		}
		return -1
	}
	about := func(what string, want int) {
		t.Helper()
		if is := left(); is < want-5 || is > want {
			t.Errorf("%s: %d s are left, want %d", what, is, want)
		}
	}
	about("at first", 3597)
	b.trusted(t, routerAdvert("fd98::/64", 600))
	about("less, of the little that is left", 3596)
	b.trusted(t, routerAdvert("fd98::/64", 4000))
	about("more", 4000)
	b.trusted(t, routerAdvert("fd98::/64", 24*3600))
	about("much more", 24*3600)
	b.trusted(t, routerAdvert("fd98::/64", 3*3600))
	about("less, but more than two hours", 3*3600)
	b.trusted(t, routerAdvert("fd98::/64", 0))
	about("none", 2*3600)
	b.want(t, "formed after that", detect(macA, "fd98::20"), nd)
	b.trusted(t, routerAdvert("fd98::/64", 0xffff_ffff))
	b.pass(time.Second)
	if left() > 0 {
		t.Error("one for good ends")
	}
	b.trusted(t, routerAdvert("fd98::/64", 60))
	about("of one for good", 2*3600)
	b.trusted(t, routerAdvert("fd97::/64", 0))
	b.pass(2 * time.Hour)
	for _, a := range []string{configured, "fe80::1234"} {
		b.want(t, "without an end", from6(a), none)
	}
	b.want(t, "after its end", from6(advertised), ipv6)
	if n := b.Counts(1)[guard.Expired]; n != 1 {
		t.Errorf("%d expired", n)
	}
}

// At the limit a new address takes the place of one that is silent when it is asked.
func TestRoom(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnSLAAC, Limit: 3})
	for _, a := range []string{"fe80::1", "fe80::2", "fe80::3"} {
		b.want(t, "detection", detect(macA, a), none)
		b.pass(time.Second)
	}
	b.pass(2 * time.Minute)
	b.want(t, "heard", from6("fe80::3"), none)
	b.want(t, "one more", detect(macA, "fe80::4"), none)
	b.want(t, "it waits", from6("fe80::4"), ipv6)
	_, asks := b.pass(time.Second)
	if len(asks) != 2 || asks[0].Address.String() != "fe80::1" || asks[1].Address.String() != "fe80::2" || asks[0].Port != 1 || asks[0].Others {
		t.Fatalf("asked %+v", asks)
	}
	b.want(t, "the first answers", Eth(0x3333_0000_0001, macA, 0x86dd, ICMPv6("fe80::1", "ff02::1", 136, ND("fe80::1"))), none)
	b.want(t, "it waits still", from6("fe80::4"), ipv6)
	b.pass(2 * time.Second)
	if got := b.bound("vm0"); got != "fe80::1 fe80::3 fe80::4" {
		t.Errorf("bound: %s", got)
	}
	b.want(t, "the new one", from6("fe80::4"), none)

	// All answer: the new one goes.
	b.pass(2 * time.Minute)
	b.want(t, "one more", detect(macA, "fe80::5"), none)
	b.want(t, "and another", detect(macA, "fe80::6"), none)
	b.want(t, "a third", detect(macA, "fe80::7"), nd)
	b.pass(time.Second)
	for _, a := range []string{"fe80::1", "fe80::3", "fe80::4"} {
		b.want(t, "answer", from6(a), none)
	}
	b.pass(2 * time.Second)
	if got := b.bound("vm0"); got != "fe80::1 fe80::3 fe80::4" {
		t.Errorf("bound: %s", got)
	}
	b.want(t, "the refused", from6("fe80::5"), ipv6)
	// A port that goes takes its questions along.
	b.pass(2 * time.Minute)
	b.want(t, "one more", detect(macA, "fe80::8"), none)
	b.Unguard(1)
	b.pass(5 * time.Second)
	if got := b.Total(); got[guard.Learned] != 7 || got[guard.Displaced] != 1 || got[guard.NoRoom] != 3 {
		t.Errorf("counts %v", got)
	}
}

// What stations ask for and do not get is counted by its reason.
func TestCounts(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnSLAAC | guard.LearnDHCP, Limit: 1}, "fd98::1/128")
	b.Guard(2, "vm1", with(guard.Config{Addresses: addresses("fd98::2")}, macV))
	b.trusted(t, routerAdvert("fd98::/64", 3600))
	b.want(t, "protected", detect(macA, "fd98::1"), nd)
	b.want(t, "another's", detect(macA, "fd98::2"), nd)
	b.want(t, "no prefix", detect(macA, "fd97::2"), nd)
	b.want(t, "detection", detect(macA, "fd98::3"), none)
	b.trusted(t, Eth(0x3333_0000_0001, macT, 0x86dd, ICMPv6("fd98::3", "ff02::1", 136, ND("fd98::3", LinkLayer(2, macT)...))))
	b.want(t, "detection", detect(macA, "fd98::4"), none)
	b.want(t, "no room", detect(macA, "fd98::5"), nd)
	b.trusted(t, ack(macA, 9, "10.99.0.10", 60))
	b.trusted(t, ack(macT, 9, "10.99.0.11", 60))
	if dry := b.a.Why(frameOf(detect(macA, "fd97::2")), none); dry != nd {
		t.Errorf("why: %v", dry)
	}
	want := guard.Counts{guard.Learned: 2, guard.Defended: 1, guard.Protected: 1, guard.Disputed: 1, guard.Outside: 1, guard.NoRoom: 1, guard.Unmatched: 1}
	if got := b.Counts(1); got != want || b.Total() != want {
		t.Errorf("counts %v, of all ports %v, want %v", got, b.Total(), want)
	}
}

// A DHCP server is reported when it is first heard.
func TestServers(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnDHCP})
	for range 3 {
		b.trusted(t, ack(macT, 9, "10.99.0.11", 60))
	}
	if said, _ := b.pass(time.Second); !slices.Equal(said, []string{"server  10.99.0.1 "}) {
		t.Errorf("said %q", said)
	}
}

// A port that learns nothing still learns link-local addresses, a few.
func TestLinkLocals(t *testing.T) {
	b := newBench(t, guard.Config{})
	for i := range 4 {
		b.want(t, "link-local", detect(macA, fmt.Sprintf("fe80::%x", 0x100+i)), none)
	}
	b.want(t, "one more", detect(macA, "fe80::1ff"), nd)
	b.pass(2 * time.Second)
	b.want(t, "the first", from6("fe80::100"), none)
	b.pass(2 * time.Minute)
	b.want(t, "the first", from6("fe80::100"), none)
	b.want(t, "one more later", detect(macA, "fe80::1ff"), none)
	b.pass(3 * time.Second) // nobody answers for the others
	b.want(t, "the first stays", from6("fe80::100"), none)
	b.want(t, "one that was silent goes", from6("fe80::101"), ipv6)
	for _, a := range []string{"fe80:0:0:1::100", "fe80:8000::100", "febf::100"} {
		b.want(t, "outside of fe80::/64: "+a, detect(macA, a), nd)
	}
	b.Guard(2, "vm1", with(guard.Config{}, macV))
	b.want(t, "that of another port's MAC", detect(macA, guard.LinkLocal(macV).String()), nd)
}

func TestFirstUse(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnARP}, "10.99.0.1/32")
	b.want(t, "the router's address", garp(macA, "10.99.0.1"), port.DropGuardARP)
	b.trusted(t, garp(macT, "10.99.0.11"))
	b.want(t, "a neighbour's address", probe(macA, "10.99.0.11"), port.DropGuardARP)
	b.want(t, "an announcement", garp(macA, "10.99.0.10"), port.DropGuardARP)
	_, asks := b.pass(time.Second)
	if len(asks) != 1 || asks[0].Port != 1 || !asks[0].Others {
		t.Errorf("asked %+v", asks)
	}
	b.pass(2 * time.Second)
	b.want(t, "again", garp(macA, "10.99.0.10"), none)
	b.want(t, "IPv4", from4(macA, "10.99.0.10"), none)
	b.want(t, "a second address", probe(macA, "10.99.0.12"), port.DropGuardARP)
	b.pass(48 * time.Hour)
	b.want(t, "for good", from4(macA, "10.99.0.10"), none)

	b = newBench(t, guard.Config{Learn: guard.LearnARP})
	b.want(t, "a probe", probe(macA, "10.99.0.10"), none)
	b.trusted(t, garp(macT, "10.99.0.10"))
	b.pass(2 * time.Second)
	b.want(t, "after an objection", from4(macA, "10.99.0.10"), ipv4)
}

func TestConfigured(t *testing.T) {
	var vlans port.VLANSet
	vlans.Add(10)
	vlans.Add(20)
	b := newBench(t, guard.Config{VLANs: vlans, Addresses: []guard.Address{
		{Prefix: netip.MustParsePrefix("10.99.0.10/32"), VLAN: 10},
		{Prefix: netip.MustParsePrefix("10.98.0.0/28")},
		{Prefix: netip.MustParsePrefix("10.97.0.10/32")},
	}})
	for _, c := range []struct {
		vlan uint16
		a    string
		why  port.Drop
	}{
		{10, "10.99.0.10", none}, {20, "10.99.0.10", ipv4},
		{10, "10.98.0.15", none}, {20, "10.98.0.1", none}, {20, "10.98.0.16", ipv4},
		{10, "10.97.0.10", none}, {20, "10.97.0.10", none},
	} {
		f := frameOf(from4(macA, c.a))
		f.VLAN = c.vlan
		if got := check(b.a, f); got != c.why {
			t.Errorf("%s in VLAN %d: %v", c.a, c.vlan, got)
		}
	}
	// Addresses for every VLAN alone.
	b = newBench(t, guard.Config{VLANs: vlans, Addresses: addresses("10.97.0.10")})
	for _, vlan := range []uint16{10, 20} {
		f := frameOf(from4(macA, "10.97.0.10"))
		f.VLAN = vlan
		if got := check(b.a, f); got != none {
			t.Errorf("the only address in VLAN %d: %v", vlan, got)
		}
	}
	// More addresses than are compared one by one.
	var many []string
	for i := range 200 {
		many = append(many, fmt.Sprintf("10.96.0.%d", i+1))
	}
	b = newBench(t, guard.Config{Addresses: addresses(many...)})
	for _, a := range many {
		b.want(t, a, from4(macA, a), none)
	}
	b.want(t, "one that is not there", from4(macA, "10.96.0.201"), ipv4)
}

func TestRefuse(t *testing.T) {
	b := newBench(t, guard.Config{Addresses: addresses("10.99.0.10")})
	var vlan2 port.VLANSet
	vlan2.Add(2)
	pair := guard.Config{MACs: []port.MAC{macV}, Pairs: []guard.Pair{{MAC: macA, Address: addresses("10.99.0.10")[0]}}}
	for name, c := range map[string]struct {
		guard.Config
		ok bool
	}{
		"another address":     {guard.Config{MACs: []port.MAC{macV}, Addresses: addresses("10.99.0.11")}, true},
		"the address":         {guard.Config{MACs: []port.MAC{macV}, Addresses: addresses("10.99.0.10")}, false},
		"a prefix with it":    {guard.Config{MACs: []port.MAC{macV}, Addresses: []guard.Address{{Prefix: netip.MustParsePrefix("10.99.0.0/24")}}}, false},
		"the MAC":             {guard.Config{MACs: []port.MAC{macA}}, false},
		"all in another VLAN": {guard.Config{MACs: []port.MAC{macA}, Addresses: addresses("10.99.0.10"), VLANs: vlan2}, true},
		"as a pair":           {pair, true},
	} {
		x := with(c.Config, macV)
		err := b.Refuse(2, &x)
		if (err == nil) != c.ok || err != nil && (!strings.Contains(err.Error(), "vm0") || strings.Contains(err.Error(), "/32")) {
			t.Errorf("%s: %v", name, err)
		}
	}
	own := with(guard.Config{Addresses: addresses("10.99.0.10")}, macA)
	if err := b.Refuse(1, &own); err != nil {
		t.Errorf("its own: %v", err)
	}
}

// What is configured goes before what another port has learned.
func TestStaticBeforeLearned(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnDHCP})
	b.want(t, "request", request(macA, 1, "10.99.0.10"), none)
	b.trusted(t, ack(macA, 1, "10.99.0.10", 60))
	v := b.Guard(2, "vm1", with(guard.Config{Addresses: addresses("10.99.0.10")}, macV))
	b.want(t, "the learned", from4(macA, "10.99.0.10"), ipv4)
	if got := check(v, frameOf(from4(macV, "10.99.0.10"))); got != none {
		t.Errorf("the configured: %v", got)
	}
	b.want(t, "request", request(macA, 2, "10.99.0.10"), none)
	b.trusted(t, ack(macA, 2, "10.99.0.10", 60))
	b.pass(5 * time.Second)
	b.want(t, "learned again", from4(macA, "10.99.0.10"), ipv4)
}

// Likewise if it is in a configured prefix. What a user adds is refused there.
func TestPrefixBeforeLearned(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnDHCP, Addresses: addresses("10.99.0.2")})
	for i, a := range []string{"10.99.0.10", "10.99.0.20"} {
		b.want(t, "request", request(macA, uint32(i), a), none)
		b.trusted(t, ack(macA, uint32(i), a, 60))
	}
	b.Guard(2, "vm1", with(guard.Config{Addresses: []guard.Address{{Prefix: netip.MustParsePrefix("10.99.0.0/28")}}}, macV))
	if got := b.bound("vm0"); got != "10.99.0.20" {
		t.Errorf("learned: %s", got)
	}
	b.want(t, "in the prefix", from4(macA, "10.99.0.10"), ipv4)
	b.want(t, "beside it", from4(macA, "10.99.0.20"), none)
	if err := b.Add(1, 1, macA, netip.MustParseAddr("10.99.0.11")); err == nil || !strings.Contains(err.Error(), "vm1") {
		t.Errorf("added in another port's prefix: %v", err)
	}
}

// That a port has no room is said once a minute.
func TestFull(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnSLAAC, Limit: 1})
	b.want(t, "the first", detect(macA, "fe80::1"), none)
	said := 0
	for range 50 {
		b.want(t, "one more", detect(macA, "fe80::2"), nd)
		events, _ := b.pass(time.Second)
		for _, ev := range events {
			if strings.Contains(ev, "as many addresses") {
				said++
			}
		}
		b.want(t, "the first is heard", from6("fe80::1"), none)
	}
	if said != 1 {
		t.Errorf("said %d times", said)
	}
	b.pass(20 * time.Second)
	b.want(t, "one more", detect(macA, "fe80::2"), nd)
	if said, _ := b.pass(time.Second); len(said) == 0 {
		t.Error("not said again")
	}
}

func TestReconfigured(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnDHCP})
	b.want(t, "request", request(macA, 1, "10.99.0.10"), none)
	b.trusted(t, ack(macA, 1, "10.99.0.10", 60))
	if !b.Changed() || b.Changed() {
		t.Error("a learned address is no change, or more than one")
	}
	b.a = b.Guard(1, "vm0", with(guard.Config{Learn: guard.LearnDHCP, Allow: guard.AllowRouter}, macA))
	b.want(t, "kept", from4(macA, "10.99.0.10"), none)
	b.a = b.Guard(1, "vm0", with(guard.Config{}, macA))
	b.want(t, "no longer learned", from4(macA, "10.99.0.10"), ipv4)
	b.Unguard(1)
	if all := b.Bindings(); len(all) != 0 {
		t.Errorf("left: %+v", all)
	}
}

func TestRestore(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnDHCP})
	restore := func(a string, source guard.Source, left time.Duration) {
		addr := netip.MustParseAddr(a)
		x := guard.Binding{VLAN: 1, MAC: macA, Prefix: netip.PrefixFrom(addr, addr.BitLen()), Source: source}
		if left != 0 {
			x.Expiry = b.now.Add(left)
		}
		b.Restore(1, x)
	}
	restore("10.99.0.10", guard.DHCP, time.Minute)
	restore("10.99.0.11", guard.DHCP, -time.Minute)
	restore("fd99::10", guard.SLAAC, 0)
	restore("10.99.0.12", guard.Static, 0)
	if got := b.bound("vm0"); got != "10.99.0.10 10.99.0.12" {
		t.Errorf("bound: %s", got)
	}
	if said, _ := b.pass(time.Second); len(said) != 0 {
		t.Errorf("said %v", said)
	}
}

func TestViolations(t *testing.T) {
	b := newBench(t, guard.Config{Addresses: addresses("10.99.0.10")})
	for range 1000 {
		b.want(t, "ARP", garp(macA, "10.99.0.1"), port.DropGuardARP)
	}
	b.want(t, "IPv4", from4(macA, "10.99.0.11"), ipv4)
	events, _ := b.Tick()
	if len(events) != 2 {
		t.Fatalf("%+v", events)
	}
	for _, ev := range events {
		switch {
		case ev.Reason == port.DropGuardARP && ev.Count == 1000 && ev.Claimed == macA && ev.Address.String() == "10.99.0.1":
		case ev.Reason == ipv4 && ev.Count == 1 && ev.Address.String() == "10.99.0.11":
		default:
			t.Errorf("%+v", ev)
		}
	}
	if events, _ := b.Tick(); len(events) != 0 {
		t.Errorf("again: %+v", events)
	}
}

// Why changes nothing.
func TestWhy(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnDHCP | guard.LearnSLAAC | guard.LearnARP})
	b.trusted(t, routerAdvert("fd98::/64", 3600))
	for what, wire := range map[string][]byte{
		"request": request(macA, 1, "10.99.0.10"), "detection": detect(macA, "fd98::10"), "probe": probe(macA, "10.99.0.10"),
	} {
		if got := b.a.Why(frameOf(wire), none); got != none {
			t.Errorf("%s: %v", what, got)
		}
	}
	b.trusted(t, ack(macA, 1, "10.99.0.10", 60))
	if got := b.bound("vm0"); got != "" {
		t.Errorf("bound: %s", got)
	}
}

func TestAskFrames(t *testing.T) {
	arp := guard.Ask{VLAN: 1, Address: netip.MustParseAddr("10.99.0.10")}.Frame(macT)
	if want := probe(macT, "10.99.0.10"); string(arp) != string(want) {
		t.Errorf("%x, want %x", arp, want)
	}
	// Of any address; the checksums' carries, too.
	for i := range 4096 {
		a := fmt.Sprintf("fd98::%x", i*16+1)
		nd := guard.Ask{VLAN: 1, Address: netip.MustParseAddr(a)}.Frame(macT)
		if want := detect(macT, a); string(nd) != string(want) {
			t.Fatalf("%x, want %x", nd, want)
		}
	}
}

func TestCheckAllocs(t *testing.T) {
	if testenv.RaceEnabled {
		t.Skip("the race detector allocates")
	}
	b := newBench(t, guard.Config{Addresses: addresses("10.99.0.10", "fd99::10")})
	frames := map[string][]byte{
		"TCP":       Eth(macV, macA, 0x0800, IPv4("10.99.0.10", "10.99.0.11", 6, make([]byte, 20))),
		"TCP, IPv6": Eth(macV, macA, 0x86dd, IPv6("fd99::10", "fd99::11", 6, make([]byte, 20))),
		"ARP":       garp(macA, "10.99.0.10"),
		"ND":        detect(macA, "fd99::10"),
		"spoofed":   from4(macA, "10.99.0.11"),
		"DHCP":      request(macA, 1, "10.99.0.10"),
	}
	for name, wire := range frames {
		f := frameOf(wire)
		check(b.a, f)
		if n := testing.AllocsPerRun(100, func() { check(b.a, f) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	table := guard.New(time.Now, nil)
	p := table.Guard(1, "vm0", with(guard.Config{Addresses: addresses("10.99.0.10", "fd99::10")}, macA))
	for name, wire := range map[string][]byte{
		"IPv4": Eth(macV, macA, 0x0800, IPv4("10.99.0.10", "10.99.0.11", 6, make([]byte, 20))),
		"IPv6": Eth(macV, macA, 0x86dd, IPv6("fd99::10", "fd99::11", 6, make([]byte, 20))),
	} {
		f := frameOf(wire)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if check(p, f) != none {
					b.Fatal("dropped")
				}
			}
		})
	}
}

// restored is a table after a start with 1,000 ports of 16 addresses each.
func restored(t testing.TB) *guard.Table {
	table := guard.New(time.Now, nil)
	for n := range uint16(1000) {
		mac := macA + port.MAC(n)<<8
		c := with(guard.Config{Learn: guard.LearnDHCP, Limit: 16}, mac)
		if err := table.Refuse(n, &c); err != nil {
			t.Fatal(err)
		}
		table.Guard(n, fmt.Sprint("vm", n), c)
		var all []guard.Binding
		for i := range byte(16) {
			a := netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), i + 1})
			all = append(all, guard.Binding{VLAN: 1, MAC: mac, Prefix: netip.PrefixFrom(a, 32), Source: guard.DHCP})
		}
		table.Restore(n, all...)
	}
	if n := len(table.Bindings()); n != 17000 {
		t.Fatalf("%d bindings", n)
	}
	return table
}

func BenchmarkRestore(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		restored(b)
	}
}

// heap returns how many bytes of the heap are in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // what the first one finds to be finalized
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Tables that hold what a large host has are small. No other test runs meanwhile.
func TestMemory(t *testing.T) {
	const most = 9 << 20
	before := heap()
	table := restored(t)
	n := heap() - before
	if n > most {
		t.Errorf("1,000 ports of 16 addresses need %d KiB, want at most %d", n>>10, most>>10)
	}
	runtime.KeepAlive(table)
}

// setClock returns the time that a clock shows after somebody set it: the time of day is
// another, the monotonic clock of time.Now went on.
func setClock(now time.Time, by time.Duration) time.Time {
	wall := (*uint64)(unsafe.Pointer(&now)) // the first field of time.Time: seconds from bit 30 on
	*wall += uint64(by/time.Second) << 30
	return now
}

// A binding neither ends early nor begins late because somebody sets the clock: a host without
// a battery starts years ago.
func TestClockIsSet(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnSLAAC})
	b.now = time.Now()
	b.Table = guard.New(func() time.Time { return b.now }, nil)
	b.a = b.Guard(1, "vm0", with(guard.Config{Learn: guard.LearnSLAAC}, macA))
	b.want(t, "detection", detect(macA, "fe80::1"), none)
	b.pass(2 * time.Second)
	b.want(t, "bound", from6("fe80::1"), none)

	started := b.now
	b.now = setClock(b.now, 30*24*time.Hour)
	if d := b.now.Sub(started); d != 0 {
		t.Fatalf("the monotonic clock went on by %v", d)
	}
	if d := b.now.Round(0).Sub(started.Round(0)); d != 30*24*time.Hour {
		t.Fatalf("the time of day went on by %v", d)
	}
	b.pass(time.Second)
	b.want(t, "a month later by the time of day", from6("fe80::1"), none)

	b.want(t, "detection", detect(macA, "fe80::2"), none)
	b.now = setClock(b.now, -30*24*time.Hour)
	b.pass(2 * time.Second)
	b.want(t, "a month earlier", from6("fe80::2"), none)
	for _, x := range b.Bindings() {
		if x.Learned && (!x.Bound || x.Heard.Sub(started) < 0 || x.Heard.After(b.now)) {
			t.Errorf("%+v", x)
		}
	}
}
