package fastpath

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"math"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Flags of a guarded port, and how many prefixes it has, as in guard.h.
const (
	guardMACOnly = 1 << iota
	guardMoreTypes
	guardMore
	guardExceptions
	guardForgotten // only here: the kernel has nothing

	maxPrefixes = 8
)

// guards are what guarded ports may send, as the kernel has it. They have a lock of their own,
// since workers change them: it is held for system calls on maps alone.
type guards struct {
	bpf   *bpfMaps
	bump  func() // makes what was taken away count for flows that the kernel remembers, too
	check func(doing string, err error)

	mu     sync.Mutex
	closed bool
	wanted map[uint16]*guarded // by port number
	slot   map[uint16]uint32   // of ports that the kernel has
	has    map[uint32]*guarded // by slot; where all is as it should be, those of wanted
}

// guarded is what a port may send, as the kernel has it or is to have it.
type guarded struct {
	flags    uint32
	vlans    port.VLANSet
	prefixes []bpfPrefix
	senders  []guardSender // in order
}

// guardSender is a sender and when it may send. The slot of its key is left out.
type guardSender struct {
	key         bpfSender
	from, until uint64
}

// order sorts senders.
func (s guardSender) order(o guardSender) int {
	return cmp.Or(cmp.Compare(s.key.Station, o.key.Station), cmp.Compare(s.key.Type, o.key.Type), slices.Compare(s.key.Address[:], o.key.Address[:]))
}

// find returns that of all with the key of s, if there is one.
func find(all []guardSender, s guardSender) (old guardSender, there bool) {
	at, there := slices.BinarySearchFunc(all, s, guardSender.order)
	if there {
		old = all[at]
	}
	return old, there
}

// isGuard reports whether x and o differ in their senders alone.
func (x *guarded) isGuard(o *guarded) bool {
	return x.flags == o.flags && x.vlans == o.vlans && slices.Equal(x.prefixes, o.prefixes)
}

// entry returns x without its senders, as guard.h has it.
func (x *guarded) entry() (e bpfGuard) {
	e.Flags, e.Vlans, e.Prefixes = x.flags, x.vlans, uint32(len(x.prefixes))
	copy(e.Prefix[:], x.prefixes)
	return e
}

// at returns the sender's key in the kernel.
func (s *guardSender) at(slot uint32) bpfSender {
	key := s.key
	key.Slot = slot
	return key
}

// load makes g ready for read.
func (g *guards) load(p *Path) {
	g.bpf, g.bump, g.check = &p.bpf, p.bump, p.check
	g.wanted, g.slot = make(map[uint16]*guarded), make(map[uint16]uint32)
}

// read reads what an earlier process left, by slot.
func (g *guards) read() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.has = make(map[uint32]*guarded)
	at := func(slot uint32) *guarded {
		if g.has[slot] == nil {
			g.has[slot] = &guarded{flags: guardForgotten}
		}
		return g.has[slot]
	}
	var (
		sender  bpfSender
		binding bpfBinding
		slot    uint32
		guard   bpfGuard
	)
	bindings := g.bpf.Bindings.Iterate()
	for bindings.Next(&sender, &binding) {
		x := at(sender.Slot)
		sender.Slot = 0
		x.senders = append(x.senders, guardSender{sender, binding.From, binding.Until})
	}
	ports := g.bpf.Guards.Iterate()
	for ports.Next(&slot, &guard) {
		x := at(slot)
		x.flags, x.vlans = guard.Flags, guard.Vlans
		x.prefixes = slices.Clone(guard.Prefix[:min(guard.Prefixes, maxPrefixes)])
	}
	for _, x := range g.has {
		slices.SortFunc(x.senders, guardSender.order)
	}
	return errors.Join(bindings.Err(), ports.Err())
}

// Guard implements vswitch.FastPath.
func (p *Path) Guard(number uint16, guard *vswitch.FastGuard) {
	var want *guarded
	if guard != nil {
		want = describeGuard(guard)
	}
	g := &p.guards
	g.mu.Lock()
	defer g.mu.Unlock()
	if want == nil {
		delete(g.wanted, number)
	} else {
		g.wanted[number] = want
	}
	if slot, is := g.slot[number]; is && !g.closed {
		g.put(slot, want)
	}
}

// enter gives a slot what its port may send. Until then nothing that comes by it is sent on,
// if it is guarded.
func (g *guards) enter(number uint16, slot uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if was, is := g.slot[number]; is && was == slot {
		return
	}
	g.slot[number] = slot
	g.put(slot, g.wanted[number])
}

// leave empties a slot, before it is given away.
func (g *guards) leave(slot uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for number, at := range g.slot {
		if at == slot {
			delete(g.slot, number)
		}
	}
	g.put(slot, nil)
}

// suspend leaves the kernel's guards as they are, until it is called with false.
func (g *guards) suspend(on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = on
	if !on {
		for number, slot := range g.slot {
			g.put(slot, g.wanted[number])
		}
	}
}

// close ends all changes of the tables in the kernel.
func (g *guards) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

// put makes a slot as a port is to be. First goes what is no longer allowed. About what the
// kernel has no room for, it asks the switch. The caller holds mu.
func (g *guards) put(slot uint32, want *guarded) {
	has := &guarded{flags: guardForgotten}
	if g.has[slot] != nil {
		has = g.has[slot]
	} else if want == nil {
		return
	}
	left, err := g.remove(slot, has, want)
	if want == nil || err != nil {
		// If what should go stays, the switch is asked about all frames of the port.
		g.has[slot] = &guarded{senders: left}
		g.check("guarding a port", errors.Join(err, g.forget(slot)))
		g.bump()
		return
	}
	shrinks := !has.isGuard(want) || len(left) != len(has.senders)
	is := *want // what the kernel has at the end
	var failed []int
	var errs []error
	for i, s := range want.senders {
		old, there := find(left, s)
		if there && same(old, s) {
			want.senders[i] = old
			continue
		}
		key := s.at(slot)
		if err := g.bpf.Bindings.Put(&key, &bpfBinding{From: s.from, Until: s.until}); err != nil {
			is.flags |= guardMore
			failed = append(failed, i)
			if !errors.Is(err, unix.E2BIG) { // the table is full
				errs = append(errs, err)
			}
			continue
		}
		shrinks = shrinks || there
	}
	g.has[slot] = want
	if len(failed) != 0 {
		is.senders = slices.Clone(want.senders)
		for _, i := range slices.Backward(failed) {
			if old, there := find(left, is.senders[i]); there {
				is.senders[i] = old
			} else {
				is.senders = slices.Delete(is.senders, i, i+1)
			}
		}
		g.has[slot] = &is
	}
	if !has.isGuard(&is) {
		entry := is.entry()
		if err := g.bpf.Guards.Put(slot, &entry); err != nil {
			errs = append(errs, err, g.forget(slot))
		}
	}
	if shrinks {
		g.bump()
	}
	g.check("guarding a port", errors.Join(errs...))
}

// remove removes the senders that do not stay; if stay is nil, all. It returns what is left.
func (g *guards) remove(slot uint32, has, stay *guarded) (left []guardSender, err error) {
	for _, s := range has.senders {
		stays := false
		if stay != nil {
			_, stays = find(stay.senders, s)
		}
		if !stays {
			key := s.at(slot)
			e := g.bpf.Bindings.Delete(&key)
			if e == nil || errors.Is(e, ebpf.ErrKeyNotExist) {
				continue
			}
			err = errors.Join(err, e)
		}
		left = append(left, s)
	}
	return left, err
}

// forget removes what is not a sender of a slot; all frames of a guarded port are then punted.
func (g *guards) forget(slot uint32) error {
	err := g.bpf.Guards.Delete(slot)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		err = nil
	}
	if has := g.has[slot]; has != nil && len(has.senders) != 0 {
		g.has[slot] = &guarded{flags: guardForgotten, senders: has.senders}
	} else {
		delete(g.has, slot)
	}
	return err
}

// describeGuard returns a guarded port as the kernel is to have it.
func describeGuard(guard *vswitch.FastGuard) *guarded {
	x := &guarded{vlans: guard.VLANs, senders: make([]guardSender, 0, len(guard.MACs)+len(guard.Senders))}
	for _, mac := range guard.MACs {
		x.senders = append(x.senders, guardSender{bpfSender{Station: uint64(mac)}, 0, math.MaxUint64})
	}
	for _, s := range guard.Senders {
		x.senders = append(x.senders, guardSender{keyOf(s), clockAt(s.From, 0), clockAt(s.Until, math.MaxUint64)})
	}
	// Of two with one key, that of the settings counts, which come first.
	slices.SortStableFunc(x.senders, guardSender.order)
	x.senders = slices.CompactFunc(x.senders, func(a, b guardSender) bool { return a.order(b) == 0 })
	for _, p := range guard.Prefixes {
		if len(x.prefixes) == maxPrefixes || slices.ContainsFunc(noStations, p.Overlaps) {
			x.flags |= guardMore
			continue
		}
		is := bpfPrefix{Station: uint64(p.VLAN)<<48 | uint64(p.MAC), Until: clockAt(p.Until, math.MaxUint64)}
		is.Address, is.Type = addressWords(p.Masked().Addr())
		ones := netip.AddrFrom16([16]byte(bytes.Repeat([]byte{0xff}, 16)))
		if p.Addr().Is4() {
			ones = netip.AddrFrom4([4]byte{0xff, 0xff, 0xff, 0xff})
		}
		mask, _ := ones.Prefix(p.Bits()) // the length fits the address
		is.Mask, _ = addressWords(mask.Addr())
		x.prefixes = append(x.prefixes, is)
	}
	if guard.MACOnly {
		x.flags |= guardMACOnly
	}
	if guard.MoreTypes {
		x.flags |= guardMoreTypes
	}
	if guard.Exceptions {
		x.flags |= guardExceptions
	}
	return x
}

// noStations are addresses that no station sends from. The switch is asked about a prefix with any
// of them.
var noStations = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/32"), netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("::/127"), netip.MustParsePrefix("::ffff:0:0/96"), netip.MustParsePrefix("ff00::/8"),
}

// keyOf returns a sender's key in the kernel, without its slot.
func keyOf(s vswitch.FastSender) bpfSender {
	is := bpfSender{Station: uint64(s.VLAN)<<48 | uint64(s.MAC)}
	is.Address, is.Type = addressWords(s.Addr)
	return is
}

// addressWords returns an address as it is in memory, and the EtherType that goes with it.
func addressWords(a netip.Addr) (words [4]uint32, etherType uint32) {
	etherType = uint32(networkOrder(eth.TypeIPv6))
	if a.Is4() {
		etherType = uint32(networkOrder(eth.TypeIPv4))
	}
	for i, b := 0, a.AsSlice(); len(b) != 0; i, b = i+1, b[4:] {
		words[i] = binary.NativeEndian.Uint32(b)
	}
	return words, etherType
}

// clockAt returns what CLOCK_MONOTONIC shows at a time, or zero for the zero time.
func clockAt(t time.Time, zero uint64) uint64 {
	if t.IsZero() {
		return zero
	}
	return uint64(max(monotonic()+time.Until(t), 0))
}

// same reports whether two senders have the same time. It is converted each time anew.
func same(a, b guardSender) bool {
	const much = uint64(10 * time.Millisecond)
	near := func(x, y uint64) bool { return x-y < much || y-x < much }
	return near(a.from, b.from) && near(a.until, b.until)
}

// GuardHeard implements vswitch.FastPath.
func (p *Path) GuardHeard(number uint16, s vswitch.FastSender) (ago time.Duration, ok bool) {
	g := &p.guards
	g.mu.Lock()
	defer g.mu.Unlock()
	slot, is := g.slot[number]
	if !is || g.closed {
		return 0, false
	}
	var b bpfBinding
	key := keyOf(s)
	key.Slot = slot
	if err := g.bpf.Bindings.Lookup(&key, &b); err != nil || b.Heard == 0 {
		return 0, false
	}
	return since(monotonic(), b.Heard), true
}
