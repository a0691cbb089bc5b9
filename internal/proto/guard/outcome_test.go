package guard_test

import (
	"net/netip"
	"testing"
	"time"

	. "github.com/vswitch/vswitch/internal/packet/packettest"
	"github.com/vswitch/vswitch/internal/proto/guard"
	"github.com/vswitch/vswitch/port"
)

// fails passes a frame that a later rule drops.
func fails(t *testing.T, s stage, wire []byte, drop port.Drop) {
	t.Helper()
	f := frameOf(wire)
	why, heed := s.Check(f, port.DropNone)
	if why != none || !heed {
		t.Fatalf("%x: %v, heeded: %v", wire, why, heed)
	}
	s.Outcome(f, drop)
}

// An address is not bound because of a question that its neighbours did not hear: the switch asks
// in its place, unless the port may not send.
func TestUnheard(t *testing.T) {
	advert := Eth(0x3333_0000_0001, macT, 0x86dd, ICMPv6("fe80::77", "ff02::1", 136, ND("fe80::77", LinkLayer(2, macT)...)))
	for _, c := range []struct {
		name     string
		config   guard.Config
		question []byte
		own      []byte // from the address, afterwards
		why      port.Drop
		objects  []byte
	}{
		{"detection", guard.Config{Learn: guard.LearnSLAAC}, detect(macA, "fe80::77"), from6("fe80::77"), ipv6, advert},
		{"probe", guard.Config{Learn: guard.LearnARP}, probe(macA, "10.99.0.10"), from4(macA, "10.99.0.10"), ipv4, garp(macT, "10.99.0.10")},
	} {
		asked := func(b *bench) {
			t.Helper()
			b.now = b.now.Add(5 * time.Second)
			b.want(t, c.name+": before anybody is asked", c.own, c.why)
			_, asks := b.pass(time.Second)
			if len(asks) != 1 || asks[0].Port != 1 || !asks[0].Others {
				t.Errorf("%s: asked %+v", c.name, asks)
			}
			b.now = b.now.Add(900 * time.Millisecond)
			b.want(t, c.name+": just asked", c.own, c.why)
		}
		for _, drop := range []port.Drop{port.DropPoliced, port.DropStormMulticast, port.DropStormBroadcast, port.DropNoDestination, port.DropControlFull} {
			for _, objects := range []bool{true, false} {
				b := newBench(t, c.config)
				fails(t, b.a, c.question, drop)
				asked(b)
				why := none
				if objects {
					b.trusted(t, c.objects)
					why = c.why
				}
				b.pass(2 * time.Second)
				b.want(t, c.name+", "+drop.String(), c.own, why)
			}
		}
		for _, drop := range []port.Drop{port.DropBlocked, port.DropLocked, port.DropLearnLimit, port.DropMirrorTarget, port.DropBadOffload} {
			b := newBench(t, c.config)
			fails(t, b.a, c.question, drop)
			b.pass(5 * time.Second)
			b.want(t, c.name+", "+drop.String(), c.own, c.why)
			b.want(t, c.name+" again", c.question, none)
			b.pass(1100 * time.Millisecond)
			b.want(t, c.name+" that is heard", c.own, none)
		}

		// Of two questions, one was heard.
		b := newBench(t, c.config)
		b.want(t, c.name, c.question, none)
		if why, heed := b.a.Check(frameOf(c.question), none); why != none || heed {
			t.Errorf("%s again: %v, heeded: %v", c.name, why, heed)
		}
		b.pass(1100 * time.Millisecond)
		b.want(t, c.name, c.own, none)

		// Isolated neighbours hear none.
		isolated := c.config
		isolated.Isolated = true
		b = newBench(t, isolated)
		b.want(t, c.name, c.question, none)
		asked(b)
		b.pass(time.Second)
		b.want(t, c.name+", isolated", c.own, none)
	}
}

// No lease is learned, and none given up, by a message that did not arrive.
func TestUndelivered(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnDHCP | guard.LearnSLAAC})
	fails(t, b.a, request(macA, 1, "10.99.0.10"), port.DropStormBroadcast)
	b.trusted(t, ack(macA, 1, "10.99.0.10", 60))
	b.want(t, "the request did not arrive", from4(macA, "10.99.0.10"), ipv4)

	for _, drop := range []port.Drop{port.DropLocked, port.DropPoliced, port.DropMirrorTarget, port.DropIsolated} {
		b.want(t, "request", request(macA, 2, "10.99.0.10"), none)
		fails(t, b.Watch(), ack(macA, 2, "10.99.0.10", 60), drop)
		b.want(t, "the answer did not arrive: "+drop.String(), from4(macA, "10.99.0.10"), ipv4)
	}
	b.trusted(t, ack(macA, 2, "10.99.0.10", 60))
	release := Eth(macT, macA, 0x0800, IPv4("10.99.0.10", "10.99.0.1", 17, UDP(68, 67, dhcp4(1, 7, 3, macA, "10.99.0.10", "0.0.0.0"))))
	fails(t, b.a, release, port.DropPoliced)
	b.want(t, "the release did not arrive", from4(macA, "10.99.0.10"), none)
	b.want(t, "release", release, none)
	b.want(t, "released", from4(macA, "10.99.0.10"), ipv4)

	fails(t, b.Watch(), routerAdvert("fd98::/64", 3600), port.DropLocked)
	b.want(t, "a prefix that the switch refused", detect(macA, "fd98::10"), nd)
	b.trusted(t, routerAdvert("fd98::/64", 3600))

	// Who defends an address has it, though nobody else heard that. Who may not send has none.
	advert := Eth(0x3333_0000_0001, macT, 0x86dd, ICMPv6("fd98::10", "ff02::1", 136, ND("fd98::10", LinkLayer(2, macT)...)))
	b.want(t, "detection", detect(macA, "fd98::10"), none)
	fails(t, b.Watch(), advert, port.DropLocked)
	b.pass(2 * time.Second)
	b.want(t, "an objection that the switch refused", from6("fd98::10"), none)
	b.Delete(1, netip.MustParseAddr("fd98::10"))
	b.want(t, "detection", detect(macA, "fd98::10"), none)
	fails(t, b.Watch(), advert, port.DropStormMulticast)
	b.pass(2 * time.Second)
	b.want(t, "an objection beyond a limit", from6("fd98::10"), ipv6)

	// A server behind a guarded port.
	v := b.Guard(2, "vm1", with(guard.Config{Addresses: addresses("10.99.0.1"), Allow: guard.AllowDHCPServer | guard.AllowRouter}, macT))
	b.want(t, "request", request(macA, 4, "10.99.0.20"), none)
	fails(t, v, ack(macA, 4, "10.99.0.20", 60), port.DropPoliced)
	b.want(t, "the answer did not arrive", from4(macA, "10.99.0.20"), ipv4)
	if why := check(v, frameOf(ack(macA, 4, "10.99.0.20", 60))); why != none {
		t.Error(why)
	}
	b.want(t, "it did", from4(macA, "10.99.0.20"), none)
}

// Who defends an address may do so from another one (RFC 4861 section 4.4).
func TestObjectionFromAnotherAddress(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnSLAAC})
	b.want(t, "detection", detect(macA, "fe80::77"), none)
	b.trusted(t, Eth(0x3333_0000_0001, macT, 0x86dd, ICMPv6("fe80::1", "ff02::1", 136, ND("fe80::77", LinkLayer(2, macT)...))))
	b.pass(2 * time.Second)
	b.want(t, "the address of somebody else", from6("fe80::77"), ipv6)
	b.want(t, "detection again", detect(macA, "fe80::77"), nd)
}

// A VM whose IP addresses are free objects as anybody does. What it says gives nothing away.
func TestObjectionOfMACOnly(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnSLAAC | guard.LearnARP})
	v := b.Guard(2, "vm1", with(guard.Config{MACOnly: true}, macV))
	says := func(wire []byte) {
		t.Helper()
		if why := check(v, frameOf(wire)); why != none {
			t.Error(why)
		}
	}
	advert := Eth(0x3333_0000_0001, macV, 0x86dd, ICMPv6("fe80::77", "ff02::1", 136, ND("fe80::77", LinkLayer(2, macV)...)))
	for _, objection := range [][]byte{advert, detect(macV, "fe80::77")} {
		b.want(t, "detection", detect(macA, "fe80::77"), none)
		says(objection)
		b.pass(2 * time.Second)
		b.want(t, "an address of which it says that it has it", from6("fe80::77"), ipv6)
	}
	for _, objection := range [][]byte{garp(macV, "10.99.0.10"), probe(macV, "10.99.0.10")} {
		b.want(t, "probe", probe(macA, "10.99.0.10"), none)
		says(objection)
		b.pass(2 * time.Second)
		b.want(t, "an address of which it says that it has it", from4(macA, "10.99.0.10"), ipv4)
	}
	b.want(t, "detection", detect(macA, "fe80::77"), none)
	b.pass(2 * time.Second)
	says(advert)
	b.want(t, "an address that is bound", from6("fe80::77"), none)
}

// No host forms an address that all routers have, or many.
func TestReservedIdentifiers(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnSLAAC})
	b.trusted(t, routerAdvert("fd98::/64", 3600))
	for a, why := range map[string]port.Drop{
		"fd98::": nd, "fd98::200:5eff:fe00:0": nd, "fd98::200:5eff:fe00:ffff": nd, "fd98::fdff:ffff:ffff:ff80": nd, "fd98::fdff:ffff:ffff:ffff": nd,
		"fd98::1": none, "fd98::200:5eff:fe01:0": none, "fd98::200:5eff:feff:ffff": none, "fd98::fdff:ffff:ffff:ff7f": none, "fd98::fe00:0:0:0": none,
	} {
		b.want(t, a, detect(macA, a), why)
	}
}
