package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
)

func settingsPatch(t *testing.T, text string) (p setting.Patch) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// setSwitch changes the switch's settings, as a client asks for.
func (r *rig) setSwitch(text string) (api.Switch, error) {
	r.t.Helper()
	p := settingsPatch(r.t, text)
	s, err := ask(r.manager, func() (api.Switch, error) { return r.manager.set(p) })
	synctest.Wait()
	return s, err
}

func (r *rig) mustSetSwitch(text string) api.Switch {
	r.t.Helper()
	s, err := r.setSwitch(text)
	if err != nil {
		r.t.Fatalf("%s: %v", text, err)
	}
	return s
}

func TestSettingsCheck(t *testing.T) {
	for text, want := range map[string]string{ // of the error; empty: none
		`{}`:                 "",
		`{"aging": "1s"}`:    "",
		`{"aging": "999ms"}`: "use 1s to",
		fmt.Sprintf(`{"aging": "%v"}`, fdb.MaxAging):                                "",
		fmt.Sprintf(`{"aging": "%v"}`, fdb.MaxAging+time.Second):                    "use 1s to",
		`{"aging": "never"}`:                                                        "",
		`{"aging": "5"}`:                                                            "has no unit",
		`{"recovery": "never"}`:                                                     "",
		`{"recovery": "0"}`:                                                         "",
		`{"recovery": "1s"}`:                                                        "",
		`{"recovery": "999ms"}`:                                                     "use 1s or more, or 0 for never",
		`{"hold_down": "0"}`:                                                        "",
		`{"hold_down": "1s"}`:                                                       "",
		`{"hold_down": "1ns"}`:                                                      "use 1s or more, or 0 for not at all",
		`{"stp": true, "stp_priority": 0}`:                                          "",
		`{"stp": true, "stp_priority": 61440}`:                                      "",
		`{"stp": true, "stp_priority": 65535}`:                                      "out of range",
		`{"stp": true, "stp_priority": 4097}`:                                       "a multiple of 4096",
		`{"stp_priority": 4096}`:                                                    "give --stp as well",
		`{"querier": true}`:                                                         "give --snooping as well",
		`{"unregistered": "routers"}`:                                               "give --snooping as well",
		`{"querier_address": "10.0.0.1"}`:                                           "give --snooping as well",
		`{"snooping": true, "querier_address": "10.0.0.1"}`:                         "give --querier as well",
		`{"snooping": true, "querier": true, "unregistered": "routers"}`:            "",
		`{"snooping": true, "unregistered": "nowhere"}`:                             "there is no",
		`{"snooping": true, "querier": true, "querier_address": "10.0.0.1"}`:        "",
		`{"snooping": true, "querier": true, "querier_address": "239.255.255.255"}`: "queries cannot come from",
		`{"snooping": true, "querier": true, "querier_address": "223.255.255.255"}`: "",
		`{"snooping": true, "querier": true, "querier_address": "240.0.0.1"}`:       "queries cannot come from",
		`{"snooping": true, "querier": true, "querier_address": "0.0.0.0"}`:         "queries cannot come from",
		`{"snooping": true, "querier": true, "querier_address": "127.0.0.1"}`:       "queries cannot come from",
		`{"snooping": true, "querier": true, "querier_address": "fe80::1"}`:         "not an IPv4 address",
		`{"group_forward": 1}`:                                                      "",
		`{"group_forward": 2}`:                                                      "PAUSE",
		`{"group_forward": 65535}`:                                                  "PAUSE",
		`{"group_forward": 65533}`:                                                  "",
		`{"colour": "red"}`:                                                         `no setting "colour"`,
	} {
		_, err := noSettings(testFeatures).merge(settingsPatch(t, text))
		var of SettingsError
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || !errors.As(err, &of)) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// What belongs to a protocol that is turned off goes with it, but not what is given.
func TestProtocolsTakeTheirSettingsAlong(t *testing.T) {
	const all = `{"stp": true, "stp_priority": 4096, "snooping": true, "querier": true, "querier_address": "10.0.0.1", "unregistered": "routers"}`
	for text, want := range map[string]string{
		`{"aging": "1m"}`:                                    `{"aging":"1m0s","stp":true,"stp_priority":4096,"snooping":true,"querier":true,"querier_address":"10.0.0.1","unregistered":"routers"}`,
		`{"stp": false}`:                                     `{"snooping":true,"querier":true,"querier_address":"10.0.0.1","unregistered":"routers"}`,
		`{"snooping": false}`:                                `{"stp":true,"stp_priority":4096}`,
		`{"querier": false}`:                                 `{"stp":true,"stp_priority":4096,"snooping":true,"unregistered":"routers"}`,
		`{"stp": false, "stp_priority": 8192}`:               "give --stp as well",
		`{"snooping": false, "querier": true}`:               "give --snooping as well",
		`{"snooping": false, "unregistered": "routers"}`:     "give --snooping as well",
		`{"querier": false, "querier_address": "10.0.0.2"}`:  "give --querier as well",
		`{"snooping": false, "querier_address": "10.0.0.2"}`: "give --snooping as well",
	} {
		former, err := noSettings(testFeatures).merge(settingsPatch(t, all))
		if err != nil {
			t.Fatal(err)
		}
		got, err := former.merge(settingsPatch(t, text))
		b, _ := json.Marshal(got.patch())
		if strings.HasPrefix(want, "{") {
			sorted, _ := json.Marshal(settingsPatch(t, want))
			if err != nil || !bytes.Equal(b, sorted) {
				t.Errorf("%s:\n got %s, %v\nwant %s", text, b, err, want)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) || !reflect.DeepEqual(got, former) {
			t.Errorf("%s: %s, %v, want %q", text, b, err, want)
		}
	}
	// From settings that were never made, too, nothing is lost that was given.
	if _, err := noSettings(testFeatures).merge(settingsPatch(t, `{"stp": false, "querier": false}`)); err != nil {
		t.Error(err)
	}
}

// Settings that the switch cannot have are told before it starts.
func TestCheckSettings(t *testing.T) {
	for text, ok := range map[string]bool{`{"aging": "60s", "stp": true}`: true, `{}`: true, `{"aging": "soon"}`: false, `{"colour": 1}`: false} {
		if err := CheckSettings(testFeatures, settingsPatch(t, text)); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestGroupMaskFlag(t *testing.T) {
	if a, b := Mask(0).FlagText(float64(1<<14)), Mask(0).FlagText("x"); a != "0x4000" || b != "x" {
		t.Errorf("%s, %s", a, b)
	}
}

// Settings change what the switch does and says, and a restart finds them.
func TestSwitchSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := guarded(t, time.Hour)
		s := r.mustSetSwitch(`{"aging": "1m", "hold_down": "30s", "recovery": "10s", "group_forward": 16384}`)
		if s.FDB.AgingS != 60 || s.HoldDownS != 30 || s.RecoveryS != 10 || s.GroupForward != 1<<14 {
			t.Errorf("%+v", s)
		}
		if got, want := string(s.Settings.RawMessage), `{"aging":"1m0s","group_forward":16384,"hold_down":"30s","recovery":"10s"}`; got != want {
			t.Errorf("settings %s, want %s", got, want)
		}
		if b, _ := json.Marshal(r.disk.state().Switch); string(b) != `{"aging":"1m0s","group_forward":16384,"hold_down":"30s","recovery":"10s"}` {
			t.Errorf("kept: %s", b)
		}
		if log := r.logged(); !strings.Contains(log, `msg="switch changed" settings="[aging group_forward hold_down recovery]"`) {
			t.Errorf("log:\n%s", log)
		}
		// A port that is shut from now on recovers after the new time, one that was shut
		// before, when it was told then.
		r.wantState("vm0", api.StateDown)
		if err := r.set("vm0", api.Settings{}); err != nil {
			t.Fatal(err)
		}
		r.trip("vm0")
		time.Sleep(10 * time.Second)
		r.wantState("vm0", api.StateUp)
		// A station ages.
		k := fdb.MakeKey(1, 0x525400000001)
		learned := func() bool { _, ok := r.sw.FDB().Get(k); return ok }
		r.sw.FDB().Learn(k, 0)
		time.Sleep(58 * time.Second)
		if !learned() {
			t.Error("a station is forgotten in less than a minute")
		}
		time.Sleep(5 * time.Second)
		if learned() {
			t.Error("a station is not forgotten after a minute")
		}
		s = r.mustSetSwitch(`{"aging": "never", "recovery": "never", "group_forward": 0}`)
		if s.FDB.AgingS != 0 || s.RecoveryS != 0 || s.GroupForward != 0 || s.HoldDownS != 30 {
			t.Errorf("%+v", s)
		}
		r.trip("vm0")
		r.wantState("vm0", api.StateDown)
		r.sw.FDB().Learn(k, 0)
		time.Sleep(24 * time.Hour)
		r.wantState("vm0", api.StateDown)
		if !learned() {
			t.Error("a station is forgotten that never ages")
		}
		s = r.mustSetSwitch(`{"aging": null, "recovery": null, "hold_down": null, "group_forward": null}`)
		if s.FDB.AgingS != 300 || s.RecoveryS != 300 || s.HoldDownS != 0 || len(r.disk.state().Switch) != 0 {
			t.Errorf("%+v; kept %v", s, r.disk.state().Switch)
		}
	})
}

// A refused change leaves everything as it was.
func TestSwitchSettingsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startWith(t, newFakeHost(), store.State{}, func(o *Options) {
			o.kept.Settings = Settings{Aging: setting.OrNever(time.Minute)}
			withSettings(`{"aging": "2m", "stp": true, "snooping": true, "querier": true}`)(o)
			o.settings.into(o)
		})
		before := r.fdbInfo()
		for text, want := range map[string]string{
			`{}`:                  "nothing to change",
			`{"colour": 1}`:       "no setting",
			`{"aging": "1ms"}`:    "use 1s to",
			`{"querier": true}`:   "give --snooping as well", // what is kept has no snooping
			`{"stp_priority": 0}`: "give --stp as well",
		} {
			_, err := r.setSwitch(text)
			wantCode(t, err, api.CodeInvalid, want)
		}
		// Only together with run's flags it makes no sense.
		r.inTurn(func() { r.settings.GroupForward = 2 })
		_, err := r.setSwitch(`{"hold_down": "1s"}`)
		wantCode(t, err, api.CodeInvalid, "flags that contradict it")
		r.inTurn(func() { r.settings.GroupForward = 0 })

		r.disk.fail(errors.New("the disk is full"))
		_, err = r.setSwitch(`{"aging": "3m"}`)
		wantCode(t, err, api.CodeFailed, "the disk is full")
		r.disk.fail(nil)
		r.inTurn(func() {
			if r.manager.kept.Aging != setting.OrNever(time.Minute) || r.settings.Aging != setting.OrNever(2*time.Minute) {
				t.Errorf("kept %v, in force %v", r.manager.kept, r.settings)
			}
		})
		if after := r.fdbInfo(); after != before || before.AgingS != 120 {
			t.Errorf("%+v, before %+v", after, before)
		}
		// What run's flags say is kept only where a change says it.
		if s := r.mustSetSwitch(`{"hold_down": "1s"}`); s.FDB.AgingS != 120 || s.HoldDownS != 1 || !s.STP || !s.Querier {
			t.Errorf("%+v", s)
		}
		if b, _ := json.Marshal(r.disk.state().Switch); string(b) != `{"aging":"1m0s","hold_down":"1s"}` {
			t.Errorf("kept: %s", b)
		}
	})
}

func (r *rig) fdbInfo() api.FDBInfo {
	s, err := ask(r.manager, func() (api.Switch, error) { return r.describeSwitch(), nil })
	if err != nil {
		r.t.Fatal(err)
	}
	return s.FDB
}

// wantOwnStation checks that the FDB knows the switch's own address, from which it sends.
func (w *wireRig) wantOwnStation() {
	w.t.Helper()
	if e, ok := w.sw.FDB().Get(fdb.MakeKey(port.DefaultVLAN, uint64(w.mac))); !ok || e.Kind != fdb.Local {
		w.t.Errorf("the switch's own address: %+v", e)
	}
}

// Loop detection begins and ends while the switch runs, on ports that are up already.
func TestLoopDetectionChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, store.State{}, func(*Options) {}, netdev("up0"), vm("vm0"))
		probes := func(seconds int) (up0, vm0 int) {
			w.taken("up0")
			w.taken("vm0")
			time.Sleep(time.Duration(seconds) * time.Second)
			return len(w.probes("up0")), len(w.probes("vm0"))
		}
		if a, b := probes(5); a != 0 || b != 0 {
			t.Errorf("off: %d, %d probes", a, b)
		}
		if s := w.mustSetSwitch(`{"loop_detect": true}`); !s.LoopDetect {
			t.Errorf("%+v", s)
		}
		if a, b := probes(5); a != 5 || b != 3 {
			t.Errorf("on: %d, %d probes", a, b)
		}
		w.wantOwnStation()
		// A change of something else disturbs nothing.
		guard := w.running("loopguard")
		w.mustSetSwitch(`{"hold_down": "1s"}`)
		if w.running("loopguard") != guard {
			t.Error("loop detection began anew")
		}
		w.send("vm0", w.fresh("up0"))
		w.wantState("vm0", api.StateDown)
		w.mustSetSwitch(`{"loop_detect": false}`)
		if a, b := probes(5); a != 0 || b != 0 {
			t.Errorf("off again: %d, %d probes", a, b)
		}
		// Frames to the group that probes go to are like others now.
		f := ethernet(groupOf(w.mac), 0x525400000009)
		w.send("up0", f)
		if err := w.set("vm0", api.Settings{}); err != nil {
			t.Fatal(err)
		}
		w.taken("vm0")
		w.send("up0", f)
		w.wantTaken(f, map[string]int{"vm0": 1})
	})
}

// A tree begins, gets another priority, and ends, while the switch runs.
func TestTreeChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, store.State{}, func(*Options) {}, netdev("up0"), vm("vm0"))
		f := ethernet(port.Broadcast, 0x52_54_00_00_00_01)
		passes := func(when string, n int) {
			t.Helper()
			w.taken("up0")
			w.taken("vm0")
			w.send("vm0", f)
			w.wantTaken(f, map[string]int{"up0": n})
			if t.Failed() {
				t.Fatal(when)
			}
		}
		passes("without a tree", 1)
		if s := w.mustSetSwitch(`{"stp": true}`); !s.STP {
			t.Errorf("%+v", s)
		}
		w.wantOwnStation()
		w.wantTree("vm0", "designated", "forwarding")
		passes("the tree begins", 0)
		time.Sleep(40 * time.Second)
		passes("the tree has settled", 1)
		if id := w.tree().Bridge; !strings.HasPrefix(id, "8000.") {
			t.Errorf("bridge %s", id)
		}
		tree := w.running("stp")
		w.mustSetSwitch(`{"hold_down": "1s"}`)
		if w.running("stp") != tree {
			t.Error("the tree began anew")
		}
		w.mustSetSwitch(`{"stp_priority": 4096}`)
		if id := w.tree().Bridge; !strings.HasPrefix(id, "1000.") {
			t.Errorf("bridge %s", id)
		}
		time.Sleep(40 * time.Second)
		passes("another priority", 1)
		w.send("vm0", hello(0))
		w.wantState("vm0", api.StateDown) // BPDU guard
		w.send("up0", hello(0))
		w.mustSetSwitch(`{"stp": false}`)
		if err := w.set("vm0", api.Settings{}); err != nil {
			t.Fatal(err)
		}
		passes("the tree ends", 1)
		w.send("vm0", hello(0))
		w.wantState("vm0", api.StateUp)
		time.Sleep(10 * time.Second)
		for _, f := range w.taken("up0") {
			if port.MACFrom(f) == 0x0180_c200_0000 {
				t.Error("a hello without a tree")
			}
		}
	})
}

// Snooping begins, changes and ends while the switch runs.
func TestSnoopingChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, store.State{}, func(*Options) {}, vm("vm0"), vm("vm1"), vm("vm2"))
		w.wantStream(group4, "vm1", "vm2")
		if s := w.mustSetSwitch(`{"snooping": true, "querier": true, "unregistered": "routers"}`); !s.Snooping || !s.Querier {
			t.Errorf("%+v", s)
		}
		w.wantOwnStation()
		if n := len(w.queriesTo("vm1")); n == 0 {
			t.Error("nobody asks the hosts of a port that was up already")
		}
		w.send("vm1", join4(group4))
		w.settleGroups()
		w.wantStream(group4, "vm1")
		snoop := w.running("snooping")
		w.mustSetSwitch(`{"hold_down": "1s"}`)
		if w.running("snooping") != snoop {
			t.Error("snooping began anew")
		}
		w.mustSetSwitch(`{"snooping": false}`)
		w.wantStream(group4, "vm1", "vm2")
		time.Sleep(time.Hour)
		w.wantStream(group4, "vm1", "vm2")
	})
}
