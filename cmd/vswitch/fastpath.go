package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"github.com/vswitch/vswitch/internal/daemon"
	"github.com/vswitch/vswitch/internal/linux/fastpath"
	"github.com/vswitch/vswitch/port/lag"
	"github.com/vswitch/vswitch/port/vxlan"
)

var _ lag.Ingress = (*fastpath.Path)(nil) // kinds finds out itself

var fastPathModes = []string{"auto", "off", "require"}

// openFastPath opens the fast path for the mode and puts it into o. It returns nil if there is
// none.
func openFastPath(mode string, o *daemon.Options) (*fastpath.Path, error) {
	if mode == "off" {
		o.FastPathOff = "--fastpath off"
		cleanUp(o)
		return nil, nil
	}
	if o.StateDir == "" {
		cleanUp(o)
	}
	var p *fastpath.Path
	err := daemon.RoomForFastPath()
	if err != nil && o.TakeOver == nil { // what is taken over is there
		cleanUp(o)
	} else {
		p, err = fastpath.Open(fastpath.Options{
			Name:     o.Name,
			Pin:      o.StateDir != "", // otherwise nobody takes it over later
			Lock:     o.Pins,
			Capacity: o.FDBSize,
			Log:      o.Log,
		})
	}
	switch {
	case err == nil:
		o.FastPath = p
		return p, nil
	case errors.Is(err, fastpath.ErrElsewhere):
		return nil, err
	case mode == "require":
		return nil, fmt.Errorf("no fast path: %w; run with --fastpath auto to do without", err)
	}
	o.FastPathOff = err.Error()
	o.Log.Warn("no fast path: known traffic goes through the daemon", "reason", err)
	return nil, nil
}

// giveFastPath gives the kinds of ports their parts of the fast path, which is nil if there is
// none.
func (k *kindOptions) giveFastPath(p *fastpath.Path, off string) {
	if p == nil {
		k.NoTunnel = off
		return
	}
	k.Ingress = p
	k.Tunnel = func(ifindex int, local netip.Addr) (vxlan.Kernel, error) { return p.Tunnel(ifindex, local) }
}

// cleanUp removes what a former run left in the kernel and this one does not take over: it
// would keep the devices' frames from this one. A user without the right to do so has left
// nothing.
func cleanUp(o *daemon.Options) {
	if o.TakeOver != nil {
		return // the former process needs it
	}
	err := fastpath.Cleanup(o.Name)
	if err != nil && !errors.Is(err, fastpath.ErrInUse) && !errors.Is(err, fs.ErrPermission) {
		o.Log.Warn("removing what a former run left in the kernel", "error", err)
	}
}
