package vxlan_test

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/porttest"
	"github.com/vswitch/vswitch/port/vxlan"
)

func TestVNIs(t *testing.T) {
	for text, want := range map[string]string{
		"100": "100", "16777215": "16777215", "10=10010": "10=10010",
		"20-29=10020-10029,10=10010": "10=10010,20-29=10020-10029", "1-4094=1-4094": "1-4094=1-4094", "": "",
	} {
		v := vnis(t, text)
		got, err := v.MarshalText()
		if err != nil || string(got) != want || v.IsZero() != (text == "") {
			t.Errorf("%q is %q, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"0": "virtual networks", "16777216": "virtual networks", "ten": "virtual networks", "10=": "virtual networks", "=5": "virtual networks",
		"10=1,10=2": "two VNIs", "10=1,11=1": "two VLANs", "10-12=1-2": "3 VLANs and 2 VNIs", "10=3-1": "-1", "0=5": "virtual networks",
		"all=1-4094": "virtual networks", "4095=1": "virtual networks", "10-19=100-109,15=200": "two VNIs", "10-19=100-109,30=105": "two VLANs",
		"4094=16777215,1-2=16777215-16777216": "virtual networks", "10=1,": "virtual networks", "5,6=1-2": "virtual networks",
	} {
		var v vxlan.VNIs
		if err := v.UnmarshalText([]byte(text)); err == nil || strings.Contains(err.Error(), "\n") || want != "-1" && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
		if !v.IsZero() {
			t.Errorf("%q is kept", text)
		}
	}
}

func TestCheck(t *testing.T) {
	addr := func(s string) setting.Addr { return setting.Addr{Addr: netip.MustParseAddr(s)} }
	make := func(local, peers, vni string, policy port.Policy) port.Spec {
		s := vxlan.Settings{VNI: vnis(t, vni)}
		if local != "" {
			s.Local = addr(local)
		}
		if err := s.Peers.ReadFlag(peers); err != nil {
			t.Fatal(err)
		}
		return port.Spec{Name: "up0", Kind: "vxlan", Settings: s, Policy: policy}
	}
	trunk, _ := port.ParseVLANSet("10,20")
	none := port.Policy{}
	porttest.Check(t, kind, []port.Spec{
		make("192.0.2.1", "", "100", none),
		make("192.0.2.1", "192.0.2.2,192.0.2.3", "10=10010,20-29=10020-10029", none),
		make("192.0.2.1", "", "10=10010,20=10020", port.Policy{VLAN: port.VLAN{Trunk: trunk}}),
		make("192.0.2.1", "", "100", port.Policy{VLAN: port.VLAN{Access: 5}}),
		make("2001:db8::1", "2001:db8::2", "100", none),
	}, []port.Spec{
		make("", "", "100", none),
		make("192.0.2.1", "", "", none),
		make("0.0.0.0", "", "100", none),
		make("224.0.0.1", "", "100", none),
		make("fe80::1", "", "100", none),
		make("::ffff:192.0.2.1", "", "100", none),
		make("192.0.2.1", "192.0.2.1", "100", none),
		make("192.0.2.1", "127.0.0.2", "100", none),
		make("2001:db8::1", "::1", "100", none),
		make("192.0.2.1", "2001:db8::2", "100", none),
		make("192.0.2.1", "192.0.2.2,192.0.2.2", "100", none),
		make("192.0.2.1", "host-b", "100", none),
		make("192.0.2.1", "", "10=10010", port.Policy{VLAN: port.VLAN{Trunk: trunk}}),
		make("192.0.2.1", "", "10=10010,20=10020", port.Policy{VLAN: port.VLAN{Trunk: trunk, Native: 10}}),
		make("192.0.2.1", "", "10=10010", port.Policy{VLAN: port.VLAN{Access: 10}}),
		make("192.0.2.1", "", "10=10010", port.Policy{VLAN: port.VLAN{QinQ: 10}}),
	})
}

// TestTrunkFollows: the port carries the VLANs that have a network, or those of them that
// the user names.
func TestTrunkFollows(t *testing.T) {
	c := port.Catalog{Kinds: port.Kinds{kind}}
	s := spec(t, vxlan.Settings{Local: setting.Addr{Addr: netip.MustParseAddr("192.0.2.1")}, VNI: vnis(t, "10=10010,20-29=10020-10029")})
	for _, step := range []struct{ patch, want string }{
		{`{}`, "10,20-29"},
		{`{"vni": "10=10010,30=10030"}`, "10,30"},
		{`{"trunk": "10"}`, "10"},
		{`{"peers": ["192.0.2.2"]}`, "10"},
		{`{"trunk": ""}`, "10,30"},
		{`{"vni": "10=10010,30=10030", "trunk": "30"}`, "30"},
		{`{"vni": "30=10030,40=10040"}`, "30"},
		{`{"vni": "40=10040", "trunk": ""}`, "40"},
		{`{"accept": "tagged"}`, "40"},
		{`{"vni": "10010"}`, ""},
		{`{"vni": "10=10010,30=10030"}`, "10,30"},
		{`{"vni": "10010", "trunk": "10,30"}`, "10,30"},
		{`{"vni": "10011"}`, "10,30"},
		{`{"vni": "10=10010,30=10030,40=10040"}`, "10,30"},
		{`{"vni": "10010", "access": 5}`, ""},
	} {
		var p setting.Patch
		if err := json.Unmarshal([]byte(step.patch), &p); err != nil {
			t.Fatal(err)
		}
		next, err := c.Merge(s, p)
		if err != nil || next.Trunk.String() != step.want {
			t.Fatalf("%s: trunk %s, %v; want %s", step.patch, next.Trunk.String(), err, step.want)
		}
		s = next
	}
}
