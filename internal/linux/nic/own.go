package nic

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/vswitch/vswitch/internal/linux/afpacket"
	"github.com/vswitch/vswitch/internal/linux/hoststack"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/owner"
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
// use by another process, which gives c.From of it: who set it down meanwhile wants it so.
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
	if !l.Up && c.From == nil {
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

// Claim marks a device that is there for a port of the switch named me, and records in t what Delete
// must know about it; more, unless it is nil, adds to that.
func Claim(l link.Link, me string, t *port.Trace, more func(*port.DeviceSettings)) (release func(), err error) {
	if t.Created = owner.Makes(l, me, *t); t.Created {
		t.Before = nil
		return func() {}, owner.Sign(l, me)
	}
	return adopt(l, me, t, more)
}

// adopt marks a device that the switch named me did not make, and records in t what it was before, with
// those of its features that the caller turns off. That is kept before the mark tells of it.
func adopt(l link.Link, me string, t *port.Trace, more func(*port.DeviceSettings), off ...string) (release func(), err error) {
	var before port.DeviceSettings
	known := t.Before != nil && owner.Counts(l, me, *t)
	if known {
		before = hoststack.Complete(*t.Before, l.Name)
	} else {
		before = hoststack.Read(l.Name)
		before.Up, before.MTU = l.Up, l.MTU
		if more != nil {
			more(&before)
		}
	}
	for _, f := range off {
		if all := strings.Fields(before.Features); !slices.Contains(all, f) {
			before.Features = strings.Join(append(all, f), " ")
		}
	}
	before.Alias, err = owner.Adopt(l, me, before.Alias, func(alias string) {
		before.Alias = alias
		known = known && *t.Before == before
		t.Before, t.IfMarked = &before, false
		owner.Note(t, l)
		if !known {
			t.Intend()
		}
	})
	return func() { _ = l.SetAlias(l.Alias) }, err
}
