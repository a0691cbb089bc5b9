// Package vxlan provides the port kind vxlan: a tunnel to the switches of other hosts, as
// UDP datagrams in an IP network (RFC 7348, or RFC 8926). One port leads to all of them, so no frame goes
// from one host to another. It works in user space on sockets, and needs no rights but the
// use of its UDP port.
//
// In user space a tunnel is fast by batches: many frames of one flow go to the kernel as one
// datagram that it divides (UDP_SEGMENT), and come from it as one (UDP_GRO). The kind sends
// in send.go, by tables in vteps.go, and receives in receive.go.
package vxlan

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
)

// Options configure the kind. Switch must be set.
type Options struct {
	Switch string // the name of the switch that the ports belong to

	// Kernel returns the kernel's part of the tunnel on a device, with the switch's address
	// between the hosts. It is nil where there is none, for the reason NoKernel.
	Kernel   func(ifindex int, local netip.Addr) (Kernel, error)
	NoKernel string
}

// kind implements port.Kind.
type kind struct{ Options }

var _ interface {
	port.Kind
	port.Sized
	port.Heir
	port.Finder
} = kind{}

// New returns the kind vxlan.
func New(o Options) (port.Kind, error) {
	if o.Switch == "" {
		return nil, errors.New("vxlan ports need the name of their switch, which marks their devices")
	}
	return kind{o}, nil
}

// Settings are those of vxlan ports.
type Settings struct {
	Local         setting.Addr  `json:"local,omitzero" arg:"ADDRESS" fixed:"true" help:"this host's address, IPv4 or IPv6"`
	Peers         Peers         `json:"peers,omitempty" arg:"LIST" default:"none" help:"addresses of the other hosts, such as 192.0.2.2,192.0.2.3"`
	VNI           VNIs          `json:"vni,omitzero" arg:"LIST" help:"virtual networks by VLAN, such as 10=10010,20-29=10020-10029; a single number carries all frames as they are"`
	Encapsulation Encapsulation `json:"encapsulation,omitempty" arg:"WHAT" default:"vxlan" fixed:"true" help:"header of the packets, the same at all hosts"`
	VXLANPort     uint16        `json:"vxlan_port,omitempty" arg:"N" default:"4789, or 6081 for geneve" fixed:"true" help:"UDP port of all hosts"`
	DataPlane     DataPlane     `json:"data_plane,omitempty" arg:"WHAT" default:"auto" fixed:"true" help:"what carries the frames"`
	Queues        int           `json:"queues,omitempty" arg:"N" min:"1" max:"256" default:"1" fixed:"true" help:"queues, each with a thread of its own"`
}

// DataPlane says what carries the frames of a port. Empty is Auto.
type DataPlane string

// The data planes.
const (
	Auto      DataPlane = "auto"    // the device where there can be one, else sockets
	InKernel  DataPlane = "kernel"  // a device of the kernel
	OnSockets DataPlane = "sockets" // of this process
)

// Values implements setting.Enum.
func (DataPlane) Values() []string { return []string{"auto", "kernel", "sockets"} }

// maxQueues is the most sockets that receive.
const maxQueues = 64

func (s *Settings) udpPort() uint16 { return cmp.Or(s.VXLANPort, s.Encapsulation.udpPort()) }
func (s *Settings) queues() int     { return cmp.Or(s.Queues, 1) }

// Name implements port.Kind.
func (kind) Name() string { return "vxlan" }

// Describe implements port.Kind.
func (kind) Describe() port.Description {
	return port.Description{
		Help:     "a tunnel to the switches of other hosts (VXLAN, or Geneve).",
		Settings: Settings{},
		Tunnel:   true,
		Complete: complete,
	}
}

// Needs implements port.Sized.
func (kind) Needs(s port.Spec, queues int) port.Needs {
	o := port.SettingsOf[Settings](s)
	queues = max(queues, o.queues())
	return port.Needs{Threads: 1, Files: queues + txSockets + 1, Memory: queues * 2 * socketBuffer}
}

// complete implements Description.Complete: with networks by VLAN the port is a trunk of those
// VLANs, also when they change, unless the user chooses what it carries.
func complete(s *port.Spec, former port.Spec, given func(key string) bool) {
	vlans, before := port.SettingsOf[Settings](*s).VNI.vlans(), port.SettingsOf[Settings](former).VNI.vlans()
	chosen := s.Trunk.Len() > 0 && (given("trunk") || s.Trunk != before)
	if chosen || s.Access != 0 || s.QinQ != 0 {
		return
	}
	s.Trunk = vlans
	s.Policy.AfterMerge(former.Policy, given)
}

// Check implements port.Kind.
func (kind) Check(s port.Spec) error {
	o := port.SettingsOf[Settings](s)
	local := o.Local.Addr
	if !local.IsValid() {
		return errors.New("a vxlan port needs --local, this host's address in the network between the hosts")
	}
	if err := checkUnicast(local); err != nil {
		return fmt.Errorf("--local: %w", err)
	}
	if o.VNI.IsZero() {
		return errors.New("a vxlan port needs --vni, its virtual networks, such as 10=10010 for VLAN 10, or 10010 for all frames")
	}
	if o.Queues > maxQueues {
		return fmt.Errorf("a vxlan port has at most %d queues, not %d", maxQueues, o.Queues)
	}
	if _, err := o.Peers.addrs(local); err != nil {
		return err
	}
	return checkVLANs(&s.Policy, o.VNI)
}

// checkVLANs returns an error unless each VLAN of the port has a network.
func checkVLANs(p *port.Policy, v VNIs) error {
	has := v.vlans()
	if has.Len() == 0 {
		return nil // all frames are in one network
	}
	switch {
	case p.Access != 0, p.QinQ != 0:
		return errors.New("a vxlan port with networks by VLAN is a trunk; leave --access and --qinq out, or give one VNI alone")
	case p.Native != 0:
		return errors.New("a vxlan port with networks by VLAN has no untagged frames; leave --native out")
	case p.TrunkTPID != 0 && p.TrunkTPID != port.TPID(port.TPIDCustomer):
		return errors.New("a vxlan port with networks by VLAN has tags of 0x8100; leave --trunk-tpid out")
	}
	for vid := range p.Trunk.All() {
		if !has.Has(vid) {
			return fmt.Errorf("VLAN %d of the trunk has no network; add it to --vni, such as %d=%d, or leave it out of --trunk", vid, vid, 10000+int(vid))
		}
	}
	return nil
}

// Open implements port.Kind.
func (k kind) Open(s port.Spec, trace *port.Trace) (port.Port, error) {
	o := port.SettingsOf[Settings](s)
	why := "--data-plane sockets"
	if o.DataPlane != OnSockets {
		p, err := k.openDevice(s, trace, nil)
		switch {
		case err == nil:
			return p, nil
		case errors.Is(err, port.ErrGone):
			return nil, err
		case o.DataPlane == InKernel:
			return nil, fmt.Errorf("no device of the kernel carries the frames: %w", err)
		}
		why = err.Error()
	}
	if err := k.Delete(s, *trace); err != nil { // a device of an earlier run has the port
		return nil, err
	}
	return k.onSockets(s, trace, why, nil)
}

// Take implements port.Heir. The port stays on what carries its frames.
func (k kind) Take(s port.Spec, trace *port.Trace, from *port.Parcel) (port.Port, error) {
	if from.Format >= deviceFormats {
		return k.openDevice(s, trace, &port.Parcel{Format: from.Format - deviceFormats, Data: from.Data, Files: from.Files})
	}
	return k.onSockets(s, trace, "they did so when the daemon was replaced; del-port and add-port choose anew", from)
}

// onSockets opens a port on sockets, those that another process gives unless from is nil.
func (k kind) onSockets(s port.Spec, trace *port.Trace, why string, from *port.Parcel) (port.Port, error) {
	o := port.SettingsOf[Settings](s)
	t, err := openSockets(o.Local.Addr, o.Encapsulation.number(), o.udpPort(), o.queues(), from)
	if err != nil {
		return nil, err
	}
	t.why = why
	if err := t.set(s); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	if from != nil {
		t.inherit(from.Data)
	}
	*trace = port.Trace{}
	return t, nil
}

// Set implements port.Kind.
func (kind) Set(p port.Port, _, to port.Spec) error { return p.(openTunnel).set(to) }

// set applies the settings that can change. An error changes nothing.
func (t *tunnel) set(s port.Spec) error {
	o := port.SettingsOf[Settings](s)
	peers, err := o.Peers.addrs(o.Local.Addr)
	if err != nil {
		return err
	}
	return t.configure(o.VNI.list(), peers, !bool(s.NoLearning))
}

// overhead is what a tunnel adds to a frame in bytes, up to the IP header.
func overhead(vtep netip.Addr) int {
	const udp = 8
	if vtep.Is4() {
		return 20 + udp + headerLen
	}
	return 40 + udp + headerLen
}
