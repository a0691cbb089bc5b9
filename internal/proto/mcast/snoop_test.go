package mcast

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestAlwaysFlooded has what local control and neighbour discovery need, whoever
// registered what.
func TestAlwaysFlooded(t *testing.T) {
	r := filtering(t, VLANConfig{RouterOnly: true})
	r.SetPort(8, PortConfig{Router: RouterAlways})
	// Groups that share a MAC with local ones, and reports of local ones.
	for _, group := range addrs("225.0.0.5", "225.0.0.255", "239.128.0.1", "224.0.0.251", "ff05::fb", "ff02::1", "ff02::fb", "ff01::5:5:5", "ff0e::1", "ff05::ff") {
		r.accept(3, reportFrame(rec{isEx, group, nil}))
	}
	for _, group := range addrs("224.0.0.1", "224.0.0.5", "224.0.0.13", "224.0.0.251", "224.0.0.255", "ff02::1", "ff02::2", "ff02::5", "ff02::fb", "ff02::ff") {
		r.mustGet(group, flood)
	}
	for _, mac := range []uint64{0xffff_ffff_ffff, 0x0180_c200_0010, 0x0100_5e80_0001, 0x0100_5f00_0001, 0x0100_0ccc_cccd, 0x5254_0000_0002} {
		if _, all := r.Table().Lookup(1, mac); !all {
			t.Errorf("%012x is none of our groups", mac)
		}
	}
	if _, all := r.Table().Lookup(2, groupMAC(addr("239.1.2.3"))); !all {
		t.Error("VLAN 2 is not snooped")
	}
	for _, m := range r.Groups() {
		if slices.Contains(addrs("224.0.0.251", "ff02::1", "ff01::5:5:5"), m.Group) {
			t.Errorf("%v has no members", m.Group)
		}
	}
	// Known only to those that report, which not all do.
	for _, group := range addrs("ff02::1:ff12:3456", "ff02::1:2", "ff02::1:3") {
		r.mustGet(group, flood)
	}
	// By MAC, these are the last of each range and the first beyond.
	for _, group := range addrs("224.0.0.255", "ff05::ff", "ff05::1:0", "ff05::1:ffff", "ff05::ff00:0", "ff05::ffff:ffff") {
		r.mustGet(group, flood)
	}
	for _, group := range addrs("224.0.1.0", "239.9.9.9", "ff05::100", "ff05::ffff", "ff05::2:0", "ff05::2:3", "ff05::feff:ffff") {
		r.mustGet(group, 8)
	}
}

// TestSilentStation has a station that does not report: what it needs to be found and
// configured reaches it whatever others report, of its groups or of those that share a
// MAC with them.
func TestSilentStation(t *testing.T) {
	for _, c := range []struct {
		group  string
		others []string
	}{
		{"ff02::1:ff12:3456", []string{"ff02::1:ff12:3456", "ff05::ff12:3456", "ff02::2:ff12:3456"}},
		{"ff02::1:2", []string{"ff02::1:2"}},
		{"ff02::1:3", []string{"ff02::1:3"}},
		{"ff02::fb", []string{"ff02::fb", "ff05::fb"}},
		{"224.0.0.251", []string{"224.0.0.251", "239.0.0.251"}},
	} {
		r := filtering(t, VLANConfig{RouterOnly: true})
		for _, other := range c.others {
			r.accept(3, reportFrame(rec{isEx, addr(other), nil}))
		}
		r.mustGet(addr(c.group), flood)
		for _, m := range r.Groups() {
			if m.Group.IsLinkLocalMulticast() {
				t.Errorf("%v takes memory, and always floods", m.Group)
			}
		}
	}
}

// TestDiscovery boots IPv6 hosts that report as Linux does, and has each find each
// other at every moment: a neighbour solicitation always reaches its target.
func TestDiscovery(t *testing.T) {
	const hosts = 5
	r := filtering(t, VLANConfig{RouterOnly: true})
	target := func(i int) netip.Addr {
		return netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: 0x12, 15: byte(i % 3)}) // some share one
	}
	up := 0
	check := func() {
		t.Helper()
		for i := range up {
			ports := r.gets(target(i))
			if !slices.Contains(ports, uint16(i)) && !slices.Contains(ports, flood) {
				t.Fatalf("at %v: host %d cannot be found, %v goes to %v", r.now, i, target(i), ports)
			}
		}
	}
	for i := range hosts {
		up = i // its address counts once it was reported
		check()
		r.accept(uint16(i), ip6(addr("::"), addr("ff02::16"), 1, 58, append([]byte{143, 0, 0, 0, 0, 0}, records([]rec{{toEx, target(i), nil}})...), 2))
		up = i + 1
		check()
		r.pass(3 * time.Second)
	}
	for range 600 {
		r.sent = nil
		r.pass(time.Second)
		for _, s := range r.sent {
			if s.m.family == IPv6 && s.port == AllPorts {
				for i := range hosts {
					r.accept(uint16(i), reportFrame(rec{isEx, target(i), nil}))
				}
			}
		}
		check()
	}
}

func TestStatic(t *testing.T) {
	for _, group := range addrs("239.1.2.3", "ff05::1:3") {
		r := filtering(t, VLANConfig{})
		if err := r.AddStatic(1, 3, group); err != nil {
			t.Fatal(err)
		}
		r.accept(3, reportFrame(rec{isEx, group, nil}))
		r.accept(4, reportFrame(rec{isEx, group, nil}))
		if m, _ := r.of(3, group); !m.Static || !m.Learned {
			t.Errorf("%+v", m)
		}
		r.accept(3, leaveFrame(group))
		r.PortDown(4)
		r.pass(time.Hour)
		r.mustGet(group, 3)
		if m, _ := r.of(3, group); !m.Static || m.Learned || m.Version != 0 || m.Expires != 0 {
			t.Errorf("%+v", m)
		}
		r.PortDown(3)
		r.mustGet(group, 3)
		r.accept(3, reportFrame(rec{isEx, group, nil}))
		if err := r.RemoveStatic(1, 3, group); err != nil {
			t.Fatal(err)
		}
		r.mustGet(group, 3) // the host still wants it
		r.pass(testGMI)
		r.mustGet(group, flood)
		if err := r.RemoveStatic(1, 3, group); err == nil {
			t.Error("removed twice")
		}
		if err := r.AddStatic(1, 3, group); err != nil {
			t.Fatal(err)
		}
		r.RemovePort(3)
		if g := r.Groups(); len(g) != 0 || len(r.PortStats()) > 1 {
			t.Errorf("%+v, %+v", g, r.PortStats())
		}
	}
	r := filtering(t, VLANConfig{})
	for _, bad := range []string{"10.0.0.1", "224.0.0.5", "ff02::1", "ff01::5", "fe80::1", "ff02::5%eth0", "::ffff:239.1.2.3"} {
		if err := r.AddStatic(1, 3, addr(bad)); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if err := r.AddStatic(2, 3, addr("239.1.2.3")); err == nil {
		t.Error("a static group in a VLAN that is not snooped")
	}
}

func TestGroupLimit(t *testing.T) {
	r := filtering(t, VLANConfig{})
	r.SetPort(3, PortConfig{MaxGroups: 2})
	group := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{239, 1, 1, byte(i)}) }
	r.accept(3, oldReport(2, group(1)))
	r.accept(3, reportFrame(rec{toEx, group(2), nil}, rec{toEx, group(3), nil})) // one of both fits
	if res := r.Receive(1, 3, oldReport(2, group(4))); res.Verdict != Drop || res.Reason != GroupLimit {
		t.Errorf("%+v", res)
	}
	// A report of which nothing fits is dropped, one of which anything is known is not.
	if res := r.hear(3, reportFrame(rec{toEx, group(4), nil}, rec{toEx, group(5), nil})); res.Verdict != Drop || res.Reason != GroupLimit {
		t.Errorf("%+v", res)
	}
	r.accept(3, reportFrame(rec{toEx, group(4), nil}, rec{isEx, group(1), nil}))
	if p := r.PortStats()[3]; p.Groups != 2 || p.Refused != 5 {
		t.Errorf("%+v", p)
	}
	r.accept(3, oldReport(2, group(1))) // known ones stay
	for _, frame := range [][]byte{leaveFrame(group(5)), reportFrame(rec{toIn, group(5), nil})} {
		r.accept(3, frame) // asks for nothing
	}
	r.accept(4, oldReport(2, group(4))) // another port
	if p := r.PortStats(); p[3].Groups != 2 || p[3].Refused != 5 || p[4].Groups != 1 || r.Stats().Dropped[GroupLimit] != 2 {
		t.Errorf("%+v, %+v", p, r.Stats())
	}
	r.mustGet(group(4), 4)
	if err := r.AddStatic(1, 3, group(9)); err != nil {
		t.Errorf("a static group is the administrator's own: %v", err)
	}
	// A place that gets free is taken.
	r.accept(3, leaveFrame(group(1)))
	r.pass(testLMQT)
	r.accept(3, oldReport(2, group(5)))
	r.mustGet(group(5), 3)
	r.PortDown(3)
	if p := r.PortStats()[3]; p.Groups != 0 {
		t.Errorf("%+v", p)
	}
}

// TestMembershipLimit has the memory of all ports together used up, beside the share of each.
func TestMembershipLimit(t *testing.T) {
	r := newRigOf(t, Config{Memberships: 3}, VLANConfig{Querier: true})
	r.to(10 * time.Second)
	for i := range 5 {
		for n := range ownShare + 1 {
			group := netip.AddrFrom4([4]byte{239, 1, byte(i), byte(n)})
			if res := r.Receive(1, uint16(i), oldReport(2, group)); (res.Verdict == Drop) != (n >= ownShare) {
				t.Errorf("%d of port %d: %+v", n, i, res)
			}
		}
	}
	for _, static := range []struct {
		port  uint16
		group string
	}{{0, "239.1.0.0"}, {9, "239.1.2.3"}} {
		if err := r.AddStatic(1, static.port, addr(static.group)); err != nil {
			t.Errorf("a user's group %v: %v", static, err)
		}
	}
	r.PortDown(0)
	r.accept(0, oldReport(2, addr("239.1.0.0"))) // it holds its place
	for port := range uint16(4) {
		r.PortDown(port + 1)
	}
	if len(r.Groups()) != 2 {
		t.Errorf("%+v", r.Groups())
	}
}

// TestFairShare has ports that join all they can: others find room, and each of the
// greedy as much as the next.
func TestFairShare(t *testing.T) {
	r := newRigOf(t, Config{Memberships: 1000}, VLANConfig{Querier: true})
	joined := func(port uint16, tries int) int {
		for i := range tries {
			r.hear(port, oldReport(2, netip.AddrFrom4([4]byte{239, byte(port), byte(i >> 8), byte(i)})))
		}
		return r.PortStats()[port].Groups
	}
	if n := joined(1, 2000); n != 500 {
		t.Errorf("one port has %d of 1000 memberships, want half", n)
	}
	if n := joined(2, 2000); n != 250 {
		t.Errorf("a second has %d", n)
	}
	if n := joined(3, 100); n != 100 {
		t.Errorf("a modest one has %d of 100", n)
	}
	// A limit of its own is not exceeded, and not a claim.
	r.SetPort(4, PortConfig{MaxGroups: 5})
	r.SetPort(5, PortConfig{MaxGroups: 900})
	if n := joined(4, 100); n != 5 {
		t.Errorf("a port with a limit of 5 has %d", n)
	}
	if n := joined(5, 900); n != 73 {
		t.Errorf("a port with a limit of 900 has %d", n)
	}
	r.PortDown(1)
	if n := joined(2, 2000); n <= 250 {
		t.Errorf("after another left, the second has %d", n)
	}
}

// However many ports join all they can, the next one gets its own share.
func TestOwnShare(t *testing.T) {
	r := newRigOf(t, Config{Memberships: 1000}, VLANConfig{Querier: true})
	const greedy = 40
	for port := range uint16(greedy) {
		for i := range 600 {
			r.hear(port+1, oldReport(2, netip.AddrFrom4([4]byte{239, byte(port), byte(i >> 8), byte(i)})))
		}
	}
	if n := r.Memberships(); n > 1000+greedy*ownShare {
		t.Errorf("%d memberships", n)
	}
	for i := range ownShare {
		r.accept(99, oldReport(2, netip.AddrFrom4([4]byte{239, 0, 0, byte(i)})))
	}
	if p := r.PortStats()[99]; p.Groups != ownShare || p.Refused != 0 {
		t.Errorf("the next port: %+v", p)
	}
	other := New(Config{MAC: r.cfg.MAC, Send: func(uint16, uint16, []byte) {}, Memberships: 1000})
	if err := other.Restore(r.Save(), func(uint16) VLANConfig { return VLANConfig{Querier: true} }, func(p uint16) (uint16, bool) { return p, true }); err != nil {
		t.Error(err)
	}
}

// TestAliases has groups that share a MAC: what goes to it goes to the members of all.
func TestAliases(t *testing.T) {
	a, b := addr("239.1.2.3"), addr("238.129.2.3")
	r := filtering(t, VLANConfig{})
	r.accept(3, oldReport(2, a))
	r.accept(4, oldReport(2, b))
	r.mustGet(a, 3, 4)
	r.accept(3, leaveFrame(a))
	r.pass(testLMQT)
	r.mustGet(a, 4)
	if _, ok := r.of(4, b); !ok {
		t.Error("the leave of one ended the other")
	}
}

func TestVLANsApart(t *testing.T) {
	group := addr("239.1.2.3")
	r := filtering(t, VLANConfig{})
	if err := r.SetVLAN(2, VLANConfig{Querier: true, RouterOnly: true}); err != nil {
		t.Fatal(err)
	}
	r.pass(10 * time.Second)
	r.accept(3, oldReport(2, group))
	if res := r.Receive(2, 4, oldReport(2, group)); res.Verdict != ToRouters || len(res.Ports) != 0 {
		t.Errorf("%+v", res)
	}
	before := r.Table()
	for _, c := range []struct{ vlan, port uint16 }{{1, 3}, {2, 4}} {
		if ports, all := before.Lookup(c.vlan, groupMAC(group)); all || !slices.Equal(ports, []uint16{c.port}) {
			t.Errorf("VLAN %d: %v, %v", c.vlan, ports, all)
		}
	}
	r.RemoveVLAN(2)
	if res := r.Receive(2, 4, oldReport(2, group)); res.Verdict != Flood {
		t.Errorf("%+v", res)
	}
	if ports, _ := before.Lookup(2, groupMAC(group)); !slices.Equal(ports, []uint16{4}) {
		t.Error("a Table changed")
	}
	if _, all := r.Table().Lookup(2, groupMAC(group)); !all {
		t.Error("VLAN 2 is snooped still")
	}
	if p := r.PortStats()[4]; p.Groups != 0 || r.memberships != 1 {
		t.Errorf("%+v, %d", p, r.memberships)
	}
}

// TestTableIdentity is what an owner goes by to publish a Table: another only if it
// says something else.
func TestTableIdentity(t *testing.T) {
	group := addr("239.1.2.3")
	r := filtering(t, VLANConfig{})
	before := r.Table()
	if r.Changed() || r.Table() != before {
		t.Error("changed by nothing")
	}
	r.accept(3, oldReport(2, group))
	if !r.Changed() {
		t.Error("a join changes nothing")
	}
	joined := r.Table()
	r.accept(3, oldReport(2, group))
	r.accept(3, reportFrame(rec{allow, group, sourcesOf(group, "a")}))
	r.accept(3, leaveFrame(addr("239.9.9.9")))
	r.pass(time.Second)
	if r.Changed() || r.Table() != joined {
		t.Error("changed by what is known")
	}
	r.accept(7, pimHello("10.0.0.9"))
	if !r.Changed() {
		t.Error("a router changes nothing")
	}
	routed := r.Table()
	r.accept(7, pimHello("10.0.0.9"))
	r.pass(255*time.Second - 1)
	if r.Changed() || r.Table() != routed {
		t.Error("changed by a router that is known")
	}
	r.pass(1)
	if !r.Changed() {
		t.Error("the end of a router changes nothing")
	}
}

func TestLookupAllocates(t *testing.T) {
	r := filtering(t, VLANConfig{})
	r.accept(3, oldReport(2, addr("239.1.2.3")))
	table, mac := r.Table(), groupMAC(addr("239.1.2.3"))
	if n := testing.AllocsPerRun(100, func() { table.Lookup(1, mac) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestManyGroups fills a VLAN and finds everything again, in short searches.
func TestManyGroups(t *testing.T) {
	r := filtering(t, VLANConfig{RouterOnly: true})
	want := map[netip.Addr][]uint16{}
	for port := range uint16(20) {
		for i := range 1000 {
			group := netip.AddrFrom4([4]byte{239, 1 + byte(port%10), byte(i >> 8), byte(i)})
			r.accept(port, oldReport(2, group))
			want[group] = append(want[group], port)
		}
	}
	for group, ports := range want {
		r.mustGet(group, ports...)
	}
	r.mustGet(addr("239.200.0.1"))
	f := &r.Table().vlans[1][IPv4]
	longest, run := 0, 0
	for i := range f.slots {
		if run++; f.slots[i].n == 0 {
			run = 0
		}
		longest = max(longest, run)
	}
	if n := len(f.slots); n < 2*len(want) || n > 4*len(want) || longest > 200 {
		t.Errorf("%d slots for %d groups, the longest run %d", len(f.slots), len(want), longest)
	}
	for port := range uint16(20) {
		r.PortDown(port)
	}
	if r.memberships != 0 || len(r.vlans[1].inst[IPv4].groups) != 0 {
		t.Errorf("%d memberships left", r.memberships)
	}
}

// The bounds that hold where none are given, of which the documents speak.
func TestDefaultBounds(t *testing.T) {
	for _, given := range []int{0, -1} {
		c := New(Config{Send: func(uint16, uint16, []byte) {}, Memberships: given, Sources: given}).cfg
		if c.Memberships != 32768 || c.Sources != 64 {
			t.Errorf("%d: %+v", given, c)
		}
	}
}

func TestConfigChecked(t *testing.T) {
	r := newRig(t, VLANConfig{})
	for name, cfg := range map[string]VLANConfig{
		"IGMPv1":              {IGMPVersion: 1},
		"MLDv3":               {MLDVersion: 3},
		"robustness":          {Robustness: 8},
		"query interval":      {QueryInterval: 32000 * time.Second},
		"response too long":   {ResponseInterval: 125 * time.Second},
		"response too short":  {ResponseInterval: time.Millisecond},
		"response in IGMPv2":  {IGMPVersion: 2, ResponseInterval: 26 * time.Second},
		"response in MLDv1":   {MLDVersion: 1, ResponseInterval: 66 * time.Second},
		"last member":         {LastMemberInterval: time.Minute},
		"last member count":   {LastMemberCount: 11},
		"startup count":       {StartupCount: -1},
		"startup interval":    {StartupInterval: time.Millisecond},
		"router timeout":      {RouterTimeout: time.Millisecond},
		"address of a group":  {IPv4: addr("239.1.2.3")},
		"address of IPv6":     {IPv4: addr("fe80::1")},
		"global address":      {IPv6: addr("2001:db8::1")},
		"address with a zone": {IPv6: addr("fe80::1%eth0")},
	} {
		if err := r.SetVLAN(1, cfg); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, id := range []uint16{0, 4095, 5000} {
		if r.SetVLAN(id, VLANConfig{}) == nil {
			t.Errorf("VLAN %d is taken", id)
		}
	}
	if err := r.SetVLAN(4094, VLANConfig{}); err != nil {
		t.Error(err)
	}
}

// TestConfigLimits takes what is just within each limit, and refuses what is just beyond.
func TestConfigLimits(t *testing.T) {
	const ms, s = time.Millisecond, time.Second
	for name, c := range map[string]struct{ in, beyond VLANConfig }{
		"robustness, low":       {VLANConfig{Robustness: 1}, VLANConfig{Robustness: -1}},
		"robustness, high":      {VLANConfig{Robustness: 7}, VLANConfig{Robustness: 8}},
		"interval, low":         {VLANConfig{QueryInterval: s, ResponseInterval: s - 1}, VLANConfig{QueryInterval: s - 1, ResponseInterval: 100 * ms}},
		"interval, high":        {VLANConfig{QueryInterval: 31744 * s}, VLANConfig{QueryInterval: 31744*s + 1}},
		"response, low":         {VLANConfig{ResponseInterval: 100 * ms}, VLANConfig{ResponseInterval: 100*ms - 1}},
		"response, high":        {VLANConfig{ResponseInterval: 125*s - 1}, VLANConfig{ResponseInterval: 125 * s}},
		"response in IGMPv2":    {VLANConfig{IGMPVersion: 2, ResponseInterval: 25500 * ms}, VLANConfig{IGMPVersion: 2, ResponseInterval: 25500*ms + 1}},
		"response in MLDv1":     {VLANConfig{MLDVersion: 1, ResponseInterval: 65535 * ms}, VLANConfig{MLDVersion: 1, ResponseInterval: 65535*ms + 1}},
		"last member, low":      {VLANConfig{LastMemberInterval: 100 * ms}, VLANConfig{LastMemberInterval: 100*ms - 1}},
		"last member, high":     {VLANConfig{LastMemberInterval: 25500 * ms}, VLANConfig{LastMemberInterval: 25500*ms + 1}},
		"last members, low":     {VLANConfig{LastMemberCount: 1}, VLANConfig{LastMemberCount: -1}},
		"last members, high":    {VLANConfig{LastMemberCount: 10}, VLANConfig{LastMemberCount: 11}},
		"startup, low":          {VLANConfig{StartupInterval: 100 * ms}, VLANConfig{StartupInterval: 100*ms - 1}},
		"startup, high":         {VLANConfig{StartupInterval: 31744 * s}, VLANConfig{StartupInterval: 31744*s + 1}},
		"startup queries, low":  {VLANConfig{StartupCount: 1}, VLANConfig{StartupCount: -1}},
		"startup queries, high": {VLANConfig{StartupCount: 10}, VLANConfig{StartupCount: 11}},
		"router timeout":        {VLANConfig{RouterTimeout: s}, VLANConfig{RouterTimeout: s - 1}},
	} {
		r := newRig(t, VLANConfig{})
		if err := r.SetVLAN(1, c.in); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if r.SetVLAN(1, c.beyond) == nil {
			t.Errorf("%s: %+v is taken", name, c.beyond)
		}
	}
}

func TestTracked(t *testing.T) {
	for text, want := range map[string]bool{
		"224.0.0.0": false, "224.0.0.255": false, "224.0.1.0": true, "224.1.0.0": true, "225.0.0.0": true,
		"239.255.255.255": true, "240.0.0.1": false, "223.255.255.255": false,
		"ff00::1": false, "ff01::1": false, "ff02::1": false, "ff02::1:2": false, "ff02:1::": false, "ff12::1": true, "ff03::1": true,
		"ff0e::1": true, "ff11::1": false, "fe02::1": false, "fe80::1": false,
	} {
		if tracked(addr(text)) != want {
			t.Errorf("%s: %v", text, !want)
		}
	}
}

func TestCounts(t *testing.T) {
	r := newRig(t, VLANConfig{Querier: true})
	sent := r.Stats().QueriesSent
	if sent != 2 || len(r.sent) != 2 {
		t.Errorf("%d queries sent", sent)
	}
	for i, frame := range [][]byte{queryFrom("10.0.0.1"), queryFrom("fe80::9"), specificQuery("10.0.0.1", addr("239.1.2.3"), 10)} {
		r.accept(7, frame)
		if n := r.Stats().Queries; n != uint64(i+1) {
			t.Errorf("%d queries counted, want %d", n, i+1)
		}
	}
	for i, frame := range [][]byte{oldReport(2, addr("239.1.2.3")), reportFrame(rec{isEx, addr("239.1.2.3"), nil}, rec{isEx, addr("239.1.2.4"), nil})} {
		r.accept(3, frame)
		if n := r.Stats().Reports; n != uint64(i+1) {
			t.Errorf("%d reports counted, want %d", n, i+1)
		}
	}
	r.accept(3, leaveFrame(addr("239.1.2.3")))
	if st := r.Stats(); st.Leaves != 1 || st.Queries != 3 || st.Reports != 2 || st.Dropped != [numReasons]uint64{} {
		t.Errorf("%+v", st)
	}
}

// TestUnknown changes what is not there.
func TestUnknown(t *testing.T) {
	r := newRig(t, VLANConfig{})
	r.RemoveVLAN(7)
	r.RemovePort(7)
	r.PortDown(7)
	r.PortLeft(7, 7)
	if r.Changed() && len(r.Groups()) != 0 || len(r.PortStats()) != 0 {
		t.Errorf("%+v, %+v", r.Groups(), r.PortStats())
	}
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for reason := range numReasons {
		name := reason.String()
		if name == "" || seen[name] || strings.ContainsAny(name, " (-") {
			t.Errorf("reason %d is called %q", reason, name)
		}
		seen[name] = true
	}
	if IPv4.String() != "ipv4" || IPv6.String() != "ipv6" {
		t.Error("families")
	}
	if a, b := numReasons.String(), Family(2).String(); a != fmt.Sprintf("reason(%d)", numReasons) || b != "family(2)" {
		t.Errorf("the first beyond are called %s and %s", a, b)
	}
}

// A station listens as a host of some version does. It is the oracle's idea of who
// must receive: it knows what the programs on it asked for, and nothing of timers.
type station struct {
	port    uint16
	version int                          // 2 or 3, in IGMP's numbers
	joined  map[netip.Addr]recordFilter  // by group
	pending map[netip.Addr]time.Duration // answers to give, by group; netip.Addr{} for all
}

type recordFilter struct {
	exclude bool
	sources string // letters
}

// answers returns the frames by which the station says what it listens to.
func (s *station) answers(group netip.Addr) (frames [][]byte) {
	for g, f := range s.joined {
		if group.IsValid() && g != group {
			continue
		}
		if s.version == 2 {
			frames = append(frames, oldReport(2, g))
			continue
		}
		typ := isIn
		if f.exclude {
			typ = isEx
		}
		frames = append(frames, reportFrame(rec{typ, g, sourcesOf(g, f.sources)}))
	}
	return frames
}

// TestStations lets stations behind four ports join and leave at random, answer
// queries late but in time. At every second: who listens
// receives; and who has not listened for long enough that all timers have ended does
// not. The ports are shared by several stations of different versions.
func TestStations(t *testing.T) {
	groups := addrs("239.1.1.1", "239.1.1.2", "ff05::1:1", "ff02::1:ff00:1")
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 2))
			r := newRig(t, VLANConfig{Querier: seed%3 != 2, RouterOnly: seed%2 == 0})
			const router = 9
			var stations []*station
			for i := range 8 {
				stations = append(stations, &station{port: uint16(i % 4), version: 2 + i%3%2, joined: map[netip.Addr]recordFilter{}, pending: map[netip.Addr]time.Duration{}})
			}
			idle := map[string]time.Duration{} // since when nobody behind a port listens
			for now := time.Duration(0); now < 2000*time.Second; now += time.Second {
				r.to(now)
				// The queries since the last second reach the stations.
				if seed%3 == 2 && now%(125*time.Second) == 0 {
					for _, q := range [][]byte{queryFrom("10.0.0.1"), queryFrom("fe80::1")} {
						r.accept(router, q)
						m, _ := parse(q)
						r.sent = append(r.sent, sent{now, 1, AllPorts, m})
					}
				}
				for _, q := range r.sent {
					for _, s := range stations {
						if q.port != AllPorts && q.port != s.port {
							continue
						}
						for g := range s.joined {
							if g.Is4() != (q.m.family == IPv4) || q.m.group.IsValid() && q.m.group != g {
								continue
							}
							due := q.at + time.Duration(rng.Int64N(int64(q.m.maxResponse)))
							if old, ok := s.pending[g]; !ok || due < old {
								s.pending[g] = due
							}
						}
					}
				}
				r.sent = nil
				for _, s := range stations {
					for g, due := range s.pending {
						if due <= now {
							delete(s.pending, g)
							for _, frame := range s.answers(g) {
								r.accept(s.port, frame)
							}
						}
					}
				}
				if rng.IntN(4) == 0 {
					s, g := stations[rng.IntN(len(stations))], groups[rng.IntN(len(groups))]
					stir(r, rng, s, g)
				}
				check(t, r, stations, groups, idle, seed%3 == 2)
			}
		})
	}
}

// stir changes what a station listens to.
func stir(r *rig, rng *rand.Rand, s *station, g netip.Addr) {
	was, listens := s.joined[g]
	if s.version == 2 {
		if listens {
			delete(s.joined, g)
			r.accept(s.port, leaveFrame(g))
		} else {
			s.joined[g] = recordFilter{exclude: true}
			r.accept(s.port, oldReport(2, g))
		}
		return
	}
	letters := []string{"", "a", "b", "a b", "c d"}[rng.IntN(5)]
	next := recordFilter{exclude: rng.IntN(2) == 0, sources: letters}
	if rng.IntN(2) == 0 {
		next = recordFilter{}
	}
	if next == was && listens {
		return
	}
	// RFC 3376 section 5.1: what a change of the filter is reported as.
	missing := func(a, b string) (out []netip.Addr) {
		have := sourcesOf(g, b)
		for _, x := range sourcesOf(g, a) {
			if !slices.Contains(have, x) {
				out = append(out, x)
			}
		}
		return out
	}
	var list []rec
	switch {
	case next.exclude && !was.exclude:
		list = []rec{{toEx, g, sourcesOf(g, next.sources)}}
	case !next.exclude && was.exclude:
		list = []rec{{toIn, g, sourcesOf(g, next.sources)}}
	case next.exclude:
		list = []rec{{allow, g, missing(was.sources, next.sources)}, {block, g, missing(next.sources, was.sources)}}
	default:
		list = []rec{{allow, g, missing(next.sources, was.sources)}, {block, g, missing(was.sources, next.sources)}}
	}
	s.joined[g] = next
	if !next.exclude && next.sources == "" {
		delete(s.joined, g)
		delete(s.pending, g)
	}
	r.accept(s.port, reportFrame(list...))
}

// check holds the Table to the oracle.
func check(t *testing.T, r *rig, stations []*station, groups []netip.Addr, idle map[string]time.Duration, routed bool) {
	t.Helper()
	for _, g := range groups {
		ports := r.gets(g)
		for port := range uint16(4) {
			key := fmt.Sprint(g, port)
			listens := slices.ContainsFunc(stations, func(s *station) bool {
				_, ok := s.joined[g]
				return ok && s.port == port
			})
			gets := slices.Contains(ports, port)
			if listens {
				delete(idle, key)
				if !gets && !slices.Contains(ports, flood) {
					t.Fatalf("at %v: a station behind %d listens to %v, which goes to %v", r.now, port, g, ports)
				}
				continue
			}
			if _, ok := idle[key]; !ok {
				idle[key] = r.now
			}
			if gets && r.now-idle[key] > testGMI {
				t.Fatalf("at %v: nobody behind %d has listened to %v since %v, which goes to %v", r.now, port, g, idle[key], ports)
			}
		}
		if routed && !slices.Contains(ports, 9) && !slices.Contains(ports, flood) {
			t.Fatalf("at %v: the router does not get %v, which goes to %v", r.now, g, ports)
		}
	}
}

// A VLAN that is snooped no more floods, had it groups or not; so does a port's change of
// role show, without any frame.
func TestTableFollowsSettings(t *testing.T) {
	for _, group := range addrs("239.1.2.3", "ff05::1:2:3") {
		r := filtering(t, VLANConfig{RouterOnly: true})
		r.mustGet(group)
		r.SetPort(7, PortConfig{Router: RouterAlways})
		r.mustGet(group, 7)
		r.SetPort(7, PortConfig{})
		r.mustGet(group)
		r.SetPort(7, PortConfig{Router: RouterAlways})
		r.mustGet(group, 7)
		r.RemovePort(7)
		r.mustGet(group)
		r.RemoveVLAN(1)
		r.mustGet(group, flood)
	}
}
