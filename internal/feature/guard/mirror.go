package guard

import (
	"time"

	proto "github.com/vswitch/vswitch/internal/proto/guard"
	vswitch "github.com/vswitch/vswitch/switch"
)

// mirror tells the fast path what guarded ports may send.
type mirror struct{ sw *vswitch.Switch }

// Publish implements proto.Mirror.
func (m mirror) Publish(number uint16, s *proto.Snapshot) {
	if s == nil {
		m.sw.SetFastGuard(number, nil)
		return
	}
	g := &vswitch.FastGuard{MACs: s.MACs, VLANs: s.VLANs, MACOnly: s.MACOnly, MoreTypes: s.MoreTypes, Exceptions: s.Exceptions}
	for i := range s.Bindings {
		if b := &s.Bindings[i]; b.Prefix.IsSingleIP() {
			g.Senders = append(g.Senders, sender(b))
		} else {
			g.Prefixes = append(g.Prefixes, vswitch.FastPrefix{VLAN: b.VLAN, MAC: b.MAC, Prefix: b.Prefix, Until: b.Expiry})
		}
	}
	m.sw.SetFastGuard(number, g)
}

// Heard implements proto.Mirror.
func (m mirror) Heard(number uint16, b *proto.Binding) (ago time.Duration, ok bool) {
	return m.sw.FastHeard(number, sender(b))
}

func sender(b *proto.Binding) vswitch.FastSender {
	return vswitch.FastSender{VLAN: b.VLAN, MAC: b.MAC, Addr: b.Prefix.Addr(), From: b.From, Until: b.Expiry}
}
