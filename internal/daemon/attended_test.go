package daemon

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/port"
)

// A port keeps its device while a machine is attached, unless it is removed by force. A
// device can have its machine while the port is not open.
func TestDelPortOfAnAttachedMachine(t *testing.T) {
	peer := func(up bool) func(*fakePort) port.Port {
		return func(p *fakePort) port.Port {
			return &linkedPort{fakePort: p, up: up, changed: make(chan struct{}, 1), why: errors.New("nobody is there")}
		}
	}
	for _, c := range []struct {
		name string
		host func(*fakeHost)
		open bool
		want string // of the refusal; empty: there is none
	}{
		{"nobody", func(*fakeHost) {}, true, ""},
		{"a peer", func(h *fakeHost) { h.wrap = peer(true) }, true, "its machine is attached"},
		{"no peer", func(h *fakeHost) { h.wrap = peer(false) }, true, ""},
		{"a device is held", func(h *fakeHost) { h.attended = "a machine holds it" }, true, "a machine holds it"},
		{"of a waiting port", func(h *fakeHost) { h.attended, h.openErr = "a machine holds it", port.ErrGone }, false, "a machine holds it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newFakeHost()
				c.host(h)
				r := start(t, h, store.State{})
				if err := r.addReq(noWait(wanted(spec("vm0")))); err != nil {
					t.Fatal(err)
				}
				if isOpen := h.device("vm0") != nil; isOpen != c.open {
					t.Fatalf("the device is open: %v", isOpen)
				}
				err := r.do(func() error { return r.delPort("vm0", false) })
				if c.want == "" {
					if err != nil || len(h.deleted) != 1 {
						t.Errorf("not removed: %v, %v", err, h.deleted)
					}
					return
				}
				wantCode(t, err, api.CodeInUse, "port vm0 is in use: "+c.want)
				if len(h.deleted) != 0 || len(r.disk.state().Ports) != 1 {
					t.Errorf("a refused removal removed %v, and left %v on disk", h.deleted, r.disk.state().Ports)
				}
				if err := r.do(func() error { return r.delPort("vm0", true) }); err != nil || len(h.deleted) != 1 || len(r.disk.state().Ports) != 0 {
					t.Errorf("forced: %v, %v, on disk %v", err, h.deleted, r.disk.state().Ports)
				}
			})
		})
	}
}

// A port that may exist is left as it is, and only what was asked for counts.
func TestAddPortThatMayExist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		may := func(kind string, set api.Settings) error {
			return r.addReq(api.AddPort{Name: "vm0", Kind: kind, Settings: set, MayExist: true})
		}
		if err := may("fake", api.Settings{"mtu": 1400, "access": 10, "labels": map[string]string{"tier": "front", "zone": "a"}}); err != nil {
			t.Fatal(err)
		}
		writes, before := r.disk.writes(), r.spec("vm0")
		for _, set := range []api.Settings{
			nil,
			{"mtu": 1400},
			{"access": 10, "isolated": false, "learn_limit": 0},
			{"labels": map[string]string{"zone": "a"}},
		} {
			if err := may("fake", set); err != nil {
				t.Errorf("%v: %v", set, err)
			}
		}
		for _, c := range []struct {
			kind string
			set  api.Settings
			code string
			want string
		}{
			{"fake", api.Settings{"mtu": 9000}, api.CodeExists, "port vm0 exists, but --mtu is 1400, not 9000;"},
			{"fake", api.Settings{"mtu": 0, "isolated": true}, api.CodeExists, "--mtu is 1400, not unset, and --isolated is unset, not on;"},
			{"fake", api.Settings{"trunk": "20"}, api.CodeExists, "--access is 10, not unset, and --trunk is unset, not 20;"},
			{"fake", api.Settings{"labels": map[string]string{"zone": "b"}}, api.CodeExists, "--label is "},
			{"tap", nil, api.CodeExists, "its kind is fake, not tap"},
			{"fake", api.Settings{"frob": 1}, api.CodeInvalid, "frob"},
		} {
			wantCode(t, may(c.kind, c.set), c.code, c.want)
		}
		wantCode(t, r.add("vm0"), api.CodeExists, "port vm0 exists;")
		if got := r.spec("vm0"); r.disk.writes() != writes || mtuOf(got) != mtuOf(before) || got.Access != before.Access {
			t.Errorf("%d writes, the port is %+v, was %+v", r.disk.writes()-writes, got, before)
		}
	})
}

// The devices of a namespace are one switch's of a name: another has no port on them
// until the first is gone.
func TestAnotherSwitchOfTheName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		h.other = errors.New("another switch called sw0 is there")
		r := start(t, h, store.State{Ports: []store.Port{{Spec: saved(spec("vm0"))}}})
		r.wantState("vm0", api.StateWaiting)
		if got := r.port("vm0").Reason; got != "another switch called sw0 is there" {
			t.Errorf("reason %q", got)
		}
		wantCode(t, r.add("vm1"), api.CodeFailed, "another switch called sw0 is there")
		if len(h.devices) != 0 {
			t.Errorf("devices were opened: %v", h.devices)
		}
		h.locked(func() { h.other = nil })
		time.Sleep(maxBackoff)
		r.wantState("vm0", api.StateNoCarrier)
		r.mustAdd("vm1")
	})
}
