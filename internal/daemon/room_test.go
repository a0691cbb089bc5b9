package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/linux/limits"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
)

// The port too many is refused, by whichever limit, and leaves nothing; one that goes
// makes room; of a restored switch those wait that do not fit.
func TestPortsStayWithinTheLimits(t *testing.T) {
	base := ownThreads + runtime.GOMAXPROCS(0)
	for name, test := range map[string]struct {
		needs          port.Needs
		threads, files int
		says           string
	}{
		"threads": {port.Needs{Threads: 2, Files: 1}, base + 2*3 + 1, 1 << 20, "threads"},
		"files":   {port.Needs{Threads: 1, Files: 5}, 1 << 20, ownFiles + 5*3 + 4, "open files"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				threads, files := test.threads, test.files
				limited := func(o *Options) {
					o.limits = func() (limits.Limit, limits.Limit) {
						return limits.Limit{Most: threads, Name: "the limit of threads"}, limits.Limit{Most: files, Name: "the limit of open files"}
					}
				}
				h := newFakeHost()
				h.needs = test.needs
				r := startWith(t, h, store.State{}, limited)
				for i := range 3 {
					r.mustAdd(fmt.Sprint("vm", i))
				}
				wantCode(t, r.add("vm3"), api.CodeFailed, "the limit of "+test.says)
				if len(r.sw.Ports()) != 3 || len(r.disk.state().Ports) != 3 || r.host.device("vm3") != nil {
					t.Error("the port that was refused is there")
				}
				// One that goes, or is lost, makes room for one.
				if err := r.do(func() error { return r.delPort("vm0", false) }); err != nil {
					t.Fatal(err)
				}
				r.mustAdd("vm3")
				wantCode(t, r.add("vm4"), api.CodeFailed, test.says)
				r.stop()

				threads, files = threads-2*test.needs.Threads, files-2*test.needs.Files
				again := startWith(t, h, r.disk.state(), limited)
				up, waiting := 0, 0
				for _, name := range []string{"vm1", "vm2", "vm3"} {
					switch p := again.port(name); p.State {
					case api.StateNoCarrier:
						up++
					case api.StateWaiting:
						waiting++
						if !strings.Contains(p.Reason, test.says) {
							t.Errorf("it waits because %q", p.Reason)
						}
					}
				}
				if up != 1 || waiting != 2 || len(again.disk.state().Ports) != 3 {
					t.Errorf("%d ports are open, %d wait, %d are on disk", up, waiting, len(again.disk.state().Ports))
				}
				again.inTurn(func() { threads, files = 1<<20, 1<<20 })
				time.Sleep(maxBackoff)
				again.wantState("vm3", api.StateNoCarrier)
			})
		})
	}
}

// Without address space, no port opens, and those that are open stay: what they take later is kept free.
func TestPortsLeaveAddressSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		h.needs = port.Needs{Threads: 1, Files: 1}
		left := limits.KeptSpace
		r := startWith(t, h, store.State{}, func(o *Options) {
			o.space = func() limits.Limit { return limits.Limit{Most: left, Name: "the limit"} }
		})
		r.mustAdd("vm0")
		r.inTurn(func() { left-- })
		time.Sleep(roomAge)
		wantCode(t, r.add("vm1"), api.CodeFailed, "255 MiB are left: the limit")
		r.wantState("vm0", api.StateNoCarrier)
		r.inTurn(func() { left = math.MaxInt })
		time.Sleep(roomAge)
		r.mustAdd("vm1")
	})
}

// Limits are read once for the many ports of a restore, and said as they are.
func TestLimitsAreReadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		h.needs = port.Needs{Threads: 1}
		reads, most := 0, -5
		r := startWith(t, h, store.State{}, func(o *Options) {
			o.limits = func() (limits.Limit, limits.Limit) {
				reads++
				return limits.Limit{Most: most, Name: "the limit"}, limits.Limit{Most: 1 << 20}
			}
		})
		wantCode(t, r.add("vm0"), api.CodeFailed, "room for 0: the limit")
		wantCode(t, r.add("vm1"), api.CodeFailed, "the limit")
		if reads != 1 {
			t.Errorf("the limits were read %d times at once", reads)
		}
		time.Sleep(roomAge)
		r.inTurn(func() { most = 1 << 20 })
		r.mustAdd("vm0")
	})
}

// A device with more queues than were asked for is counted as it is.
func TestQueuesOfAnAdoptedDeviceCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		h.needs, h.queues = port.Needs{Threads: 1}, 8
		most := ownThreads + runtime.GOMAXPROCS(0) + 8
		r := startWith(t, h, store.State{}, func(o *Options) {
			o.limits = func() (limits.Limit, limits.Limit) {
				return limits.Limit{Most: most, Name: "the limit"}, limits.Limit{Most: 1 << 20}
			}
		})
		r.mustAdd("vm0")
		wantCode(t, r.add("vm1"), api.CodeFailed, "the limit")
		if d := r.host.device("vm1"); d != nil && !d.closed() {
			t.Error("the device is still open")
		}
		r.inTurn(func() { most += 8 })
		time.Sleep(roomAge)
		r.mustAdd("vm1")
		if d := r.host.device("vm1"); d.closed() {
			t.Error("the device is closed")
		}
	})
}

// A limit that leaves no room even for a daemon without ports stops the start, with words.
func TestRoomToStart(t *testing.T) {
	for most, ok := range map[int]bool{-3: false, 0: false, leastThreads - 1: false, leastThreads: true, 1 << 20: true} {
		err := roomToStart(limits.Limit{Most: most, Name: "the limit"}, limits.Limit{Most: math.MaxInt}, limits.Limit{Most: math.MaxInt})
		if (err == nil) != ok || err != nil && !strings.HasSuffix(err.Error(), ": the limit") {
			t.Errorf("%d threads: %v", most, err)
		}
	}
	if err := roomToStart(limits.Limit{Most: leastThreads}, limits.Limit{Most: limits.KeptSpace - 1, Name: "the limit"}, limits.Limit{Most: math.MaxInt}); err == nil || !strings.Contains(err.Error(), "255 MiB are left: the limit") {
		t.Errorf("with little address space: %v", err)
	}
	for most, says := range map[int]string{leastMemory - 1: "16 MiB of memory, and there is room for 15: the limit", leastMemory: ""} {
		err := roomToStart(limits.Limit{Most: leastThreads}, limits.Limit{Most: limits.KeptSpace}, limits.Limit{Most: most, Name: "the limit"})
		if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("with %d bytes of memory: %v", most, err)
		}
	}
	if roomForFastPath(limits.Limit{Most: ownMemory + fastPathMemory - 1}) == nil || roomForFastPath(limits.Limit{Most: ownMemory + fastPathMemory}) != nil {
		t.Error("the fast path takes another memory than it says")
	}
	if err := RoomToStart(0); err != nil {
		t.Errorf("here: %v", err)
	}
	files := limits.Files().Most
	if err := RoomToStart(files - ownFiles + 1); files != math.MaxInt && (err == nil || !strings.Contains(err.Error(), fmt.Sprintf("takes %d open files: a process may have %d open files (ulimit -n), less %d that it got open; raise that", ownFiles, files, files-ownFiles+1))) {
		t.Errorf("with other open files: %v", err)
	}
}

func TestFitMemory(t *testing.T) {
	was := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(was)
	defer (&memoryFit{}).fit(limits.Limit{Most: math.MaxInt})
	for _, test := range []struct {
		set  int64 // GOMEMLIMIT
		most int
		want int64
	}{
		{math.MaxInt64, math.MaxInt, math.MaxInt64}, {math.MaxInt64, 1 << 30, 1 << 30 / 5 * 4}, {math.MaxInt64, 1 << 20, leastHeap}, {2 << 30, 1 << 30, 2 << 30},
	} {
		debug.SetMemoryLimit(test.set)
		var f memoryFit
		f.fit(limits.Limit{Most: test.most})
		if got := debug.SetMemoryLimit(-1); got != test.want {
			t.Errorf("GOMEMLIMIT %d, cgroup %d: the limit is %d, want %d", test.set, test.most, got, test.want)
		}
	}
}

// A limit of memory that somebody changes while the daemon runs is followed, and one that is taken away.
func TestMemoryLimitIsFollowed(t *testing.T) {
	was := debug.SetMemoryLimit(math.MaxInt64)
	defer debug.SetMemoryLimit(was)
	defer (&memoryFit{}).fit(limits.Limit{Most: math.MaxInt})
	synctest.Test(t, func(t *testing.T) {
		var most atomic.Int64
		most.Store(1 << 30)
		read := func() limits.Limit { return limits.Limit{Most: int(most.Load())} }
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var f memoryFit
		f.fit(read())
		go f.follow(ctx, read, slog.New(slog.DiscardHandler))
		for _, to := range []int64{200 << 20, 1 << 40, math.MaxInt64} {
			synctest.Wait()
			most.Store(to)
			time.Sleep(memoryAge)
			synctest.Wait()
			want := int64(math.MaxInt64)
			if to != want {
				want = to / 5 * 4
			}
			if got := debug.SetMemoryLimit(-1); got != want {
				t.Errorf("with %d bytes the runtime's limit is %d, want %d", to, got, want)
			}
		}
	})
}

// Ports keep within a limit of memory with all that their queues hold, also when it becomes lower, and when
// a port gets a queue by its rate. What is refused changes nothing.
func TestPortsStayWithinMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const each = 1 << 20
		h := newFakeHost()
		h.needs = port.Needs{Memory: each}
		most := ownMemory + 4*each // three quarters are for ports
		r := startWith(t, h, store.State{}, func(o *Options) {
			o.memory = func() limits.Limit { return limits.Limit{Most: most, Name: "memory.max"} }
		})
		r.mustAdd("vm0")
		r.mustAdd("vm1")
		r.mustAdd("vm2")
		wantCode(t, r.add("vm3"), api.CodeFailed, "port vm3 can take 1.0 MiB of memory for its queues, which makes 4.0 with all others, and there is room for 3.0: memory.max is 28.0 MiB")
		if err := r.do(func() error { return r.delPort("vm2", false) }); err != nil {
			t.Fatal(err)
		}
		rate := setting.Patch{"rate_out": json.RawMessage(`"1mbit"`)}
		none := setting.Patch{"rate_out": json.RawMessage(`null`)}
		set := func(to setting.Patch) error { return r.do(func() error { _, err := r.setPort("vm1", to); return err }) }
		wantCode(t, set(rate), api.CodeFailed, "port vm1 can take 5.0 MiB")
		var kept port.Rate
		r.inTurn(func() { kept = r.ports["vm1"].spec.RateOut })
		if kept.PerSecond != 0 {
			t.Error("the rate that was refused is there")
		}
		r.inTurn(func() { most = ownMemory + 8*each })
		time.Sleep(roomAge)
		if err := set(rate); err != nil {
			t.Fatal(err)
		}
		wantCode(t, r.add("vm2"), api.CodeFailed, "which makes 7.0")
		if err := set(none); err != nil {
			t.Fatal(err)
		}
		r.mustAdd("vm2")
		r.inTurn(func() { most = ownMemory })
		time.Sleep(roomAge)
		wantCode(t, r.add("vm3"), api.CodeFailed, "there is room for 0.0")
		if err := set(setting.Patch{"description": json.RawMessage(`"as before"`)}); err != nil {
			t.Errorf("a change that takes no memory: %v", err)
		}
		r.wantState("vm0", api.StateNoCarrier)
	})
}

// What an upgrade takes of a limit of memory is counted, and refused before it is exceeded.
func TestUpgradeRoom(t *testing.T) {
	u := upgradeRoom{left: limits.Limit{Most: 3*copies*1000 - 1, Name: "the limit"}}
	for i := range 3 {
		if err := u.pass(1000); (err != nil) != (i == 2) || err != nil && !strings.HasSuffix(err.Error(), "are left: the limit; raise it for the time of the upgrade") {
			t.Errorf("port %d: %v", i, err)
		}
	}
	m := new(manager)
	if err := m.roomForNext(); err != nil {
		t.Errorf("without a limit: %v", err)
	}
	for left, ok := range map[int]bool{-1: false, nextMemory - 1: false, nextMemory: true} {
		m.left = func() limits.Limit { return limits.Limit{Most: left} }
		if err := m.roomForNext(); (err == nil) != ok {
			t.Errorf("with %d bytes: %v", left, err)
		}
	}
}

// With few threads the switch works on fewer processors, one at least; with enough, on all.
func TestFitProcessors(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for most, want := range map[int]int{-3: 1, 0: 1, 7: 1, 8: 2, 31: 7, 32: 8, 1 << 20: 8} {
		runtime.GOMAXPROCS(8)
		var log bytes.Buffer
		fitProcessors(limits.Limit{Most: most, Name: "the limit"}, slog.New(slog.NewTextHandler(&log, nil)))
		if got := runtime.GOMAXPROCS(0); got != want {
			t.Errorf("room for %d threads: it works on %d processors, want %d", most, got, want)
		}
		if said := strings.Contains(log.String(), fmt.Sprintf(`processors=%d of=8 limit="the limit"`, want)); said != (want < 8) {
			t.Errorf("room for %d threads: the log has %q", most, &log)
		}
	}
}

// Threads that are made serve goroutines that wait in system calls: no more are made then.
func TestMakeThreads(t *testing.T) {
	const n = 64
	makeThreads(n)
	there := ownTasks(t)
	if there < n {
		t.Fatalf("%d threads are there", there)
	}
	var in, out [2]int
	for _, p := range []*[2]int{&in, &out} {
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(p[0])
		defer unix.Close(p[1])
	}
	var waiting sync.WaitGroup
	for range n / 2 {
		waiting.Go(func() {
			_, _ = unix.Write(out[1], []byte{0})
			_, _ = unix.Read(in[0], make([]byte, 1)) // waits, and keeps its thread
		})
	}
	for range n / 2 {
		_, _ = unix.Read(out[0], make([]byte, 1))
	}
	after := ownTasks(t)
	_, _ = unix.Write(in[1], make([]byte, n/2))
	waiting.Wait()
	if after > there {
		t.Errorf("%d threads are there while %d goroutines wait, and %d were before", after, n/2, there)
	}
}

func ownTasks(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
