package vxlan

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/port"
)

// maxVTEPs is the most other hosts that a tunnel knows: their numbers are ports of its
// station table.
const maxVTEPs = 4095

// maxStations bounds the table of stations, some 32 bytes each. The table evicts fairly: a
// host that invents stations displaces its own.
const maxStations = 1 << 18

// Who is where. Workers read without a lock; all changes hold mu:
//
//	networks   VLAN or VNI → network
//	stations   (VLAN, MAC) → number of a VTEP; an fdb.Table, VLAN 0 for a network alone
//	byNumber   number → VTEP, to send to
//	byAddr     source address → VTEP, to receive from
//	network    the VTEPs that get its floods, and those that may send in it
type directory struct {
	local    netip.Addr
	header   port.Encapsulation
	udpPort  uint16
	stations *fdb.Table
	networks atomic.Pointer[networks]
	byAddr   atomic.Pointer[map[netip.Addr]*vtep]
	byNumber [maxVTEPs + 1]atomic.Pointer[vtep]
	learning atomic.Bool
	basic    atomic.Int32 // MTU of the device that has the local address; 0: unknown
	homeless atomic.Bool  // the host has no longer the local address

	mu       sync.Mutex
	next     map[netip.Addr]*vtep // byAddr while it changes; nil: it does not
	last     uint16               // number given last
	peers    []*vtep
	flooded  map[uint32][]*vtep // by VNI: those of SetFlood
	uses     map[use]int        // what makes a VTEP a member of a network
	users    map[*vtep]int      // the number of networks that it is a member of
	permit   bool               // the user lets it learn
	wanted   bool               // and so does who drives it
	watching chan struct{}      // has a value when a VTEP is new
	news     chan struct{}      // has a value when users should see something; Noticer says what
	follower follower
	legacy   legacy
}

// use is a VTEP's membership in a network.
type use struct {
	vni    uint32
	number uint16
}

// networks are the virtual networks of a tunnel.
type networks struct {
	all    *network // carries all frames; nil: by VLAN
	byVLAN [1 << 12]*network
	byVNI  map[uint32]*network
}

// network is one virtual network.
type network struct {
	vlan    uint16 // its VLAN in the station table; 0: all
	vni     uint32
	flood   atomic.Pointer[[]*vtep]
	members [(maxVTEPs + 64) / 64]atomic.Uint64 // by number: the VTEPs that may send in it

	// Likewise the numbers of their paths, where the kernel has some.
	paths [(maxVTEPs + 64) / 64]atomic.Pointer[[64]atomic.Uint32]
}

// has reports whether v is a member of the network.
func (n *network) has(v *vtep) bool { return n.members[v.number/64].Load()>>(v.number%64)&1 != 0 }

// key is the key of a station in the network.
func (n *network) key(station port.MAC) fdb.Key { return fdb.MakeKey(n.vlan, uint64(station)) }

// vtep is another host.
type vtep struct {
	addr   netip.Addr
	number uint16
	name   unix.RawSockaddrInet6 // its address for the kernel, or as an IPv4 one
	length uint32                // of name

	// limit is the longest frame in bytes that fits into an outer packet; 0: unknown.
	limit atomic.Int32

	measured atomic.Bool // limit is that of the route

	// plain is true while the kernel divides no datagrams on the way to it.
	plain atomic.Bool
}

func (d *directory) init(local netip.Addr, e port.Encapsulation, udpPort uint16) {
	d.local, d.header, d.udpPort = local, e, udpPort
	d.follow(nobody{d})
	d.networks.Store(&networks{})
	d.byAddr.Store(&map[netip.Addr]*vtep{})
	d.flooded, d.uses, d.users = make(map[uint32][]*vtep), make(map[use]int), make(map[*vtep]int)
	d.permit, d.wanted = true, true
	d.learning.Store(true)
	d.watching, d.news = make(chan struct{}, 1), make(chan struct{}, 1)
}

// follow has f told of all changes to come. There are no stations yet.
func (d *directory) follow(f follower) {
	d.follower = f
	d.stations = fdb.New(fdb.Config{Capacity: maxStations, Observer: f})
}

// networkOf returns the network of a station; nil: it is gone.
func (d *directory) networkOf(k fdb.Key) *network {
	nets := d.networks.Load()
	if vlan := k.VLAN(); vlan != 0 {
		return nets.byVLAN[vlan]
	}
	return nets.all
}

// inner returns a frame as it is inside the tunnel, and its network, or why it cannot cross.
func (nets *networks) inner(o *port.Out) (inner port.Out, n *network, why port.Drop) {
	inner, n = *o, nets.all
	if n == nil {
		// The tag names the network, and does not cross it.
		n = nets.byVLAN[o.Tag.VID()]
		inner.Tag, inner.Flags = 0, 0
		if o.Flags&port.Push != 0 {
			inner.Tag = o.Frame.Tag
		}
	}
	switch {
	case n == nil:
		why = port.DropNoVTEP
	case len(o.Frame.Data) < port.HeaderLen:
		why = port.DropRunt
	}
	return inner, n, why
}

// target returns where a frame to a station goes; nil: to all that get floods.
func (d *directory) target(n *network, dst port.MAC) *vtep {
	if dst.IsGroup() {
		return nil
	}
	number, ok := d.stations.Lookup(n.key(dst))
	if !ok || int(number) >= len(d.byNumber) {
		return nil
	}
	return d.byNumber[number].Load()
}

// configure sets what the user chose.
func (d *directory) configure(list []port.VNI, peers []netip.Addr, learn bool) error {
	d.lock()
	defer d.unlock()
	var named []*vtep
	for _, a := range peers {
		v, err := d.vtep(a)
		if err != nil {
			for _, v := range named {
				d.release(v)
			}
			return err
		}
		named = append(named, v)
	}
	old, next := d.networks.Load(), &networks{byVNI: make(map[uint32]*network)}
	for _, w := range list {
		n := old.byVNI[w.VNI]
		if n == nil || n.vlan != w.VLAN {
			n = &network{vlan: w.VLAN, vni: w.VNI}
			n.flood.Store(new([]*vtep))
		}
		next.byVNI[w.VNI] = n
		if w.VLAN == 0 {
			next.all = n
		} else {
			next.byVLAN[w.VLAN] = n
		}
	}
	for vni, n := range old.byVNI {
		if next.byVNI[vni] != n {
			d.forget(n)
			d.follower.carry(n, false)
		}
	}
	former := d.peers
	d.peers = named
	d.networks.Store(next)
	for _, n := range next.byVNI {
		d.follower.carry(n, true)
		for _, v := range named {
			d.join(n, v)
		}
		if old.byVNI[n.vni] == n {
			for _, v := range former {
				d.leave(n, v)
			}
		}
		d.reflood(n)
	}
	for _, v := range former {
		d.release(v)
	}
	d.permit = learn
	d.setLearning()
	return nil
}

// forget removes what is known about a network that is gone.
func (d *directory) forget(n *network) {
	for e := range d.stations.All() {
		if e.Key.VLAN() == n.vlan {
			d.stations.Delete(e.Key)
		}
	}
	delete(d.flooded, n.vni)
	delete(d.legacy.floods, n.vni)
	for u := range d.uses {
		if u.vni == n.vni {
			d.exclude(n, d.byNumber[u.number].Load())
		}
	}
}

// lock begins a change, and unlock publishes it.
func (d *directory) lock() { d.mu.Lock() }

func (d *directory) unlock() {
	if d.next != nil {
		all := d.next
		d.byAddr.Store(&all)
		d.next = nil
	}
	d.mu.Unlock()
}

// change returns byAddr to be changed.
func (d *directory) change() map[netip.Addr]*vtep {
	if d.next == nil {
		d.next = maps.Clone(*d.byAddr.Load())
	}
	return d.next
}

// find returns the VTEP with an address; nil: there is none.
func (d *directory) find(a netip.Addr) *vtep {
	if d.next != nil {
		return d.next[a]
	}
	return (*d.byAddr.Load())[a]
}

// vtep returns the VTEP with an address; it makes a new one without a use.
func (d *directory) vtep(a netip.Addr) (*vtep, error) {
	if v := d.find(a); v != nil {
		return v, nil
	}
	if err := checkVTEP(a, d.local); err != nil {
		return nil, err
	}
	all := d.change()
	if len(all) >= maxVTEPs {
		return nil, fmt.Errorf("the tunnel knows %d hosts, and can know no more", maxVTEPs)
	}
	v := &vtep{addr: a, number: d.last}
	for v.number = v.number%maxVTEPs + 1; d.byNumber[v.number].Load() != nil; {
		v.number = v.number%maxVTEPs + 1
	}
	d.last = v.number // a number is used again as late as possible
	v.setName(d.udpPort)
	v.setLimit(int(d.basic.Load()))
	all[a] = v
	d.byNumber[v.number].Store(v)
	d.follower.know(v, true)
	signal(d.watching)
	return v, nil
}

// setLimit sets how long a frame may be, for packets of mtu bytes; 0: unknown.
func (v *vtep) setLimit(mtu int) {
	if mtu > 0 {
		const longest = 0xffff // of an IP packet
		v.limit.Store(int32(max(min(mtu, longest)-overhead(v.addr), 1)))
	}
}

// fits reports whether a frame of n bytes fits into a packet to v, as far as is known.
func (v *vtep) fits(n int) bool {
	limit := int(v.limit.Load())
	return limit == 0 || n <= limit
}

// release removes a VTEP that nothing uses.
func (d *directory) release(v *vtep) {
	if d.users[v] > 0 || slices.Contains(d.peers, v) || d.byNumber[v.number].Load() != v {
		return
	}
	delete(d.change(), v.addr)
	d.follower.know(v, false)
	d.byNumber[v.number].Store(nil)
	d.stations.FlushPort(v.number) // those that it was told would be a use
}

// join adds a reason why v is a member of a network.
func (d *directory) join(n *network, v *vtep) {
	u := use{n.vni, v.number}
	if d.uses[u]++; d.uses[u] == 1 {
		d.users[v]++
		n.members[v.number/64].Or(1 << (v.number % 64))
		d.follower.join(n, v)
	}
}

// leave takes one away. A VTEP that is a member no longer has no stations in the network.
func (d *directory) leave(n *network, v *vtep) {
	u := use{n.vni, v.number}
	if d.uses[u]--; d.uses[u] > 0 {
		return
	}
	learned := d.learning.Load() || d.legacy.left > 0 // those that it was told would be a use
	if learned && d.users[v] > 1 {                    // else release flushes
		d.stations.Flush(func(e fdb.Entry) bool { return e.Port == v.number && e.Key.VLAN() == n.vlan })
	}
	d.exclude(n, v)
}

// exclude ends v's membership in a network.
func (d *directory) exclude(n *network, v *vtep) {
	delete(d.uses, use{n.vni, v.number})
	n.members[v.number/64].And(^(uint64(1) << (v.number % 64)))
	d.follower.leave(n, v)
	if d.users[v]--; d.users[v] <= 0 {
		delete(d.users, v)
		d.release(v)
	}
}

// reflood publishes a network's flood list: the peers, those of SetFlood, and those that an earlier
// process knew.
func (d *directory) reflood(n *network) {
	all := slices.Clone(d.peers)
	for _, v := range slices.Concat(d.flooded[n.vni], d.legacy.floods[n.vni]) {
		if !slices.Contains(d.peers, v) {
			all = append(all, v)
		}
	}
	n.flood.Store(&all)
}

// network returns the network with a VNI.
func (d *directory) network(vni uint32) (*network, error) {
	n := d.networks.Load().byVNI[vni]
	if n == nil {
		return nil, fmt.Errorf("the tunnel does not carry VNI %d; add it to --vni", vni)
	}
	return n, nil
}

// VTEP implements port.Tunnel.
func (d *directory) VTEP() netip.Addr { return d.local }

// Encapsulation implements port.Tunnel.
func (d *directory) Encapsulation() port.Encapsulation { return d.header }

// VNIs implements port.Tunnel.
func (d *directory) VNIs() (all []port.VNI) {
	for _, n := range d.networks.Load().byVNI {
		all = append(all, port.VNI{VLAN: n.vlan, VNI: n.vni})
	}
	slices.SortFunc(all, func(a, b port.VNI) int { return int(a.VLAN) - int(b.VLAN) })
	return all
}

// SetRemote implements port.Tunnel.
func (d *directory) SetRemote(vni uint32, station port.MAC, a netip.Addr) error {
	d.lock()
	defer d.unlock()
	n, err := d.network(vni)
	if err != nil {
		return err
	}
	if station == 0 || station.IsGroup() {
		return fmt.Errorf("%s is no station's address", station)
	}
	v, err := d.vtep(a)
	if err != nil {
		return err
	}
	k := n.key(station)
	former, ok := d.stations.Get(k)
	told := ok && former.Kind == fdb.Static
	if told && former.Port == v.number {
		return nil
	}
	if err := d.stations.Add(k, v.number, fdb.Static); err != nil {
		d.release(v)
		return err
	}
	d.join(n, v)
	d.follower.Changed(k) // which was before there was a path to it, perhaps
	if told {
		d.leave(n, d.byNumber[former.Port].Load())
	}
	return nil
}

// DeleteRemote implements port.Tunnel.
func (d *directory) DeleteRemote(vni uint32, station port.MAC) {
	d.lock()
	defer d.unlock()
	n, err := d.network(vni)
	if err != nil {
		return
	}
	k := n.key(station)
	e, ok := d.stations.Get(k)
	if ok && d.stations.Delete(k) && e.Kind == fdb.Static {
		d.leave(n, d.byNumber[e.Port].Load())
	}
}

// SetFlood implements port.Tunnel.
func (d *directory) SetFlood(vni uint32, vteps []netip.Addr) error {
	d.lock()
	defer d.unlock()
	n, err := d.network(vni)
	if err != nil {
		return err
	}
	wanted := make(map[netip.Addr]bool, len(vteps))
	for _, a := range vteps {
		wanted[a] = true
	}
	former := d.flooded[vni]
	var next []*vtep
	for _, v := range former { // those that are gone make room
		if wanted[v.addr] {
			delete(wanted, v.addr)
			next = append(next, v)
		} else {
			d.leave(n, v)
		}
	}
	left := 0
	for _, a := range vteps {
		if !wanted[a] {
			continue
		}
		delete(wanted, a)
		v, wrong := d.vtep(a)
		if wrong != nil {
			err = cmp.Or(err, wrong)
			left++
			continue
		}
		d.join(n, v)
		next = append(next, v)
	}
	d.flooded[vni] = next
	if d.legacy.floods[vni] != nil { // the other hosts may not have been heard yet
		d.supersede(n, func(v *vtep) bool { return slices.Contains(next, v) || slices.Contains(former, v) })
	}
	d.reflood(n)
	if err != nil {
		return fmt.Errorf("floods do not go to %d of %d hosts: %w", left, left+len(next), err)
	}
	return nil
}

// SetLearning implements port.Tunnel.
func (d *directory) SetLearning(on bool) {
	d.lock()
	defer d.unlock()
	if on && !d.wanted {
		d.abandon()
	}
	d.wanted = on
	d.setLearning()
}

// driven reports whether a control plane says who is where.
func (d *directory) driven() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.wanted
}

func (d *directory) setLearning() {
	on := d.permit && d.wanted
	if d.learning.Swap(on) && !on && d.legacy.left == 0 {
		d.stations.Flush(func(fdb.Entry) bool { return true })
	}
}

// Remotes implements port.Tunnel.
func (d *directory) Remotes() iter.Seq[port.Remote] {
	return func(yield func(port.Remote) bool) {
		for e := range d.stations.All() {
			n, v := d.networkOf(e.Key), d.byNumber[e.Port].Load()
			if n == nil || v == nil {
				continue // removed meanwhile
			}
			if !yield(port.Remote{VNI: n.vni, Station: port.MAC(e.Key.MAC()), VTEP: v.addr, Learned: e.Kind != fdb.Static, Age: e.Age}) {
				return
			}
		}
	}
}

// MTU implements port.Tunnel.
func (d *directory) MTU() (mtu int) {
	for _, v := range *d.byAddr.Load() {
		if n := int(v.limit.Load()) - port.HeaderLen; n > 0 && (mtu == 0 || n < mtu) {
			mtu = n
		}
	}
	if mtu != 0 {
		return mtu
	}
	return max(int(d.basic.Load())-overhead(d.local)-port.HeaderLen, 0)
}

// watch reads how long packets to each VTEP may be, until quit is closed: when a VTEP is new,
// and from time to time, since routes change. It also keeps the station table's time.
func (d *directory) watch(quit <-chan struct{}) {
	const remeasure = 10 // seconds
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	start := time.Now()
	for n := 1; ; {
		select {
		case <-quit:
			return
		case <-d.watching:
			d.measure(false)
			d.follower.measured()
		case <-tick.C:
			d.stations.Advance(time.Since(start))
			d.stations.Sweep(0)
			d.follower.second(n)
			if n++; n%remeasure == 0 {
				d.measureDevice()
				d.measure(true)
				d.follower.measured()
			}
		}
	}
}

// measureDevice reads how long packets from the local address may be, and whether the host still has it.
func (d *directory) measureDevice() {
	l, _ := link.ByAddress(d.local) // MTU 0 if there is none
	d.basic.Store(int32(l.MTU))
	// An address need not be that of a device: a route of type local makes it the host's, too.
	if gone := errors.Is(isHere(d.local), port.ErrGone); d.homeless.Swap(gone) != gone {
		signal(d.news)
	}
}

// measure reads how long packets to VTEPs may be: to all, or to those that are new or refused
// a packet as too long.
func (d *directory) measure(all bool) {
	fd, err := newSocket(d.local, 0, func(fd int) error { return dontFragment(fd, d.local) })
	if err != nil {
		return // they are measured later
	}
	defer unix.Close(fd)
	for _, v := range *d.byAddr.Load() {
		if !all && v.measured.Load() {
			continue
		}
		v.measured.Store(true)
		if mtu, err := routeMTU(fd, v.addr); err == nil {
			before := v.limit.Load()
			if v.setLimit(mtu); v.limit.Load() != before {
				d.mu.Lock()
				d.follower.limit(v)
				d.mu.Unlock()
			}
		}
		if all {
			v.plain.Store(false) // try again
		}
	}
}

// remeasure has v measured soon.
func (d *directory) remeasure(v *vtep) {
	v.measured.Store(false)
	signal(d.watching)
}

// signal puts a value into a channel that has none yet.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
