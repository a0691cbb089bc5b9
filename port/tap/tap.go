// Package tap is the port kind for virtual machines: a persistent TAP. The machine holds
// the fd end (QEMU `-netdev tap,ifname=…,script=no`); the switch attaches to the kernel end
// by AF_PACKET. The machine may come, go and come back. The kind's methods act on the
// calling thread's network namespace.
package tap

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/vswitch/vswitch/internal/linux/account"
	"github.com/vswitch/vswitch/internal/linux/afpacket"
	"github.com/vswitch/vswitch/internal/linux/hoststack"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/nic"
	"github.com/vswitch/vswitch/internal/linux/owner"
	"github.com/vswitch/vswitch/internal/linux/shape"
	"github.com/vswitch/vswitch/internal/linux/tuntap"
	"github.com/vswitch/vswitch/internal/qemu"
	"github.com/vswitch/vswitch/port"
)

// defaultMTU is the MTU that the kernel gives a new TAP. The switch does not change it,
// since some monitors (Cloud Hypervisor) pass it to the guest as the MTU of the LAN. It
// does not limit super-frames.
const defaultMTU = 1500

// The limits of a TAP's MTU, in bytes.
const (
	MinMTU = tuntap.MinMTU
	MaxMTU = tuntap.MaxMTU
)

// Options configure the kind. Switch must be set.
type Options struct {
	Switch string // the name of the switch that the ports belong to
	MTU    int    // of ports whose spec names none; 0 keeps each device's own

	// Ingress decides which frames to punt to the switch; nil: all frames come.
	Ingress hoststack.Ingress
}

// kind implements port.Kind.
type kind struct{ Options }

// New returns the kind.
func New(o Options) (port.Kind, error) {
	if o.Switch == "" {
		return nil, errors.New("tap ports need the name of their switch, which marks their devices")
	}
	return kind{o}, nil
}

// Port is an open tap port.
type Port struct {
	*nic.Own
	mtu int // used if the spec names none
}

// Name implements port.Kind.
func (kind) Name() string { return "tap" }

// Settings are the settings of tap ports. A TAP has at most 256 queues (MAX_TAP_QUEUES).
type Settings struct {
	Owner  string `json:"owner,omitempty" arg:"USER" default:"root alone" help:"who may open the device or the socket, by name or number"`
	Group  string `json:"group,omitempty" arg:"GROUP" help:"group that may open the device or the socket, by name or number"`
	Queues int    `json:"queues,omitempty" arg:"N" min:"1" max:"256" default:"1" fixed:"true" help:"queues, each with a thread of its own"`
	MTU    int    `json:"mtu,omitempty" arg:"BYTES" min:"68" max:"65521" default:"the device's own" help:"longest payload"`
}

// Describe implements port.Kind.
func (kind) Describe() port.Description {
	return port.Description{
		Help:     "a virtual machine's NIC: makes the TAP device NAME, or takes the one\nthat is there. The machine may start before or after.",
		Settings: Settings{},
		Station:  true,
		QEMU:     qemuFlags,
		Libvirt:  libvirt,
	}
}

// qemuFlags returns the flags that make QEMU open the TAP and give the guest's NIC its MTU.
func qemuFlags(s port.Spec, g qemu.Guest) (f qemu.Flags, err error) {
	if g.Memory != "" {
		return f, fmt.Errorf("port %s needs no shared memory; leave --memory out", s.Name)
	}
	o := port.SettingsOf[Settings](s)
	queues, device := qemu.Queues(o.Queues)
	f.Backend = []string{"-netdev", "tap,id=" + g.ID + ",ifname=" + qemu.Value(cmp.Or(g.Ifname, s.Name)) + ",script=no,downscript=no" + queues}
	f.Device = device + qemu.MTU(cmp.Or(g.MTU, o.MTU))
	return f, nil
}

// libvirt describes a NIC at a TAP that exists: libvirt 5.7 and later leaves it as it is.
func libvirt(s port.Spec, g qemu.Guest) qemu.Interface {
	o := port.SettingsOf[Settings](s)
	return qemu.Interface{
		Type:   "ethernet",
		Target: &qemu.Target{Dev: cmp.Or(g.Ifname, s.Name), Managed: "no"},
		Driver: qemu.QueuesOf(o.Queues),
		MTU:    qemu.SizeOf(cmp.Or(g.MTU, o.MTU)),
	}
}

// Check implements port.Kind.
func (kind) Check(s port.Spec) error {
	_, err := access(port.SettingsOf[Settings](s))
	return err
}

// Find implements port.Finder.
func (k kind) Find(s port.Spec, t port.Trace) (index int, is bool) {
	l, err := k.find(s, t)
	return l.Index, !errors.Is(err, link.ErrNotFound)
}

// Attended implements port.Attended.
func (k kind) Attended(s port.Spec, t port.Trace) string {
	l, err := k.find(s, t)
	if err != nil || l.Kind != "tap" || owner.Check(l, k.Switch) != nil {
		return ""
	}
	held, err := link.Carrier(l.Index)
	switch {
	case err != nil || !held:
		return ""
	case k.made(l, t):
		return fmt.Sprintf("a virtual machine holds TAP %s, which would be deleted under it", l.Name)
	}
	return fmt.Sprintf("a virtual machine holds TAP %s, which would stay without a switch", l.Name)
}

// made reports whether a device is the one that the switch made for a port.
func (k kind) made(l link.Link, t port.Trace) bool {
	return t.Created && owner.Makes(l, k.Switch, t)
}

// find looks up the TAP of a port.
func (k kind) find(s port.Spec, t port.Trace) (link.Link, error) {
	return owner.Find(k.Switch, "tap", s.Name, t)
}

// Open implements port.Kind.
func (k kind) Open(s port.Spec, trace *port.Trace) (port.Port, error) { return k.open(s, trace, nil) }

// Take implements port.Heir.
func (k kind) Take(s port.Spec, trace *port.Trace, from *port.Parcel) (port.Port, error) {
	return k.open(s, trace, from)
}

// open opens a port, with what another process gives of it unless from is nil.
func (k kind) open(s port.Spec, trace *port.Trace, from *port.Parcel) (_ port.Port, err error) {
	// If a step fails, the earlier ones are undone; not on a device that another process uses.
	var done port.Steps
	defer func() {
		if err != nil && from == nil {
			done.Undo()
		}
	}()

	o := port.SettingsOf[Settings](s)
	who, err := access(o)
	if err != nil {
		return nil, err
	}
	t := *trace
	l, err := k.find(s, t)
	switch {
	case err == nil:
		if err := cmp.Or(owner.Check(l, k.Switch), check(l, o, who, !owner.Noted(l, t)), tuntap.Free(l)); err != nil {
			return nil, err
		}
		release, err := nic.Claim(l, k.Switch, &t, nil)
		if err != nil {
			return nil, err
		}
		done.Undoable(release)
	case !errors.Is(err, link.ErrNotFound):
		return nil, err
	case from != nil:
		return nil, port.Gone(fmt.Errorf("TAP %s is not there", s.Name))
	case t.Ifname != "" && !t.Created:
		return nil, port.Gone(fmt.Errorf("TAP %s, which vswitch did not make, is not there; make it again", s.Name))
	default:
		if err := tuntap.Create(s.Name, owner.Made(k.Switch), who, o.Queues > 1); err != nil {
			return nil, err
		}
		done.Undoable(func() { remove(s.Name) })
		t.Created, t.Before = true, nil
		if l, err = link.ByName(s.Name); err != nil {
			return nil, err
		}
		// A TAP drops frames when its ring is full, so a queue before it never fills
		// and only costs time. If it cannot be removed, frames take a little longer.
		_ = l.SetNoQueue()
	}
	owner.Note(&t, l)

	own := defaultMTU
	if t.Before != nil {
		own = t.Before.MTU
	}
	p := &Port{mtu: cmp.Or(k.MTU, own)}
	if mtu := cmp.Or(o.MTU, k.MTU); mtu != 0 && mtu != l.MTU {
		if err := l.SetMTU(mtu); err != nil {
			return nil, err
		}
		done.Undoable(func() { _ = l.SetMTU(l.MTU) })
	}
	if p.Own, err = nic.OpenOwn(l, k.Ingress, afpacket.Config{Direct: true, Queues: o.Queues, From: from}); err != nil {
		return nil, err
	}
	*trace = t
	return p, nil
}

// Set implements port.Kind.
func (kind) Set(pp port.Port, former, next port.Spec) error {
	p, from, to := pp.(*Port), port.SettingsOf[Settings](former), port.SettingsOf[Settings](next)
	l, err := link.ByIndex(p.Ifindex())
	if err != nil {
		return missing(err)
	}
	who, err := access(to)
	if err != nil {
		return err
	}
	if from.Owner != to.Owner || from.Group != to.Group {
		if who.Differs(l) {
			return fmt.Errorf("the owner of TAP %s is set when it is made; delete the port and add it again", l.Name)
		}
	}
	if mtu := cmp.Or(to.MTU, p.mtu); from.MTU != to.MTU && mtu != l.MTU {
		return l.SetMTU(mtu)
	}
	return nil
}

// ReturnMoved implements port.Mover.
func (k kind) ReturnMoved(index int, s port.Spec, t port.Trace) error {
	return nic.Taker{Switch: k.Switch}.ReturnMoved(index, cmp.Or(port.SettingsOf[Settings](s).MTU, k.MTU), t)
}

// Delete implements port.Kind.
func (k kind) Delete(s port.Spec, t port.Trace) error {
	l, err := k.find(s, t)
	if errors.Is(err, link.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case l.Kind != "tap", owner.Check(l, k.Switch) != nil, !owner.Counts(l, k.Switch, t):
		return nil // another device now has the name, or another switch the device
	case !t.Created:
		return cmp.Or(shape.Remove(l.Index), restore(l, cmp.Or(port.SettingsOf[Settings](s).MTU, k.MTU), t.Before), hoststack.Lift(l.Index, k.Ingress), k.release(l, t.Before))
	case k.made(l, t):
		return cmp.Or(l.Delete(), hoststack.Lift(l.Index, k.Ingress))
	}
	return nil // somebody else made a device of that name
}

// release removes the mark from a device that the switch did not make.
func (k kind) release(l link.Link, before *port.DeviceSettings) error {
	if before == nil {
		return nil
	}
	return owner.Release(l, k.Switch, before.Alias)
}

// restore gives a device that the switch did not make its settings back, and its MTU if the
// port had set one. The device goes down first, so that IPv6 does not speak on it.
func restore(l link.Link, mtu int, before *port.DeviceSettings) error {
	if before == nil {
		return nil
	}
	if !before.Up && l.Up {
		if err := l.SetUp(false); err != nil {
			return err
		}
	}
	if mtu != 0 && l.MTU != before.MTU {
		if err := l.SetMTU(before.MTU); err != nil {
			return err
		}
	}
	return hoststack.Restore(l.Name, *before)
}

// check returns why an existing device cannot be the port's, or nil. other: it is
// another one than the port had before.
func check(l link.Link, o Settings, who tuntap.Access, other bool) error {
	if l.Kind != "tap" {
		return tuntap.NotATAP(l)
	}
	if l.Master != 0 {
		return fmt.Errorf("%s belongs to a bridge or bond; take it out with `ip link set %s nomaster`", l.Name, l.Name)
	}
	if o.Queues > 1 && !l.MultiQueue {
		return fmt.Errorf("TAP %s is there with one queue; leave --queues out, or delete it and let vswitch make it", l.Name)
	}
	if o.Queues <= 1 && l.MultiQueue && other {
		return fmt.Errorf("TAP %s was made for several queues, and QEMU cannot open it with one (\"Invalid argument\"); give --queues N, two or more, as many as its machine has, or make it without multi_queue", l.Name)
	}
	if (o.Owner != "" || o.Group != "") && who.Differs(l) {
		return fmt.Errorf("TAP %s is there with another owner; leave --owner and --group out, or delete it and let vswitch make it", l.Name)
	}
	return nil
}

// access reads the owner and group from the settings. If neither is set, only root may open
// the device: a device without an owner would be open to every user of the host.
func access(o Settings) (tuntap.Access, error) {
	a := tuntap.Access{Owner: tuntap.Anyone, Group: tuntap.Anyone}
	var err error
	if o.Owner == "" && o.Group == "" {
		a.Owner = 0
	}
	if o.Owner != "" {
		a.Owner, err = account.User(o.Owner)
	}
	if o.Group != "" && err == nil {
		a.Group, err = account.Group(o.Group)
	}
	return a, err
}

// remove deletes a device that this process has just made.
func remove(name string) {
	if l, err := link.ByName(name); err == nil {
		_ = l.Delete()
	}
}

// missing wraps ErrNotFound with port.Gone, since the device may come back.
func missing(err error) error {
	if errors.Is(err, link.ErrNotFound) {
		return port.Gone(err)
	}
	return err
}
