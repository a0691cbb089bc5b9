package daemon

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/port"
)

func TestPortFollowsItsInterface(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		r.mustAdd("vm0")
		r.wantState("vm0", api.StateNoCarrier)
		key := fdb.MakeKey(1, 0x525400000001)
		learn := func() {
			r.sw.FDB().Learn(key, r.sw.Port("vm0").Number())
			if _, ok := r.sw.FDB().Lookup(key); !ok {
				t.Fatal("the test's address was not learned")
			}
		}
		r.logged()
		for _, step := range []struct {
			up, carrier bool
			want        api.State
			forgets     bool
		}{
			{true, true, api.StateUp, false},
			{true, true, api.StateUp, false},
			{true, false, api.StateNoCarrier, true},
			{false, false, api.StateDown, true},
			{true, true, api.StateUp, false},
		} {
			learn()
			r.change("vm0", func(l *link.Link) { l.Up, l.Carrier = step.up, step.carrier })
			r.wantState("vm0", step.want)
			if _, ok := r.sw.FDB().Lookup(key); ok == step.forgets {
				t.Errorf("%s: learned address still there: %v", step.want, ok)
			}
		}
		want := []string{
			"level=INFO msg=\"port state\" port=vm0 kind=fake state=up was=no-carrier",
			"level=INFO msg=\"port state\" port=vm0 kind=fake state=no-carrier was=up",
			"level=WARN msg=\"port state\" port=vm0 kind=fake state=down was=no-carrier reason=\"interface vm0 is set down; `ip link set vm0 up` brings it back\"",
			"level=INFO msg=\"port state\" port=vm0 kind=fake state=up was=down",
			"",
		}
		if diff := cmp.Diff(want, strings.Split(r.logged(), "\n")); diff != "" {
			t.Errorf("log (-want +got):\n%s", diff)
		}
		r.change("vm0", func(l *link.Link) { l.MTU = 9000 })
		if got := r.port("vm0").MTU; got != 9000 {
			t.Errorf("mtu %d after the interface's became 9000", got)
		}
	})
}

func TestRenameKeepsThePort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		r.mustAdd("vm0")
		r.change("vm0", func(l *link.Link) { l.Name, l.Carrier = "blue0", true })
		p := r.port("vm0")
		if p.State != api.StateUp || p.Ifname != "blue0" {
			t.Errorf("after the rename: %s, ifname %s", p.State, p.Ifname)
		}
		if got := r.disk.state().Ports[0].Trace.Ifname; got != "blue0" {
			t.Errorf("on disk the interface is %q", got)
		}
		if r.host.device("vm0").closed() {
			t.Error("the device was closed")
		}
	})
}

func TestDeletedInterfaceOfTheSwitchIsMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		r.mustAdd("vm0")
		time.Sleep(maxBackoff) // it was well for a while
		first := r.host.device("vm0")
		r.logged()
		r.host.remove("vm0")
		r.wantState("vm0", api.StateNoCarrier)
		if !first.closed() || r.host.device("vm0") == first {
			t.Error("the port does not stand on a new device")
		}
		if !r.disk.state().Ports[0].Trace.Created {
			t.Error("the new device is not known as the switch's own")
		}
		if got := r.logged(); strings.Count(got, "port state") != 2 || !strings.Contains(got, "state=waiting") {
			t.Errorf("log of the loss and the return:\n%s", got)
		}
	})
}

func TestAdoptedInterfaceIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		h.put(link.Link{Name: "vm0", MTU: 1500, Up: true, Carrier: true})
		r := start(t, h, store.State{})
		r.mustAdd("vm0")
		r.wantState("vm0", api.StateUp)
		h.remove("vm0")
		r.wantState("vm0", api.StateWaiting)
		time.Sleep(10 * time.Minute)
		r.wantState("vm0", api.StateWaiting)
		if _, err := h.ByName("vm0"); err == nil {
			t.Fatal("the switch made an interface that was not its own")
		}
		if why := r.port("vm0").Reason; !strings.Contains(why, "interface vm0") {
			t.Errorf("it waits because %q", why)
		}
		h.put(link.Link{Name: "vm0", MTU: 1400, Up: true, Carrier: true})
		time.Sleep(eventGap)
		r.wantState("vm0", api.StateUp)
		tr := r.disk.state().Ports[0].Trace
		if tr.Created || tr.Before == nil || tr.Before.MTU != 1400 {
			t.Errorf("the trace does not speak of the new interface: %+v", tr)
		}
	})
}

func TestFailedAddLeavesNothing(t *testing.T) {
	gone := fmt.Errorf("no interface vm0; make it first (%w)", port.ErrGone)
	for _, test := range []struct {
		name    string
		req     api.AddPort
		prepare func(*rig)
		code    string
		text    string
		deletes []string
	}{
		{"kind refuses", wanted(port.Spec{Name: "vm0", Kind: "fake", Settings: fakeSettings{Owner: "x"}}), nil, api.CodeInvalid, "--owner", nil},
		{"unknown kind", wanted(port.Spec{Name: "vm0", Kind: "tun"}), nil, api.CodeInvalid, "use one of fake", nil},
		{"bad name", wanted(spec("a/b")), nil, api.CodeInvalid, "a/b", nil},
		{"exists", wanted(spec("old")), nil, api.CodeExists, "del-port", nil},
		{"system refuses", wanted(spec("vm0")), func(r *rig) { r.host.failOpen(errors.New("not permitted")) },
			api.CodeFailed, "not permitted", nil},
		{"system refuses, no wait", noWait(wanted(spec("vm0"))), func(r *rig) { r.host.failOpen(errors.New("not permitted")) },
			api.CodeFailed, "not permitted", nil},
		{"device absent", wanted(spec("vm0")), func(r *rig) { r.host.failOpen(gone) }, api.CodeGone, "no interface vm0", nil},
		{"disk full", wanted(spec("vm0")), func(r *rig) { r.disk.fail(errors.New("disk full")) },
			api.CodeFailed, "disk full", []string{"vm0 created=true"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t, newFakeHost(), store.State{})
				r.mustAdd("old")
				r.logged()
				if test.prepare != nil {
					test.prepare(r)
				}
				wantCode(t, r.addReq(test.req), test.code, test.text)
				if diff := cmp.Diff(test.deletes, r.host.deleted); diff != "" {
					t.Errorf("devices taken back (-want +got):\n%s", diff)
				}
				if n := len(r.sw.Ports()); n != 1 {
					t.Errorf("%d ports in the switch", n)
				}
				if n := len(r.disk.state().Ports); n != 1 {
					t.Errorf("%d ports on disk", n)
				}
				if d := r.host.device("vm0"); d != nil && !d.closed() {
					t.Error("the device is still open")
				}
				if got := r.logged(); got != "" {
					t.Errorf("log: %s", got)
				}
			})
		})
	}
}

func TestNoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		h.makes = false
		r := start(t, h, store.State{})
		if err := r.addReq(noWait(wanted(spec("eth1")))); err != nil {
			t.Fatal(err)
		}
		r.wantState("eth1", api.StateWaiting)
		if len(r.disk.state().Ports) != 1 {
			t.Error("the port is not on disk")
		}
		h.put(link.Link{Name: "eth1", Up: true, Carrier: true})
		time.Sleep(eventGap)
		r.wantState("eth1", api.StateUp)
	})
}

func TestLostPortIsTriedAgainWithBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		h.hidden = true
		r := start(t, h, store.State{})
		r.mustAdd("vm0")
		r.wantState("vm0", api.StateUp)
		time.Sleep(maxBackoff)
		h.failOpen(errors.New("not yet"))
		began := time.Now()
		h.device("vm0").end(fmt.Errorf("read: %w", port.ErrGone))
		synctest.Wait()
		r.wantState("vm0", api.StateWaiting)
		time.Sleep(100 * time.Second)
		synctest.Wait()
		var at []int
		for _, o := range h.failOpen(nil) {
			at = append(at, int(o.Sub(began).Seconds()))
		}
		// The loss counts as the first failure, so the next try is at once and
		// the one after it 2 s later.
		if want := []int{0, 2, 6, 14, 30, 60, 90}; !slices.Equal(at, want) {
			t.Errorf("tried after %v s, want %v", at, want)
		}
		time.Sleep(maxBackoff)
		r.wantState("vm0", api.StateUp)
	})
}

// A port that waits because another interface has its name opens once that is gone, however long
// it waited.
func TestNameIsFreeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		h.hidden = true
		r := start(t, h, store.State{})
		r.mustAdd("vm0")
		time.Sleep(maxBackoff)
		h.failOpen(errors.New("vm0 is a veth"))
		h.device("vm0").end(port.ErrGone)
		time.Sleep(100 * time.Second)
		r.wantState("vm0", api.StateWaiting)
		other := h.put(link.Link{Name: "veth9"})
		h.failOpen(nil)
		h.events <- link.Event{Link: other, Gone: true}
		time.Sleep(eventGap)
		r.wantState("vm0", api.StateWaiting)
		other.Name = "vm0"
		h.events <- link.Event{Link: other, Gone: true}
		time.Sleep(eventGap)
		r.wantState("vm0", api.StateUp)
	})
}

// A device that ends as soon as it is open, and a failure that itself raises link
// events, must not keep the manager busy.
func TestNoHotLoop(t *testing.T) {
	for _, test := range []struct {
		name string
		fail error
		most int
		each func(*rig)
	}{
		{"device ends at once", nil, 20, func(r *rig) { r.host.device("vm0").end(port.ErrGone) }},
		{"interface is deleted at once", nil, 20, func(r *rig) {
			if _, err := r.host.ByName("vm0"); err == nil {
				r.host.remove("vm0")
			}
		}},
		{"failure with events", errors.New("not permitted"), 160, func(r *rig) {
			r.host.device("vm0").end(port.ErrGone)
			r.change("vm0", func(l *link.Link) { l.MTU++ })
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t, newFakeHost(), store.State{})
				r.mustAdd("vm0")
				r.host.failOpen(test.fail)
				for range 3000 { // 30 s
					test.each(r)
					time.Sleep(10 * time.Millisecond)
					synctest.Wait()
				}
				if n := len(r.host.failOpen(nil)); n == 0 || n > test.most {
					t.Errorf("opened %d times in 30 s", n)
				}
			})
		})
	}
}

func TestSetPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		r.mustAdd("vm0")
		set := func(req api.Settings) error { return r.set("vm0", req) }
		mtu, owner := 9000, "root"
		if err := set(api.Settings{"mtu": mtu}); err != nil {
			t.Fatal(err)
		}
		if mtuOf(r.kept()) != 9000 || mtuOf(r.spec("vm0")) != 9000 {
			t.Error("the change is not kept")
		}
		wantCode(t, set(api.Settings{"owner": owner}), api.CodeInvalid, "--owner")
		mtu = 1400
		r.host.setErr = errors.New("not permitted")
		wantCode(t, set(api.Settings{"mtu": mtu}), api.CodeFailed, "not permitted")
		r.host.setErr = nil
		r.disk.fail(errors.New("disk full"))
		wantCode(t, set(api.Settings{"mtu": mtu}), api.CodeFailed, "disk full")
		if got := mtuOf(r.spec("vm0")); got != 9000 {
			t.Errorf("mtu %d after two failures", got)
		}
		want := []string{"mtu 0 to 9000", "mtu 9000 to 1400", "mtu 1400 to 9000"}
		if diff := cmp.Diff(want, r.host.sets); diff != "" {
			t.Errorf("changes of the device (-want +got):\n%s", diff)
		}
	})
}

func TestDelPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		r.mustAdd("vm0")
		if _, err := r.addFDB(api.AddFDB{MAC: 0x525400000001, Port: "vm0"}); err != nil {
			t.Fatal(err)
		}
		del := func() error { return r.do(func() error { return r.delPort("vm0", false) }) }

		r.disk.fail(errors.New("disk full"))
		wantCode(t, del(), api.CodeFailed, "disk full")
		r.wantState("vm0", api.StateNoCarrier)
		if len(r.listFDB()) != 1 || len(r.host.deleted) != 0 {
			t.Error("a failed removal removed something")
		}

		r.disk.fail(nil)
		if err := del(); err != nil {
			t.Fatal(err)
		}
		if len(r.disk.state().Ports)+len(fdbOf(r.disk.state()))+len(r.listFDB())+len(r.sw.Ports()) != 0 {
			t.Errorf("left: on disk %+v, FDB %v", r.disk.state(), r.listFDB())
		}
		if !slices.Equal(r.host.deleted, []string{"vm0 created=true"}) || !r.host.device("vm0").closed() {
			t.Errorf("device not taken back: %v", r.host.deleted)
		}
		wantCode(t, del(), api.CodeNotFound, "no port vm0")

		r.mustAdd("vm0")
		r.host.delErr = errors.New("busy")
		wantCode(t, del(), api.CodeFailed, "busy")
		if len(r.disk.state().Ports) != 0 {
			t.Error("the port is still on disk")
		}
	})
}

func TestRestore(t *testing.T) {
	before := withFDB(store.State{
		Ports: []store.Port{
			{Spec: saved(port.Spec{Name: "vm0", Kind: "fake", Settings: fakeSettings{MTU: 9000}, Policy: port.Policy{VLAN: port.VLAN{Access: 5}}}), Trace: port.Trace{Created: true, Ifname: "vm0"}},
			{Spec: saved(port.Spec{Name: "gone0", Kind: "fake"}), Trace: port.Trace{Ifname: "gone0", Before: &port.DeviceSettings{MTU: 1}}},
			{Spec: saved(port.Spec{Name: "x0", Kind: "vhost-user"})},
		},
	},
		savedEntry{MAC: 0x525400000001, VLAN: 5, Port: "vm0"}, savedEntry{MAC: 0x525400000002, VLAN: 1, Port: "gone0"},
		savedEntry{MAC: 0x525400000001, VLAN: 6, Port: "vm0"}, // a VLAN that the port does not carry now
	)
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), before)
		r.wantState("vm0", api.StateNoCarrier)
		r.wantState("gone0", api.StateWaiting)
		r.wantState("x0", api.StateWaiting)
		if why := r.port("x0").Reason; !strings.Contains(why, "vhost-user") {
			t.Errorf("x0 waits because %q", why)
		}
		if len(r.disk.state().Ports) != 3 || len(fdbOf(r.disk.state())) != 3 || mtuOf(r.kept()) != 9000 {
			t.Errorf("on disk after the start: %+v", r.disk.state())
		}
		var got []string
		for _, e := range r.listFDB() {
			got = append(got, fmt.Sprint(e.MAC, " ", e.VLAN, " ", e.Port, " ", e.Type))
		}
		want := []string{"52:54:00:00:00:02 1 gone0 static", "52:54:00:00:00:01 5 vm0 static"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("FDB (-want +got):\n%s", diff)
		}
		mtu := map[string]int{"mtu": 1400}
		wantCode(t, r.call("PATCH", "/v1/ports/x0", mtu, nil), api.CodeInvalid, "vhost-user")
		wantCode(t, r.call("PATCH", "/v1/ports/none", mtu, nil), api.CodeNotFound, "none")
		again := wanted(port.Spec{Name: "x0", Kind: "vhost-user"})
		again.MayExist = true
		wantCode(t, r.call("POST", "/v1/ports", again, nil), api.CodeInvalid, "vhost-user")
		if err := r.do(func() error { return r.delPort("x0", false) }); err != nil {
			t.Errorf("a port of an unknown kind cannot be removed: %v", err)
		}
	})
}

func TestStopLeavesDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		r.mustAdd("vm0")
		began := time.Now()
		r.stop()
		if d := time.Since(began); d > stopGrace {
			t.Errorf("stopped after %v", d)
		}
		if !r.host.device("vm0").closed() || len(r.host.deleted) != 0 || len(r.disk.state().Ports) != 1 {
			t.Error("a stop must close the device, and leave it and the state")
		}
		wantCode(t, r.do(func() error { return nil }), api.CodeStopping, "stopping")
	})
}

func TestFDB(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		r.mustAdd("vm0")
		r.mustAdd("vm1")
		const a, b, c = port.MAC(0x525400000001), port.MAC(0x525400000002), port.MAC(0x525400000003)
		add := func(mac port.MAC, vlan uint16, to string) error {
			_, err := r.addFDB(api.AddFDB{MAC: mac, VLAN: vlan, Port: to})
			return err
		}
		learn := func(mac port.MAC, vlan uint16, by string) {
			r.sw.FDB().Learn(fdb.MakeKey(vlan, uint64(mac)), r.sw.Port(by).Number())
		}

		if err := add(a, 0, "vm0"); err != nil {
			t.Fatal(err)
		}
		wantCode(t, add(a, 0, "vm9"), api.CodeNotFound, "no port vm9")
		wantCode(t, add(port.Broadcast, 0, "vm0"), api.CodeInvalid, "ff:ff")
		wantCode(t, add(0, 0, "vm0"), api.CodeInvalid, "one station")
		wantCode(t, add(b, 4095, "vm0"), api.CodeInvalid, "4095")
		wantCode(t, r.delFDB(b, 0), api.CodeNotFound, "no entry")

		r.disk.fail(errors.New("disk full"))
		wantCode(t, add(a, 0, "vm1"), api.CodeFailed, "disk full")
		wantCode(t, add(b, 0, "vm1"), api.CodeFailed, "disk full")
		wantCode(t, r.delFDB(a, 1), api.CodeFailed, "disk full")
		r.disk.fail(nil)
		if got := r.listFDB(); len(got) != 1 || got[0].Port != "vm0" || got[0].AgeS != 0 || got[0].VLAN != 1 {
			t.Errorf("after failed changes: %+v", got)
		}

		learn(b, 1, "vm0")
		learn(b, 2, "vm1")
		learn(c, 1, "vm1")
		if n := r.flushFDB(api.FlushFDB{Port: "vm0"}); n != 1 {
			t.Errorf("%d entries of vm0 flushed, want the one learned", n)
		}
		if n := r.flushFDB(api.FlushFDB{VLAN: 2}); n != 1 {
			t.Errorf("%d entries of VLAN 2 flushed, want 1", n)
		}
		if n := r.flushFDB(api.FlushFDB{}); n != 1 {
			t.Errorf("%d entries flushed, want the 1 that is left", n)
		}
		learn(b, 1, "vm0")
		if err := errors.Join(r.delFDB(b, 1), r.delFDB(a, 1)); err != nil {
			t.Fatal(err)
		}
		if got := r.listFDB(); len(got) != 0 || len(fdbOf(r.disk.state())) != 0 {
			t.Errorf("left: %+v, on disk %+v", got, fdbOf(r.disk.state()))
		}
	})
}
