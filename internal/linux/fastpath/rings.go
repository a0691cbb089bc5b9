package fastpath

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// The rings, as in bpf/copy.h, with their sizes in bytes. Those of copies have memory only while a
// port's frames are copied.
const (
	ringCaptures = iota
	ringSamples
	ringMirrors
	copyRings // how many have copies

	ringAsks = copyRings
	numRings = copyRings + 1
)

var ringSizes = [numRings]uint32{ringCaptures: 8 << 20, ringSamples: 1 << 20, ringMirrors: 8 << 20, ringAsks: 4 << 10}

// samplesEvery is how often samples are read that wake nobody (WAKE_AT in bpf/copy.h). Each time takes
// longer than all else that the samples do; sFlow version 5 wants a sample to leave within a second.
const samplesEvery = 250 * time.Millisecond

// rings are the rings that are in use. Path.mu guards them.
type rings struct {
	bpf     *bpfMaps
	open    [numRings]*ring
	running sync.WaitGroup
}

// ring is a ring with its reader. The reader waits by the runtime's poller: one that waits in a system
// call of its own, ten times a second, keeps the runtime's monitor awake, which wakes up 550 times a
// second then and interrupts what the processors do.
type ring struct {
	*ringbuf.Reader
	memory *ebpf.Map
	ready  *os.File // the ring's descriptor
}

func newRing(size uint32) (*ring, error) {
	memory, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: size})
	if err != nil {
		return nil, err
	}
	r := &ring{memory: memory}
	if r.Reader, err = ringbuf.NewReader(memory); err != nil {
		r.close()
		return nil, err
	}
	r.SetDeadline(time.Unix(1, 0)) // it never waits itself
	fd, err := unix.FcntlInt(uintptr(memory.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		_ = unix.SetNonblock(fd, true) // for the runtime's poller
		r.ready = os.NewFile(uintptr(fd), "ring")
		err = r.ready.SetReadDeadline(time.Time{}) // there is none without that poller
	}
	if err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// close closes what the ring has. Nobody reads it.
func (r *ring) close() {
	if r.ready != nil {
		r.ready.Close()
	}
	if r.Reader != nil {
		r.Reader.Close()
	}
	r.memory.Close()
}

// run calls read for each copy until the ring is ended. If every is not 0, it looks for copies that
// wake nobody, too.
func (r *ring) run(every time.Duration, read func(record []byte)) {
	defer r.close()
	ready, err := r.ready.SyscallConn()
	var record ringbuf.Record
	for err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		if every != 0 {
			_ = r.ready.SetReadDeadline(time.Now().Add(every)) // an error of a closed one shows below
		}
		err = ready.Read(func(uintptr) bool { return r.AvailableBytes() > 0 })
		for r.AvailableBytes() > 0 && r.ReadInto(&record) == nil {
			read(record.RawSample)
		}
	}
}

// clear takes out the rings of an earlier process.
func (r *rings) clear() error {
	var errs []error
	for i := range r.open {
		errs = append(errs, r.takeOut(i))
	}
	return errors.Join(errs...)
}

// putBack puts in the rings that are in use, which another process may have taken out.
func (r *rings) putBack() error {
	var errs []error
	for i, ring := range r.open {
		if ring != nil {
			errs = append(errs, r.bpf.Rings.Put(uint32(i), ring.memory))
		}
	}
	return errors.Join(errs...)
}

func (r *rings) takeOut(i int) error {
	err := r.bpf.Rings.Delete(uint32(i))
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// start puts in the rings that ports need and that are not there; copied is called for each copy, and
// asked for what the program asks.
func (r *rings) start(needed [numRings]bool, copied, asked func(record []byte)) error {
	var errs []error
	for i, is := range needed {
		if is && r.open[i] == nil {
			read := copied
			if i == ringAsks {
				read = asked
			}
			errs = append(errs, r.put(i, read))
		}
	}
	return errors.Join(errs...)
}

func (r *rings) put(i int, read func(record []byte)) error {
	one, err := newRing(ringSizes[i])
	if err != nil {
		return fmt.Errorf("make a ring: %w", err)
	}
	if err := r.bpf.Rings.Put(uint32(i), one.memory); err != nil {
		one.close()
		return fmt.Errorf("make a ring: %w", err)
	}
	r.open[i] = one
	var every time.Duration
	if i == ringSamples {
		every = samplesEvery
	}
	r.running.Go(func() { one.run(every, read) })
	return nil
}

// stop takes out the rings that no port needs any more.
func (r *rings) stop(needed [numRings]bool) error {
	var errs []error
	for i, ring := range r.open {
		if ring != nil && !needed[i] {
			r.open[i] = nil
			errs = append(errs, r.takeOut(i), ring.ready.Close()) // then its reader ends
		}
	}
	return errors.Join(errs...)
}
