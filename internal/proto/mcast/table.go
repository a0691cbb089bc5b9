package mcast

import (
	"math/bits"
	"math/rand/v2"
	"slices"
)

// Table says which ports get a multicast frame. It is an immutable snapshot as of
// Snooper.Table: any goroutine may look up.
type Table struct {
	vlans [maxVLAN + 2]*[2]familyTable // by VLAN and Family; nil: not snooped
}

// familyTable is a hash table with linear probing, at most half full. Its key is the
// part of a group's MAC that differs: 23 or 32 bits.
type familyTable struct {
	filter  bool // false: everything floods
	unknown bool // frames to a group not in slots flood; false: they go to routers
	routers []uint16

	seed  uint64 // hosts choose the keys, so the order must be unpredictable to them
	shift uint
	slots []slot
	ports []uint16 // of all slots
}

type slot struct {
	key     uint32
	from, n uint32 // in ports; n is 0 in an empty slot
}

// Lookup returns the ports that get frames to dst, 48 bits with the first octet on top,
// in a VLAN. flood is true if all ports get them: dst is not a snooped group, or
// nothing is known. ports may be empty or include the ingress port; the caller must not
// modify it.
func (t *Table) Lookup(vlan uint16, dst uint64) (ports []uint16, flood bool) {
	v := t.vlans[vlan&0xfff]
	if v == nil {
		return nil, true
	}
	var key uint32
	var f *familyTable
	switch {
	case dst&ipv4PrefixMask == ipv4Prefix:
		f, key = &v[IPv4], uint32(dst&^uint64(ipv4PrefixMask))
	case dst&ipv6PrefixMask == ipv6Prefix:
		f, key = &v[IPv6], uint32(dst)
	default:
		return nil, true
	}
	if !f.filter || key <= lastLocal || f == &v[IPv6] && isNDKey(key) {
		return nil, true
	}
	for i := f.home(key); ; i = (i + 1) & (len(f.slots) - 1) {
		s := &f.slots[i]
		if s.n == 0 {
			break
		}
		if s.key == key {
			return f.ports[s.from : s.from+s.n], false
		}
	}
	if f.unknown || f == &v[IPv6] && isServiceKey(key) {
		return nil, true
	}
	return f.routers, false
}

// Each calls f for each group for which Lookup returns ports.
func (t *Table) Each(f func(vlan uint16, dst uint64, ports []uint16)) {
	for vlan, v := range t.vlans {
		if v == nil {
			continue
		}
		for family, prefix := range []uint64{IPv4: ipv4Prefix, IPv6: ipv6Prefix} {
			for _, s := range v[family].slots {
				if s.n == 0 {
					continue
				}
				dst := prefix | uint64(s.key)
				if ports, flood := t.Lookup(uint16(vlan), dst); !flood {
					f(uint16(vlan), dst, ports)
				}
			}
		}
	}
}

// Rest returns what Lookup does for the groups of a family that Each leaves out. But Lookup
// may flood those up to lastLocal and those of isNDKey and isServiceKey.
func (t *Table) Rest(vlan uint16, ipv6 bool) (ports []uint16, flood bool) {
	v := t.vlans[vlan&0xfff]
	if v == nil {
		return nil, true
	}
	f := &v[IPv4]
	if ipv6 {
		f = &v[IPv6]
	}
	return f.routers, !f.filter || f.unknown
}

// lastLocal is the end of the MACs of 224.0.0.0/24 and of ff02::00-ff, which always
// flood.
const lastLocal = 0xff

// isNDKey reports whether a MAC is one of solicited-node groups, 33:33:ff:00:00:00/24,
// which always flood: a station that does not report must still be found.
func isNDKey(key uint32) bool { return key>>24 == 0xff }

// isServiceKey reports whether a MAC is that of ff02::1:0/112, of DHCPv6 and LLMNR, and
// of groups of wider scope: it floods unless one of those is registered.
func isServiceKey(key uint32) bool { return key>>16 == 1 }

// Table returns the current state, as the same Table if nothing changed. It rebuilds
// only the VLANs that changed, in time proportional to their groups: after a burst of
// messages, call it once.
func (s *Snooper) Table() *Table {
	if len(s.stale) == 0 {
		return s.table
	}
	t := *s.table
	for _, old := range s.stale {
		old.stale = false
		t.vlans[old.id] = nil
		if v := s.vlans[old.id]; v != nil {
			t.vlans[old.id] = &[2]familyTable{v.inst[IPv4].table(), v.inst[IPv6].table()}
		}
	}
	s.stale = nil
	s.table = &t
	return s.table
}

// Changed reports whether Table would return another Table than the last time.
func (s *Snooper) Changed() bool { return len(s.stale) > 0 }

// changed must be called after any write to what table reads.
func (in *instance) changed() {
	if v := in.v; !v.stale {
		v.stale = true
		in.s.stale = append(in.s.stale, v)
	}
}

func (in *instance) table() familyTable {
	t := familyTable{
		filter:  in.querier.filter,
		unknown: !in.v.cfg.RouterOnly,
		routers: in.routers.list(),
		seed:    rand.Uint64() | 1,
	}
	// What is wanted, as key and port in one word, so that sorting groups the ports of
	// each key: groups that share a MAC share its entry.
	var wanted []uint64
	want := func(key uint32, port uint16) { wanted = append(wanted, uint64(key)<<16|uint64(port)) }
	for addr, g := range in.groups {
		key := macKey(addr)
		for _, m := range g.members {
			want(key, m.port)
		}
		for _, port := range t.routers {
			want(key, port)
		}
	}
	slices.Sort(wanted)
	wanted = slices.Compact(wanted)

	t.shift = uint(64 - bits.Len(uint(2*len(in.groups))))
	t.slots = make([]slot, 1<<(64-t.shift))
	t.ports = make([]uint16, len(wanted))
	for from := 0; from < len(wanted); {
		key, end := uint32(wanted[from]>>16), from
		for ; end < len(wanted) && uint32(wanted[end]>>16) == key; end++ {
			t.ports[end] = uint16(wanted[end])
		}
		i := t.home(key)
		for t.slots[i].n != 0 {
			i = (i + 1) & (len(t.slots) - 1)
		}
		t.slots[i] = slot{key: key, from: uint32(from), n: uint32(end - from)}
		from = end
	}
	return t
}

// home returns where the search for a key begins.
func (t *familyTable) home(key uint32) int {
	hi, lo := bits.Mul64(uint64(key)^t.seed, 0x9e37_79b9_7f4a_7c15^t.seed<<1)
	return int((hi ^ lo) >> t.shift)
}
