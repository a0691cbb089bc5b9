package fastpath

import (
	"cmp"
	"errors"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// maxFlood and maxTraps are MAX_FLOOD and MAX_TRAPS of fastpath.c.
const (
	maxFlood = 64
	maxTraps = 8
)

// floods are the ports to which each VLAN's frames for all stations go, as the kernel has
// them. Path.mu guards them.
type floods struct {
	listeners []listener // what the lists were made of
	vlans     port.VLANSet

	lists map[uint16]list // by VLAN; nil: what an earlier process left
	traps [maxTraps]uint64

	changed bool // since flows that are flooded were told to be looked up again
}

// listener is what counts of a port.
type listener struct {
	number       uint16
	native, tpid uint16
	vlans        *port.VLANSet
}

// list are the numbers of a VLAN's ports.
type list struct {
	ports    []uint16
	untagged int // the first ones send without a tag
}

func (l list) equal(o list) bool { return slices.Equal(l.ports, o.ports) }

// listeners returns a list in the form that fastpath.c reads. ready is false if it has a port
// that the kernel refused.
func (s *slots) listeners(vlan uint16, numbers []uint16) (is bpfListeners, ready bool) {
	is.Ports = uint32(len(numbers))
	for i, number := range numbers {
		at := s.byNumber[number]
		if at == nil {
			return is, false
		}
		is.Output[i] = uint32(vlan)<<16 | at.index
	}
	return is, true
}

// change stops the kernel from flooding in VLANs whose ports change; the switch does
// meanwhile. It returns those VLANs, for start to go on once the ports are in force.
func (f *floods) change(bpf *bpfMaps, ports []vswitch.FastPort, flood vswitch.FastFlood) (changed []uint16, err error) {
	err = f.setTraps(bpf, flood.Traps)
	listeners := listenersOf(ports)
	before := f.lists
	if before != nil && slices.Equal(f.listeners, listeners) && f.vlans == flood.VLANs {
		return nil, err
	}
	f.listeners, f.vlans, f.lists = listeners, flood.VLANs, listsOf(listeners, flood)
	f.changed = true
	if before == nil {
		err = errors.Join(err, clearFloods(bpf))
	}
	for vlan, l := range before {
		if now, is := f.lists[vlan]; !is || !now.equal(l) {
			if e := bpf.Floods.Delete(uint32(vlan)); !errors.Is(e, ebpf.ErrKeyNotExist) { // start may have left it out
				err = errors.Join(err, e)
			}
		}
	}
	for vlan, l := range f.lists {
		if was, is := before[vlan]; !is || !was.equal(l) {
			changed = append(changed, vlan)
		}
	}
	return changed, err
}

// start writes the lists of VLANs.
func (f *floods) start(bpf *bpfMaps, slots *slots, vlans []uint16) error {
	var errs []error
	for _, vlan := range vlans {
		if is, ready := slots.listeners(vlan, f.lists[vlan].ports); ready {
			errs = append(errs, bpf.Floods.Put(uint32(vlan), &is))
		}
	}
	return errors.Join(errs...)
}

// listenersOf returns the ports by which flooded frames leave, in the order of their numbers,
// those that have the same tags together.
func listenersOf(ports []vswitch.FastPort) (all []listener) {
	for _, p := range ports {
		if !p.Deaf {
			all = append(all, listener{p.Number, p.Native, p.TPID, p.VLANs})
		}
	}
	slices.SortFunc(all, func(a, b listener) int {
		return cmp.Or(cmp.Compare(a.tpid, b.tpid), cmp.Compare(a.number, b.number))
	})
	return all
}

// listsOf returns the list of each VLAN in which the kernel may flood. The ports that send
// with the same tag follow each other, so that a frame's tag changes seldom.
func listsOf(listeners []listener, flood vswitch.FastFlood) map[uint16]list {
	lists := make(map[uint16]list)
	for _, p := range listeners {
		for vlan := range p.vlans.All() {
			if l := lists[vlan]; flood.VLANs.Has(vlan) && len(l.ports) <= maxFlood {
				at := len(l.ports)
				if p.native == vlan {
					at = l.untagged
					l.untagged++
				}
				l.ports = slices.Insert(l.ports, at, p.number)
				lists[vlan] = l
			}
		}
	}
	for vlan, l := range lists {
		if len(l.ports) > maxFlood {
			delete(lists, vlan)
		}
	}
	return lists
}

// setTraps sets the groups that are for the switch.
func (f *floods) setTraps(bpf *bpfMaps, groups []port.MAC) (err error) {
	var traps [maxTraps]uint64
	for i, group := range groups {
		traps[i] = uint64(group)
	}
	for i, group := range traps {
		if group != f.traps[i] || f.lists == nil {
			err = errors.Join(err, bpf.Traps.Put(uint32(i), group))
			f.changed = true
		}
	}
	f.traps = traps
	return err
}

// clearFloods removes all lists.
func clearFloods(bpf *bpfMaps) error {
	var vlans []uint32
	var vlan uint32
	var is bpfListeners
	entries := bpf.Floods.Iterate()
	for entries.Next(&vlan, &is) {
		vlans = append(vlans, vlan)
	}
	errs := []error{entries.Err()}
	for _, vlan := range vlans {
		errs = append(errs, bpf.Floods.Delete(vlan))
	}
	return errors.Join(errs...)
}
