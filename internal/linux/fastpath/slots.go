package fastpath

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// maxPorts and maxMirrors are MAX_PORTS and MAX_MIRRORS of fastpath.c.
const (
	maxPorts   = vswitch.MaxPorts
	maxMirrors = 8 // bits of FastPort.MirrorTo
)

// Flags of a port, as in fastpath.c.
const (
	flagFrom = 1 << iota
	flagTo
	flagIsolated
	flagUntaggedOnly
	flagNoLearn
	flagLocked
	flagDrops
	flagNoFlood // two bits: broadcast, multicast
	_
	flagPunt // two bits
	_
	flagGuarded
	_
	flagTunnel
	_
	flagHostShared
	flagSnoop
	flagRouterGuard
)

// slot is a port's place in the kernel's tables. Its index differs from the port's number,
// which the next process may give to another port.
type slot struct {
	index  uint32
	is     bpfPort           // what the kernel has
	bundle *bundle           // of a port on several devices
	vlans  *port.VLANSet     // nil: none; stations in other VLANs stay out of the kernel
	snap   [copyRings]uint32 // bytes of its frames that are copied into each ring; 0: none yet
	oneIn  uint32            // of so many of its frames one is a sample; 0: none yet
}

// slots are the slots of all ports. Path.mu guards them.
type slots struct {
	bpf      *bpfMaps
	guards   *guards
	budgets  budgets
	byNumber map[uint16]*slot // by port number
	number   map[uint32]uint16
	left     map[uint32]*slot // by ifindex: an earlier process's, until adopt
	used     [maxPorts]bool
	taken    map[uint32]bool    // slots whose floods the switch was given
	mirrors  [maxMirrors]uint32 // ifindex by which their copies leave

	aggregates aggregates
}

// load reads the slots that an earlier process left.
func (s *slots) load(bpf *bpfMaps, guards *guards) error {
	s.bpf, s.guards, s.used = bpf, guards, [maxPorts]bool{}
	s.byNumber, s.number, s.left = make(map[uint16]*slot), make(map[uint32]uint16), make(map[uint32]*slot)
	s.taken = make(map[uint32]bool)
	for i := range s.mirrors {
		if err := bpf.Mirrors.Lookup(uint32(i), &s.mirrors[i]); err != nil {
			return err
		}
	}
	var ifindex, index uint32
	entries := bpf.Slots.Iterate()
	for entries.Next(&ifindex, &index) {
		l := &slot{index: index}
		if err := bpf.Ports.Lookup(index, &l.is); err != nil {
			return err
		}
		s.left[ifindex], s.used[index] = l, true
	}
	return entries.Err()
}

// adopt gives ports the slots that an earlier process gave to their devices, and frees the
// slots that no port takes.
func (s *slots) adopt(ports []vswitch.FastPort) error {
	for _, p := range ports {
		if a, ok := p.Device.(port.Aggregate); ok {
			s.adoptAggregate(p, a)
			continue
		}
		if l := s.left[uint32(p.Device.Ifindex())]; l != nil && s.hasDevice(l) {
			s.byNumber[p.Number], s.number[l.index] = l, p.Number
			l.vlans = p.VLANs
			delete(s.left, l.is.Ifindex)
		}
	}
	var errs []error
	for ifindex, l := range s.left {
		errs = append(errs, s.free(l), s.unlead(l, ifindex))
	}
	s.left = nil
	return errors.Join(errs...)
}

// set puts a port into force. changed reports whether that changed anything, others whether
// the stations that the kernel should have may have changed.
func (s *slots) set(p vswitch.FastPort) (changed, others bool, err error) {
	l := s.byNumber[p.Number]
	if l == nil {
		if l, err = s.allocate(); err != nil {
			return false, false, err
		}
		s.byNumber[p.Number], s.number[l.index] = l, p.Number
		defer func() {
			if err == nil {
				err = s.setDevices(l, p)
			}
		}()
	} else if a, ok := p.Device.(port.Aggregate); ok && l.bundle != nil {
		defer func() { err = errors.Join(err, s.setBundle(l, a.Bundle())) }()
	}
	device, err := s.deviceOf(l, p)
	if err != nil {
		return false, false, err
	}
	s.guards.enter(p.Number, l.index)
	others = l.vlans == nil || *l.vlans != *p.VLANs
	l.vlans = p.VLANs
	want := describe(p, l.is.Generation)
	want.Ifindex = device
	want.Bucket = s.budgets.set(p.Number, p.Police)
	if want.Native != l.is.Native || want.Tpid != l.is.Tpid {
		// Frames on their way to a station in a VLAN that the port leaves would get a
		// tag that nobody there expects.
		want.Generation++
		others = true
	}
	if err = s.setCopies(l, &p); err != nil {
		return false, others, err
	}
	changed, err = l.write(s.bpf, want)
	return changed, others, err
}

// setDevice records the device of a slot. A device that was just deleted has no number any
// more (EINVAL); its port is about to go as well.
func (s *slots) setDevice(l *slot, ifindex uint32) error {
	err := s.bpf.Devices.Put(l.index, ifindex)
	if errors.Is(err, unix.EINVAL) {
		return s.bpf.Devices.Delete(l.index) // the entry of the slot's previous device
	}
	return err
}

// hasDevice reports whether the device of a slot is still where setDevice recorded it.
func (s *slots) hasDevice(l *slot) bool {
	var ifindex uint32
	return s.bpf.Devices.Lookup(l.index, &ifindex) == nil
}

// describe returns a port in the form that fastpath.c reads.
func describe(p vswitch.FastPort, generation uint16) bpfPort {
	is := bpfPort{
		Generation: generation,
		Pvid:       p.PVID,
		Native:     p.Native,
		Tpid:       networkOrder(p.TPID),
		MirrorIn:   p.MirrorIn,
		MirrorOut:  p.MirrorOut,
		Watch:      watchOf(&p),
	}
	if p.Resolution {
		is.Resolves = 1
	}
	for flag, on := range map[uint32]bool{
		flagFrom:         p.From && p.Device.Punted(),
		flagTo:           p.To,
		flagIsolated:     p.Isolated,
		flagUntaggedOnly: p.UntaggedOnly,
		flagNoLearn:      p.NoLearning,
		flagLocked:       p.Locked,
		flagDrops:        p.Drops,
		flagGuarded:      p.Guarded,
		flagSnoop:        p.Snoop,
		flagRouterGuard:  p.RouterGuard,
		flagNoFlood:      p.NoFlood&vswitch.Broadcast != 0,
		flagNoFlood << 1: p.NoFlood&vswitch.Multicast != 0,
		flagPunt:         p.Punt&vswitch.Broadcast != 0,
		flagPunt << 1:    p.Punt&vswitch.Multicast != 0,
		flagHostShared:   isShared(p.Device),
		flagTunnel:       p.Tunnel,
	} {
		if on {
			is.Flags |= flag
		}
	}
	return is
}

// isShared reports whether the host has what comes by a device, too.
func isShared(dev port.KernelEnd) bool {
	x, can := dev.(port.Exclusive)
	return can && !x.Exclusive()
}

// networkOrder returns v with its bytes in network order in memory.
func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// write sets the slot to want, and reports whether that changed it.
func (l *slot) write(bpf *bpfMaps, want bpfPort) (changed bool, err error) {
	if l.is == want {
		return false, nil
	}
	if err := bpf.Ports.Put(l.index, &want); err != nil {
		return false, err
	}
	l.is = want
	return true, nil
}

// shut stops all ports except those in but from sending and receiving, until they are
// published again or released.
func (s *slots) shut(but []vswitch.FastPort) (changed bool, err error) {
	in := make(map[uint16]bool, len(but))
	for _, p := range but {
		in[p.Number] = true
	}
	for number, l := range s.byNumber {
		if in[number] {
			continue
		}
		want := l.is
		want.Flags = 0
		c, e := l.write(s.bpf, want)
		changed, err = changed || c, errors.Join(err, e)
	}
	return changed, err
}

// aim sets by which devices mirrors' copies leave. If that changes, all ports are shut first,
// by force as well for flows that the kernel remembers, until they are set: so nobody's
// frames are copied to another's observer.
func (s *slots) aim(ports []vswitch.FastPort, force func()) (err error) {
	var aims [maxMirrors]uint32
	for _, p := range ports {
		for i := range aims {
			if p.MirrorTo&(1<<i) != 0 {
				aims[i] = uint32(p.Device.Ifindex())
			}
		}
	}
	if aims == s.mirrors {
		return nil
	}
	_, err = s.shut(nil)
	force()
	for i, ifindex := range aims {
		err = errors.Join(err, s.bpf.Mirrors.Put(uint32(i), ifindex))
	}
	s.mirrors = aims
	return err
}

// port returns the port of a station in the kernel. known is false if the port forgot the
// station or does not carry its VLAN.
func (s *slots) port(vlan uint16, st bpfStation) (number uint16, known bool) {
	if number, known = s.number[uint32(st.Slot)]; !known {
		return 0, false
	}
	l := s.byNumber[number]
	return number, l.is.Generation == st.Generation && l.vlans.Has(vlan)
}

// forget makes all stations behind a port unknown.
func (s *slots) forget(number uint16) error {
	l := s.byNumber[number]
	if l == nil {
		return nil
	}
	want := l.is
	want.Generation++
	_, err := l.write(s.bpf, want)
	return err
}

// release frees a port's slot and returns its counters.
func (s *slots) release(number uint16) (vswitch.PortStats, error) {
	l := s.byNumber[number]
	if l == nil {
		return vswitch.PortStats{}, nil
	}
	err := s.free(l)
	delete(s.byNumber, number)
	delete(s.number, l.index)
	st, e := l.counters(s.bpf)
	return st, errors.Join(err, e)
}

// allocate returns a free slot without stations and with zero counters.
func (s *slots) allocate() (*slot, error) {
	i := slices.Index(s.used[:], false)
	if i < 0 {
		return nil, errors.New("no slot is free") // a switch has no more ports than there are slots
	}
	l := &slot{index: uint32(i)}
	if err := s.bpf.Ports.Lookup(l.index, &l.is); err != nil {
		return nil, err
	}
	zero := make([]bpfCounters, ebpf.MustPossibleCPU())
	if err := s.bpf.Counts.Put(l.index, zero); err != nil {
		return nil, err
	}
	s.used[i] = true
	return l, nil
}

// free frees a slot. Its stations become unknown.
func (s *slots) free(l *slot) error {
	_, err := l.write(s.bpf, bpfPort{Generation: l.is.Generation + 1, Ifindex: l.is.Ifindex})
	err = errors.Join(err, s.leaveDevices(l))
	s.guards.leave(l.index)
	s.used[l.index] = false
	return errors.Join(err, s.bpf.Devices.Delete(l.index))
}

// guardDrops are the reasons of a guard, by their place in struct counters.
var guardDrops = [...]port.Drop{port.DropGuardTag, port.DropGuardMAC, port.DropGuardType, port.DropGuardOffload, port.DropGuardIPv4, port.DropGuardIPv6, port.DropGuardARP}

// counters returns what the kernel counted for the port since it got the slot.
func (l *slot) counters(bpf *bpfMaps) (st vswitch.PortStats, err error) {
	var cpus []bpfCounters
	if err := bpf.Counts.Lookup(l.index, &cpus); err != nil {
		return st, err
	}
	for _, c := range cpus {
		st.RX.Frames += c.RxFrames + c.Lost
		st.RX.Bytes += c.RxBytes
		st.RX.Copies += c.Copies
		st.Fast += c.RxFrames
		st.RX.Dropped[port.DropSamePort] += c.SamePort
		st.RX.Dropped[port.DropIsolated] += c.Isolated
		st.RX.Dropped[port.DropPoliced] += c.Policed
		st.RX.Dropped[port.DropNoDestination] += c.Nowhere
		st.RX.Dropped[port.DropRxOverrun] += c.Lost
		for i, n := range c.Guarded {
			st.RX.Dropped[guardDrops[i]] += n
		}
		st.RX.Dropped[port.DropUnknownVTEP] += c.UnknownVtep
		st.RX.Dropped[port.DropUnknownVNI] += c.UnknownVni
		st.TX.Frames += c.TxFrames
		st.TX.Bytes += c.TxBytes
		st.TX.Dropped[port.DropQueueFull] += c.Unsent
	}
	return st, nil
}
