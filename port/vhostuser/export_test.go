package vhostuser

import "time"

// Features are those that were agreed on with the guest.
func (p *Port) Features() uint64 { return p.acked.Load() }

func init() { callRest = time.Second }
