package daemon

import (
	"bytes"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
	vswitch "github.com/vswitch/vswitch/switch"
)

// wires is a port kind whose other ends the test holds.
type wires struct {
	kind string
	ends map[string]*wireEnd
}

// wireEnd is a port in memory with a link that comes and goes.
type wireEnd struct {
	*memory.Port
	down    atomic.Bool
	changed chan struct{}
}

func (e *wireEnd) Link() bool                   { return !e.down.Load() }
func (e *wireEnd) LinkError() error             { return nil }
func (e *wireEnd) LinkChanged() <-chan struct{} { return e.changed }

// opening guards the ends of wires of several kinds, which are opened at a time.
var opening sync.Mutex

func (w wires) Name() string          { return w.kind }
func (w wires) Check(port.Spec) error { return nil }
func (w wires) Describe() port.Description {
	return port.Description{Help: "a wire", Station: w.kind != "netdev"}
}
func (w wires) Open(spec port.Spec, _ *port.Trace) (port.Port, error) {
	e := &wireEnd{Port: memory.New(memory.Options{}), changed: make(chan struct{}, 1)}
	opening.Lock()
	defer opening.Unlock()
	w.ends[spec.Name] = e
	return e, nil
}
func (w wires) Set(port.Port, port.Spec, port.Spec) error { return nil }
func (w wires) Delete(port.Spec, port.Trace) error        { return nil }

// wireRig is a switch whose ports are wires.
type wireRig struct {
	*rig
	ends map[string]*wireEnd
}

// wire starts a switch with the options that edit sets, and adds ports.
func wire(t *testing.T, saved store.State, edit func(*Options), specs ...port.Spec) *wireRig {
	t.Helper()
	w := &wireRig{ends: make(map[string]*wireEnd)}
	w.rig = startWith(t, newFakeHost(), saved, func(o *Options) {
		o.Kinds = port.Kinds{wires{"tap", w.ends}, wires{"netdev", w.ends}}
		edit(o)
	})
	for _, s := range specs {
		if err := w.addReq(wanted(s)); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// send has a frame come in by a port.
func (w *wireRig) send(name string, frame []byte) {
	w.t.Helper()
	synctest.Wait()
	if w.ends[name].Put(0, memory.Packet{Wire: frame}) != 1 {
		w.t.Fatalf("port %s does not take a frame", name)
	}
	synctest.Wait()
}

// taken returns what left by a port since the last call.
func (w *wireRig) taken(name string) (frames [][]byte) {
	synctest.Wait()
	w.ends[name].Drain(0, 1<<16, func(p memory.Packet) { frames = append(frames, bytes.Clone(p.Wire)) })
	return frames
}

// wantTaken checks how often a frame left by each port since the last time.
func (w *wireRig) wantTaken(frame []byte, want map[string]int) {
	w.t.Helper()
	for name := range w.ends {
		n := 0
		for _, got := range w.taken(name) {
			if bytes.Equal(got, frame) {
				n++
			}
		}
		if n != want[name] {
			w.t.Errorf("%x left %d times by %s, want %d", frame, n, name, want[name])
		}
	}
}

// link takes a port's link down, or up again.
func (w *wireRig) link(name string, up bool) {
	e := w.ends[name]
	e.down.Store(!up)
	e.changed <- struct{}{}
	synctest.Wait()
}

// asked calls f on the manager's goroutine.
func asked[T any](t *testing.T, m *manager, f func() (T, error)) T {
	t.Helper()
	synctest.Wait()
	v, err := ask(m, f)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A mirror's target hears mirrored frames, those that the switch emits among them, and
// nothing that the switch says to the target itself.
func TestProtocolsLeaveMirrorTargetsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := wire(t, store.State{}, func(o *Options) {
			withTree(o)
			withSnooping(andQuery)(o)
		}, vm("vm0"), vm("probe"))
		if err := w.sw.SetMirrors([]vswitch.Mirror{{Name: "m0", Ports: []string{"vm0"}, In: true, Out: true, To: "probe"}}); err != nil {
			t.Fatal(err)
		}
		w.taken("probe")
		w.taken("vm0")
		time.Sleep(10 * time.Minute)
		queries := slices.DeleteFunc(w.taken("vm0"), func(f []byte) bool { return port.MACFrom(f) == 0x0180_c200_0000 })
		if len(queries) == 0 {
			t.Error("the switch asks nobody")
		}
		if got := w.taken("probe"); !slices.EqualFunc(got, queries, bytes.Equal) {
			t.Errorf("a mirror's target is sent %d frames, want the %d queries by its source: %x", len(got), len(queries), got)
		}
	})
}

// Ports of the state receive once all of them are open; one that takes long holds up the others
// for a limited time.
func TestPortsOfTheStateReceiveTogether(t *testing.T) {
	for name, c := range map[string]struct {
		takes time.Duration // to open the second port
		want  time.Duration // until the first one receives
	}{
		"soon": {stallWait / 2, stallWait / 2},
		"late": {restoreWait / 2, stallWait},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				host := newFakeHost()
				host.slow = func(call, name string) {
					if call == "Open" && name == "vm1" {
						time.Sleep(c.takes)
					}
				}
				began := time.Now()
				r := start(t, host, store.State{Ports: []store.Port{{Spec: saved(spec("vm0"))}, {Spec: saved(spec("vm1"))}}})
				for name, want := range map[string]time.Duration{"vm0": c.want, "vm1": c.takes} {
					if at := host.devices[name].began.Load(); at == nil || at.Sub(began) != want {
						t.Errorf("%s receives since %v, after %v", name, at, want)
					}
				}
				r.mustAdd("vm2")
				if host.devices["vm2"].began.Load() == nil {
					t.Error("a port that is added later does not receive")
				}
			})
		})
	}
}

// A kind that does not answer while it opens a port of the state holds up neither the
// protocols nor the ports of other kinds, and calls of the API for a limited time.
func TestRestoreDoesNotWaitForAKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := make(chan struct{})
		host := newFakeHost()
		host.slow = func(call, _ string) {
			if call == "Open" {
				<-hangs
			}
		}
		before := store.State{Ports: []store.Port{{Spec: saved(port.Spec{Name: "slow", Kind: "fake"})}, {Spec: saved(netdev("up0"))}, {Spec: saved(vm("vm0"))}}}
		ends := make(map[string]*wireEnd)
		began := time.Now()
		r := startWith(t, host, before, func(o *Options) {
			o.Kinds = port.Kinds{host, wires{"tap", ends}, wires{"netdev", ends}}
			withTree(o)
		})
		w := &wireRig{rig: r, ends: ends}
		if waited := time.Since(began); waited != restoreWait {
			t.Errorf("calls waited for %v", waited)
		}
		if p := w.port("slow"); p.State != api.StateWaiting || p.Reason == "" {
			t.Errorf("it is %s: %q", p.State, p.Reason)
		}
		w.wantState("vm0", api.StateUp)
		if n := len(w.taken("up0")); n < int(restoreWait/time.Second)/2 {
			t.Errorf("%d hellos in %v", n, restoreWait)
		}
		close(hangs)
		synctest.Wait()
		if p := w.port("slow"); p.Reason == "its device is being opened" {
			t.Errorf("it is %s: %q", p.State, p.Reason)
		}
	})
}
