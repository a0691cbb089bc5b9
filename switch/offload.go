package vswitch

import (
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// finished completes offloads that a port cannot take: it computes checksums and segments
// super-frames, in memory of the batch. It never writes to the received bytes, which
// other ports are sent too.
type finished struct {
	frames  frameStore
	memory  byteStore
	scratch [1][]byte
	seg     vnet.Segmenter

	// The result for the last frame: flooding asks for it again.
	of   *port.Frame
	caps port.Caps
	made []*port.Frame
}

// flatten copies f's Tail into Data, in memory of the batch. From then on all ports are
// sent the same bytes, including those whose vectors already hold f. It returns false if
// the sender took the memory away.
func (d *finished) flatten(f *port.Frame) bool {
	if f.Tail == nil {
		return true
	}
	b := d.memory.take(f.DataLen())
	if !f.CopyTo(b, &d.scratch) {
		return false
	}
	f.Data, f.Tail = b, nil
	return true
}

// finish returns the frames to send in place of f to a port with caps. It returns none if
// f's headers contradict its offload, or its Tail is gone.
func (d *finished) finish(f *port.Frame, caps port.Caps) []*port.Frame {
	if d.of == f && d.caps == caps {
		return d.made
	}
	d.of, d.caps, d.made = f, caps, d.made[:0]
	if !d.flatten(f) {
		return d.made
	}
	switch vnet.Plan(f.Offload, caps) {
	case vnet.Pass:
		d.made = append(d.made, f)
	case vnet.Checksum:
		b := d.memory.take(len(f.Data))
		if _, err := vnet.CompleteTo(b, f.Data, f.Offload); err == nil {
			d.add(f, b, port.Offload{})
		}
	case vnet.Segment:
		if d.seg.Init(f.Data, f.Offload, caps) != nil {
			break
		}
		if d.seg.Regroup(caps) {
			for range d.seg.Groups() {
				b := d.memory.take(d.seg.GroupLen())
				n, o, _ := d.seg.NextGroup(b)
				d.add(f, b[:n], o)
			}
			break
		}
		for range d.seg.Count() {
			b := d.memory.take(d.seg.FrameLen())
			n, _ := d.seg.Next(b)
			d.add(f, b[:n], d.seg.Offload())
		}
	}
	return d.made
}

func (d *finished) add(f *port.Frame, data []byte, o port.Offload) {
	cp := d.frames.copyOf(f)
	cp.Data, cp.Offload = data, o
	d.made = append(d.made, cp)
}

func (d *finished) reset() {
	d.frames.reset()
	d.memory.reset()
	d.of = nil
}

// frameStore holds the frames that a batch makes. It allocates in blocks, so that frames
// do not move when it grows.
type frameStore struct {
	blocks [][]port.Frame
	n      int
}

func (s *frameStore) copyOf(f *port.Frame) *port.Frame {
	b, i := s.n/port.BatchSize, s.n%port.BatchSize
	if b == len(s.blocks) {
		s.blocks = append(s.blocks, make([]port.Frame, port.BatchSize))
	}
	s.n++
	cp := &s.blocks[b][i]
	*cp = *f
	return cp
}

func (s *frameStore) reset() { s.n = 0 }

// byteStore likewise holds the bytes that a batch makes.
type byteStore struct {
	blocks   [][]byte
	at, used int
}

// byteBlock has room for the segments of three of the longest super-frames. No frame is
// longer than a block.
const byteBlock = 256 << 10

func (s *byteStore) take(n int) []byte {
	if len(s.blocks) == 0 || s.used+n > byteBlock {
		if len(s.blocks) > 0 {
			s.at++
		}
		if s.at == len(s.blocks) {
			s.blocks = append(s.blocks, make([]byte, byteBlock))
		}
		s.used = 0
	}
	b := s.blocks[s.at][s.used:][:n:n]
	s.used += n
	return b
}

func (s *byteStore) reset() { s.at, s.used = 0, 0 }
