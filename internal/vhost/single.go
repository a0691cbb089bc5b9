package vhost

import "github.com/vswitch/vswitch/port"

// Single is a chain of one buffer, as most are.
type Single struct {
	Buffer
	Written uint32 // how many bytes were written to it, for UseSingles
	id      uint16
}

// Singles returns the next available chains as far as they are known to be single
// buffers; write says that they are for the guest to read. Where there are none, Next is
// to be asked. They are not taken yet, and valid until Next, UseSingles or End.
func (r *Ring) Singles(write bool) []Single {
	if r.err != nil {
		return nil
	}
	s, err := r.q.singles(write)
	if err != nil {
		r.fail(err)
	}
	return s
}

// UseSingles takes the first of what Singles returned, and gives them back.
func (r *Ring) UseSingles(used []Single) {
	if len(used) == 0 {
		return
	}
	for i := range used {
		r.Wrote(used[i].Buffer, int(used[i].Written))
	}
	r.q.useSingles(used)
}

const (
	// readAhead is how many chains are looked at together: as many as there are frames
	// in a batch.
	readAhead = port.BatchSize

	// cacheLine is its length in bytes.
	cacheLine = 64
)

// ahead is what a queue has read of the next chains before their turn.
//
// What it reads was written on another processor, and what is going to be written was
// read there. To wait for that takes longer than all else that a frame takes, but
// accesses that do not depend on each other wait at the same time: so the descriptors of
// a batch are read in a row, and in another the lines touched that begin the buffers.
type ahead struct {
	row     [readAhead]Single
	turn    int // whose it is
	known   int // how many there are
	touched byte
}

// rest are those whose turn is to come.
func (a *ahead) rest() []Single { return a.row[a.turn:a.known] }

// advance says that the queue has moved by n chains of one descriptor, or back. Once it is
// elsewhere, what was read is of no use.
func (a *ahead) advance(n int) {
	if a.turn += n; uint(a.turn) >= uint(a.known) {
		a.turn, a.known = 0, 0
	}
}

// single makes s the chain that begins with a descriptor, if that is all of it and there
// is nothing wrong with it.
func (c *ringCommon) single(s *Single, id uint16, d descriptor, write bool) bool {
	way := uint16(0)
	if write {
		way = descWrite
	}
	s.Bytes, s.gpa, s.id = c.mem.at(d.addr, uint64(d.len), &c.hint), d.addr, id
	return d.flags&(descNext|descIndirect|descWrite) == way && d.len > 0 && len(s.Bytes) == int(d.len)
}

// have says that the first n of the row are the next chains, and touches their buffers.
func (c *ringCommon) have(n int, write bool) {
	c.turn, c.known = 0, n
	for i := range c.row[:n] {
		b := c.row[i].Bytes
		next := min(len(b)-1, cacheLine)
		switch {
		case !write:
			c.touched += b[0] + b[next]
		case c.log == nil: // else a migration would have to be told
			b[0], b[next] = 0, 0
		}
	}
}
