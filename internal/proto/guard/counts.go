package guard

// Count is something that happens to the addresses of guarded ports, and is counted.
type Count int

const (
	Learned   Count = iota // an address was learned
	Expired                // its time was over
	Displaced              // it made room for another of its port
	Ended                  // it ended in another way: released, refused, deleted

	// Addresses that a station did not get:
	NoRoom    // the port or the switch has as many as it may have
	Disputed  // another port has it
	Protected // no port may learn it
	Outside   // it is in no prefix in which stations form addresses

	Defended  // somebody else objected before it was bound
	Unmatched // a DHCP server's answer to the station that none of its requests matches
	NumCounts
)

// Counts says how often each Count happened.
type Counts [NumCounts]uint64

// count counts something at the port. The caller holds table.mu.
func (p *Port) count(c Count) {
	if !p.table.quiet {
		p.counts[c]++
		p.table.counts[c]++
	}
}

// Counts returns those of a port; they begin when it is guarded.
func (t *Table) Counts(number uint16) (c Counts) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.ports[number]; p != nil {
		c = p.counts
	}
	return c
}

// Total returns the counts of all ports together, also of those that are gone.
func (t *Table) Total() Counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts
}
