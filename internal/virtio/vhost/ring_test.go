package vhost

import (
	"errors"
	"strings"
	"testing"
	"unsafe"
)

// fakeQueue has chains when its test says so.
type fakeQueue struct {
	queue
	available bool
	onAsk     func(on bool)
}

func (q *fakeQueue) peek() bool      { return q.available }
func (q *fakeQueue) askKick(on bool) { q.onAsk(on) }
func (q *fakeQueue) base() uint32    { return 0 }

// What becomes available just before the driver knows that a kick is wanted comes
// without one, so it must be looked for once more.
func TestIdle(t *testing.T) {
	for _, late := range []bool{false, true} {
		q := &fakeQueue{}
		r := newRing(1, new(memory), nil)
		r.q = q
		asked := false
		q.onAsk = func(on bool) { asked, q.available = on, late }
		if idle := r.idle(); idle == late || !asked {
			t.Errorf("late %v: idle %v, asked for a kick %v", late, idle, asked)
		}
	}
	r := newRing(1, new(memory), nil)
	if r.idle() {
		t.Error("a ring that is stopped must be waited for elsewhere")
	}
}

// badAddress is a fault as the runtime reports it.
type badAddress uintptr

func (badAddress) Error() string   { return "fault" }
func (b badAddress) Addr() uintptr { return uintptr(b) }

// A fault in the guest's memory breaks the ring. Any other panic is a mistake of ours,
// which nobody shall take for the guest's.
func TestFaults(t *testing.T) {
	m, all := guestMemory(1<<13, 5000)
	var broke error
	r := newRing(3, m, func(err error) { broke = err })
	r.q = &fakeQueue{}
	use := func(v any) (other any) {
		defer func() { other = recover() }()
		if !r.Begin() {
			t.Fatal("the ring is not usable")
		}
		defer r.End()
		panic(v)
	}
	if other := use(badAddress(uintptr(unsafe.Pointer(&all[0])) + 8192)); other == nil || broke != nil {
		t.Errorf("a fault elsewhere: panic %v, broken: %v", other, broke)
	}
	if other := use("mistake"); other != "mistake" || broke != nil {
		t.Errorf("a panic: %v, broken: %v", other, broke)
	}
	if other := use(badAddress(uintptr(unsafe.Pointer(&all[8191])))); other != nil || !errors.Is(broke, errFault) || !strings.Contains(broke.Error(), "ring 3") {
		t.Errorf("a fault: panic %v, broken: %v", other, broke)
	}
	if r.Begin() {
		t.Error("a broken ring is usable")
	}
}

// The place at which a packed ring's driver wants to be told may be in another lap.
func TestPackedEvent(t *testing.T) {
	const size = 8
	for _, c := range []struct {
		event  place
		used   place
		filled int
		want   bool
	}{
		{place{3, true}, place{4, true}, 1, true},
		{place{3, true}, place{3, true}, 1, false},
		{place{3, true}, place{6, true}, 2, false},
		{place{7, true}, place{1, false}, 3, true},  // passed before the wrap
		{place{5, true}, place{1, false}, 3, false}, // before these
		{place{0, false}, place{1, false}, 3, true},
		{place{1, false}, place{1, false}, 3, false},
		{place{2, true}, place{2, false}, 8, true}, // a whole lap
	} {
		p := &packed{size: size, driver: make([]byte, 4), used: c.used, filled: c.filled}
		p.eventIdx = true
		store32(p.driver, eventsDesc<<16|uint32(c.event.bits()))
		if got := p.wantsCall(); got != c.want {
			t.Errorf("event at %+v, %d used up to %+v: %v", c.event, c.filled, c.used, got)
		}
	}
}
