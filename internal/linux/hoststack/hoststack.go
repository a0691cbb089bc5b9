// Package hoststack keeps the host's own network stack off an interface that belongs
// to the switch. The host neither speaks nor answers on the virtual machines' LAN, and
// if the kernel has tcx, it does not see the frames at all. The switch itself, on
// AF_PACKET, receives them earlier. A call acts on the calling thread's network namespace.
package hoststack

import (
	"cmp"
	"fmt"
	"io"

	"github.com/vswitch/vswitch/internal/linux/link"
)

// Ingress is a program for the ingress of devices that decides which frames to punt to the
// switch, in place of one that only hides frames from the host.
type Ingress interface {
	// Attach puts the program at a device. Closing the result detaches it, unless it
	// is kept for the next process.
	Attach(ifindex int) (io.Closer, error)

	// Detach removes a kept program. A missing program is no error.
	Detach(ifindex int) error
}

// Guard keeps the host stack out.
type Guard struct {
	ifindex  int
	unfollow func()    // nil: nothing watches whether IPv6 stays disabled
	program  io.Closer // nil: none
	ingress  Ingress   // nil: the program only hides frames
}

// Shut keeps the host stack off the interface, with in if that is not nil. A new
// interface must still be down: IPv6 speaks as soon as it is up. The sysctls outlive the
// process; Restore takes them back.
func Shut(ifname string, ifindex int, in Ingress) (*Guard, error) {
	before := Read(ifname)
	g := &Guard{ifindex: ifindex}
	// If this fails, the settings made now stay unless somebody changes them.
	g.unfollow, _ = link.FollowIPv6(ifindex, g.silence)
	if err := set(ifname, quiet, before); err != nil {
		g.stop()
		Restore(ifname, before)
		return nil, err
	}
	if in != nil {
		if p, err := in.Attach(ifindex); err == nil {
			g.program, g.ingress = p, in
			return g, nil
		}
	}
	// Without the filter (before Linux 6.6, or without the right to load programs),
	// the sysctls alone silence the host; it still sees the frames.
	if f, err := attach(ifindex); err == nil {
		g.program = f
	}
	return g, nil
}

// Hidden reports whether the host stack sees no frames at all (tcx, Linux 6.6). If not, it
// is only kept from answering ARP and from speaking IPv6.
func (g *Guard) Hidden() bool { return g.program != nil }

// Punted reports whether an Ingress decides which frames to punt to the switch.
func (g *Guard) Punted() bool { return g != nil && g.ingress != nil }

// silence disables IPv6 again after others enabled it inadvertently, for example with
// `sysctl net.ipv6.conf.all.disable_ipv6=0`, which changes all interfaces. The kernel
// reports the change immediately, and speaks some 10 ms later at the earliest.
func (g *Guard) silence() {
	name, err := link.NameOf(g.ifindex)
	if err != nil {
		return
	}
	_ = write(disableIPv6(name), quiet.DisableIPv6, read(disableIPv6(name)))
	_ = write(addrGenMode(name), quiet.AddrGenMode, read(addrGenMode(name)))
}

// stop ends the calls of silence.
func (g *Guard) stop() {
	if g.unfollow != nil {
		g.unfollow()
	}
}

// Close releases what the process holds; an Ingress may keep the host stack out for the
// next process. It leaves the sysctls.
func (g *Guard) Close() error {
	g.stop()
	if g.program == nil {
		return nil
	}
	if err := g.program.Close(); err != nil {
		return fmt.Errorf("let go of an interface: %w", err)
	}
	return nil
}

// Lift lets the host stack see the interface again. It leaves the sysctls.
func (g *Guard) Lift() error { return cmp.Or(g.Close(), Lift(g.ifindex, g.ingress)) }

// Lift detaches what an Ingress, which may be nil, kept for an earlier process's Guard.
func Lift(ifindex int, in Ingress) error {
	if in == nil {
		return nil
	}
	if err := in.Detach(ifindex); err != nil {
		return fmt.Errorf("let the host see an interface again: %w", err)
	}
	return nil
}
