package fastpath

import (
	"cmp"
	"errors"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// How groups of IP are dealt with in a VLAN, as in bpf/groups.h.
const (
	snooped   = 1
	restToAll = 1 << 1 // two bits: IPv4, IPv6
	restToFew = 1 << 3 // two bits
)

// rests are the groups for which the kernel has the ports of routers, by family.
var rests = [2]port.MAC{0x0100_5e00_0000, 0x3333_0000_0000}

// groups are the ports that joined groups, as the kernel has them. Path.mu guards them.
type groups struct {
	listeners []listener     // what the lists were made of
	place     map[uint16]int // of a port in listeners
	slow      []uint16
	of        *vswitch.Groups

	how     map[uint16]uint32 // by VLAN; nil: what an earlier process left
	members map[fdb.Key]members
	full    bool // the kernel has no room for some of them

	changed bool // as that of floods
}

// members are the numbers of the ports that joined a group.
type members struct {
	ports []uint16
	punt  bool // some only the switch can reach
}

// change has the kernel punt all groups of IP if ports change: the switch forwards them until
// start. New members, and those that leave, need no pause.
func (g *groups) change(bpf *bpfMaps, ports []vswitch.FastPort, flood vswitch.FastFlood) (err error) {
	if g.how == nil {
		err = g.clear(bpf)
	}
	same := func(a, b listener) bool {
		return a.number == b.number && a.native == b.native && a.tpid == b.tpid && *a.vlans == *b.vlans
	}
	listeners := listenersOf(ports)
	if slices.EqualFunc(g.listeners, listeners, same) && slices.Equal(g.slow, flood.Slow) {
		return err
	}
	g.listeners, g.slow, g.of, g.place = listeners, flood.Slow, nil, make(map[uint16]int)
	g.changed = true
	for i, l := range listeners {
		g.place[l.number] = i
	}
	for vlan := range g.how {
		err = errors.Join(err, g.set(bpf, vlan, snooped))
	}
	return err
}

// set sets how a VLAN's groups are dealt with.
func (g *groups) set(bpf *bpfMaps, vlan uint16, how uint32) error {
	if g.how[vlan] == how {
		return nil
	}
	if how == 0 {
		delete(g.how, vlan)
	} else {
		g.how[vlan] = how
	}
	return bpf.Snooped.Put(uint32(vlan), how)
}

// start has the kernel forward to the members that the switch knows.
func (g *groups) start(bpf *bpfMaps, slots *slots, flood vswitch.FastFlood) (err error) {
	if g.of == flood.Groups && !g.full {
		return nil
	}
	g.of, g.full, g.changed = flood.Groups, false, true
	want, how := g.wanted()

	// Where other rules apply to all groups from now on, the switch forwards until the lists are
	// theirs. Otherwise each list takes the former one's place.
	for vlan, now := range g.how {
		if how[vlan] != now {
			err = errors.Join(err, g.set(bpf, vlan, snooped))
		}
	}
	for vlan := range how {
		if _, is := g.how[vlan]; !is {
			err = errors.Join(err, g.set(bpf, vlan, snooped))
		}
	}
	for key := range g.members {
		if _, is := want[key]; !is {
			err = errors.Join(err, bpf.Groups.Delete(uint64(key)))
			delete(g.members, key)
		}
	}
	for key, m := range want {
		if was, is := g.members[key]; is && was.punt == m.punt && slices.Equal(was.ports, m.ports) {
			continue
		}
		is, ready := slots.listeners(key.VLAN(), m.ports)
		if m.punt || !ready {
			is.Ports = maxFlood + 1
		}
		switch e := bpf.Groups.Put(uint64(key), &is); {
		case e == nil:
			g.members[key] = m
		case errors.Is(e, unix.E2BIG), errors.Is(e, unix.ENOMEM):
			how[key.VLAN()], g.full = snooped, true // a group that is not there is punted
		default:
			err = errors.Join(err, e)
		}
	}
	for vlan := range g.how {
		err = errors.Join(err, g.set(bpf, vlan, how[vlan]))
	}
	return err
}

// wanted returns the lists, and how VLANs are dealt with once those are in force.
func (g *groups) wanted() (map[fdb.Key]members, map[uint16]uint32) {
	all, how := make(map[fdb.Key]members), make(map[uint16]uint32)
	if g.of == nil {
		return all, how
	}
	known := g.of.Each != nil && g.of.Rest != nil
	for vlan := range g.of.VLANs.All() {
		how[vlan] = snooped
		for family, rest := range rests {
			if !known {
				continue
			}
			ports, flood := g.of.Rest(vlan, family == 1)
			if flood {
				how[vlan] |= restToAll << family
				continue
			}
			how[vlan] |= restToFew << family
			all[fdb.MakeKey(vlan, uint64(rest))] = g.reach(vlan, ports)
		}
	}
	if known {
		g.of.Each(func(vlan uint16, mac uint64, ports []uint16) {
			if how[vlan] != 0 {
				all[fdb.MakeKey(vlan, mac)] = g.reach(vlan, ports)
			}
		})
	}
	return all, how
}

// reach returns which of the ports the kernel sends a VLAN's frames to, those that want them
// without a tag first.
func (g *groups) reach(vlan uint16, ports []uint16) (m members) {
	for _, number := range ports {
		if _, slow := slices.BinarySearch(g.slow, number); slow {
			return members{punt: true}
		}
		if i, is := g.place[number]; is && g.listeners[i].vlans.Has(vlan) {
			m.ports = append(m.ports, number)
		}
	}
	if len(m.ports) > maxFlood {
		return members{punt: true}
	}
	slices.SortFunc(m.ports, func(a, b uint16) int {
		i, j := g.place[a], g.place[b]
		untagged := func(i int) int {
			if g.listeners[i].native == vlan {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(untagged(i), untagged(j)), cmp.Compare(i, j))
	})
	return m
}

// clear removes what an earlier process left.
func (g *groups) clear(bpf *bpfMaps) error {
	g.how, g.members = make(map[uint16]uint32), make(map[fdb.Key]members)
	var errs []error
	var how uint32
	for vlan := range bpf.Snooped.MaxEntries() {
		if err := bpf.Snooped.Lookup(vlan, &how); err != nil {
			return err
		}
		if how != 0 {
			g.how[uint16(vlan)] = how
			errs = append(errs, g.set(bpf, uint16(vlan), snooped))
		}
	}
	var keys []uint64
	var key uint64
	var is bpfListeners
	entries := bpf.Groups.Iterate()
	for entries.Next(&key, &is) {
		keys = append(keys, key)
	}
	errs = append(errs, entries.Err())
	for _, key := range keys {
		if err := bpf.Groups.Delete(key); !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
