package daemon

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/daemon/store"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/handover"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// manager makes the running switch match the desired state. Whoever has the turn owns its fields:
// every method except do, change, onEvent and handler is called with the turn.
type manager struct {
	turns
	name, version, revision, stateDir, socketDir string

	kinds   port.Catalog
	links   Links
	strays  *strayList    // interfaces of the switch in other network namespaces
	claimed Claim         // on the interfaces, taken with the first port that stands on one
	saver   *store.Writer // nil: the state is not kept
	log     *slog.Logger
	aging   time.Duration

	settings switchSettings // in force
	kept     switchSettings // without the overrides of this run: what a restart finds

	hosted    []*hosted
	heedMoves atomic.Pointer[[]feature.Moved]    // features that receive moves
	observers atomic.Pointer[[]feature.Observed] // features that hear of events

	sw    *vswitch.Switch
	start time.Time
	mac   port.MAC // the switch's own address
	ids   *identity
	seen  ownAddress

	fast    FastPath // nil: none
	fastOff string   // why there is no fast path

	service Service
	stored  []Stored // what the service manager has kept, until the ports have it
	sandbox []string // see Options.Sandbox

	groupForward uint16 // see vswitch.Switch.SetGroupForward

	recovery time.Duration // of ports that a guard shut down; 0: never

	ports   map[string]*managed
	devices map[int]*managed          // ports by interface index
	uppers  map[int]map[int]link.Link // interfaces stacked on the one with that index, by their own
	boot    string                    // identifies this boot of the host

	limits reading
	space  limitReading // nil: unlimited
	memory limitReading // nil: unlimited
	left   limitReading // of memory, with what is used; nil: unlimited
	room   room

	journal *store.Journal // nil: the state is not kept; see orphans.go

	applied  map[string]bool // items that a configuration named, by portMark and the like
	pending  *pendingChange  // nil: none
	expire   *time.Timer     // of pending
	history  []pastChange    // oldest first
	applying atomic.Bool     // a configuration is being planned or applied

	own      *belongings
	how      handover.Hello // how the process was started
	replaced chan struct{}  // closed when another process has the switch
	former   *former        // the process that this one is about to replace; nil: none
	handing  atomic.Bool    // the switch is being handed over
	taking   atomic.Bool    // and this is the one that takes it

	// Of the turn in which the switch is handed over.
	held  time.Time                    // since when no frame is forwarded
	stats map[string]vswitch.PortStats // by port, at that time
	given map[string]port.Port         // what the next process has already

	restored chan struct{} // closed when the ports of the state are open, or take too long
	changing chan struct{} // has a value while a command changes the desired state
	saved    time.Time     // when the state was written last without a user who waits
	resave   time.Time     // when to write the state again; zero: never
	midway   bool          // a command makes a change: what holds now must not be written
	whole    *store.State  // given to the writer last, without half of a change; nil: none yet
	owed     time.Time     // when to write once it has ended; zero: never
	unkept   bool          // the last background write failed

	generation atomic.Uint64 // how often the desired state was changed

	durations durations // of calls of the API
	saves     duration  // of writes of the state
}

func newManager(o Options, keep func(store.State) error, journal *store.Journal) (*manager, error) {
	m := &manager{
		name: o.Name, version: o.Version, revision: o.Revision, stateDir: o.StateDir, socketDir: o.SocketDir,
		links:   o.Links,
		strays:  &strayList{list: func() ([]link.Stray, error) { return o.Links.Strays(o.Name) }},
		claimed: o.Links.Claim(o.Name, o.Socket),
		log:     o.Log,
		aging:   o.Aging,

		settings: o.settings, kept: o.kept,

		start: time.Now(),
		ids:   o.ids,

		fast:    o.FastPath,
		fastOff: o.FastPathOff,

		service: o.Service,
		stored:  o.Stored,
		sandbox: o.Sandbox,

		recovery: o.Recovery,

		groupForward: o.GroupForward,

		ports:   make(map[string]*managed),
		devices: make(map[int]*managed),
		uppers:  make(map[int]map[int]link.Link),
		boot:    bootID(),

		journal: journal,

		applied: make(map[string]bool),

		limits:   o.limits,
		space:    o.space,
		memory:   o.memory,
		left:     o.left,
		turns:    newTurns(),
		changing: make(chan struct{}, 1),
		restored: make(chan struct{}),

		own: o.own, how: o.How, former: o.former,
		replaced: make(chan struct{}),
	}
	if keep != nil {
		timed := func(st store.State) error {
			defer m.saves.since(time.Now())
			for _, p := range st.Leaving {
				journal.Note(p)
			}
			err := keep(st)
			if err == nil {
				journal.Settle(st)
			}
			return err
		}
		m.saver = store.NewWriter(timed, func(err error) {
			go m.do(func() error { m.traceKept(err); return nil })
		})
	}
	if m.service == nil {
		m.service = noService{}
	}
	if m.limits == nil {
		m.limits = systemLimits
	}
	if m.ids == nil {
		m.ids = newIdentity()
	}
	m.mac = m.ids.switchMAC()
	m.kinds = o.catalog()
	for i, k := range m.kinds.Kinds {
		m.kinds.Kinds[i] = &oneAtATime{Kind: k}
	}
	cfg := vswitch.Config{
		FDB:       fdb.Config{Capacity: o.FDBSize, Aging: tableAging(o.Aging)},
		OnEvent:   m.onEvent,
		OnControl: m.onControl,
		Losses:    o.Losses,
		Held:      true, // until openRestored
	}
	if o.FastPath != nil {
		cfg.FastPath = o.FastPath
	}
	m.sw = vswitch.New(cfg)
	m.sw.SetGroupForward(o.GroupForward)
	for _, f := range o.Features {
		m.hosted = append(m.hosted, &hosted{Feature: f, kept: o.sections[keyOf(&f)]})
	}
	m.shareMoves()
	m.shareObservers()
	off := noSettings(o.Features).features
	if m.settings.features == nil {
		m.settings.features, m.kept.features = off, off
	}
	if m.former != nil {
		m.taking.Store(true)
		if f := m.former.claim; f != nil {
			if err := m.claimed.Receive(f); err != nil {
				return nil, err
			}
		}
		return m, nil // the former process has the features
	}
	if err := m.setFeatures(off, m.settings.features); err != nil {
		m.stopFeatures()
		return nil, errors.Join(err, m.sw.Close())
	}
	return m, nil
}

// tableAging converts the user's "0: never" to the table's value.
func tableAging(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// run restores the saved ports, then handles changes and events until ctx ends. It leaves the
// devices as they are for the next start.
func (m *manager) run(ctx context.Context, saved store.State, events <-chan link.Event) {
	if m.saver != nil {
		go m.saver.Run()
		defer func() {
			if m.own.left() {
				return
			}
			if !m.saver.Stop(lastSaveWait) {
				m.log.Error("the state is not written: the disk does not answer", "state_dir", m.stateDir)
			}
		}()
	}
	defer func() {
		if !m.own.left() {
			m.claimed.Close()
		}
	}()
	m.restore(saved)
	m.adoptStored(m.stored)
	if f := m.former; f != nil {
		go func() {
			if err := m.takeOver(f); err != nil {
				f.failed <- err
			}
		}()
	} else {
		m.openRestored()
	}
	events = m.watchOn(ctx, events)
	retry := time.NewTimer(0)
	defer retry.Stop()
	defer func() {
		if !m.own.left() {
			m.endFeatures()
			m.saveLast() // while they have their states
			m.stopFeatures()
		}
	}()
	m.loadHistory()
	m.armPending()
	defer func() {
		if m.expire != nil {
			m.expire.Stop()
		}
	}()
	// The loop itself says that it is alive, so a turn that does not end is noticed.
	var alive <-chan time.Time
	if d := m.service.Watchdog(); d > 0 {
		alive = time.Tick(d / 2)
	}
	for {
		retry.Reset(m.nextRetry())
		select {
		case <-ctx.Done():
			if m.own.left() {
				close(m.ended)
				return
			}
			m.emit(api.Event{Type: api.EventDaemonStopping})
			close(m.ended)
			for i := range instances[feature.Parting](m) {
				i.Part()
			}
			if m.fast != nil {
				m.fast.Stop() // before the ports close: it must outlive them
			}
			m.sw.Hold(drainWait)
			if err := m.sw.Leave(); err != nil {
				m.log.Warn("closing the ports", "error", err)
			}
			if m.saver == nil {
				m.removeFiles()
			}
			return
		case m.next <- struct{}{}:
			<-m.back
		case ev := <-events:
			if ev.Err != nil {
				m.followAll()
				continue
			}
			m.linkChanged(ev)
		case <-retry.C:
			m.retryDue()
		case <-alive:
			m.service.Send("WATCHDOG=1")
		}
	}
}

// removeFiles removes the files, such as sockets, of ports without a device, where no other
// process will take them over. Devices stay: machines hold them.
func (m *manager) removeFiles() {
	for _, p := range m.ports {
		if _, ok := p.dev.(port.Device); ok || p.dev == nil {
			continue
		}
		if err := p.kind.Delete(p.spec, p.trace); err != nil {
			m.log.Warn("removing what a port left", "port", p.spec.Name, "error", err)
		}
	}
	if m.socketDir != "" {
		_ = os.Remove(m.socketDir) // succeeds only if it is empty
	}
}

// The switch calls onEvent from its own goroutine.
func (m *manager) onEvent(ev vswitch.Event) {
	switch ev := ev.(type) {
	case vswitch.MACMoved:
		for _, f := range *m.heedMoves.Load() {
			f.Moved(ev)
		}
	case vswitch.OwnAddress:
		m.ownAddressSeen(ev.Port, ev.VLAN)
	case vswitch.StormHit:
		_ = m.do(func() error { m.stormHit(ev); return nil })
	case vswitch.LimitHit:
		_ = m.do(func() error { m.limitHit(ev); return nil })
	case vswitch.PortLost:
		// On a goroutine of its own: it waits for the device, and other events must not.
		go m.do(func() error { m.portLost(ev); return nil })
	}
}

// restore starts the saved ports. One that cannot start waits, so that the state on disk never
// loses a requested port.
func (m *manager) restore(saved store.State) {
	for _, what := range saved.Applied {
		m.applied[what] = true
	}
	m.pending, _ = pendingFrom(saved.Pending) // known has read it
	for _, s := range saved.Ports {
		m.restorePort(s)
	}
	for _, e := range m.journal.Entries() {
		if p := m.ports[e.Spec.Name]; p != nil {
			if p.begun = &e; p.spec.Kind == e.Spec.Kind {
				p.trace = e.Trace // it is never behind the state
			}
		}
	}
}

// restoreWait is how long calls of the API, and the fast path, wait for ports of the state to
// be open. A device or a socket may take any time to answer.
const restoreWait = 10 * time.Second

// stallWait is how long the frames of open ports wait for the next port of the state to be open.
// They wait in the kernel, so that the ports they are for are there when the switch takes them.
const stallWait = time.Second

// drainWait is how long a stop waits until the frames that ports took are sent. A shaped port
// sends the last one after a fifth of a second.
const drainWait = 250 * time.Millisecond

// openRestored opens the ports of the state. The ports of a kind are opened one after another,
// in the order of their numbers, and meanwhile the switch runs. None forwards before all are
// open, or one takes too long.
func (m *manager) openRestored() {
	var opening sync.WaitGroup
	next := make(chan struct{}, 1) // has a value after a port was opened
	for _, ports := range m.byKind() {
		opening.Go(func() {
			for _, p := range ports {
				_ = m.do(func() error { m.openFirst(p); return nil })
				select {
				case next <- struct{}{}:
				default:
				}
			}
		})
	}
	opened := make(chan struct{})
	go func() { opening.Wait(); close(opened) }()
	go func() {
		m.awaitOpened(opened, next)
		_ = m.do(func() error {
			if m.fast != nil {
				m.fast.Start()
			}
			m.sw.Resume()
			if len(m.ports) > 0 {
				m.saveTrace()
			}
			m.emit(api.Event{Type: api.EventDaemonStarted, Reason: m.version})
			return nil
		})
		if m.stateDir != "" { // else it does not know what ports there were
			m.finish() // before there are calls, which make devices
			m.removeOrphans()
		}
		close(m.restored)
	}()
}

// byKind returns the ports of each kind in the order of their numbers.
func (m *manager) byKind() map[string][]*managed {
	kinds := make(map[string][]*managed)
	for _, p := range m.sorted() {
		kinds[p.spec.Kind] = append(kinds[p.spec.Kind], p)
	}
	return kinds
}

// awaitOpened returns when all ports of the state are open, or take too long. If none was opened
// for a while, the others forward already.
func (m *manager) awaitOpened(opened, next <-chan struct{}) {
	stalled, late := time.NewTimer(stallWait), time.NewTimer(restoreWait)
	defer stalled.Stop()
	defer late.Stop()
	for {
		select {
		case <-opened:
			return
		case <-m.ended:
			return
		case <-late.C:
			return
		case <-next:
			stalled.Reset(stallWait)
		case <-stalled.C:
			m.sw.Resume()
		}
	}
}

// openFirst opens a port of the state, unless an event or a command was faster.
func (m *manager) openFirst(p *managed) {
	m.claim(p)
	defer p.release()
	if m.ports[p.spec.Name] != p {
		return
	}
	if p.dev == nil {
		m.tryOpen(p)
	}
}

// restorePort adds a port as the state has it, which is not open yet; nil: the switch is full. One
// whose settings cannot be applied passes nothing.
func (m *manager) restorePort(s store.Port) *managed {
	sp, err := m.sw.AddPort(s.Spec.Name)
	if err != nil {
		m.log.Error("restoring a port", "port", s.Spec.Name, "error", err)
		return nil
	}
	p := &managed{trace: s.Trace, kind: m.kinds.Find(s.Spec.Kind), sw: sp}
	m.ports[s.Spec.Name] = p
	if p.spec, err = m.kinds.Read(s.Spec.Name, s.Spec.Kind, s.Spec.Settings); err == nil {
		if err = p.spec.CheckCommon(); err == nil {
			err = m.putInForce(p)
		}
	}
	if err != nil {
		p.unfit = &unfit{
			why:      "its settings cannot be put in force: " + err.Error() + "; change them with set-port",
			settings: s.Spec.Settings,
			openable: p.spec.Kind != "",
		}
		p.spec.Name, p.spec.Kind = s.Spec.Name, s.Spec.Kind
		if p.kind == nil { // the settings may be right for it
			p.unfit.why = p.unknownKind().Error()
		}
		sp.SetForwarding(false)
		m.log.Error("a port is shut", "port", s.Spec.Name, "reason", p.unfit.why)
	}
	m.configured(p)
	return p
}

// sorted returns the ports by number.
func (m *manager) sorted() []*managed {
	return slices.SortedFunc(maps.Values(m.ports), byNumber)
}

func byNumber(a, b *managed) int { return cmp.Compare(a.sw.Number(), b.sw.Number()) }

// find returns the port with that name.
func (m *manager) find(name string) (*managed, error) {
	if p := m.ports[name]; p != nil {
		return p, nil
	}
	return nil, feature.NoPort(name)
}

func (m *manager) addPort(req addPort) (api.Port, error) {
	if err := port.CheckName(req.Name); err != nil {
		return api.Port{}, fail(api.CodeInvalid, "%w", err)
	}
	if p := m.ports[req.Name]; p != nil && req.MayExist {
		return m.existing(p, req)
	} else if p != nil {
		return api.Port{}, fail(api.CodeExists, "port %s exists; change it with set-port, or remove it first with del-port", req.Name)
	}
	kind := m.kinds.Find(req.Kind)
	if kind == nil {
		return api.Port{}, fail(api.CodeInvalid, "there is no port kind %q; use one of %s", req.Kind,
			strings.Join(m.kinds.Names(), ", "))
	}
	spec, err := m.kinds.Spec(req.Name, req.Kind, req.settings)
	if err != nil {
		return api.Port{}, fail(api.CodeInvalid, "%w", err)
	}
	p, opened, err := m.bring(spec, kind, req.NoWait)
	if err != nil {
		return api.Port{}, err
	}
	defer p.release() // until it is kept, events of its device do not count
	m.ports[spec.Name] = p
	if err := m.save(); err != nil {
		delete(m.ports, spec.Name)
		m.drop(p)
		var left error
		m.off(func() { left = m.remove(p) })
		if err := left; err != nil {
			m.log.Error("removing the device of a port that could not be kept", "port", spec.Name, "error", err)
		}
		return api.Port{}, fail(api.CodeFailed, "%w", err)
	}
	m.arrived(p, opened)
	return m.describe(p), nil
}

// bring makes a port and opens it. The port is claimed, and not yet among the ports. With
// noWait its device may be absent; opened then says so.
func (m *manager) bring(spec port.Spec, kind port.Kind, noWait bool) (p *managed, opened, err error) {
	sp, err := m.sw.AddPort(spec.Name)
	if err != nil {
		return nil, nil, fail(api.CodeFailed, "%w", err)
	}
	p = &managed{spec: spec, kind: kind, sw: sp}
	if err := m.putInForce(p); err != nil {
		m.drop(p)
		return nil, nil, fail(api.CodeInvalid, "%w", err)
	}
	m.configured(p)
	m.claim(p)
	opened = m.open(p)
	if opened != nil && !(noWait && errors.Is(opened, port.ErrGone)) {
		m.off(func() { m.journal.Remove(spec.Name) })
		m.drop(p)
		return nil, nil, failOpen(opened)
	}
	if opened == nil && !noWait {
		if why := m.takenBy(p); why != "" {
			m.drop(p)
			m.off(func() { err = m.remove(p) })
			return nil, nil, failOpen(errors.Join(errors.New(why), err))
		}
	}
	return p, opened, nil
}

// arrived finds the state of a port that was brought and is among the ports now.
func (m *manager) arrived(p *managed, opened error) {
	p.changed = true // an event may have come meanwhile
	m.emit(api.Event{Type: api.EventPortAdded, Port: p.spec.Name})
	switch {
	case p.state != "": // a guard or its peer was faster
	case opened != nil:
		m.wait(p, opened)
	default:
		m.reconcile(p)
	}
}

func (m *manager) setPort(name string, req setting.Patch) (api.Port, error) {
	p, err := m.find(name)
	if err != nil {
		return api.Port{}, err
	}
	if p.kind == nil {
		return api.Port{}, fail(api.CodeInvalid, "%w", p.unknownKind())
	}
	if len(req) == 0 && p.shutBy == "" {
		return api.Port{}, fail(api.CodeInvalid, "nothing to change; give at least one flag, see `vswitch set-port --help`")
	}
	from, was := p.spec, p.unfit
	to, err := m.merged(p, req)
	if err != nil {
		return api.Port{}, fail(api.CodeInvalid, "%w", err)
	}
	free := m.takenBy(p) == ""
	if err := m.respec(p, to); err != nil {
		return api.Port{}, fail(api.CodeFailed, "%w", err)
	}
	if why := m.takenBy(p); p.dev != nil && free && why != "" {
		return api.Port{}, failOpen(errors.Join(errors.New(why), m.respec(p, from)))
	}
	if err := m.save(); err != nil {
		if err := m.respec(p, from); err != nil {
			m.log.Error("taking back a change that could not be kept", "port", name, "error", err)
		}
		p.unfit = was // respec has not reconciled it, so the port passed nothing
		return api.Port{}, fail(api.CodeFailed, "%w", err)
	}
	m.log.Info("port changed", "port", name)
	if len(req) > 0 {
		m.emit(api.Event{Type: api.EventPortChanged, Port: name, Keys: req.Keys()})
	}
	m.resume(p)
	return m.describe(p), nil
}

// resume brings back a port that has new settings, if a guard has shut it or its device was
// absent.
func (m *manager) resume(p *managed) {
	m.recoverPort(p)
	m.claim(p)
	defer p.release()
	if p.dev != nil {
		m.follow(p)
	} else if m.tryOpen(p) {
		m.saveTrace()
	}
}

// merged returns the port's spec with req merged in.
func (m *manager) merged(p *managed, req setting.Patch) (port.Spec, error) {
	if p.unfit == nil {
		return m.kinds.Merge(p.spec, req)
	}
	all := setting.Patch{}
	all.Add(p.unfit.settings)
	all.Add(req)
	return m.kinds.Spec(p.spec.Name, p.spec.Kind, all)
}

// respec changes a port to another spec; on error the port is unchanged.
func (m *manager) respec(p *managed, to port.Spec) (err error) {
	m.claim(p)
	defer p.release()
	from, had := p.spec, p.needs
	if err := m.shapeRoom(p, to); err != nil {
		return err
	}
	defer func() {
		if err != nil && p.dev != nil {
			m.count(p, had)
		}
	}()
	if err := m.setDevice(p, from, to); err != nil {
		return err
	}
	p.spec = to
	if err := m.putInForce(p); err != nil {
		p.spec = from
		return errors.Join(err, m.setDevice(p, to, from))
	}
	p.unfit = nil
	m.configured(p)
	return nil
}

// setDevice changes the port's device, if it has one, from one spec to another.
func (m *manager) setDevice(p *managed, from, to port.Spec) (err error) {
	dev := p.dev
	if dev == nil {
		return nil
	}
	held := ""
	begun := p.aimAt(to)
	m.off(func() {
		m.journal.NoteSpec(begun)
		if err = p.kind.Set(dev, from, to); err == nil {
			if seen := m.see(dev); seen.err == nil {
				held = seen.held
			}
		}
	})
	if err != nil {
		p.aimAt(from)
		m.correct(p)
	}
	switch {
	case p.dev != dev:
		return nil // the device was lost meanwhile; the next one is opened with the new spec
	case err == nil:
		m.retrace(p)
		p.held = held // an exclusive port does not share its device with the host
	}
	return err
}

// delPort removes a port. While its machine is attached, it refuses unless forced.
func (m *manager) delPort(name string, force bool) error {
	p, err := m.find(name)
	if err != nil {
		return err
	}
	if who := m.attendedBy(p); who != "" && !force {
		return fail(api.CodeInUse, "port %s is in use: %s; stop the machine first, or remove the port all the same with --force", name, who)
	}
	// Write to disk first: if that fails, the port must be unchanged, and a device that was
	// removed cannot be restored under a running VM.
	p.leaving = true
	if err := m.save(); err != nil {
		p.leaving = false
		return fail(api.CodeFailed, "%w", err)
	}
	return m.takeOut(p)
}

// takeOut removes a port and its device. An error says that the device could not be put back.
func (m *manager) takeOut(p *managed) (err error) {
	name := p.spec.Name
	m.claim(p)
	defer p.release()
	delete(m.ports, name)
	m.drop(p)
	m.log.Info("port removed", "port", name)
	m.emit(api.Event{Type: api.EventPortRemoved, Port: name})
	if p.kind == nil {
		m.off(func() { m.journal.Remove(name) })
		return nil
	}
	m.off(func() { err = m.remove(p) })
	m.returnElsewhere(p)
	if err != nil {
		return fail(api.CodeFailed, "port %s is removed, but its device could not be put back: %w", name, err)
	}
	return nil
}

// remove undoes what a port has left on the host, once the switch does not have it.
func (m *manager) remove(p *managed) error {
	m.journal.Note(p.saved())
	err := p.kind.Delete(p.spec, p.trace)
	m.journal.Remove(p.spec.Name)
	return err
}

// drop removes the port from the switch.
func (m *manager) drop(p *managed) {
	if p.unwatch != nil {
		p.unwatch()
	}
	m.unindex(p)
	m.unkeep(p)
	m.removed(p)
	defer m.free(p)
	m.ids.release(p.spec.Name)
	var err error
	m.off(func() { err = m.sw.RemovePort(p.spec.Name) })
	if err != nil {
		m.log.Warn("closing a port", "port", p.spec.Name, "error", err)
	}
}

// fail returns an error for the user, on one line even if it joins several.
func fail(code, format string, args ...any) error {
	return api.Errorf(code, format, args...)
}

func failOpen(err error) error {
	if errors.Is(err, port.ErrGone) {
		return fail(api.CodeGone, "%w", err)
	}
	return fail(api.CodeFailed, "%w", err)
}
