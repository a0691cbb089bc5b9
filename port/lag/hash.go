package lag

import (
	"encoding/binary"

	"github.com/vswitch/vswitch/port"
)

// The choice of a frame's member has two steps, so that flows keep their member when
// another comes or goes: a hash leads to a bucket, and a table gives each bucket to a member.

// numBuckets is the number of buckets: members have equal shares but for one part in 32.
const numBuckets = port.BundleBuckets

// none is a bucket without member.
const none = 0xff

// buckets gives each bucket to a member.
type buckets [numBuckets]uint8

// noBuckets has no members.
var noBuckets = func() (b buckets) {
	for i := range b {
		b[i] = none
	}
	return b
}()

// rebalance gives the buckets to the members that are active. It moves no more buckets than
// it must: those of members that left, and as many as a member that came needs.
func (b buckets) rebalance(active []int) buckets {
	if len(active) == 0 {
		return noBuckets
	}
	var has [maxMembers]int // buckets of each member
	var is [maxMembers]bool
	for _, m := range active {
		is[m] = true
	}
	least := func() int {
		at := active[0]
		for _, m := range active {
			if has[m] < has[at] {
				at = m
			}
		}
		return at
	}
	for _, m := range b {
		if m != none && is[m] {
			has[m]++
		}
	}
	for i, m := range b {
		if m == none || !is[m] {
			to := least()
			b[i] = uint8(to)
			has[to]++
		}
	}
	share := numBuckets / len(active)
	for i, m := range b {
		if to := least(); has[m] > share+1 || has[m] > share && has[to] < share {
			has[m]--
			b[i] = uint8(to)
			has[to]++
		}
	}
	return b
}

// spread returns what a fast path calls the hash.
func (h Hash) spread() port.Spread {
	switch h {
	case hashMAC:
		return port.SpreadMAC
	case hashPorts:
		return port.SpreadPorts
	}
	return port.SpreadIP
}

// mix adds a word to a hash: blend in internal/linux/fastpath/bpf/lag.h.
func mix(h, word uint64) uint64 {
	h = (h ^ word) * 0x9e3779b97f4a7c15
	return h ^ h>>32
}

const (
	typeIPv4 = 0x0800
	typeIPv6 = 0x86dd

	protocolTCP = 6
	protocolUDP = 17
)

// bucket returns the bucket of a frame: bucket_of in internal/linux/fastpath/bpf/lag.h. Frames
// that the hash does not understand are spread by their Ethernet addresses; fragments of IP have
// no ports.
func (h Hash) bucket(f *port.Frame) uint8 {
	if h == hashPorts {
		if hash, ok := network(0, f.Data, true); ok {
			return uint8(hash >> 24)
		}
	}
	hash := mix(mix(0, uint64(f.Dst)), uint64(f.Src))
	if h == hashIP || h == "" {
		hash, _ = network(hash, f.Data, false)
	}
	return uint8(hash >> 24)
}

// network adds the addresses of a frame's IP header to a hash, and its TCP or UDP ports. ok is
// false if it has no such header.
func network(h uint64, b []byte, ports bool) (hash uint64, ok bool) {
	if len(b) < port.HeaderLen {
		return h, false
	}
	etherType, b := binary.BigEndian.Uint16(b[12:]), b[port.HeaderLen:]
	var protocol byte
	switch {
	case etherType == typeIPv4 && len(b) >= 20:
		h = mix(h, binary.BigEndian.Uint64(b[12:]))
		const fragment = 0x3fff // more fragments, and the offset
		if binary.BigEndian.Uint16(b[6:])&fragment == 0 {
			protocol = b[9]
		}
		b = b[min(len(b), int(b[0]&0xf)*4):]
	case etherType == typeIPv6 && len(b) >= 40:
		for i := 8; i < 40; i += 8 {
			h = mix(h, binary.BigEndian.Uint64(b[i:]))
		}
		protocol = b[6]
		b = b[40:]
	default:
		return h, false
	}
	if ports && (protocol == protocolTCP || protocol == protocolUDP) && len(b) >= 4 {
		h = mix(h, uint64(binary.BigEndian.Uint32(b)))
	}
	return h, true
}
