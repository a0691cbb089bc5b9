package lldp

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/feature/featuretest"
	"github.com/vswitch/vswitch/internal/proto/lldp"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
	vswitch "github.com/vswitch/vswitch/switch"
)

// wired is a port with a line on which a test sees what the switch sends.
type wired struct {
	*featuretest.Port
	line *memory.Port
}

func add(t *testing.T, h *featuretest.Host, spec port.Spec, station bool, asked port.AutoOnOff) wired {
	t.Helper()
	spec.Sections = []any{PortSettings{asked}}
	w := wired{h.Add(t, spec, station), memory.New(memory.Options{})}
	if err := w.Core().Attach(w.line); err != nil {
		t.Fatal(err)
	}
	w.Core().SetForwarding(true)
	return w
}

// sent returns the PDUs that the switch has sent by the port since the last call.
func (w wired) sent(t *testing.T) (all []*lldp.PDU) {
	t.Helper()
	w.line.Drain(0, 1000, func(p memory.Packet) {
		pdu, err := lldp.Parse(p.Wire)
		if err != nil {
			t.Error(err)
			return
		}
		all = append(all, pdu)
	})
	return all
}

// Ports to networks speak, stations do only if asked to, and what changes is said at once.
func TestPorts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := featuretest.New(t)
		up := add(t, h, port.Spec{Name: "up0", Policy: port.Policy{VLAN: port.VLAN{Access: 10}, Notes: port.Notes{Description: "to rack 7"}}}, false, "")
		quiet := add(t, h, port.Spec{Name: "up1"}, false, port.AutoOff)
		vm := add(t, h, port.Spec{Name: "vm0"}, true, "")
		asked := add(t, h, port.Spec{Name: "vm1"}, true, port.AutoOn)
		o := Settings{LLDP: true, Name: "host7", Address: setting.Addr{Addr: netip.MustParseAddr("192.0.2.7")}}
		var s *speaker
		h.Do(func() {
			s = start(h, o)
			for p := range h.Ports() {
				s.Configured(p)
				s.Linked(p, true)
			}
		})
		want := func(what string, w wired, n int) []*lldp.PDU {
			t.Helper()
			got := w.sent(t)
			if len(got) != n {
				t.Errorf("%s: %s sent %d PDUs, want %d", what, w.Name(), len(got), n)
			}
			return got
		}
		time.Sleep(10*time.Second + time.Millisecond)
		want("auto, a network", quiet, 0)
		want("auto, a station", vm, 0)
		want("on", asked, 5)
		// A farewell on behalf of who was here before, greetings, and nothing of MED in what follows.
		first := want("auto, a network", up, 5)
		for i, p := range first {
			if (p.TTL == 0) != (i == 0) || (p.MED == lldp.NetworkConnectivity) != (i > 0) {
				t.Errorf("PDU %d is %+v", i, p)
			}
		}
		wantPDU := &lldp.PDU{
			Chassis: lldp.ID{Kind: lldp.KindMAC, Value: "\x02\x00\x00\x00\x00\x01"}, Port: lldp.ID{Kind: lldp.KindIfName, Value: "up0"}, TTL: 121,
			PortDescription: "to rack 7", SystemName: "host7", SystemDescription: "vswitch, a virtual Ethernet switch",
			Capabilities: lldp.Bridge, Enabled: lldp.Bridge, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.7")},
			PVID: 10, VLANs: []lldp.VLAN{{ID: 1, Name: "VLAN0001"}}, MaxFrame: 1518, MED: lldp.NetworkConnectivity,
		}
		if diff := cmp.Diff(wantPDU, first[1], cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Error(diff)
		}

		h.Do(func() { up.Policy().Description = "to rack 8" })
		time.Sleep(2 * time.Second)
		if got := want("a change", up, 1); got[0].PortDescription != "to rack 8" || got[0].MED != 0 {
			t.Errorf("%+v", got[0])
		}
		h.Do(func() {
			asked.Spec().Sections = []any{PortSettings{port.AutoOff}}
			s.Configured(asked.Port)
			s.Configured(asked.Port)
		})
		if got := want("off", asked, 1); got[0].TTL != 0 || got[0].Port.Value != "vm1" {
			t.Errorf("%+v", got[0])
		}
		h.Do(func() {
			if all := s.list(time.Now()); len(all) != 1 || all[0].Name != "up0" {
				t.Errorf("%+v speak", all)
			}
		})
		h.Do(s.Stop)
		if got := want("stopped", up, 1); got[0].TTL != 0 {
			t.Errorf("%+v", got[0])
		}
		time.Sleep(time.Minute)
		want("after the end", up, 0)
	})
}

// Neighbours are listed as long as they live, in printable characters.
func TestNeighbours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := featuretest.New(t)
		up := add(t, h, port.Spec{Name: "up0"}, false, "")
		var s *speaker
		h.Do(func() {
			s = start(h, Settings{LLDP: true})
			s.Configured(up.Port)
		})
		defer func() { h.Do(s.Stop) }()
		receive := func(b []byte) {
			h.Do(func() { s.Receive(up.Port, vswitch.ControlFrame{Queue: vswitch.QueueLink, Data: b}) })
		}
		receive(make([]byte, 60))
		receive(lldp.Append(nil, 2, &lldp.PDU{
			Chassis: lldp.ID{Value: "ch"}, Port: lldp.ID{Value: "p"}, TTL: 20, SystemName: "a\x1b[2Jb", Enabled: lldp.Bridge, Capabilities: lldp.Bridge,
			VLANs: []lldp.VLAN{{ID: 7, Name: "x\n"}},
		}))
		time.Sleep(5 * time.Second)
		synctest.Wait()
		list := func() []Port {
			var all []Port
			h.Do(func() { all = s.list(time.Now()) })
			return all
		}
		want := []Neighbor{{
			Chassis: "ch", Port: "p", SystemName: "a?[2Jb", Capabilities: []string{"bridge"}, VLANs: []VLAN{{7, "x?"}}, AgeS: 5, TTLS: 15,
		}}
		if diff := cmp.Diff(want, list()[0].Neighbors); diff != "" {
			t.Error(diff)
		}
		if c := list()[0].Counters; c.Received != 2 || c.Discarded != 1 || c.Sent != 5 {
			t.Errorf("%+v", c)
		}
		time.Sleep(16 * time.Second)
		if all := list(); len(all[0].Neighbors) != 0 || all[0].Counters.Aged != 1 {
			t.Errorf("%+v", all)
		}
		receive(lldp.Append(nil, 2, &lldp.PDU{Chassis: lldp.ID{Value: "ch"}, Port: lldp.ID{Value: "p"}, TTL: 20}))
		h.Do(func() { s.Linked(up.Port, false) }) // the cable may lead elsewhere now
		if all := list(); len(all[0].Neighbors) != 0 {
			t.Errorf("%+v", all)
		}
		h.Do(func() { s.Removed(up.Port) })
		if all := list(); len(all) != 0 {
			t.Errorf("%+v", all)
		}
	})
}

func TestSettings(t *testing.T) {
	for _, c := range []struct {
		s  Settings
		ok bool
	}{
		{Settings{}, true},
		{Settings{LLDP: true, Name: "host7", Address: setting.Addr{Addr: netip.MustParseAddr("2001:db8::1")}}, true},
		{Settings{Name: "host7"}, false},
		{Settings{LLDP: true, Name: "a\x1b"}, false},
		{Settings{LLDP: true, Address: setting.Addr{Addr: netip.MustParseAddr("0.0.0.0")}}, false},
		{Settings{LLDP: true, Address: setting.Addr{Addr: netip.MustParseAddr("fe80::1%eth0")}}, false},
		{Settings{LLDP: true, Address: setting.Addr{Addr: netip.MustParseAddr("239.1.1.1")}}, false},
	} {
		if err := c.s.Check(); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.s, err)
		}
	}
	off, err := setting.Merge(Settings{LLDP: true, Name: "host7", Address: setting.Addr{Addr: netip.MustParseAddr("192.0.2.1")}}, setting.Patch{"lldp": []byte("false")})
	if err != nil || off != (Settings{}) {
		t.Errorf("off: %+v, %v", off, err)
	}
}

// The next process has the neighbours of the former one, which has not told them of its end.
func TestHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := featuretest.New(t)
		up := add(t, h, port.Spec{Name: "up0"}, false, "")
		var s, next *speaker
		h.Do(func() {
			s = start(h, Settings{LLDP: true})
			s.Configured(up.Port)
			s.Linked(up.Port, true)
			pdu := &lldp.PDU{Chassis: lldp.ID{Kind: lldp.KindMAC, Value: "\x02\x00\x00\x00\x00\xff"}, Port: lldp.ID{Kind: lldp.KindIfName, Value: "eth7"}, TTL: 120}
			s.Receive(up.Port, vswitch.ControlFrame{Queue: vswitch.QueueLink, Data: lldp.Append(nil, 1, pdu)})
		})
		time.Sleep(10 * time.Second)
		before := up.sent(t)
		h.Do(func() {
			parcel, err := s.Give()
			if err != nil {
				t.Fatal(err)
			}
			s.Stop()
			for _, b := range []struct {
				format int
				data   string
				ok     bool
			}{{parcelFormat, string(parcel.Data), true}, {parcelFormat + 1, string(parcel.Data), false}, {parcelFormat, "[1]", false}, {parcelFormat, `{"up0": {"": {"Wait": -1}}}`, false}} {
				next = start(h, Settings{LLDP: true})
				if err := next.Take(&feature.Parcel{Format: b.format, Data: []byte(b.data)}); (err == nil) != b.ok {
					t.Errorf("%d %s: %v", b.format, b.data, err)
				}
				next.Configured(up.Port)
				next.Linked(up.Port, true)
				all := next.list(time.Now())
				if len(all) != 1 || (len(all[0].Neighbors) == 1) != b.ok {
					t.Fatalf("%+v", all)
				}
				if b.ok {
					if n := all[0].Neighbors[0]; n.Port != "eth7" || n.AgeS != 10 || n.TTLS != 110 || all[0].Counters.Sent != uint64(len(before)) {
						t.Errorf("%+v", all)
					}
				}
				next.stop()
			}
		})
		for _, pdu := range up.sent(t) {
			if pdu.TTL == 0 {
				t.Error("neighbours are told that it ends")
			}
		}
	})
}
