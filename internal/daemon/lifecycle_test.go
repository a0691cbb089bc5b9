package daemon

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/owner"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// TestNext goes through the facts in the order in which they count.
func TestNext(t *testing.T) {
	open := facts{opened: true, connected: true}
	with := func(edit func(*facts)) facts { f := open; edit(&f); return f }
	on := func(edit func(*link.Link)) facts {
		return with(func(f *facts) {
			f.was, f.device = api.StateUp, link.Link{Index: 7, Name: "vm0", Kind: "tap", Up: true, Carrier: true}
			edit(&f.device)
		})
	}
	for _, c := range []struct {
		name              string
		facts             facts
		state             api.State
		reason            string
		forwarding, flush bool
	}{
		{"not open", facts{was: api.StateUp, failed: "x", shutBy: "g", connected: true}, api.StateWaiting, "x", false, false},
		{"a guard", with(func(f *facts) { f.shutBy, f.taken = "g", "t" }), api.StateDown, "err-disabled: g", false, false},
		{"taken", with(func(f *facts) { f.taken, f.connected = "t", false }), api.StateDown, "t", false, false},
		{"no peer", with(func(f *facts) { f.was, f.connected, f.unlinked = api.StateUp, false, "u" }), api.StateWaiting, "u", true, true},
		{"still no peer", with(func(f *facts) { f.was, f.connected = api.StateWaiting, false }), api.StateWaiting, "", true, false},
		{"no interface", open, api.StateUp, "", true, false},
		{"set down", on(func(l *link.Link) { l.Up, l.Carrier = false, false }), api.StateDown, "`ip link set vm0 up`", false, false},
		{"up", on(func(*link.Link) {}), api.StateUp, "", true, false},
		{"no machine", on(func(l *link.Link) { l.Carrier = false }), api.StateNoCarrier, "no virtual machine holds TAP vm0", true, true},
		{"no cable", on(func(l *link.Link) { l.Carrier, l.Kind = false, "veth" }), api.StateNoCarrier, "other end of vm0", true, true},
	} {
		got := next(c.facts)
		if got.state != c.state || !strings.Contains(got.reason, c.reason) || got.forwarding != c.forwarding || got.flush != c.flush {
			t.Errorf("%s: %+v", c.name, got)
		}
		if got.state == api.StateDown && got.reason == "" {
			t.Errorf("%s: down without a reason", c.name)
		}
	}
}

// ownPort is a port that has its device for itself.
type ownPort struct {
	*fakePort
	contested atomic.Pointer[error]
	detached  atomic.Pointer[error] // why its program cannot be put back
	renewed   atomic.Int32
	unbound   atomic.Bool
}

func (p *ownPort) Exclusive() bool { return true }
func (p *ownPort) Bound() bool     { return !p.unbound.Load() }
func (p *ownPort) Renew() error {
	p.renewed.Add(1)
	if err := p.detached.Load(); err != nil {
		return *err
	}
	return nil
}
func (p *ownPort) Contested() error {
	if err := p.contested.Load(); err != nil {
		return *err
	}
	return nil
}

// A port whose device somebody else takes says who has it, and forwards nothing until it
// is free again.
func TestDeviceIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		var own *ownPort
		h.wrap = func(p *fakePort) port.Port { own = &ownPort{fakePort: p}; return own }
		h.addresses = map[int]netip.Prefix{}
		bridge := h.put(link.Link{Name: "br0", Kind: "bridge"})
		ovs := h.put(link.Link{Name: "ovs-system", Kind: "openvswitch"})
		r := start(t, h, store.State{})
		r.mustAdd("vm0")
		r.change("vm0", func(l *link.Link) { l.Carrier = true })
		vm0, _ := h.ByName("vm0")
		alias := func(s string) func() { return func() { r.change("vm0", func(l *link.Link) { l.Alias = s }) } }
		master := func(n int) func() { return func() { r.change("vm0", func(l *link.Link) { l.Master = n }) } }
		address := func(a netip.Prefix) func() {
			return func() {
				h.mu.Lock()
				h.addresses[vm0.Index] = a
				h.mu.Unlock()
				r.change("vm0", func(*link.Link) {})
			}
		}
		another, detached := errors.New("another program"), errors.New("it cannot be attached")
		for _, c := range []struct {
			take, free func()
			want       string
		}{
			{master(bridge.Index), master(0), "vm0 belongs to bridge br0"},
			{master(ovs.Index), master(0), "ovs-vsctl del-port vm0"},
			{alias("vswitch sw1"), alias("vswitch sw0"), "belongs to switch sw1"},
			{address(netip.MustParsePrefix("192.0.2.1/24")), address(netip.Prefix{}), "192.0.2.1/24"},
			{func() { h.put(link.Link{Name: "mv0", Kind: "macvlan", Lower: vm0.Index}) }, func() { h.remove("mv0") }, "macvlan mv0"},
			// No news comes of programs: looking again must do.
			{func() { own.contested.Store(&another); alias("vswitch sw0 ")(); alias("vswitch sw0")() },
				func() { own.contested.Store(nil); time.Sleep(takenGap) }, "another program"},
			{func() { own.detached.Store(&detached); time.Sleep(lookGap) },
				func() { own.detached.Store(nil); time.Sleep(takenGap) }, "it cannot be attached"},
		} {
			r.wantState("vm0", api.StateUp)
			r.logged()
			c.take()
			r.wantState("vm0", api.StateDown)
			if why := r.port("vm0").Reason; !strings.Contains(why, c.want) {
				t.Errorf("reason %q, want %q", why, c.want)
			}
			if log := r.logged(); !strings.Contains(log, "state=down was=up reason=") {
				t.Errorf("log: %s", log)
			}
			c.free()
			r.wantState("vm0", api.StateUp)
		}

		// It is no port to begin with, and no setting makes it one.
		h.mu.Lock()
		h.addresses[h.next] = netip.MustParsePrefix("192.0.2.2/24")
		h.mu.Unlock()
		wantCode(t, r.add("vm1"), api.CodeFailed, "192.0.2.2/24")
		if len(r.disk.state().Ports) != 1 || len(h.deleted) != 1 {
			t.Errorf("left: %+v, deleted %v", r.disk.state().Ports, h.deleted)
		}
	})
}

// A device is one port, whatever its name is by now.
func TestOneDeviceIsOnePort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		r := start(t, h, store.State{})
		r.mustAdd("vm0")
		r.change("vm0", func(l *link.Link) { l.Name = "vm9" })
		wantCode(t, r.add("vm9"), api.CodeFailed, "vm9 is the device of port vm0 already")
		if err := r.do(func() error { return r.delPort("vm0", false) }); err != nil {
			t.Fatal(err)
		}
		r.mustAdd("vm9")
	})
}

// A number that is another device's within a moment is not taken for a rename.
func TestNumberUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		var own *ownPort
		h.wrap = func(p *fakePort) port.Port { own = &ownPort{fakePort: p}; return own }
		r := start(t, h, store.State{})
		r.mustAdd("vm0")
		time.Sleep(maxBackoff)
		first, renewed := own, own.renewed.Load()
		first.unbound.Store(true)
		r.change("vm0", func(l *link.Link) { l.Name = "other" })
		if renewed == 0 || first.renewed.Load() != renewed {
			t.Errorf("programs were put back at another device: %d times, %d before", first.renewed.Load(), renewed)
		}
		if got := r.port("vm0"); got.State != api.StateWaiting {
			t.Errorf("%s on %s", got.State, got.Ifname)
		}
		time.Sleep(newsGap)
		if got := r.port("vm0"); got.Ifname != "vm0" || own == first {
			t.Errorf("%s on %s", got.State, got.Ifname)
		}
	})
}

// In place of a device that was moved to another namespace no other is made: it could
// not come back. After the next boot it is gone for good.
func TestMovedDeviceComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, first := range []string{"news", "loss"} {
			h := newFakeHost()
			r := start(t, h, store.State{})
			r.mustAdd("vm0")
			time.Sleep(maxBackoff)
			l, _ := h.ByName("vm0")
			if first == "loss" {
				h.device("vm0").end(port.ErrGone)
				synctest.Wait()
			}
			h.mu.Lock()
			delete(h.links, l.Index)
			h.mu.Unlock()
			h.events <- link.Event{Link: l, Gone: true, Moved: true}
			time.Sleep(time.Hour)
			if p := r.port("vm0"); p.State != api.StateWaiting || !strings.Contains(p.Reason, "moved to another network namespace") {
				t.Errorf("%s first: %s (%s)", first, p.State, p.Reason)
			}
			r.stop()
			away := r.disk.state()
			if away.Ports[0].Trace.Away == "" || !away.Ports[0].Trace.Created {
				t.Errorf("%s first: on disk %+v", first, away.Ports[0].Trace)
			}

			r = start(t, h, away)
			r.wantState("vm0", api.StateWaiting)
			h.put(l)
			time.Sleep(eventGap)
			r.wantState("vm0", api.StateNoCarrier)
			time.Sleep(saveGap)
			synctest.Wait()
			if tr := r.disk.state().Ports[0].Trace; tr.Away != "" || !tr.Created {
				t.Errorf("%s first: back, on disk %+v", first, tr)
			}
			r.stop()

			h.remove("vm0")
			<-h.events
			away.Ports[0].Trace.Away = "an earlier boot"
			r = start(t, h, away)
			r.wantState("vm0", api.StateNoCarrier)
			r.stop()
		}
	})
}

// In place of a device that was moved to another namespace no other is made, also if the messages about
// that were lost, or the watch had ended. One that was deleted then is made again.
func TestMovedUnheard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			name         string
			moved, heard bool // whether anything was heard of its end
		}{
			{"moved, and missed", true, true}, {"moved, and no news", true, false}, {"deleted, and missed", false, true}, {"deleted, and no news", false, false},
		} {
			h := newFakeHost()
			r := start(t, h, store.State{})
			r.mustAdd("vm0")
			r.change("vm0", func(l *link.Link) { l.MAC = [6]byte{2, 0, 0, 0, 0, 1} })
			time.Sleep(maxBackoff)
			l, _ := h.ByName("vm0")
			_ = r.do(func() error { r.ports["vm0"].trace.Number = owner.Number(l.Index); return nil })
			h.locked(func() {
				delete(h.links, l.Index)
				if c.moved {
					h.strays = []link.Stray{{Link: l, Place: link.Place{Netns: 1, Index: 8}}}
				}
			})
			h.device("vm0").end(port.ErrGone)
			if c.heard {
				h.events <- link.Event{Link: l, Gone: true, Missed: true}
			}
			time.Sleep(time.Hour)
			p := r.port("vm0")
			now, _ := h.ByName("vm0")
			if away := p.State == api.StateWaiting && strings.Contains(p.Reason, "moved to another network namespace"); away != c.moved || (now.Index == 0) != c.moved {
				t.Errorf("%s: %s (%s), device %+v", c.name, p.State, p.Reason, now)
			}
			if c.moved {
				h.put(l)
				time.Sleep(eventGap)
				r.wantState("vm0", api.StateNoCarrier)
				if now, _ := h.ByName("vm0"); now.Index != l.Index {
					t.Errorf("%s: back, the device is %+v", c.name, now)
				}
			}
			r.stop()
		}
	})
}

// In place of a device that was moved to another namespace while no daemon ran no other is made. One
// that was deleted is made again, also if a switch of the same name has one of that name elsewhere.
func TestMovedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		r := start(t, h, store.State{})
		r.mustAdd("vm0")
		r.change("vm0", func(l *link.Link) { l.MAC = [6]byte{2, 0, 0, 0, 0, 1} })
		time.Sleep(saveGap)
		r.stop()
		saved := r.disk.state()
		if tr := saved.Ports[0].Trace; tr.MAC != "02:00:00:00:00:01" {
			t.Fatalf("on disk %+v", tr)
		}
		l, _ := h.ByName("vm0")
		saved.Ports[0].Trace.Number = owner.Number(l.Index)
		h.remove("vm0")
		<-h.events

		other := l
		other.MAC[5] = 2
		h.strays = []link.Stray{{Link: other, Place: link.Place{Netns: 0, Index: 7}}, {Link: l, Place: link.Place{Netns: 1, Index: 8}}}
		r = start(t, h, saved)
		time.Sleep(time.Hour)
		if p := r.port("vm0"); p.State != api.StateWaiting || !strings.Contains(p.Reason, "moved to another network namespace") {
			t.Errorf("moved: %s (%s)", p.State, p.Reason)
		}
		h.put(l)
		time.Sleep(eventGap)
		r.wantState("vm0", api.StateNoCarrier)
		if now, _ := h.ByName("vm0"); now.Index != l.Index {
			t.Errorf("the device is %+v", now)
		}
		r.stop()
		h.remove("vm0")
		for len(h.events) > 0 {
			<-h.events
		}

		h.strays = h.strays[:1]
		r = start(t, h, saved)
		r.wantState("vm0", api.StateNoCarrier)
		r.stop()
	})
}

// A port is removed, with its state, when what it was for has ended: while the switch runs, while it
// was away, and when a change is under way. What may come back is waited for.
func TestEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		r := start(t, h, store.State{})
		r.mustAdd("vm0")
		r.mustAdd("vm1")
		over := port.Ended(errors.New("its container is gone"))
		end := func(name string) {
			h.device(name).end(port.ErrGone)
			h.remove(name)
		}
		h.failOpen(port.Gone(errors.New("its container is away")))
		end("vm0")
		time.Sleep(time.Minute)
		r.wantState("vm0", api.StateWaiting)

		hold := make(chan struct{})
		go func() { _ = r.manager.change(func() error { r.off(func() { <-hold }); return nil }) }()
		h.failOpen(over)
		time.Sleep(time.Minute)
		r.wantState("vm0", api.StateWaiting)
		wantCode(t, r.manager.change(func() error { return nil }), api.CodeBusy, "another change has not ended for 5s")
		close(hold)
		if err := r.addReq(noWait(wanted(spec("vm2")))); err != nil { // what it is for has yet to come
			t.Error(err)
		}
		time.Sleep(time.Minute)
		r.wantState("vm2", api.StateWaiting)
		if err := r.do(func() error { return r.delPort("vm2", false) }); err != nil {
			t.Error(err)
		}
		if len(r.disk.state().Ports) != 1 || r.disk.state().Ports[0].Spec.Name != "vm1" {
			t.Errorf("on disk are %+v", r.disk.state().Ports)
		}
		if n := len(r.sw.Ports()); n != 1 {
			t.Errorf("%d ports in the switch", n)
		}
		r.stop()

		h.remove("vm1")
		for len(h.events) > 0 {
			<-h.events
		}
		r = start(t, h, r.disk.state())
		time.Sleep(time.Minute)
		if len(r.disk.state().Ports) != 0 || len(r.sw.Ports()) != 0 {
			t.Errorf("after a start, on disk are %+v", r.disk.state().Ports)
		}
	})
}

// brokenWatch is a host whose news end.
type brokenWatch struct {
	*fakeHost
	fail error
}

func (b *brokenWatch) Watch(context.Context) (<-chan link.Event, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return nil, b.fail
	}
	return b.events, nil
}

// News that end are said, begin anew, and miss nothing of what came in between.
func TestWatchGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		b := &brokenWatch{fakeHost: h}
		r := startWith(t, h, store.State{}, func(o *Options) { o.Links = b })
		r.mustAdd("vm0")
		time.Sleep(maxBackoff)
		r.logged()
		old := h.events
		h.locked(func() {
			b.fail = errors.New("no memory")
			h.events = make(chan link.Event, 64)
		})
		old <- link.Event{Err: errors.New("broken")}
		close(old)
		synctest.Wait()
		h.mu.Lock()
		l, _ := h.byName("vm0")
		l.Carrier = true
		h.links[l.Index] = l // without news
		h.mu.Unlock()
		time.Sleep(5 * time.Second)
		if log := r.logged(); !strings.Contains(log, "broken") || !strings.Contains(log, "no memory") {
			t.Errorf("log: %s", log)
		}
		r.wantState("vm0", api.StateNoCarrier)
		h.locked(func() { b.fail = nil })
		time.Sleep(maxBackoff)
		r.wantState("vm0", api.StateUp)
		r.change("vm0", func(l *link.Link) { l.Carrier = false })
		r.wantState("vm0", api.StateNoCarrier)
	})
}

// lateDevice is a port whose interface changes once it was read.
type lateDevice struct {
	*fakePort
	change func()
}

func (d *lateDevice) Bound() bool { d.change(); return true }

// A cable that is plugged in while its port is being added is seen.
func TestChangeWhileAPortIsAdded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		eth0 := h.put(link.Link{Name: "eth0", MTU: 1500, Up: true})
		eth0.Carrier = true
		plug := sync.OnceFunc(func() {
			h.put(eth0)
			synctest.Wait() // the news has come, of a device that is no port's yet
		})
		h.wrap = func(p *fakePort) port.Port { return &lateDevice{p, plug} }
		r := start(t, h, store.State{})
		r.mustAdd("eth0")
		r.wantState("eth0", api.StateUp)
	})
}

// A port whose interface cannot be read passes frames: a wrong guess must not cut a machine off.
func TestInterfaceCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		r := start(t, h, store.State{})
		r.mustAdd("vm0")
		r.wantState("vm0", api.StateNoCarrier)
		h.locked(func() { h.linkErr = errors.New("no memory") })
		r.change("vm0", func(*link.Link) {})
		r.wantState("vm0", api.StateUp)
		if p := r.port("vm0"); p.Ifname != "vm0" || !strings.Contains(r.logged(), "no memory") {
			t.Errorf("it is %+v", p)
		}
		h.locked(func() { h.linkErr = nil })
		r.change("vm0", func(*link.Link) {})
		r.wantState("vm0", api.StateNoCarrier)
	})
}

// A device that was renamed while no daemon ran is found by the name that it had last.
func TestRenamedDeviceIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		h.makes = false
		h.put(link.Link{Name: "ens5", MTU: 1500, Up: true, Carrier: true})
		before := &port.DeviceSettings{MTU: 1500}
		r := start(t, h, store.State{Ports: []store.Port{
			{Spec: saved(spec("up0")), Trace: port.Trace{Ifname: "ens5", Before: before}},
			{Spec: saved(spec("up1")), Trace: port.Trace{Ifname: "ens6", Before: before}},
		}})
		r.wantState("up0", api.StateUp)
		if p := r.port("up0"); p.Ifname != "ens5" {
			t.Errorf("the port is on %s", p.Ifname)
		}
		r.wantState("up1", api.StateWaiting)
		if why := r.port("up1").Reason; !strings.Contains(why, "up1 is not there") {
			t.Errorf("the other waits because %s", why)
		}
	})
}

// When news of interfaces were lost, ports look again at once: whether their devices are there
// now, and what became of them.
func TestNewsAreLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		h.makes = false
		eth0 := h.put(link.Link{Name: "eth0", MTU: 1500, Up: true, Carrier: true})
		r := start(t, h, store.State{})
		r.mustAdd("eth0")
		if err := r.addReq(noWait(wanted(spec("eth1")))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10*time.Minute + 5*time.Second) // the second is tried each 30 s now, and just was
		synctest.Wait()
		h.locked(func() {
			eth0.Carrier = false
			h.links[eth0.Index] = eth0
			h.links[77] = link.Link{Index: 77, Name: "eth1", MTU: 1500, Up: true, Carrier: true}
		})
		r.wantState("eth0", api.StateUp)
		r.wantState("eth1", api.StateWaiting)
		ended := h.events
		h.events = make(chan link.Event, 64) // of the next watch
		ended <- link.Event{Err: errors.New("too many news")}
		close(ended)
		time.Sleep(minBackoff)
		r.wantState("eth0", api.StateNoCarrier)
		r.wantState("eth1", api.StateUp)
	})
}

// leakyPort is a port whose device loses frames by itself.
type leakyPort struct {
	*fakePort
	lost atomic.Uint64
}

func (p *leakyPort) Lost(uint64) uint64 { return p.lost.Load() }

// Frames that a device loses while nobody holds its other end are lost for want of a carrier; what
// it loses afterwards, its full queue loses.
func TestLossesWithoutAMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		var leaky *leakyPort
		h.wrap = func(p *fakePort) port.Port { leaky = &leakyPort{fakePort: p}; return leaky }
		r := start(t, h, store.State{})
		r.mustAdd("vm0")
		r.wantState("vm0", api.StateNoCarrier)
		r.inTurn(func() { // 10 frames were sent, as a former process counted
			var sent vswitch.PortStats
			sent.TX.Frames = 10
			r.ports["vm0"].sw.Carry(sent)
		})
		for _, step := range []struct {
			carrier         bool
			lost            uint64 // by the end of it
			nobody, tooFull uint64 // of these
		}{{false, 3, 3, 0}, {true, 5, 3, 2}, {false, 9, 7, 2}} {
			r.change("vm0", func(l *link.Link) { l.Carrier = step.carrier })
			leaky.lost.Store(step.lost)
			var tx vswitch.Counters
			r.inTurn(func() { tx = r.ports["vm0"].sw.Stats().TX })
			if tx.Dropped[port.DropNoCarrier] != step.nobody || tx.Dropped[port.DropQueueFull] != step.tooFull {
				t.Errorf("%d lost: %d without a carrier, %d by a full queue; want %d and %d", step.lost,
					tx.Dropped[port.DropNoCarrier], tx.Dropped[port.DropQueueFull], step.nobody, step.tooFull)
			}
		}
	})
}

// Features are told that a port passes frames while its device is open and not down: also before a
// machine is there.
func TestPortPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		h.makes = false
		r := start(t, h, store.State{})
		if err := r.addReq(noWait(wanted(spec("vm0")))); err != nil {
			t.Fatal(err)
		}
		want := func(state api.State, want bool) {
			t.Helper()
			r.wantState("vm0", state)
			r.inTurn(func() {
				if got := r.ports["vm0"].Passes(); got != want {
					t.Errorf("%s: it passes frames: %v", state, got)
				}
			})
		}
		want(api.StateWaiting, false)
		h.put(link.Link{Name: "vm0", MTU: 1500, Up: true})
		time.Sleep(eventGap)
		want(api.StateNoCarrier, true)
		r.change("vm0", func(l *link.Link) { l.Carrier = true })
		want(api.StateUp, true)
		r.change("vm0", func(l *link.Link) { l.Up = false })
		want(api.StateDown, false)
	})
}

// A port that could not be opened does not keep its device from another.
func TestFailedPortHasNoDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		device := h.put(link.Link{Name: "vm0"})
		r := start(t, h, store.State{})
		h.failOpen(port.ErrGone)
		if err := r.addReq(noWait(wanted(spec("vm0")))); err != nil {
			t.Fatal(err)
		}
		if h.device("vm0") != nil {
			t.Fatal("it is open")
		}
		h.failOpen(nil)
		device.Name = "vm9"
		h.put(device)
		if err := r.add("vm9"); err != nil {
			t.Error(err)
		}
	})
}

// Features learn the address of the host's own station, and of no other: that of a device is no VM's.
func TestOwnStation(t *testing.T) {
	for _, own := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := newFakeHost()
			h.own = own
			r := start(t, h, store.State{})
			r.mustAdd("vm0")
			r.change("vm0", func(l *link.Link) { l.MAC = [6]byte{2, 0, 0, 0, 0, 1} })
			var want, is port.MAC
			if own {
				want = 0x0200_0000_0001
			}
			if _ = r.do(func() error { is = r.ports["vm0"].Own(); return nil }); is != want {
				t.Errorf("own %v: %v", own, is)
			}
		})
	}
}
