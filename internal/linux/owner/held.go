package owner

import (
	"fmt"
	"net/netip"

	"github.com/vswitch/vswitch/internal/linux/link"
)

// Links look up interfaces of a network namespace.
type Links interface {
	ByIndex(index int) (link.Link, error)

	// IPv4 returns the host's first address on an interface; it is invalid if there is none.
	IPv4(index int) (netip.Prefix, error)
}

// Held says who else uses an interface that the switch named me has taken, and how to end
// that; it is empty if nobody does. exclusive says that the host may not use it, either. If the
// system cannot answer, nobody does.
func Held(ls Links, l link.Link, me string, exclusive bool) string {
	if err := Check(l, me); err != nil {
		return err.Error()
	}
	if l.Master != 0 {
		return enslaved(ls, l)
	}
	if !exclusive {
		return ""
	}
	if a, err := ls.IPv4(l.Index); err == nil && a.IsValid() {
		return fmt.Sprintf("the host has the address %s on %s, which belongs to the switch; `ip addr del %s dev %s` takes it away, a port of --kind host has addresses",
			a, l.Name, a, l.Name)
	}
	return ""
}

// enslaved returns what l belongs to.
func enslaved(ls Links, l link.Link) string {
	master, err := ls.ByIndex(l.Master)
	switch {
	case err != nil:
		master = link.Link{Name: fmt.Sprint("number ", l.Master), Kind: "interface"}
	case master.Kind == "openvswitch":
		return fmt.Sprintf("%s belongs to Open vSwitch, which takes its frames; `ovs-vsctl del-port %s` takes it out", l.Name, l.Name)
	}
	return fmt.Sprintf("%s belongs to %s %s, which takes its frames; `ip link set %s nomaster` takes it out", l.Name, master.Kind, master.Name, l.Name)
}
