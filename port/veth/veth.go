// Package veth is the port kind for containers: a pair of veth interfaces. One end is the
// port's device, in the calling thread's network namespace. The switch makes the other end in
// the container's namespace, with a name and addresses of its own. The pair goes with that
// namespace; the port then waits for another one of the same name.
package veth

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vswitch/vswitch/internal/linux/afpacket"
	"github.com/vswitch/vswitch/internal/linux/hoststack"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/nic"
	"github.com/vswitch/vswitch/internal/linux/owner"
	"github.com/vswitch/vswitch/port"
)

const (
	defaultMTU    = 1500   // that of a new pair
	defaultIfname = "eth0" // what containers call their first interface
)

// Options configure the kind. Switch must be set.
type Options struct {
	Switch string // the name of the switch that the ports belong to
	MTU    int    // of ports whose spec names none; 0 for the kernel's default

	// Ingress decides which frames to punt to the switch; nil: all frames come.
	Ingress hoststack.Ingress
}

// kind implements port.Kind.
type kind struct{ Options }

// New returns the kind.
func New(o Options) (port.Kind, error) {
	if o.Switch == "" {
		return nil, errors.New("veth ports need the name of their switch, which marks their devices")
	}
	return kind{o}, nil
}

// Port is an open veth port.
type Port struct{ *nic.Own }

// Name implements port.Kind.
func (kind) Name() string { return "veth" }

// Settings are the settings of veth ports. The kernel's limits of a veth's MTU are those of
// a TAP's.
type Settings struct {
	Netns     string          `json:"netns,omitempty" arg:"NAME" fixed:"true" help:"network namespace of the host's or container's end, a name or a path"`
	Ifname    string          `json:"ifname,omitempty" arg:"NAME" fixed:"true" default:"eth0" help:"name of the container's end"`
	MAC       port.StationMAC `json:"mac,omitzero" arg:"ADDRESS" fixed:"true" default:"a random one" help:"hardware address of the container's end"`
	MTU       int             `json:"mtu,omitempty" arg:"BYTES" min:"68" max:"65521" default:"the device's own" help:"longest payload"`
	Transient bool            `json:"transient,omitempty" help:"remove the port when its network namespace is deleted"`
	Address   []string        `json:"address,omitempty" arg:"ADDRESS/LENGTH" help:"address of the host's or container's end; can be given several times"`
}

// Describe implements port.Kind.
func (kind) Describe() port.Description {
	return port.Description{
		Help:     "a container's NIC: a veth pair, one end in the container's network\nnamespace. It goes with the namespace and comes with the next.",
		Settings: Settings{},
		Station:  true,
	}
}

// Check implements port.Kind.
func (kind) Check(s port.Spec) error {
	o := port.SettingsOf[Settings](s)
	if o.Netns == "" {
		return errors.New("a veth port leads into a container; name its network namespace with --netns, or use --kind netdev for a pair that is there")
	}
	if o.Ifname != "" && port.CheckName(o.Ifname) != nil {
		return fmt.Errorf("--ifname %q cannot be an interface's name; write one of 1 to %d letters and digits, such as eth0", o.Ifname, port.MaxName)
	}
	_, err := addresses(s)
	return err
}

// addresses reads the spec's addresses.
func addresses(s port.Spec) ([]netip.Prefix, error) {
	return link.ParseAddresses(port.SettingsOf[Settings](s).Address)
}

// Find implements port.Finder.
func (k kind) Find(s port.Spec, t port.Trace) (index int, is bool) {
	l, err := k.near(s, t)
	return l.Index, !errors.Is(err, link.ErrNotFound)
}

// near looks up the switch's end of a port.
func (k kind) near(s port.Spec, t port.Trace) (link.Link, error) {
	return owner.Find(k.Switch, "veth", s.Name, t)
}

// made reports whether a device is the one that the switch made for a port.
func (k kind) made(l link.Link, t port.Trace) bool {
	return l.Kind == "veth" && owner.Makes(l, k.Switch, t)
}

// far returns the container's end of a pair; it wraps ErrNotFound if that is not in the
// namespace.
func far(ns *link.Netns, near link.Link) (l link.Link, err error) {
	err = ns.Do(func() error { l, err = link.ByIndex(near.Peer); return err })
	if err == nil && (l.Kind != "veth" || l.Peer != near.Index) {
		err = fmt.Errorf("the container's end of %s: %w in its namespace", near.Name, link.ErrNotFound) // another device has its index
	}
	return l, err
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
	list, err := addresses(s)
	if err != nil {
		return nil, err
	}
	ns, err := link.FindNetns(o.Netns)
	if err != nil {
		return nil, k.without(s, *trace, missing(err))
	}
	t := *trace
	mtu := cmp.Or(o.MTU, k.MTU)
	near, end, err := k.find(s, t, ns)
	if errors.Is(err, link.ErrNotFound) && from == nil {
		t.IntendToMake(s.Name)
		mtu = cmp.Or(mtu, defaultMTU)
		near, end, err = k.make(s, mtu, ns)
		if err == nil {
			done.Undoable(func() { _ = near.Delete() })
		}
	}
	if err != nil {
		return nil, missing(err)
	}
	t.Created = true
	owner.Note(&t, near)

	p := &Port{}
	if p.Own, err = nic.OpenOwn(near, k.Ingress, afpacket.Config{Promiscuous: true, From: from}); err != nil {
		return nil, err
	}
	done.Undoable(p.Undo)
	// The container speaks as soon as its end is up, so the switch is ready first.
	if err := equip(ns, near, end, mtu, nil, list); err != nil {
		return nil, missing(err)
	}
	if from == nil {
		if err := ns.Do(func() error { return end.SetUp(true) }); err != nil {
			return nil, missing(err)
		}
	}
	// The kernel lets a device send up to a second after it got a carrier, but at once if
	// somebody asks for the device (rtnl_getlink, Linux 6.8).
	_, _ = link.ByIndex(near.Index)
	*trace = t
	return p, nil
}

// find returns both ends of the port's pair, or an error that wraps ErrNotFound if there is
// none. A pair that leads elsewhere, as when the namespace was replaced, is deleted.
func (k kind) find(s port.Spec, t port.Trace, ns *link.Netns) (near, end link.Link, err error) {
	near, err = k.near(s, t)
	if err != nil {
		return near, end, err
	}
	if err := owner.Check(near, k.Switch); err != nil {
		return near, end, err
	}
	if !k.made(near, t) {
		return near, end, fmt.Errorf("%s is a %s that is there already; give the port another name, or attach the device with --kind netdev", near.Name, near.Kind)
	}
	if err := owner.Sign(near, k.Switch); err != nil {
		return near, end, err
	}
	end, err = far(ns, near)
	if errors.Is(err, link.ErrNotFound) {
		if err := cmp.Or(near.Delete(), hoststack.Lift(near.Index, k.Ingress)); err != nil {
			return near, end, err
		}
	}
	return near, end, err
}

// make makes the port's pair.
func (k kind) make(s port.Spec, mtu int, ns *link.Netns) (near, end link.Link, err error) {
	o := port.SettingsOf[Settings](s)
	v := link.Veth{Name: s.Name, MAC: owner.Address(k.Switch, s.Name), MTU: mtu, Peer: cmp.Or(o.Ifname, defaultIfname), Netns: ns}
	if o.MAC != 0 {
		v.PeerMAC = port.MAC(o.MAC).HardwareAddr()
	}
	err = ns.Do(func() error {
		if _, err := link.ByName(v.Peer); !errors.Is(err, link.ErrNotFound) {
			return cmp.Or(err, fmt.Errorf("an interface %s is in network namespace %s already; choose another name with --ifname", v.Peer, o.Netns))
		}
		return nil
	})
	if err != nil {
		return near, end, err
	}
	if err := link.MakeVeth(v); err != nil {
		return near, end, err
	}
	if near, err = link.ByName(s.Name); err != nil {
		return near, end, err
	}
	if err = near.SetAlias(owner.Made(k.Switch)); err == nil {
		end, err = far(ns, near)
	}
	if err != nil {
		_ = near.Delete()
	}
	return near, end, err
}

// equip gives both ends an MTU, unless that is 0, and exchanges the addresses of the container's end. If that
// fails, they are as before.
func equip(ns *link.Netns, near, end link.Link, mtu int, old, list []netip.Prefix) error {
	give := func(l link.Link) error {
		if mtu == 0 {
			return nil
		}
		return l.SetMTU(mtu)
	}
	err := give(near)
	if err == nil {
		err = ns.Do(func() error {
			err := give(end)
			if err == nil {
				err = end.ExchangeAddresses(old, list)
			}
			if err != nil {
				_ = end.ExchangeAddresses(list, old)
				_ = end.SetMTU(end.MTU)
			}
			return err
		})
	}
	if err != nil {
		_ = near.SetMTU(near.MTU)
	}
	return err
}

// Set implements port.Kind.
func (k kind) Set(pp port.Port, from, to port.Spec) error {
	p, o := pp.(*Port), port.SettingsOf[Settings](to)
	old, err := addresses(from)
	if err != nil {
		return err
	}
	list, err := addresses(to)
	if err != nil {
		return err
	}
	near, err := link.ByIndex(p.Ifindex())
	if err != nil {
		return missing(err)
	}
	ns, err := link.FindNetns(o.Netns)
	if err != nil {
		return missing(err)
	}
	end, err := far(ns, near)
	if err != nil {
		return missing(err)
	}
	mtu := 0 // the user's own
	if port.SettingsOf[Settings](from).MTU != o.MTU {
		mtu = cmp.Or(o.MTU, k.MTU, defaultMTU)
	}
	return equip(ns, near, end, mtu, old, list)
}

// Delete implements port.Kind.
func (k kind) Delete(s port.Spec, t port.Trace) error {
	l, err := k.near(s, t)
	switch {
	case errors.Is(err, link.ErrNotFound):
		return nil // it went with its namespace
	case err != nil:
		return err
	case owner.Check(l, k.Switch) != nil || !k.made(l, t):
		return nil // another device now has the name, or another switch the device
	}
	return cmp.Or(l.Delete(), hoststack.Lift(l.Index, k.Ingress))
}

// without says what a missing namespace means for a port: with it went the pair, and a transient
// port goes, too.
func (k kind) without(s port.Spec, t port.Trace, err error) error {
	if !errors.Is(err, port.ErrGone) || !port.SettingsOf[Settings](s).Transient {
		return err
	}
	if l, bad := k.near(s, t); bad == nil && k.made(l, t) {
		return err // the container is there, and where its namespace is found is not
	} else if bad != nil && !errors.Is(bad, link.ErrNotFound) {
		return err
	}
	return port.Ended(err)
}

// missing wraps ErrNotFound with port.Gone, since a namespace may come back.
func missing(err error) error {
	if errors.Is(err, link.ErrNotFound) {
		return port.Gone(err)
	}
	return err
}
