// Package fdb is the filtering database of a VLAN bridge (802.1Q-2018 clause 8.8): it maps
// each (VLAN, MAC) to the port behind which it is. Any goroutine may call any method.
// Lookup and Learn are for the data path: they never wait and, except for a rebuild, never
// allocate. All other methods are for control: they may wait for each other. The table
// starts no goroutine and reads no clock; see Advance and Sweep.
package fdb

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Key is a station: VLAN<<48 | MAC, the MAC's first octet on top.
type Key uint64

// MakeKey makes a key from a VLAN and the lower 48 bits of mac.
func MakeKey(vlan uint16, mac uint64) Key { return Key(vlan)<<48 | Key(mac)&macMask }

func (k Key) VLAN() uint16 { return uint16(k >> 48) }
func (k Key) MAC() uint64  { return uint64(k & macMask) }

func (k Key) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x vlan %d",
		byte(k>>40), byte(k>>32), byte(k>>24), byte(k>>16), byte(k>>8), byte(k), k.VLAN())
}

const (
	macMask  Key = 1<<48 - 1
	groupBit Key = 1 << 40 // I/G, 802.3 clause 3.2.3.1
)

// isStation reports whether the address can belong to one station: it is neither zero nor
// a group address.
func (k Key) isStation() bool { return k&macMask != 0 && k&groupBit == 0 }

// NoPort is the port of entries that lead to no port.
const NoPort uint16 = 0xffff

// Kind says how an entry may change.
type Kind uint8

const (
	Dynamic Kind = iota + 1 // ages, moves, gives way when the table is full
	Sticky                  // ages, but traffic from another port does not move it
	Static                  // neither ages nor moves
	Local                   // an address of the switch itself: Static, at NoPort
)

func (k Kind) String() string {
	switch k {
	case Dynamic:
		return "dynamic"
	case Sticky:
		return "sticky"
	case Static:
		return "static"
	case Local:
		return "local"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// ages reports whether entries of this kind expire and are flushed. Only Delete,
// RemovePort and Add remove the others.
func (k Kind) ages() bool { return k == Dynamic || k == Sticky }

const (
	DefaultCapacity = 65536
	MaxCapacity     = 1 << 20
)

// ErrFull is returned by Add when no entry can be evicted.
var ErrFull = errors.New("the MAC table is full of entries that cannot be evicted; delete some or raise its capacity")

// Config configures New. The zero Config is useful.
type Config struct {
	// Capacity is the most entries of all kinds; 0: DefaultCapacity. It is capped at
	// MaxCapacity.
	Capacity int

	// Aging is how long a silent station is remembered; 0: DefaultAging, negative: for
	// ever. See SetAging.
	Aging time.Duration

	// Observer is told of changes; nil: none.
	Observer Observer
}

// Observer is told of a table's changes, for instance to keep a replica.
type Observer interface {
	// Changed reports that k's entry was added, removed, or changed port or kind; the
	// table has its current state. It is called on the data path and must not wait. An
	// expired entry is reported when it is reclaimed.
	Changed(k Key)

	// Flushed reports that all Dynamic and Sticky entries of the port were removed.
	// Changed is not called for them.
	Flushed(port uint16)
}

// ignore is the Observer of a table that has none.
type ignore struct{}

func (ignore) Changed(Key)    {}
func (ignore) Flushed(uint16) {}

// Table is a filtering database. Make it with New.
type Table struct {
	// The data path reads these fields and hardly ever writes them.
	array    atomic.Pointer[array]
	clock    clock
	capacity int64
	ports    portDirectory
	observer Observer

	// These change with each new station, so they stay off the cache lines above.
	_         [64]byte
	total     atomic.Int64  // entries: those that ports count, and static ones
	hand      atomic.Uint64 // where eviction searches next
	evictions atomic.Uint64
	rebuilds  atomic.Uint64

	// mu is held by callers that may rebuild the array: control calls wait for it, Learn
	// only tries.
	mu      sync.Mutex
	sweepAt uint64 // where Sweep continues
}

// New makes an empty table.
func New(c Config) *Table {
	if c.Capacity <= 0 {
		c.Capacity = DefaultCapacity
	}
	t := &Table{capacity: int64(min(c.Capacity, MaxCapacity)), observer: c.Observer}
	if t.observer == nil {
		t.observer = ignore{}
	}
	if c.Aging == 0 {
		c.Aging = DefaultAging
	}
	t.SetAging(c.Aging)
	t.array.Store(newArray(minSlots))
	return t
}

// Len returns the number of entries of all kinds. An expired entry counts until Sweep or
// Learn finds it.
func (t *Table) Len() int { return int(max(t.total.Load(), 0)) }

// Stats are a table's statistics.
type Stats struct {
	Capacity  int    // most entries
	Slots     int    // size of the array now; a slot is 16 bytes
	Evictions uint64 // entries evicted for a new station
	Rebuilds  uint64 // how often the array was replaced
}

// Stats returns the current statistics.
func (t *Table) Stats() Stats {
	return Stats{
		Capacity:  int(t.capacity),
		Slots:     len(t.array.Load().slots),
		Evictions: t.evictions.Load(),
		Rebuilds:  t.rebuilds.Load(),
	}
}
