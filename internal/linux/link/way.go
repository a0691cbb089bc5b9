package link

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Way is how packets to a host leave: by a device with Ethernet headers, to a neighbour there.
type Way struct {
	Ifindex int
	Via     netip.Addr
}

// wayKinds are the kinds of devices of which that is all.
var wayKinds = []string{"device", "veth", "vlan", "bond", "bridge", "macvlan", "team"}

// WaysTo calls found with how packets from a local address leave to each of some hosts. An error says why
// that is more than a Way: the kernel chooses between several, or does more than send.
func WaysTo(local netip.Addr, hosts iter.Seq[netip.Addr], found func(to netip.Addr, w Way, err error)) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE) // one socket for all
	if err != nil {
		return fmt.Errorf("ask for routes: %w", err)
	}
	defer h.Close()
	// A question about a route names no protocol or port, so its answer may not be that of a tunnel's packets.
	rules, err := h.RuleList(unix.AF_INET)
	if err != nil {
		return fmt.Errorf("ask for routing rules: %w", err)
	}
	if slices.ContainsFunc(rules, func(r netlink.Rule) bool { return r.IPProto > 0 || r.Sport != nil || r.Dport != nil }) {
		return errors.New("the host has routing rules by protocol or port")
	}
	links := make(map[int]Link)
	for to := range hosts {
		w, err := wayTo(h, links, local, to)
		found(to, w, err)
	}
	return nil
}

// wayTo returns the way to one host. What it reads of interfaces it enters into links.
func wayTo(h *netlink.Handle, links map[int]Link, local, to netip.Addr) (Way, error) {
	// The rule that the kernel matched, since its answer for the host would hide other next hops.
	routes, err := h.RouteGetWithOptions(to.AsSlice(), &netlink.RouteGetOptions{SrcAddr: local.AsSlice(), FIBMatch: true})
	switch {
	case err != nil:
		return Way{}, fmt.Errorf("there is no route to %s: %w", to, err)
	case len(routes) != 1:
		return Way{}, fmt.Errorf("there are %d routes to %s", len(routes), to)
	}
	r := routes[0]
	switch {
	case r.Type != unix.RTN_UNICAST:
		return Way{}, fmt.Errorf("the route to %s leads to no other host", to)
	case len(r.MultiPath) > 0:
		return Way{}, fmt.Errorf("the route to %s has several next hops", to)
	case r.Encap != nil || r.Via != nil || r.NewDst != nil || r.MPLSDst != nil:
		return Way{}, fmt.Errorf("the route to %s changes packets", to)
	}
	l, ok := links[r.LinkIndex]
	if !ok {
		if l, err = ByIndex(r.LinkIndex); err != nil {
			return Way{}, err
		}
		links[r.LinkIndex] = l
	}
	if !l.Ethernet || l.Loopback || l.Master != 0 || !slices.Contains(wayKinds, l.Kind) {
		return Way{}, fmt.Errorf("the route to %s is by %s, which is more than an Ethernet device", to, l.Name)
	}
	w := Way{Ifindex: r.LinkIndex, Via: to}
	if len(r.Gw) > 0 {
		via, ok := netip.AddrFromSlice(r.Gw)
		if w.Via = via.Unmap(); !ok || w.Via.Is4() != to.Is4() {
			return Way{}, fmt.Errorf("the route to %s has a next hop of another kind", to)
		}
	}
	return w, nil
}

// FollowWays calls f whenever what WaysTo finds for IPv4 may have changed, on a goroutine of its own, in the calling
// thread's namespace. Once stop has returned, f neither runs nor is called again.
func FollowWays(f func()) (stop func(), err error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE,
		unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_NEXTHOP)
	if err != nil {
		return nil, fmt.Errorf("follow the routes: %w", err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			_, from, err := s.Receive()
			switch {
			case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			case err != nil && !errors.Is(err, unix.ENOBUFS):
				return // it was closed
			case err != nil || from.Pid == nl.PidKernel:
				f()
			}
		}
	})
	return sync.OnceFunc(func() {
		s.Close()
		running.Wait()
	}), nil
}
