// Package netdev is the port kind for an existing network interface: a physical NIC as an
// uplink, a veth to a container, a VLAN device. The switch makes it accept frames for all
// addresses, turns off features that merge frames irreversibly (LRO), and changes nothing
// else unasked. The kind's methods act on the calling thread's network namespace.
package netdev

import (
	"errors"
	"fmt"

	"github.com/vswitch/vswitch/internal/linux/hoststack"
	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/nic"
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
type Port struct{ *nic.Device }

var _ interface {
	port.Port
	port.KernelEnd
	port.Giver
	port.Leaver
	port.Overrun
	port.Bound
	port.Exclusive
	port.Contested
	port.Overtaken
	port.Programmed
	port.Tracer
} = Port{}

// Name implements port.Kind.
func (kind) Name() string { return "netdev" }

// Settings are the settings of netdev ports. No NIC has more than 64 queues that are worth
// a thread each. The device limits the MTU.
type Settings struct {
	Queues    int  `json:"queues,omitempty" arg:"N" min:"1" max:"64" default:"1" fixed:"true" help:"queues, each with a thread of its own"`
	MTU       int  `json:"mtu,omitempty" arg:"BYTES" min:"68" max:"65535" default:"the device's own" help:"longest payload"`
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

// taker takes the devices of the ports.
func (k kind) taker() nic.Taker { return nic.Taker{Switch: k.Switch, Ingress: k.Ingress} }

// use says how the device of a port is used.
func use(s port.Spec) nic.Config {
	o := port.SettingsOf[Settings](s)
	return nic.Config{Queues: o.Queues, MTU: o.MTU, Exclusive: o.Exclusive}
}

// Find implements port.Finder.
func (k kind) Find(s port.Spec, t port.Trace) (index int, is bool) {
	l, err := k.taker().Find(s.Name, t)
	return l.Index, !errors.Is(err, link.ErrNotFound)
}

// Open implements port.Kind.
func (k kind) Open(s port.Spec, trace *port.Trace) (port.Port, error) {
	return k.open(s, trace, nil)
}

// Take implements port.Heir.
func (k kind) Take(s port.Spec, trace *port.Trace, from *port.Parcel) (port.Port, error) {
	return k.open(s, trace, from)
}

// open opens a port, with what another process gives of it unless from is nil.
func (k kind) open(s port.Spec, trace *port.Trace, from *port.Parcel) (port.Port, error) {
	l, err := k.taker().Find(s.Name, *trace)
	if errors.Is(err, link.ErrNotFound) {
		return nil, port.Gone(fmt.Errorf("interface %s is not there; `ip link` lists those that are", s.Name))
	}
	if err != nil {
		return nil, err
	}
	how := use(s)
	how.From = from
	d, err := k.taker().Take(l, how, trace)
	if err != nil {
		return nil, err
	}
	return Port{d}, nil
}

// ReturnMoved implements port.Mover.
func (k kind) ReturnMoved(index int, s port.Spec, t port.Trace) error {
	return k.taker().ReturnMoved(index, use(s).MTU, t)
}

// Set implements port.Kind.
func (kind) Set(p port.Port, from, to port.Spec) error {
	return p.(Port).Device.Set(use(from), use(to))
}

// Delete implements port.Kind.
func (k kind) Delete(s port.Spec, t port.Trace) error {
	l, err := k.taker().Find(s.Name, t)
	if errors.Is(err, link.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return k.taker().Return(l, use(s), t)
}
