package vhost

// Loan is the tail of a chain that was taken but not yet given back. Its bytes can be
// copied after End until TakeBack, as long as the ring runs: when a front end changes
// the memory or stops the ring, the loan is revoked and the chains become available
// again. The goroutine that takes from the ring uses it.
type Loan struct {
	ring  *Ring
	epoch uint64
	first int // of the ring's buffers
	count int
	skip  int // bytes to skip in the first
	len   int
}

// Lend sets l to the n bytes in the last buffers that Next returned, starting at byte
// skip of buffer first. TakeBack returns the chain and those taken after it.
func (r *Ring) Lend(l *Loan, first, skip, n int) {
	*l = Loan{r, r.epoch, first, len(r.parts) - first, skip, n}
}

// Keep notes that TakeBack must return a chain.
func (r *Ring) Keep(c Chain) { r.lent = append(r.lent, c) }

// TakeBack returns the kept chains to the driver.
func (r *Ring) TakeBack() {
	for _, c := range r.lent {
		r.q.use(c, 0)
	}
	r.lent = r.lent[:0]
}

// Len returns the number of bytes lent.
func (l *Loan) Len() int { return l.len }

// CopyTo copies the lent bytes to dst, one slice after the other, and consumes dst. It
// returns false if the loan was revoked, or if the memory is gone, which breaks the
// ring. A fault in dst propagates to the caller.
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
