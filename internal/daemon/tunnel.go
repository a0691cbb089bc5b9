package daemon

import (
	"cmp"

	"github.com/vswitch/vswitch/port"
)

// passage is what a tunnel takes of the switch's frames.
type passage struct {
	vlans port.VLANSet
	mtu   int
}

// passages returns those of the open tunnels whose MTU is known.
func (m *manager) passages() (all []passage) {
	for _, p := range m.ports {
		if t, ok := p.dev.(port.Tunnel); ok {
			if mtu := t.MTU(); mtu > 0 {
				all = append(all, passage{p.vlans(), mtu})
			}
		}
	}
	return all
}

// guestMTU returns the MTU of the machine behind a port that some tunnel in a VLAN of the
// port imposes; 0: none does.
func guestMTU(p *managed, all []passage) (mtu int) {
	if len(all) == 0 || !p.station() {
		return 0
	}
	const etherMTU = 1500
	vlans, least := p.vlans(), cmp.Or(p.link.MTU, etherMTU)
	for _, t := range all {
		if t.mtu < least && overlap(&t.vlans, &vlans) {
			least, mtu = t.mtu, t.mtu
		}
	}
	return mtu
}

// overlap reports whether a VLAN is in both sets.
func overlap(a, b *port.VLANSet) bool {
	for i := range a {
		if a[i]&b[i] != 0 {
			return true
		}
	}
	return false
}
