// Package fdb is the filtering database of a VLAN bridge (802.1Q-2018 clause 8.8):
// it knows behind which port each (VLAN, MAC) is. Any goroutine may call any
// method. Lookup and Learn are for the data path: they never wait and, but for a
// rebuild, never allocate. All other methods are for control: they may wait for
// each other. The table starts no goroutine and reads no clock; see Advance, Sweep.
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

// MakeKey puts a key together from a VLAN and the lower 48 bits of mac.
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

// isStation tells whether the address can be that of one station: neither zero
// nor a group.
func (k Key) isStation() bool { return k&macMask != 0 && k&groupBit == 0 }

// NoPort is the port of an entry that leads to no port.
const NoPort uint16 = 0xffff

// Kind says what may become of an entry.
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

// ages tells entries that go by time, by a port's flush and by Flush from those
// that only Delete, RemovePort and Add take away.
func (k Kind) ages() bool { return k == Dynamic || k == Sticky }

const (
	DefaultCapacity = 65536
	MaxCapacity     = 1 << 20
)

// ErrFull is what Add returns when every entry is one that cannot be evicted.
var ErrFull = errors.New("the MAC table is full of entries that cannot be evicted; delete some or raise its capacity")

// Config is what a table is made from. Its zero value is a good one.
type Config struct {
	// Capacity is the most entries of all kinds; 0 is DefaultCapacity, and
	// more than MaxCapacity is MaxCapacity.
	Capacity int

	// Aging is how long a station that stays silent is remembered; 0 is
	// DefaultAging, less than 0 is for ever. See SetAging.
	Aging time.Duration

	// Observer is told of changes; nil is nobody.
	Observer Observer
}

// Observer is told what changed in a table, for instance to keep a copy of it.
type Observer interface {
	// Changed: k has come, gone, or got another port or kind. What it is now, the
	// table tells. It is called on the data path and must not wait. That an entry
	// has expired is told when it is reclaimed.
	Changed(k Key)

	// Flushed: the port has no Dynamic and Sticky entries any more. Changed is not
	// called for them.
	Flushed(port uint16)
}

// ignore is the Observer of a table that has none.
type ignore struct{}

func (ignore) Changed(Key)    {}
func (ignore) Flushed(uint16) {}

// Table is a filtering database. Make it with New.
type Table struct {
	// What the data path reads and hardly ever writes.
	array    atomic.Pointer[array]
	clock    clock
	capacity int64
	ports    portDirectory
	observer Observer

	// What changes with each new station, away from the words above.
	_         [64]byte
	total     atomic.Int64  // entries: those the ports count, and static ones
	hand      atomic.Uint64 // where eviction looks next
	evictions atomic.Uint64
	rebuilds  atomic.Uint64

	// mu is held by whoever may rebuild the array: control calls wait for it,
	// Learn only tries.
	mu      sync.Mutex
	sweepAt uint64 // where Sweep goes on
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

// Len is the number of entries of all kinds. An expired one counts until Sweep
// or Learn meets it.
func (t *Table) Len() int { return int(max(t.total.Load(), 0)) }

// Stats are numbers of a table's life.
type Stats struct {
	Capacity  int    // most entries
	Slots     int    // size of the array now; a slot is 16 bytes
	Evictions uint64 // entries that gave way to a new station
	Rebuilds  uint64 // how often the array was replaced
}

// Stats returns the numbers as they are now.
func (t *Table) Stats() Stats {
	return Stats{
		Capacity:  int(t.capacity),
		Slots:     len(t.array.Load().slots),
		Evictions: t.evictions.Load(),
		Rebuilds:  t.rebuilds.Load(),
	}
}
