package link

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// VXLAN describes a vxlan interface that leaves to programs where each frame goes
// ("external"). It receives what comes to a UDP port of any address of the host.
type VXLAN struct {
	Name string
	Port uint16
	MTU  int
}

// MakeVXLAN makes such an interface, down.
func MakeVXLAN(v VXLAN) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = v.Name, v.MTU
	what := "make the vxlan interface " + v.Name
	switch err := netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, FlowBased: true, Port: int(v.Port)}); {
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("another vxlan interface has UDP port %d", v.Port)
	case errors.Is(err, unix.EOPNOTSUPP):
		return errors.New("the kernel has no vxlan; `modprobe vxlan` loads it")
	case err != nil:
		return Link{}.explain(what, err)
	}
	return nil
}
