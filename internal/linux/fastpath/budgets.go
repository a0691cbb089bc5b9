package fastpath

import (
	"fmt"
	"math"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// budgets are the budgets of all ports, two for each port number, in memory shared with
// the kernel. Workers of the switch charge them until the last one ends, so the memory
// stays as long as the Path is referenced.
type budgets struct {
	memory []byte
	all    []budget
	clock  time.Time     // when the kernel's clock showed offset
	offset time.Duration // of CLOCK_MONOTONIC
}

// budget is struct bucket of fastpath.c.
type budget struct {
	until atomic.Int64
	rate  atomic.Uint64
	burst atomic.Int64
	_     uint64 // over, the program's own
}

// load maps the budgets, unused or as an earlier process left them.
func (b *budgets) load(bpf *bpfMaps) error {
	b.clock, b.offset = time.Now(), monotonic()
	n := int(bpf.Buckets.MaxEntries())
	page := os.Getpagesize()
	size := (n*int(unsafe.Sizeof(budget{})) + page - 1) / page * page
	var err error
	b.memory, err = unix.Mmap(bpf.Buckets.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the budgets: %w", err)
	}
	b.all = unsafe.Slice((*budget)(unsafe.Pointer(&b.memory[0])), n)
	return nil
}

// index returns the place of a port's budget.
func (b *budgets) index(number uint16, turn uint8) int { return 2*int(number) + int(turn&1) }

// set gives a port's budget its rate, and returns the bucket of a bpfPort with it.
func (b *budgets) set(number uint16, r vswitch.FastRate) uint16 {
	if r.PerSecond == 0 {
		return 0
	}
	i := b.index(number, r.Turn)
	b.all[i].rate.Store(rateWord(r.Rate))
	b.all[i].burst.Store(int64(r.Burst))
	return uint16(i + 1)
}

// The parts of a rate as fastpath.c reads it: what it counts, a shift, and what one frame
// or byte costs in ns, shifted by that.
const (
	rateBytes = 1 << 63
	rateShift = 56

	// costBits are the bits of a cost: a super-frame in the shortest segments is less
	// than 2^22 bytes on the wire.
	costBits = 41
)

func rateWord(r port.Rate) uint64 {
	ns, word := 1e9/float64(r.PerSecond), uint64(0)
	if r.Bits {
		ns, word = 8*ns, rateBytes
	}
	_, bits := math.Frexp(ns)
	shift := min(costBits-bits, 63)
	return word | uint64(shift)<<rateShift | min(uint64(math.Round(math.Ldexp(ns, shift))), 1<<costBits-1)
}

// Now implements vswitch.FastPath.
func (p *Path) Now() int64 { return int64(p.slots.budgets.offset + time.Since(p.slots.budgets.clock)) }

// Budget implements vswitch.FastPath.
func (p *Path) Budget(number uint16, turn uint8) *atomic.Int64 {
	b := &p.slots.budgets
	return &b.all[b.index(number, turn)].until
}
