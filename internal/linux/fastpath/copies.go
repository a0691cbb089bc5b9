package fastpath

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/cilium/ebpf"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

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

// needs returns the rings that ports need.
func needs(ports []vswitch.FastPort) (needed [numRings]bool) {
	needed[ringAsks] = len(ports) > busyExits // a port, and those to which it floods
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
	snap := [copyRings]uint32{uint32(p.SnapLen), vswitch.SampleLen, uint32(p.CopyLen)}
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
		skip := vswitch.Skip(p.OneIn)
		draws[cpu] = bpfSampling{OneIn: max(p.OneIn, 1), Skip: skip, Of: skip}
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
	copyType    = 46
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
		c.Offload = port.Offload{Flags: port.NeedsCsum, CsumStart: from, CsumOffset: u16(copySumAt), GSOType: uint8(u16(copyType)), GSOSize: u16(copySegment)}
	}
	if tag := u32(copyTag); tag != 0 {
		c.Tag = port.MakeTag(networkOrder(uint16(tag>>16)), uint16(tag))
	}
	if why < len(dropOf) {
		c.Drop = dropOf[why]
	}
	p.show(&c)
}
