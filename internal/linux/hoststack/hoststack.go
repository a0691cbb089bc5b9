// Package hoststack keeps the host's own network stack off an interface that belongs
// to the switch. The host neither speaks nor answers on the virtual machines' LAN, and
// if the kernel has tcx, it does not see the frames at all. The switch itself, on
// AF_PACKET, receives them earlier. A call acts on the calling thread's network namespace.
package hoststack

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

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

// Sharer is an Ingress that also has a program for devices in which the host takes part.
type Sharer interface {
	Ingress

	// AttachShared is Attach for such a device.
	AttachShared(ifindex int) (io.Closer, error)

	// SetShared replaces an attached program, without a gap, by one that shares the
	// device's frames with the host or hides them.
	SetShared(program io.Closer, on bool) error
}

// Guard keeps the host stack out, or lets it take part.
type Guard struct {
	ifindex  int
	unfollow func()    // nil: nothing watches whether IPv6 stays disabled
	program  io.Closer // nil: none
	ingress  Ingress   // nil: the program only hides frames
	shared   atomic.Bool
}

// Share lets the host take part in an interface whose frames in forwards. It returns nil if
// in is no Sharer or has no program for the interface: then all frames reach both.
func Share(ifindex int, in Ingress) *Guard {
	s, can := in.(Sharer)
	if !can {
		return nil
	}
	p, err := s.AttachShared(ifindex)
	if err != nil {
		return nil
	}
	g := &Guard{ifindex: ifindex, program: p, ingress: in}
	g.shared.Store(true)
	return g
}

// Hide keeps the host stack off an interface that was shared.
func (g *Guard) Hide(ifname string) error {
	if err := g.silenceAll(ifname); err != nil {
		return err
	}
	if err := g.setShared(false); err != nil {
		g.stop()
		return err
	}
	return nil
}

// Expose shares an interface from which the host stack was kept. It leaves the sysctls.
func (g *Guard) Expose() error {
	if err := g.setShared(true); err != nil {
		return err
	}
	g.stop()
	return nil
}

func (g *Guard) setShared(on bool) error {
	s, can := g.ingress.(Sharer)
	if !can {
		return errors.New("the program at the interface cannot share it with the host")
	}
	if err := s.SetShared(g.program, on); err != nil {
		return err
	}
	g.shared.Store(on)
	return nil
}

// Shut keeps the host stack off the interface, with in if that is not nil. A new
// interface must still be down: IPv6 speaks as soon as it is up. The sysctls outlive the
// process; Restore takes them back.
func Shut(ifname string, ifindex int, in Ingress) (*Guard, error) {
	g := &Guard{ifindex: ifindex}
	if err := g.silenceAll(ifname); err != nil {
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

// silenceAll makes the sysctls, which stay until Restore.
func (g *Guard) silenceAll(ifname string) error {
	before := Read(ifname)
	// If this fails, the settings made now stay unless somebody changes them.
	g.unfollow, _ = link.FollowIPv6(g.ifindex, g.silence)
	if err := set(ifname, quiet, before); err != nil {
		g.stop()
		Restore(ifname, before)
		return err
	}
	return nil
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
		g.unfollow = nil
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
