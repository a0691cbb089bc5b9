package vhost

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// queue is the interface that split and packed virtqueues share. The caller of its
// methods holds the Ring's lock.
type queue interface {
	// peek reports whether a chain is available.
	peek() bool

	// next takes the next available chain and appends its buffers to parts. write is
	// true when data goes to the guest.
	next(parts []Buffer, write bool) (Chain, []Buffer, bool, error)

	// mark returns the place of the next chain; rewind goes back to one.
	mark() uint32
	rewind(mark uint32)

	// use gives a chain back with the number of bytes written. Chains are given back in
	// the order in which they were taken; publish makes them visible to the driver.
	use(c Chain, written uint32)
	publish()

	// singles returns the next available chains, up to the first that has several
	// buffers, is faulty, or exceeds what one call returns. It looks for more if it knows
	// fewer than least. useSingles takes the first of those and gives them back.
	singles(least int, write bool) ([]Single, error)
	useSingles(used []Single)

	// wantsCall reports whether the driver wants a call for what was published.
	wantsCall() bool

	// askKick turns the driver's kicks on or off. After turning them on, the caller
	// must peek once more.
	askKick(on bool)

	// base is what GET_VRING_BASE returns: the place of the first chain that was not
	// given back.
	base() uint32
}

// ringCommon is the state that both kinds of queues need.
type ringCommon struct {
	ahead
	mem      *memory
	hint     int       // see memory.at
	log      *dirtyLog // nil: no logging requested
	logRing  bool      // log writes to the ring itself too
	eventIdx bool
	indirect bool
	onEmpty  bool // split ring whose driver wants a call when it runs empty
	barrier  uint32
}

func (c *ringCommon) walk(parts []Buffer, size int, write bool) walk {
	return walk{mem: c.mem, hint: &c.hint, parts: parts, left: min(size, maxChain), write: write, offered: c.indirect}
}

// dirty logs a write to the ring.
func (c *ringCommon) dirty(gpa uint64, offset, n int) {
	if c.logRing {
		c.log.mark(gpa+uint64(offset), uint64(n))
	}
}

// fence keeps writes before it from becoming visible after reads behind it.
func (c *ringCommon) fence() { atomic.StoreUint32(&c.barrier, 0) }

// Ring is one virtqueue. Any number of goroutines may use it, each between Begin and
// End; only the one that takes from it calls Wait. A guest's error breaks the ring: it
// stays unusable, and the Backend's connection ends.
type Ring struct {
	index  int
	broke  func(error) // see NewBackend
	change chan struct{}
	mem    *memory

	mu      sync.Mutex
	q       queue // nil unless started
	err     error // why the ring is broken
	enabled bool
	kick    *os.File // nil: the ring is polled
	conn    syscall.RawConn
	call    int           // -1: none
	calls   atomic.Uint32 // odd during a call
	log     *dirtyLog
	parts   []Buffer
	asked   bool // kicks are on
	fault   bool // debug.SetPanicOnFault before Begin

	waiting func(uintptr) bool // argument of conn.Read, made once

	// Settings from the front end; see backend.go.
	num     uint32
	addr    RingAddr
	started bool
	base    uint32

	journal []byte // q's, if it is a packed ring; nil: none outlives the process

	lent  []Chain
	epoch uint64 // counts the queues that q has held
}

func newRing(index int, mem *memory, broke func(error)) *Ring {
	r := &Ring{index: index, broke: broke, mem: mem, call: -1, change: make(chan struct{}, 1)}
	r.waiting = func(uintptr) bool { return !r.idle() }
	return r
}

// Begin locks the ring. It returns false if the ring is not started; End must not be
// called then. Defer End, so that a fault ends there: a guest can take memory away
// under its reader.
func (r *Ring) Begin() bool {
	r.mu.Lock()
	return r.begin()
}

// TryBegin is Begin that does not wait: it returns false also while another holds the ring.
func (r *Ring) TryBegin() bool { return r.mu.TryLock() && r.begin() }

func (r *Ring) begin() bool {
	if r.q == nil || r.err != nil {
		r.mu.Unlock()
		return false
	}
	r.fault = debug.SetPanicOnFault(true)
	return true
}

// End unlocks the ring. A fault in the guest's memory since Begin ends here and breaks
// the ring.
func (r *Ring) End() {
	if v := recover(); v != nil {
		r.fail(r.faulted(v))
	}
	debug.SetPanicOnFault(r.fault)
	r.mu.Unlock()
}

// Flush publishes the used chains, and calls the driver if it wants that.
func (r *Ring) Flush() {
	if r.Show(); r.err == nil && r.q.wantsCall() {
		r.signal()
	}
}

// Show publishes the used chains to a driver that polls; Flush must follow.
func (r *Ring) Show() {
	if r.err == nil {
		r.q.publish()
	}
}

var errFault = errors.New("the guest's memory was taken away")

// faulted returns the error for a fault in the guest's memory. Any other panic is not
// caused by the guest; faulted does what End would do and panics again.
func (r *Ring) faulted(v any) error {
	if at := faultAt(v); r.mem.holds(at) || r.log.holds(at) || within(at, r.journal) {
		return errFault
	}
	debug.SetPanicOnFault(r.fault)
	r.mu.Unlock()
	panic(v)
}

// faultAt returns the fault address of a panic, or 0 if the panic is no fault.
func faultAt(v any) uintptr {
	if f, ok := v.(interface{ Addr() uintptr }); ok {
		return f.Addr()
	}
	return 0
}

// setPanicOnFault turns faults in the guest's memory into panics until the caller calls
// the function it returns.
func setPanicOnFault() func() {
	before := debug.SetPanicOnFault(true)
	return func() { debug.SetPanicOnFault(before) }
}

// toGuest reports whether the ring carries frames to the guest: even rings are receive
// queues (virtio 1.2, 5.1.2).
func (r *Ring) toGuest() bool { return r.index%2 == 0 }

func (r *Ring) fail(err error) {
	r.err = fmt.Errorf("ring %d: %w", r.index, err)
	r.broke(r.err)
}

// Enabled reports whether the ring is enabled; call it between Begin and End. A
// disabled ring still has buffers to discard.
func (r *Ring) Enabled() bool { return r.enabled }

// Next takes the next available chain; write is true if the guest will read it. Its
// buffers follow the first keep ones that the last Next returned, and are valid until
// End. ok is false when no chain is available.
func (r *Ring) Next(keep int, write bool) (c Chain, buffers []Buffer, ok bool) {
	if r.err != nil {
		return c, nil, false
	}
	c, r.parts, ok, r.err = r.q.next(r.parts[:keep], write)
	if r.err != nil {
		r.fail(r.err)
	}
	return c, r.parts, ok
}

// Fail breaks the ring for an error that only the device can detect.
func (r *Ring) Fail(err error) { r.fail(err) }

// Failed reports whether the ring is broken; call it between Begin and End.
func (r *Ring) Failed() bool { return r.err != nil }

// Mark returns the place of the next chain; Rewind goes back to it, provided that no
// chain taken since was used.
func (r *Ring) Mark() uint32       { return r.q.mark() }
func (r *Ring) Rewind(mark uint32) { r.q.rewind(mark) }

// Use gives a chain back with the number of bytes written to it. Chains are given back
// in the order in which they were taken.
func (r *Ring) Use(c Chain, written uint32) { r.q.use(c, written) }

// Wrote records bytes written to a buffer in a live migration's log.
func (r *Ring) Wrote(b Buffer, n int) {
	if r.log != nil {
		r.log.mark(b.gpa, uint64(n))
	}
}

// Ready reports whether the ring is started and enabled.
func (r *Ring) Ready() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.q != nil && r.err == nil && r.enabled
}

// HasWork reports whether a chain is available; call it between Begin and End.
func (r *Ring) HasWork() bool { return r.err == nil && r.q.peek() }

// pollEvery is the polling interval of a ring without a kick descriptor.
const pollEvery = 100 * time.Microsecond

// Wait returns when a chain may be available, the ring changed, or Wake was called.
// Only one goroutine may wait.
func (r *Ring) Wait() {
	r.mu.Lock()
	usable, kick, conn := r.q != nil && r.err == nil, r.kick, r.conn
	r.mu.Unlock()
	switch {
	case !usable:
		<-r.change
	case kick == nil:
		select {
		case <-r.change:
		case <-time.After(pollEvery):
		}
	default:
		// The descriptor is never read: the netpoller reports each write to it, and its
		// value says nothing that the ring does not.
		if errors.Is(conn.Read(r.waiting), os.ErrDeadlineExceeded) {
			_ = kick.SetReadDeadline(time.Time{})
		}
	}
}

// idle asks for kicks and reports whether there is still nothing to do.
func (r *Ring) idle() bool {
	if !r.Begin() {
		return false
	}
	defer r.End()
	if r.q.peek() {
		return false
	}
	r.askKick(true)
	return !r.q.peek()
}

// askKick turns the driver's kicks on or off, if they are not already.
func (r *Ring) askKick(on bool) {
	if on || r.asked {
		r.q.askKick(on)
		r.asked = on
	}
}

// Busy disables kicks while the ring is polled.
func (r *Ring) Busy() { r.askKick(false) }

// Wake makes Wait return.
func (r *Ring) Wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wake()
}

func (r *Ring) wake() {
	select {
	case r.change <- struct{}{}:
	default:
	}
	if r.kick != nil {
		_ = r.kick.SetReadDeadline(time.Unix(1, 0))
	}
}
