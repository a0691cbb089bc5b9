package vxlan

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/linux/hoststack"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/port"
)

// Kernel is the part of the fast path in the kernel that knows a tunnel. Its programs forward
// what goes to known stations and comes from known hosts. A path is a host as it takes part
// in one network; the kernel gives paths numbers, which outlive the process.
type Kernel interface {
	hoststack.Ingress

	// Join makes a host a member of a network, Leave ends that. vlan is that of the
	// network's frames; 0: they keep their tags. limit is the longest frame that fits on the
	// way to the host, in bytes; 0: unknown.
	Join(vtep netip.Addr, vni uint32, vlan uint16, limit int) (path uint16, err error)
	Leave(path uint16)
	SetLimit(path uint16, limit int)

	// SetWays says how hosts are reached by a short way, and has to say it again within half a
	// minute. It reports whether that is in force. Detour returns why frames do not go there; empty if they do.
	SetWays(e port.Encapsulation, udpPort uint16, all map[netip.Addr]link.Way) (done bool)
	Detour() string

	// Know says that a host takes part in some network, or with an invalid address, that
	// there is a network.
	Know(vtep netip.Addr, vni uint32, is bool)

	// SetStation says behind which host a station is. Commit puts such changes into force.
	SetStation(k fdb.Key, path uint16, silent time.Duration)
	DeleteStation(k fdb.Key)
	Commit()

	// Paths and Stations call f for all that the kernel has.
	Paths(f func(path uint16, vtep netip.Addr, vni uint32))
	Stations(f func(k fdb.Key, path uint16, silent time.Duration))

	// Refused returns the host whose frame was refused last as that of no member, and how
	// many such frames there were.
	Refused() (last netip.Addr, n uint64)
}

// Numbers of paths, and the mark of a frame between the device and the switch: encap.h in
// internal/linux/fastpath.
const (
	maxPaths   = 1 << 15
	unknownVNI = 1 // in place of a path; 0: unknown VTEP

	marked     = 1 << 31
	markTagged = 1 << 30 // the frame has a tag that its network's frames must not have
)

// follower is told of a directory's changes.
type follower interface {
	fdb.Observer
	carry(n *network, is bool)
	know(v *vtep, is bool)
	join(n *network, v *vtep)
	leave(n *network, v *vtep)
	limit(v *vtep)
	measured()    // all or new VTEPs
	second(n int) // has passed
}

// nobody follows. Where stations are is in the directory alone.
type nobody struct{ d *directory }

func (nobody) Changed(fdb.Key)       {}
func (nobody) Flushed(uint16)        {}
func (nobody) carry(*network, bool)  {}
func (nobody) know(*vtep, bool)      {}
func (nobody) join(*network, *vtep)  {}
func (nobody) leave(*network, *vtep) {}
func (nobody) limit(*vtep)           {}
func (nobody) measured()             {}
func (n nobody) second(int)          { n.d.fade() }

// replica keeps the kernel's part of a directory like it. The directory's mutex guards what
// has no other guard.
type replica struct {
	t       *tunnel
	kernel  Kernel
	changed chan fdb.Key
	all     chan struct{} // compare every station: changed was full, or many changed at once
	byPath  [maxPaths]atomic.Pointer[member]
	halted  atomic.Bool            // another process is about to take the tunnel
	full    atomic.Pointer[string] // why a host could not join a network

	ways ways

	refused uint64 // frames that were, when last asked
}

// member is a host as it takes part in a network.
type member struct {
	n *network
	v *vtep
}

const (
	// backlog is how many stations may wait to be written to the kernel.
	backlog = 1 << 12

	// grace is how long what an earlier process knew stays, in seconds: until a control
	// plane knows it again.
	grace = 90

	// refreshEvery is how often the ages of stations are read from the kernel, in seconds.
	refreshEvery = 10
)

func newReplica(t *tunnel, k Kernel) *replica {
	return &replica{
		t: t, kernel: k, changed: make(chan fdb.Key, backlog), all: make(chan struct{}, 1),
		ways: ways{events: make(chan struct{}, 1)},
	}
}

// path returns the number of a host's path in a network; 0: none.
func (n *network) path(v *vtep) uint16 {
	if p := n.paths[v.number/64].Load(); p != nil {
		return uint16(p[v.number%64].Load())
	}
	return 0
}

func (n *network) setPath(v *vtep, path uint16) {
	at := &n.paths[v.number/64]
	p := at.Load()
	if p == nil {
		p = new([64]atomic.Uint32)
		at.Store(p)
	}
	p[v.number%64].Store(uint32(path))
}

func (r *replica) carry(n *network, is bool) { r.kernel.Know(netip.Addr{}, n.vni, is) }
func (r *replica) know(v *vtep, is bool)     { r.kernel.Know(v.addr, 0, is) }

func (r *replica) join(n *network, v *vtep) {
	path, err := r.kernel.Join(v.addr, n.vni, n.vlan, int(v.limit.Load()))
	if err != nil {
		why := err.Error() + "; frames of others are lost; --data-plane sockets has no such limit"
		if r.full.Swap(&why) == nil {
			signal(r.t.news)
		}
		return
	}
	r.byPath[path].Store(&member{n, v})
	n.setPath(v, path)
}

func (r *replica) leave(n *network, v *vtep) {
	path := n.path(v)
	if path == 0 {
		return
	}
	n.setPath(v, 0)
	r.kernel.Leave(path)
	r.byPath[path].Store(nil)
}

func (r *replica) limit(v *vtep) {
	for _, n := range r.t.networks.Load().byVNI {
		if path := n.path(v); path != 0 {
			r.kernel.SetLimit(path, int(v.limit.Load()))
		}
	}
}

// Changed implements fdb.Observer.
func (r *replica) Changed(k fdb.Key) {
	select {
	case r.changed <- k:
	default:
		signal(r.all)
	}
}

// Flushed implements fdb.Observer.
func (r *replica) Flushed(uint16) { signal(r.all) }

// run writes changes to the kernel until quit is closed.
func (r *replica) run(quit <-chan struct{}) {
	for {
		select {
		case <-quit:
			return
		case k := <-r.changed:
			if r.halted.Load() {
				continue
			}
			r.write(k)
			for range len(r.changed) {
				r.write(<-r.changed)
			}
			r.kernel.Commit()
		case <-r.all:
			if !r.halted.Load() {
				r.reconcile()
			}
		}
	}
}

// write makes one station in the kernel like the directory's as it is now, so the order of
// changes does not matter.
func (r *replica) write(k fdb.Key) {
	if e, ok := r.t.stations.Get(k); ok {
		if path := r.pathOf(e); path != 0 {
			r.kernel.SetStation(k, path, e.Age)
			return
		}
	}
	r.kernel.DeleteStation(k)
}

// pathOf returns the path to a station; 0: none.
func (r *replica) pathOf(e fdb.Entry) uint16 {
	n, v := r.t.networkOf(e.Key), r.t.byNumber[e.Port].Load()
	if n == nil || v == nil {
		return 0
	}
	return n.path(v)
}

// reconcile makes all stations in the kernel like the directory's.
func (r *replica) reconcile() {
	right := make(map[fdb.Key]bool)
	r.refresh(right)
	for e := range r.t.stations.All() {
		if !right[e.Key] {
			r.write(e.Key)
		}
	}
	r.kernel.Commit()
}

// refresh tells the directory when its stations were heard, and removes from the kernel
// what the directory does not have. It adds the others to right unless that is nil.
func (r *replica) refresh(right map[fdb.Key]bool) {
	r.kernel.Stations(func(k fdb.Key, path uint16, silent time.Duration) {
		m := r.member(path)
		switch {
		case m == nil, m.n != r.t.networkOf(k), !r.t.stations.Heard(k, m.v.number, silent):
			r.write(k)
		case right != nil:
			right[k] = true
		}
	})
}

func (r *replica) member(path uint16) *member {
	if path >= maxPaths {
		return nil
	}
	return r.byPath[path].Load()
}

// inherit takes over what an earlier process left in the kernel.
func (r *replica) inherit() {
	d := &r.t.directory
	d.lock()
	defer d.unlock()
	var stale []uint16
	r.kernel.Paths(func(path uint16, vtep netip.Addr, vni uint32) {
		n, err := d.network(vni)
		if err == nil && r.byPath[path].Load() != nil {
			return // it is a peer's
		}
		if err == nil {
			if v, e := d.vtep(vtep); e == nil {
				d.join(n, v)
				d.legacy.members = append(d.legacy.members, member{n, v})
				return
			}
		}
		stale = append(stale, path)
	})
	for _, path := range stale {
		r.kernel.Leave(path)
	}
	r.kernel.Stations(func(k fdb.Key, path uint16, silent time.Duration) {
		if m := r.member(path); m != nil && m.n == d.networkOf(k) {
			d.stations.Restore(k, m.v.number, silent)
			d.legacy.left = grace
		}
	})
	if d.legacy.members != nil {
		d.legacy.left = grace
	}
	_, r.refused = r.kernel.Refused()
}

func (r *replica) measured() { r.findWays(sampled) }

func (r *replica) second(n int) {
	if r.halted.Load() {
		return
	}
	r.checkWays()
	if n%refreshEvery == 0 {
		r.refresh(nil)
	}
	if from, count := r.kernel.Refused(); count > r.refused {
		r.t.refused(from, int(count-r.refused))
		r.refused = count
	}
	r.t.fade()
}
