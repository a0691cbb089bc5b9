package vswitch

// TreeState is what a spanning tree lets a port do (802.1D-2004 clause 7.4).
type TreeState uint8

const (
	TreeForwarding TreeState = iota // passes everything; also without spanning tree
	TreeDiscarding                  // passes only BPDUs
	TreeLearning                    // learns, does not forward
)

// SetTree sets the port's spanning-tree state; in says whether a tree decides about it. Frames
// for the protocol come by traps.
func (p *Port) SetTree(state TreeState, in bool) {
	s := p.sw
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.tree == state && p.inTree == in {
		return
	}
	p.tree, p.inTree = state, in
	p.publish()
	p.quiesce()
}

// Tree returns the port's spanning-tree state.
func (p *Port) Tree() TreeState {
	p.sw.mu.Lock()
	defer p.sw.mu.Unlock()
	return p.tree
}

// InTree reports whether the port takes part in a spanning tree.
func (p *Port) InTree() bool {
	p.sw.mu.Lock()
	defer p.sw.mu.Unlock()
	return p.inTree
}

// SetGroupForward sets which of the addresses 01:80:c2:00:00:00 to 0f are forwarded like
// other multicast: bit n stands for the address that ends in n, as in the kernel bridge's
// group_fwd_mask.
func (s *Switch) SetGroupForward(mask uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groupForward = mask
	s.publish()
}
