package port_test

import (
	"fmt"
	"testing"

	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
)

func TestPolicyCheck(t *testing.T) {
	set := func(text string) port.VLANSet {
		s, err := port.ParseVLANSet(text)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, c := range []struct {
		policy port.Policy
		want   string // of the error; empty: none
	}{
		{port.Policy{}, ""},
		{port.Policy{VLAN: port.VLAN{Access: 5, Accept: port.AcceptUntagged}}, ""},
		{port.Policy{VLAN: port.VLAN{QinQ: 5, Accept: port.AcceptAll}}, ""},
		{port.Policy{VLAN: port.VLAN{Trunk: set("5"), Accept: port.AcceptTagged}}, ""},
		{port.Policy{VLAN: port.VLAN{Trunk: set("5"), Native: 7, TrunkTPID: port.TPID(port.TPIDService), Accept: port.AcceptUntagged}}, ""},
		{port.Policy{VLAN: port.VLAN{Access: 5, Trunk: set("5")}}, "one of access, trunk and qinq"},
		{port.Policy{VLAN: port.VLAN{Access: 5, QinQ: 5}}, "one of access, trunk and qinq"},
		{port.Policy{VLAN: port.VLAN{Trunk: set("5"), QinQ: 5}}, "one of access, trunk and qinq"},
		{port.Policy{VLAN: port.VLAN{Native: 7}}, "belong to a trunk"},
		{port.Policy{VLAN: port.VLAN{Access: 5, Native: 5}}, "belong to a trunk"},
		{port.Policy{VLAN: port.VLAN{TrunkTPID: port.TPID(port.TPIDService)}}, "belong to a trunk"},
		{port.Policy{VLAN: port.VLAN{Trunk: set("5"), Accept: port.AcceptUntagged}}, "needs a native VLAN"},
		{port.Policy{VLAN: port.VLAN{Accept: port.AcceptUntagged}}, ""},
		{port.Policy{VLAN: port.VLAN{Accept: port.AcceptTagged}}, "only a trunk"},
		{port.Policy{VLAN: port.VLAN{Access: 5, Accept: port.AcceptTagged}}, "only a trunk"},
		{port.Policy{Burst: setting.Duration(port.MinBurst)}, ""},
		{port.Policy{Burst: setting.Duration(port.MaxBurst)}, ""},
		{port.Policy{Burst: setting.Duration(port.MinBurst - 1)}, "use 1ms to 10s"},
		{port.Policy{Burst: setting.Duration(port.MaxBurst + 1)}, "use 1ms to 10s"},
	} {
		wantError(t, fmt.Sprintf("%+v", c.policy), c.policy.Check(), c.want)
	}
}

// What belonged to the former mode goes with it, what is given stays.
func TestModeChanges(t *testing.T) {
	const lamp = `{"name":"l0","kind":"lamp"`
	for _, c := range []struct{ former, patch, want string }{
		{`{"trunk":"5","native":7,"trunk_tpid":"0x88a8","accept":"all"}`, `{"access":9}`, `,"access":9}`},
		{`{"trunk":"5","native":7,"trunk_tpid":"0x88a8","accept":"all"}`, `{"access":9,"accept":"all"}`, `,"access":9,"accept":"all"}`},
		{`{"trunk":"5","native":7,"trunk_tpid":"0x88a8","accept":"all"}`, `{"trunk":"6"}`, `,"trunk":"6","native":7,"trunk_tpid":"0x88a8","accept":"all"}`},
		{`{"trunk":"5","native":7}`, `{"access":0}`, `,"trunk":"5","native":7}`},
		{`{"trunk":"5","native":7}`, `{"qinq":0}`, `,"trunk":"5","native":7}`},
		{`{"access":5}`, `{"trunk":""}`, `,"access":5}`},
		{`{"access":5}`, `{"trunk":"6","native":8,"trunk_tpid":"0x88a8"}`, `,"trunk":"6","native":8,"trunk_tpid":"0x88a8"}`},
		{`{"qinq":5}`, `{"access":6}`, `,"access":6}`},
		{`{"access":5,"accept":"untagged"}`, `{"access":null}`, `}`},
	} {
		former, err := kinds.Spec("l0", "lamp", patch(t, c.former))
		if err != nil {
			t.Fatal(err)
		}
		got, err := kinds.Merge(former, patch(t, c.patch))
		if b, _ := got.MarshalJSON(); err != nil || string(b) != lamp+c.want {
			t.Errorf("%s with %s: %s, %v, want %s", c.former, c.patch, b, err, lamp+c.want)
		}
	}
	former, err := kinds.Spec("l0", "lamp", patch(t, `{"access":5}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, both := range []string{`{"access":6,"qinq":7}`, `{"trunk":"6","qinq":7}`, `{"access":5,"trunk":"6"}`} {
		_, err := kinds.Merge(former, patch(t, both))
		wantError(t, both, err, "one of access, trunk and qinq")
	}
}

// What --flood shows of the classes that are not flooded is what it takes.
func TestFloodFlag(t *testing.T) {
	for _, c := range []struct {
		off  any
		want string
	}{
		{nil, "broadcast,multicast,unicast"},
		{[]any{"multicast"}, "broadcast,unicast"},
		{[]any{"broadcast", "multicast", "unicast"}, "none"},
		{[]any{"none"}, "broadcast,multicast,unknown"},
	} {
		if got := (port.NoFlood{}).FlagText(c.off); got != c.want {
			t.Errorf("%v: %q, want %q", c.off, got, c.want)
		}
	}
}

func TestTPID(t *testing.T) {
	for _, text := range []string{"0x8100", "0x88a8", ""} {
		tpid := port.TPID(port.TPIDService) // what was there before does not stay
		if err := tpid.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if b, err := tpid.MarshalText(); err != nil || string(b) != text {
			t.Errorf("%q is read back as %q, %v", text, b, err)
		}
	}
	var tpid port.TPID
	wantError(t, "another", tpid.UnmarshalText([]byte("0x9100")), `there is no TPID "0x9100"`)
}
