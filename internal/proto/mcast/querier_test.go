package mcast

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

func (r *rig) querierOf(f Family) QuerierState {
	r.t.Helper()
	for _, q := range r.Queriers() {
		if q.VLAN == 1 && q.Family == f {
			return q
		}
	}
	r.t.Fatalf("no %v in VLAN 1", f)
	return QuerierState{}
}

// generals returns when general queries of the family were sent to all ports.
func (r *rig) generals(f Family) (at []time.Duration) {
	for _, s := range r.sent {
		if s.m.family == f && !s.m.group.IsValid() && s.port == AllPorts {
			at = append(at, s.at)
		}
	}
	return at
}

func TestOwnQuerier(t *testing.T) {
	r := newRig(t, VLANConfig{Querier: true, IPv4: addr("10.0.0.1")})
	r.to(300 * time.Second)
	want := []time.Duration{0, 31250 * time.Millisecond, 156250 * time.Millisecond, 281250 * time.Millisecond}
	for _, f := range []Family{IPv4, IPv6} {
		if got := r.generals(f); !slices.Equal(got, want) {
			t.Errorf("%v: asked at %v, want %v", f, got, want)
		}
		if q := r.querierOf(f); !q.Own || !q.Filtering {
			t.Errorf("%+v", q)
		}
	}
	for _, s := range r.sent {
		src := addr("10.0.0.1")
		if s.m.family == IPv6 {
			src = addr("fe80::5056:78ff:fe9a:bcde") // of the MAC
		}
		if s.m.version != 3 || s.m.src != src || s.m.maxResponse != 10*time.Second || s.m.robustness != 2 || s.m.interval != 125*time.Second {
			t.Errorf("%+v", s.m)
		}
	}
}

// TestElection has RFC 3376 section 6.6.2 and RFC 3810 section 7.6.2: the lowest
// address wins, and the loser asks again when it is silent.
func TestElection(t *testing.T) {
	for _, c := range []struct {
		name, own, heard string
		stays            bool // this switch the querier
	}{
		{"lower wins", "10.0.0.5", "10.0.0.4", false},
		{"higher loses", "10.0.0.5", "10.0.0.6", true},
		{"numbers, not text", "10.0.0.9", "10.0.0.10", true},
		{"an address beats none", "", "10.0.0.250", false},
		{"none beats none", "", "0.0.0.0", true},
		{"none loses", "10.0.0.5", "0.0.0.0", true},
		{"our own", "10.0.0.5", "10.0.0.5", true},
		{"lower wins", "fe80::5", "fe80::4", false},
		{"higher loses", "fe80::5", "fe80::6", true},
		{"our own", "fe80::5", "fe80::5", true},
	} {
		t.Run(c.name+" "+c.heard, func(t *testing.T) {
			cfg, f := VLANConfig{Querier: true}, IPv4
			if heard := addr(c.heard); heard.Is6() {
				cfg.IPv6, f = addr(c.own), IPv6
			} else if c.own != "" {
				cfg.IPv4 = addr(c.own)
			}
			r := newRig(t, cfg)
			r.to(time.Second)
			r.sent = nil
			if res := r.accept(7, queryFrom(c.heard)); res.Verdict != Flood {
				t.Errorf("%+v", res)
			}
			q := r.querierOf(f)
			if q.Own != c.stays {
				t.Fatalf("%+v", q)
			}
			if c.stays {
				r.to(200 * time.Second)
				if len(r.generals(f)) == 0 {
					t.Error("it no longer asks")
				}
				return
			}
			if q.Addr != addr(c.heard) || q.Port != 7 || q.Expires != 255*time.Second {
				t.Errorf("%+v", q)
			}
			r.to(255 * time.Second)
			if at := r.generals(f); len(at) != 0 {
				t.Errorf("asked at %v, though it lost", at)
			}
			r.to(256 * time.Second)
			if at := r.generals(f); !slices.Equal(at, []time.Duration{256 * time.Second}) {
				t.Errorf("asked at %v", at)
			}
			if q := r.querierOf(f); !q.Own || !q.Filtering {
				t.Errorf("%+v", q)
			}
		})
	}
	t.Run("among others", func(t *testing.T) {
		r := newRig(t, VLANConfig{})
		for _, c := range []struct{ heard, want string }{
			{"0.0.0.0", "0.0.0.0"}, {"10.0.0.9", "10.0.0.9"}, {"10.0.0.10", "10.0.0.9"},
			{"10.0.0.8", "10.0.0.8"}, {"0.0.0.0", "10.0.0.8"},
		} {
			r.accept(7, queryFrom(c.heard))
			if q := r.querierOf(IPv4); q.Addr != addr(c.want) {
				t.Errorf("after %s: %+v", c.heard, q)
			}
		}
	})
}

// TestFilterNeedsQuerier has hosts that nobody asks: they report once and are then
// silent, so their silence must not cut them off.
func TestFilterNeedsQuerier(t *testing.T) {
	for _, group := range addrs("239.1.2.3", "ff05::1:3") {
		f, other := IPv4, "10.0.0.1"
		if group.Is6() {
			f, other = IPv6, "fe80::1"
		}
		r := newRig(t, VLANConfig{RouterOnly: true})
		if res := r.accept(3, reportFrame(rec{isEx, group, nil})); res.Verdict != Flood {
			t.Errorf("%+v: without a querier, another snooper may need it", res)
		}
		r.mustGet(group, flood)
		r.accept(7, queryFrom(other))
		r.pass(10*time.Second - 1)
		r.mustGet(group, flood) // not all have answered
		r.accept(4, reportFrame(rec{isEx, group, nil}))
		r.pass(1)
		r.mustGet(group, 3, 4, 7)
		r.to(255*time.Second - 1)
		if q := r.querierOf(f); !q.Filtering {
			t.Errorf("%+v", q)
		}
		r.pass(1)
		r.mustGet(group, flood)
		if q := r.querierOf(f); q.Addr.IsValid() || q.Filtering {
			t.Errorf("%+v", q)
		}
	}
}

// TestSlowQuerier has a querier that asks less often than this switch would: what
// its hosts report must last as long (RFC 3376 sections 4.1.6 and 4.1.7).
func TestSlowQuerier(t *testing.T) {
	group := addr("239.1.2.3")
	q := []byte{0x11, 0x8f, 0, 0, 0, 0, 0, 0, 3, 0xa2, 0, 0} // 24.8 s; robustness 3, 576 s
	r := newRig(t, VLANConfig{})
	r.accept(7, ip4(addr("10.0.0.1"), addr("224.0.0.1"), 1, 2, q, 2))
	r.accept(3, reportFrame(rec{isEx, group, nil}))
	if m, _ := r.of(3, group); m.Expires != 3*576*time.Second+24800*time.Millisecond {
		t.Errorf("expires in %v", m.Expires)
	}
	if q := r.querierOf(IPv4); q.Expires != 3*576*time.Second+12400*time.Millisecond {
		t.Errorf("%+v", q)
	}
	r.accept(7, pimHello("10.0.0.1")) // which alone counts for less
	if p := r.Routers(); len(p) != 1 || p[0].Expires != 3*576*time.Second+12400*time.Millisecond {
		t.Errorf("%+v", p)
	}
}

// TestHeed has a leave where another is the querier: its queries lower the timers,
// and only its own.
func TestHeed(t *testing.T) {
	group := addr("239.1.2.3")
	setup := func() *rig {
		r := newRig(t, VLANConfig{})
		r.accept(7, queryFrom("10.0.0.1"))
		r.pass(10 * time.Second)
		r.accept(3, reportFrame(rec{isEx, group, nil}))
		r.accept(4, reportFrame(rec{isIn, group, sourcesOf(group, "a b")}))
		res := r.accept(3, leaveFrame(group))
		if res.Verdict != ToRouters || !slices.Equal(res.Ports, []uint16{7}) {
			t.Errorf("%+v", res)
		}
		if got := state(r.of(3, group)); got != "EXCLUDE(260)" || len(r.sent) != 0 {
			t.Errorf("%s, %d queries: the leave is the querier's business", got, len(r.sent))
		}
		return r
	}
	t.Run("the group", func(t *testing.T) {
		r := setup()
		r.accept(7, specificQuery("10.0.0.1", group, 10))
		r.pass(2*time.Second - 1)
		r.mustGet(group, 3, 4, 7)
		r.pass(1)
		r.mustGet(group, 4, 7)
	})
	t.Run("a source", func(t *testing.T) {
		r := setup()
		r.accept(7, specificQuery("10.0.0.1", group, 10, sourcesOf(group, "a")...))
		if got := state(r.of(4, group)); got != "INCLUDE a=2 b=260" {
			t.Error(got)
		}
	})
	t.Run("in no time", func(t *testing.T) {
		r := setup()
		r.accept(7, specificQuery("10.0.0.1", group, 0))
		r.mustGet(group, 3, 4, 7)
	})
	for name, c := range map[string]struct {
		port  uint16
		frame []byte
	}{
		"by another":           {7, specificQuery("10.0.0.2", group, 10)},
		"from another port":    {5, specificQuery("10.0.0.1", group, 10)},
		"of an unknown group":  {7, specificQuery("10.0.0.1", addr("239.9.9.9"), 10)},
		"general":              {7, queryFrom("10.0.0.1")},
		"with the S flag":      {7, ip4(addr("10.0.0.1"), group, 1, 2, []byte{0x11, 10, 0, 0, 239, 1, 2, 3, 8 | 2, 125, 0, 0}, 2)},
		"of an unknown source": {7, specificQuery("10.0.0.1", group, 10, sourcesOf(group, "z")...)},
	} {
		t.Run(name, func(t *testing.T) {
			r := setup()
			r.accept(c.port, c.frame)
			if a, b := state(r.of(3, group)), state(r.of(4, group)); a != "EXCLUDE(260)" || b != "INCLUDE a=260 b=260" {
				t.Errorf("%s, %s", a, b)
			}
		})
	}
	t.Run("as IGMPv1", func(t *testing.T) {
		r := newRig(t, VLANConfig{})
		r.accept(7, ip4(addr("10.0.0.1"), addr("224.0.0.1"), 1, 2, []byte{0x11, 0, 0, 0, 0, 0, 0, 0}, 2))
		if q := r.querierOf(IPv4); q.Version != 1 || q.Expires != 255*time.Second {
			t.Errorf("%+v", q)
		}
	})
}

func TestRouterPorts(t *testing.T) {
	for _, c := range []struct {
		name   string
		frame  []byte
		family Family
		port   bool
	}{
		{"IGMP query", queryFrom("10.0.0.9"), IPv4, true},
		{"MLD query", queryFrom("fe80::9"), IPv6, true},
		{"IGMP query of a switch for a querier that is known", queryFrom("0.0.0.0"), IPv4, false},
		{"query for a group", specificQuery("10.0.0.9", addr("239.1.2.3"), 10), IPv4, false},
		{"PIM hello", pimHello("10.0.0.9"), IPv4, true},
		{"PIM hello of IPv6", pimHello("fe80::9"), IPv6, true},
		{"advertisement of RFC 4286", ip4(host4, addr("224.0.0.106"), 1, 2, []byte{0x30, 20, 0, 0, 0, 125, 0, 2}, 2), IPv4, true},
		{"advertisement of RFC 4286, IPv6", ip6(host6, addr("ff02::6a"), 1, 58, []byte{151, 20, 0, 0, 0, 125, 0, 2}, 2), IPv6, true},
		{"another PIM message", ip4(host4, addr("224.0.0.13"), 1, 103, []byte{0x23, 0, 0, 0}, 2), IPv4, false},
		{"report", oldReport(2, addr("239.1.2.3")), IPv4, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := filtering(t, VLANConfig{RouterOnly: true})
			r.accept(7, c.frame)
			if got := len(r.Routers()) == 1; got != c.port {
				t.Fatalf("%+v", r.Routers())
			}
			if !c.port {
				return
			}
			group, unknown := addr("239.1.1.1"), addr("239.9.9.9")
			if c.family == IPv6 {
				group, unknown = addr("ff05::1:1:1"), addr("ff05::9:9:9")
			}
			if p := r.Routers()[0]; p.Family != c.family || p.Port != 7 || p.Static || p.Expires != 255*time.Second {
				t.Errorf("%+v", p)
			}
			r.accept(3, reportFrame(rec{isEx, group, nil}))
			r.mustGet(group, 3, 7)
			r.mustGet(unknown, 7)
			r.pass(255*time.Second - 1)
			r.mustGet(unknown, 7)
			r.pass(1)
			r.mustGet(unknown)
		})
	}
	t.Run("one ends after another", func(t *testing.T) {
		r := newRig(t, VLANConfig{})
		for port := range uint16(3) {
			r.accept(port, pimHello("10.0.0.9"))
			r.pass(time.Second)
		}
		r.pass(252 * time.Second)
		for left := range 3 {
			if got := len(r.Routers()); got != 2-left {
				t.Errorf("%d ports lead to routers, want %d", got, 2-left)
			}
			r.pass(time.Second)
		}
	})
	t.Run("the only querier has no address", func(t *testing.T) {
		r := newRig(t, VLANConfig{})
		r.accept(7, queryFrom("0.0.0.0"))
		res := r.accept(3, reportFrame(rec{isEx, addr("239.1.2.3"), nil}))
		if res.Verdict != ToRouters || !slices.Equal(res.Ports, []uint16{7}) {
			t.Errorf("%+v: it would not know of the group", res)
		}
	})
	t.Run("static", func(t *testing.T) {
		r := filtering(t, VLANConfig{RouterOnly: true})
		r.SetPort(8, PortConfig{Router: RouterAlways})
		r.pass(time.Hour)
		for _, group := range addrs("239.9.9.9", "ff05::9:9") {
			r.mustGet(group, 8)
		}
		if p := r.Routers(); len(p) != 2 || !p[0].Static || p[0].Expires != 0 {
			t.Errorf("%+v", p)
		}
		r.accept(8, pimHello("10.0.0.9"))
		r.SetPort(8, PortConfig{})
		r.mustGet(addr("239.9.9.9"), 8)
		r.mustGet(addr("ff05::9:9"))
		r.SetPort(8, PortConfig{Router: RouterAlways})
		r.RemovePort(8)
		for _, group := range addrs("239.9.9.9", "ff05::9:9") {
			r.mustGet(group)
		}
	})
	t.Run("several", func(t *testing.T) {
		r := filtering(t, VLANConfig{})
		for port := uint16(20); port > 0; port-- {
			r.accept(port, pimHello("10.0.0.9"))
			r.SetPort(port, PortConfig{Router: RouterAlways})
		}
		res := r.accept(30, oldReport(2, addr("239.1.2.3")))
		if len(res.Ports) != 20 || !slices.IsSorted(res.Ports) {
			t.Errorf("%+v", res)
		}
	})
	t.Run("never", func(t *testing.T) {
		r := newRig(t, VLANConfig{Querier: true, IPv4: addr("10.0.0.50")})
		r.accept(8, queryFrom("10.0.0.1"))
		if q := r.querierOf(IPv4); q.Own {
			t.Errorf("%+v", q)
		}
		r.SetPort(8, PortConfig{Router: RouterNever})
		if q := r.querierOf(IPv4); !q.Own {
			t.Errorf("%+v", q)
		}
		guarded := [][]byte{
			queryFrom("10.0.0.1"), queryFrom("fe80::1"), specificQuery("10.0.0.1", addr("239.1.2.3"), 10), pimHello("10.0.0.1"), pimHello("fe80::1"),
			ip4(host4, addr("224.0.0.13"), 1, 103, []byte{0x23, 0, 0, 0}, 2),            // PIM join
			ip4(host4, addr("224.0.0.2"), 1, 2, []byte{0x14, 0, 0, 0, 0, 0, 0, 0}, 2),   // PIMv1
			ip4(host4, addr("224.0.0.4"), 1, 2, []byte{0x13, 1, 0, 0, 0, 0, 3, 255}, 2), // DVMRP
			ip4(host4, addr("224.0.0.106"), 1, 2, []byte{0x30, 20, 0, 0, 0, 125, 0, 2}, 2),
			ip4(host4, addr("224.0.0.106"), 1, 2, []byte{0x32, 0, 0, 0, 0, 0, 0, 0}, 2),
			ip6(host6, addr("ff02::6a"), 1, 58, []byte{151, 20, 0, 0, 0, 125, 0, 2}, 2),
			ip6(host6, addr("ff02::6a"), 1, 58, []byte{153, 0, 0, 0, 0, 0, 0, 0}, 2),
		}
		for _, frame := range guarded {
			if res := r.Receive(1, 8, frame); res.Verdict != Drop || res.Reason != RouterGuard {
				t.Errorf("%+v", res)
			}
		}
		for _, frame := range [][]byte{ // of hosts
			ip4(host4, addr("224.0.0.106"), 1, 2, []byte{0x31, 0, 0, 0, 0, 0, 0, 0}, 2),
			ip6(host6, addr("ff02::6a"), 1, 58, []byte{152, 0, 0, 0, 0, 0, 0, 0}, 2),
		} {
			if res := r.accept(8, frame); res.Verdict != Flood {
				t.Errorf("%+v", res)
			}
		}
		if res := r.accept(8, oldReport(2, addr("239.1.2.3"))); res.Verdict != ToRouters {
			t.Errorf("%+v: a host's report is none of a router's", res)
		}
		if len(r.Routers()) != 0 || !r.querierOf(IPv4).Own || r.Stats().Dropped[RouterGuard] != uint64(len(guarded)) {
			t.Errorf("%+v, %+v", r.Routers(), r.Stats())
		}
	})
}

// TestQuerierPortDown has the querier's link cut: nobody asks any more, so this
// switch asks, or the VLAN floods.
func TestQuerierPortDown(t *testing.T) {
	group := addr("239.1.2.3")
	for _, own := range []bool{true, false} {
		r := newRig(t, VLANConfig{Querier: own})
		r.accept(7, queryFrom("10.0.0.1"))
		r.accept(3, oldReport(2, group))
		r.pass(10 * time.Second)
		r.mustGet(group, 3, 7)
		r.PortDown(7)
		if own {
			r.mustGet(group, 3)
		} else {
			r.mustGet(group, flood)
		}
		if q := r.querierOf(IPv4); q.Own != own {
			t.Errorf("%+v", q)
		}
	}
}

// TestTopologyChange floods until the hosts had the time to say where they are now.
func TestTopologyChange(t *testing.T) {
	group := addr("239.1.2.3")
	r := filtering(t, VLANConfig{})
	r.accept(3, oldReport(2, group))
	r.mustGet(group, 3)
	start := r.now
	r.TopologyChange()
	r.mustGet(group, flood)
	r.accept(4, oldReport(2, group))
	r.pass(10*time.Second - 1)
	r.mustGet(group, flood)
	r.pass(1)
	r.mustGet(group, 3, 4)
	if at := r.generals(IPv4); len(at) == 0 || at[0] != start {
		t.Errorf("asked at %v", at)
	}

	r.pass(200 * time.Second)
	want := []time.Duration{start, start + 31250*time.Millisecond, start + 156250*time.Millisecond} // as at the start
	if at := r.generals(IPv4); !slices.Equal(at, want) {
		t.Errorf("asked at %v, want %v", at, want)
	}

	r = newRig(t, VLANConfig{})
	r.TopologyChange() // nobody asks: nothing is filtered
	r.accept(7, queryFrom("10.0.0.1"))
	r.accept(3, oldReport(2, group))
	r.pass(10 * time.Second)
	r.mustGet(group, 3, 7)
	r.TopologyChange()
	r.pass(125 * time.Second)
	r.accept(7, queryFrom("10.0.0.1"))
	r.pass(10*time.Second - 1)
	r.mustGet(group, flood)
	r.pass(1)
	r.mustGet(group, 3, 7)
}

// TestPortUp asks a new port's hosts at once, where this switch is the querier.
func TestPortUp(t *testing.T) {
	r := filtering(t, VLANConfig{})
	if err := r.SetVLAN(2, VLANConfig{}); err != nil {
		t.Fatal(err)
	}
	r.PortUp(3)
	var families []Family
	for _, s := range r.sent {
		if s.vlan != 1 || s.port != 3 || s.m.group.IsValid() {
			t.Errorf("%+v", s)
		}
		families = append(families, s.m.family)
	}
	if !slices.Equal(families, []Family{IPv4, IPv6}) {
		t.Errorf("asked %v", families)
	}
}

// TestPortUpAmongOthers asks a new port's hosts where another is the querier, so that its
// election does not hear of it.
func TestPortUpAmongOthers(t *testing.T) {
	for _, c := range []struct {
		name  string
		hears string
		want  []string
	}{
		{"nobody asks", "", nil},
		{"IPv4", "10.0.0.9", []string{"0.0.0.0"}},
		{"IPv6, of a lower address", "fe80::1", []string{"fe80::5056:78ff:fe9a:bcde"}},
		{"IPv6, of a higher address", "fe80::ffff:0:0:0", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, VLANConfig{IPv4: addr("10.0.0.1")})
			if c.hears != "" {
				r.accept(7, queryFrom(c.hears))
			}
			r.PortUp(3)
			var got []string
			for _, s := range r.sent {
				if s.port != 3 || s.m.group.IsValid() {
					t.Errorf("%+v", s)
				}
				got = append(got, s.m.src.String())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("asked from %v, want %v", got, c.want)
			}
		})
	}
}

// TestPortLeft has a port that carries one VLAN less.
func TestPortLeft(t *testing.T) {
	group := addr("239.1.2.3")
	r := newRig(t, VLANConfig{})
	if err := r.SetVLAN(2, VLANConfig{}); err != nil {
		t.Fatal(err)
	}
	for _, vlan := range []uint16{1, 2} {
		r.Receive(vlan, 7, queryFrom("10.0.0.1"))
		r.Receive(vlan, 3, oldReport(2, group))
		r.Receive(vlan, 4, oldReport(2, group))
	}
	r.pass(10 * time.Second)
	r.PortLeft(1, 3)
	r.PortLeft(1, 9) // nothing is known of it
	r.PortLeft(5, 3)
	r.mustGet(group, 4, 7)
	if ports, _ := r.Table().Lookup(2, groupMAC(group)); !slices.Equal(ports, []uint16{3, 4, 7}) {
		t.Errorf("in VLAN 2 it goes to %v", ports)
	}
	r.PortLeft(2, 7)
	if q := r.Queriers(); !q[0].Addr.IsValid() || q[2].Addr.IsValid() {
		t.Errorf("%+v", q)
	}
	if p := r.Routers(); len(p) != 1 || p[0].VLAN != 1 {
		t.Errorf("%+v", p)
	}
}

// TestCappedQuery has queries that ask for silence of hours: they get some of it, or none.
func TestCappedQuery(t *testing.T) {
	query := func(f Family, code int, robustness, interval byte) []byte {
		if f == IPv4 {
			return ip4(addr("10.0.0.9"), addr("224.0.0.1"), 1, 2, []byte{0x11, byte(code), 0, 0, 0, 0, 0, 0, robustness, interval, 0, 0}, 2)
		}
		return ip6(addr("fe80::9"), addr("ff02::1"), 1, 58, slices.Concat([]byte{130, 0, 0, 0}, be16(code), make([]byte, 18), []byte{robustness, interval, 0, 0}), 2)
	}
	for _, f := range []Family{IPv4, IPv6} {
		minute, beyond := 0xa2, 0xa3 // 57.6 s, 60.8 s
		if f == IPv6 {
			minute, beyond = 0x8d4c, 0x8d4d // 60 s, 60.008 s
		}
		for _, c := range []struct {
			name       string
			code       int
			robustness byte
			interval   byte
			expires    time.Duration // 0: this switch goes on asking
		}{
			{"all it can say", 0xff, 7, 0xff, 0},
			{"an interval", 100, 2, 0xff, 20 * time.Minute},
			{"a robustness", 100, 7, 125, 3 * 125 * time.Second},
			{"both", 100, 7, 0xff, 30 * time.Minute},
			{"a long time to answer", minute, 2, 125, 250 * time.Second},
			{"too long a time to answer", beyond, 2, 125, 0},
		} {
			t.Run(f.String()+" "+c.name, func(t *testing.T) {
				if f == IPv6 && c.code == 0xff {
					c.code = 0xffff
				}
				r := newRig(t, VLANConfig{Querier: true})
				r.to(20 * time.Second)
				r.sent = nil
				if res := r.accept(5, query(f, c.code, c.robustness, c.interval)); res.Verdict != Flood {
					t.Errorf("%+v", res)
				}
				q := r.querierOf(f)
				if q.Own != (c.expires == 0) || q.Expires < c.expires || q.Expires > c.expires+31*time.Second {
					t.Errorf("%+v", q)
				}
				r.pass(max(c.expires, 125*time.Second) + 31*time.Second)
				if !r.querierOf(f).Own || len(r.generals(f)) == 0 {
					t.Errorf("it does not ask: %+v", r.querierOf(f))
				}
			})
		}
	}
}

// TestQuerierChanges has a host that answers each query that it hears, as late as it may,
// and a guest that becomes the querier at any moment, for one query or for good. The
// host's group goes on all the time.
func TestQuerierChanges(t *testing.T) {
	group := addr("239.1.2.3")
	for from := 20 * time.Second; from < 160*time.Second; from += 11 * time.Second {
		for _, again := range []time.Duration{0, 200 * time.Second, 550 * time.Second} {
			r := newRig(t, VLANConfig{Querier: true, RouterOnly: true, IPv4: addr("10.0.0.50")})
			r.accept(3, oldReport(2, group))
			// 10 s to answer; an interval of 576 s that is not kept
			query := ip4(addr("10.0.0.9"), addr("224.0.0.1"), 1, 2, []byte{0x11, 100, 0, 0, 0, 0, 0, 0, 2, 0xa2, 0, 0}, 2)
			next, heard, answer := from, 0, time.Duration(0)
			for now := time.Duration(0); now < 1500*time.Second; now += time.Second {
				r.to(now)
				asked := len(r.generals(IPv4)) > 0
				if r.sent = nil; now >= next {
					r.accept(5, query)
					// The host's NIC misses every second of them.
					if heard++; heard%2 == 0 {
						asked = true
					}
					if next = now + again; again == 0 {
						next = time.Hour
					}
				}
				if answer != 0 && now >= answer {
					r.accept(3, oldReport(2, group))
					answer = 0
				}
				if asked && answer == 0 {
					answer = now + 10*time.Second
				}
				if got := r.gets(group); now > 20*time.Second && !slices.Contains(got, 3) && !slices.Contains(got, flood) {
					t.Fatalf("another asks from %v, every %v: at %v %v goes to %v", from, again, now, group, got)
				}
			}
		}
	}
}

// TestQuerierComesBack has this switch ask again after another: as after its startup, and
// by its own times.
func TestQuerierComesBack(t *testing.T) {
	group := addr("239.1.2.3")
	r := newRig(t, VLANConfig{Querier: true, StartupCount: 3})
	r.to(time.Second)                                                                                                  // two startup queries are still to come
	r.accept(7, ip4(addr("10.0.0.1"), addr("224.0.0.1"), 1, 2, []byte{0x11, 100, 0, 0, 0, 0, 0, 0, 3, 0x98, 0, 0}, 2)) // 3 times 384 s
	lost := time.Second + 3*384*time.Second + 5*time.Second
	r.sent = nil
	r.to(lost + 126*time.Second)
	if at, want := r.generals(IPv4), []time.Duration{lost, lost + 125*time.Second}; !slices.Equal(at, want) {
		t.Errorf("asked at %v, want %v", at, want)
	}
	r.accept(3, oldReport(2, group))
	if m, _ := r.of(3, group); m.Expires != testGMI {
		t.Errorf("a group ends in %v", m.Expires)
	}
}

// TestFloodsWithoutQuerier floods from the moment that nobody asks, though a router is there.
func TestFloodsWithoutQuerier(t *testing.T) {
	group := addr("239.1.2.3")
	r := newRig(t, VLANConfig{})
	r.accept(7, queryFrom("10.0.0.1"))
	r.pass(100 * time.Second)
	r.accept(7, pimHello("10.0.0.1"))
	r.accept(3, oldReport(2, group))
	r.to(255*time.Second - 1)
	r.mustGet(group, 3, 7)
	r.pass(1)
	if len(r.Routers()) != 1 {
		t.Errorf("%+v", r.Routers())
	}
	r.mustGet(group, flood)
}

// TestSilentPortsAreAskedOnce has many groups of some ports near their end.
func TestSilentPortsAreAskedOnce(t *testing.T) {
	r := newRig(t, VLANConfig{Querier: true})
	r.to(20 * time.Second)
	for i := range 60 {
		r.accept(uint16(i%3), oldReport(2, netip.AddrFrom4([4]byte{239, 1, 1, byte(i)})))
	}
	if err := r.AddStatic(1, 9, addr("239.1.1.1")); err != nil {
		t.Fatal(err)
	}
	r.sent = nil
	r.to(160 * time.Second)
	var asked []uint16
	for _, s := range r.sent {
		if s.m.src == addr("223.255.255.254") {
			asked = append(asked, s.port)
		}
	}
	if !slices.Equal(asked, []uint16{0, 1, 2}) {
		t.Errorf("asked ports %v", asked)
	}
	// Ports whose hosts answered at the last moment are not silent.
	for i := range 60 {
		r.accept(uint16(i%3), oldReport(2, netip.AddrFrom4([4]byte{239, 1, 1, byte(i)})))
	}
	r.sent = nil
	r.pass(122 * time.Second)
	if n := len(r.generals(IPv4)); n != 1 || len(r.sent) != 2 {
		t.Errorf("%d general queries; sent %+v", n, r.sent)
	}
}

// TestIsolatedQuerier has a port that not all others hear: its router gets what it asks for,
// and this switch goes on asking.
func TestIsolatedQuerier(t *testing.T) {
	r := newRig(t, VLANConfig{Querier: true})
	r.SetPort(5, PortConfig{Isolated: true})
	r.accept(5, queryFrom("10.0.0.1"))
	if q := r.querierOf(IPv4); !q.Own {
		t.Errorf("%+v", q)
	}
	if p := r.Routers(); len(p) != 1 || p[0].Port != 5 {
		t.Errorf("%+v", p)
	}
	// A port that becomes one, or is one no more.
	r.accept(6, queryFrom("10.0.0.1"))
	if q := r.querierOf(IPv4); q.Own || q.Port != 6 {
		t.Errorf("%+v", q)
	}
	r.SetPort(5, PortConfig{})
	if q := r.querierOf(IPv4); q.Own || q.Port != 6 {
		t.Errorf("%+v", q)
	}
	r.SetPort(6, PortConfig{Isolated: true})
	if q := r.querierOf(IPv4); !q.Own {
		t.Errorf("%+v", q)
	}
	r.accept(5, queryFrom("10.0.0.1"))
	if q := r.querierOf(IPv4); q.Own || q.Port != 5 {
		t.Errorf("%+v", q)
	}
}

// TestQuerierVersions names versions as their protocol does, on either side.
func TestQuerierVersions(t *testing.T) {
	r := newRig(t, VLANConfig{Querier: true, MLDVersion: 1, IGMPVersion: 2})
	if a, b := r.querierOf(IPv4).Version, r.querierOf(IPv6).Version; a != 2 || b != 1 {
		t.Errorf("this switch speaks IGMPv%d and MLDv%d", a, b)
	}
	for _, s := range r.sent {
		if s.m.version != 2 { // MLDv1 is version 2 of IGMP
			t.Errorf("%+v", s)
		}
	}
	r.accept(7, queryFrom("10.0.0.1"))
	r.accept(7, queryFrom("fe80::1"))
	if a, b := r.querierOf(IPv4).Version, r.querierOf(IPv6).Version; a != 3 || b != 2 {
		t.Errorf("the other speaks IGMPv%d and MLDv%d", a, b)
	}
	r = newRig(t, VLANConfig{})
	for _, f := range []Family{IPv4, IPv6} {
		if q := r.querierOf(f); q.Version != 0 || q.Addr.IsValid() || q.Own {
			t.Errorf("%+v", q)
		}
	}
}

// TestChangesAreCheap has guests that take the place of each other as the querier with
// every frame.
func TestChangesAreCheap(t *testing.T) {
	r := filtering(t, VLANConfig{})
	r.accept(3, oldReport(2, addr("239.1.2.3")))
	r.accept(5, queryFrom("10.0.0.0")) // lower than our own
	first := r.vlans[1].inst[IPv4].extended
	r.pass(9 * time.Second)
	r.accept(6, queryFrom("10.0.0.0"))
	if got := r.vlans[1].inst[IPv4].extended; got != first {
		t.Errorf("all groups were visited again after 9 s")
	}
	if m, _ := r.of(3, addr("239.1.2.3")); m.Expires < testGMI {
		t.Errorf("the group ends in %v", m.Expires)
	}
	r.pass(time.Second)
	r.accept(5, queryFrom("10.0.0.0"))
	if m, _ := r.of(3, addr("239.1.2.3")); m.Expires != testGMI+10*time.Second {
		t.Errorf("the group ends in %v", m.Expires)
	}
}

// TestPickyHost has a host that takes no query from 0.0.0.0, and one that takes none from
// beyond its network: both keep their groups, and an election hears of nothing.
func TestPickyHost(t *testing.T) {
	picky, strict := addr("239.1.2.3"), addr("239.1.2.4")
	r := newRig(t, VLANConfig{Querier: true})
	r.to(20 * time.Second)
	r.accept(3, oldReport(2, picky))
	r.accept(4, reportFrame(rec{isIn, strict, sourcesOf(strict, "a")}))
	for now := r.now; now < 2000*time.Second; now += time.Second {
		r.to(now)
		for _, s := range r.sent {
			switch {
			case s.m.family == IPv6 || s.m.group.IsValid() && s.m.group != picky:
			case s.port == 3 && s.m.src == addr("223.255.255.254"):
				r.accept(3, oldReport(2, picky))
			case s.port == AllPorts && s.m.src == addr("0.0.0.0"):
				r.accept(4, reportFrame(rec{isIn, strict, sourcesOf(strict, "a")}))
			default:
				t.Errorf("at %v %+v", now, s)
			}
		}
		r.sent = nil
		r.mustGet(picky, 3)
		r.mustGet(strict, 4)
	}
	// The same for a leave, and for a port that came up.
	r.accept(3, leaveFrame(picky))
	r.PortUp(3)
	r.pass(0)
	var from []netip.Addr
	for _, s := range r.sent {
		if s.m.family == IPv4 {
			from = append(from, s.m.src)
		}
	}
	want := addrs("0.0.0.0", "223.255.255.254", "0.0.0.0", "223.255.255.254")
	if !slices.Equal(from, want) {
		t.Errorf("asked from %v, want %v", from, want)
	}
	// A switch that has an address asks from it alone.
	r = filtering(t, VLANConfig{})
	r.accept(3, oldReport(2, picky))
	r.pass(250 * time.Second)
	r.PortUp(3)
	for _, s := range r.sent {
		if s.m.family == IPv4 && s.m.src != addr("10.0.0.1") {
			t.Errorf("%+v", s)
		}
	}
}

// TestReconfigure turns the querier on and off while others ask.
func TestReconfigure(t *testing.T) {
	r := newRig(t, VLANConfig{})
	set := func(cfg VLANConfig) {
		t.Helper()
		if err := r.SetVLAN(1, cfg); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(own bool, who string) {
		t.Helper()
		q := r.querierOf(IPv4)
		var want netip.Addr
		if who != "" {
			want = addr(who)
		}
		if q.Own != own || q.Addr != want {
			t.Errorf("%+v, want own %v, %v", q, own, want)
		}
	}
	expect(false, "")
	set(VLANConfig{Querier: true, IPv4: addr("10.0.0.5")})
	expect(true, "10.0.0.5")
	r.pass(10 * time.Second)
	r.accept(3, oldReport(2, addr("239.1.2.3")))
	r.mustGet(addr("239.1.2.3"), 3)
	set(VLANConfig{})
	expect(false, "")
	r.mustGet(addr("239.1.2.3"), flood)
	r.sent = nil
	r.pass(200 * time.Second)
	if len(r.sent) != 0 {
		t.Errorf("sent %+v", r.sent)
	}
	r.accept(7, queryFrom("10.0.0.4"))
	set(VLANConfig{Querier: true, IPv4: addr("10.0.0.5")})
	expect(false, "10.0.0.4")
	set(VLANConfig{Querier: true, IPv4: addr("10.0.0.3")})
	expect(true, "10.0.0.3")
	r.accept(7, pimHello("10.0.0.9"))
	r.RemoveVLAN(1)
	if at, ok := r.Next(); ok {
		t.Errorf("a timer of the VLAN goes on, to %v", at)
	}
}

// What is gone leaves nothing to do: no timer runs for a VLAN that is removed, or for a
// router whose port lost its link.
func TestNothingIsDueForWhatIsGone(t *testing.T) {
	g4 := addr("239.1.2.3")
	for name, prepare := range map[string]func(r *rig){
		"a querier of our own": func(r *rig) {
			if err := r.SetVLAN(1, VLANConfig{Querier: true}); err != nil {
				t.Fatal(err)
			}
		},
		"another querier": func(r *rig) { r.accept(3, queryFrom("10.0.0.2")) },
		"a router":        func(r *rig) { r.accept(3, pimHello("10.0.0.2")) },
		"a member":        func(r *rig) { r.accept(3, oldReport(2, g4)) },
		"a member that leaves": func(r *rig) {
			r.accept(4, queryFrom("10.0.0.2"))
			r.pass(time.Minute)
			r.accept(3, oldReport(2, g4))
			r.accept(3, leaveFrame(g4))
		},
		"a static group": func(r *rig) {
			if err := r.AddStatic(1, 3, g4); err != nil {
				t.Fatal(err)
			}
			r.accept(3, oldReport(2, g4))
		},
	} {
		r := newRig(t, VLANConfig{})
		prepare(r)
		r.RemoveVLAN(1)
		if at, ok := r.Next(); ok || len(r.timers.h) != 0 || r.memberships != 0 {
			t.Errorf("%s: at %v something is due, at %v", name, r.now, at)
		}
	}
	r := newRig(t, VLANConfig{})
	r.accept(3, pimHello("10.0.0.2"))
	r.accept(3, pimHello("fe80::2"))
	r.accept(4, oldReport(2, g4))
	r.PortDown(3)
	r.PortDown(4)
	if at, ok := r.Next(); ok {
		t.Errorf("links are down, and something is due at %v", at)
	}
}

// A querier that comes back asks at its usual pace, not as one that starts, since it
// asked often enough before.
func TestPaceOfAQuerierThatComesBack(t *testing.T) {
	r := newRig(t, VLANConfig{Querier: true, IPv4: addr("10.0.0.9"), RouterTimeout: time.Hour})
	r.pass(time.Second) // the first startup query is sent
	r.accept(3, queryFrom("10.0.0.2"))
	r.pass(10 * time.Second)
	r.sent = nil
	r.PortDown(3)
	r.pass(300 * time.Second)
	at := r.generals(IPv4)
	if want := []time.Duration{11 * time.Second, 136 * time.Second, 261 * time.Second}; !slices.Equal(at, want) {
		t.Errorf("it asks at %v, want %v", at, want)
	}
}

// A switch that asks from 0.0.0.0 needs reports and data where it is the only one that
// asks; else it asks on behalf of a querier with an address, and leads to no router.
func TestQueriesWithoutAnAddress(t *testing.T) {
	routers := func(r *rig) (ports []uint16) {
		for _, p := range r.Routers() {
			if p.Family == IPv4 {
				ports = append(ports, p.Port)
			}
		}
		return ports
	}
	for _, c := range []struct {
		name  string
		cfg   VLANConfig
		heard string // before, at port 4
		want  []uint16
	}{
		{"nobody asks", VLANConfig{}, "", []uint16{5}},
		{"one with an address asks", VLANConfig{}, "10.0.0.2", []uint16{4}},
		{"one without asks", VLANConfig{}, "0.0.0.0", []uint16{4, 5}},
		{"this one asks from an address", VLANConfig{Querier: true, IPv4: addr("10.0.0.1")}, "", nil},
		{"this one asks without", VLANConfig{Querier: true}, "", []uint16{5}},
	} {
		r := newRig(t, c.cfg)
		if c.heard != "" {
			r.accept(4, queryFrom(c.heard))
		}
		r.accept(5, queryFrom("0.0.0.0"))
		if got := routers(r); !slices.Equal(got, c.want) {
			t.Errorf("%s: ports %v lead to routers, want %v", c.name, got, c.want)
		}
	}
	// The only one is there for as long as it asks.
	r := newRig(t, VLANConfig{})
	for range 10 {
		r.accept(4, queryFrom("0.0.0.0"))
		r.pass(125 * time.Second)
		if q := r.querierOf(IPv4); q.Addr != addr("0.0.0.0") || q.Port != 4 {
			t.Fatalf("at %v: %+v", r.now, q)
		}
	}
}
