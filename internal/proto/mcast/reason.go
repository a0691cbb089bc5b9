package mcast

import "fmt"

// Reason is why Receive dropped a message.
type Reason uint8

const (
	Accepted       Reason = iota // not dropped
	Truncated                    // shorter than its headers say
	BadHeader                    // an IP header that contradicts itself
	BadIPChecksum                // RFC 791 section 3.1
	Fragmented                   // messages that matter here never need fragments
	BadChecksum                  // of the IGMP, ICMPv6 or PIM message
	BadHopLimit                  // not 1: it may come from another link
	NoRouterAlert                // RFC 3810 section 5; IGMP is taken without, hosts differ
	BadSource                    // an address that must not send it
	BadDestination               // neither the message's addressee nor the MAC of that group
	BadGroup                     // not a multicast address
	BadLength                    // impossible for the message type
	GroupLimit                   // every group it joins was refused
	RouterGuard                  // a router's message from a port with RouterNever

	numReasons
)

var reasonNames = [numReasons]string{
	Accepted:       "accepted",
	Truncated:      "truncated",
	BadHeader:      "bad_ip_header",
	BadIPChecksum:  "bad_ip_checksum",
	Fragmented:     "fragmented",
	BadChecksum:    "bad_checksum",
	BadHopLimit:    "bad_hop_limit",
	NoRouterAlert:  "no_router_alert",
	BadSource:      "bad_source",
	BadDestination: "bad_destination",
	BadGroup:       "bad_group",
	BadLength:      "bad_length",
	GroupLimit:     "group_limit",
	RouterGuard:    "router_guard",
}

// String returns the reason's name in snake_case, as in JSON and in metrics.
func (r Reason) String() string {
	if r < numReasons {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}
