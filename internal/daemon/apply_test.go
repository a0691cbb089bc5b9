package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/port"
)

// apply applies a configuration; edit changes the request.
func (r *rig) apply(doc string, edit func(*api.ApplyConfig)) (api.AppliedConfig, error) {
	r.t.Helper()
	if !strings.HasPrefix(doc, `{"version"`) {
		doc = `{"version": 1, ` + doc + `}`
	}
	req := api.ApplyConfig{Config: api.Config{RawMessage: json.RawMessage(doc)}, By: "test.yaml"}
	if edit != nil {
		edit(&req)
	}
	done, err := r.applyConfig(req)
	synctest.Wait()
	return done, err
}

func (r *rig) mustApply(doc string, edit func(*api.ApplyConfig)) api.AppliedConfig {
	r.t.Helper()
	done, err := r.apply(doc, edit)
	if err != nil {
		r.t.Fatal(err)
	}
	return done
}

func plainSteps(done api.AppliedConfig) []string {
	all := []string{}
	for _, s := range done.Steps {
		all = append(all, s.Change+" "+s.What+": "+s.How)
	}
	return all
}

func wantSteps(t *testing.T, done api.AppliedConfig, want ...string) {
	t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), plainSteps(done)); diff != "" {
		t.Fatalf("steps (-want +got):\n%s", diff)
	}
}

// restart starts a manager with a state, as Run does.
func restart(t *testing.T, h *fakeHost, saved store.State, dir string) *rig {
	t.Helper()
	return startWith(t, h, saved, func(o *Options) {
		o.sections = saved.Sections
		kept, err := noSettings(o.Features).merge(saved.Switch)
		if err != nil {
			t.Fatal(err)
		}
		o.kept, o.settings, o.StateDir = kept, kept, dir
		kept.into(o)
	})
}

// waits reports whether a change waits for its confirmation, also on disk.
func (r *rig) waits() (waits bool) {
	synctest.Wait()
	_ = r.do(func() error {
		waits = r.pending != nil
		if kept := r.disk.state().Pending != nil; kept != waits {
			r.t.Errorf("waiting is %v, on disk %v", waits, kept)
		}
		return nil
	})
	return waits
}

// config is the configuration of the switch as text.
func (r *rig) config() string {
	r.t.Helper()
	c, err := ask(r.manager, func() (api.Config, error) { return r.asConfig(r.document()()), nil })
	if err != nil {
		r.t.Fatal(err)
	}
	return string(c.RawMessage)
}

const two = `"switch": {"aging": "1m0s", "snooping": true},
	"ports": {"vm0": {"kind": "fake", "access": 10}, "vm1": {"kind": "fake", "mtu": 9000}},
	"fdb": [{"mac": "52:54:00:00:00:01", "vlan": 10, "port": "vm0", "sticky": true}],
	"groups": [{"group": "239.1.2.3", "port": "vm1"}]`

func TestApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		dry := r.mustApply(two, func(a *api.ApplyConfig) { a.DryRun = true })
		if r.disk.writes() != 0 || len(r.ports) != 0 {
			t.Fatalf("a dry run wrote %d times and made %d ports", r.disk.writes(), len(r.ports))
		}
		writes := r.disk.writes()
		done := r.mustApply(two, func(a *api.ApplyConfig) { a.Plan = dry.Plan })
		wantSteps(t, done,
			"add port vm0: fake, access 10",
			"add port vm1: fake, mtu 9000",
			"set switch: aging unset → 1m0s, snooping unset → on",
			"add fdb 52:54:00:00:00:01 vlan 10: port vm0, sticky",
			"add group 239.1.2.3 vlan 1 port vm1: ")
		if r.disk.writes() != writes+1 {
			t.Errorf("the state was written %d times, want once", r.disk.writes()-writes)
		}
		if string(dry.Config.RawMessage) != string(done.Config.RawMessage) || string(done.Config.RawMessage) != r.config() {
			t.Errorf("the dry run foresees %s, done is %s, the switch has %s", dry.Config, done.Config, r.config())
		}
		if _, ok := r.sw.FDB().Get(mustKey(t, "52:54:00:00:00:01", 10)); !ok || r.hostedFeature("groups") == nil || len(r.itemsOf(r.hostedFeature("groups"))) != 1 || r.aging != time.Minute {
			t.Error("not all of it is in force")
		}
		writes = r.disk.writes()
		wantSteps(t, r.mustApply(two, nil))
		if r.disk.writes() != writes {
			t.Error("a second apply wrote the state")
		}
		// What was exported is the same again.
		wantSteps(t, r.mustApply(r.config(), func(a *api.ApplyConfig) { a.Prune = api.PruneAll }))

		_, err := r.apply(`"ports": {"vm7": {"kind": "fake"}}`, func(a *api.ApplyConfig) { a.Plan = dry.Plan })
		wantCode(t, err, api.CodeConflict, "look at the new plan")

		done = r.mustApply(`"switch": {}, "ports": {"vm0": {"kind": "fake", "access": 20, "isolated": true}}, "fdb": []`, nil)
		wantSteps(t, done,
			"set port vm0: access 10 → 20, isolated unset → on",
			"set switch: aging 1m0s → unset, snooping on → unset")
		if r.spec("vm0").Access != 20 || r.port("vm1").Name == "" {
			t.Error("ports are not as they should be")
		}
	})
}

func mustKey(t *testing.T, mac string, vlan uint16) fdb.Key {
	t.Helper()
	a, err := port.ParseMAC(mac)
	if err != nil {
		t.Fatal(err)
	}
	return fdb.MakeKey(vlan, uint64(a))
}

// All that is wrong is named, and nothing is changed.
func TestApplyNamesEveryProblem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		_, err := r.apply(`"switch": {"stp_priority": 4096},
			"ports": {"vm0": {"kind": "fake", "owner": "me"}, "vm1": {"kind": "nap"}, "vm2": {"kind": "fake", "access": 10}, "a/b": {"kind": "fake"}},
			"fdb": [{"mac": "01:00:00:00:00:01", "port": "vm2"}, {"mac": "52:54:00:00:00:01", "port": "vm9"}, {"mac": "52:54:00:00:00:02", "port": "vm2"}],
			"groups": [{"group": "239.1.2.3", "port": "vm2"}],
			"mirrors": {"m0": {"from": ["vm2"], "to": "vm2", "filter": "arp and"}},
			"features": {"nothing": 1}`, nil)
		var e *api.Error
		if !errors.As(err, &e) || e.Code != api.CodeInvalid || strings.Contains(e.Message, "\n") {
			t.Fatalf("got %v", err)
		}
		var at []string
		for _, p := range e.Problems {
			at = append(at, p.At)
		}
		want := []string{"fdb/0", "fdb/1", "fdb/2", "features/nothing", "groups", "groups/0", "mirrors/m0", "ports/a/b", "ports/vm0", "ports/vm1", "switch"}
		if diff := cmp.Diff(want, at); diff != "" {
			t.Errorf("places of problems (-want +got):\n%s%+v", diff, e.Problems)
		}
		if len(r.ports) != 0 || r.disk.writes() != 0 {
			t.Error("something was changed")
		}
		for _, doc := range []string{`{"version": 2}`, `{"version": 1, "port": {}}`, `{"version": 1} 2`, `[]`} {
			if _, err := r.applyConfig(api.ApplyConfig{Config: api.Config{RawMessage: json.RawMessage(doc)}}); err == nil {
				t.Errorf("%s is accepted", doc)
			}
		}
	})
}

// When a step fails, the steps before it are taken back.
func TestApplyIsAllOrNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		r := start(t, h, store.State{})
		r.mustApply(strings.Replace(two, `, "sticky": true`, "", 1), nil)
		before, marks := r.config(), fmt.Sprint(r.applied)
		onDisk, _ := json.Marshal(r.disk.state())
		change := `"switch": {}, "ports": {"vm0": {"kind": "fake", "access": 30}, "vm1": {"kind": "fake"}, "vm2": {"kind": "fake"}, "vm3": {"kind": "fake"}},
			"fdb": [{"mac": "52:54:00:00:00:02", "vlan": 30, "port": "vm0"}]`
		for _, c := range []struct {
			name       string
			fail, mend func()
		}{
			{"a device", func() {
				h.locked(func() {
					h.slow = func(call, name string) {
						if call == "Open" && name == "vm3" {
							h.failOpen(errors.New("no room"))
						}
					}
				})
			}, func() { h.locked(func() { h.slow = nil }); h.failOpen(nil) }},
			{"a setting", func() { h.setErr = errors.New("refused") }, func() { h.setErr = nil }},
			{"the disk", func() { r.disk.fail(errors.New("full")) }, func() { r.disk.fail(nil) }},
		} {
			c.fail()
			_, err := r.apply(change, nil)
			c.mend()
			if err == nil {
				t.Fatalf("%s: no error", c.name)
			}
			if _, ok := r.sw.FDB().Get(mustKey(t, "52:54:00:00:00:01", 10)); !ok {
				t.Errorf("%s: the static entry is gone", c.name)
			}
			time.Sleep(2 * saveRetry) // what is written later is the former state, too
			synctest.Wait()
			if got := r.config(); got != before {
				t.Errorf("%s: after the failure (-before +now):\n%s", c.name, cmp.Diff(before, got))
			}
			if got := fmt.Sprint(r.applied); got != marks {
				t.Errorf("%s: marks are %s, were %s", c.name, got, marks)
			}
			if now, _ := json.Marshal(r.disk.state()); string(now) != string(onDisk) {
				t.Errorf("%s: on disk (-before +now):\n%s", c.name, cmp.Diff(string(onDisk), string(now)))
			}
			if c.name != "a setting" && !slices.ContainsFunc(h.deleted, func(d string) bool { return strings.HasPrefix(d, "vm2 ") }) {
				t.Errorf("%s: a device is left; deleted are %q", c.name, h.deleted)
			}
			h.deleted = nil
			r.wantState("vm0", api.StateNoCarrier)
		}
		if n := len(r.history); n != 1 {
			t.Errorf("the history has %d changes, want 1", n)
		}
	})
}

func TestApplyPrunes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		r := start(t, h, store.State{})
		r.mustApply(two, nil)
		r.mustAdd("byhand")
		wantSteps(t, r.mustApply(`"ports": {}`, nil))
		prune := func(what string) func(*api.ApplyConfig) { return func(a *api.ApplyConfig) { a.Prune = what } }

		h.attended = "QEMU has it"
		_, err := r.apply(`"ports": {"vm0": {"kind": "fake"}}`, prune(api.PruneApplied))
		wantCode(t, err, api.CodeInUse, "port vm1 is in use: QEMU has it; stop the machine first")
		h.attended = ""

		done := r.mustApply(`"ports": {"vm0": {"kind": "fake", "access": 10}}`, prune(api.PruneApplied))
		wantSteps(t, done,
			"remove fdb 52:54:00:00:00:01 vlan 10: port vm0, sticky",
			"remove group 239.1.2.3 vlan 1 port vm1: ",
			"remove port vm1: fake, mtu 9000")
		if diff := cmp.Diff([]string{"vm1 created=true"}, h.deleted); diff != "" {
			t.Errorf("deleted devices (-want +got):\n%s", diff)
		}
		// What is bound to a port goes with it, whoever asked for it; a mirror waits for another.
		r.mustApply(`"ports": {"vm5": {"kind": "fake", "access": 10}}`, nil)
		if _, err := r.addFDB(api.AddFDB{MAC: 0x525400000005, VLAN: 10, Port: "vm5"}); err != nil {
			t.Fatal(err)
		}
		if err := r.call("POST", "/v1/mirrors", api.Mirror{Name: "m0", From: []string{"vm5"}, ToVLAN: 9}, nil); err != nil {
			t.Fatal(err)
		}
		if !(host{r.manager}).Pinned(mustKey(t, "52:54:00:00:00:05", 10)) || (host{r.manager}).Pinned(mustKey(t, "52:54:00:00:00:06", 10)) {
			t.Error("the entry of a user is not pinned, or another is")
		}
		h.deleted = nil
		wantSteps(t, r.mustApply(`"ports": {"vm0": {"kind": "fake", "access": 10}}`, prune(api.PruneApplied)),
			"remove fdb 52:54:00:00:00:05 vlan 10: port vm5",
			"remove port vm5: fake, access 10")
		if len(fdbOf(r.disk.state())) != 0 || len(r.itemsOf(r.hostedFeature("mirrors"))) != 1 {
			t.Errorf("left are %+v and %+v", fdbOf(r.disk.state()), r.itemsOf(r.hostedFeature("mirrors")))
		}
		// So what the switch is can be applied to it; a mirror that would be another needs its ports.
		wantSteps(t, r.mustApply(`"mirrors": {"m0": {"from": ["vm5"], "to_vlan": 9}}`, nil))
		_, err = r.apply(`"mirrors": {"m0": {"from": ["vm5"], "to_vlan": 10}}`, nil)
		wantCode(t, err, api.CodeInvalid, "mirror m0: there is no port vm5")
		if err := r.call("DELETE", "/v1/mirrors/m0", nil, nil); err != nil {
			t.Fatal(err)
		}

		// A port that was removed and added by hand is no longer the configuration's.
		if err := r.do(func() error { return r.delPort("vm0", false) }); err != nil {
			t.Fatal(err)
		}
		r.mustAdd("vm0")
		wantSteps(t, r.mustApply(`"ports": {}`, prune(api.PruneApplied)))
		wantSteps(t, r.mustApply(`"ports": {"vm0": {"kind": "fake"}}`, prune(api.PruneAll)), "remove port byhand: fake")
		r.stop()
		again := restart(t, h, r.disk.state(), "")
		wantSteps(t, again.mustApply(`"ports": {}`, prune(api.PruneApplied)), "remove port vm0: fake")
	})
}

// otherKind is a second kind of ports on the same host.
type otherKind struct{ *fakeHost }

func (otherKind) Name() string { return "other" }

func TestApplyReplaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		r := startWith(t, h, store.State{}, func(o *Options) { o.Kinds = append(o.Kinds, otherKind{h}) })
		r.mustApply(two, nil)
		doc := strings.Replace(two, `"vm0": {"kind": "fake"`, `"vm0": {"kind": "other"`, 1)
		_, err := r.apply(doc, nil)
		wantCode(t, err, api.CodeInUse, "port vm0 must be made again (kind fake → other), which cuts its machine off until it reconnects; allow that with --allow-replace")
		allow := func(a *api.ApplyConfig) { a.AllowReplace = true }

		h.failOpen(errors.New("no room"))
		_, err = r.apply(doc, allow)
		wantCode(t, err, api.CodeFailed, "no room")
		if got := r.port("vm0"); got.Kind != "fake" || got.State != api.StateWaiting {
			t.Errorf("the former port is %s, %s", got.Kind, got.State)
		}
		h.failOpen(nil)
		time.Sleep(2 * maxBackoff)
		r.wantState("vm0", api.StateNoCarrier)

		wantSteps(t, r.mustApply(doc, allow), "replace port vm0: kind fake → other")
		if _, ok := r.sw.FDB().Get(mustKey(t, "52:54:00:00:00:01", 10)); !ok {
			t.Error("the port's static entry is gone")
		}

		// So is one whose setting is chosen when it is made.
		doc = strings.Replace(doc, `"mtu": 9000`, `"mtu": 9000, "mode": "fast"`, 1)
		_, err = r.apply(doc, nil)
		wantCode(t, err, api.CodeInUse, "port vm1 must be made again")
		if steps := r.mustApply(doc, allow).Steps; len(steps) != 1 || steps[0].Change != "replace" || r.port("vm1").Spec.Settings()["mode"] != "fast" {
			t.Errorf("the steps are %+v", steps)
		}
	})
}

// While many ports are made, the switch answers, and further changes are told why they wait.
func TestApplyDoesNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		r := start(t, h, store.State{})
		h.locked(func() {
			h.slow = func(call, _ string) {
				if call == "Open" {
					time.Sleep(time.Second)
				}
			}
		})
		var ports []string
		for i := range 20 {
			ports = append(ports, fmt.Sprintf(`"vm%d": {"kind": "fake"}`, i))
		}
		done := make(chan error)
		go func() {
			_, err := r.apply(`"ports": {`+strings.Join(ports, ", ")+`}`, nil)
			done <- err
		}()
		time.Sleep(3500 * time.Millisecond)
		began := time.Now()
		all, err := ask(r.manager, func() ([]api.Port, error) { return r.describeAll(), nil })
		if err != nil || len(all) != 3 || time.Since(began) != 0 {
			t.Errorf("%d ports after %v, %v", len(all), time.Since(began), err)
		}
		_, err = r.applyConfig(api.ApplyConfig{Config: api.Config{RawMessage: json.RawMessage(`{"version": 1}`)}})
		wantCode(t, err, api.CodeConflict, "a configuration is being applied")
		_ = r.do(func() error { // in order with what comes
			if r.disk.writes() != 0 {
				t.Error("half a configuration was written")
			}
			return nil
		})
		if err := <-done; err != nil || r.disk.writes() != 1 {
			t.Errorf("%v, %d writes", err, r.disk.writes())
		}
	})
}

func TestConfirm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		r := start(t, h, store.State{})
		r.mustApply(two, nil)
		before := r.config()
		confirm := func(s int64) func(*api.ApplyConfig) {
			return func(a *api.ApplyConfig) { a.ConfirmS, a.Prune, a.Force = s, api.PruneApplied, true }
		}
		other := `"switch": {}, "ports": {"vm0": {"kind": "fake"}, "vm5": {"kind": "fake"}}`

		done := r.mustApply(other, confirm(60))
		if done.Pending == nil || done.Pending.By != "test.yaml" || !done.Pending.Until.Equal(time.Now().Add(time.Minute)) {
			t.Fatalf("pending is %+v", done.Pending)
		}
		_, err := r.apply(`"ports": {}`, nil)
		wantCode(t, err, api.CodeConflict, "waits for its confirmation")
		_ = r.do(func() error {
			r.collect(func(m *feature.Metric, v float64, _ ...string) {
				if m == &confirmUntil && v != float64(done.Pending.Until.Unix()) {
					t.Errorf("the time for it ends at %v, want %v", v, done.Pending.Until.Unix())
				}
			})
			return nil
		})
		r.mustAdd("byhand") // stays
		time.Sleep(59 * time.Second)
		wantSteps(t, r.mustApply(other, confirm(60))) // once more: prolonged
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if r.port("vm5"); !r.waits() {
			t.Fatal("taken back too early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		got := strings.Replace(r.config(), `"byhand":{"kind":"fake"},`, "", 1)
		if r.waits() || got != before {
			t.Errorf("after the time (-before +now):\n%s", cmp.Diff(before, got))
		}
		if log := r.logged(); !strings.Contains(log, "not confirmed in time") || strings.Contains(log, "tried again") {
			t.Errorf("the log has %s", log)
		}

		// Confirmed, it stays.
		r.mustApply(other, confirm(60))
		if err := r.manager.change(r.confirm); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		r.port("vm5")
		wantCode(t, r.manager.change(r.confirm), api.CodeNotFound, "no change waits")
	})
}

// A host that starts with a clock of former years does not prolong the time for a confirmation.
func TestConfirmationAfterTheClockWasSetBack(t *testing.T) {
	for given, most := range map[int]time.Duration{60: time.Minute, 0: maxConfirm * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			r := start(t, newFakeHost(), store.State{
				Ports:   []store.Port{{Spec: store.Spec{Name: "vm0", Kind: "fake"}}},
				Pending: &store.Pending{By: "a.yaml", Until: time.Now().AddDate(30, 0, 0), TimeS: given, Undo: json.RawMessage(`{}`)},
			})
			if until := r.describePending().Until; !until.Equal(time.Now().Add(most)) {
				t.Errorf("of %d s, it ends at %v", given, until)
			}
			time.Sleep(most - time.Second)
			synctest.Wait()
			if !r.waits() {
				t.Error("taken back too early")
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if r.waits() {
				t.Error("it waits for its confirmation after its time")
			}
		})
	}
	for _, given := range []int{-1, maxConfirm + 1} {
		if _, err := pendingFrom(&store.Pending{TimeS: given, Undo: json.RawMessage(`{}`)}); err == nil {
			t.Errorf("a time of %d s is taken", given)
		}
	}
}

// A configuration that is half applied is not written, whatever happens meanwhile: a daemon that
// dies then starts as it was before.
func TestHalfAppliedIsNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		r := start(t, h, store.State{})
		r.mustAdd("old")
		gate := make(chan struct{})
		h.slow = func(call, name string) {
			if call == "Open" && name == "vm1" {
				<-gate
			}
		}
		applied := make(chan error)
		go func() {
			_, err := r.applyConfig(api.ApplyConfig{Config: api.Config{
				RawMessage: json.RawMessage(`{"version": 1, "ports": {"vm0": {"kind": "fake"}, "vm1": {"kind": "fake"}}}`),
			}})
			applied <- err
		}()
		synctest.Wait()
		r.change("old", func(l *link.Link) { l.Name = "renamed" })
		if p := r.port("old"); p.Ifname != "renamed" || len(r.disk.state().Ports) != 1 || r.disk.state().Ports[0].Trace.Ifname != "old" {
			t.Errorf("half way, on disk is %+v", r.disk.state())
		}
		close(gate)
		if err := <-applied; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(r.disk.state().Ports) != 3 || r.disk.state().Ports[0].Trace.Ifname != "renamed" {
			t.Errorf("at last, on disk is %+v", r.disk.state())
		}
	})
}

// While a change that nobody confirmed cannot be taken back, that is tried again and again.
func TestExpiryIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		before := r.config()
		r.mustApply(`"switch": {}, "ports": {"vm0": {"kind": "fake"}}`, func(a *api.ApplyConfig) { a.ConfirmS = 60 })
		r.disk.fail(errors.New("the disk fails"))
		time.Sleep(2 * time.Minute)
		if !r.waits() || !strings.Contains(r.logged(), "tried again") {
			t.Error("a change is forgotten that could not be taken back")
		}
		r.disk.fail(nil)
		time.Sleep(time.Minute)
		if r.waits() || r.config() != before {
			t.Errorf("afterwards (-before +now):\n%s", cmp.Diff(before, r.config()))
		}
	})
}

// A configuration that does not fit at the start is in the log, each line of its own, and the
// switch runs as it was.
func TestApplyAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		bad := api.ApplyConfig{Config: api.Config{RawMessage: json.RawMessage(`{"version": 1, "ports": {"vm0": {"kind": "none"}}}`)}}
		for n, reword := range []func(error) error{nil, func(error) error { return errors.New("line 3: none\nline 4: none") }} {
			r.logged()
			r.applyAtStart(bad, reword)
			log := r.logged()
			if strings.Count(log, "the configuration is not applied") != n+1 || strings.Contains(log, "no port kind") == (n == 1) || strings.Contains(log, `"line 4: none"`) != (n == 1) {
				t.Errorf("%d: the log has %q", n, log)
			}
		}
		good := bad
		good.Config.RawMessage = json.RawMessage(`{"version": 1, "ports": {"vm0": {"kind": "fake"}}}`)
		r.applyAtStart(good, nil)
		if log := r.logged(); strings.Contains(log, "not applied") || r.port("vm0").Kind != "fake" {
			t.Errorf("the log has %q", log)
		}
	})
}

// A daemon that was killed while a change waited takes it back when its time is over: at
// once, if that was meanwhile.
func TestConfirmOutlivesTheDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, away := range []time.Duration{0, time.Hour} {
			h := newFakeHost()
			r := start(t, h, store.State{})
			r.mustApply(two, nil)
			before := r.config()
			r.mustApply(`"ports": {"vm0": {"kind": "fake"}, "vm5": {"kind": "fake"}}`, func(a *api.ApplyConfig) { a.ConfirmS = 600 })
			b, err := json.Marshal(r.disk.state())
			if err != nil {
				t.Fatal(err)
			}
			r.stop()
			time.Sleep(away)
			var kept store.State
			if err := json.Unmarshal(b, &kept); err != nil {
				t.Fatal(err)
			}
			again := restart(t, h, kept, "")
			synctest.Wait()
			if away == 0 {
				again.port("vm5")
				time.Sleep(11 * time.Minute)
				synctest.Wait()
			}
			if got := again.config(); got != before || again.waits() {
				t.Errorf("away for %v (-before +now):\n%s", away, cmp.Diff(before, got))
			}
			again.stop()
		}
	})
}

// What undoes a change is on disk before the change begins.
func TestPendingIsWrittenFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		r := start(t, h, store.State{})
		h.locked(func() {
			h.slow = func(call, _ string) {
				if call == "Open" && (r.disk.state().Pending == nil || len(r.disk.state().Ports) != 0) {
					t.Error("a device is opened before the pending change is on disk")
				}
			}
		})
		r.mustApply(`"ports": {"vm0": {"kind": "fake"}}`, func(a *api.ApplyConfig) { a.ConfirmS = 60 })
		h.locked(func() { h.slow = nil })
	})
}

// A port that a configuration removes is off the disk before its device goes, or a daemon that dies
// in between would make it again. If the disk fails, the port stays.
func TestRemovedPortIsForgottenFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		r := start(t, h, store.State{})
		r.mustApply(`"ports": {"vm0": {"kind": "fake"}, "vm1": {"kind": "fake"}}`, nil)
		prune := func(a *api.ApplyConfig) { a.Prune = api.PruneApplied }
		without := `"ports": {"vm0": {"kind": "fake"}}`
		r.disk.fail(errors.New("the disk fails"))
		_, err := r.apply(without, prune)
		wantCode(t, err, api.CodeFailed, "the disk fails")
		r.disk.fail(nil)
		r.mustAdd("byhand")
		if len(r.disk.state().Ports) != 3 || len(h.deleted) != 0 {
			t.Errorf("after a failure, on disk is %+v, deleted are %q", r.disk.state().Ports, h.deleted)
		}
		h.locked(func() {
			h.slow = func(call, name string) {
				if call == "Delete" && len(r.disk.state().Ports) != 2 {
					t.Errorf("device %s goes, and on disk is %+v", name, r.disk.state().Ports)
				}
			}
		})
		wantSteps(t, r.mustApply(without, prune), "remove port vm1: fake")
		if len(h.deleted) != 1 {
			t.Errorf("deleted are %q", h.deleted)
		}
		h.locked(func() { h.slow = nil })
	})
}

func TestRollback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		back := func(to int) (done api.AppliedConfig, err error) {
			err = r.changeConfig(func() (err error) { done, err = r.rollback(api.RollbackConfig{To: to}); return err })
			synctest.Wait()
			return done, err
		}
		_, err := back(0)
		wantCode(t, err, api.CodeNotFound, "no change to take back")
		empty := r.config()
		r.mustApply(two, nil)
		first := r.config()
		r.mustApply(`"ports": {"vm0": {"kind": "fake", "access": 99}, "vm2": {"kind": "fake"}}`, func(a *api.ApplyConfig) { a.Prune = api.PruneApplied; a.Force = true })
		second := r.config()
		if done, err := back(0); err != nil || len(done.Steps) == 0 || r.config() != first {
			t.Fatalf("%v; (-want +got):\n%s", err, cmp.Diff(first, r.config()))
		}
		if _, err := back(0); err != nil || r.config() != second { // takes back the taking back
			t.Fatalf("%v; (-want +got):\n%s", err, cmp.Diff(second, r.config()))
		}
		_, err = back(9)
		wantCode(t, err, api.CodeNotFound, "the history has no change 9; it has 1 to 4")
		if _, err := back(1); err != nil || r.config() != empty {
			t.Fatalf("%v; (-want +got):\n%s", err, cmp.Diff(empty, r.config()))
		}
		for range maxHistory {
			if _, err := back(0); err != nil {
				t.Fatal(err)
			}
		}
		if h := r.describeHistory(); len(h) != maxHistory || h[maxHistory-1].Number != 15 || !strings.HasPrefix(h[0].By, "rollback to") {
			t.Errorf("the history is %+v", h)
		}
	})
}

// A device that cannot be made again does not stop a rollback: its port waits.
func TestRollbackIsLenient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		r := start(t, h, store.State{})
		r.mustApply(`"ports": {"vm0": {"kind": "fake"}}`, nil)
		r.mustApply(`"ports": {}`, func(a *api.ApplyConfig) { a.Prune = api.PruneApplied })
		h.failOpen(errors.New("no room"))
		err := r.changeConfig(func() error { _, err := r.rollback(api.RollbackConfig{}); return err })
		if err != nil {
			t.Fatal(err)
		}
		r.wantState("vm0", api.StateWaiting)
		h.failOpen(nil)
		time.Sleep(2 * maxBackoff)
		r.wantState("vm0", api.StateNoCarrier)
	})
}

func TestHistoryIsKept(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		r := startWith(t, h, store.State{}, func(o *Options) { o.StateDir = dir })
		r.mustApply(two, nil)
		want := r.config()
		r.mustApply(`"ports": {"vm9": {"kind": "fake"}}`, nil)
		r.stop()
		again := restart(t, h, r.disk.state(), dir)
		if err := again.changeConfig(func() error { _, err := again.rollback(api.RollbackConfig{}); return err }); err != nil {
			t.Fatal(err)
		}
		if got := again.config(); got != want {
			t.Errorf("after the rollback (-want +got):\n%s", cmp.Diff(want, got))
		}
		again.stop()
		if err := os.WriteFile(filepath.Join(dir, "history.json"), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		last := restart(t, h, again.disk.state(), dir)
		if log := last.logged(); !strings.Contains(log, "history of configurations cannot be read") || len(last.ports) != 2 {
			t.Errorf("with a broken history: %s", log)
		}
		aside, _ := filepath.Glob(filepath.Join(dir, "history.json.corrupt-*"))
		if b, err := os.ReadFile(strings.Join(aside, "")); err != nil || string(b) != "{" {
			t.Errorf("the broken history is kept as %v: %q, %v", aside, b, err)
		}
	})
}

// keeper is a feature that keeps a JSON value, and refuses one.
type keeper struct{ state json.RawMessage }

func (k *keeper) Stop()                           {}
func (k *keeper) State() (json.RawMessage, error) { return k.state, nil }
func (k *keeper) Restore(b json.RawMessage) error {
	if string(b) == `"bad"` {
		return errors.New("this is bad")
	}
	k.state = b
	return nil
}

func TestApplyFeatures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := new(keeper)
		r := startWith(t, newFakeHost(), store.State{}, func(o *Options) {
			o.Features = []feature.Feature{{Name: "keeper", New: func(feature.Host, any) (feature.Instance, error) { return k, nil }}}
		})
		wantSteps(t, r.mustApply(`"features": {"keeper": {"a": [1]}}`, nil), "set feature keeper: what it keeps")
		wantSteps(t, r.mustApply(`"features": {"keeper": {"a":[1]}}`, nil))
		_, err := r.apply(`"ports": {"vm0": {"kind": "fake"}}, "features": {"keeper": "bad"}`, nil)
		wantCode(t, err, api.CodeFailed, "feature keeper: this is bad")
		if string(k.state) != `{"a": [1]}` && string(k.state) != `{"a":[1]}` || len(r.ports) != 0 {
			t.Errorf("the feature keeps %s, there are %d ports", k.state, len(r.ports))
		}
		if err := r.changeConfig(func() error { _, err := r.rollback(api.RollbackConfig{}); return err }); err != nil || k.state != nil {
			t.Errorf("%v, after the rollback it keeps %s", err, k.state)
		}
	})
}

// What a feature learned by itself is kept in the state, and is no configuration.
func TestConfigWithoutWhatIsLearned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{state: json.RawMessage(`{"a":1,"heard":[2]}`)}
		r := startWith(t, newFakeHost(), store.State{}, func(o *Options) {
			o.Features = []feature.Feature{{Name: "keeper", Learned: []string{"heard"}, New: func(feature.Host, any) (feature.Instance, error) { return k, nil }}}
		})
		if got := r.config(); !strings.Contains(got, `"a":1`) || strings.Contains(got, "heard") {
			t.Errorf("the configuration is %s", got)
		}
		wantSteps(t, r.mustApply(`"features": {"keeper": {"a": 1}}`, nil))
		if states := r.featureStates(); !strings.Contains(string(states["keeper"]), "heard") {
			t.Errorf("the state has %s", states["keeper"])
		}
		wantSteps(t, r.mustApply(`"features": {"keeper": {"a": 2}}`, nil), "set feature keeper: what it keeps")
		if want := `{"a":2,"heard":[2]}`; string(k.state) != want {
			t.Errorf("the feature keeps %s, want %s", k.state, want)
		}
		wantSteps(t, r.mustApply(`"features": {"keeper": null}`, nil), "set feature keeper: what it keeps")
		if want := `{"heard":[2]}`; string(k.state) != want {
			t.Errorf("the feature keeps %s, want %s", k.state, want)
		}
		k.state = json.RawMessage(`{"heard":[3]}`)
		if got := r.config(); strings.Contains(got, "keeper") {
			t.Errorf("the configuration is %s", got)
		}
	})
}

// Ports that somebody else's device keeps waiting are named.
func TestApplyNotesWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		h.makes = false
		r := start(t, h, store.State{})
		done := r.mustApply(`"ports": {"vm0": {"kind": "fake"}}`, nil)
		if len(done.Notes) != 1 || !strings.HasPrefix(done.Notes[0], "port vm0 waits: no interface vm0") {
			t.Errorf("notes are %q", done.Notes)
		}
		h.put(link.Link{Name: "vm0", Up: true, Carrier: true})
		time.Sleep(time.Second)
		r.wantState("vm0", api.StateUp)
	})
}

// A body of a configuration may be large, others may not.
func TestBodyLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		h := r.handler()
		post := func(path, body string) int {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, strings.NewReader(body)))
			return w.Code
		}
		padding := strings.Repeat(" ", 2*maxBody)
		if got := post("/v1/config", padding+`{"config": {"version": 1}}`); got != http.StatusOK {
			t.Errorf("a large configuration: %d", got)
		}
		if got := post("/v1/fdb", padding+`{}`); got != http.StatusBadRequest {
			t.Errorf("a large entry: %d", got)
		}
	})
}

// What a configuration does is an event, beside those of its ports.
func TestApplyEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := witnessed(t)
		synctest.Wait()
		l.take()
		r.mustApply(`"ports": {"vm0": {"kind": "fake"}}`, func(a *api.ApplyConfig) { a.ConfirmS = 60 })
		want := []string{"port.added vm0 >", "port.state vm0 >no-carrier  the other end of vm0 is down or not there", "config.applied  >  test.yaml"}
		if diff := cmp.Diff(want, l.take()); diff != "" {
			t.Errorf("apply (-want +got):\n%s", diff)
		}
		time.Sleep(61 * time.Second)
		want = []string{"config.expired  >  test.yaml", "port.removed vm0 >", "config.applied  >  no confirmation of test.yaml"}
		if diff := cmp.Diff(want, l.take()); diff != "" {
			t.Errorf("without a confirmation (-want +got):\n%s", diff)
		}
	})
}

// The calls of configurations refuse what makes no sense, before anything changes; what they tell
// is what happened.
func TestConfigCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		post := func(path string, body any) error { return r.call("POST", "/v1/config"+path, body, nil) }
		wants := func(err error, want string) {
			t.Helper()
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%v, want %q", err, want)
			}
		}
		doc := func(name string) api.Config {
			return api.Config{RawMessage: json.RawMessage(`{"version": 1, "ports": {"` + name + `": {"kind": "fake"}}}`)}
		}
		wants(post("", api.ApplyConfig{Config: doc("vm0"), Prune: "some"}), `no prune "some"`)
		wants(post("", api.ApplyConfig{Config: doc("vm0"), ConfirmS: -1}), "within -1 s")
		wants(post("", api.ApplyConfig{Config: doc("vm0"), ConfirmS: maxConfirm + 1}), "use 1 s to 604800 s, which is a week")
		wants(post("", api.ApplyConfig{Config: api.Config{RawMessage: json.RawMessage(`{"version": 9}`)}}), "not understood")
		wants(post("/confirm", nil), "no change waits")
		wants(post("/rollback", api.RollbackConfig{}), "no change to take back")
		wants(post("", []int{}), "not understood")

		for i := range 3 {
			wants(post("", api.ApplyConfig{Config: doc(fmt.Sprint("vm", i))}), "")
		}
		wants(post("/rollback", api.RollbackConfig{To: 4}), "no change 4; it has 1 to 3")
		var history []api.ConfigChange
		if err := r.call("GET", "/v1/config/history", nil, &history); err != nil || len(history) != 3 || history[2].Number != 3 || history[0].By != "apply" {
			t.Errorf("the history is %+v, %v", history, err)
		}
		wants(post("", api.ApplyConfig{Config: doc("vm3"), ConfirmS: maxConfirm}), "")
		wants(post("", api.ApplyConfig{Config: doc("vm4")}), "waits for its confirmation")
		wants(post("/rollback", api.RollbackConfig{To: 1}), "waits for its confirmation")
		wants(post("/rollback", api.RollbackConfig{}), "")
		var config struct{ Ports map[string]any }
		if err := r.call("GET", "/v1/config", nil, &config); err != nil || len(config.Ports) != 3 {
			t.Errorf("the configuration is %+v, %v", config, err)
		}
		wants(post("/rollback", api.RollbackConfig{To: 2}), "")
		if err := r.call("GET", "/v1/config", nil, &config); err != nil || len(r.ports) != 1 {
			t.Errorf("the switch has %d ports, %v", len(r.ports), err)
		}
		var drops []api.DropReason
		if err := r.call("GET", "/v1/drops", nil, &drops); err != nil || len(drops) != int(port.NumDrops)-1 {
			t.Errorf("%d reasons of drops, %v", len(drops), err)
		}
	})
}

// A group stays while snooping is off, and the configuration with it can be applied; no other comes.
func TestApplyWithGroupsThatRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		r.mustApply(two, nil)
		off := `"switch": {"aging": "1m0s"}`
		r.mustApply(off, nil)
		rests := `{"group": "239.1.2.3", "vlan": 1, "port": "vm1"}`
		wantSteps(t, r.mustApply(off+`, "groups": [`+rests+`]`, nil))
		_, err := r.apply(off+`, "groups": [`+rests+`, {"group": "239.1.2.4", "vlan": 1, "port": "vm1"}]`, nil)
		wantCode(t, err, api.CodeInvalid, "static groups need multicast snooping")
	})
}

// An entry stays at a port that no longer carries its VLAN, and the configuration with it can be applied; no other
// comes there, nor does a configuration take the VLAN away from under an entry.
func TestApplyWithEntriesThatRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		r.mustApply(two, nil)
		rests := `"fdb": [{"mac": "52:54:00:00:00:01", "vlan": 10, "port": "vm0", "sticky": true}`
		moved := `"ports": {"vm0": {"kind": "fake", "access": 11}}, `
		_, err := r.apply(moved+rests+`]`, nil)
		wantCode(t, err, api.CodeInvalid, "port vm0 does not carry VLAN 10; it carries 11")
		if err := r.set("vm0", api.Settings{"access": 11}); err != nil {
			t.Fatal(err)
		}
		wantSteps(t, r.mustApply(moved+rests+`]`, nil))
		_, err = r.apply(moved+rests+`, {"mac": "52:54:00:00:00:02", "vlan": 10, "port": "vm0"}]`, nil)
		wantCode(t, err, api.CodeInvalid, "52:54:00:00:00:02 vlan 10: port vm0 does not carry VLAN 10; it carries 11")
	})
}
