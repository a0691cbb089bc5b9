// Package host is the port kind for the host itself: a persistent TAP. The switch holds
// the fd end; the kernel end is a network interface of the host, or of a namespace, with
// addresses on the switch's LAN. The kind's methods act on the namespace that the spec
// names, or else on that of the calling thread.
package host

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vswitch/vswitch/internal/linux/hoststack"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/nic"
	"github.com/vswitch/vswitch/internal/linux/owner"
	"github.com/vswitch/vswitch/internal/linux/tuntap"
	"github.com/vswitch/vswitch/port"
)

// defaultMTU is the MTU that the kernel gives a new TAP.
const defaultMTU = 1500

// queueLen is how many frames of the host wait in a device that the switch made: as many as in a
// packet socket of other kinds, so that a restart loses no more here. The kernel's own 500 are 50 ms
// of 10,000 frames a second.
const queueLen = 4096

// Options configure the kind. Switch must be set.
type Options struct {
	Switch string // the name of the switch that the ports belong to
	MTU    int    // of ports whose spec names none; 0 keeps each device's own
}

// kind implements port.Kind.
type kind struct{ Options }

// New returns the kind.
func New(o Options) (port.Kind, error) {
	if o.Switch == "" {
		return nil, errors.New("host ports need the name of their switch, which marks their devices")
	}
	return kind{o}, nil
}

// Port is an open host port.
type Port struct {
	*tuntap.Device
	name    string // the device's name when the port was opened
	ifindex int    // in the namespace of netns
	netns   *link.Netns
	mtu     int // used if the spec names none
	before  *port.DeviceSettings
}

var _ interface {
	port.Port
	port.Device
	port.Giver
	port.Bound
} = (*Port)(nil)

// Ifindex implements port.Device.
func (p *Port) Ifindex() int {
	if p.netns != nil {
		return 0
	}
	return p.ifindex
}

// Name implements port.Kind.
func (kind) Name() string { return "host" }

// Settings are the settings of host ports.
type Settings struct {
	MTU     int      `json:"mtu,omitempty" arg:"BYTES" min:"68" max:"65521" default:"the device's own" help:"longest payload"`
	Address []string `json:"address,omitempty" arg:"ADDRESS/LENGTH" help:"address of the host's or container's end; can be given several times"`
	Netns   string   `json:"netns,omitempty" arg:"NAME" fixed:"true" help:"network namespace of the host's or container's end, a name or a path"`
}

// Describe implements port.Kind.
func (kind) Describe() port.Description {
	return port.Description{
		Help:     "a NIC of this host, or of a network namespace, in the VMs' network.",
		Settings: Settings{},
		Station:  true,
		Own:      true,
	}
}

// Check implements port.Kind.
func (kind) Check(s port.Spec) error {
	_, err := addresses(s)
	return err
}

// addresses reads the spec's addresses.
func addresses(s port.Spec) ([]netip.Prefix, error) {
	return link.ParseAddresses(port.SettingsOf[Settings](s).Address)
}

// Find implements port.Finder.
func (k kind) Find(s port.Spec, t port.Trace) (index int, is bool) {
	ns, err := netns(s)
	if err == nil && ns != nil {
		err = ns.Do(func() error { _, err := k.find(s, t); return err })
		return 0, !errors.Is(err, link.ErrNotFound) // the kernel refuses a second holder of a TAP
	}
	l, err := k.find(s, t)
	return l.Index, !errors.Is(err, link.ErrNotFound)
}

// find looks up the TAP of a port.
func (k kind) find(s port.Spec, t port.Trace) (link.Link, error) {
	return owner.Find(k.Switch, "tap", s.Name, t)
}

// Open implements port.Kind.
func (k kind) Open(s port.Spec, trace *port.Trace) (port.Port, error) {
	return k.openIn(s, trace, nil)
}

// Take implements port.Heir.
func (k kind) Take(s port.Spec, trace *port.Trace, from *port.Parcel) (port.Port, error) {
	return k.openIn(s, trace, from)
}

// openIn opens a port in its namespace, with what another process gives of it unless from is nil.
func (k kind) openIn(s port.Spec, trace *port.Trace, from *port.Parcel) (port.Port, error) {
	list, err := addresses(s)
	if err != nil {
		return nil, err
	}
	p := &Port{}
	if p.netns, err = netns(s); err != nil {
		return nil, missing(err)
	}
	// The device is made in its own namespace: nothing has to be moved, and a later
	// process finds it there the same way.
	t := *trace
	if err := p.do(func() error { return p.open(k, s, list, &t, from) }); err != nil {
		return nil, err
	}
	*trace = t
	return p, nil
}

func (p *Port) open(k kind, s port.Spec, list []netip.Prefix, t *port.Trace, from *port.Parcel) (err error) {
	// If a step fails, the earlier ones are undone; not on a device that another process uses.
	var done port.Steps
	defer func() {
		if err != nil && from == nil {
			done.Undo()
		}
	}()

	l, err := k.find(s, *t)
	switch {
	case err == nil:
		if err := owner.Check(l, k.Switch); err != nil {
			return err
		}
		if l.Kind != "tap" {
			return tuntap.NotATAP(l)
		}
		if l.Master != 0 {
			return fmt.Errorf("%s belongs to a bridge or bond; take it out with `ip link set %s nomaster`", l.Name, l.Name)
		}
		release, err := nic.Claim(l, k.Switch, t, func(b *port.DeviceSettings) {
			all, _ := l.Addresses()
			b.Addresses = strings.Trim(fmt.Sprint(all), "[]")
		})
		if err != nil {
			return err
		}
		done.Undoable(release)
	case !errors.Is(err, link.ErrNotFound):
		return err
	case from != nil:
		return port.Gone(fmt.Errorf("TAP %s is not there", s.Name))
	case t.Ifname != "" && !t.Created:
		return port.Gone(fmt.Errorf("TAP %s, which vswitch did not make, is not there; make it again", s.Name))
	default:
		t.IntendToMake(s.Name) // nobody looks for it in other namespaces
		if err := tuntap.Create(s.Name, owner.Made(k.Switch), tuntap.Access{Owner: 0, Group: tuntap.Anyone}, false); err != nil {
			return err
		}
		done.Undoable(func() {
			if l, err := link.ByName(s.Name); err == nil {
				_ = l.Delete()
			}
		})
		t.Created, t.Before = true, nil
		if l, err = link.ByName(s.Name); err != nil {
			return err
		}
		if err := l.SetQueueLen(queueLen); err != nil {
			return err
		}
	}
	owner.Note(t, l)
	own := defaultMTU
	if t.Before != nil {
		own = t.Before.MTU
	}
	p.name, p.ifindex, p.mtu, p.before = l.Name, l.Index, cmp.Or(k.MTU, own), t.Before

	// The host speaks as soon as its end is up, so the switch opens its own end first.
	var check func() bool
	if p.netns != nil {
		check = p.netns.Current
	}
	if from != nil {
		p.Device, err = tuntap.Take(from, l.Name, check)
	} else {
		p.Device, err = tuntap.Open(l.Name, check)
	}
	if err != nil {
		return err
	}
	done.Undoable(func() { p.Device.Close() })

	if mtu := cmp.Or(port.SettingsOf[Settings](s).MTU, k.MTU); mtu != 0 && mtu != l.MTU {
		if err := l.SetMTU(mtu); err != nil {
			return err
		}
		done.Undoable(func() { _ = l.SetMTU(l.MTU) })
	}
	for _, a := range list {
		added, err := l.GiveAddress(a)
		if err != nil {
			return err
		}
		if added {
			done.Undoable(func() { _ = l.DelAddress(a) })
		}
	}
	if !l.Up && from == nil {
		return l.SetUp(true)
	}
	return nil
}

// Set implements port.Kind.
func (kind) Set(pp port.Port, from, to port.Spec) error {
	p := pp.(*Port)
	old, err := addresses(from)
	if err != nil {
		return err
	}
	list, err := addresses(to)
	if err != nil {
		return err
	}
	return p.do(func() error {
		return p.set(port.SettingsOf[Settings](from).MTU, port.SettingsOf[Settings](to).MTU, old, list)
	})
}

func (p *Port) set(from, to int, old, list []netip.Prefix) error {
	l, err := link.ByIndex(p.ifindex)
	if err != nil {
		return missing(err)
	}
	if mtu := cmp.Or(to, p.mtu); from != to && mtu != l.MTU {
		if err := l.SetMTU(mtu); err != nil {
			return err
		}
	}
	err = l.ExchangeAddresses(given(old, p.before), list)
	if err != nil {
		_ = l.ExchangeAddresses(given(list, p.before), old)
		_ = l.SetMTU(l.MTU)
	}
	return err
}

// ReturnMoved implements port.Mover.
func (k kind) ReturnMoved(index int, s port.Spec, t port.Trace) error {
	return nic.Taker{Switch: k.Switch}.ReturnMoved(index, cmp.Or(port.SettingsOf[Settings](s).MTU, k.MTU), t)
}

// Delete implements port.Kind.
func (k kind) Delete(s port.Spec, t port.Trace) error {
	list, err := addresses(s)
	if err != nil {
		return err
	}
	ns, err := netns(s)
	if errors.Is(err, link.ErrNotFound) {
		return nil // the device went with its namespace
	}
	if err != nil {
		return err
	}
	return (&Port{netns: ns}).do(func() error {
		l, err := k.find(s, t)
		switch {
		case errors.Is(err, link.ErrNotFound):
			return nil
		case err != nil:
			return err
		case l.Kind != "tap", owner.Check(l, k.Switch) != nil, !owner.Counts(l, k.Switch, t):
			return nil // another device now has the name, or another switch the device
		case t.Created && owner.Makes(l, k.Switch, t):
			return l.Delete()
		case t.Created, t.Before == nil:
			return nil // somebody else made a device of that name
		}
		return cmp.Or(restore(l, cmp.Or(port.SettingsOf[Settings](s).MTU, k.MTU), list, t.Before), owner.Release(l, k.Switch, t.Before.Alias))
	})
}

// restore undoes what Open changed on a device that the switch did not make.
func restore(l link.Link, mtu int, list []netip.Prefix, before *port.DeviceSettings) error {
	for _, a := range given(list, before) {
		if err := l.DelAddress(a); err != nil {
			return err
		}
	}
	if mtu != 0 && l.MTU != before.MTU {
		if err := l.SetMTU(before.MTU); err != nil {
			return err
		}
	}
	if before.Up || !l.Up {
		return nil
	}
	// The kernel forgets the IPv6 addresses of an interface that is set down.
	addresses := port.DeviceSettings{StaticIPv6: hoststack.Read(l.Name).StaticIPv6}
	return cmp.Or(l.SetUp(false), hoststack.Restore(l.Name, addresses))
}

// given returns those of a port's addresses that its device did not have before the switch.
func given(list []netip.Prefix, before *port.DeviceSettings) []netip.Prefix {
	if before == nil {
		return list
	}
	had := strings.Fields(before.Addresses)
	return slices.DeleteFunc(slices.Clone(list), func(a netip.Prefix) bool { return slices.Contains(had, a.String()) })
}

// netns returns the namespace that the spec names, nil for the caller's own.
func netns(s port.Spec) (*link.Netns, error) {
	name := port.SettingsOf[Settings](s).Netns
	if name == "" {
		return nil, nil
	}
	return link.FindNetns(name)
}

// do calls f in the namespace of the port's device.
func (p *Port) do(f func() error) error {
	if p.netns == nil {
		return f()
	}
	return p.netns.Do(f)
}

// missing wraps ErrNotFound with port.Gone, since the device may come back.
func missing(err error) error {
	if errors.Is(err, link.ErrNotFound) {
		return port.Gone(err)
	}
	return err
}
