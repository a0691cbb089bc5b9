package fastpath

import (
	"bytes"
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
	bpf   *bpfObjects
	bump  func() // makes what was taken away count for flows that the kernel remembers, too
	check func(doing string, err error)

	mu     sync.Mutex
	closed bool
	wanted map[uint16]*vswitch.FastGuard // by port number
	slot   map[uint16]uint32             // of ports that the kernel has
	has    map[uint32]*guarded           // by slot
}

// guarded is what the kernel has of a slot.
type guarded struct {
	guard   bpfGuard
	senders map[bpfSender]bpfBinding
}

func newGuarded() *guarded {
	return &guarded{guard: bpfGuard{Flags: guardForgotten}, senders: make(map[bpfSender]bpfBinding)}
}

// load makes g ready for read.
func (g *guards) load(p *Path) {
	g.bpf, g.bump, g.check = &p.bpf, p.bump, p.check
	g.wanted, g.slot = make(map[uint16]*vswitch.FastGuard), make(map[uint16]uint32)
}

// read reads what an earlier process left, by slot.
func (g *guards) read() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.has = make(map[uint32]*guarded)
	at := func(slot uint32) *guarded {
		if g.has[slot] == nil {
			g.has[slot] = newGuarded()
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
		at(sender.Slot).senders[sender] = binding
	}
	ports := g.bpf.Guards.Iterate()
	for ports.Next(&slot, &guard) {
		at(slot).guard = guard
	}
	return errors.Join(bindings.Err(), ports.Err())
}

// Guard implements vswitch.FastPath.
func (p *Path) Guard(number uint16, guard *vswitch.FastGuard) {
	g := &p.guards
	g.mu.Lock()
	defer g.mu.Unlock()
	if guard == nil {
		delete(g.wanted, number)
	} else {
		g.wanted[number] = guard
	}
	if slot, is := g.slot[number]; is && !g.closed {
		g.put(slot, guard)
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

// put makes a slot as guard says. First goes what is no longer allowed. About what the kernel has
// no room for, it asks the switch. The caller holds mu.
func (g *guards) put(slot uint32, guard *vswitch.FastGuard) {
	has := g.has[slot]
	if guard == nil {
		if has != nil {
			g.check("guarding a port", errors.Join(g.remove(has, nil), g.forget(slot)))
			g.bump()
		}
		return
	}
	senders, is := describeGuard(slot, guard)
	if has == nil {
		has = newGuarded()
		g.has[slot] = has
	}
	shrinks, before := has.guard != is, len(has.senders)
	if err := g.remove(has, senders); err != nil {
		// What should go stays: the switch is asked about all frames of the port.
		g.check("guarding a port", errors.Join(err, g.forget(slot)))
		g.bump()
		return
	}
	shrinks = shrinks || len(has.senders) != before
	var errs []error
	for s, b := range senders {
		old, there := has.senders[s]
		if there && same(old, b) {
			continue
		}
		if err := g.bpf.Bindings.Put(&s, &b); err != nil {
			is.Flags |= guardMore
			if !errors.Is(err, unix.E2BIG) { // the table is full
				errs = append(errs, err)
			}
			continue
		}
		has.senders[s] = b
		shrinks = shrinks || there
	}
	if has.guard != is {
		if err := g.bpf.Guards.Put(slot, &is); err != nil {
			errs = append(errs, err, g.forget(slot))
		} else {
			has.guard = is
		}
	}
	if shrinks {
		g.bump()
	}
	g.check("guarding a port", errors.Join(errs...))
}

// remove removes the senders that do not stay.
func (g *guards) remove(has *guarded, stay map[bpfSender]bpfBinding) (err error) {
	for s := range has.senders {
		if _, stays := stay[s]; stays {
			continue
		}
		if e := g.bpf.Bindings.Delete(&s); e != nil && !errors.Is(e, ebpf.ErrKeyNotExist) {
			err = errors.Join(err, e)
			continue
		}
		delete(has.senders, s)
	}
	return err
}

// forget removes what is not a sender of a slot; all frames of a guarded port are then punted.
func (g *guards) forget(slot uint32) error {
	err := g.bpf.Guards.Delete(slot)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		err = nil
	}
	if has := g.has[slot]; has != nil {
		if has.guard = (bpfGuard{Flags: guardForgotten}); len(has.senders) == 0 {
			delete(g.has, slot)
		}
	}
	return err
}

// describeGuard returns a guarded port in the form that guard.h reads.
func describeGuard(slot uint32, guard *vswitch.FastGuard) (senders map[bpfSender]bpfBinding, is bpfGuard) {
	is.Vlans = guard.VLANs
	always := bpfBinding{Until: math.MaxUint64}
	senders = make(map[bpfSender]bpfBinding, len(guard.MACs)+len(guard.Senders))
	for _, mac := range guard.MACs {
		senders[bpfSender{Station: uint64(mac), Slot: slot}] = always
	}
	for _, s := range guard.Senders {
		senders[senderOf(slot, s)] = bpfBinding{From: clockAt(s.From, 0), Until: clockAt(s.Until, math.MaxUint64)}
	}
	for _, p := range guard.Prefixes {
		if is.Prefixes == maxPrefixes || slices.ContainsFunc(noStations, p.Overlaps) {
			is.Flags |= guardMore
			continue
		}
		x := &is.Prefix[is.Prefixes]
		x.Address, x.Type = addressWords(p.Masked().Addr())
		ones := netip.AddrFrom16([16]byte(bytes.Repeat([]byte{0xff}, 16)))
		if p.Addr().Is4() {
			ones = netip.AddrFrom4([4]byte{0xff, 0xff, 0xff, 0xff})
		}
		mask, _ := ones.Prefix(p.Bits()) // the length fits the address
		x.Mask, _ = addressWords(mask.Addr())
		x.Station = uint64(p.VLAN)<<48 | uint64(p.MAC)
		x.Until = clockAt(p.Until, math.MaxUint64)
		is.Prefixes++
	}
	if guard.MACOnly {
		is.Flags |= guardMACOnly
	}
	if guard.MoreTypes {
		is.Flags |= guardMoreTypes
	}
	if guard.Exceptions {
		is.Flags |= guardExceptions
	}
	return senders, is
}

// noStations are addresses that no station sends from. The switch is asked about a prefix with any
// of them.
var noStations = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/32"), netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("::/127"), netip.MustParsePrefix("::ffff:0:0/96"), netip.MustParsePrefix("ff00::/8"),
}

func senderOf(slot uint32, s vswitch.FastSender) bpfSender {
	is := bpfSender{Station: uint64(s.VLAN)<<48 | uint64(s.MAC), Slot: slot}
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

// same reports whether two bindings are for the same time. It is converted each time anew.
func same(a, b bpfBinding) bool {
	const much = uint64(10 * time.Millisecond)
	near := func(x, y uint64) bool { return x-y < much || y-x < much }
	return near(a.From, b.From) && near(a.Until, b.Until)
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
	key := senderOf(slot, s)
	if err := g.bpf.Bindings.Lookup(&key, &b); err != nil || b.Heard == 0 {
		return 0, false
	}
	return since(monotonic(), b.Heard), true
}
