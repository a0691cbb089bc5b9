package vhost

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Handler is the device behind a Backend. The goroutine that drives the Backend calls
// it.
type Handler interface {
	// Changed is called when features or the state of a ring changed.
	Changed()

	// Announce asks the device to make the guest's address known: the guest moved here.
	Announce(mac [6]byte)

	// SetMTU reports the MTU that the guest was given.
	SetMTU(mtu int)
}

// Backend holds a guest's memory and rings as one front end sets them up. Its rings
// stay the same for its whole life; Reset makes it as new between front ends.
type Backend struct {
	offered uint64
	handler Handler
	rings   []*Ring

	acked uint64
	mem   memory
	log   *dirtyLog
	own   inflight // kept in a file

	talk  *Conversation // with the front end that is there; nil: it has not said anything
	setup setup         // by it
	pause atomic.Bool   // see PauseServe

	ownFile int      // number of that file; 0: none
	given   inflight // by the front end
	keep    []int    // descriptors held until the connection ends
}

var _ Actions = (*Backend)(nil)

// NewBackend returns a back end with the given number of rings that offers the device's
// features. It calls broke with the reason when a ring breaks, from any goroutine and
// with locks held, so broke must not wait.
func NewBackend(rings int, features uint64, h Handler, broke func(error)) (*Backend, error) {
	if !littleEndian {
		return nil, errors.New("vhost-user needs a little-endian machine; use another kind of port")
	}
	b := &Backend{offered: features | RingFeatures, handler: h, setup: setup{changed: make(chan struct{}, 1)}}
	for i := range rings {
		b.rings = append(b.rings, newRing(i, &b.mem, broke))
	}
	return b, nil
}

// Ring returns a ring by its number.
func (b *Backend) Ring(i int) *Ring { return b.rings[i] }

// Acked returns the negotiated features.
func (b *Backend) Acked() uint64 { return b.acked }

// NumRings implements Actions.
func (b *Backend) NumRings() int { return len(b.rings) }

// Features implements Actions.
func (b *Backend) Features() uint64 { return b.offered }

// SetFeatures implements Actions. It may be called while rings are running: a live
// migration begins with FeatureLogAll.
func (b *Backend) SetFeatures(f uint64) error {
	b.lock()
	b.acked = f
	b.refresh()
	b.unlock()
	b.handler.Changed()
	return nil
}

// lock stops all rings: until unlock, nobody accesses the guest's memory. A goroutine
// that holds a ring to a guest may wait for a ring from another guest (see Loan), never
// the reverse, so lock takes the rings to the guest first.
func (b *Backend) lock() {
	for _, toGuest := range []bool{true, false} {
		for _, r := range b.rings {
			if r.toGuest() == toGuest {
				r.mu.Lock()
			}
		}
	}
}

func (b *Backend) unlock() {
	for _, r := range b.rings {
		r.mu.Unlock()
	}
}

// refresh makes started rings use the current memory, log and features. A ring whose
// memory is gone waits for it to come back. The caller has locked all rings.
func (b *Backend) refresh() {
	for _, r := range b.rings {
		// The Go heap may grow into the unmapped range, and the garbage collector
		// follows pointers into it.
		clear(r.parts[:cap(r.parts)])
		if r.started {
			_ = b.open(r)
		}
	}
}

// open makes a started ring ready if it can. The caller has locked the ring.
func (b *Backend) open(r *Ring) (err error) {
	r.shut()
	if r.num == 0 {
		return fmt.Errorf("ring %d: %w", r.index, errNoSize)
	}
	r.journal = b.journalOf(r)
	c := ringCommon{
		mem:      &b.mem,
		eventIdx: b.acked&FeatureEventIdx != 0,
		indirect: b.acked&FeatureIndirect != 0,
		onEmpty:  b.acked&FeatureNotifyOnEmpty != 0,
	}
	if b.acked&FeatureLogAll != 0 && b.log != nil {
		c.log, c.logRing = b.log, r.addr.Log
		r.log = b.log
	}
	defer func() {
		// The file may have shrunk since it was mapped.
		if v := recover(); v != nil {
			err = r.faulted(v)
		}
	}()
	defer setPanicOnFault()()
	var q queue
	if b.acked&FeatureRingPacked != 0 {
		q, err = openPacked(c, int(r.num), r.addr, r.base, r.journal)
	} else {
		q, err = openSplit(c, int(r.num), r.addr)
	}
	if err != nil {
		return fmt.Errorf("ring %d: %w", r.index, err)
	}
	r.q = q
	// The driver kicks until told otherwise; nobody waits for new room.
	r.asked = true
	if r.toGuest() {
		r.askKick(false)
	}
	r.wake()
	return nil
}

// shut removes a ring's queue and takes back what it lent. The caller has locked the
// ring.
func (r *Ring) shut() {
	if r.q != nil {
		r.base = r.q.base()
	}
	r.q, r.log, r.lent = nil, nil, r.lent[:0]
	r.epoch++
}

// SetMemory implements Actions.
func (b *Backend) SetMemory(regions []Region, fds []int) error {
	var m memory
	for i, r := range regions {
		p, err := m.mapRegion(r, fds[i])
		if err == nil {
			if err = m.add(p); err != nil {
				unmap(p.whole)
			}
		}
		if err != nil {
			m.unmap()
			for _, fd := range fds[i+1:] {
				unix.Close(fd)
			}
			return err
		}
	}
	b.lock()
	old := b.mem
	b.mem = m
	b.refresh()
	b.unlock()
	old.unmap()
	b.handler.Changed()
	return nil
}

// AddMemory implements Actions. Some front ends add the same memory once per pair of
// rings.
func (b *Backend) AddMemory(r Region, fd int) error {
	if b.mem.find(r) >= 0 {
		return unix.Close(fd)
	}
	p, err := b.mem.mapRegion(r, fd)
	if err != nil {
		return err
	}
	b.lock()
	err = b.mem.add(p)
	b.refresh()
	b.unlock()
	if err != nil {
		unmap(p.whole)
		return err
	}
	b.handler.Changed()
	return nil
}

// RemoveMemory implements Actions.
func (b *Backend) RemoveMemory(r Region) error {
	i := b.mem.find(r)
	if i < 0 {
		return ErrRefused // or already removed
	}
	b.lock()
	whole := b.mem.regions[i].whole
	b.mem.remove(i)
	b.refresh()
	b.unlock()
	unmap(whole)
	b.handler.Changed()
	return nil
}

// SetLog implements Actions.
func (b *Backend) SetLog(fd int, offset, size uint64) error {
	const limit = 1 << 40 // one bit per page: the log of 2⁵⁵ bytes
	if size == 0 || size > limit || offset > limit || offset%8 != 0 {
		unix.Close(fd)
		return fmt.Errorf("a log of %d bytes at %d", size, offset)
	}
	l := new(dirtyLog)
	var err error
	if l.whole, l.bits, err = mapForeign(fd, offset, size); err != nil {
		return err
	}
	b.lock()
	old := b.log
	b.log = l
	b.refresh()
	b.unlock()
	old.unmap()
	return nil
}

// SetRingNum implements Actions.
func (b *Backend) SetRingNum(ring int, num uint32) error {
	r := b.rings[ring]
	r.mu.Lock()
	r.num = num
	r.mu.Unlock()
	return nil
}

// SetRingAddr implements Actions. On a running ring it switches logging on or off.
func (b *Backend) SetRingAddr(ring int, a RingAddr) error {
	r := b.rings[ring]
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addr = a
	if r.started {
		return b.open(r)
	}
	return nil
}

// SetRingBase implements Actions.
func (b *Backend) SetRingBase(ring int, base uint32) error {
	r := b.rings[ring]
	r.mu.Lock()
	r.base = base
	r.mu.Unlock()
	return nil
}

// SetKick implements Actions. It starts the ring.
func (b *Backend) SetKick(ring, fd int) error {
	r := b.rings[ring]
	var kick *os.File
	if fd >= 0 {
		// A file of a file system that the front end provides (FUSE) answers when it
		// likes whether there is something to read, and the runtime waits.
		err := checkEventFD(fd)
		if err != nil {
			unix.Close(fd)
			return fmt.Errorf("a kick descriptor that %w", err)
		}
		if kick, err = openKick(fd); err != nil {
			return err
		}
	}
	r.mu.Lock()
	old := r.kick
	r.kick, r.conn = kick, nil
	if kick != nil {
		r.conn, _ = kick.SyscallConn() // fails only for a nil file
	}
	r.started = true
	err := b.open(r)
	r.mu.Unlock()
	closeFile(old)
	b.handler.Changed()
	return err
}

// openKick returns a file for fd that the netpoller waits on. It owns fd.
func openKick(fd int) (*os.File, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "kick")
	if err := f.SetReadDeadline(time.Time{}); err != nil {
		f.Close()
		return nil, errors.New("a kick descriptor that cannot be waited on")
	}
	return f, nil
}

// closeFile closes a ring's descriptor. The caller must not hold the ring's lock:
// closeFile waits for a goroutine inside Wait, which may be about to take that lock.
func closeFile(f *os.File) {
	if f != nil {
		_ = f.Close() // closing an eventfd cannot fail
	}
}

// SetCall implements Actions.
func (b *Backend) SetCall(ring, fd int) error {
	if fd >= 0 {
		// A call must not block on the driver; see watchCalls.
		if err := checkEventFD(fd); err != nil {
			unix.Close(fd)
			return fmt.Errorf("a call descriptor that %w", err)
		}
	}
	r := b.rings[ring]
	r.mu.Lock()
	defer r.mu.Unlock()
	r.setCall(fd)
	if r.q != nil && fd >= 0 {
		r.signal() // calls missed between the two descriptors
	}
	return nil
}

func checkEventFD(fd int) error {
	if name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err != nil || name != "anon_inode:[eventfd]" {
		return errors.New("is no eventfd")
	}
	return unix.SetNonblock(fd, true)
}

// EnableRing implements Actions.
func (b *Backend) EnableRing(ring int, on bool) {
	r := b.rings[ring]
	r.mu.Lock()
	r.enabled = on
	r.wake()
	r.mu.Unlock()
	b.handler.Changed()
}

// StopRing implements Actions. From now on the front end knows the ring's position.
func (b *Backend) StopRing(ring int) uint32 {
	return b.stop(b.rings[ring], true)
}

// stop stops a ring and returns its base.
func (b *Backend) stop(r *Ring, forget bool) uint32 {
	r.mu.Lock()
	r.shut()
	if forget {
		r.forget()
	}
	r.started, r.journal = false, nil
	r.setCall(-1)
	r.wake()
	kick, base := r.kick, r.base
	r.kick, r.conn = nil, nil
	r.mu.Unlock()
	closeFile(kick)
	b.handler.Changed()
	return base
}

// Announce implements Actions.
func (b *Backend) Announce(mac [6]byte) { b.handler.Announce(mac) }

// SetMTU implements Actions.
func (b *Backend) SetMTU(mtu int) { b.handler.SetMTU(mtu) }

// KeepOpen implements Actions. To close a descriptor of another sort, such as a file of a file system
// that the front end provides, can take for ever, and what a front end has set up is duplicated
// and closed elsewhere, too.
func (b *Backend) KeepOpen(fd int) error {
	if domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || domain != unix.AF_UNIX {
		unix.Close(fd)
		return errors.New("a channel for requests that is no unix socket")
	}
	b.closeKept()
	b.keep = append(b.keep, fd)
	return nil
}

func (b *Backend) closeKept() {
	for _, fd := range b.keep {
		unix.Close(fd)
	}
	b.keep = b.keep[:0]
}

// Reset implements Actions.
func (b *Backend) Reset() {
	for i := range b.rings {
		b.StopRing(i)
		b.EnableRing(i, false)
	}
}

// Disconnect discards all that a front end set up. A front end that reconnects does not
// know the rings' positions.
func (b *Backend) Disconnect() {
	for i, r := range b.rings {
		b.stop(r, false)
		b.EnableRing(i, false)
	}
	b.lock()
	mem, log, given := b.mem, b.log, b.given.whole
	b.mem, b.log, b.given, b.acked = memory{}, nil, inflight{}, 0
	for _, r := range b.rings {
		r.err, r.num, r.addr, r.base = nil, 0, RingAddr{}, 0
	}
	b.refresh()
	b.unlock()
	mem.unmap()
	log.unmap()
	unmap(given)
	b.closeKept()
	b.talk = nil
	b.setup.forgetAll()
	b.handler.Changed()
}

// Close releases a Backend that no longer has a front end.
func (b *Backend) Close() { b.closeOwn() }
