package vswitch

import (
	"math"

	"github.com/vswitch/vswitch/port"
)

// PortStats are a port's counters since it was added.
type PortStats struct {
	RX, TX Counters
	Fast   uint64 // of RX.Frames, those that the fast path handled
}

// Counters count one direction: RX frames that the switch received from the port, TX
// frames that it sent through the port.
type Counters struct {
	Frames uint64 // RX: all received; TX: those the device accepted
	Bytes  uint64 // of those frames, with tag, without FCS; of what a device lost, by an estimate
	Copies uint64 // RX only: added by flooding, mirrors and segmentation

	// Dropped counts drops by reason: RX frames of which no copy was meant for any
	// port, TX copies that the device did not accept.
	Dropped [port.NumDrops]uint64
}

// Drops returns the sum over all reasons.
func (c *Counters) Drops() uint64 {
	var n uint64
	for _, d := range c.Dropped {
		n += d
	}
	return n
}

// BatchSizes say how many batches of frames the workers received: of 1 frame, of 2, of up to 4,
// of up to 8, and so on up to 64. Workers that have much to do find large batches.
type BatchSizes struct {
	Batches [7]uint64
	Frames  uint64 // in all of them
}

func (b *BatchSizes) add(o BatchSizes) {
	for i, n := range o.Batches {
		b.Batches[i] += n
	}
	b.Frames += o.Frames
}

// BatchSizes returns those of all ports, removed ones too, since the switch was made.
func (s *Switch) BatchSizes() BatchSizes {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.batched
	for _, p := range s.byName {
		all.add(p.batchSizes())
	}
	return all
}

// batchSizes returns those of a port. The caller holds Switch.mu.
func (p *Port) batchSizes() (b BatchSizes) {
	for _, c := range p.rx {
		for i := range b.Batches {
			b.Batches[i] += c.batches[i].Load()
		}
		b.Frames += c.frames.Load()
	}
	return b
}

// Departed returns the sum of the counters of all ports that were removed.
func (s *Switch) Departed() PortStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.departed
}

// Carry makes the port's counters go on from those that it had in a former process.
func (p *Port) Carry(former PortStats) {
	now := p.Stats()
	p.sw.mu.Lock()
	defer p.sw.mu.Unlock()
	former.take(now)
	p.carried.add(former)
}

// CarryTotals makes the counters of the switch go on from those of a former process.
func (s *Switch) CarryTotals(injected uint64, departed PortStats) {
	s.injected.Add(injected)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.departed.add(departed)
}

// take subtracts the counters of o, down to 0.
func (st *PortStats) take(o PortStats) {
	less := func(n *uint64, by uint64) { *n -= min(*n, by) }
	less(&st.Fast, o.Fast)
	for _, d := range []struct {
		from *Counters
		by   *Counters
	}{{&st.RX, &o.RX}, {&st.TX, &o.TX}} {
		less(&d.from.Frames, d.by.Frames)
		less(&d.from.Bytes, d.by.Bytes)
		less(&d.from.Copies, d.by.Copies)
		for why, n := range d.by.Dropped {
			less(&d.from.Dropped[why], n)
		}
	}
}

// Stats returns the port's counters. Under traffic they are not a consistent snapshot:
// they may disagree by a few frames.
func (p *Port) Stats() PortStats {
	var st PortStats
	p.asking.Lock() // what a later call returns is not older
	defer p.asking.Unlock()
	a := p.ask()
	p.sw.mu.Lock()
	for _, c := range p.rx {
		st.RX.Frames += c.frames.Load()
		st.RX.Bytes += c.bytes.Load()
		st.RX.Copies += c.copies.Load()
		for why := range c.dropped {
			st.RX.Dropped[why] += c.dropped[why].Load()
		}
	}
	if p.at != a.at { // a Detach or Attach came between
		a = answers{}
		if p.sw.fast != nil {
			a.fast = p.sw.fast.Counters(p.number)
		}
	}
	st.add(p.carried)
	st.add(p.fast)
	st.add(a.fast)
	st.RX.Copies += p.mirrored.Load()
	overruns, lost, unrouted, shaped := p.lostBefore(), p.lost+a.lost, p.unrouted+a.unrouted, p.dropped+a.dropped
	p.attribute(lost)
	nobody := p.nobody
	for i := range p.tx {
		c := &p.tx[i]
		st.TX.Frames += c.frames.Load()
		st.TX.Bytes += c.bytes.Load()
		for why := range c.dropped {
			st.TX.Dropped[why] += c.dropped[why].Load()
		}
	}
	lost = min(lost, st.TX.Frames) // a batch in flight is counted only at its end
	shaped = min(shaped, st.TX.Frames-lost)
	p.silent.takeOff(&st.TX, lost+shaped)
	p.sw.mu.Unlock()
	st.RX.Frames += overruns
	st.RX.Dropped[port.DropRxOverrun] += overruns
	nobody = min(nobody, lost)
	unrouted = min(unrouted, lost-nobody)
	st.TX.Dropped[port.DropShaped] += shaped
	st.TX.Dropped[port.DropNoCarrier] += nobody
	st.TX.Dropped[port.DropNoRoute] += unrouted
	st.TX.Dropped[port.DropQueueFull] += lost - nobody - unrouted
	return st
}

// silent counts the frames that devices have lost after they were sent.
type silent struct {
	// As of the last call of takeOff. Nobody tells the lengths of the lost: they are taken to be like
	// those of all that was sent since the call before, so the counters never go back.
	frames, bytes, lost uint64
	less                uint64 // bytes that were lost
}

// takeOff takes lost frames out of those that were sent.
func (s *silent) takeOff(tx *Counters, lost uint64) {
	if lost > s.lost && tx.Frames > s.frames {
		share := float64(min(lost-s.lost, tx.Frames-s.frames)) / float64(tx.Frames-s.frames)
		s.less += uint64(math.Round(share * float64(tx.Bytes-s.bytes)))
	}
	s.frames, s.bytes, s.lost = tx.Frames, tx.Bytes, lost
	tx.Frames -= lost
	tx.Bytes -= min(s.less, tx.Bytes)
}

// answers are what the fast path counts at the present device of a port, and what that lost.
type answers struct {
	at   *attachment // of which device; nil: none
	fast PortStats

	lost, unrouted uint64 // see port.Lossy and port.Unrouted
	dropped        uint64 // by its queue, see port.Shaping
}

// ask asks the present device of a port. That may ask the kernel, which may be slow, so ask is called without
// Switch.mu. What it returns counts while the port has that device.
func (p *Port) ask() (a answers) {
	p.sw.mu.Lock()
	a.at = p.at
	if p.sw.fast != nil {
		a.fast = p.sw.fast.Counters(p.number)
	}
	p.sw.mu.Unlock()
	if a.at == nil {
		return a
	}
	if l, ok := a.at.dev.(port.Lossy); ok {
		a.lost = l.Lost(a.fast.TX.Frames)
	}
	if u, ok := a.at.dev.(port.Unrouted); ok {
		a.unrouted = u.Unrouted()
	}
	if s, ok := a.at.dev.(port.Shaping); ok {
		a.dropped = s.Shaped()
	}
	return a
}
