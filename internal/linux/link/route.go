package link

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Route is a route by an interface. A zero field is the kernel's default.
type Route struct {
	To     netip.Prefix
	Via    net.IP // nil: To is on the link
	Table  int
	Scope  int
	Metric int
	MTU    int
	AdvMSS int
}

// AddRoute adds a route. It is no error if it is there already.
func (l Link) AddRoute(r Route) error {
	err := netlink.RouteAdd(&netlink.Route{
		LinkIndex: l.Index, Dst: addr(r.To.Masked()).IPNet, Gw: r.Via,
		Table: r.Table, Scope: netlink.Scope(r.Scope), Priority: r.Metric, MTU: r.MTU, AdvMSS: r.AdvMSS,
	})
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return l.explain("add a route to "+r.To.String()+" by "+l.Name, err)
}

// HasRoute reports whether the namespace has a route to exactly these addresses in a table; 0: the
// main one. It may be by any interface.
func HasRoute(to netip.Prefix, table int) (bool, error) {
	family := netlink.FAMILY_V4
	if to.Addr().Is6() {
		family = netlink.FAMILY_V6
	}
	filter := &netlink.Route{Dst: addr(to.Masked()).IPNet, Table: cmp.Or(table, unix.RT_TABLE_MAIN)}
	list, err := netlink.RouteListFiltered(family, filter, netlink.RT_FILTER_DST|netlink.RT_FILTER_TABLE)
	if err != nil {
		return false, fmt.Errorf("list the routes to %v: %w", to, err)
	}
	return len(list) > 0, nil
}

// HardwareAddr returns the interface's address now.
func (l Link) HardwareAddr() (net.HardwareAddr, error) {
	now, err := netlink.LinkByIndex(l.Index)
	if err != nil {
		return nil, lookupError(l.Name, err)
	}
	return now.Attrs().HardwareAddr, nil
}
