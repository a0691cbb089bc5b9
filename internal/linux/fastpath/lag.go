package fastpath

import (
	"errors"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// maxAggregates and aggregateBit are MAX_AGGREGATES and AGGREGATE of lag.h.
const (
	maxAggregates = 256
	aggregateBit  = 1 << 31
)

// aggregates are the ports that several devices carry together. Path.mu guards them.
type aggregates struct {
	used  [maxAggregates]bool
	slots map[port.Aggregate]*slot
}

// bundle is what the kernel has of a slot's aggregate.
type bundle struct {
	number uint32
	is     *port.Bundle            // what was written last
	from   [port.BundleSize]uint32 // devices that lead to the slot; 0: none
}

// Bundled applies a change of the devices that carry a port. A port that was not published yet
// changes nothing. Devices that no longer carry frames carry none once it returns.
func (p *Path) Bundled(a port.Aggregate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.slots.aggregates.slots[a]; l != nil && p.live.Load() {
		p.check("changing the devices of a port", p.slots.setBundle(l, a.Bundle()))
	}
}

// deviceOf returns the number by which the kernel knows a port's device: for an aggregate, that
// of the aggregate.
func (s *slots) deviceOf(l *slot, p vswitch.FastPort) (uint32, error) {
	if _, ok := p.Device.(port.Aggregate); !ok {
		return uint32(p.Device.Ifindex()), nil
	}
	if l.bundle == nil {
		i := slices.Index(s.aggregates.used[:], false)
		if i < 0 {
			return 0, errors.New("there are more ports of several devices than the fast path has room for")
		}
		s.aggregates.used[i] = true
		l.bundle = &bundle{number: uint32(i)}
	}
	return l.bundle.number | aggregateBit, nil
}

// setDevices records the device of a new slot, or the devices of an aggregate, and leads their
// frames to the slot.
func (s *slots) setDevices(l *slot, p vswitch.FastPort) error {
	a, ok := p.Device.(port.Aggregate)
	if !ok {
		ifindex := uint32(p.Device.Ifindex())
		return errors.Join(s.setDevice(l, ifindex), s.bpf.Slots.Put(ifindex, l.index))
	}
	if s.aggregates.slots == nil {
		s.aggregates.slots = make(map[port.Aggregate]*slot)
	}
	s.aggregates.slots[a] = l
	return s.setBundle(l, a.Bundle())
}

// setBundle writes which devices carry a slot's port.
func (s *slots) setBundle(l *slot, b *port.Bundle) error {
	if l.bundle.is == b {
		return nil
	}
	l.bundle.is = b
	var errs []error
	is, from := bpfAggregate{Spread: uint32(b.Spread), Member: b.Member}, l.bundle.from
	for i, device := range b.Devices {
		// A member's own record tells its device from another that gets the number later.
		is.Ifindex[i] = uint32(device)
		key := l.bundle.number*port.BundleSize + uint32(i)
		if device == 0 || errors.Is(s.bpf.Members.Put(key, is.Ifindex[i]), unix.EINVAL) { // it was just deleted
			is.Ifindex[i] = 0
			errs = append(errs, s.bpf.Members.Delete(key))
		}
	}
	for i, was := range from {
		l.bundle.from[i] = 0
		if b.From[i] {
			l.bundle.from[i] = is.Ifindex[i]
		}
		if was != 0 && was != l.bundle.from[i] {
			errs = append(errs, s.unlead(l, was))
		}
	}
	errs = append(errs, s.bpf.Aggregates.Put(l.bundle.number, &is))
	first := uint32(0)
	for _, device := range l.bundle.from {
		if device != 0 {
			first = max(first, device)
			errs = append(errs, s.bpf.Slots.Put(device, l.index))
		}
	}
	// The slot has some device: that it has one at all says that it is a port's.
	if first == 0 {
		for _, device := range is.Ifindex {
			first = max(first, device)
		}
	}
	if first != 0 {
		errs = append(errs, s.setDevice(l, first))
	}
	return errors.Join(errs...)
}

// unlead ends that the frames of a device lead to a slot, unless they lead elsewhere by now.
func (s *slots) unlead(l *slot, ifindex uint32) error {
	var index uint32
	err := s.bpf.Slots.Lookup(ifindex, &index)
	if err == nil && index == l.index {
		err = s.bpf.Slots.Delete(ifindex)
	}
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// leaveDevices undoes setDevices.
func (s *slots) leaveDevices(l *slot) error {
	if l.bundle == nil {
		return s.unlead(l, l.is.Ifindex)
	}
	var none port.Bundle
	for i := range none.Member {
		none.Member[i] = port.BundleSize
	}
	err := s.setBundle(l, &none)
	s.aggregates.used[l.bundle.number] = false
	for a, of := range s.aggregates.slots {
		if of == l {
			delete(s.aggregates.slots, a)
		}
	}
	return err
}

// adoptAggregate gives an aggregate the slot that an earlier process gave to its devices.
func (s *slots) adoptAggregate(p vswitch.FastPort, a port.Aggregate) {
	for _, device := range a.Bundle().Devices {
		l := s.left[uint32(device)]
		if device == 0 || l == nil || l.is.Ifindex&aggregateBit == 0 || s.byNumber[p.Number] != nil {
			continue
		}
		l.bundle = &bundle{number: l.is.Ifindex &^ aggregateBit}
		s.aggregates.used[l.bundle.number] = true
		n := 0
		for ifindex, other := range s.left {
			if other.index == l.index && n < port.BundleSize {
				l.bundle.from[n] = ifindex
				n++
				delete(s.left, ifindex)
			}
		}
		s.byNumber[p.Number], s.number[l.index] = l, p.Number
		l.vlans = p.VLANs
		if s.aggregates.slots == nil {
			s.aggregates.slots = make(map[port.Aggregate]*slot)
		}
		s.aggregates.slots[a] = l
	}
}
