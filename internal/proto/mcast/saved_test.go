package mcast

import (
	"encoding/json"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// replacing has each rig's Snooper replaced by another one after each event.
var replacing bool

// replace has another Snooper go on, in place of the rig's.
func (r *rig) replace() {
	r.t.Helper()
	if !replacing {
		return
	}
	b, err := json.Marshal(r.Save())
	if err != nil {
		r.t.Fatal(err)
	}
	saved := new(Saved)
	if err := json.Unmarshal(b, saved); err != nil {
		r.t.Fatal(err)
	}
	next, sent := New(r.cfg), len(r.sent)
	next.Advance(r.now)
	for id, p := range r.ports {
		next.SetPort(id, p.PortConfig)
	}
	if err := next.Restore(saved, func(vlan uint16) VLANConfig { return r.vlans[vlan].cfg }, func(id uint16) (uint16, bool) { return id, true }); err != nil {
		r.t.Fatalf("%v: %s", err, b)
	}
	for _, m := range r.Groups() {
		if m.Static {
			if err := next.AddStatic(m.VLAN, m.Port, m.Group); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	if len(r.sent) != sent {
		r.t.Fatalf("at %v, the next Snooper asks at once: %+v", r.now, r.sent[sent:])
	}
	r.Snooper = next
}

// What holds for a Snooper holds for one that is replaced after each message and each timer. The
// tests with the most messages are left out, for their time.
func TestSaved(t *testing.T) {
	replacing = true
	defer func() { replacing = false }()
	for name, test := range map[string]func(*testing.T){
		"TestAlwaysFlooded": TestAlwaysFlooded, "TestSilentStation": TestSilentStation, "TestExpiry": TestExpiry,
		"TestOlderHosts": TestOlderHosts, "TestLastMember": TestLastMember,
		"TestFastLeave": TestFastLeave, "TestManySources": TestManySources, "TestOwnQuerier": TestOwnQuerier, "TestElection": TestElection,
		"TestFilterNeedsQuerier": TestFilterNeedsQuerier, "TestSlowQuerier": TestSlowQuerier, "TestHeed": TestHeed,
		"TestRouterPorts": TestRouterPorts, "TestQuerierPortDown": TestQuerierPortDown, "TestTopologyChange": TestTopologyChange,
		"TestPortUp": TestPortUp, "TestPortUpAmongOthers": TestPortUpAmongOthers, "TestPortLeft": TestPortLeft, "TestCappedQuery": TestCappedQuery,
		"TestQuerierComesBack": TestQuerierComesBack, "TestFloodsWithoutQuerier": TestFloodsWithoutQuerier,
		"TestSilentPortsAreAskedOnce": TestSilentPortsAreAskedOnce, "TestIsolatedQuerier": TestIsolatedQuerier, "TestQuerierVersions": TestQuerierVersions,
		"TestPickyHost": TestPickyHost, "TestReconfigure": TestReconfigure, "TestPaceOfAQuerierThatComesBack": TestPaceOfAQuerierThatComesBack,
		"TestQueriesWithoutAnAddress": TestQueriesWithoutAnAddress,
	} {
		t.Run(name, test)
	}
}

var same = func(id uint16) (uint16, bool) { return id, true }

// savedConfig is that of testdata/saved.json.
func savedConfig(uint16) VLANConfig { return VLANConfig{RouterOnly: true} }

func recorded(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/saved.json")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A state that the first version wrote, with fields that no version knows, is taken. Ports may have
// other numbers, and one that is gone takes what it had with it.
func TestSavedByTheFirstVersion(t *testing.T) {
	saved := new(Saved)
	if err := json.Unmarshal(recorded(t), saved); err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, Snooper: New(Config{Send: func(uint16, uint16, []byte) { t.Error("it says something") }})}
	r.Advance(time.Hour)
	if err := r.Restore(saved, savedConfig, func(id uint16) (uint16, bool) { return id + 10, id != 3 }); err != nil {
		t.Fatal(err)
	}
	r.mustGet(addr("239.1.2.3"), 11, 12) // 1 is the router's, and 3 is gone
	r.mustGet(addr("232.1.2.3"), 11, 12)
	r.mustGet(addr("239.9.9.9"), 11)
	if m, ok := r.of(12, addr("232.1.2.3")); !ok || m.Exclude || len(m.Sources) != 1 || m.Expires > 260*time.Second {
		t.Errorf("%+v", m)
	}
	if q := r.querierOf(IPv4); q.Own || q.Addr != addr("10.0.0.1") || q.Port != 11 || !q.Filtering {
		t.Errorf("%+v", q)
	}
	r.pass(time.Hour) // and all that ends
	r.mustGet(addr("239.1.2.3"), flood)
	if r.Memberships() != 0 || r.Stats().Reports == 0 {
		t.Errorf("%d memberships, %+v", r.Memberships(), r.Stats())
	}
}

// What no Snooper has is refused, and nothing of it is taken.
func TestSavedRefused(t *testing.T) {
	for name, spoil := range map[string]func(s *Saved, in *SavedInstance){
		"VLAN 0":               func(s *Saved, _ *SavedInstance) { s.VLANs[0].ID = 0 },
		"VLAN 4095":            func(s *Saved, _ *SavedInstance) { s.VLANs[0].ID = 4095 },
		"a VLAN twice":         func(s *Saved, _ *SavedInstance) { s.VLANs = append(s.VLANs, s.VLANs[0]) },
		"no group":             func(_ *Saved, in *SavedInstance) { in.Members[0].Group = addr("224.0.0.1") },
		"an IPv6 group":        func(_ *Saved, in *SavedInstance) { in.Members[0].Group = addr("ff05::7") },
		"a source in IPv6":     func(_ *Saved, in *SavedInstance) { in.Members[0].Sources[0].Address = addr("2001:db8::1") },
		"wants nothing":        func(_ *Saved, in *SavedInstance) { in.Members[0].Sources = nil },
		"forever":              func(_ *Saved, in *SavedInstance) { in.Members[0].Sources[0].Expires = 1 << 60 },
		"longer than a timer":  func(_ *Saved, in *SavedInstance) { in.Trust = longestSaved + 1 },
		"negative":             func(_ *Saved, in *SavedInstance) { in.Routers[1] = -1 },
		"old hosts forever":    func(_ *Saved, in *SavedInstance) { in.Members[0].V1 = 1 << 60 },
		"a querier forever":    func(_ *Saved, in *SavedInstance) { in.Other.Left = 1 << 60 },
		"asks without end":     func(_ *Saved, in *SavedInstance) { in.Startup = 1 << 30 },
		"asks for a group":     func(_ *Saved, in *SavedInstance) { in.Members[0].Queries = 1 << 30 }, // without end
		"asks for a source":    func(_ *Saved, in *SavedInstance) { in.Members[0].Sources[0].Queries = 1 << 30 },
		"no querier":           func(_ *Saved, in *SavedInstance) { in.Other.Address = addr("239.1.1.1") },
		"a slow querier":       func(_ *Saved, in *SavedInstance) { in.Other.Interval = time.Hour },
		"two queriers":         func(_ *Saved, in *SavedInstance) { in.Own = true },
		"more than is allowed": func(_ *Saved, in *SavedInstance) { in.Members = append(in.Members, make([]SavedMember, 9)...) },
	} {
		saved := new(Saved)
		if err := json.Unmarshal(recorded(t), saved); err != nil {
			t.Fatal(err)
		}
		spoil(saved, &saved.VLANs[0].Families[IPv4])
		s := New(Config{Memberships: 8, Send: func(uint16, uint16, []byte) {}})
		if err := s.Restore(saved, savedConfig, same); err == nil {
			t.Errorf("%s: it is taken", name)
		}
		if s.Memberships() != 0 || len(s.vlans) != 0 || s.Stats() != (Stats{}) {
			t.Errorf("%s: something is taken: %d memberships, %d VLANs", name, s.Memberships(), len(s.vlans))
		}
	}
	many := new(Saved)
	if err := json.Unmarshal(recorded(t), many); err != nil {
		t.Fatal(err)
	}
	in := &many.VLANs[0].Families[IPv4]
	one := in.Members[0]
	in.Members = nil
	for n := range byte(ownShare + 3) {
		one.Group = netip.AddrFrom4([4]byte{239, 9, 9, n})
		in.Members = append(in.Members, one)
	}
	many.VLANs = many.VLANs[:1]
	many.VLANs[0].Families[IPv6].Members = nil
	if err := New(Config{Memberships: 2, Send: func(uint16, uint16, []byte) {}}).Restore(many, savedConfig, same); err == nil || !strings.Contains(err.Error(), "room for 34") {
		t.Errorf("more memberships than there is room for: %v", err)
	}
}

// What lies at the limits is taken: a querier may have all that is heeded of one.
func TestSavedAtTheLimits(t *testing.T) {
	saved := new(Saved)
	if err := json.Unmarshal(recorded(t), saved); err != nil {
		t.Fatal(err)
	}
	saved.VLANs[0].ID = maxVLAN
	in := &saved.VLANs[0].Families[IPv4]
	in.Other.Robustness, in.Other.Interval, in.Other.Response = maxHeardRobustness, maxHeardInterval, maxHeardResponse
	in.Other.Left, in.Members[0].Queries = longestSaved, 10
	s := New(Config{Memberships: len(in.Members), Send: func(uint16, uint16, []byte) {}})
	if err := s.Restore(saved, savedConfig, same); err != nil || s.Memberships() != len(in.Members) {
		t.Errorf("%d memberships of %d, %v", s.Memberships(), len(in.Members), err)
	}
}

// FuzzRestore: whatever another process gives, memory is bounded, time goes on, and all that was
// learned ends.
func FuzzRestore(f *testing.F) {
	f.Add(recorded(f))
	f.Fuzz(func(t *testing.T, in []byte) {
		saved := new(Saved)
		if json.Unmarshal(in, saved) != nil {
			return
		}
		r := &rig{t: t, Snooper: New(Config{Memberships: 64, Sources: 4, Send: func(uint16, uint16, []byte) {}})}
		if r.Restore(saved, savedConfig, same) != nil {
			return
		}
		if n := r.Memberships(); n > 64 {
			t.Errorf("%d memberships", n)
		}
		r.Table()
		r.Groups()
		r.Routers()
		r.Queriers()
		r.hear(1, reportFrame(rec{toEx, addr("239.1.2.3"), nil}))
		r.to(2 * longestSaved)
		if n := r.Memberships(); n > 0 {
			t.Errorf("%d memberships do not end", n)
		}
	})
}
