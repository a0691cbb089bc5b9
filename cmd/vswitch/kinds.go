package main

import (
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

// kinds makes all kinds of ports. To add one, add a line.
func kinds(o kindOptions) ([]port.Kind, error) {
	var all []port.Kind
	var failed error
	add := func(k port.Kind, err error) {
		if failed == nil {
			all, failed = append(all, k), err
		}
	}
	add(tap.New(tap.Options{Switch: o.Switch, MTU: o.MTU, Ingress: o.Ingress}))
	add(host.New(host.Options{Switch: o.Switch, MTU: o.MTU}))
	add(netdev.New(netdev.Options{Switch: o.Switch, Ingress: o.Ingress}))
	add(vhostuser.New(o.SocketDir))
	add(unixsock.NewStream(o.SocketDir))
	add(unixsock.NewDgram(o.SocketDir))
	return all, failed
}
