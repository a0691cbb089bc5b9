package daemon

import (
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// fakeFast is a fast path that forwards nothing, and remembers what the daemon told it.
type fakeFast struct {
	vswitch.FastPath // nothing else is called
	lock             *os.File

	mu     sync.Mutex
	calls  []string
	onStop func()
}

func (f *fakeFast) Bind(*fdb.Table)                                {}
func (f *fakeFast) Changed(fdb.Key)                                {}
func (f *fakeFast) Flushed(uint16)                                 {}
func (f *fakeFast) Publish([]vswitch.FastPort, vswitch.FastFlood)  {}
func (f *fakeFast) Show(func(*vswitch.FastCopy))                   {}
func (f *fakeFast) TakeFloods(func(uint16) bool)                   {}
func (f *fakeFast) Settle()                                        {}
func (f *fakeFast) Refresh()                                       {}
func (f *fakeFast) Now() int64                                     { return 1 }
func (f *fakeFast) Budget(uint16, uint8) *atomic.Int64             { return new(atomic.Int64) }
func (f *fakeFast) Counters(uint16) (st vswitch.PortStats)         { return st }
func (f *fakeFast) Release(uint16) (st vswitch.PortStats)          { return st }
func (f *fakeFast) Explain(uint16, []byte) (v vswitch.FastVerdict) { return v }
func (f *fakeFast) Guard(uint16, *vswitch.FastGuard)               {}
func (f *fakeFast) Backlog() int                                   { return 5 }
func (f *fakeFast) Pinned() bool                                   { return true }
func (f *fakeFast) Lock() *os.File                                 { return f.lock }
func (f *fakeFast) Start()                                         { f.note("start") }
func (f *fakeFast) Suspend()                                       { f.note("suspend") }
func (f *fakeFast) Continue()                                      { f.note("continue") }
func (f *fakeFast) Stop() {
	f.note("stop")
	if f.onStop != nil {
		f.onStop()
	}
}

func (f *fakeFast) note(call string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, call)
}

// told returns the calls since it was last asked.
func (f *fakeFast) told() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

// routed is a port on a device whose frames leave by others.
type routed struct{ *fakePort }

func (routed) Punted() bool { return true }
func (routed) Ways() string { return "eth0, by a route" }

// The fast path is started when the ports of the state are there, and stopped before they go. What
// is on it, and what keeps a port off, is told.
func TestFastPathFollowsTheDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, h := &fakeFast{}, newFakeHost()
		h.wrap = func(p *fakePort) port.Port { return routed{p} }
		r := startWith(t, h, store.State{Ports: []store.Port{{Spec: saved(spec("vm0"))}}}, func(o *Options) { o.FastPath = f })
		if got := f.told(); !slices.Equal(got, []string{"start"}) {
			t.Errorf("at the start it hears %q", got)
		}
		if sw, err := ask(r.manager, func() (api.Switch, error) { return r.describeSwitch(), nil }); err != nil || !sw.FastPath.On || !sw.FastPath.Pinned {
			t.Errorf("the switch has %+v, %v", sw.FastPath, err)
		}
		r.change("vm0", func(l *link.Link) { l.Carrier = true })
		if p := r.port("vm0").FastPath; !p.On || p.Off != nil || p.By != "eth0, by a route" {
			t.Errorf("a port with a device has %+v", p)
		}
		h.failOpen(port.ErrGone)
		if err := r.addReq(noWait(wanted(spec("vm1")))); err != nil {
			t.Fatal(err)
		}
		if p := r.port("vm1").FastPath; p.On || strings.Join(p.Off, "") != "nothing is attached" || p.By != "" {
			t.Errorf("a port without a device has %+v", p)
		}
		numbers := make(map[string]float64)
		_ = r.do(func() error {
			r.collect(func(m *feature.Metric, v float64, _ ...string) { numbers[m.Name] = v })
			return nil
		})
		if numbers[fastPathOn.Name] != 1 || numbers[fastBacklog.Name] != 5 {
			t.Errorf("the metrics are %v and %v", numbers[fastPathOn.Name], numbers[fastBacklog.Name])
		}
		f.onStop = func() {
			if h.device("vm0").closed() {
				t.Error("the ports go before it is stopped")
			}
		}
		r.stop()
		if got := f.told(); !slices.Equal(got, []string{"stop"}) {
			t.Errorf("at the stop it hears %q", got)
		}
	})
}

// A port of a switch without a fast path says why there is none.
func TestPortWithoutFastPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startWith(t, newFakeHost(), store.State{}, func(o *Options) { o.FastPathOff = "the kernel is too old" })
		r.mustAdd("vm0")
		if p := r.port("vm0").FastPath; p.On || !slices.Equal(p.Off, []string{"the switch has none: the kernel is too old"}) {
			t.Errorf("the port has %+v", p)
		}
		if sw, err := ask(r.manager, func() (api.Switch, error) { return r.describeSwitch(), nil }); err != nil || sw.FastPath.On || sw.FastPath.Pinned || sw.FastPath.Reason != "the kernel is too old" {
			t.Errorf("the switch has %+v, %v", sw.FastPath, err)
		}
	})
}
