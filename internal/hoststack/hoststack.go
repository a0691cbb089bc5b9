// Package hoststack keeps the host's own network stack off an interface that belongs
// to the switch: it neither speaks on the virtual machines' LAN nor answers there,
// and where the kernel has tcx it does not see it. The switch itself, on AF_PACKET,
// gets its frames before. A call acts on the calling thread's network namespace.
package hoststack

import (
	"fmt"

	"github.com/vswitch/vswitch/port"
)

// Guard keeps the host stack out until it is closed.
type Guard struct{ filter *filter }

// Shut keeps the host stack off the interface. A new interface must still be down:
// IPv6 speaks the moment it is up. The sysctls stay when the process dies and are
// taken back by Restore; the filter goes with its Guard.
func Shut(ifname string, ifindex int) (*Guard, error) {
	before := Read(ifname)
	if err := set(ifname, port.DeviceSettings{DisableIPv6: "1", ARPIgnore: arpIgnoreAll}, before); err != nil {
		Restore(ifname, before)
		return nil, err
	}
	// Without the filter (Linux before 6.6, or no right to load programs) the
	// sysctls alone keep the host silent.
	f, _ := attach(ifindex)
	return &Guard{f}, nil
}

// Hidden tells whether the host stack sees no frame at all (tcx, Linux 6.6); if
// not, it is only kept from answering ARP and from speaking IPv6.
func (g *Guard) Hidden() bool { return g.filter != nil }

// Close lets the host stack see the interface again. It leaves the sysctls.
func (g *Guard) Close() error {
	if g.filter == nil {
		return nil
	}
	if err := g.filter.close(); err != nil {
		return fmt.Errorf("let the host see an interface again: %w", err)
	}
	return nil
}
