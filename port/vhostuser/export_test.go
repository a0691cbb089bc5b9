package vhostuser

// Features are those that were agreed on with the guest.
func (p *Port) Features() uint64 { return p.acked.Load() }
