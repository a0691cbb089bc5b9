package vhost

// Loan is the end of a chain that was taken and not given back yet. Its bytes can be
// copied after End until TakeBack, as long as the ring goes on: a front end that
// changes the memory or stops the ring takes back what was lent, and the chains are
// there to be taken again. It is used by the goroutine that takes from the ring.
type Loan struct {
	ring  *Ring
	epoch uint64
	first int // of the ring's buffers
	count int
	skip  int // bytes of the first
	len   int
}

// Lend makes l the n bytes in the last buffers that Next returned, from the first one's
// skip-th byte on. The chain, and those taken after it, go back by TakeBack.
func (r *Ring) Lend(l *Loan, first, skip, n int) {
	*l = Loan{r, r.epoch, first, len(r.parts) - first, skip, n}
}

// Keep notes that a chain is to be given back by TakeBack.
func (r *Ring) Keep(c Chain) { r.lent = append(r.lent, c) }

// TakeBack gives the chains back that were kept.
func (r *Ring) TakeBack() {
	for _, c := range r.lent {
		r.q.use(c, 0)
	}
	r.lent = r.lent[:0]
}

// Len is how many bytes were lent.
func (l *Loan) Len() int { return l.len }

// CopyTo copies them to dst, one slice after the other, which it uses up. It returns
// false when they were taken back, or the memory is gone; that breaks the ring. A fault
// in dst goes on to the caller.
func (l *Loan) CopyTo(dst [][]byte) (ok bool) {
	r := l.ring
	if !r.Begin() {
		return false
	}
	defer r.End()
	if r.epoch != l.epoch {
		return false
	}
	skip := l.skip
	for _, p := range r.parts[l.first:][:l.count] {
		b := p.Bytes[skip:]
		skip = 0
		for len(b) > 0 {
			if len(dst[0]) == 0 {
				dst = dst[1:]
			}
			n := copy(dst[0], b)
			b, dst[0] = b[n:], dst[0][n:]
		}
	}
	return true
}
