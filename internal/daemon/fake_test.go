package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/feature/flap"
	"github.com/vswitch/vswitch/internal/feature/loopguard"
	"github.com/vswitch/vswitch/internal/feature/mirror"
	"github.com/vswitch/vswitch/internal/feature/snoop"
	"github.com/vswitch/vswitch/internal/feature/stations"
	"github.com/vswitch/vswitch/internal/feature/stp"
	"github.com/vswitch/vswitch/internal/feature/vlan"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeHost is a host with interfaces, and a port kind that stands on them. A timer
// of the bubble orders nothing in memory, hence the lock.
type fakeHost struct {
	mu     sync.Mutex
	links  map[int]link.Link
	next   int
	events chan link.Event

	addresses map[int]netip.Prefix

	makes   bool  // Open makes an interface that is absent, as the kind tap does
	hidden  bool  // ports do not tell their Ifindex
	openErr error // what Open fails with
	linkErr error // what ByIndex fails with
	setErr  error
	wrap    func(*fakePort) port.Port // makes more of the ports that Open returns
	slow    func(call, name string)   // called by Open, Set, Delete and what asks for links, and may wait
	delErr  error

	other    error  // another switch of the name, as Claim.Take says
	claims   int    // calls of Claim.Take
	attended string // what Attended says
	own      bool   // the station behind each port is the host
	tunnel   bool   // other switches are behind each port

	strays []link.Stray

	needs  port.Needs // of each port, a queue
	queues int        // of what Open returns; 0: one

	devices map[string]*fakePort // the last device of each port
	opened  []time.Time
	sets    []string
	deleted []string
}

func newFakeHost() *fakeHost {
	return &fakeHost{
		links: make(map[int]link.Link), next: 1, events: make(chan link.Event, 64),
		devices: make(map[string]*fakePort), makes: true,
	}
}

func (h *fakeHost) Watch(ctx context.Context) (<-chan link.Event, error) { return h.events, nil }

// locked calls change while no call reads the host.
func (h *fakeHost) locked(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
}

func (h *fakeHost) wait(call, name string) {
	h.mu.Lock()
	slow := h.slow
	h.mu.Unlock()
	if slow != nil {
		slow(call, name)
	}
}

func (h *fakeHost) ByIndex(index int) (link.Link, error) {
	h.wait("ByIndex", fmt.Sprint(index))
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.linkErr != nil {
		return link.Link{}, h.linkErr
	}
	if l, ok := h.links[index]; ok {
		return l, nil
	}
	return link.Link{}, fmt.Errorf("%w: number %d", link.ErrNotFound, index)
}

func (h *fakeHost) ByName(name string) (link.Link, error) {
	h.wait("ByName", name)
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.byName(name)
}

func (h *fakeHost) IPv4(index int) (netip.Prefix, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.addresses[index], nil
}

func (h *fakeHost) Strays(string) ([]link.Stray, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.strays, nil
}

func (h *fakeHost) Made(string) ([]link.Link, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []link.Link
	for _, l := range h.links {
		if l.Alias == "vswitch sw0" {
			all = append(all, l)
		}
	}
	return all, nil
}

func (h *fakeHost) Carrier(index int) (bool, error) {
	l, err := h.ByIndex(index)
	return l.Carrier, err
}

func (h *fakeHost) Remove(l link.Link) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.links, l.Index)
	return nil
}

func (h *fakeHost) Find(spec port.Spec, trace port.Trace) (index int, is bool) {
	for _, name := range []string{trace.Ifname, spec.Name} {
		if l, err := h.ByName(name); err == nil {
			return l.Index, true
		}
	}
	return 0, false
}

func (h *fakeHost) Attended(port.Spec, port.Trace) string { return h.attended }

func (h *fakeHost) Claim(string, string) Claim { return fakeClaim{h} }

type fakeClaim struct{ *fakeHost }

func (c fakeClaim) Take() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.claims++
	return c.other
}

func (c fakeClaim) Close() error            { return nil }
func (c fakeClaim) File() (*os.File, error) { return nil, nil }
func (c fakeClaim) Receive(*os.File) error  { return nil }

func (h *fakeHost) byName(name string) (link.Link, error) {
	for _, l := range h.links {
		if l.Name == name {
			return l, nil
		}
	}
	return link.Link{}, fmt.Errorf("%w: %s", link.ErrNotFound, name)
}

// put makes an interface, or changes the one of that index, and tells the watcher.
func (h *fakeHost) put(l link.Link) link.Link {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.putLocked(l)
}

func (h *fakeHost) putLocked(l link.Link) link.Link {
	if l.Index == 0 {
		l.Index = h.next
		h.next++
	}
	h.links[l.Index] = l
	h.events <- link.Event{Link: l}
	return l
}

// remove deletes an interface and tells the watcher.
func (h *fakeHost) remove(name string) {
	l, err := h.ByName(name)
	if err != nil {
		panic(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.links, l.Index)
	h.events <- link.Event{Link: l, Gone: true}
}

// device is the last device that was opened for the port.
func (h *fakeHost) device(name string) *fakePort {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.devices[name]
}

// failOpen has Open fail from now on, or succeed again, and returns when it was
// called until now.
func (h *fakeHost) failOpen(err error) []time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	opened := h.opened
	h.openErr, h.opened = err, nil
	return opened
}

func (h *fakeHost) Name() string { return "fake" }

// fakeSettings are those of ports of the kind fake.
type fakeSettings struct {
	MTU   int    `json:"mtu,omitempty" arg:"BYTES" help:"longest payload"`
	Owner string `json:"owner,omitempty" arg:"USER" help:"who may open the device"`
	Mode  string `json:"mode,omitempty" arg:"WORD" fixed:"true" help:"chosen when the device is made"`
}

func (h *fakeHost) Describe() port.Description {
	return port.Description{Help: "a device that is not there", Settings: fakeSettings{}, Station: true, Own: h.own, Tunnel: h.tunnel}
}

func (h *fakeHost) Check(spec port.Spec) error {
	if port.SettingsOf[fakeSettings](spec).Owner != "" {
		return errors.New("ports of the kind fake have no owner; leave --owner out")
	}
	return nil
}

func (h *fakeHost) Open(spec port.Spec, trace *port.Trace) (port.Port, error) {
	h.wait("Open", spec.Name)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.opened = append(h.opened, time.Now())
	if h.openErr != nil {
		return nil, h.openErr
	}
	name := spec.Name
	if trace.Ifname != "" {
		name = trace.Ifname
	}
	l, err := h.byName(name)
	switch {
	case err == nil && !trace.Created && trace.Before == nil:
		trace.Before = &port.DeviceSettings{Up: l.Up, MTU: l.MTU}
	case err != nil && !h.makes:
		return nil, fmt.Errorf("no interface %s (%w)", spec.Name, port.ErrGone)
	case err != nil:
		l = h.putLocked(link.Link{Name: spec.Name, MTU: 1500, Up: true})
		trace.Created = true
	}
	p := &fakePort{ended: make(chan struct{}), index: l.Index, queues: max(h.queues, 1)}
	if h.hidden {
		p.index = 0
	}
	h.devices[spec.Name] = p
	if h.wrap != nil {
		return h.wrap(p), nil
	}
	return p, nil
}

func (h *fakeHost) Needs(_ port.Spec, queues int) port.Needs {
	n := max(queues, 1)
	return port.Needs{Threads: n * h.needs.Threads, Files: n * h.needs.Files, Memory: n * h.needs.Memory}
}

func (h *fakeHost) Set(_ port.Port, from, to port.Spec) error {
	h.wait("Set", from.Name)
	if h.setErr != nil {
		return h.setErr
	}
	h.sets = append(h.sets, fmt.Sprintf("mtu %d to %d", port.SettingsOf[fakeSettings](from).MTU, port.SettingsOf[fakeSettings](to).MTU))
	return nil
}

func (h *fakeHost) Delete(spec port.Spec, trace port.Trace) error {
	h.wait("Delete", spec.Name)
	h.deleted = append(h.deleted, fmt.Sprintf("%s created=%v", spec.Name, trace.Created))
	return h.delErr
}

// fakePort is a device without frames.
type fakePort struct {
	once  sync.Once
	ended chan struct{}
	err   error
	index int

	queues int

	began atomic.Pointer[time.Time] // of the first Recv
}

func (p *fakePort) end(err error)        { p.once.Do(func() { p.err = err; close(p.ended) }) }
func (p *fakePort) Close() error         { p.end(port.ErrClosed); return nil }
func (p *fakePort) Queues() []port.Queue { return slices.Repeat([]port.Queue{p}, p.queues) }
func (p *fakePort) Caps() port.Caps      { return port.CapsNone }
func (p *fakePort) Ifindex() int         { return p.index }
func (p *fakePort) Release()             {}
func (p *fakePort) Send([]port.Out)      {}
func (p *fakePort) Recv([]port.Frame) (int, error) {
	now := time.Now()
	p.began.CompareAndSwap(nil, &now)
	<-p.ended
	return 0, p.err
}
func (p *fakePort) closed() bool {
	select {
	case <-p.ended:
		return errors.Is(p.err, port.ErrClosed)
	default:
		return false
	}
}

// rig is a manager on a fake host, with its disk and its log.
type rig struct {
	*manager
	t     *testing.T
	host  *fakeHost
	disk  *fakeDisk
	lines *testenv.Log
	stop  func()
}

// fakeDisk is where a manager keeps its state. Its writer does not wait for the test, nor the test for it.
type fakeDisk struct {
	mu    sync.Mutex
	kept  store.State
	ended int           // writes
	err   error         // what the next ones end with
	stall chan struct{} // not nil: they wait until it is closed
}

func (d *fakeDisk) write(st store.State) error {
	d.mu.Lock()
	stall := d.stall
	d.mu.Unlock()
	if stall != nil {
		<-stall
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended++; d.err == nil {
		d.kept = st
	}
	return d.err
}

func (d *fakeDisk) state() store.State {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.kept
}

func (d *fakeDisk) writes() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ended
}

// fail has writes fail, or not if err is nil.
func (d *fakeDisk) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

// hold has writes wait until stall is closed, or not if it is nil.
func (d *fakeDisk) hold(stall chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stall = stall
}

// start runs a manager in the test's bubble until the test or stop ends it.
func start(t *testing.T, host *fakeHost, saved store.State) *rig {
	return startWith(t, host, saved, func(*Options) {})
}

func startWith(t *testing.T, host *fakeHost, saved store.State, edit func(*Options)) *rig {
	r := &rig{t: t, host: host, disk: &fakeDisk{kept: saved}, lines: new(testenv.Log)}
	noTime := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	log := slog.New(slog.NewTextHandler(r.lines, &slog.HandlerOptions{ReplaceAttr: noTime}))
	o := Options{Name: "sw0", Aging: 300 * time.Second, Kinds: port.Kinds{host}, Links: host, Log: log}
	o.Features = slices.Clone(testFeatures)
	o.settings, o.kept = noSettings(o.Features), noSettings(o.Features)
	edit(&o)
	o.sections = saved.Sections
	var journal *store.Journal
	if o.StateDir != "" {
		journal = store.OpenJournal(o.StateDir)
	}
	var err error
	r.manager, err = newManager(o, r.disk.write, journal)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.run(ctx, saved, host.events) }()
	<-r.restored
	r.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(r.stop)
	synctest.Wait()
	return r
}

var testFeatures = []feature.Feature{stations.Feature, vlan.Feature, stp.Feature, snoop.Feature, flap.Feature, loopguard.Feature, mirror.Feature}

// withPort is a spec with more settings, as JSON.
func withPort(s port.Spec, text string) port.Spec {
	var p setting.Patch
	err := json.Unmarshal([]byte(text), &p)
	if err == nil {
		s, err = Catalog(port.Kinds{wires{"tap", nil}, wires{"netdev", nil}}, testFeatures).Merge(s, p)
	}
	if err != nil {
		panic(err)
	}
	return s
}

// withSettings has the switch start with settings of its own, as JSON.
func withSettings(text string) func(*Options) {
	return func(o *Options) {
		var p setting.Patch
		err := json.Unmarshal([]byte(text), &p)
		if err == nil {
			o.settings, err = o.settings.merge(p)
		}
		if err != nil {
			panic(err)
		}
	}
}

// call calls the API, with a body and for an answer unless these are nil.
func (r *rig) call(method, path string, body, answer any) error {
	var b []byte
	if body != nil {
		b, _ = json.Marshal(body)
	}
	w := httptest.NewRecorder()
	r.handler().ServeHTTP(w, httptest.NewRequest(method, path, bytes.NewReader(b)))
	if w.Code >= 300 {
		e := new(api.Error)
		if err := json.Unmarshal(w.Body.Bytes(), e); err != nil {
			return err
		}
		return e
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(w.Body.Bytes(), answer)
}

// running returns the instance of a feature; nil if it is off.
func (r *rig) running(name string) feature.Instance {
	for _, h := range r.hosted {
		if h.Name == name {
			return h.instance
		}
	}
	return nil
}

// savedEntry is an FDB entry as the state has it.
type savedEntry struct {
	MAC    port.MAC `json:"mac"`
	VLAN   uint16   `json:"vlan"`
	Port   string   `json:"port"`
	Sticky bool     `json:"sticky,omitempty"`
}

// withFDB returns a state with more FDB entries.
func withFDB(st store.State, entries ...savedEntry) store.State {
	b, _ := json.Marshal(entries)
	st.Sections = map[string]json.RawMessage{"fdb": b}
	return st
}

// fdb returns the FDB entries on disk.
func fdbOf(st store.State) (entries []savedEntry) {
	_ = json.Unmarshal(st.Sections["fdb"], &entries)
	return entries
}

func (r *rig) addFDB(req api.AddFDB) (e api.FDBEntry, err error) {
	err = r.call("POST", "/v1/fdb", req, &e)
	return e, err
}

func (r *rig) delFDB(mac port.MAC, vlan uint16) error {
	path := "/v1/fdb/" + mac.String()
	if vlan != 0 {
		path += fmt.Sprint("?vlan=", vlan)
	}
	return r.call("DELETE", path, nil, nil)
}

func (r *rig) flushFDB(req api.FlushFDB) int {
	var f api.Flushed
	if err := r.call("POST", "/v1/fdb/flush", req, &f); err != nil {
		r.t.Fatal(err)
	}
	return f.Flushed
}

func (r *rig) listFDB() (all []api.FDBEntry) {
	if err := r.call("GET", "/v1/fdb", nil, &all); err != nil {
		r.t.Fatal(err)
	}
	return all
}

// logged returns the log since the last call.
func (r *rig) logged() string {
	synctest.Wait()
	_ = r.do(func() error { return nil }) // after what others have logged
	return r.lines.Take()
}

func (r *rig) add(name string) error { return r.addReq(wanted(spec(name))) }

// wanted is what a client asks for that wants a port as s says.
func wanted(s port.Spec) api.AddPort {
	a := api.AddPort{Name: s.Name, Kind: s.Kind, Settings: api.Settings{}}
	for key, text := range s.Patch() {
		a.Settings[key] = text
	}
	return a
}

func noWait(a api.AddPort) api.AddPort {
	a.NoWait = true
	return a
}

// sent is v as the server reads it of a request.
func sent[T any](t *testing.T, v any) (to T) {
	t.Helper()
	b, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(b, &to)
	}
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func (r *rig) addReq(req api.AddPort) error {
	_, err := ask(r.manager, func() (api.Port, error) { return r.addPort(sent[addPort](r.t, req)) })
	synctest.Wait()
	return err
}

func (r *rig) mustAdd(name string) {
	r.t.Helper()
	if err := r.add(name); err != nil {
		r.t.Fatal(err)
	}
}

func spec(name string) port.Spec { return port.Spec{Name: name, Kind: "fake"} }

// spec returns what was asked of the port.
func (r *rig) spec(name string) (s port.Spec) {
	r.t.Helper()
	if err := r.do(func() error { s = r.ports[name].spec; return nil }); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// kept returns what is on disk of the first port.
func (r *rig) kept() port.Spec {
	r.t.Helper()
	k := r.disk.state().Ports[0].Spec
	s, err := r.kinds.Spec(k.Name, k.Kind, k.Settings)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func mtuOf(s port.Spec) int { return port.SettingsOf[fakeSettings](s).MTU }

// saved is a spec as the state has it.
func saved(s port.Spec) store.Spec {
	return store.Spec{Name: s.Name, Kind: s.Kind, Settings: s.Patch()}
}

// port returns the port as users see it.
func (r *rig) port(name string) api.Port {
	r.t.Helper()
	synctest.Wait()
	p, err := ask(r.manager, func() (api.Port, error) {
		p, err := r.find(name)
		if err != nil {
			return api.Port{}, err
		}
		return r.describe(p), nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

func (r *rig) wantState(name string, want api.State) {
	r.t.Helper()
	if p := r.port(name); p.State != want {
		r.t.Fatalf("port %s is %s (%s), want %s; log:\n%s", name, p.State, p.Reason, want, r.lines)
	}
}

// change edits the interface of that name.
func (r *rig) change(name string, edit func(*link.Link)) {
	l, err := r.host.ByName(name)
	if err != nil {
		r.t.Fatal(err)
	}
	edit(&l)
	r.host.put(l)
	synctest.Wait()
}

func wantCode(t *testing.T, err error, code, text string) {
	t.Helper()
	var e *api.Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Message, text) {
		t.Fatalf("got error %v, want code %s with %q", err, code, text)
	}
}
