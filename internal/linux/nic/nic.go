// Package nic takes network interfaces that are there for ports, and gives them back: it marks
// them, makes them accept frames for all addresses, turns off features that merge frames
// irreversibly, and keeps the host's own stack off those that are exclusive. All of that is
// recorded and undone. Calls act on the calling thread's network namespace.
package nic

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/vswitch/vswitch/internal/linux/afpacket"
	"github.com/vswitch/vswitch/internal/linux/hoststack"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/owner"
	"github.com/vswitch/vswitch/internal/linux/shape"
	"github.com/vswitch/vswitch/internal/linux/tuntap"
	"github.com/vswitch/vswitch/port"
)

// Taker takes interfaces for one switch.
type Taker struct {
	Switch  string            // its name, which marks them
	Ingress hoststack.Ingress // decides which frames to punt; nil: all frames come
}

// Config is how an interface is used.
type Config struct {
	Queues    int // 0 means 1
	MTU       int // 0: its own
	Exclusive bool

	From *port.Parcel // what another process gives of its Device at the interface; nil: none
}

// Device is an interface in use. It implements port.Port and what is known of the device.
type Device struct {
	*afpacket.Port
	ingress hoststack.Ingress
	free    func() // lets another port take it

	mu    sync.Mutex
	trace port.Trace       // what Return must undo
	guard *hoststack.Guard // nil: nothing is at the interface, which is shared with the host
	shut  bool             // the host stack takes no part
}

// Trace implements port.Tracer.
func (d *Device) Trace() port.Trace {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.trace
}

// setBefore records what the interface was before the switch.
func (d *Device) setBefore(b port.DeviceSettings) port.Trace {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trace.Before = &b
	return d.trace
}

// Close implements port.Port. The interface keeps its settings until Return.
func (d *Device) Close() error { return d.end(d.Port.Close()) }

// Leave implements port.Leaver.
func (d *Device) Leave() error { return d.end(d.Port.Leave()) }

// end lets go of the interface after its sockets.
func (d *Device) end(err error) error {
	defer d.free()
	if g := d.takeGuard(); g != nil {
		err = cmp.Or(err, g.Close())
	}
	return err
}

// takeGuard takes the guard out of the device and returns it.
func (d *Device) takeGuard() *hoststack.Guard {
	d.mu.Lock()
	defer d.mu.Unlock()
	g := d.guard
	d.guard = nil
	return g
}

// Punted implements port.KernelEnd.
func (d *Device) Punted() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.guard.Punted()
}

// Exclusive implements port.Exclusive.
func (d *Device) Exclusive() bool { return d.isShut() }

// Contested implements port.Contested.
func (d *Device) Contested() error { return d.theGuard().Contested() }

// Renew implements port.Programmed.
func (d *Device) Renew() error { return d.theGuard().Renew() }

// Overtaken implements port.Overtaken.
func (d *Device) Overtaken() string { return d.theGuard().Overtaken() }

func (d *Device) theGuard() *hoststack.Guard {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.guard
}

// Take takes an interface. It records in trace what Return must undo; trace comes from an
// earlier Take of it, or is empty. An error leaves both as they were.
func (k Taker) Take(l link.Link, o Config, trace *port.Trace) (_ *Device, err error) {
	t := *trace
	if err := cmp.Or(owner.Check(l, k.Switch), check(l), tuntap.Free(l)); err != nil {
		return nil, err
	}
	free, err := reserve(l)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			free()
		}
	}()
	// If it may not turn them off, the switch makes the best of what comes (vnet.Guess, vnet.Settle).
	off, _ := l.WouldTurnOff(unwanted...)
	release, err := adopt(l, k.Switch, &t, nil, off...)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			release()
		}
	}()
	off, _ = l.TurnOff(off...)
	defer func() {
		if err != nil {
			_ = l.TurnOn(off...)
		}
	}()

	// Shut the host stack out before the switch receives frames. Otherwise it could
	// receive frames that a program already at the device forwards as well.
	d := &Device{trace: t, ingress: k.Ingress, free: free}
	sysctls := hoststack.Read(l.Name)
	if o.Exclusive {
		if d.guard, err = hoststack.Shut(l.Name, l.Index, k.Ingress); err != nil {
			return nil, err
		}
		d.shut = true
	} else {
		d.guard = hoststack.Share(l.Index, k.Ingress)
	}
	d.Port, err = afpacket.Open(afpacket.Config{Ifindex: l.Index, Promiscuous: true, Queues: o.Queues, Punted: d.Punted(), From: o.From})
	if err != nil {
		err = fmt.Errorf("%s: %w", l.Name, err)
	} else if err = d.apply(l, o.MTU, o.Exclusive); err != nil {
		d.Port.Close()
	}
	if err != nil {
		if d.guard != nil && o.From == nil { // another process needs it
			_ = d.guard.Lift()
		}
		if o.Exclusive && o.From == nil {
			_ = hoststack.Restore(l.Name, sysctls)
		}
		return nil, err
	}
	*trace = t
	return d, nil
}

// taken are the interfaces of open Devices. A device is one port of a switch, or one member
// of a port.
var taken struct {
	sync.Mutex
	by map[key]bool
}

// key identifies an interface on the host.
type key struct {
	netns link.NetnsID
	index int
}

// reserve enters an interface into taken, until free is called.
func reserve(l link.Link) (free func(), err error) {
	k := key{index: l.Index}
	if k.netns, err = link.ThreadNetns(); err != nil {
		return nil, err
	}
	taken.Lock()
	defer taken.Unlock()
	if taken.by[k] {
		return nil, fmt.Errorf("%s is the device of another port of this switch already; a device is one port", l.Name)
	}
	if taken.by == nil {
		taken.by = make(map[key]bool)
	}
	taken.by[k] = true
	return sync.OnceFunc(func() {
		taken.Lock()
		defer taken.Unlock()
		delete(taken.by, k)
	}), nil
}

// unwanted are device features that merge received frames irreversibly: LRO loses the
// lengths of the frames, GRO lists of packets lose their headers. The kernel's bridge turns
// the former off as well.
var unwanted = []string{"rx-lro", "rx-gro-list"}

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

// apply sets the device's MTU, unless that is 0, and keeps the host stack off it if exclusive
// is set. On an error the device stays as it was.
func (d *Device) apply(l link.Link, mtu int, exclusive bool) error {
	mtu = cmp.Or(mtu, l.MTU)
	if mtu != l.MTU {
		if err := l.SetMTU(mtu); err != nil {
			return err
		}
	}
	var err error
	switch shut := d.isShut(); {
	case exclusive && !shut:
		err = d.hide(l)
	case !exclusive && shut:
		err = d.expose(l)
	}
	if err != nil && mtu != l.MTU {
		_ = l.SetMTU(l.MTU)
	}
	return err
}

func (d *Device) isShut() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.shut
}

// set sets the guard of the device.
func (d *Device) set(g *hoststack.Guard, shut bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.guard, d.shut = g, shut
}

// hide keeps the host stack off the interface.
func (d *Device) hide(l link.Link) error {
	before := *d.Trace().Before
	if now := hoststack.Read(l.Name); now.DisableIPv6 != "1" && now.StaticIPv6 != before.StaticIPv6 { // it has changed since Open
		before.StaticIPv6 = now.StaticIPv6
		d.setBefore(before).Intend()
	}
	d.mu.Lock()
	g := d.guard
	d.mu.Unlock()
	var err error
	if g != nil {
		if err = g.Hide(l.Name); err != nil {
			return cmp.Or(hoststack.Restore(l.Name, before), err)
		}
	} else if g, err = hoststack.Shut(l.Name, l.Index, nil); err != nil { // it had no program to begin with
		return err
	}
	d.set(g, true)
	return nil
}

// expose gives the interface back to the host stack.
func (d *Device) expose(l link.Link) error {
	before := *d.Trace().Before
	if d.Punted() {
		d.mu.Lock()
		g := d.guard
		d.mu.Unlock()
		if err := g.Expose(); err != nil {
			return err
		}
		d.set(g, false)
	} else {
		g := d.takeGuard()
		d.set(nil, false)
		if err := g.Lift(); err != nil {
			again := d.hide(l)
			d.setBefore(before)
			return cmp.Or(again, err)
		}
	}
	return hoststack.Restore(l.Name, before)
}

// Set changes how the interface is used, except for its queues. On an error it stays as it was. The MTU is the
// user's own unless it is set, so only an MTU that is set no longer goes back to what it was.
func (d *Device) Set(from, to Config) error {
	l, err := link.ByIndex(d.Ifindex())
	if errors.Is(err, link.ErrNotFound) {
		return port.Gone(err)
	}
	if err != nil {
		return err
	}
	mtu := to.MTU
	switch {
	case from.MTU == to.MTU:
		mtu = 0
	case mtu == 0:
		mtu = d.Trace().Before.MTU
	}
	return d.apply(l, mtu, to.Exclusive)
}

// Return gives an interface back as it was before Take, unless another switch has taken it since.
func (k Taker) Return(l link.Link, o Config, t port.Trace) error {
	if t.Before == nil || owner.Check(l, k.Switch) != nil || !owner.Counts(l, k.Switch, t) {
		return nil
	}
	err := cmp.Or(restore(l, o.MTU, *t.Before), shape.Remove(l.Index), hoststack.Lift(l.Index, k.Ingress))
	if o.Exclusive {
		err = cmp.Or(err, hoststack.Restore(l.Name, *t.Before))
	}
	// The mark goes last: with it, the next process knows after a kill that there is more to give back.
	return cmp.Or(err, owner.Release(l, k.Switch, t.Before.Alias))
}

// restore gives an interface its MTU back, if mtu replaced that, and the features that were turned off.
func restore(l link.Link, mtu int, before port.DeviceSettings) error {
	if mtu != 0 && l.MTU != before.MTU {
		if err := l.SetMTU(before.MTU); err != nil {
			return err
		}
	}
	return l.TurnOn(strings.Fields(before.Features)...)
}

// ReturnMoved is Return for an interface that somebody moved to the calling thread's network namespace,
// with its index there. The move ended what was attached to it, and its sysctls are new.
func (k Taker) ReturnMoved(index, mtu int, t port.Trace) error {
	l, err := link.ByIndex(index)
	if err != nil || !owner.Marked(l, k.Switch) {
		return err
	}
	if t.Before == nil {
		return owner.Release(l, k.Switch, "")
	}
	return cmp.Or(restore(l, mtu, *t.Before), owner.Release(l, k.Switch, t.Before.Alias))
}

// ReturnStray is ReturnMoved for an interface that may be in any other network namespace; it is no
// error if it is in none.
func (k Taker) ReturnStray(o Config, t port.Trace) error {
	all, err := owner.Strays(k.Switch)
	for _, s := range all {
		if t.MAC != "" && s.Link.MACString() == t.MAC {
			if err := s.Do(func(l link.Link) error { return k.ReturnMoved(l.Index, o.MTU, t) }); err != nil {
				return fmt.Errorf("%s, which was moved to another network namespace, keeps the settings and the alias of a port: %w", s.Link.Name, err)
			}
			return nil
		}
	}
	return err
}

// Find looks up the interface of a port or member, also one that was renamed.
func (k Taker) Find(name string, t port.Trace) (link.Link, error) {
	return owner.Find(k.Switch, "", name, t)
}
