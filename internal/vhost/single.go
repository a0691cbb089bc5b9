package vhost

// Single is a chain of one buffer, as most are.
type Single struct {
	Buffer
	Written uint32 // how many bytes were written to it, for UseSingles
	id      uint16
}

// batcher is a queue that can look at many chains at once.
type batcher interface {
	// singles returns the next available chains up to the first that is no single
	// buffer, or in which something is wrong, or that is too many for once.
	singles(write bool) ([]Single, error)

	// useSingles takes the first of those and gives them back.
	useSingles(used []Single)
}

// Singles returns the next available chains as far as they are known to be single
// buffers; write says that they are for the guest to read. Where there are none, Next is
// to be asked. They are not taken yet, and valid until Next, UseSingles or End.
func (r *Ring) Singles(write bool) []Single {
	q, ok := r.q.(batcher)
	if !ok || r.err != nil {
		return nil
	}
	s, err := q.singles(write)
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
	r.q.(batcher).useSingles(used)
}
