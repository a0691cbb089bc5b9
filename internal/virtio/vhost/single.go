package vhost

import "github.com/vswitch/vswitch/port"

// Single is a chain of one buffer, like most chains.
type Single struct {
	Buffer
	Written uint32 // number of bytes written to it, for UseSingles
	id      uint16
}

// Singles returns the next available chains known to be single buffers; write is true
// if the guest will read them. When it returns none, call Next. The chains are not
// taken yet, and stay valid until Next, UseSingles or End.
func (r *Ring) Singles(write bool) []Single {
	if r.err != nil {
		return nil
	}
	s, err := r.q.singles(1, write)
	if err != nil {
		r.fail(err)
	}
	return s
}

// UseSingles takes the first of the chains that Singles returned and gives them back.
func (r *Ring) UseSingles(used []Single) {
	if len(used) == 0 {
		return
	}
	for i := range used {
		r.Wrote(used[i].Buffer, int(used[i].Written))
	}
	r.q.useSingles(used)
}

// ReadOn is for a ring to the guest after Flush. It reads the next n chains and claims their buffers:
// the processor gets the lines while it does other work, so a later Send need not wait for them.
func (r *Ring) ReadOn(n int) {
	if r.err != nil {
		return
	}
	s, _ := r.q.singles(n, true) // Singles finds an error, too
	if r.log == nil {            // otherwise a migration's log needs each write
		claim(s[:min(n, len(s))])
	}
}

const (
	// readAhead is the number of chains read together: as many as a batch has frames.
	readAhead = port.BatchSize

	// cacheLine is the length of a cache line in bytes.
	cacheLine = 64
)

// ahead holds the next chains, which a queue read before their turn.
//
// Another processor wrote these lines, or has read those that are about to be written.
// Waiting for one of them takes longer than everything else that a frame costs, but
// independent accesses wait at the same time. So one loop reads the descriptors of a
// batch, and another touches the first line of each buffer.
type ahead struct {
	row     [readAhead]Single
	turn    int // the next one's index
	known   int // number of known chains
	touched byte
}

// rest returns those whose turn is to come.
func (a *ahead) rest() []Single { return a.row[a.turn:a.known] }

// moveUp moves those to the row's begin and returns their number.
func (a *ahead) moveUp() int {
	a.known = copy(a.row[:], a.rest())
	a.turn = 0
	return a.known
}

// advance records that the queue moved by n chains of one descriptor, or back. If the
// queue is elsewhere, what was read ahead is discarded.
func (a *ahead) advance(n int) {
	if a.turn += n; uint(a.turn) >= uint(a.known) {
		a.turn, a.known = 0, 0
	}
}

// single sets s to the chain that begins with a descriptor, if that is the whole chain
// and nothing is wrong with it. It reports whether it did.
func (c *ringCommon) single(s *Single, id uint16, d descriptor, write bool) bool {
	way := uint16(0)
	if write {
		way = descWrite
	}
	s.Bytes, s.gpa, s.id = c.mem.at(d.addr, uint64(d.len), &c.hint), d.addr, id
	return d.flags&(descNext|descIndirect|descWrite) == way && d.len > 0 && len(s.Bytes) == int(d.len)
}

// have records that the first n of the row are the next chains. It touches the buffers of those that
// were not known and are to be read.
func (c *ringCommon) have(n int, write bool) {
	if !write {
		for i := c.known; i < n; i++ {
			b := c.row[i].Bytes
			c.touched += b[0] + b[min(len(b)-1, cacheLine)]
		}
	}
	c.known = n
}
