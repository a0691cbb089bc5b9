package guard_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/vswitch/vswitch/internal/packet/packettest"
	"github.com/vswitch/vswitch/internal/proto/guard"
	"github.com/vswitch/vswitch/port"
)

// nak is a server's refusal.
func nak(mac port.MAC, xid uint32) []byte {
	return Eth(Broadcast, macT, 0x0800, IPv4("10.99.0.1", "255.255.255.255", 17, UDP(67, 68, dhcp4(2, 6, xid, mac, "0.0.0.0", "0.0.0.0"))))
}

// toServer is a client's message from an address that it has.
func toServer(kind byte, xid uint32, client string, options ...byte) []byte {
	return Eth(macT, macA, 0x0800, IPv4(client, "10.99.0.1", 17, UDP(68, 67, dhcp4(1, kind, xid, macA, client, "0.0.0.0", options...))))
}

// A lease ends as its client and its server agree (RFC 2131 sections 3 and 4.4).
func TestEndsOfLeases(t *testing.T) {
	const a = "10.99.0.10"
	for _, c := range []struct {
		what string
		do   func(b *bench)
		ends bool
	}{
		{"a renewal that is refused", func(b *bench) {
			b.want(t, "renewal", toServer(3, 2, a), none)
			b.trusted(t, nak(macA, 2))
		}, true},
		{"a reboot that is refused", func(b *bench) {
			b.want(t, "request", request(macA, 2, a), none)
			b.trusted(t, nak(macA, 2))
		}, true},
		{"a refusal of another address", func(b *bench) {
			b.want(t, "request", request(macA, 2, "10.99.0.11"), none)
			b.trusted(t, nak(macA, 2))
		}, false},
		{"a refusal that nobody asked for", func(b *bench) { b.trusted(t, nak(macA, 2)) }, false},
		{"a refusal for another station", func(b *bench) {
			b.want(t, "renewal", toServer(3, 2, a), none)
			b.trusted(t, nak(macV, 2))
		}, false},
		{"two refusals of one request", func(b *bench) {
			b.want(t, "request", request(macA, 2, "10.99.0.11"), none)
			b.trusted(t, nak(macA, 2))
			b.trusted(t, nak(macA, 2))
		}, false},
		{"a lease of a request that was refused", func(b *bench) {
			b.want(t, "renewal", toServer(3, 2, a), none)
			b.trusted(t, nak(macA, 2))
			b.trusted(t, ack(macA, 2, a, 60))
		}, true},
		{"an answer to INFORM", func(b *bench) {
			b.want(t, "inform", toServer(8, 2, a), none)
			b.trusted(t, ack(macA, 2, "0.0.0.0", 0))
		}, false},
		{"an answer without a lease", func(b *bench) {
			b.want(t, "renewal", toServer(3, 2, a), none)
			b.trusted(t, ack(macA, 2, a, 0))
		}, false},
		{"a release", func(b *bench) { b.want(t, "release", toServer(7, 2, a), none) }, true},
		{"a decline", func(b *bench) {
			b.want(t, "decline", toServer(4, 2, a, append([]byte{50, 4}, Addr(a)...)...), none)
		}, true},
		{"a decline of nothing", func(b *bench) { b.want(t, "decline", toServer(4, 2, a), port.DropGuardDHCP) }, false},
		{"a decline of another's", func(b *bench) {
			b.want(t, "decline", toServer(4, 2, a, append([]byte{50, 4}, Addr("10.99.0.11")...)...), port.DropGuardDHCP)
		}, false},
		{"an offer", func(b *bench) { b.want(t, "offer", toServer(2, 2, a), port.DropGuardDHCP) }, false},
	} {
		b := newBench(t, guard.Config{Learn: guard.LearnDHCP})
		b.want(t, "request", request(macA, 1, a), none)
		b.trusted(t, ack(macA, 1, a, 3600))
		c.do(b)
		if got := b.bound("vm0"); (got == "") != c.ends {
			t.Errorf("%s: bound %q", c.what, got)
		}
		if got := b.Counts(1)[guard.Ended]; (got == 1) != c.ends {
			t.Errorf("%s: %d ended", c.what, got)
		}
	}
}

// What a server says counts only in an answer to a client that asked for a lease.
func TestAnswers(t *testing.T) {
	edit := func(wire []byte, at int, value byte) []byte {
		wire[14+20+8+at] = value
		return wire
	}
	const op, hlen, kind = 0, 2, 242
	rapid := []byte{80, 0}
	discover := func(options ...byte) []byte {
		return Eth(Broadcast, macA, 0x0800, IPv4("0.0.0.0", "255.255.255.255", 17, UDP(68, 67, dhcp4(1, 1, 1, macA, "0.0.0.0", "0.0.0.0", options...))))
	}
	answer := func() []byte { return ack(macA, 1, "10.99.0.10", 60) }
	for _, c := range []struct {
		what          string
		asks, answers []byte
		bound         string
	}{
		{"an answer", request(macA, 1, "10.99.0.10"), answer(), "10.99.0.10"},
		{"another address than the client asked for", request(macA, 1, "10.99.0.11"), answer(), "10.99.0.10"},
		{"a rapid commit", discover(rapid...), answer(), "10.99.0.10"},
		{"a discovery", discover(), answer(), ""},
		{"a client's message", request(macA, 1, "10.99.0.10"), edit(answer(), op, 1), ""},
		{"an offer", request(macA, 1, "10.99.0.10"), edit(answer(), kind, 2), ""},
		{"another kind of hardware", request(macA, 1, "10.99.0.10"), edit(answer(), hlen, 8), ""},
	} {
		for _, learns := range []bool{true, false} {
			b := newBench(t, guard.Config{})
			want := ""
			if learns {
				b.a = b.Guard(1, "vm0", with(guard.Config{Learn: guard.LearnDHCP}, macA))
				want = c.bound
			}
			b.want(t, c.what, c.asks, none)
			b.trusted(t, c.answers)
			if got := b.bound("vm0"); got != want {
				t.Errorf("%s, learned %v: bound %q", c.what, learns, got)
			}
		}
	}

	// The server is that of its option, else the sender.
	for _, option := range []string{"", "192.0.2.7"} {
		b := newBench(t, guard.Config{Learn: guard.LearnDHCP})
		options := []byte{51, 4, 0, 0, 0, 60}
		want := "10.99.0.1"
		if option != "" {
			options, want = append(append(options, 54, 4), Addr(option)...), option
		}
		b.want(t, "request", request(macA, 1, "10.99.0.10"), none)
		b.trusted(t, Eth(Broadcast, macT, 0x0800, IPv4("10.99.0.1", "255.255.255.255", 17, UDP(67, 68, dhcp4(2, 5, 1, macA, "0.0.0.0", "10.99.0.10", options...)))))
		all := b.Learned(1)
		if len(all) != 1 || all[0].Server.String() != want || !all[0].Expiry.Equal(b.now.Add(time.Minute)) || all[0].Source != guard.DHCP {
			t.Errorf("bound %+v, want one of %s", all, want)
		}
	}
}

// dhcp6NA is a DHCPv6 message with a client and one address.
func dhcp6NA(kind, xid byte, a string, valid uint32, options ...byte) []byte {
	b := []byte{kind, 0, 0, xid, 0, 1, 0, 10, 0, 3, 0, 1, 0x52, 0x54, 0, 0x99, 0, 0xa}
	b = append(b, 0, 3, 0, 12+4+24, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 24)
	b = append(b, Addr(a)...)
	b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, valid), valid)
	return append(b, options...)
}

// Leases of DHCPv6 (RFC 9915).
func TestLease6(t *testing.T) {
	const own = "fe80::5054:ff:fe99:a"
	client := func(m []byte) []byte {
		return Eth(0x3333_0001_0002, macA, 0x86dd, IPv6(own, "ff02::1:2", 17, UDP(546, 547, m)))
	}
	server := func(m []byte) []byte { return Eth(macA, macT, 0x86dd, IPv6("fe80::1", own, 17, UDP(547, 546, m))) }
	rapid := []byte{0, 14, 0, 0}
	const solicit, ask, confirm, renew, rebind, reply, release, decline, information = 1, 3, 4, 5, 6, 7, 8, 9, 11
	for _, c := range []struct {
		what    string
		kind    byte
		options []byte
		bound   bool
	}{
		{"request", ask, nil, true}, {"renew", renew, nil, true}, {"rebind", rebind, nil, true},
		{"solicit", solicit, nil, false}, {"solicit with rapid commit", solicit, rapid, true},
		{"confirm", confirm, nil, false}, {"information request", information, nil, false},
	} {
		for learn, learns := range map[guard.Learn]bool{guard.LearnDHCP: true, guard.LearnPD: false, guard.LearnSLAAC: false, guard.LearnPD | guard.LearnDHCP: true} {
			b := newBench(t, guard.Config{Learn: learn})
			b.want(t, c.what, client(dhcp6NA(c.kind, 1, "fd98::10", 0, c.options...)), none)
			b.trusted(t, server(dhcp6NA(reply, 2, "fd98::10", 60)))
			if got := b.bound("vm0"); got != "" {
				t.Errorf("%s: bound by the answer to another: %s", c.what, got)
			}
			b.trusted(t, server(dhcp6NA(2, 1, "fd98::10", 60)))
			if got := b.bound("vm0"); got != "" {
				t.Errorf("%s: bound by an advertisement: %s", c.what, got)
			}
			b.trusted(t, server(dhcp6NA(reply, 1, "fd98::10", 60)))
			all := b.Learned(1)
			if bound := c.bound && learns; (len(all) == 1) != bound {
				t.Errorf("%s, learns %d: %+v", c.what, learn, all)
			} else if bound && (all[0].Source != guard.DHCP || all[0].Server.String() != "fe80::1" || !all[0].Expiry.Equal(b.now.Add(time.Minute))) {
				t.Errorf("%s: %+v", c.what, all)
			}
		}
	}
	for what, ends := range map[string]func(b *bench){
		"released": func(b *bench) { b.want(t, "release", client(dhcp6NA(release, 2, "fd98::10", 0)), none) },
		"declined": func(b *bench) { b.want(t, "decline", client(dhcp6NA(decline, 2, "fd98::10", 0)), none) },
		"ended by the server": func(b *bench) {
			b.want(t, "renew", client(dhcp6NA(renew, 2, "fd98::10", 60)), none)
			b.trusted(t, server(dhcp6NA(reply, 2, "fd98::10", 0)))
		},
		"expired": func(b *bench) { b.pass(time.Minute) },
	} {
		b := newBench(t, guard.Config{Learn: guard.LearnDHCP})
		b.want(t, "request", client(dhcp6NA(ask, 1, "fd98::10", 0)), none)
		b.trusted(t, server(dhcp6NA(reply, 1, "fd98::10", 60)))
		b.want(t, what, from6("fd98::10"), none)
		b.pass(59 * time.Second)
		ends(b)
		b.want(t, what, from6("fd98::10"), ipv6)
	}

	// A server may give an address that the station is forming: it has it at once.
	b := newBench(t, guard.Config{Learn: guard.LearnDHCP | guard.LearnSLAAC})
	b.want(t, "detection", detect(macA, "fe80::10"), none)
	b.want(t, "request", client(dhcp6NA(ask, 1, "fe80::10", 0)), none)
	b.want(t, "before the answer", from6("fe80::10"), ipv6)
	b.trusted(t, server(dhcp6NA(reply, 1, "fe80::10", 60)))
	b.want(t, "after it", from6("fe80::10"), none)
	if said, _ := b.pass(time.Second); !slices.ContainsFunc(said, func(s string) bool { return strings.HasPrefix(s, "changed vm0 fe80::10") }) {
		t.Errorf("said %q", said)
	}
}

// A port learns a number of addresses from each source, of which none is in the way of others'.
func TestLimits(t *testing.T) {
	const second = macA + 1
	prefix := func(format string, i int) netip.Prefix { return netip.MustParsePrefix(fmt.Sprintf(format, i)) }
	all := guard.LearnDHCP | guard.LearnSLAAC | guard.LearnARP | guard.LearnPD
	for _, c := range []struct {
		what   string
		learn  guard.Learn
		limit  int
		source guard.Source
		format string
		macs   []port.MAC
		want   int
	}{
		{"IPv4 leases", all, 0, guard.DHCP, "10.99.1.%d/32", []port.MAC{macA}, 4},
		{"IPv4 leases of two stations", all, 0, guard.DHCP, "10.99.1.%d/32", []port.MAC{macA, second}, 4},
		{"IPv6 leases", all, 0, guard.DHCP, "fd98::%d/128", []port.MAC{macA}, 16},
		{"prefixes", all, 0, guard.PD, "fd97:%d::/64", []port.MAC{macA}, 4},
		{"first uses", all, 0, guard.ARP, "10.99.2.%d/32", []port.MAC{macA}, 1},
		{"formed addresses", all, 0, guard.SLAAC, "fe80::%d/128", []port.MAC{macA}, 32},
		{"formed addresses of two stations", all, 0, guard.SLAAC, "fe80::%d/128", []port.MAC{macA, second}, 64},
		{"link-local ones alone", guard.LearnDHCP, 0, guard.SLAAC, "fe80::%d/128", []port.MAC{macA, second}, 4},
		{"IPv4 leases, with a limit", all, 7, guard.DHCP, "10.99.1.%d/32", []port.MAC{macA}, 7},
		{"formed addresses, with a limit", all, 40, guard.SLAAC, "fe80::%d/128", []port.MAC{macA, second}, 40},
	} {
		b := newBench(t, guard.Config{Learn: c.learn, Limit: c.limit, MACs: []port.MAC{macA, second}})
		if c.limit == 0 && c.learn == all { // as many from all other sources as there may be
			for i := range 100 {
				for source, format := range map[guard.Source]string{guard.DHCP: "10.98.1.%d/32", guard.ARP: "10.98.2.%d/32", guard.PD: "fd96:%d::/64", guard.SLAAC: "fe80::ffff:%d/128"} {
					if source != c.source {
						b.Restore(1, guard.Binding{VLAN: 1, MAC: macA, Prefix: prefix(format, i), Source: source})
					}
				}
			}
		}
		before := len(b.Learned(1))
		for i := range 100 {
			b.Restore(1, guard.Binding{VLAN: 1, MAC: c.macs[i%len(c.macs)], Prefix: prefix(c.format, i), Source: c.source})
		}
		if n := len(b.Learned(1)) - before; n != c.want {
			t.Errorf("%s: %d", c.what, n)
		}
	}
}

// A new lease takes the place of the one that was silent for longest, and of none that was heard
// within a minute.
func TestDisplaced(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnDHCP | guard.LearnARP})
	lease := func(i int) {
		a := fmt.Sprintf("10.99.0.%d", i)
		b.want(t, "request", request(macA, uint32(i), a), none)
		b.trusted(t, ack(macA, uint32(i), a, 3600))
	}
	for i := 1; i <= 5; i++ {
		lease(i)
	}
	if got := b.bound("vm0"); got != "10.99.0.1 10.99.0.2 10.99.0.3 10.99.0.4" {
		t.Errorf("bound: %s", got)
	}
	b.pass(40 * time.Second)
	b.want(t, "the first is heard", from4(macA, "10.99.0.1"), none)
	b.pass(19 * time.Second)
	lease(5)
	if got := b.bound("vm0"); strings.Contains(got, "10.99.0.5") {
		t.Errorf("bound before a minute was over: %s", got)
	}
	b.want(t, "the third is heard", from4(macA, "10.99.0.3"), none)
	b.pass(time.Second)
	lease(5)
	if got := b.bound("vm0"); got != "10.99.0.1 10.99.0.3 10.99.0.4 10.99.0.5" {
		t.Errorf("bound: %s", got)
	}
	b.pass(2 * time.Minute)
	b.want(t, "the fifth is heard", from4(macA, "10.99.0.5"), none)
	for i, want := range []string{
		"10.99.0.1 10.99.0.3 10.99.0.5 10.99.0.6", // the fourth was never heard
		"10.99.0.3 10.99.0.5 10.99.0.6 10.99.0.7",
	} {
		lease(6 + i)
		if got := b.bound("vm0"); got != want {
			t.Errorf("bound: %s, want %s", got, want)
		}
	}
	if got := b.Counts(1); got[guard.Displaced] != 3 || got[guard.NoRoom] != 2 {
		t.Errorf("counts %v", got)
	}
}

// An address that a station has just formed is not silent, however old the switch is.
func TestNewIsHeard(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnSLAAC, Limit: 1})
	b.now = b.now.Add(48 * time.Hour)
	b.Tick()
	b.want(t, "detection", detect(macA, "fe80::1"), none)
	b.pass(24 * time.Hour)
	b.want(t, "after a day", from6("fe80::1"), none)
	b.now = b.now.Add(24*time.Hour + 2*time.Second)
	b.Tick()
	b.want(t, "after a silent day", from6("fe80::1"), ipv6)

	b.want(t, "detection", detect(macA, "fe80::1"), none)
	b.pass(time.Second)
	b.want(t, "no room for another", detect(macA, "fe80::2"), nd)
}

// A trusted port's address is remembered for five to ten minutes after it was used, the last 8192
// at least and the last 16384 at most.
func TestHeard(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnSLAAC, Prefixes: []netip.Prefix{netip.MustParsePrefix("fd98::/16")}})
	uses := func(a string) {
		b.trusted(t, Eth(0x3333_0000_0001, macT, 0x86dd, ICMPv6(a, "ff02::1", 136, ND(a, LinkLayer(2, macT)...))))
	}
	const a = "fd98::1"
	uses(a)
	b.now = b.now.Add(5 * time.Minute)
	uses("fd98::2")
	b.want(t, "after five minutes", detect(macA, a), nd)
	b.now = b.now.Add(5*time.Minute - 1)
	uses("fd98::2")
	b.want(t, "before ten", detect(macA, a), nd)
	b.now = b.now.Add(1)
	uses("fd98::2")
	b.want(t, "after ten", detect(macA, a), none)

	b.Delete(1, netip.Addr{})
	uses(a)
	b.now = b.now.Add(10 * time.Minute)
	uses("fd98::2")
	b.want(t, "after ten in which nobody used any", detect(macA, a), none)

	b = newBench(t, guard.Config{Learn: guard.LearnARP})
	many := func(n int, net byte) {
		for i := range n {
			b.trusted(t, garp(macT, fmt.Sprintf("10.%d.%d.%d", net, i>>8, i&255)))
		}
	}
	many(2*8192, 1)
	b.want(t, "of 16384", probe(macA, "10.1.0.0"), port.DropGuardARP)
	many(1, 2)
	b.want(t, "of more", probe(macA, "10.1.0.0"), none)

	// What a trusted port only asks for, nobody has.
	b = newBench(t, guard.Config{Learn: guard.LearnARP | guard.LearnSLAAC})
	b.trusted(t, detect(macT, "fe80::3"))
	b.want(t, "asked for", detect(macA, "fe80::3"), none)
	b.trusted(t, probe(macT, "10.99.0.10"))
	b.want(t, "probed", probe(macA, "10.99.0.10"), none)
}

// copied is what a mirror has of a table.
type copied struct {
	of    map[uint16]*guard.Snapshot
	times int
	heard map[netip.Addr]time.Duration // how long ago
}

func (c *copied) Publish(number uint16, s *guard.Snapshot) { c.of[number], c.times = s, c.times+1 }

func (c *copied) Heard(number uint16, b *guard.Binding) (time.Duration, bool) {
	ago, ok := c.heard[b.Prefix.Addr()]
	return ago, ok
}

func newMirrored(t *testing.T, c guard.Config) (*bench, *copied) {
	b := &bench{now: time.Unix(1_800_000_000, 0)}
	b.Table = guard.New(func() time.Time { return b.now }, nil)
	m := &copied{of: make(map[uint16]*guard.Snapshot), heard: make(map[netip.Addr]time.Duration)}
	b.SetMirror(m)
	b.a = b.Guard(1, "vm0", with(c, macA))
	return b, m
}

// The mirror knows of each port what it may send, and whether it may send more.
func TestMirror(t *testing.T) {
	vrrp := []guard.Pair{{MAC: 0x5e00_0101, Address: addresses("10.99.0.1")[0], VRRP: true}}
	pair := []guard.Pair{{MAC: macV, Address: addresses("10.99.0.1")[0]}}
	for what, c := range map[string]struct {
		guard.Config
		want guard.Snapshot
	}{
		"none":               {guard.Config{}, guard.Snapshot{}},
		"leases":             {guard.Config{Learn: guard.LearnDHCP | guard.LearnSLAAC}, guard.Snapshot{}},
		"MAC only":           {guard.Config{MACOnly: true}, guard.Snapshot{MACOnly: true}},
		"another EtherType":  {guard.Config{EtherTypes: []uint16{0x88cc}}, guard.Snapshot{MoreTypes: true}},
		"a first use":        {guard.Config{Learn: guard.LearnARP | guard.LearnDHCP}, guard.Snapshot{Exceptions: true}},
		"a virtual router's": {guard.Config{Pairs: vrrp}, guard.Snapshot{Exceptions: true}},
		"a pair":             {guard.Config{Pairs: pair}, guard.Snapshot{}},
	} {
		b, m := newMirrored(t, c.Config)
		got := m.of[1]
		if got == nil || got.MACOnly != c.want.MACOnly || got.MoreTypes != c.want.MoreTypes || got.Exceptions != c.want.Exceptions || got.MACs[0] != macA || !got.VLANs.Has(1) {
			t.Errorf("%s: %+v", what, got)
		}
		for _, x := range b.Bindings() {
			if !slices.Contains(got.Bindings, x) {
				t.Errorf("%s: %+v is not among %+v", what, x, got.Bindings)
			}
		}
		b.Unguard(1)
		if got := m.of[1]; got != nil {
			t.Errorf("%s: a trusted port: %+v", what, got)
		}
	}
}

// The mirror hears of an address when it is formed, when it is bound and when it ends, and of
// its lifetime only where that matters: routers advertise often.
func TestMirrorOfLifetimes(t *testing.T) {
	b, m := newMirrored(t, guard.Config{Learn: guard.LearnSLAAC})
	published := func() (until time.Time) {
		for _, x := range m.of[1].Bindings {
			if x.Source == guard.SLAAC {
				until = x.Expiry
			}
		}
		return until
	}
	advertise := func(what string, valid uint32, published int) {
		t.Helper()
		was := m.times
		b.trusted(t, routerAdvert("fd98::/64", valid))
		b.pass(time.Second)
		if n := m.times - was; n != published {
			t.Errorf("%s: published %d times", what, n)
		}
	}
	b.trusted(t, routerAdvert("fd98::/64", 8000))
	b.want(t, "detection", detect(macA, "fd98::10"), none)
	start := b.now
	b.pass(2 * time.Second)
	b.now = start.Add(100 * time.Second)
	advertise("a little longer", 8000, 0)
	b.now = start.Add(500 * time.Second)
	advertise("still a little", 8000, 0)
	b.now = start.Add(1500 * time.Second)
	b.Changed()
	advertise("much longer", 8000, 1)
	if !b.Changed() {
		t.Error("a longer lifetime is no change")
	}
	if got := published(); !got.Equal(start.Add(9500 * time.Second)) {
		t.Errorf("published until %v", got.Sub(start))
	}
	advertise("shorter", 7500, 1)
	advertise("for good", 0xffff_ffff, 1)
	if got := published(); !got.IsZero() {
		t.Errorf("published until %v", got)
	}
	advertise("for good, again", 0xffff_ffff, 0)
	advertise("no longer for good", 7300, 1)
	b.Changed()
	b.now = b.now.Add(8 * time.Second)
	advertise("the same end", 7291, 0)
	if b.Changed() {
		t.Error("changed without a change")
	}
}

// Stations that only the mirror hears are heard.
func TestHeardByMirror(t *testing.T) {
	b, m := newMirrored(t, guard.Config{Learn: guard.LearnDHCP | guard.LearnSLAAC})
	a := netip.MustParseAddr("fe80::1")
	b.want(t, "detection", detect(macA, a.String()), none)
	b.pass(2 * time.Second)
	b.now = b.now.Add(30 * time.Hour)
	m.heard[a] = time.Hour
	b.Tick()
	if all := b.Learned(1); len(all) != 1 || b.now.Sub(all[0].Heard) != time.Hour {
		t.Errorf("heard an hour ago: %+v", all)
	}
	m.heard[a] = time.Minute
	b.Listen(1)
	b.Listen(2)
	if all := b.Learned(1); len(all) != 1 || b.now.Sub(all[0].Heard) != time.Minute {
		t.Errorf("heard a minute ago: %+v", all)
	}
	m.heard[a] = 10 * time.Minute
	b.Listen(1)
	if all := b.Learned(1); len(all) != 1 || b.now.Sub(all[0].Heard) != time.Minute {
		t.Errorf("heard before that: %+v", all)
	}
	b.now = b.now.Add(30 * time.Hour)
	m.heard[a] = 25 * time.Hour
	b.Tick()
	if all := b.Learned(1); len(all) != 0 {
		t.Errorf("silent for a day: %+v", all)
	}
}

// What is seen of bindings.
func TestBindings(t *testing.T) {
	vlans := port.VLANSet{}
	vlans.Add(1)
	vlans.Add(2)
	wide := guard.Address{Prefix: netip.MustParsePrefix("10.97.0.0/24"), VLAN: 2}
	b := newBench(t, guard.Config{VLANs: vlans, Learn: guard.LearnSLAAC, Addresses: append(addresses("10.99.0.11", "10.99.0.10"), wide)})
	b.Guard(0, "first", with(guard.Config{}, macV))
	b.want(t, "detection", detect(macA, "fe80::1"), none)
	var got []string
	for _, x := range b.Bindings() {
		got = append(got, fmt.Sprint(x.Port, " ", x.VLAN, " ", x.Prefix, " ", x.Source, " ", x.Bound, " ", x.Learned))
		if x.Learned && (!x.From.Equal(b.now.Add(time.Second)) || !x.Heard.Equal(b.now)) || !x.Learned && !x.From.IsZero() {
			t.Errorf("%+v", x)
		}
	}
	want := []string{
		"first 1 fe80::5054:ff:fe99:b/128 local true false",
		"vm0 0 10.99.0.10/32 static true false",
		"vm0 0 10.99.0.11/32 static true false",
		"vm0 0 fe80::5054:ff:fe99:a/128 local true false",
		"vm0 1 fe80::1/128 slaac false true",
		"vm0 2 10.97.0.0/24 static true false",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	b.pass(time.Second)
	if all := b.Learned(1); len(all) != 1 || !all[0].Bound || !all[0].From.IsZero() {
		t.Errorf("bound: %+v", all)
	}
	if all := b.Learned(9); all != nil {
		t.Errorf("of no port: %+v", all)
	}

	// A port learns from trusted ones unless its addresses are free.
	if !b.Learns() {
		t.Error("learns nothing")
	}
	for number := range uint16(2) {
		b.Guard(number, "free", with(guard.Config{MACOnly: true}, macA+port.MAC(number)))
	}
	if b.Learns() {
		t.Error("learns")
	}

	// To forget what was learned is a change; to forget a port that learned nothing is none.
	b.Changed()
	b.Unguard(0)
	if b.Changed() {
		t.Error("changed")
	}
	b.Guard(1, "vm0", with(guard.Config{Learn: guard.LearnSLAAC}, macA))
	b.Restore(1, guard.Binding{VLAN: 1, MAC: macA, Prefix: netip.MustParsePrefix("fe80::1/128"), Source: guard.SLAAC})
	b.Changed()
	b.Unguard(1)
	if !b.Changed() {
		t.Error("not changed")
	}
}

// Of two stations at a port, the one that has an address is asked before the other gets it.
func TestDisputeAtOnePort(t *testing.T) {
	const second = macA + 1
	b := newBench(t, guard.Config{Learn: guard.LearnDHCP, MACs: []port.MAC{macA, second}})
	lease := func(mac port.MAC, xid uint32) {
		b.want(t, "request", request(mac, xid, "10.99.0.10"), none)
		b.trusted(t, ack(mac, xid, "10.99.0.10", 3600))
	}
	lease(macA, 1)
	lease(second, 2)
	b.want(t, "the one that has it", from4(macA, "10.99.0.10"), none)
	b.want(t, "the other", from4(second, "10.99.0.10"), ipv4)
	if _, asks := b.pass(time.Second); len(asks) != 1 || asks[0].Port != 1 || asks[0].Others {
		t.Errorf("asked %+v", asks)
	}
	b.pass(2 * time.Second)
	b.want(t, "the one that was silent", from4(macA, "10.99.0.10"), ipv4)
	b.want(t, "the other", from4(second, "10.99.0.10"), none)
}

// A delegated prefix is the port's after a change of its settings, too.
func TestDelegatedAfterChange(t *testing.T) {
	c := with(guard.Config{Learn: guard.LearnPD}, macA)
	b := newBench(t, c)
	v := b.Guard(2, "vm1", with(guard.Config{Prefixes: []netip.Prefix{netip.MustParsePrefix("fd97::/48")}, Learn: guard.LearnSLAAC}, macV))
	b.Restore(1, guard.Binding{VLAN: 1, MAC: macA, Prefix: netip.MustParsePrefix("fd97::/56"), Source: guard.PD})
	c.Allow = guard.AllowRouter
	b.a = b.Guard(1, "vm0", c)
	if why := check(v, frameOf(detect(macV, "fd97::99"))); why != nd {
		t.Errorf("another's detection in the prefix: %v", why)
	}
	c.Learn = 0
	b.a = b.Guard(1, "vm0", c)
	if why := check(v, frameOf(detect(macV, "fd97::99"))); why != none {
		t.Errorf("another's detection in a prefix that nobody has: %v", why)
	}
}

// As many DHCP servers are told apart, and each is forgotten after a day of silence.
func TestMostServers(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnDHCP})
	answers := func(n int) {
		m := dhcp4(2, 5, 1, macT, "0.0.0.0", "10.99.0.99", 51, 4, 0, 0, 0, 60)
		b.trusted(t, Eth(Broadcast, macT+port.MAC(n), 0x0800, IPv4(fmt.Sprintf("10.98.0.%d", n+1), "255.255.255.255", 17, UDP(67, 68, m))))
	}
	for n := range 70 {
		answers(n)
	}
	if said, _ := b.pass(time.Second); len(said) != 64 {
		t.Errorf("%d of 70 were reported", len(said))
	}
	b.now = b.now.Add(12 * time.Hour)
	answers(0)
	b.now = b.now.Add(12 * time.Hour)
	b.Tick()
	answers(0)
	answers(1)
	if said, _ := b.pass(time.Second); len(said) != 1 || said[0] != "server  10.98.0.2 " {
		t.Errorf("after a day in which the first alone was heard: %q", said)
	}
}

// No station forms an address that is none of a host, nor does Why say so.
func TestNoHosts(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnSLAAC, Prefixes: []netip.Prefix{netip.MustParsePrefix("::/0"), netip.MustParsePrefix("::ffff:0:0/96")}})
	for a, want := range map[string]port.Drop{"::ffff:10.0.0.1": nd, "ff02::5": nd, "::1": nd, "::": nd, "fd98::5": none} {
		if why := b.a.Why(frameOf(detect(macA, a)), none); why != want {
			t.Errorf("%s: %v, without effect", a, why)
		}
		b.want(t, a, detect(macA, a), want)
	}
}

// A question is put no more once nobody has to answer it, and gives nothing to who asked for it.
func TestQuestionInVain(t *testing.T) {
	const a = "10.99.0.10"
	for what, c := range map[string]struct {
		do    func(b *bench)
		asked int
	}{
		"nothing":                         {func(*bench) {}, 1},
		"the address is free":             {func(b *bench) { b.Delete(2, netip.Addr{}) }, 0},
		"its port is trusted":             {func(b *bench) { b.Unguard(2) }, 0},
		"the claimant is trusted":         {func(b *bench) { b.Unguard(1) }, 0},
		"another port has the claimant's": {func(b *bench) { b.Unguard(1); b.Guard(1, "vm9", with(guard.Config{Learn: guard.LearnDHCP}, macA)) }, 0},
	} {
		b := newBench(t, guard.Config{Learn: guard.LearnDHCP})
		b.Guard(2, "vm1", with(guard.Config{Learn: guard.LearnDHCP}, macV))
		b.Restore(2, guard.Binding{VLAN: 1, MAC: macV, Prefix: netip.MustParsePrefix(a + "/32"), Source: guard.DHCP})
		b.want(t, "request", request(macA, 1, a), none)
		b.trusted(t, ack(macA, 1, a, 3600))
		c.do(b)
		_, asks := b.pass(time.Second)
		if len(asks) != c.asked {
			t.Errorf("%s: asked %+v", what, asks)
		}
		b.pass(5 * time.Second)
		if got := b.bound("vm0") + b.bound("vm9"); (got == a) != (c.asked == 1) {
			t.Errorf("%s: bound %q", what, got)
		}
	}
	// It may also become vain once it is put.
	b := newBench(t, guard.Config{Learn: guard.LearnDHCP})
	b.Guard(2, "vm1", with(guard.Config{Learn: guard.LearnDHCP}, macV))
	b.Restore(2, guard.Binding{VLAN: 1, MAC: macV, Prefix: netip.MustParsePrefix(a + "/32"), Source: guard.DHCP})
	b.want(t, "request", request(macA, 1, a), none)
	b.trusted(t, ack(macA, 1, a, 3600))
	b.pass(time.Second)
	b.Delete(2, netip.Addr{})
	b.pass(5 * time.Second)
	if got := b.bound("vm0"); got != "" {
		t.Errorf("bound: %s", got)
	}
}

// Of two stations that detect an address at a time, neither has it (RFC 4862 section 5.4.3): whether
// one is behind a trusted port, or behind another guarded one.
func TestDetectedByTwo(t *testing.T) {
	for _, c := range []struct {
		what       string
		learn      guard.Learn
		asks, also []byte
		own        []byte
		why        port.Drop
	}{
		{"detection", guard.LearnSLAAC, detect(macA, "fe80::77"), detect(macT, "fe80::77"), from6("fe80::77"), ipv6},
		{"probe", guard.LearnARP, probe(macA, "10.99.0.10"), probe(macT, "10.99.0.10"), from4(macA, "10.99.0.10"), ipv4},
	} {
		b := newBench(t, guard.Config{Learn: c.learn})
		b.want(t, c.what, c.asks, none)
		b.trusted(t, c.also)
		b.pass(2 * time.Second)
		b.want(t, c.what+": also by another", c.own, c.why)
		b.want(t, c.what+": again", c.asks, none)
		b.pass(2 * time.Second)
		b.trusted(t, c.also)
		b.want(t, c.what+": of one that is bound", c.own, none)

		// Behind a guarded port it is refused, and counted there.
		v := b.Guard(2, "vm1", with(guard.Config{Learn: c.learn}, macT))
		if dry := v.Why(frameOf(c.also), none); dry == none {
			t.Errorf("%s by another port passes, without effect", c.what)
		}
		if got := b.Counts(2)[guard.Disputed]; got != 0 {
			t.Errorf("%s: %d were counted without effect", c.what, got)
		}
		if why := check(v, frameOf(c.also)); why == none {
			t.Errorf("%s by another port passes", c.what)
		}
		if got := b.Counts(2)[guard.Disputed]; got != 1 {
			t.Errorf("%s: %d counted", c.what, got)
		}
		// A station may ask again for what it has, or is about to have.
		before := b.Counts(1)
		b.want(t, c.what+": for its own", c.asks, none)
		if got := b.Counts(1); got != before {
			t.Errorf("%s: for its own: counts %v, before %v", c.what, got, before)
		}
	}
	// Nor does a station have what another one at its port has.
	const second = macA + 1
	b := newBench(t, guard.Config{Learn: guard.LearnARP | guard.LearnSLAAC, MACs: []port.MAC{macA, second}})
	b.want(t, "probe", probe(macA, "10.99.0.10"), none)
	b.want(t, "probe by a second station", probe(second, "10.99.0.10"), port.DropGuardARP)
	b.want(t, "detection", detect(macA, "fe80::77"), none)
	b.want(t, "detection by a second station", detect(second, "fe80::77"), nd)

	// An announcement of what is not yet bound is no use of it, nor a dispute.
	b = newBench(t, guard.Config{Learn: guard.LearnARP})
	b.want(t, "probe", probe(macA, "10.99.0.10"), none)
	b.want(t, "announcement", garp(macA, "10.99.0.10"), port.DropGuardARP)
	if got := b.Counts(1); got != (guard.Counts{guard.Learned: 1}) {
		t.Errorf("counts %v", got)
	}
}

// Nothing is learned from a part of a message, or from a client that does not say who it is.
func TestHalfMessages(t *testing.T) {
	part := func(wire []byte) []byte {
		wire[14+6] = 0x20 // more fragments
		return wire
	}
	b := newBench(t, guard.Config{Learn: guard.LearnDHCP})
	b.want(t, "request", request(macA, 1, "10.99.0.10"), none)
	b.trusted(t, part(ack(macA, 1, "10.99.0.10", 60)))
	if got := b.bound("vm0"); got != "" {
		t.Errorf("bound by a part of an answer: %s", got)
	}

	// DUIDs have 130 octets at most (RFC 9915 section 11.1).
	const own = "fe80::5054:ff:fe99:a"
	for _, c := range []struct {
		n    int
		why  port.Drop
		want string
	}{{-1, none, ""}, {0, port.DropGuardMalformed, ""}, {1, none, "fd98::10"}, {130, none, "fd98::10"}, {131, none, ""}} {
		m := func(kind byte) []byte {
			whole := dhcp6NA(kind, 1, "fd98::10", 60)
			if c.n < 0 { // no identifier at all
				return append(whole[:4:4], whole[4+4+10:]...)
			}
			b := binary.BigEndian.AppendUint16(append(whole[:4:4], 0, 1), uint16(c.n))
			return append(append(b, make([]byte, c.n)...), whole[4+4+10:]...)
		}
		b := newBench(t, guard.Config{Learn: guard.LearnDHCP})
		b.want(t, "request", Eth(0x3333_0001_0002, macA, 0x86dd, IPv6(own, "ff02::1:2", 17, UDP(546, 547, m(3)))), c.why)
		b.trusted(t, Eth(macA, macT, 0x86dd, IPv6("fe80::1", own, 17, UDP(547, 546, m(7)))))
		if got := b.bound("vm0"); got != c.want {
			t.Errorf("a DUID of %d octets: bound %q", c.n, got)
		}
	}
}

// What nobody can be asked for stays, however silent: an address that a station used first, and,
// when it forms one, a prefix.
func TestNotDisplaced(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnDHCP | guard.LearnARP | guard.LearnPD | guard.LearnSLAAC, Limit: 3})
	for a, source := range map[string]guard.Source{"10.99.0.1/32": guard.ARP, "fd97::/56": guard.PD, "10.99.0.2/32": guard.DHCP} {
		b.Restore(1, guard.Binding{VLAN: 1, MAC: macA, Prefix: netip.MustParsePrefix(a), Source: source})
	}
	b.pass(2 * time.Minute)
	b.want(t, "detection", detect(macA, "fe80::1"), none)
	if _, asks := b.pass(time.Second); len(asks) != 1 || asks[0].Address.String() != "10.99.0.2" {
		t.Errorf("asked %+v", asks)
	}
	b.pass(3 * time.Second)
	if got := b.bound("vm0"); got != "10.99.0.1 fd97:: fe80::1" {
		t.Errorf("bound: %s", got)
	}
	b.pass(2 * time.Minute)
	for i := range 2 {
		a := fmt.Sprintf("10.99.0.%d", 10+i)
		b.want(t, "request", request(macA, uint32(i), a), none)
		b.trusted(t, ack(macA, uint32(i), a, 3600))
	}
	if got := b.bound("vm0"); !strings.HasPrefix(got, "10.99.0.1 10.99.0.10") {
		t.Errorf("bound: %s", got)
	}
}

// A lease is a binding that a port which learns none does not keep, and that is a change.
func TestKept(t *testing.T) {
	every := map[guard.Source]struct {
		prefix string
		learn  guard.Learn
	}{
		guard.DHCP: {"10.99.0.1/32", guard.LearnDHCP}, guard.SLAAC: {"fd98::1/128", guard.LearnSLAAC},
		guard.ARP: {"10.99.0.2/32", guard.LearnARP}, guard.PD: {"fd97::/56", guard.LearnPD},
	}
	for learn := range guard.Learn(16) {
		all := guard.LearnDHCP | guard.LearnSLAAC | guard.LearnARP | guard.LearnPD
		b := newBench(t, guard.Config{Learn: all})
		for source, x := range every {
			b.Restore(1, guard.Binding{VLAN: 1, MAC: macA, Prefix: netip.MustParsePrefix(x.prefix), Source: source})
		}
		b.Changed()
		b.Guard(1, "vm0", with(guard.Config{Learn: learn}, macA))
		if got := b.Changed(); got != (learn != all) {
			t.Errorf("learns %d: changed %v", learn, got)
		}
		var want []guard.Source
		for source, x := range every {
			if learn&x.learn != 0 {
				want = append(want, source)
			}
		}
		left := b.Learned(1)
		if len(left) != len(want) {
			t.Errorf("learns %d: kept %+v, want those of %v", learn, left, want)
		}
		for _, x := range left {
			if !slices.Contains(want, x.Source) {
				t.Errorf("learns %d: kept %+v", learn, x)
			}
		}
	}
}

// A router behind a guarded port advertises prefixes as one behind a trusted port does, and nobody
// else behind one.
func TestGuardedRouter(t *testing.T) {
	for _, allow := range []guard.Allow{0, guard.AllowRouter} {
		b := newBench(t, guard.Config{Learn: guard.LearnSLAAC})
		v := b.Guard(2, "vm1", with(guard.Config{Allow: allow, Addresses: addresses("fe80::1")}, macT))
		want := port.DropGuardRouter
		if allow != 0 {
			want = none
		}
		if why := check(v, frameOf(routerAdvert("fd98::/64", 3600))); why != want {
			t.Errorf("allowed %v: %v", allow != 0, why)
		}
		want = nd
		if allow != 0 {
			want = none
		}
		b.want(t, "detection in its prefix", detect(macA, "fd98::10"), want)
	}
}

// Users hear of a prefix that is delegated, and the owner of a configured one may give up a part.
func TestDelegationIsTold(t *testing.T) {
	b := newBench(t, guard.Config{Learn: guard.LearnPD, Addresses: []guard.Address{{Prefix: netip.MustParsePrefix("fd96::/48")}}})
	client := func(kind, xid byte, prefix string) []byte {
		return Eth(0x3333_0001_0002, macA, 0x86dd, IPv6("fe80::5054:ff:fe99:a", "ff02::1:2", 17, UDP(546, 547, dhcp6(kind, xid, prefix, 0))))
	}
	b.want(t, "request", client(3, 1, "fd97::/56"), none)
	b.trusted(t, Eth(macA, macT, 0x86dd, IPv6("fe80::1", "fe80::5054:ff:fe99:a", 17, UDP(547, 546, dhcp6(7, 1, "fd97::/56", 60)))))
	if said, _ := b.pass(time.Second); !slices.Contains(said, "bound vm0 fd97:: ") {
		t.Errorf("said %q", said)
	}
	b.want(t, "a part of what is configured", client(8, 2, "fd96:0:0:1::/64"), none)
	b.want(t, "what is not", client(8, 3, "fd95::/64"), port.DropGuardDHCP)
}
