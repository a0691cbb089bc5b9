package fdb

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"
	"sync/atomic"
)

// How slots are shared
//
// The table is one array of slots, open addressing with linear probing. A slot is
// two atomic words, key and value. Go's atomics are sequentially consistent, so
// the rules below can be read as if one thing happened after another.
//
//  1. A key is written once: the CAS from 0 to k claims the slot for k as long as
//     the array lives. Hence a value read from a slot that showed k is k's: there
//     is no second key it could belong to, and no mixed entry to act on.
//  2. A key goes to the first empty slot of its probe sequence. No slot becomes
//     empty again, so two who insert k meet at the same slot and one CAS wins: k
//     is in the array once at most, without a lock.
//  3. A value is one word and changes by CAS alone. 0 is no entry: a slot just
//     claimed, or one whose entry is gone. A gone key's slot waits for the same
//     key to come back; the words of other keys are never in its way.
//  4. Whoever's CAS took a live value out of a slot, and no one else, takes it off
//     the counts of its port and of the table (release).
//  5. Slots that wait for nobody are got rid of by a rebuild, one at a time, under
//     Table.mu. It first sets the frozen bit in every value of the old array, the
//     empty ones too. From then on each CAS there fails: what was written before is
//     copied, what comes after is refused, nothing is lost in between. Learn says
//     Busy when it meets the bit. Readers ignore the bit: until the new array is
//     published the old one is the truth, and after that a reader that is still
//     in it answers as of the moment it began.
//  6. An array is never full (array.bound), so every probe ends at an empty slot.
//
// A port's flush changes no slot: it raises the port's generation, and values that
// carry an older one count as gone at once (ports.go).

// slot is 16 bytes, so four of them share a cache line and a short probe costs
// one miss.
type slot struct {
	key   atomic.Uint64
	value atomic.Uint64
}

func (s *slot) load() value { return value(s.value.Load()) }
func (s *slot) replace(from, to value) bool {
	return s.value.CompareAndSwap(uint64(from), uint64(to))
}

// value is what is known of a station:
//
//	61      60    58 57    42 41          20 19         0
//	frozen | kind   | port   | generation   | stamp
//
// stamp is the second the station was last heard in, modulo 2^20, which covers
// the ageing times of 802.1Q-2018 table 8-6, 10 to 1,000,000 s.
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

	// An array is replaced when more than 5/8 of its slots are claimed: there a
	// miss takes 4 probes on average, at 3/4 it would take 8.5. A new one begins
	// at most 3/8 full, so at least a quarter of its slots are claimed before
	// the next rebuild, which makes its cost per new station a constant.
	boundNum, roomNum, loadDen = 5, 3, 8
)

// slotsFor is the size of a new array for n entries.
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
	a.seed[1] |= 1 // the first round must not lose bits of the key
	return a
}

// home is where k's probe sequence begins; at reduces it to a slot. Two rounds of
// folded multiplication under a secret of the array: a guest that picks its
// addresses cannot make them collide, and addresses in a row spread. A new
// array has a new secret, so that copying in the order of the old one does not
// pile up runs.
func (a *array) home(k Key) uint64 {
	hi, lo := bits.Mul64(uint64(k)^a.seed[0], a.seed[1])
	hi, lo = bits.Mul64(hi^a.seed[2], lo^a.seed[3])
	return hi ^ lo
}

func (a *array) at(i uint64) *slot { return &a.slots[i&uint64(len(a.slots)-1)] }

// find returns k's slot, or nil when no slot was claimed for it.
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

// claim returns k's slot, taking an empty one where there is none yet, or nil
// when the array has no slot to give.
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
			if s.key.CompareAndSwap(0, uint64(k)) {
				return s
			}
			a.used.Add(-1)
			if Key(s.key.Load()) == k {
				return s
			}
		}
	}
}
