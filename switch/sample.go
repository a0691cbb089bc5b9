package vswitch

import (
	"math/rand/v2"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
)

// Sampler draws one of so many frames that a port receives, at random and on both paths, and
// shows it to a function once it is known what becomes of it.
type Sampler struct {
	OneIn uint32 // at least 1

	// See is called by workers and by the fast path, several at a time. It must take no time,
	// keep and change nothing, and allocate nothing. Of a frame it sees the first SampleLen
	// bytes at least.
	See func(Sample)
}

// MaxOneIn is the largest OneIn of a Sampler.
const MaxOneIn = 1 << 24

// SampleLen is how many bytes of a frame there are in a sample.
const SampleLen = 256

// Sample is a frame that was drawn. Missed are samples before it that the fast path lost.
type Sample struct {
	Sight
	Of uint32 // frames that the port received since the one drawn before, with this one

	// Where the frame goes: to a port, with this tag, or to several. Nil and false: it is
	// dropped, or taken by the switch.
	To      *Port
	ToTag   port.Tag
	Several bool
}

// Sample has a sampler draw of the frames that the port receives from now on; nil: none does.
func (p *Port) Sample(s *Sampler) {
	p.sw.mu.Lock()
	defer p.sw.mu.Unlock()
	if p.sampler != s {
		p.sampler = s
		p.publish()
	}
}

// Skip returns a random number of frames until the next of one in so many, with that one.
func Skip(oneIn uint32) uint32 {
	if oneIn <= 1 {
		return 1
	}
	return 1 + rand.Uint32N(2*oneIn-1)
}

func (s *Sampler) oneIn() uint32 {
	if s == nil {
		return 0
	}
	return min(max(s.OneIn, 1), MaxOneIn)
}

// draw is what a worker knows of its next sample.
type draw struct {
	by   *Sampler
	skip uint32 // frames before the next sample, with it
	of   uint32 // frames since the last one
}

// sample shows the frames of a batch that are drawn, and have the outcome in their Drop.
func (w *worker) sample(out *outputs, frames []port.Frame, from *member) {
	d := &w.draw
	if d.by != from.sampler {
		*d = draw{by: from.sampler, skip: Skip(from.sampler.oneIn())}
	}
	for {
		if n := uint32(len(frames)); d.skip > n {
			d.skip -= n
			d.of += n
			return
		}
		f := &frames[d.skip-1]
		s := Sample{
			Sight: Sight{Port: w.port, VLAN: vlanOf(f, from), Out: port.Out{Frame: f, Tag: f.Tag, Drop: f.Drop}},
			Of:    d.of + d.skip,
		}
		if f.Drop == port.DropNone {
			out.find(&s, f, from)
		}
		from.sampler.See(s)
		frames = frames[d.skip:]
		d.skip, d.of = Skip(from.sampler.oneIn()), 0
	}
}

// find finds out where a frame goes that is in a vector.
func (o *outputs) find(s *Sample, f *port.Frame, from *member) {
	for i := range o.vecs {
		v := &o.vecs[i]
		if v.to.flags&flagMirrorTarget != 0 {
			continue
		}
		for j := range v.out {
			if v.out[j].Frame != f {
				continue
			}
			if s.Several = s.To != nil; s.Several {
				s.To, s.ToTag = nil, 0
				return
			}
			s.To, s.ToTag = v.to.port, v.out[j].Tag
			break
		}
	}
	if s.To != nil {
		return
	}
	// Others were made of the frame for its output.
	number, known := from.port.sw.fdb.Lookup(key(f, f.Dst))
	if to := o.set.member(number); known && to != nil {
		s.leave(f, to)
	} else {
		s.Several = true
	}
}

// leave says that a frame leaves by a port.
func (s *Sample) leave(f *port.Frame, to *member) {
	s.To = to.port
	s.ToTag, _ = retag(f, to)
}

// showSample shows a sample of the fast path.
func (set *portSet) showSample(c *FastCopy, sight Sight, from *member) {
	if from.sampler == nil {
		return
	}
	s := Sample{Sight: sight, Of: c.Of, Several: c.Several}
	if c.To != fdb.NoPort {
		f := *sight.Out.Frame
		if to := set.member(c.To); to != nil && classify(&f, from) == port.DropNone {
			s.leave(&f, to)
		}
	}
	from.sampler.See(s)
}
