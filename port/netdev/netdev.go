// Package netdev is the port kind for an existing network interface: a physical NIC as an
// uplink, a veth to a container, a VLAN device. The switch makes it accept frames for all
// addresses, turns off features that merge frames irreversibly (LRO), and changes nothing
// else unasked. The kind's methods act on the calling thread's network namespace.
package netdev

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/vswitch/vswitch/internal/linux/afpacket"
	"github.com/vswitch/vswitch/internal/linux/hoststack"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/owner"
	"github.com/vswitch/vswitch/port"
)

// Options configure the kind. Switch must be set.
type Options struct {
	Switch string // the name of the switch that the ports belong to

	// Ingress decides which frames of exclusive ports to punt to the switch; nil: all
	// frames come.
	Ingress hoststack.Ingress
}

// kind implements port.Kind.
type kind struct{ Options }

// New returns the kind.
func New(o Options) (port.Kind, error) {
	if o.Switch == "" {
		return nil, errors.New("netdev ports need the name of their switch, which marks their devices")
	}
	return kind{o}, nil
}

// Port is an open netdev port.
type Port struct {
	*afpacket.Port
	before  *port.DeviceSettings // of the device before the switch; shared with the trace
	ingress hoststack.Ingress

	mu    sync.Mutex
	guard *hoststack.Guard // nil: the host stack takes part
}

var _ interface {
	port.Port
	port.KernelEnd
	port.Overrun
	port.Bound
	port.Exclusive
	port.Contested
} = (*Port)(nil)

// Close implements port.Port.
func (p *Port) Close() error {
	err := p.Port.Close()
	if g := p.takeGuard(); g != nil {
		err = cmp.Or(err, g.Close())
	}
	return err
}

// takeGuard takes the guard out of the port and returns it.
func (p *Port) takeGuard() *hoststack.Guard {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.guard
	p.guard = nil
	return g
}

// Punted implements port.KernelEnd.
func (p *Port) Punted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.guard.Punted()
}

// Exclusive implements port.Exclusive.
func (p *Port) Exclusive() bool { return p.isShut() }

// Contested implements port.Contested.
func (p *Port) Contested() error {
	p.mu.Lock()
	g := p.guard
	p.mu.Unlock()
	return g.Contested()
}

// Name implements port.Kind.
func (kind) Name() string { return "netdev" }

// Settings are the settings of netdev ports. No NIC has more than 64 queues that are worth
// a thread each. The device limits the MTU.
type Settings struct {
	Queues    int  `json:"queues,omitempty" arg:"N" min:"1" max:"64" default:"1" fixed:"true" help:"queues, each with a thread of its own"`
	MTU       int  `json:"mtu,omitempty" arg:"BYTES" min:"1" default:"the device's own" help:"longest payload"`
	Exclusive bool `json:"exclusive,omitempty" help:"hide the interface's frames from the host's own stack"`
}

// Describe implements port.Kind.
func (kind) Describe() port.Description {
	return port.Description{
		Help:     "the network interface NAME that is there: a veth end, a physical NIC.",
		Settings: Settings{},
	}
}

// Check implements port.Kind.
func (kind) Check(port.Spec) error { return nil }

// Find implements port.Finder.
func (kind) Find(s port.Spec, t port.Trace) int {
	l, _ := find(s, t)
	return l.Index
}

// Open implements port.Kind.
func (k kind) Open(s port.Spec, trace *port.Trace) (_ port.Port, err error) {
	o, t := port.SettingsOf[Settings](s), *trace
	l, err := find(s, t)
	if errors.Is(err, link.ErrNotFound) {
		return nil, port.Gone(fmt.Errorf("interface %s is not there; `ip link` lists those that are", s.Name))
	}
	if err != nil {
		return nil, err
	}
	if err := cmp.Or(owner.Check(l, k.Switch), check(l)); err != nil {
		return nil, err
	}
	var before port.DeviceSettings
	if t.Before != nil {
		before = hoststack.Complete(*t.Before, l.Name)
	} else {
		before = hoststack.Read(l.Name)
		before.Up, before.MTU = l.Up, l.MTU
	}
	if before.Alias, err = owner.Adopt(l, k.Switch, before.Alias); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = l.SetAlias(l.Alias)
		}
	}()
	off := turnOff(l, &before)
	defer func() {
		if err != nil {
			_ = l.TurnOn(off...)
		}
	}()
	t.Before, t.Ifname, t.Ifindex = &before, l.Name, l.Index

	// Shut the host stack out before the switch receives frames. Otherwise it could
	// receive frames that a program already at the device forwards as well.
	p := &Port{before: t.Before, ingress: k.Ingress}
	sysctls := hoststack.Read(l.Name)
	if o.Exclusive {
		if p.guard, err = hoststack.Shut(l.Name, l.Index, k.Ingress); err != nil {
			return nil, err
		}
	}
	p.Port, err = afpacket.Open(afpacket.Config{Ifindex: l.Index, Promiscuous: true, Queues: o.Queues, Punted: p.Punted()})
	if err != nil {
		err = fmt.Errorf("%s: %w", l.Name, err)
	} else if err = p.apply(l, o.MTU, o.Exclusive); err != nil {
		p.Port.Close()
	}
	if err != nil {
		if p.guard != nil {
			_ = p.guard.Lift()
			_ = hoststack.Restore(l.Name, sysctls)
		}
		return nil, err
	}
	*trace = t
	return p, nil
}

// unwanted are device features that merge received frames irreversibly: LRO loses the
// lengths of the frames, GRO lists of packets lose their headers. The kernel's bridge turns
// the former off as well.
var unwanted = []string{"rx-lro", "rx-gro-list"}

// turnOff turns unwanted features off, records in before which those were, and returns
// them. If it may not, the switch makes the best of what comes (vnet.Guess, vnet.Settle).
func turnOff(l link.Link, before *port.DeviceSettings) []string {
	off, _ := l.TurnOff(unwanted...)
	all := strings.Fields(before.Features)
	for _, f := range off {
		if !slices.Contains(all, f) {
			all = append(all, f)
		}
	}
	before.Features = strings.Join(all, " ")
	return off
}

// check returns why the switch cannot forward over the interface, or nil.
func check(l link.Link) error {
	switch {
	case l.Kind == "macvtap" || l.Kind == "ipvtap":
		return fmt.Errorf("%s is a %s: its virtual machine is on the network of the device below it, not behind it; add a port of kind tap (`vswitch add-port NAME`) and give the machine that TAP (libvirt: <interface type='ethernet'>)", l.Name, l.Kind)
	case l.TakesFrames() && !l.Passthru:
		return fmt.Errorf("%s is a %s, which gets frames for its own address only, none for machines of the switch; use a veth pair, or a macvlan of mode passthru", l.Name, l.Kind)
	case l.Loopback:
		return fmt.Errorf("%s is the host's loopback, which has no LAN behind it; use --kind host for traffic with the host", l.Name)
	case !l.Ethernet:
		return fmt.Errorf("%s is no Ethernet interface; a switch cannot forward by it", l.Name)
	case l.Master != 0:
		return fmt.Errorf("%s belongs to a bridge or bond, which forwards its frames already; attach that one instead, or `ip link set %s nomaster`", l.Name, l.Name)
	}
	return nil
}

// apply sets the device's MTU, 0 for its own, and keeps the host stack off it if exclusive
// is set. On an error the device stays as it was.
func (p *Port) apply(l link.Link, mtu int, exclusive bool) error {
	if mtu == 0 {
		mtu = p.before.MTU
	}
	if mtu != l.MTU {
		if err := l.SetMTU(mtu); err != nil {
			return err
		}
	}
	var err error
	switch shut := p.isShut(); {
	case exclusive && !shut:
		err = p.shut(l)
	case !exclusive && shut:
		err = p.expose(l)
	}
	if err != nil && mtu != l.MTU {
		_ = l.SetMTU(l.MTU)
	}
	return err
}

func (p *Port) isShut() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.guard != nil
}

// shut keeps the host stack off the interface.
func (p *Port) shut(l link.Link) error {
	p.before.StaticIPv6 = hoststack.Read(l.Name).StaticIPv6 // may have changed since Open
	g, err := hoststack.Shut(l.Name, l.Index, p.ingress)
	if err != nil {
		return err
	}
	if g.Punted() {
		if err := p.SetPunted(true); err != nil {
			return cmp.Or(g.Lift(), hoststack.Restore(l.Name, *p.before), err)
		}
	}
	p.mu.Lock()
	p.guard = g
	p.mu.Unlock()
	return nil
}

// expose gives the interface back to the host stack. During the change the switch misses
// frames rather than receive frames that the kernel forwards as well.
func (p *Port) expose(l link.Link) error {
	punted := p.Punted()
	if punted && len(p.Queues()) > 1 {
		return p.SetPunted(false) // returns an error before anything is changed
	}
	g := p.takeGuard()
	err := g.Lift()
	if err == nil && punted {
		err = p.SetPunted(false)
	}
	if err != nil {
		addresses := p.before.StaticIPv6
		again := p.shut(l) // guard and program stay together
		p.before.StaticIPv6 = addresses
		return cmp.Or(again, err)
	}
	return hoststack.Restore(l.Name, *p.before)
}

// Set implements port.Kind.
func (kind) Set(pp port.Port, _, to port.Spec) error {
	p, o := pp.(*Port), port.SettingsOf[Settings](to)
	l, err := link.ByIndex(p.Ifindex())
	if errors.Is(err, link.ErrNotFound) {
		return port.Gone(err)
	}
	if err != nil {
		return err
	}
	return p.apply(l, o.MTU, o.Exclusive)
}

// Delete implements port.Kind.
func (k kind) Delete(s port.Spec, t port.Trace) error {
	l, err := find(s, t)
	if errors.Is(err, link.ErrNotFound) || err == nil && t.Before == nil {
		return nil
	}
	if err != nil {
		return err
	}
	if owner.Check(l, k.Switch) != nil {
		return nil // another switch has taken the device since then
	}
	o := port.SettingsOf[Settings](s)
	if o.MTU != 0 && l.MTU != t.Before.MTU {
		if err := l.SetMTU(t.Before.MTU); err != nil {
			return err
		}
	}
	err = cmp.Or(l.TurnOn(strings.Fields(t.Before.Features)...), owner.Release(l, k.Switch, t.Before.Alias))
	if o.Exclusive {
		err = cmp.Or(err, hoststack.Lift(l.Index, k.Ingress), hoststack.Restore(l.Name, *t.Before))
	}
	return err
}

// find looks up the port's device, first by the name it was last seen with.
func find(s port.Spec, t port.Trace) (link.Link, error) {
	if t.Ifname != "" && t.Ifname != s.Name {
		if l, err := link.ByName(t.Ifname); err == nil {
			return l, nil
		}
	}
	return link.ByName(s.Name)
}
