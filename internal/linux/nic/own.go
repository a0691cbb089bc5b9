package nic

import (
	"cmp"
	"fmt"

	"github.com/vswitch/vswitch/internal/linux/afpacket"
	"github.com/vswitch/vswitch/internal/linux/hoststack"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/port"
)

// Own is an open device that the switch made, or that is for its ports alone: its sockets, and the
// guard that keeps the host's stack off. It implements port.Port and what is known of the device.
type Own struct {
	*afpacket.Port
	guard *hoststack.Guard
	done  port.Steps
}

var _ interface {
	port.Port
	port.KernelEnd
	port.Giver
	port.Leaver
	port.Overrun
	port.Lossy
	port.Bound
	port.Exclusive
	port.Contested
	port.Overtaken
	port.Programmed
	port.Shaping
} = (*Own)(nil)

// OpenOwn opens a device and sets it up. If that fails, the device is as it was, unless it is in
// use by another process, which gives c.From of it.
func OpenOwn(l link.Link, ingress hoststack.Ingress, c afpacket.Config) (_ *Own, err error) {
	o := &Own{}
	defer func() {
		if err != nil && c.From == nil {
			o.Undo()
		}
	}()
	sysctls := hoststack.Read(l.Name)
	if o.guard, err = hoststack.Shut(l.Name, l.Index, ingress); err != nil {
		return nil, err
	}
	o.done.Undoable(func() {
		_ = o.guard.Lift()
		_ = hoststack.Restore(l.Name, sysctls)
	})
	if !l.Up {
		if err := l.SetUp(true); err != nil {
			return nil, err
		}
		o.done.Undoable(func() { _ = l.SetUp(false) })
	}
	c.Ifindex, c.Punted = l.Index, o.Punted()
	if o.Port, err = afpacket.Open(c); err != nil {
		return nil, fmt.Errorf("%s: %w", l.Name, err)
	}
	o.done.Undoable(func() { _ = o.Port.Close() })
	return o, nil
}

// Undo undoes OpenOwn, for a caller whose later step fails.
func (o *Own) Undo() { o.done.Undo() }

// Punted implements port.KernelEnd.
func (o *Own) Punted() bool { return o.guard.Punted() }

// Exclusive implements port.Exclusive.
func (o *Own) Exclusive() bool { return true }

// Contested implements port.Contested.
func (o *Own) Contested() error { return o.guard.Contested() }

// Renew implements port.Programmed.
func (o *Own) Renew() error { return o.guard.Renew() }

// Overtaken implements port.Overtaken.
func (o *Own) Overtaken() string { return o.guard.Overtaken() }

// Close implements port.Port. The device stays for the machine behind it.
func (o *Own) Close() error { return cmp.Or(o.Port.Close(), o.guard.Close()) }

// Leave implements port.Leaver.
func (o *Own) Leave() error { return cmp.Or(o.Port.Leave(), o.guard.Close()) }

// Before completes what is known of a device before the switch took it, from the device itself.
func Before(l link.Link, known *port.DeviceSettings) port.DeviceSettings {
	if known != nil {
		return hoststack.Complete(*known, l.Name)
	}
	before := hoststack.Read(l.Name)
	before.Up, before.MTU = l.Up, l.MTU
	return before
}
