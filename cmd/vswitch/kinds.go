package main

import (
	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/hoststack"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/host"
	"github.com/vswitch/vswitch/port/netdev"
	"github.com/vswitch/vswitch/port/tap"
	"github.com/vswitch/vswitch/port/unixsock"
	"github.com/vswitch/vswitch/port/vhostuser"
)

// kindOptions are what the kinds of ports have to know of the switch.
type kindOptions struct {
	Switch    string            // its name
	SocketDir string            // where ports have their sockets that name none
	MTU       int               // of tap and host ports; 0 leaves each device's own
	Ingress   hoststack.Ingress // nil: no fast path
}

// kindMakers are the kinds of ports that this program has. To add one, add a line.
var kindMakers = []func(kindOptions) (port.Kind, error){
	func(o kindOptions) (port.Kind, error) {
		return tap.New(tap.Options{Switch: o.Switch, MTU: o.MTU, Ingress: o.Ingress})
	},
	func(o kindOptions) (port.Kind, error) { return host.New(host.Options{Switch: o.Switch, MTU: o.MTU}) },
	func(o kindOptions) (port.Kind, error) {
		return netdev.New(netdev.Options{Switch: o.Switch, Ingress: o.Ingress})
	},
	func(o kindOptions) (port.Kind, error) { return vhostuser.New(o.SocketDir) },
	func(o kindOptions) (port.Kind, error) { return unixsock.NewStream(o.SocketDir) },
	func(o kindOptions) (port.Kind, error) { return unixsock.NewDgram(o.SocketDir) },
}

// kinds makes the kinds of ports of a switch.
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

// kindList is kinds for those who ask only what there is.
func kindList() port.Kinds {
	all, err := kinds(kindOptions{Switch: api.DefaultName, SocketDir: "/"})
	if err != nil {
		panic(err) // a fault of the program
	}
	return all
}
