// Package fastpath forwards known unicast between network devices in the kernel, by
// tcx programs on them (bpf/fastpath.c) that go by tables which a Path keeps in line
// with the switch's. Only cmd/vswitch makes a Path; the switch and the port kinds know
// it by their own small interfaces, and work without. All methods are safe for
// concurrent use; those that concern devices act on the calling thread's network
// namespace. No frame is lost or doubled when one comes, changes or goes.
package fastpath

import (
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/vswitch/vswitch/fdb"
	vswitch "github.com/vswitch/vswitch/switch"
)

// The generator is named with its version, so that the same source makes the same file.
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel,bpfeb -type port -type station -type counters -type hash bpf bpf/fastpath.c -- -Wall -Werror

// Options say what a Path is for.
type Options struct {
	// Name is the switch's. With Pin, what is in the kernel outlives the process
	// under that name: known traffic goes on, and the next Path takes it over.
	Name string
	Pin  bool

	Capacity int // of the FDB
	Log      *slog.Logger
}

// Path is the fast path of one switch. It implements vswitch.FastPath.
type Path struct {
	bpf  bpfObjects
	pins *pins // nil: nothing outlives the process
	log  *slog.Logger

	table   *fdb.Table
	known   stations      // by the kernel
	changed chan fdb.Key  // stations to look at
	all     chan struct{} // look at every station: some could not be noted
	settle  chan chan<- struct{}
	refresh chan chan<- struct{}
	stop    chan struct{}
	running sync.WaitGroup
	live    atomic.Bool // between Start and Stop

	mu        sync.Mutex
	attached  map[int]bool       // devices with a pinned link of ours
	published []vswitch.FastPort // by the switch, until Start
	slots     slots
	epoch     uint32
	failed    bool // an error of the kernel's was logged
}

// Open loads the programs and tables, or takes those over that a former process of the
// name left. An error says why there is no fast path here. Where nothing can be pinned,
// the fast path ends with the process. Until Start nothing changes.
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
	_ = rlimit.RemoveMemlock() // for Linux before 5.11; else nothing
	p := &Path{
		log:     o.Log,
		changed: make(chan fdb.Key, backlog),
		all:     make(chan struct{}, 1),
		settle:  make(chan chan<- struct{}),
		refresh: make(chan chan<- struct{}),
		stop:    make(chan struct{}),

		attached: make(map[int]bool),
	}
	spec, err := loadBpf()
	if err != nil {
		return nil, err
	}
	spec.Maps["stations"].MaxEntries = linesFor(o.Capacity)
	options := &ebpf.CollectionOptions{}
	if o.Pin {
		if p.pins, err = openPins(o.Name); err != nil {
			return nil, err
		}
		options.MapReplacements = p.pins.maps(spec)
	}
	err = spec.LoadAndAssign(&p.bpf, options)
	for _, m := range options.MapReplacements {
		m.Close() // p.bpf has its own descriptors
	}
	if err != nil {
		err = explain("load programs into the kernel", err)
	} else {
		err = p.prepare(options.MapReplacements != nil)
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// prepare is the rest of Open.
func (p *Path) prepare(tookOver bool) error {
	if err := p.try(); err != nil {
		return err
	}
	if p.pins != nil && !tookOver {
		if err := p.pins.keep(&p.bpf.bpfMaps); err != nil {
			_ = os.RemoveAll(p.pins.own)
			return unpinned{err}
		}
	}
	if err := p.bpf.Epochs.Lookup(uint32(0), &p.epoch); err != nil {
		return err
	}
	if err := p.known.load(&p.bpf); err != nil {
		return err
	}
	return p.slots.load(&p.bpf)
}

func (p *Path) close() {
	p.known.close()
	_ = p.bpf.Close()
	if p.pins != nil {
		p.pins.close()
	}
}

// Bind implements vswitch.FastPath.
func (p *Path) Bind(t *fdb.Table) { p.table = t }

// Start puts what was published into force, and brings the table and the kernel in
// line: stations that a former process left in the kernel, at ports that are here
// again, are learned. The daemon calls it once its ports are restored.
func (p *Path) Start() {
	p.mu.Lock()
	p.live.Store(true)
	p.check("freeing ports", p.slots.adopt(p.published))
	p.mu.Unlock()
	p.learn()
	p.mu.Lock()
	p.apply(p.published)
	p.published = nil
	p.mu.Unlock()
	p.reconcile()
	if p.pins != nil {
		p.check("removing what is left over", p.pins.clean(p.attached))
	}
	p.running.Go(p.run)
}

// Stop leaves the kernel as it is and ends what runs here. From then on the other
// methods change nothing, so that a switch that closes its ports does not stop what
// outlives it.
func (p *Path) Stop() {
	if !p.live.Swap(false) {
		return
	}
	close(p.stop)
	p.running.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.close()
}

// Pinned tells whether known traffic goes on when the process ends.
func (p *Path) Pinned() bool { return p.pins != nil }

// check logs the first error of the kernel's, which should not be.
func (p *Path) check(doing string, err error) {
	if err == nil || p.failed {
		return
	}
	p.failed = true
	p.log.Error("fast path", "doing", doing, "error", err)
}
