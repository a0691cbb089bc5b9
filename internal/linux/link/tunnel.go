package link

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Tunnel describes a vxlan or geneve interface that leaves to programs where each frame goes
// ("external"). It receives what comes to a UDP port of any address of the host.
type Tunnel struct {
	Name string
	MAC  net.HardwareAddr // nil for a random one
	Kind string           // "vxlan" or "geneve"
	Port uint16
	MTU  int
}

// MakeTunnel makes such an interface, down.
func MakeTunnel(t Tunnel) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.MTU = t.Name, t.MAC, t.MTU
	var l netlink.Link = &netlink.Vxlan{LinkAttrs: attrs, FlowBased: true, Port: int(t.Port)}
	if t.Kind == "geneve" {
		l = &netlink.Geneve{LinkAttrs: attrs, FlowBased: true, Dport: t.Port}
	}
	switch err := netlink.LinkAdd(l); {
	case errors.Is(err, unix.EEXIST), t.Kind == "geneve" && (errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EPERM)):
		return fmt.Errorf("another %s interface has UDP port %d", t.Kind, t.Port)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("the kernel has no %s; `modprobe %[1]s` loads it", t.Kind)
	case err != nil:
		return Link{}.explain("make the "+t.Kind+" interface "+t.Name, err)
	}
	return nil
}
