// Package link reads and changes network interfaces over rtnetlink: lookup, state, MTU,
// addresses, deletion, namespaces and a stream of changes. A call acts on the calling
// thread's namespace; any goroutine may call it. Errors say what is missing and how to
// mend it.
package link

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ErrNotFound is wrapped by the error for an interface or a namespace that does not
// exist.
var ErrNotFound = errors.New("not found")

// notFound is an ErrNotFound with its own text.
type notFound string

func (e notFound) Error() string { return string(e) }
func (notFound) Unwrap() error   { return ErrNotFound }

// denied is an fs.ErrPermission with its own text.
type denied string

func (e denied) Error() string { return string(e) }
func (denied) Unwrap() error   { return fs.ErrPermission }

// Link describes one interface at the time of the call that returned it.
type Link struct {
	Index int
	Name  string
	Alias string // a free text beside the name (ifalias)

	// Kind is the type of the device: "tap", "tun", "veth", "bridge", "vlan", …
	// and "device" for hardware.
	Kind string

	MAC [6]byte // its own address; zero if it has none, or one of another length

	Up      bool // administratively
	Carrier bool // the other end is there (IFF_LOWER_UP)
	MTU     int

	Master     int    // the index of the bridge or bond it belongs to, 0 for none
	Lower      int    // of a macvlan or its like: the index of the interface below it
	Passthru   bool   // of a macvlan: it takes all frames of that interface
	Peer       int    // of a veth: the index of the other end, in that end's namespace
	TunnelPort uint16 // of a vxlan or geneve interface: its UDP port
	XDP        uint32 // the number of the XDP program that sees received frames first; 0 for none
	Loopback   bool   // the host's own lo
	Ethernet   bool   // its frames have Ethernet headers (ARPHRD_ETHER)

	// For a TAP: the user and group that may open it, 0 also if none is set, and
	// whether it was made for several queues.
	Owner, Group uint32
	MultiQueue   bool
}

// MACString returns the interface's own address in the form of net.HardwareAddr, empty if it has none.
func (l Link) MACString() string {
	if l.MAC == ([6]byte{}) {
		return ""
	}
	return net.HardwareAddr(l.MAC[:]).String()
}

// ByName finds an interface by its name.
func ByName(name string) (Link, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return Link{}, lookupError(name, err)
	}
	return linkFrom(l), nil
}

// ByIndex finds an interface by its number.
func ByIndex(index int) (Link, error) {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return Link{}, lookupError(fmt.Sprint("number ", index), err)
	}
	return linkFrom(l), nil
}

// TxDropped returns how many frames the interface itself has dropped on transmit since it
// was made (tx_dropped in `ip -s link`).
func TxDropped(index int) (uint64, error) {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return 0, lookupError(fmt.Sprint("number ", index), err)
	}
	return l.Attrs().Statistics.TxDropped, nil
}

// TunnelLosses returns how many packets a tunnel's interface lost that it was given, and how many
// of those because the host has no route to where they go.
func TunnelLosses(index int) (lost, unrouted uint64, err error) {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return 0, 0, lookupError(fmt.Sprint("number ", index), err)
	}
	s := l.Attrs().Statistics
	return s.TxDropped + s.TxErrors, s.TxCarrierErrors, nil // the latter is part of TxErrors
}

// Carrier reports whether something is at the other end of an interface, also while the
// interface is set down: then its flags do not say so.
func Carrier(index int) (bool, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	req.AddData(msg)
	what := fmt.Sprint("number ", index)
	replies, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	switch {
	case errors.Is(err, unix.ENODEV):
		return false, notFound("there is no interface " + what)
	case err != nil:
		return false, lookupError(what, err)
	}
	for _, reply := range replies {
		if len(reply) < unix.SizeofIfInfomsg {
			continue
		}
		for typ, value := range attributes(reply[unix.SizeofIfInfomsg:]) {
			if typ == unix.IFLA_CARRIER && len(value) > 0 {
				return value[0] != 0, nil
			}
		}
	}
	return false, fmt.Errorf("the kernel does not say whether interface %s has a carrier", what)
}

func lookupError(what string, err error) error {
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return notFound("there is no interface " + what)
	}
	return fmt.Errorf("look up interface %s: %w", what, err)
}

func linkFrom(l netlink.Link) Link {
	a := l.Attrs()
	r := Link{
		Index:    a.Index,
		Name:     a.Name,
		Alias:    a.Alias,
		Kind:     l.Type(),
		Up:       a.RawFlags&unix.IFF_UP != 0,
		Carrier:  a.RawFlags&unix.IFF_LOWER_UP != 0,
		MTU:      a.MTU,
		Master:   a.MasterIndex,
		Loopback: a.RawFlags&unix.IFF_LOOPBACK != 0,
		Ethernet: a.EncapType == "ether",
	}
	if len(a.HardwareAddr) == len(r.MAC) {
		r.MAC = [6]byte(a.HardwareAddr)
	}
	// A macsec takes frames too, but for all addresses.
	if (r.TakesFrames() || r.Kind == "macsec") && a.NetNsID < 0 {
		r.Lower = a.ParentIndex
	}
	if x := a.Xdp; x != nil && x.Attached {
		r.XDP = x.ProgId
	}
	switch l := l.(type) {
	case *netlink.Veth:
		r.Peer = a.ParentIndex
	case *netlink.Vxlan:
		r.TunnelPort = uint16(l.Port)
	case *netlink.Geneve:
		r.TunnelPort = l.Dport
	case *netlink.Macvlan:
		r.Passthru = l.Mode == netlink.MACVLAN_MODE_PASSTHRU
	case *netlink.Macvtap:
		r.Passthru = l.Mode == netlink.MACVLAN_MODE_PASSTHRU
	}
	if t, ok := l.(*netlink.Tuntap); ok {
		r.Kind = "tun"
		if t.Mode == netlink.TUNTAP_MODE_TAP {
			r.Kind = "tap"
		}
		r.Owner, r.Group = t.Owner, t.Group
		r.MultiQueue = t.Flags&netlink.TUNTAP_MULTI_QUEUE != 0
	}
	return r
}

// Ahead says that an XDP program sees the interface's frames first; it is empty if there is none.
func (l Link) Ahead() string {
	if l.XDP == 0 {
		return ""
	}
	return fmt.Sprintf("XDP program %d at %s sees frames first, and the switch gets what it leaves; `ip link set dev %s xdp off` takes it away", l.XDP, l.Name, l.Name)
}

// TakesFrames reports whether the interface takes frames for its own address from the
// interface below it, before anything else on the host sees them.
func (l Link) TakesFrames() bool {
	switch l.Kind {
	case "macvlan", "macvtap", "ipvlan", "ipvtap":
		return true
	}
	return false
}

// handle names an interface by its index, which outlives a rename.
func handle(index int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

// SetUp sets the interface up or down.
func (l Link) SetUp(up bool) error {
	set, word := netlink.LinkSetDown, "down"
	if up {
		set, word = netlink.LinkSetUp, "up"
	}
	return l.explain("set "+l.Name+" "+word, set(handle(l.Index)))
}

// SetMTU sets the longest payload of the interface, in bytes.
func (l Link) SetMTU(mtu int) error {
	err := netlink.LinkSetMTU(handle(l.Index), mtu)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ERANGE) {
		return fmt.Errorf("%s does not take an MTU of %d; `ip -d link show %s` names its limits (minmtu, maxmtu)", l.Name, mtu, l.Name)
	}
	return l.explain(fmt.Sprintf("set the MTU of %s to %d", l.Name, mtu), err)
}

// SetQueueLen sets how many frames the interface's own queues hold.
func (l Link) SetQueueLen(frames int) error {
	if err := netlink.LinkSetTxQLen(handle(l.Index), frames); err != nil {
		return l.explain(fmt.Sprintf("set queue length %d", frames), err)
	}
	return nil
}

// SetAlias sets the interface's alias, at most 255 bytes.
func (l Link) SetAlias(alias string) error {
	return l.explain("set the alias of "+l.Name, netlink.LinkSetAlias(handle(l.Index), alias))
}

// SetNoQueue makes the interface send frames immediately, without a queueing discipline
// (`tc qdisc replace … root noqueue`).
func (l Link) SetNoQueue() error {
	return l.explain("take the queue of "+l.Name+" off", netlink.QdiscReplace(&netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Index, Parent: netlink.HANDLE_ROOT},
		QdiscType:  "noqueue",
	}))
}

// Delete removes the interface. It is no error if the interface is already gone.
func (l Link) Delete() error {
	err := netlink.LinkDel(handle(l.Index))
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return l.explain("delete "+l.Name, err)
}

// AddAddress adds an address. It is no error if the interface has it already.
func (l Link) AddAddress(a netip.Prefix) error {
	err := netlink.AddrAdd(handle(l.Index), addr(a))
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return l.explain(fmt.Sprintf("give %s the address %s", l.Name, a), err)
}

// DelAddress removes an address. It is no error if the interface does not have it.
func (l Link) DelAddress(a netip.Prefix) error {
	err := netlink.AddrDel(handle(l.Index), addr(a))
	if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return l.explain(fmt.Sprintf("take the address %s from %s", a, l.Name), err)
}

// HasAddress reports whether the interface has the address.
func (l Link) HasAddress(a netip.Prefix) (bool, error) {
	list, err := netlink.AddrList(handle(l.Index), netlink.FAMILY_ALL)
	if err != nil {
		return false, l.explain("list the addresses of "+l.Name, err)
	}
	for _, have := range list {
		ip, ok := netip.AddrFromSlice(have.IP)
		ones, _ := have.Mask.Size()
		if ok && ip.Unmap() == a.Addr() && ones == a.Bits() {
			return true, nil
		}
	}
	return false, nil
}

// ByAddress finds the interface that has an address.
func ByAddress(a netip.Addr) (Link, error) {
	family := netlink.FAMILY_V4
	if a.Is6() {
		family = netlink.FAMILY_V6
	}
	list, err := netlink.AddrList(nil, family)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return Link{}, fmt.Errorf("list the addresses of the host: %w", err)
	}
	for _, have := range list {
		if ip, ok := netip.AddrFromSlice(have.IP); ok && ip.Unmap() == a {
			return ByIndex(have.LinkIndex)
		}
	}
	return Link{}, notFound(fmt.Sprintf("no interface has the address %s", a))
}

// IPv4 returns the first IPv4 address that the host has on an interface, or an invalid
// prefix if it has none.
func IPv4(index int) (netip.Prefix, error) {
	fail := func(err error) (netip.Prefix, error) {
		return netip.Prefix{}, fmt.Errorf("list the addresses of interface number %d: %w", index, err)
	}
	s, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		return fail(err)
	}
	defer s.Close()
	// With this option the kernel lists one interface's addresses only (Linux 4.20).
	_ = unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}
	ask := nl.NewIfAddrmsg(unix.AF_INET)
	ask.Index = uint32(index)
	req.AddData(ask)
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
	if errors.Is(err, unix.ENODEV) {
		return netip.Prefix{}, notFound(fmt.Sprint("there is no interface number ", index))
	}
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fail(err)
	}
	for _, m := range msgs {
		if len(m) < unix.SizeofIfAddrmsg {
			continue
		}
		head := nl.DeserializeIfAddrmsg(m)
		if head.Family != unix.AF_INET || int(head.Index) != index {
			continue
		}
		for typ, value := range attributes(m[head.Len():]) {
			if ip, ok := netip.AddrFromSlice(value); ok && typ == unix.IFA_LOCAL {
				return netip.PrefixFrom(ip, int(head.Prefixlen)), nil
			}
		}
	}
	return netip.Prefix{}, nil
}

// StaticIPv6 lists the IPv6 addresses that do not expire: the link-local one, and those
// that somebody assigned.
func (l Link) StaticIPv6() ([]netip.Prefix, error) {
	return l.addresses(netlink.FAMILY_V6, func(a *netlink.Addr) bool { return a.Flags&unix.IFA_F_PERMANENT != 0 })
}

// Addresses lists all addresses.
func (l Link) Addresses() ([]netip.Prefix, error) {
	return l.addresses(netlink.FAMILY_ALL, func(*netlink.Addr) bool { return true })
}

func (l Link) addresses(family int, wanted func(*netlink.Addr) bool) (all []netip.Prefix, err error) {
	list, err := netlink.AddrList(handle(l.Index), family)
	if err != nil {
		return nil, l.explain("list the addresses of "+l.Name, err)
	}
	for _, have := range list {
		if ip, ok := netip.AddrFromSlice(have.IP); ok && wanted(&have) {
			ones, _ := have.Mask.Size()
			all = append(all, netip.PrefixFrom(ip.Unmap(), ones))
		}
	}
	return all, nil
}

func addr(a netip.Prefix) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{
		IP:   a.Addr().AsSlice(),
		Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen()),
	}}
}

func (l Link) explain(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM):
		return denied(what + ": needs CAP_NET_ADMIN; run vswitch as root or give it that capability")
	case errors.Is(err, unix.ENODEV):
		return notFound(what + ": the interface is gone")
	case errors.Is(err, unix.EADDRINUSE): // a vxlan interface
		return errors.New(what + ": another program or interface has its UDP port")
	}
	return fmt.Errorf("%s: %s", what, strings.TrimSpace(err.Error()))
}
