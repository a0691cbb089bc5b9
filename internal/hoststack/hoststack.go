// Package hoststack keeps the host's own network stack off an interface that belongs
// to the switch: it neither speaks on the virtual machines' LAN nor answers there,
// and where the kernel has tcx it does not see it. The switch itself, on AF_PACKET,
// gets its frames before. A call acts on the calling thread's network namespace.
package hoststack

import (
	"cmp"
	"fmt"
	"io"

	"github.com/vswitch/vswitch/internal/link"
)

// Ingress is a program for devices' ingress that decides what comes to the switch,
// instead of one that only hides frames from the host.
type Ingress interface {
	// Attach puts the program at a device. Closing the result takes it off, unless
	// it is kept for the next process.
	Attach(ifindex int) (io.Closer, error)

	// Detach takes a kept program off. That there is none is no error.
	Detach(ifindex int) error
}

// Guard keeps the host stack out.
type Guard struct {
	ifindex  int
	unfollow func()    // nil: nobody looks whether IPv6 stays disabled
	program  io.Closer // nil: none
	ingress  Ingress   // nil: the program hides frames and no more
}

// Shut keeps the host stack off the interface, by in if that is not nil. A new
// interface must still be down: IPv6 speaks the moment it is up. The sysctls stay when
// the process dies and are taken back by Restore.
func Shut(ifname string, ifindex int, in Ingress) (*Guard, error) {
	before := Read(ifname)
	g := &Guard{ifindex: ifindex}
	// Where that cannot be followed, it stays as it is set now, for all that is known.
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
	// Without the filter (Linux before 6.6, or no right to load programs) the
	// sysctls alone keep the host silent.
	if f, err := attach(ifindex); err == nil {
		g.program = f
	}
	return g, nil
}

// Hidden tells whether the host stack sees no frame at all (tcx, Linux 6.6); if
// not, it is only kept from answering ARP and from speaking IPv6.
func (g *Guard) Hidden() bool { return g.program != nil }

// HandedUp tells whether an Ingress decides what comes to the switch.
func (g *Guard) HandedUp() bool { return g != nil && g.ingress != nil }

// silence disables IPv6 again, which others enable with no thought of the interface:
// `sysctl net.ipv6.conf.all.disable_ipv6=0` changes all there are. The kernel reports it
// at once, and speaks some 10 ms later at the earliest.
func (g *Guard) silence() {
	name, err := link.NameOf(g.ifindex)
	if err != nil {
		return
	}
	_ = write(disableIPv6(name), quiet.DisableIPv6, read(disableIPv6(name)))
	_ = write(addrGenMode(name), quiet.AddrGenMode, read(addrGenMode(name)))
}

// stop ends silence.
func (g *Guard) stop() {
	if g.unfollow != nil {
		g.unfollow()
	}
}

// Close gives up what the process holds: an Ingress may keep the host stack out for the
// next one. It leaves the sysctls.
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

// Lift does for an Ingress, which may be nil, what an earlier process's Guard cannot.
func Lift(ifindex int, in Ingress) error {
	if in == nil {
		return nil
	}
	if err := in.Detach(ifindex); err != nil {
		return fmt.Errorf("let the host see an interface again: %w", err)
	}
	return nil
}
