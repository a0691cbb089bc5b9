package daemon

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/port"
)

// noticingPort is a port with a peer, and something to tell.
type noticingPort struct {
	*linkedPort
	notice string
}

func (p *noticingPort) Notice() string { return p.notice }

// A machine that comes and goes in a loop fills neither the log nor the daemon's time, and
// how it ends is in the log.
func TestPeerThatReconnectsIsLoggedWithinBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		h.hidden = true
		peer := &linkedPort{changed: make(chan struct{}, 1), why: errors.New("nobody is there")}
		h.wrap = func(p *fakePort) port.Port { peer.fakePort = p; return peer }
		r := start(t, h, store.State{})
		r.mustAdd("vm0")
		flip := func() {
			_ = r.do(func() error { peer.up = !peer.up; return nil })
			select {
			case peer.changed <- struct{}{}:
			default:
			}
		}
		r.logged()
		const burst, window = 20, 10 * time.Second // so many lines in so long
		began := time.Now()
		for time.Since(began) < 10*window+window/2 {
			flip()
			time.Sleep(2 * time.Millisecond)
		}
		log := r.logged()
		if n := strings.Count(log, "port=vm0"); n < 10*burst || n > 11*burst {
			t.Errorf("%d lines in %v:\n%s", n, time.Since(began), log)
		}
		if n := strings.Count(log, "left_out="); n != 10 {
			t.Errorf("what is left out is told %d times", n)
		}
		// The last states are summed up once nothing changes any more.
		if !peer.up {
			flip()
		}
		time.Sleep(2 * window)
		log = r.logged()
		if n := strings.Count(log, "\n"); n != 1 || !strings.Contains(log, "port=vm0 kind=fake state=up left_out=") {
			t.Errorf("then:\n%s", log)
		}
		flip()
		synctest.Wait()
		if log := r.logged(); !strings.Contains(log, "state=waiting was=up") || strings.Contains(log, "left_out") {
			t.Errorf("a change after a quiet while: %q", log)
		}
	})
}

// How often a peer's changes are looked at is bounded, but the first ones are seen at once.
func TestLinkIsLookedAtWithinBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		h.hidden = true
		looks := 0
		peer := &linkedPort{changed: make(chan struct{})} // without room: who sends sees the look
		h.wrap = func(p *fakePort) port.Port { peer.fakePort = p; return peer }
		r := start(t, h, store.State{})
		r.mustAdd("vm0")
		began := time.Now()
		for looks = range 200 {
			peer.changed <- struct{}{}
			if looks == changeBurst && time.Since(began) > 0 {
				t.Errorf("%d looks took %v", looks, time.Since(began))
			}
		}
		if took, want := time.Since(began), (200-changeBurst-2)*changeGap; took < want || took > want+5*changeGap {
			t.Errorf("200 looks took %v, want %v", took, want)
		}
		time.Sleep(time.Second)
		began = time.Now()
		for range changeBurst {
			peer.changed <- struct{}{}
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("after a quiet second %d looks took %v", changeBurst, took)
		}
	})
}

// What a working port has to tell is its reason, and in the log once.
func TestPortNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		h.hidden = true
		peer := &noticingPort{linkedPort: &linkedPort{changed: make(chan struct{}, 1), up: true}}
		h.wrap = func(p *fakePort) port.Port { peer.fakePort = p; return peer }
		r := start(t, h, store.State{})
		r.mustAdd("vm0")
		r.logged()
		for i, c := range []struct{ notice, log string }{
			{"", ""}, {"two machines", "notice=\"two machines\""}, {"two machines", ""}, {"three machines", "notice=\"three machines\""}, {"", ""},
		} {
			_ = r.do(func() error { peer.notice = c.notice; return nil })
			peer.changed <- struct{}{}
			synctest.Wait()
			p := r.port("vm0")
			if p.State != api.StateUp || p.Reason != c.notice {
				t.Errorf("%d: the port is %s for %q, want %q", i, p.State, p.Reason, c.notice)
			}
			if log := r.logged(); (log == "") != (c.log == "") || !strings.Contains(log, c.log) {
				t.Errorf("%d: logged %q, want %q", i, log, c.log)
			}
		}
		_ = r.do(func() error {
			peer.up, peer.why, peer.notice = false, errors.New("it is gone"), "two machines"
			return nil
		})
		peer.changed <- struct{}{}
		synctest.Wait()
		if p := r.port("vm0"); p.Reason != "it is gone" {
			t.Errorf("the reason is %s", fmt.Sprint(p.Reason))
		}
	})
}

// kernelEnd is a port on the kernel end of its device.
type kernelEnd struct{ *fakePort }

func (kernelEnd) Punted() bool { return false }

// A port says that an XDP program sees the frames of its device first, also in the log.
func TestNoticeOfXDP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		h.wrap = func(p *fakePort) port.Port { return kernelEnd{p} }
		r := start(t, h, store.State{})
		r.mustAdd("vm0")
		for _, step := range []struct {
			program uint32
			want    string
		}{{0, ""}, {17, "XDP program 17 at vm0"}, {0, ""}} {
			r.logged()
			r.change("vm0", func(l *link.Link) { l.Up, l.Carrier, l.XDP = true, true, step.program })
			r.wantState("vm0", api.StateUp)
			if got := r.port("vm0").Reason; !strings.HasPrefix(got, step.want) || (got == "") != (step.want == "") {
				t.Errorf("program %d: the reason is %q", step.program, got)
			}
			if log := r.logged(); strings.Contains(log, "port notice") != (step.want != "") {
				t.Errorf("program %d: logged %q", step.program, log)
			}
		}
	})
}

// overtaken is a port at whose device somebody puts a program.
type overtaken struct {
	*fakePort
	by atomic.Pointer[string]
}

func (p *overtaken) Overtaken() string { return *p.by.Load() }

// A port says that a program of others sees the frames of its device first, though no event tells
// when somebody attached it, or took it away.
func TestNoticeOfProgram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		var own *overtaken
		h.wrap = func(p *fakePort) port.Port {
			own = &overtaken{fakePort: p}
			own.by.Store(new(string))
			return own
		}
		r := start(t, h, store.State{})
		r.mustAdd("vm0")
		r.change("vm0", func(l *link.Link) { l.Up, l.Carrier = true, true })
		for _, by := range []string{"", "program foreign", ""} {
			r.logged()
			own.by.Store(&by)
			time.Sleep(lookGap)
			synctest.Wait()
			r.wantState("vm0", api.StateUp)
			if got := r.port("vm0").Reason; got != by {
				t.Errorf("the reason is %q, want %q", got, by)
			}
			if log := r.logged(); strings.Contains(log, "port notice") != (by != "") {
				t.Errorf("%q: logged %q", by, log)
			}
		}
	})
}
