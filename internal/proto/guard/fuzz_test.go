package guard_test

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	. "github.com/vswitch/vswitch/internal/packet/packettest"
	"github.com/vswitch/vswitch/internal/proto/guard"
	"github.com/vswitch/vswitch/port"
)

// FuzzCheck: no frame passes that a receiver, here gopacket, takes for one of another
// station's, of a router's or of a DHCP server's.
func FuzzCheck(f *testing.F) {
	for _, wire := range [][]byte{
		from4(macA, "10.99.0.10"), from6("fd99::10"), garp(macA, "10.99.0.10"), probe(macA, "10.99.0.10"), detect(macA, "fd99::10"),
		request(macA, 1, "10.99.0.10"), Tag(garp(macA, "10.99.0.10"), 0x8100_0000), routerAdvert("fd98::/64", 60),
		Eth(Broadcast, macA, 0x0800, IPv4("10.99.0.10", "10.99.0.11", 17, UDP(67, 67, make([]byte, 240)))),
		Eth(macV, macA, 0x86dd, ICMPv6("fd99::10", "ff02::1", 136, ND("fd99::10", LinkLayer(2, macA)...))),
		Eth(macV, macA, 0x86dd, IPv6("fd99::10", "fd99::11", 0, Extension(60, Extension(17, UDP(546, 547, []byte{1, 0, 0, 0}))))),
		Eth(macV, macA, 0x86dd, IPv6("fd99::10", "fd99::11", 44, Fragment(17, 0, true, UDP(1, 2, make([]byte, 8))))),
		Eth(macV, macA, 0x0806, ARP(2, macA, "10.99.0.10", macV, "10.99.0.11")),
	} {
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		c := with(guard.Config{Addresses: addresses("10.99.0.10", "fd99::10")}, macA)
		table := guard.New(func() time.Time { return time.Unix(1_800_000_000, 0) }, nil)
		p := table.Guard(1, "vm0", c)
		frame := new(port.Frame)
		frame.SetWire(bytes.Clone(wire))
		frame.VLAN = 1
		if frame.Drop != port.DropNone {
			return
		}
		frame.Opaque = frame.Tag.Present() // as at a transparent port
		dry := p.Why(frame, port.DropNone)
		why := check(p, frame)
		if dry != why {
			t.Fatalf("%v, and without effect %v", why, dry)
		}
		_ = check(table.Watch(), frame)
		if why != port.DropNone {
			return
		}
		if how := Deceives(wire, macA, own...); how != "" {
			t.Fatal(how)
		}
	})
}

// own are A's addresses.
var own = []string{"10.99.0.10", "fd99::10", guard.LinkLocal(macA).String()}

// TestDrawn is FuzzCheck with frames that are drawn, most of them false in one respect.
func TestDrawn(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	d := Drawer{Rand: rand.New(rand.NewPCG(seed, 0)), Own: macA, Peer: macV, Addr4: []string{own[0], "10.99.0.11"}, Addr6: []string{own[1], own[2], "fd99::11", "fe80::1"}}
	now := time.Unix(1_800_000_000, 0)
	table := guard.New(func() time.Time { return now }, nil)
	p := table.Guard(1, "vm0", with(guard.Config{Addresses: addresses(own[:2]...)}, macA))
	passed, why := 0, make(map[port.Drop]int)
	for range 100_000 {
		now = now.Add(time.Second) // so that the rate of DHCP drops none
		wire := d.Draw()
		f := new(port.Frame)
		f.SetWire(bytes.Clone(wire))
		if f.Drop != port.DropNone {
			continue
		}
		f.VLAN, f.Opaque = 1, f.Tag.Present()
		is := check(p, f)
		if why[is]++; is != port.DropNone {
			continue
		}
		passed++
		if how := Deceives(wire, macA, own...); how != "" {
			t.Fatalf("seed %d: %x passes, %s", seed, wire, how)
		}
	}
	// The frames are neither all bad nor all alike.
	if passed < 1000 {
		t.Errorf("seed %d: %d frames passed", seed, passed)
	}
	for _, reason := range []port.Drop{
		port.DropGuardMAC, port.DropGuardType, port.DropGuardTag, port.DropGuardARP, port.DropGuardIPv4, port.DropGuardIPv6, port.DropGuardND,
		port.DropGuardDHCP, port.DropGuardServer, port.DropGuardRouter, port.DropGuardExtHeader, port.DropGuardMalformed,
	} {
		if why[reason] < 20 {
			t.Errorf("seed %d: %d frames were dropped as %v", seed, why[reason], reason)
		}
	}
}
