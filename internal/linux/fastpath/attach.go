package fastpath

import (
	"errors"
	"io"
	"math"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/hoststack"
)

// Attach implements hoststack.Ingress. A program that an earlier process left at the device is
// replaced without a gap. Closing the result detaches the program; after Stop, only if it is
// not pinned.
func (p *Path) Attach(ifindex int) (io.Closer, error) { return p.attachAs(ifindex, false) }

// AttachShared implements hoststack.Sharer.
func (p *Path) AttachShared(ifindex int) (io.Closer, error) { return p.attachAs(ifindex, true) }

func (p *Path) attachAs(ifindex int, shared bool) (io.Closer, error) {
	l, err := p.hook(ifindex, ingressHook(shared))
	if err != nil {
		p.log.Warn("a device stays without fast path", "ifindex", ifindex, "reason", err)
		return nil, err
	}
	p.share(ifindex, shared)
	return l, nil
}

// share records whether the host shares a device.
func (p *Path) share(ifindex int, on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shared[ifindex] = on
}

// hook is a program and where it is at a device.
type hook struct {
	program string
	at      ebpf.AttachType
	suffix  string // of its link's name among the pins
}

var (
	portHook   = hook{"vswitch", ebpf.AttachTCXIngress, ""}
	sharedHook = hook{"vswitch_shared", ebpf.AttachTCXIngress, ""}
	decapHook  = hook{"vswitch_decap", ebpf.AttachTCXIngress, ""}
	encapHook  = hook{"vswitch_encap", ebpf.AttachTCXEgress, egress}
)

// ingressHook returns the program of a device that is the switch's alone, or shared with the host.
func ingressHook(shared bool) hook {
	if shared {
		return sharedHook
	}
	return portHook
}

// hooksOf returns the programs of a device. The caller holds mu.
func (p *Path) hooksOf(ifindex int) []hook {
	if p.paths.open[uint32(ifindex)] {
		return []hook{decapHook, encapHook}
	}
	return []hook{ingressHook(p.shared[ifindex])}
}

func (p *Path) hook(ifindex int, h hook) (*attachment, error) {
	if p.pins != nil {
		p.mark(ifindex, true)
	}
	l, err := p.link(ifindex, h)
	if err != nil {
		return nil, err
	}
	return &attachment{path: p, ifindex: ifindex, hook: h, at: l}, nil
}

// link puts a program at a device.
func (p *Path) link(ifindex int, h hook) (link.Link, error) {
	if p.pins != nil {
		if l := p.pins.link(ifindex, h.suffix); l != nil {
			if is, _ := hoststack.IsAt(l, ifindex); is && p.adopt(l, ifindex, h) == nil {
				return l, nil
			}
			// Its device is gone, or holds it in another namespace.
			_ = l.Detach()
			_ = l.Unpin()
			l.Close()
		}
	}
	l, err := p.attach(ifindex, h)
	if err != nil {
		return nil, explain("attach the fast path", err)
	}
	if err := p.keepLink(l, ifindex, h.suffix); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// keepLink pins the link of a device, unless nothing outlives the process.
func (p *Path) keepLink(l link.Link, ifindex int, suffix string) error {
	if !p.havePins() {
		return nil
	}
	return p.pins.keepLink(l, ifindex, suffix)
}

// havePins reports whether there is a place for pins, which it makes again if somebody removed it.
func (p *Path) havePins() bool {
	return p.pins != nil && (!p.live.Load() || p.pins.restore(&p.programs))
}

// pinAgain pins the link of a device if somebody removed its pin: the kernel tells nobody.
func (p *Path) pinAgain(l link.Link, ifindex int, suffix string) {
	if p.live.Load() && p.havePins() && !p.pins.hasLink(ifindex, suffix) {
		p.check("pinning a program again", p.pins.keepLinkAgain(l, ifindex, suffix))
	}
}

// attachment is a program at a device.
type attachment struct {
	path    *Path
	ifindex int

	mu   sync.Mutex
	hook hook
	at   link.Link // not at the device any more if somebody detached it; see Renew
}

// SetShared implements hoststack.Sharer.
func (p *Path) SetShared(program io.Closer, on bool) error {
	a := program.(*attachment)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := p.update(a.at, ingressHook(on)); err != nil {
		return explain("change the program of the fast path", err)
	}
	a.hook = ingressHook(on)
	p.share(a.ifindex, on)
	return nil
}

// Renew implements hoststack.Program.
func (a *attachment) Renew() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	is, err := hoststack.IsAt(a.at, a.ifindex)
	if err != nil || a.path.stopped() {
		return nil
	}
	if is {
		a.path.pinAgain(a.at, a.ifindex, a.hook.suffix)
		return nil
	}
	l, err := a.path.link(a.ifindex, a.hook)
	if err != nil {
		return err
	}
	_ = a.at.Close()
	a.at = l
	a.path.log.Warn("somebody detached the switch's program from a device; it is there again", "ifindex", a.ifindex)
	return nil
}

// Info implements hoststack.Program.
func (a *attachment) Info() (*link.Info, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.at.Info()
}

// Close also detaches the program, unless the process is about to end. Otherwise a device
// that the switch gave up, or that moved to another network namespace, would keep a
// program that drops frames which nobody receives.
func (a *attachment) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var err error
	if a.path.live.Load() {
		err = a.path.Detach(a.ifindex)
	}
	return errors.Join(err, a.at.Close())
}

// Taken implements hoststack.Taker: it asks the kernel, see bpf/taken.h.
func (a *attachment) Taken() bool {
	n, err := a.path.feed("taken", uint32(a.ifindex), make([]byte, 64))
	return err == nil && n == 1
}

// adopt replaces the program of a pinned link with this Path's.
func (p *Path) adopt(l link.Link, ifindex int, h hook) error {
	if err := p.update(l, h); err != nil {
		return err
	}
	return p.keepLink(l, ifindex, h.suffix)
}

// update puts a program in the place of a link's.
func (p *Path) update(l link.Link, h hook) error {
	program, err := p.programs.get(h.program)
	if err != nil {
		return err
	}
	return l.Update(program)
}

func (p *Path) attach(ifindex int, h hook) (link.Link, error) {
	program, err := p.programs.get(h.program)
	if err != nil {
		return nil, err
	}
	return link.AttachTCX(link.TCXOptions{
		Interface: ifindex,
		Program:   program,
		Attach:    h.at,
		Anchor:    hoststack.BeforeOthers(ifindex, h.at),
	})
}

// Detach removes the programs from a device for good. A missing program is no error.
func (p *Path) Detach(ifindex int) error {
	if p.pins == nil {
		return nil
	}
	p.mark(ifindex, false)
	return errors.Join(p.pins.dropLink(ifindex, ""), p.pins.dropLink(ifindex, egress))
}

// mark records whether a device's link is in use. Start leaves links in use alone.
func (p *Path) mark(ifindex int, used bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if used {
		p.attached[ifindex] = true
	} else {
		delete(p.attached, ifindex)
		delete(p.shared, ifindex)
	}
}

// try returns why programs cannot be attached here, or nil. No device has the number it
// uses, so nothing is touched. A kernel without tcx fails before it looks for the device.
func (p *Path) try() error {
	switch _, err := p.attach(math.MaxInt32, portHook); {
	case errors.Is(err, unix.ENODEV):
		return nil
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.EINVAL):
		return errors.New("the kernel has no tcx; Linux 6.6 is the first that has")
	default:
		return explain("attach a program", err)
	}
}
