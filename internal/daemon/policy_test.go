package daemon

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

func TestConfigOf(t *testing.T) {
	rate := port.Rate{PerSecond: 100}
	for _, c := range []struct {
		policy port.Policy
		want   vswitch.PortConfig
	}{
		{port.Policy{}, vswitch.PortConfig{}},
		{port.Policy{VLAN: port.VLAN{Trunk: vlans(10, 20), Native: 1, TrunkTPID: port.TPID(port.TPIDService), Accept: "tagged"}}, vswitch.PortConfig{VLAN: port.VLAN{
			Trunk: vlans(10, 20), Native: 1, TrunkTPID: port.TPID(port.TPIDService), Accept: "tagged"}}},
		{port.Policy{Isolated: true, Locked: true, NoLearning: true, NoFlood: port.NoFlood{"broadcast", "unicast"}},
			vswitch.PortConfig{Isolated: true, Locked: true, NoLearning: true, NoFlood: vswitch.Broadcast | vswitch.UnknownUnicast}},
		{port.Policy{LearnLimit: 4, LearnAction: "protect"}, vswitch.PortConfig{LearnLimit: 4, LearnAction: vswitch.LearnProtect}},
		{port.Policy{LearnLimit: 4, LearnAction: "shutdown"}, vswitch.PortConfig{LearnLimit: 4, LearnAction: vswitch.LearnShutdown}},
		{port.Policy{StormBroadcast: rate, RateIn: rate}, vswitch.PortConfig{Storm: vswitch.StormRates{Broadcast: rate}, Police: rate}},
		{port.Policy{RateIn: rate, Burst: setting.Duration(time.Second)}, vswitch.PortConfig{Police: rate, PoliceBurst: time.Second}},
		{port.Policy{StormMulticast: rate, RateOut: rate}, vswitch.PortConfig{Storm: vswitch.StormRates{Multicast: rate}, Shape: rate}},
		{port.Policy{StormAction: "shutdown"}, vswitch.PortConfig{StormShutdown: true}},
		{port.Policy{StormUnicast: rate}, vswitch.PortConfig{Storm: vswitch.StormRates{UnknownUnicast: rate}}},
	} {
		if err := c.policy.Check(); err != nil {
			t.Errorf("%+v: %v", c.policy, err)
		}
		if diff := cmp.Diff(c.want, configOf(&c.policy)); diff != "" {
			t.Errorf("%+v (-want +got)\n%s", c.policy, diff)
		}
	}
}

func TestVLANOf(t *testing.T) {
	none := []uint16{}
	for _, c := range []struct {
		policy port.Policy
		want   api.VLAN
	}{
		{port.Policy{}, api.VLAN{Mode: "transparent", Native: 1, Trunk: none, Accept: "all"}},
		{port.Policy{VLAN: port.VLAN{Access: 10}}, api.VLAN{Mode: "access", Access: 10, Trunk: none, TPID: "0x8100", Accept: "untagged"}},
		{port.Policy{VLAN: port.VLAN{Access: 10, Accept: "all"}}, api.VLAN{Mode: "access", Access: 10, Trunk: none, TPID: "0x8100", Accept: "all"}},
		{port.Policy{VLAN: port.VLAN{QinQ: 100}}, api.VLAN{Mode: "qinq", QinQ: 100, Trunk: none, Accept: "all"}},
		{port.Policy{VLAN: port.VLAN{Trunk: vlans(20, 21, 10)}}, api.VLAN{Mode: "trunk", Trunk: []uint16{10, 20, 21}, TPID: "0x8100", Accept: "tagged"}},
		{port.Policy{VLAN: port.VLAN{Trunk: vlans(10), Native: 1, TrunkTPID: port.TPID(port.TPIDService)}}, api.VLAN{Mode: "trunk", Native: 1, Trunk: []uint16{10}, TPID: "0x88a8", Accept: "all"}},
	} {
		if diff := cmp.Diff(c.want, vlanOf(&c.policy)); diff != "" {
			t.Errorf("%+v (-want +got)\n%s", c.policy, diff)
		}
	}
}

// parsed is a VLAN set as users write it.
func parsed(t *testing.T, text string) port.VLANSet {
	t.Helper()
	s, err := port.ParseVLANSet(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func vlans(vids ...uint16) (s port.VLANSet) {
	for _, vid := range vids {
		s.Add(vid)
	}
	return s
}

// One VLAN mode takes the place of the other with all that belonged to it.
func TestSetPortReplacesTheVLANMode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		r.mustAdd("vm0")
		for i, step := range []struct {
			req  api.Settings
			want port.Policy
		}{
			{api.Settings{"access": 10, "isolated": true}, port.Policy{VLAN: port.VLAN{Access: 10}, Isolated: true}},
			{api.Settings{"accept": "all"}, port.Policy{VLAN: port.VLAN{Access: 10, Accept: "all"}, Isolated: true}},
			{api.Settings{"access": 11}, port.Policy{VLAN: port.VLAN{Access: 11, Accept: "all"}, Isolated: true}},
			{api.Settings{"trunk": "10,20-29", "native": 1}, port.Policy{VLAN: port.VLAN{Trunk: vlans(10, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29), Native: 1}, Isolated: true}},
			{api.Settings{"trunk": "10"}, port.Policy{VLAN: port.VLAN{Trunk: vlans(10), Native: 1}, Isolated: true}},
			{api.Settings{"trunk_tpid": "0x88a8", "native": 0}, port.Policy{VLAN: port.VLAN{Trunk: vlans(10), TrunkTPID: port.TPID(port.TPIDService)}, Isolated: true}},
			{api.Settings{"qinq": 100}, port.Policy{VLAN: port.VLAN{QinQ: 100}, Isolated: true}},
			{api.Settings{"access": 0, "trunk": "", "qinq": 0}, port.Policy{Isolated: true}},
			{api.Settings{"access": 0, "isolated": false}, port.Policy{}},
		} {
			if err := r.set("vm0", step.req); err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
			if diff := cmp.Diff(step.want, r.spec("vm0").Policy); diff != "" {
				t.Errorf("step %d (-want +got):\n%s", i, diff)
			}
			if diff := cmp.Diff(step.want, r.kept().Policy); diff != "" {
				t.Errorf("step %d on disk (-want +got):\n%s", i, diff)
			}
			if diff := cmp.Diff(configOf(&step.want), r.sw.Port("vm0").Config()); diff != "" {
				t.Errorf("step %d in the core (-want +got):\n%s", i, diff)
			}
		}
	})
}

// The core knows which ports are tunnels, also after a change of settings.
func TestCoreKnowsTunnels(t *testing.T) {
	for _, tunnel := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := newFakeHost()
			h.tunnel = tunnel
			r := start(t, h, store.State{})
			r.mustAdd("up0")
			if err := r.set("up0", api.Settings{"isolated": true}); err != nil {
				t.Fatal(err)
			}
			if c := r.sw.Port("up0").Config(); c.Tunnel != tunnel || !c.Isolated {
				t.Errorf("tunnel %v: the core has %+v", tunnel, c)
			}
		})
	}
}

// What is refused, or cannot be kept, changes nothing.
func TestSetPortThatFailsLeavesThePolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		s := spec("vm0")
		s.Access = 10
		if err := r.addReq(wanted(s)); err != nil {
			t.Fatal(err)
		}
		before := r.sw.Port("vm0").Config()
		wantCode(t, r.set("vm0", api.Settings{"native": 5}), api.CodeInvalid, "native VLAN")
		wantCode(t, r.set("vm0", api.Settings{"access": 5, "trunk": "6"}), api.CodeInvalid, "one of them")
		wantCode(t, r.set("vm0", api.Settings{"learn_action": "panic"}), api.CodeInvalid, "learn_action")
		r.disk.fail(errors.New("disk full"))
		wantCode(t, r.set("vm0", api.Settings{"trunk": "6"}), api.CodeFailed, "disk full")
		if diff := cmp.Diff(before, r.sw.Port("vm0").Config()); diff != "" {
			t.Errorf("core (-before +after):\n%s", diff)
		}
		if got := r.spec("vm0").Access; got != 10 {
			t.Errorf("access VLAN %d", got)
		}
		wantCode(t, r.addReq(wanted(port.Spec{Name: "vm1", Kind: "fake", Policy: port.Policy{VLAN: port.VLAN{Native: 5}}})), api.CodeInvalid, "native VLAN")
		if r.sw.Port("vm1") != nil {
			t.Error("a port that was refused is there")
		}
	})
}

func TestPolicyOutlivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		s := spec("vm0")
		s.Trunk, s.Native, s.StormBroadcast, s.LearnLimit = vlans(10, 20), 1, port.Rate{PerSecond: 100}, 3
		if err := r.addReq(wanted(s)); err != nil {
			t.Fatal(err)
		}
		want := r.sw.Port("vm0").Config()
		r.stop()
		kept := r.disk.state()
		kept.Version = store.Version
		b, err := json.Marshal(kept)
		if err != nil {
			t.Fatal(err)
		}
		saved, err := store.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		again := start(t, newFakeHost(), saved)
		if diff := cmp.Diff(want, again.sw.Port("vm0").Config()); diff != "" {
			t.Errorf("after a restart (-before +after):\n%s", diff)
		}
	})
}

func TestListVLANs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		for name, policy := range map[string]port.Policy{
			"a": {}, "b": {VLAN: port.VLAN{Access: 10}}, "c": {VLAN: port.VLAN{Trunk: vlans(10, 12), Native: 11}}, "d": {VLAN: port.VLAN{QinQ: 12}}, "e": {VLAN: port.VLAN{Trunk: vlans(10), Native: 10}},
		} {
			if err := r.addReq(wanted(port.Spec{Name: name, Kind: "fake", Policy: policy})); err != nil {
				t.Fatal(err)
			}
		}
		got := map[uint16]api.VLANMembers{}
		last := uint16(0)
		var all []api.VLANMembers
		err := r.call("GET", "/v1/vlans", nil, &all)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range all {
			if v.VLAN <= last {
				t.Errorf("VLAN %d comes after %d", v.VLAN, last)
			}
			got[v.VLAN], last = v, v.VLAN
		}
		sorted := cmp.Transformer("sorted", func(s []string) map[string]bool {
			m := map[string]bool{}
			for _, e := range s {
				m[e] = true
			}
			return m
		})
		want := map[uint16]api.VLANMembers{
			1:  {VLAN: 1, Untagged: []string{"a"}},
			10: {VLAN: 10, Untagged: []string{"b", "e"}, Tagged: []string{"c"}},
			11: {VLAN: 11, Untagged: []string{"c"}},
			12: {VLAN: 12, Untagged: []string{"d"}, Tagged: []string{"c"}},
		}
		if diff := cmp.Diff(want, got, sorted); diff != "" {
			t.Errorf("VLANs (-want +got):\n%s", diff)
		}
	})
}

// A saved policy that cannot be put in force, whatever is wrong with it, shuts its
// port: it must not forward without its isolation. set-port mends it.
func TestUnfitPolicyShutsItsPort(t *testing.T) {
	for name, spoil := range map[string]func(*port.Policy){
		"VLAN":        func(p *port.Policy) { p.Access = 5000 },
		"two modes":   func(p *port.Policy) { p.Access, p.QinQ = 10, 10 },
		"trunk":       func(p *port.Policy) { p.TrunkTPID = port.TPID(port.TPIDService) },
		"learn limit": func(p *port.Policy) { p.LearnLimit = -1 },
		"action":      func(p *port.Policy) { p.LearnAction = "panic" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bad := vm("bad")
				bad.Isolated = true
				spoil(&bad.Policy)
				before := withFDB(store.State{
					Ports: []store.Port{{Spec: saved(bad)}, {Spec: saved(vm("good"))}},
				}, savedEntry{MAC: 0x525400000002, VLAN: 1, Port: "good"})
				w := wire(t, before, func(*Options) {})
				w.wantState("bad", api.StateDown)
				w.wantState("good", api.StateUp)
				if why := w.port("bad").Reason; !strings.Contains(why, "cannot be put in force") || !strings.Contains(why, "set-port") {
					t.Errorf("it is down because %q", why)
				}
				f := ethernet(port.Broadcast, 0x525400000005)
				w.send("bad", f)
				w.wantTaken(f, map[string]int{})
				w.send("good", f)
				w.wantTaken(f, map[string]int{})
				if !strings.Contains(w.logged(), "a port is shut") {
					t.Error("the log says nothing")
				}
				if got := w.disk.state().Ports; len(got) != 2 || string(got[0].Spec.Settings["isolated"]) != "true" {
					t.Errorf("on disk: %+v", got)
				}
				if got := w.listFDB(); len(got) != 2 || got[0].MAC != 0x525400000002 {
					t.Errorf("FDB %+v", got)
				}

				wantCode(t, w.set("bad", api.Settings{"locked": true}), api.CodeInvalid, "")
				if err := w.set("bad", api.Settings{
					"access": 0, "qinq": 0, "trunk": "", "trunk_tpid": nil, "learn_limit": 0, "learn_action": "", "stp_priority": 0,
				}); err != nil {
					t.Fatal(err)
				}
				w.wantState("bad", api.StateUp)
				w.send("good", f)
				w.wantTaken(f, map[string]int{"bad": 1})
			})
		})
	}
}

// A saved port whose kind does not understand its settings is down, and its device is not opened.
// set-port mends it.
func TestUnfitSettingsOfAKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := saved(spec("bad"))
		bad.Settings = settingsPatch(t, `{"mtu": "big"}`)
		r := start(t, newFakeHost(), store.State{Ports: []store.Port{{Spec: bad}, {Spec: saved(spec("good"))}}})
		r.wantState("good", api.StateNoCarrier)
		r.wantState("bad", api.StateDown)
		if why := r.port("bad").Reason; !strings.Contains(why, "cannot be put in force") || !strings.Contains(why, "set-port") {
			t.Errorf("it is down because %q", why)
		}
		if r.host.device("bad") != nil {
			t.Error("its device is opened")
		}
		if got := r.disk.state().Ports; len(got) != 2 || string(got[0].Spec.Settings["mtu"]) != `"big"` {
			t.Errorf("on disk: %+v", got)
		}
		if err := r.set("bad", api.Settings{"mtu": 1400}); err != nil {
			t.Fatal(err)
		}
		r.wantState("bad", api.StateNoCarrier)
	})
}

// A saved port of another program's kind waits for that program, though this one cannot put its
// settings in force: they are not what is wrong.
func TestUnfitPolicyOfAnUnknownKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := vm("other")
		other.Kind, other.LearnAction = "quantum", "panic"
		w := wire(t, store.State{Ports: []store.Port{{Spec: saved(other)}, {Spec: saved(vm("good"))}}}, func(*Options) {})
		w.wantState("other", api.StateDown)
		w.wantState("good", api.StateUp)
		if why := w.port("other").Reason; !strings.Contains(why, `of the kind "quantum"`) || strings.Contains(why, "set-port") {
			t.Errorf("it is down because %q", why)
		}
		f := ethernet(port.Broadcast, 0x525400000005)
		w.send("good", f)
		w.wantTaken(f, map[string]int{})
		if got := w.disk.state().Ports; len(got) != 2 || string(got[0].Spec.Settings["learn_action"]) != `"panic"` {
			t.Errorf("on disk: %+v", got)
		}
	})
}
