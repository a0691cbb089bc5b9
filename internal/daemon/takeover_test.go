package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/handover"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// takingHost is a fakeHost that notes what is given of ports.
type takingHost struct {
	*fakeHost
	lock sync.Mutex
	took map[string]port.Parcel
	open map[string]int // files that were open then
	err  error
}

func (h *takingHost) Take(s port.Spec, t *port.Trace, from *port.Parcel) (port.Port, error) {
	h.lock.Lock()
	defer h.lock.Unlock()
	h.took[s.Name] = *from
	for _, fd := range from.Files {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil {
			h.open[s.Name]++
		}
	}
	if h.err != nil {
		return nil, h.err
	}
	return h.Open(s, t)
}

func (h *takingHost) taken() []string {
	h.lock.Lock()
	defer h.lock.Unlock()
	return slices.Sorted(maps.Keys(h.took))
}

// formerProcess plays the process that gives a switch.
type formerProcess struct {
	handover.Conn
	t     *testing.T
	path  string
	offer handover.Offer
	files []int
	stats vswitch.PortStats
}

// newFormer has a control socket with its lock, and ports of four sorts: one given at once, one
// given later, one that is not open, and one that cannot be given.
func newFormer(t *testing.T, conn handover.Conn) *formerProcess {
	t.Helper()
	f := &formerProcess{Conn: conn, t: t, path: t.TempDir() + "/s"}
	lock, err := lockSocket(f.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: f.path})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	t.Cleanup(func() { ln.Close() })
	f.offer = handover.Offer{Version: "former", Listeners: 1, Locks: 1}
	for _, of := range []interface {
		File() (*os.File, error)
	}{ln} {
		file, err := of.File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		f.files = append(f.files, int(file.Fd()))
	}
	f.files = append(f.files, int(lock.Fd()))
	st := store.State{Version: store.Version}
	for _, name := range []string{"early", "later", "closed", "kept"} {
		st.Ports = append(st.Ports, store.Port{Spec: saved(spec(name))})
	}
	if f.offer.State, err = json.Marshal(st); err != nil {
		t.Fatal(err)
	}
	f.offer.Ports = []handover.Port{
		{Name: "early", Open: true, Given: true, Format: 7, Data: []byte("e"), Files: 2, Shut: "guard: a loop"},
		{Name: "later", Open: true, Later: true},
		{Name: "closed"},
		{Name: "kept", Open: true},
	}
	f.files = append(f.files, f.file(), f.file())
	f.stats.RX.Frames, f.stats.TX.Bytes, f.stats.Fast = 100, 200, 30
	f.stats.RX.Dropped[port.DropPoliced] = 4
	return f
}

// file returns a descriptor that the next process may get.
func (f *formerProcess) file() int {
	fd, err := unix.MemfdCreate("given", unix.MFD_CLOEXEC)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// rest is what it gives when it is held.
func (f *formerProcess) rest() handover.Rest {
	key := fdb.MakeKey(1, 0x5254_0000_0001)
	return handover.Rest{
		Ports:    []handover.Port{{Name: "later", Open: true, Given: true, Format: 8, Data: []byte("l"), Files: 1}},
		Stations: map[string][]byte{"later": append(appendStation(nil, fdb.Entry{Key: key, Age: 7 * time.Second}), 1, 2), "gone": make([]byte, stationSize)},
		Counters: map[string]handover.Counters{"early": toWire(f.stats), "gone": {}},
		Features: map[string]handover.Feature{"notes": {Format: 1, Data: []byte("41")}}, Sections: map[string]json.RawMessage{"notes": json.RawMessage(`"given"`)},
		Departed: toWire(f.stats), Injected: 5, Held: time.Now().Add(-time.Second),
	}
}

// result expects the end of a step, without an error unless there is one to be.
func (f *formerProcess) result(want string) {
	f.t.Helper()
	var r handover.Result
	if _, err := f.Receive(&r); err != nil || want == "" && r.Error != "" || !strings.Contains(r.Error, want) {
		f.t.Errorf("the step ended with %+v, %v; want %q", r, err, want)
	}
}

func (f *formerProcess) send(message any, files ...int) {
	f.t.Helper()
	if err := f.Send(message, files...); err != nil {
		f.t.Errorf("%T: %v", message, err)
	}
}

// taker is the process that takes the switch.
type taker struct {
	*manager
	host   *takingHost
	path   *fakeFast
	began  chan handover.Report
	failed chan error
}

// takeFrom lets a manager take the switch of a former process.
func takeFrom(t *testing.T, conn handover.Conn, path string, edit func(*takingHost)) (n *taker, err error) {
	t.Helper()
	n = &taker{host: &takingHost{fakeHost: newFakeHost(), took: map[string]port.Parcel{}, open: map[string]int{}}, path: &fakeFast{}, began: make(chan handover.Report, 1)}
	if edit != nil {
		edit(n.host)
	}
	f, err := claimSwitch(&TakeOver{Conn: conn, Began: func(r handover.Report) { n.began <- r }}, "next")
	if err != nil {
		return n, err
	}
	n.failed = f.failed
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	own := &belongings{lock: f.locks[0]}
	own.leave.Store(true)
	if own.socket, err = receiveListener(path, "", f.listener, f.locks, log); err != nil {
		return n, err
	}
	o := Options{Name: "sw0", Version: "next", Aging: 300 * time.Second, Kinds: port.Kinds{n.host}, Links: n.host.fakeHost, Log: log, own: own, former: f, FastPath: n.path}
	o.Features = append(slices.Clone(testFeatures), notes)
	o.settings, o.kept = noSettings(o.Features), noSettings(o.Features)
	n.manager, err = newManager(o, nil, nil)
	if err != nil {
		return n, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); n.run(ctx, f.saved, n.host.events) }()
	t.Cleanup(func() {
		left := own.left()
		cancel()
		<-done
		if left { // where the process would end
			_ = n.do(func() error { return nil })
			n.stopFeatures()
			_ = n.sw.Close()
		}
		own.leave.Store(false)
		own.close()
	})
	return n, nil
}

// A process that cannot start with what it was given leaves the former one its lock.
func TestFailedStartLeavesTheLock(t *testing.T) {
	conn, to := sockets(t)
	f := newFormer(t, conn)
	claimed := make(chan struct{})
	go func() {
		defer close(claimed)
		if _, err := f.Receive(new(handover.Claim)); err != nil {
			t.Error(err)
		}
		f.send(f.offer, f.files...)
	}()
	noDir := f.path + ".state"
	if err := os.WriteFile(noDir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := Run(t.Context(), Options{Name: "sw0", Version: "next", Socket: f.path, StateDir: noDir, TakeOver: &TakeOver{Conn: to}, Features: testFeatures, Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), noDir) {
		t.Errorf("with a file for its directory it ends with %v", err)
	}
	<-claimed
	if lock, err := lockSocket(f.path); err == nil {
		lock.Close()
		t.Error("the former process has lost its lock")
	}
}

// The next process opens what it can while the former one works, takes the rest when that one is
// held, forwards only when it may, and then has all that the former one had.
func TestTakesOver(t *testing.T) {
	conn, to := sockets(t)
	f := newFormer(t, conn)
	steps := make(chan func(), 1)
	go func() {
		defer close(steps)
		var c handover.Claim
		if _, err := f.Receive(&c); err != nil || c != (handover.Claim{Format: handover.Format, Version: "next", PID: os.Getpid()}) {
			t.Errorf("it claims %+v, %v", c, err)
		}
		f.send(f.offer, f.files...)
	}()
	another := errors.New("another program")
	n, err := takeFrom(t, to, f.path, func(h *takingHost) {
		h.wrap = func(p *fakePort) port.Port {
			own := &ownPort{fakePort: p}
			own.contested.Store(&another)
			return own
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	<-steps

	f.result("")
	if got := n.host.taken(); !slices.Equal(got, []string{"early"}) {
		t.Errorf("taken at once are %q", got)
	}
	if p := n.host.took["early"]; p.Format != 7 || string(p.Data) != "e" || len(p.Files) != 2 || n.host.open["early"] != 2 {
		t.Errorf("given is %+v, with %d open files", p, n.host.open["early"])
	}
	if n.host.device("closed") == nil || n.host.device("kept") != nil || n.host.device("later") != nil {
		t.Error("it opens what the former process has open, or does not open the rest")
	}

	rest := f.rest()
	f.send(rest, f.file())
	f.result("")
	if p := n.host.took["later"]; p.Format != 8 || string(p.Data) != "l" || n.host.open["later"] != 1 {
		t.Errorf("given later is %+v, with %d open files", p, n.host.open["later"])
	}
	if n.host.device("early").began.Load() != nil || n.host.device("kept") != nil {
		t.Error("it forwards before it may")
	}
	if told := n.path.told(); told != nil {
		t.Errorf("its fast path hears %q before it may", told)
	}
	if !n.own.left() {
		t.Error("what both have is its own before the former process has ended")
	}

	if c, err := net.Dial("unix", f.path); err != nil {
		t.Error("the control socket is gone:", err)
	} else if got, err := n.own.socket.Accept(); err != nil {
		t.Error("it serves nobody:", err)
	} else {
		c.Close()
		got.Close()
	}
	f.send(handover.Go{})
	f.result("")
	if n.own.left() {
		t.Error("what the former process leaves is nobody's")
	}
	f.Close()
	select {
	case r := <-n.began:
		if r.Ports != 4 || r.Stations != 1 || r.Held < time.Second || r.Held > time.Hour {
			t.Errorf("it tells %+v", r)
		}
	case err := <-n.failed:
		t.Fatal(err)
	}
	<-n.restored
	if told := n.path.told(); !slices.Equal(told, []string{"start"}) {
		t.Errorf("its fast path hears %q", told)
	}
	if err := n.do(func() error {
		if n.former != nil || n.sw.Injected() != 5 || n.sw.Departed() != f.stats {
			t.Errorf("%d injected, %+v departed", n.sw.Injected(), n.sw.Departed())
		}
		if got := n.ports["early"].sw.Stats(); got != f.stats {
			t.Errorf("the port counts %+v, want %+v", got, f.stats)
		}
		if p := n.ports["early"]; p.shutBy != "guard: a loop" || n.ports["later"].shutBy != "" {
			t.Errorf("the port that a guard shut is shut by %q", p.shutBy)
		}
		for _, h := range n.hosted {
			if is, ok := h.instance.(*noted); ok && (is.seen != 41 || is.text != "given") {
				t.Errorf("a feature has %+v", is)
			}
		}
		if at, ok := n.sw.FDB().Lookup(fdb.MakeKey(1, 0x5254_0000_0001)); !ok || at != n.ports["later"].sw.Number() {
			t.Errorf("the station is at %d, %v", at, ok)
		}
		for _, p := range n.ports {
			if p.from != nil {
				t.Errorf("port %s keeps what was given", p.spec.Name)
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	for limit := time.Now().Add(time.Minute); n.host.device("kept") == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the port that could not be given is not opened")
		}
	}
	for limit := time.Now().Add(time.Minute); n.host.device("closed").began.Load() == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("it does not forward")
		}
	}
	// What is at a device when the former process's programs are gone is somebody else's.
	for limit, why := time.Now().Add(time.Minute), ""; !strings.Contains(why, "another program"); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("it does not look who else has a device")
		}
		_ = n.do(func() error { why = n.ports["later"].reason; return nil })
	}
}

// Wherever the former process ends or refuses, or something cannot be taken, the next one says
// why, and leaves what both have.
func TestTakeOverFails(t *testing.T) {
	const offered, held, ready = 1, 2, 3 // how far it gets
	for name, c := range map[string]struct {
		edit  func(*formerProcess)
		host  func(*takingHost)
		rest  func(*handover.Rest)
		until int    // then the former process ends
		says  string // to the former process, in the last step
		want  string
	}{
		"it is refused":             {edit: func(f *formerProcess) { f.offer = handover.Offer{Refused: "not now"}; f.files = nil }, want: "not now"},
		"no answer":                 {edit: func(f *formerProcess) { f.Close() }, want: "broken pipe"},
		"no socket":                 {edit: func(f *formerProcess) { f.offer.Listeners = 0; f.files = f.files[1:] }, want: "vswitch former gives no control socket"},
		"no lock":                   {edit: func(f *formerProcess) { f.offer.Locks = 0; f.files = slices.Delete(f.files, 1, 2) }, want: "vswitch former gives no control socket"},
		"no state":                  {edit: func(f *formerProcess) { f.offer.State = []byte(`"x"`) }, want: "the state of vswitch former is not understood"},
		"too few files":             {edit: func(f *formerProcess) { f.files = f.files[:3] }, want: "port early is given with 2 files, and 1 came"},
		"less than no files":        {edit: func(f *formerProcess) { f.offer.Ports[0].Files = -1 }, want: "port early is given with -1 files, and 2 came"},
		"a port cannot be taken":    {host: func(h *takingHost) { h.err = errors.New("it is broken") }, until: offered, says: "port early: it is broken", want: "port early: it is broken"},
		"it ends":                   {until: offered, want: "taking the switch over"},
		"it cannot hold":            {rest: func(r *handover.Rest) { *r = handover.Rest{Error: "no hold"} }, until: held, want: "no hold"},
		"too few files later":       {rest: func(r *handover.Rest) { r.Ports[0].Files = 2 }, until: held, want: "port later is given with 2 files, and 1 came"},
		"it ends before the others": {until: ready, want: "the former process goes on"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, to := sockets(t)
			f := newFormer(t, conn)
			if c.edit != nil {
				c.edit(f)
			}
			played := make(chan struct{})
			go func() {
				defer close(played)
				defer f.Close()
				if _, err := f.Receive(new(handover.Claim)); err != nil {
					return
				}
				f.send(f.offer, f.files...)
				if c.until == 0 {
					return
				}
				if f.result(c.says); c.until == offered {
					return
				}
				rest := f.rest()
				if c.rest != nil {
					c.rest(&rest)
				}
				f.send(rest, f.file())
				if c.until == ready {
					f.result("")
				}
			}()
			n, err := takeFrom(t, to, f.path, c.host)
			if err == nil {
				err = <-n.failed
				if !n.own.left() {
					t.Error("it takes what the former process goes on with")
				}
				select {
				case <-n.restored:
					t.Error("it forwards")
				default:
				}
			}
			to.Close()
			<-played
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("it fails with %v, want %q", err, c.want)
			}
			if _, err := os.Stat(f.path); err != nil {
				t.Errorf("the former process's socket: %v", err)
			}
		})
	}
}

// What counters are on the way to another process, they are there.
func TestCountersOnTheWay(t *testing.T) {
	var st vswitch.PortStats
	st.Fast = 1
	for i, c := range []*vswitch.Counters{&st.RX, &st.TX} {
		n := uint64(10 * (i + 1))
		c.Frames, c.Bytes, c.Copies = n, n+1, n+2
		for why := port.DropNone + 1; why < port.NumDrops; why++ {
			c.Dropped[why] = n + 3 + uint64(why)
		}
	}
	if got := fromWire(toWire(st)); got != st {
		t.Errorf("%+v became %+v", st, got)
	}
}
