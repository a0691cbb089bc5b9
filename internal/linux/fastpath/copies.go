package fastpath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// The rings of copies, as in bpf/copy.h, with their sizes in bytes. They have memory only
// while a port's frames are copied.
const (
	ringCaptures = iota
	ringSamples
	ringMirrors
	numRings
)

var ringSizes = [numRings]uint32{ringCaptures: 8 << 20, ringSamples: 1 << 20, ringMirrors: 8 << 20}

// samplesEvery is how often samples are read that wake nobody (WAKE_AT in bpf/copy.h).
const samplesEvery = 100 * time.Millisecond

// What struct port's watch has, and what a copy is.
const (
	watchIn  = 1 << iota // SEE_IN
	watchOut             // SEE_OUT
	watchSampled
	watchNoted
	watchMirrorIn
	watchMirrorOut
)

// copyKinds are those of enum kind.
var copyKinds = [...]vswitch.CopyKind{vswitch.CopyIn, vswitch.CopyOut, vswitch.CopySample, vswitch.CopyDrop, vswitch.CopyMirrorIn, vswitch.CopyMirrorOut}

// several stands for the slot of the output, as SEVERAL of copy.h.
const several = 0xfffe

// dropOf are the reasons why the program drops a frame, by enum decision.
var dropOf = [...]port.Drop{2: port.DropSamePort, port.DropIsolated, port.DropPoliced, port.DropNoDestination}

// rings are the rings that are in use. Path.mu guards them.
type rings struct {
	bpf     *bpfObjects
	open    [numRings]*ring
	running sync.WaitGroup
}

// ring is a ring with its reader.
type ring struct {
	*ringbuf.Reader
	memory *ebpf.Map
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

// start puts in the rings that ports need and that are not there; read is called for each copy.
func (r *rings) start(needed [numRings]bool, read func(record []byte)) error {
	var errs []error
	for i, is := range needed {
		if is && r.open[i] == nil {
			errs = append(errs, r.put(i, read))
		}
	}
	return errors.Join(errs...)
}

func (r *rings) put(i int, read func(record []byte)) error {
	memory, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: ringSizes[i]})
	if err != nil {
		return fmt.Errorf("make a ring: %w", err)
	}
	reader, err := ringbuf.NewReader(memory)
	if err == nil {
		err = r.bpf.Rings.Put(uint32(i), memory)
	}
	if err != nil {
		memory.Close()
		return fmt.Errorf("make a ring: %w", err)
	}
	r.open[i] = &ring{reader, memory}
	r.running.Go(func() {
		var record ringbuf.Record
		for {
			if i == ringSamples {
				reader.SetDeadline(time.Now().Add(samplesEvery))
			}
			err := reader.ReadInto(&record)
			for ; err == nil; err = reader.ReadInto(&record) {
				read(record.RawSample)
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				return // the ring is closed
			}
		}
	})
	return nil
}

// stop takes out the rings that no port needs any more.
func (r *rings) stop(needed [numRings]bool) error {
	var errs []error
	for i, ring := range r.open {
		if ring != nil && !needed[i] {
			r.open[i] = nil
			errs = append(errs, r.takeOut(i), ring.Close(), ring.memory.Close())
		}
	}
	return errors.Join(errs...)
}

// needs returns the rings that ports need.
func needs(ports []vswitch.FastPort) (needed [numRings]bool) {
	for i := range ports {
		watch := watchOf(&ports[i])
		needed[ringCaptures] = needed[ringCaptures] || watch&(watchIn|watchOut) != 0
		needed[ringSamples] = needed[ringSamples] || watch&(watchSampled|watchNoted) != 0
		needed[ringMirrors] = needed[ringMirrors] || watch&(watchMirrorIn|watchMirrorOut) != 0
	}
	return needed
}

// watchOf returns the watch of a bpfPort.
func watchOf(p *vswitch.FastPort) (watch uint8) {
	if p.SeeIn {
		watch |= watchIn
	}
	if p.SeeOut {
		watch |= watchOut
	}
	if p.OneIn != 0 {
		watch |= watchSampled
	}
	if p.SeeDrops {
		watch |= watchNoted
	}
	if p.CopyIn {
		watch |= watchMirrorIn
	}
	if p.CopyOut {
		watch |= watchMirrorOut
	}
	return watch
}

// setCopies sets how much of a port's frames is copied, and how many of them.
func (s *slots) setCopies(l *slot, p *vswitch.FastPort) error {
	snap := [numRings]uint32{uint32(p.SnapLen), vswitch.SampleLen, uint32(p.CopyLen)}
	for i, n := range snap {
		if n == 0 {
			snap[i] = math.MaxUint32
		}
	}
	if watchOf(p) != 0 && snap != l.snap {
		l.snap = snap
		if err := s.bpf.Copying.Put(l.index, &bpfCopies{Snap: snap}); err != nil {
			return err
		}
	}
	if p.OneIn == l.oneIn {
		return nil
	}
	l.oneIn = p.OneIn
	draws := make([]bpfSampling, ebpf.MustPossibleCPU())
	for cpu := range draws {
		draws[cpu] = bpfSampling{OneIn: max(p.OneIn, 1), Skip: vswitch.Skip(p.OneIn)}
	}
	return s.bpf.Samplings.Put(l.index, draws)
}

// Show implements vswitch.FastPath.
func (p *Path) Show(show func(*vswitch.FastCopy)) { p.show = show }

// The layout of struct copy.
const (
	copyTime    = 0
	copyIfindex = 8
	copyLength  = 12
	copyBytes   = 16
	copyTag     = 20
	copyMissed  = 24
	copySlot    = 28
	copyKind    = 30
	copyWith    = 32
	copySegment = 40
	copySumFrom = 42
	copySumAt   = 44
	copyHead    = 48
)

// read shows a copy.
func (p *Path) read(record []byte) {
	if len(record) < copyHead {
		return
	}
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(record[at:]) }
	u16 := func(at int) uint16 { return binary.NativeEndian.Uint16(record[at:]) }
	with := binary.NativeEndian.Uint64(record[copyWith:])
	why, to := int(uint16(with)), uint16(with>>16)
	kind := int(u16(copyKind))
	bytes := int(u32(copyBytes))
	if bytes > len(record)-copyHead || kind >= len(copyKinds) {
		return
	}
	p.mu.Lock()
	number, is := p.slots.number[uint32(u16(copySlot))]
	output, leaves := p.slots.number[uint32(to)]
	is = is && p.slots.byNumber[number].is.Ifindex == u32(copyIfindex) // the slot may be another port's by now
	p.mu.Unlock()
	if !is || p.show == nil {
		return
	}
	ago := monotonic() - time.Duration(binary.NativeEndian.Uint64(record[copyTime:]))
	c := vswitch.FastCopy{
		Kind: copyKinds[kind], Number: number, Time: time.Now().Add(-ago),
		Data: record[copyHead : copyHead+bytes], Length: int(u32(copyLength)), Missed: u32(copyMissed),
		Of: uint32(with >> 32), Several: to == several, To: fdb.NoPort,
	}
	if leaves {
		c.To = output
	}
	c.Push = c.Kind == vswitch.CopyMirrorOut && c.Of != 0
	if from := u16(copySumFrom); from != 0 {
		c.Offload = port.Offload{Flags: port.NeedsCsum, CsumStart: from, CsumOffset: u16(copySumAt), GSOSize: u16(copySegment)}
	}
	if tag := u32(copyTag); tag != 0 {
		c.Tag = port.MakeTag(networkOrder(uint16(tag>>16)), uint16(tag))
	}
	if why < len(dropOf) {
		c.Drop = dropOf[why]
	}
	p.show(&c)
}
