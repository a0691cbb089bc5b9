// Package fastpath forwards known unicast, and floods broadcast and groups, between network devices in the kernel. tcx
// programs on the devices (bpf/fastpath.c) read tables that a Path keeps consistent with
// the switch's. Only cmd/vswitch makes a Path; the switch and the port kinds use it
// through small interfaces of their own, and work without it. All methods are safe for
// concurrent use; those that concern devices act on the calling thread's network
// namespace. No frame is lost or duplicated when a Path starts, changes or stops.
package fastpath

import (
	"errors"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/fdb"
	vswitch "github.com/vswitch/vswitch/switch"
)

// The generator's version is fixed, so that the same source always makes the same file.
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel,bpfeb -type port -type station -type counters -type hash -type bucket -type listeners -type aggregate -type sender -type binding -type prefix -type guard -type copies -type sampling -type path -type origin -type remote_key -type remote -type tunnel -type end -type shortcut -type trail bpf bpf/fastpath.c -- -Wall -Werror -mcpu=v3

// Options configure a Path.
type Options struct {
	// Name is the switch's name. With Pin, the programs and tables outlive the process
	// under that name: known traffic continues, and the next Path takes them over.
	Name string
	Pin  bool

	// Lock is the lock of the pins, which another process gave; nil: Open takes it.
	Lock *os.File

	Capacity int // of the FDB
	Log      *slog.Logger
}

// Path is the fast path of one switch. It implements vswitch.FastPath.
type Path struct {
	bpf      bpfMaps
	programs programs
	pins     *pins // nil: nothing outlives the process
	log      *slog.Logger

	table   *fdb.Table
	known   stations      // the kernel's table
	changed chan fdb.Key  // stations to mirror
	all     chan struct{} // reconcile every station: changed was full
	settle  chan chan<- struct{}
	refresh chan chan<- struct{}
	suspend chan chan<- struct{}
	resume  chan struct{}
	stop    chan struct{}
	running sync.WaitGroup
	live    atomic.Bool // between Start and Stop
	show    func(*vswitch.FastCopy)
	takes   func(number uint16) bool // see TakeFloods

	mu        sync.Mutex
	attached  map[int]bool       // devices with a pinned link of ours
	shared    map[int]bool       // devices that the host shares
	published []vswitch.FastPort // by the switch
	flood     vswitch.FastFlood
	floods    floods
	groups    groups
	slots     slots
	rings     rings
	paths     paths
	underlays map[int]*underlay

	guards guards // with a lock of their own
	epoch  atomic.Uint32
	failed atomic.Bool // a kernel error was logged

	suspended bool
}

// Open loads the program of ports and the tables, or takes over those that an earlier process of the
// same name left. An error says why there is no fast path here. If nothing can be pinned,
// the fast path ends with the process. Nothing changes until Start.
func Open(o Options) (*Path, error) {
	p, err := open(o)
	if u := (unpinned{}); errors.As(err, &u) {
		o.Pin = false
		if p, err = open(o); err == nil {
			o.Log.Warn("the fast path is not pinned: known traffic stops while vswitch restarts", "reason", u)
		}
	}
	return p, err
}

func open(o Options) (*Path, error) {
	_ = rlimit.RemoveMemlock() // needed before Linux 5.11 only
	p := &Path{
		log:     o.Log,
		changed: make(chan fdb.Key, backlog),
		all:     make(chan struct{}, 1),
		settle:  make(chan chan<- struct{}),
		refresh: make(chan chan<- struct{}),
		suspend: make(chan chan<- struct{}),
		resume:  make(chan struct{}),
		stop:    make(chan struct{}),

		attached:  make(map[int]bool),
		shared:    make(map[int]bool),
		underlays: make(map[int]*underlay),
	}
	spec, err := loadBpf()
	if err != nil {
		return nil, err
	}
	spec.Maps["stations"].MaxEntries = linesFor(o.Capacity)
	for _, m := range spec.Maps {
		// The kernel refuses types of entries for these, but only after it has made the table, and
		// then it waits for a grace period.
		if m.Type == ebpf.DevMap || m.Type == ebpf.DevMapHash {
			m.Key, m.Value = nil, nil
		}
	}
	options := &ebpf.CollectionOptions{}
	if o.Pin {
		if p.pins, err = openPins(o.Name, o.Lock); err != nil {
			return nil, err
		}
		options.MapReplacements = p.pins.maps(spec)
	}
	left := options.MapReplacements != nil
	p.programs.tables, p.programs.pins, p.programs.log = &p.bpf, p.pins, p.log
	err = spec.LoadAndAssign(&p.bpf, options)
	for _, m := range options.MapReplacements {
		m.Close() // p.bpf has its own descriptors
	}
	if err != nil {
		err = explain("make tables in the kernel", err)
	} else {
		err = p.prepare(left)
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// prepare does the rest of Open once the tables are there; left says whether an earlier process left them.
func (p *Path) prepare(left bool) error {
	if err := p.try(); err != nil {
		return err
	}
	if p.pins != nil && !left {
		if err := p.pins.keep(&p.bpf); err != nil {
			_ = os.RemoveAll(p.pins.own)
			return unpinned{err}
		}
	}
	if err := p.known.load(&p.bpf); err != nil {
		return err
	}
	p.guards.load(p)
	if err := p.slots.budgets.load(&p.bpf); err != nil {
		return err
	}
	if err := p.readKernel(); err != nil {
		return err
	}
	p.rings.bpf = &p.bpf
	if err := p.paths.load(&p.bpf); err != nil {
		return err
	}
	runtime.AddCleanup(p, func(memory []byte) { _ = unix.Munmap(memory) }, p.slots.budgets.memory)
	return nil
}

// readKernel reads what an earlier process left.
func (p *Path) readKernel() error {
	var epoch uint32
	err := p.bpf.Epochs.Lookup(uint32(0), &epoch)
	p.epoch.Store(epoch)
	return errors.Join(err, p.guards.read(), p.slots.load(&p.bpf, &p.guards))
}

func (p *Path) close() {
	p.known.close()
	p.programs.close()
	_ = p.bpf.Close()
	if p.pins != nil {
		p.pins.close()
	}
}

// Bind implements vswitch.FastPath.
func (p *Path) Bind(t *fdb.Table) { p.table = t }

// Start applies the published ports and reconciles the switch's table with the kernel's:
// stations that an earlier process left in the kernel are learned if their ports exist
// again. The daemon calls Start once its ports are restored.
func (p *Path) Start() {
	p.mu.Lock()
	p.check("reading what is there", p.readKernel()) // the former process may have worked since Open
	p.check("ending copies", p.rings.clear())
	p.live.Store(true)
	p.check("freeing ports", p.slots.adopt(p.published))
	p.check("forgetting tunnels", p.paths.keep(&p.bpf, func(ifindex uint32) bool { return p.paths.open[ifindex] }))
	p.check("forgetting underlays", p.forgetUnderlays())
	p.mu.Unlock()
	p.learn()
	p.mu.Lock()
	p.apply(p.published, p.flood)
	p.mu.Unlock()
	p.reconcile()
	if p.pins != nil {
		p.mu.Lock()
		p.check("removing what is left over", p.pins.clean(p.attached, p.underlays))
		p.mu.Unlock()
	}
	p.running.Go(p.run)
}

// Stop ends the goroutine and leaves the kernel as it is. After it the other methods
// change nothing, so a switch that closes its ports does not stop the traffic that
// outlives it.
func (p *Path) Stop() {
	if !p.live.Swap(false) {
		return
	}
	close(p.stop)
	p.running.Wait()
	p.guards.close()
	p.mu.Lock()
	p.check("ending copies", p.rings.stop([numRings]bool{}))
	p.mu.Unlock()
	p.rings.running.Wait() // they take mu
	p.mu.Lock()
	defer p.mu.Unlock()
	p.check("flooding again", p.slots.returnFloods())
	p.close()
}

// Pinned reports whether known traffic continues after the process ends.
func (p *Path) Pinned() bool { return p.pins != nil && !p.pins.areLost() }

// check logs the first kernel error; none is expected.
func (p *Path) check(doing string, err error) {
	if err == nil || p.failed.Swap(true) {
		return
	}
	p.log.Error("fast path", "doing", doing, "error", err)
}
