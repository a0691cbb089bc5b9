package fdb

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"
	"sync/atomic"
)

// How slots are shared
//
// The table is one array of slots with open addressing and linear probing. A slot is two
// atomic words, key and value. Go's atomics are sequentially consistent, so the rules
// below can be read as if operations happened one after another.
//
//  1. A key is written once: the CAS from 0 to k claims the slot for k for the life of
//     the array. Hence a value read from a slot that showed k belongs to k: it cannot
//     belong to a second key, and no mixed entry can be read.
//  2. A key goes to the first empty slot of its probe sequence. No slot becomes empty
//     again, so two inserters of k meet at the same slot and one CAS wins: k is in the
//     array at most once, without a lock.
//  3. A value is one word and changes only by CAS. 0 is no entry: a slot just claimed,
//     or one whose entry is gone. The slot of a key that is gone stays reserved for that
//     key; no other key ever uses it.
//  4. Only the caller whose CAS took a live value out of a slot subtracts it from the
//     counts of its port and of the table (release).
//  5. A rebuild drops the slots of keys that are gone. Rebuilds run one at a time, under
//     Table.mu. A rebuild first sets the frozen bit in every value of the old array, the
//     empty ones too. From then on each CAS there fails: earlier writes are copied, later
//     ones are refused, nothing is lost in between. Learn returns Busy when it meets the
//     bit. Readers ignore the bit: until the new array is published, the old one is
//     authoritative; after that, a reader still in the old array answers as of the moment
//     it began.
//  6. An array is never full (array.bound), so every probe ends at an empty slot.
//
// A port's flush changes no slot: it raises the port's generation, and values of an older
// generation count as gone at once (ports.go).

// slot is 16 bytes: four share a cache line, so a short probe costs one miss.
type slot struct {
	key   atomic.Uint64
	value atomic.Uint64
}

func (s *slot) load() value { return value(s.value.Load()) }
func (s *slot) replace(from, to value) bool {
	return s.value.CompareAndSwap(uint64(from), uint64(to))
}

// value is a station's entry:
//
//	61      60    58 57    42 41          20 19         0
//	frozen | kind   | port   | generation   | stamp
//
// stamp is the second in which the station was last heard, modulo 2^20, which covers the
// ageing times of 802.1Q-2018 table 8-6, 10 to 1,000,000 s.
type value uint64

const (
	stampBits = 20
	genBits   = 22

	genShift    = stampBits
	portShift   = genShift + genBits
	kindShift   = portShift + 16
	frozenShift = kindShift + 3

	stampMask       = 1<<stampBits - 1
	genMask         = 1<<genBits - 1
	frozen    value = 1 << frozenShift
)

func makeValue(kind Kind, port uint16, gen, stamp uint32) value {
	return value(kind)<<kindShift | value(port)<<portShift | value(gen)<<genShift | value(stamp)
}

func (v value) kind() Kind     { return Kind(v >> kindShift & 7) }
func (v value) port() uint16   { return uint16(v >> portShift) }
func (v value) gen() uint32    { return uint32(v>>genShift) & genMask }
func (v value) stamp() uint32  { return uint32(v) & stampMask }
func (v value) isFrozen() bool { return v&frozen != 0 }

func (v value) stamped(now uint32) value { return v&^stampMask | value(now&stampMask) }

const (
	// minSlots keeps a small table in the L1 cache: 1024 slots are 16 KiB.
	minSlots = 1024

	// An array is replaced when more than 5/8 of its slots are claimed: there a miss
	// takes 4 probes on average; at 3/4 it would take 8.5. A new array begins at most 3/8
	// full, so at least a quarter of its slots are claimed before the next rebuild, which
	// makes the rebuild's cost per new station constant.
	boundNum, roomNum, loadDen = 5, 3, 8
)

// slotsFor returns the size of a new array for n entries.
func slotsFor(n int) int {
	size := minSlots
	for size/loadDen*roomNum < n {
		size *= 2
	}
	return size
}

type array struct {
	slots []slot // a power of two
	seed  [4]uint64
	bound int64 // the most slots that may be claimed

	_    [64]byte
	used atomic.Int64 // slots claimed
}

func newArray(size int) *array {
	a := &array{slots: make([]slot, size), bound: int64(size / loadDen * boundNum)}
	var b [32]byte
	rand.Read(b[:]) // never fails
	for i := range a.seed {
		a.seed[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	a.seed[1] |= 1 // odd, so that the first round loses no bits of the key
	return a
}

// home returns where k's probe sequence begins; at reduces it to a slot. It hashes by two
// rounds of folded multiplication under a secret of the array: a guest cannot choose
// addresses that collide, and consecutive addresses spread. A new array has a new secret,
// so that copying in the order of the old array does not build up runs.
func (a *array) home(k Key) uint64 {
	hi, lo := bits.Mul64(uint64(k)^a.seed[0], a.seed[1])
	hi, lo = bits.Mul64(hi^a.seed[2], lo^a.seed[3])
	return hi ^ lo
}

func (a *array) at(i uint64) *slot { return &a.slots[i&uint64(len(a.slots)-1)] }

// find returns k's slot, or nil if no slot was claimed for k.
func (a *array) find(k Key) *slot {
	for i := a.home(k); ; i++ {
		s := a.at(i)
		switch Key(s.key.Load()) {
		case k:
			return s
		case 0:
			return nil
		}
	}
}

// claim claims an empty slot for k unless another call does so first, perhaps also for k. It
// reports whether it claimed the slot, and whether the slot is k's now.
func (s *slot) claim(k Key) (claimed, isFor bool) {
	claimed = s.key.CompareAndSwap(0, uint64(k))
	return claimed, claimed || Key(s.key.Load()) == k
}

// claim returns k's slot, claiming an empty one if k has none yet, or nil if the array has
// no slot left to claim.
func (a *array) claim(k Key) *slot {
	for i := a.home(k); ; i++ {
		s := a.at(i)
		switch Key(s.key.Load()) {
		case k:
			return s
		case 0:
			if a.used.Add(1) > a.bound {
				a.used.Add(-1)
				return nil
			}
			claimed, isFor := s.claim(k)
			if !claimed {
				a.used.Add(-1)
			}
			if isFor {
				return s
			}
		}
	}
}
