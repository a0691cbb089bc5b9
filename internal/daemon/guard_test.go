package daemon

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

func (r *rig) set(name string, req api.Settings) error {
	_, err := ask(r.manager, func() (api.Port, error) { return r.setPort(name, sent[setting.Patch](r.t, req)) })
	synctest.Wait()
	return err
}

// guarded starts a switch with one port that is up, and shut in 0 s.
func guarded(t *testing.T, recovery time.Duration) *rig {
	h := newFakeHost()
	h.put(link.Link{Name: "vm0", MTU: 1500, Up: true, Carrier: true})
	r := start(t, h, store.State{})
	r.recovery = recovery
	r.mustAdd("vm0")
	r.wantState("vm0", api.StateUp)
	r.trip("vm0")
	return r
}

func (r *rig) trip(name string) { r.tripBy(name, "test guard") }

func (r *rig) tripBy(name, why string) {
	_ = r.do(func() error { r.shut(r.ports[name], why); return nil })
}

func TestShutPortRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := guarded(t, 300*time.Second)
		r.wantState("vm0", api.StateDown)
		if got := r.port("vm0").Reason; got != "err-disabled: test guard" {
			t.Errorf("reason %q", got)
		}
		// What happens meanwhile does not open it.
		r.change("vm0", func(l *link.Link) { l.Carrier = false })
		r.change("vm0", func(l *link.Link) { l.Carrier = true })
		r.trip("vm0")
		time.Sleep(299 * time.Second)
		r.wantState("vm0", api.StateDown)
		time.Sleep(time.Second)
		r.wantState("vm0", api.StateUp)
		if log := r.logged(); strings.Count(log, "err-disabled: test guard") != 1 {
			t.Errorf("log:\n%s", log)
		}
	})
}

func TestShutPortStaysWithoutRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := guarded(t, 0)
		time.Sleep(24 * time.Hour)
		r.wantState("vm0", api.StateDown)
		if err := r.set("vm0", api.Settings{}); err != nil {
			t.Fatal(err)
		}
		r.wantState("vm0", api.StateUp)
		wantCode(t, r.set("vm0", api.Settings{}), api.CodeInvalid, "nothing to change")
		r.trip("vm0")
		mtu := 1400
		if err := r.set("vm0", api.Settings{"mtu": mtu}); err != nil {
			t.Fatal(err)
		}
		r.wantState("vm0", api.StateUp)
	})
}

// The first trip counts: what other guards see of a port that is shut neither renames the
// reason nor postpones its recovery.
func TestTripsOfAShutPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := guarded(t, 300*time.Second)
		time.Sleep(100 * time.Second)
		r.tripBy("vm0", "another guard")
		if got := r.port("vm0").Reason; got != "err-disabled: test guard" {
			t.Errorf("reason %q", got)
		}
		time.Sleep(200 * time.Second)
		r.wantState("vm0", api.StateUp)
		r.tripBy("vm0", "another guard")
		if got := r.port("vm0").Reason; got != "err-disabled: another guard" {
			t.Errorf("after recovery: reason %q", got)
		}
	})
}

// A port that recovers is as its interface is by then, although nobody said that it changed.
func TestRecoveryLooksAtTheInterface(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := guarded(t, time.Minute)
		r.host.mu.Lock()
		for i, l := range r.host.links {
			l.Carrier = false
			r.host.links[i] = l // without an event
		}
		r.host.mu.Unlock()
		time.Sleep(time.Minute)
		r.wantState("vm0", api.StateNoCarrier)
	})
}

// A shut port whose device comes back is still shut.
func TestShutPortLosesItsDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := guarded(t, time.Hour)
		r.host.remove("vm0")
		r.wantState("vm0", api.StateWaiting)
		r.host.put(link.Link{Name: "vm0", MTU: 1500, Up: true, Carrier: true})
		time.Sleep(time.Minute)
		r.wantState("vm0", api.StateDown)
		time.Sleep(time.Hour)
		r.wantState("vm0", api.StateUp)
	})
}

func TestLearnLimitShutsThePort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFakeHost(), store.State{})
		s := spec("vm0")
		s.LearnLimit, s.LearnAction = 1, "shutdown"
		if err := r.addReq(wanted(s)); err != nil {
			t.Fatal(err)
		}
		r.mustAdd("vm1")
		hit := vswitch.LimitHit{Port: r.sw.Port("vm0").Number(), MAC: 0x525400000002, VLAN: 1}
		r.onEvent(hit)
		r.wantState("vm0", api.StateDown)
		if got := r.port("vm0").Reason; !strings.Contains(got, "52:54:00:00:00:02") {
			t.Errorf("reason %q", got)
		}
		// News that is too late for the port it is about.
		hit.Port = r.sw.Port("vm1").Number()
		r.onEvent(hit)
		r.wantState("vm1", api.StateNoCarrier)
	})
}

// Guards shut the port that they saw, where it was asked for and is still so, and
// leave one that is down for another reason as it is.
func TestGuardsShutWhatWasAskedFor(t *testing.T) {
	limited := func(n int, action port.LearnAction) port.Spec {
		s := spec("vm0")
		s.LearnLimit, s.LearnAction = n, action
		return s
	}
	storm := func(action port.StormAction) port.Spec {
		s := spec("vm0")
		s.StormBroadcast, s.StormAction = port.Rate{PerSecond: 100}, action
		return s
	}
	for name, c := range map[string]struct {
		spec   port.Spec
		reason string // that it is shut for; empty: it is not
	}{
		"neither":                  {spec("vm0"), ""},
		"limit, forward":           {limited(1, ""), ""},
		"limit, protect":           {limited(1, port.LearnProtect), ""},
		"limit, shutdown":          {limited(1, port.LearnShutdown), "learn limit: 52:54:00:00:00:02 is a station too many"},
		"shutdown of an old limit": {limited(0, port.LearnShutdown), ""},
		"storm, drop":              {storm(""), ""},
		"storm, shutdown":          {storm(port.StormShutdown), "storm control: " + port.DropStormBroadcast.String()},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newFakeHost()
			h.put(link.Link{Name: "vm0", MTU: 1500, Up: true, Carrier: true})
			r := start(t, h, store.State{})
			r.mustAdd("first")
			if err := r.addReq(wanted(c.spec)); err != nil {
				t.Fatal(err)
			}
			hit := func(n uint16) {
				r.onEvent(vswitch.LimitHit{Port: n, MAC: 0x525400000002, VLAN: 1})
				r.onEvent(vswitch.StormHit{Port: n, Why: port.DropStormBroadcast})
			}
			n := r.sw.Port("vm0").Number()
			hit(n + 1)
			hit(n - 1)
			r.wantState("vm0", api.StateUp)
			r.change("vm0", func(l *link.Link) { l.Up = false })
			hit(n)
			if got := r.port("vm0").Reason; !strings.Contains(got, "is set down") {
				t.Errorf("%s: %q once it is down already", name, got)
			}
			r.change("vm0", func(l *link.Link) { l.Up = true })
			r.wantState("vm0", api.StateUp)
			hit(n)
			want := c.reason
			if want != "" {
				want = "err-disabled: " + want
			}
			if got := r.port("vm0").Reason; got != want {
				t.Errorf("%s: it is down for %q, want %q", name, got, want)
			}
			r.wantState("first", api.StateNoCarrier)
		})
	}
}

// linkedPort is a device whose peer comes and goes.
type linkedPort struct {
	*fakePort
	up      bool
	why     error
	changed chan struct{}
}

func (p *linkedPort) Link() bool                   { return p.up }
func (p *linkedPort) LinkChanged() <-chan struct{} { return p.changed }
func (p *linkedPort) Queues() []port.Queue         { return []port.Queue{p.fakePort} }
func (p *linkedPort) LinkError() error {
	if p.up {
		return nil
	}
	return p.why
}

func TestPortFollowsItsPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		h.hidden = true
		peer := &linkedPort{changed: make(chan struct{}, 1), why: errors.New("nobody is there")}
		h.wrap = func(p *fakePort) port.Port { peer.fakePort = p; return peer }
		r := start(t, h, store.State{})
		r.mustAdd("vm0")
		for _, up := range []bool{false, true, false, true} {
			_ = r.do(func() error { peer.up = up; return nil })
			peer.changed <- struct{}{}
			want := api.StateWaiting
			if up {
				want = api.StateUp
			}
			r.wantState("vm0", want)
		}
		// Why it is away may change without a change of the link.
		_ = r.do(func() error { peer.up = false; return nil })
		peer.changed <- struct{}{}
		for _, why := range []string{"nobody is there", "it broke a ring"} {
			_ = r.do(func() error { peer.why = errors.New(why); return nil })
			if got := r.port("vm0").Reason; got != why {
				t.Errorf("it is waiting for %q, not %q", got, why)
			}
		}
		_ = r.do(func() error { peer.up = true; return nil })
		peer.end(port.ErrGone)
		r.wantState("vm0", api.StateUp) // on a new device
	})
}

// A port that is removed leaves nothing that waits for its peer.
func TestRemovedPortIsNotWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		peer := &linkedPort{changed: make(chan struct{})}
		h.wrap = func(p *fakePort) port.Port { peer.fakePort = p; return peer }
		r := start(t, h, store.State{})
		r.mustAdd("vm0")
		if err := r.do(func() error { return r.delPort("vm0", true) }); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		select {
		case peer.changed <- struct{}{}:
			t.Error("the link of a removed port is watched")
		default:
		}
	})
}

// tracingPort changes more of the host while it is open.
type tracingPort struct {
	*linkedPort
	members *[]port.Trace
}

func (p *tracingPort) Trace() port.Trace { return port.Trace{Members: p.members} }

// What a port changed on the host since it was opened is kept, so that it can be undone.
func TestLaterTraceIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		h.hidden = true
		peer := &tracingPort{linkedPort: &linkedPort{changed: make(chan struct{}, 1)}}
		h.wrap = func(p *fakePort) port.Port { peer.fakePort = p; return peer }
		r := start(t, h, store.State{})
		r.mustAdd("bond0")
		for _, ifname := range []string{"eth0", "eth1", "eth1"} {
			writes := r.disk.writes()
			_ = r.do(func() error {
				if peer.members == nil || (*peer.members)[0].Ifname != ifname {
					peer.members, writes = &[]port.Trace{{Ifname: ifname}}, writes+1
				}
				return nil
			})
			peer.changed <- struct{}{}
			synctest.Wait()
			if got := r.disk.state().Ports[0].Trace.Members; got == nil || (*got)[0].Ifname != ifname || r.disk.writes() != writes {
				t.Errorf("kept is %+v after %d writes, want %s after %d", got, r.disk.writes(), ifname, writes)
			}
		}
	})
}
