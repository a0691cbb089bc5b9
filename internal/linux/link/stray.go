package link

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Stray is an interface in another network namespace.
type Stray struct {
	Link
	Place
}

// Strays returns the interfaces for which is returns true in the network namespaces that have a
// number in the calling thread's: each of those to which an interface was moved from here has one. It
// enters none.
func Strays(is func(Link) bool) (all []Stray, err error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETNSID, unix.NLM_F_DUMP)
	req.AddData(nl.NewRtGenMsg())
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNSID)
	if err != nil {
		return nil, fmt.Errorf("list the numbers of network namespaces: %w", err)
	}
	var errs []error
	for _, m := range msgs {
		for typ, value := range attributes(m[min(nl.NewRtGenMsg().Len(), len(m)):]) {
			if typ != netlink.NETNSA_NSID || len(value) < 4 {
				continue
			}
			id := int(int32(binary.NativeEndian.Uint32(value)))
			links, err := linksIn(id)
			if err != nil {
				errs = append(errs, fmt.Errorf("list the interfaces of network namespace number %d: %w", id, err))
			}
			for _, l := range links {
				if is(l) {
					all = append(all, Stray{l, Place{Netns: id, Index: l.Index}})
				}
			}
		}
	}
	return all, errors.Join(errs...)
}

// All lists the interfaces of the calling thread's network namespace; of a list that changes meanwhile, what
// is known.
func All() ([]Link, error) { return linksIn(-1) }

// linksIn is All for a network namespace by its number in the calling thread's; -1 is that itself.
func linksIn(netns int) (all []Link, err error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	if netns >= 0 {
		req.AddData(nl.NewRtAttr(unix.IFLA_TARGET_NETNSID, nl.Uint32Attr(uint32(netns))))
	}
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		err = nil
	}
	for _, m := range msgs {
		if l, err := netlink.LinkDeserialize(nil, m); err == nil {
			all = append(all, linkFrom(l))
		}
	}
	return all, err
}
