package link

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Veth describes a pair of veth interfaces: what is sent by one is received by the other.
// One end is in the caller's namespace.
type Veth struct {
	Name string           // of that end
	MAC  net.HardwareAddr // of that end; nil for a random one
	MTU  int              // of both; 0 for the kernel's default

	Peer    string           // the other end's name
	PeerMAC net.HardwareAddr // nil for a random one
	Netns   *Netns           // where the other end is; nil for the caller's namespace
}

// MakeVeth makes a pair, both ends down.
func MakeVeth(v Veth) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.MTU = v.Name, v.MAC, v.MTU
	pair := netlink.NewVeth(attrs)
	pair.PeerName, pair.PeerHardwareAddr = v.Peer, v.PeerMAC
	where := "this network namespace"
	if v.Netns != nil {
		f, err := os.Open(v.Netns.path)
		if err != nil {
			return notFound(fmt.Sprintf("network namespace %s is gone", v.Netns.path))
		}
		defer f.Close()
		pair.PeerNamespace, where = netlink.NsFd(int(f.Fd())), "network namespace "+v.Netns.path
	}
	what := fmt.Sprintf("make the veth pair %s and %s", v.Name, v.Peer)
	switch err := netlink.LinkAdd(pair); {
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%s: %s is there already, or %s in %s", what, v.Name, v.Peer, where)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%s: %s is no network namespace, or the MTU %d is not possible", what, where, v.MTU)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%s: the kernel has no veth; `modprobe veth` loads it", what)
	case err != nil:
		return Link{}.explain(what, err)
	}
	return nil
}
