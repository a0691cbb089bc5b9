package main

import (
	"net/netip"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/linux/hoststack"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/host"
	"github.com/vswitch/vswitch/port/lag"
	"github.com/vswitch/vswitch/port/netdev"
	"github.com/vswitch/vswitch/port/tap"
	"github.com/vswitch/vswitch/port/unixsock"
	"github.com/vswitch/vswitch/port/veth"
	"github.com/vswitch/vswitch/port/vhostuser"
	"github.com/vswitch/vswitch/port/vxlan"
)

// kindOptions are what the kinds of ports need to know about the switch.
type kindOptions struct {
	Switch    string            // its name
	SocketDir string            // directory for the sockets of ports that name none
	MTU       int               // of tap, host and veth ports; 0: each device keeps its own
	Ingress   hoststack.Ingress // nil: no fast path

	// Tunnel is the fast path's part of the tunnel on a device; nil: none, for the reason
	// NoTunnel.
	Tunnel   func(ifindex int, local netip.Addr) (vxlan.Kernel, error)
	NoTunnel string
}

// kindMakers lists the kinds of ports of this program. To add one, add a line.
var kindMakers = []func(kindOptions) (port.Kind, error){
	func(o kindOptions) (port.Kind, error) {
		return tap.New(tap.Options{Switch: o.Switch, MTU: o.MTU, Ingress: o.Ingress})
	},
	func(o kindOptions) (port.Kind, error) { return host.New(host.Options{Switch: o.Switch, MTU: o.MTU}) },
	func(o kindOptions) (port.Kind, error) {
		return netdev.New(netdev.Options{Switch: o.Switch, Ingress: o.Ingress})
	},
	func(o kindOptions) (port.Kind, error) {
		in, _ := o.Ingress.(lag.Ingress)
		return lag.New(lag.Options{Switch: o.Switch, Ingress: in})
	},
	func(o kindOptions) (port.Kind, error) {
		return veth.New(veth.Options{Switch: o.Switch, MTU: o.MTU, Ingress: o.Ingress})
	},
	func(o kindOptions) (port.Kind, error) { return vhostuser.New(o.SocketDir) },
	func(o kindOptions) (port.Kind, error) { return unixsock.NewStream(o.SocketDir) },
	func(o kindOptions) (port.Kind, error) { return unixsock.NewDgram(o.SocketDir) },
	func(o kindOptions) (port.Kind, error) {
		return vxlan.New(vxlan.Options{Switch: o.Switch, Kernel: o.Tunnel, NoKernel: o.NoTunnel})
	},
}

// kinds makes a switch's kinds of ports.
func kinds(o kindOptions) (all port.Kinds, err error) {
	for _, make := range kindMakers {
		k, err := make(o)
		if err != nil {
			return nil, err
		}
		all = append(all, k)
	}
	return all, nil
}

// kindList returns the kinds for callers that only describe them.
func kindList() port.Kinds {
	all, err := kinds(kindOptions{Switch: api.DefaultName, SocketDir: "/"})
	if err != nil {
		panic(err) // a programming error
	}
	return all
}
