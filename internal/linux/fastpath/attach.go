package fastpath

import (
	"errors"
	"io"
	"math"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Attach puts the program at a device's ingress. The host's own stack no longer sees the
// device's frames, and frames that the program does not forward are punted. A program
// that an earlier process left there is replaced without a gap. Closing the result
// detaches the program; after Stop, only if it is not pinned.
func (p *Path) Attach(ifindex int) (io.Closer, error) {
	l, err := p.hook(ifindex)
	if err != nil {
		p.log.Warn("a device stays without fast path", "ifindex", ifindex, "reason", err)
	}
	return l, err
}

func (p *Path) hook(ifindex int) (io.Closer, error) {
	if p.pins != nil {
		p.mark(ifindex, true)
		if l := p.pins.link(ifindex); l != nil {
			if isAt(l, ifindex) && p.adopt(l, ifindex) == nil {
				return &attachment{l, p, ifindex}, nil
			}
			// Its device is gone, or holds it in another namespace.
			_ = l.Detach()
			_ = l.Unpin()
			l.Close()
		}
	}
	l, err := p.attach(ifindex)
	if err != nil {
		return nil, explain("attach the fast path", err)
	}
	if p.pins != nil {
		if err := p.pins.keepLink(l, ifindex); err != nil {
			l.Close()
			return nil, err
		}
		return &attachment{l, p, ifindex}, nil
	}
	return l, nil
}

// attachment is a pinned link.
type attachment struct {
	link.Link
	path    *Path
	ifindex int
}

// Close also detaches the program, unless the process is about to end. Otherwise a device
// that the switch gave up, or that moved to another network namespace, would keep a
// program that drops frames which nobody receives.
func (a *attachment) Close() error {
	var err error
	if a.path.live.Load() {
		err = a.path.Detach(a.ifindex)
	}
	return errors.Join(err, a.Link.Close())
}

// adopt replaces the program of a pinned link with this Path's.
func (p *Path) adopt(l link.Link, ifindex int) error {
	if err := l.Update(p.bpf.Vswitch); err != nil {
		return err
	}
	return p.pins.keepLink(l, ifindex)
}

func (p *Path) attach(ifindex int) (link.Link, error) {
	return link.AttachTCX(link.TCXOptions{
		Interface: ifindex,
		Program:   p.bpf.Vswitch,
		Attach:    ebpf.AttachTCXIngress,
	})
}

// Detach removes the program from a device for good. A missing program is no error.
func (p *Path) Detach(ifindex int) error {
	if p.pins == nil {
		return nil
	}
	p.mark(ifindex, false)
	return p.pins.dropLink(ifindex)
}

// mark records whether a device's link is in use. Start leaves links in use alone.
func (p *Path) mark(ifindex int, used bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if used {
		p.attached[ifindex] = true
	} else {
		delete(p.attached, ifindex)
	}
}

// try returns why programs cannot be attached here, or nil. No device has the number it
// uses, so nothing is touched. A kernel without tcx fails before it looks for the device.
func (p *Path) try() error {
	switch _, err := p.attach(math.MaxInt32); {
	case errors.Is(err, unix.ENODEV):
		return nil
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.EINVAL):
		return errors.New("the kernel has no tcx; Linux 6.6 is the first that has")
	default:
		return explain("attach a program", err)
	}
}
