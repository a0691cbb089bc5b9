package port

import "fmt"

// Drop is why a frame, or one copy of it, was not delivered. Each loss raises
// the counter of exactly one reason, at the port where it was lost: on input
// (no copy of the frame left the switch) or on output (this copy did not).
type Drop uint8

// The reasons. The comment says when; dropNames says how users see them.
const (
	DropNone Drop = iota // not dropped

	// On input.
	DropRunt         // shorter than its header
	DropOversize     // longer than MaxFrame, or cut off by the receive buffer
	DropBadOffload   // an offload header that contradicts the frame
	DropUnsupported  // an offload that no packet socket can express, or more of it than the switch takes
	DropBadSource    // source address is zero or a group (802.3 clause 3.2.3.1)
	DropReserved     // to 01:80:c2:00:00:00-0f, which no bridge forwards (802.1Q-2018 table 8-1)
	DropPortDown     // came by a port that is not forwarding
	DropBlocked      // spanning tree keeps the port from forwarding
	DropVLANTagged   // tagged, on a port that takes untagged frames only
	DropVLANUntagged // untagged, on a port without a VLAN for those
	DropVLANFiltered // of a VLAN that the port does not carry (802.1Q-2018 clause 8.6.2)
	DropLocked       // from a station that a locked port has no entry for
	DropLearnLimit   // from a new station on a port that has as many as it may
	DropStormBroadcast
	DropStormMulticast
	DropStormUnicast  // beyond the port's rate of broadcast, multicast, unknown unicast
	DropPoliced       // beyond the port's ingress rate
	DropIsolated      // from one isolated port to another
	DropMirrorTarget  // from or to a port that mirrored frames leave by
	DropConsumed      // taken by the switch itself: a protocol that it speaks
	DropControlFull   // meant for the switch itself, which is behind
	DropSamePort      // its destination is behind the port it came by
	DropNoDestination // no other port is there to take it
	DropLocal         // to an address of the switch itself
	DropRxOverrun     // lost by the device before the switch could read it

	// On output.
	DropQueueFull  // the receiver is behind: its queue has no room
	DropTooBig     // longer than the output's MTU allows
	DropNoCarrier  // nobody holds the other end
	DropPortClosed // the port was closed while the frame was on its way
	DropMemoryGone // its sender took away the memory that its payload lay in
	DropShaped     // waited for in vain: the port's egress queue is full
	DropIOError    // the kernel refused it for another reason

	NumDrops // the number of reasons, DropNone among them
)

var dropNames = [NumDrops]string{
	DropNone:           "none",
	DropRunt:           "runt",
	DropOversize:       "oversize",
	DropBadOffload:     "bad_offload",
	DropUnsupported:    "offload_unsupported",
	DropBadSource:      "bad_source",
	DropReserved:       "reserved_address",
	DropPortDown:       "port_down",
	DropBlocked:        "stp_blocked",
	DropVLANTagged:     "vlan_tagged",
	DropVLANUntagged:   "vlan_untagged",
	DropVLANFiltered:   "vlan_filtered",
	DropLocked:         "locked",
	DropLearnLimit:     "learn_limit",
	DropStormBroadcast: "storm_broadcast",
	DropStormMulticast: "storm_multicast",
	DropStormUnicast:   "storm_unknown_unicast",
	DropPoliced:        "policed",
	DropIsolated:       "isolated",
	DropMirrorTarget:   "mirror_target",
	DropConsumed:       "consumed",
	DropControlFull:    "control_full",
	DropSamePort:       "same_port",
	DropNoDestination:  "no_destination",
	DropLocal:          "local",
	DropRxOverrun:      "rx_overrun",
	DropQueueFull:      "queue_full",
	DropTooBig:         "too_big",
	DropNoCarrier:      "no_carrier",
	DropPortClosed:     "port_closed",
	DropMemoryGone:     "memory_gone",
	DropShaped:         "shaped",
	DropIOError:        "io_error",
}

// String is the reason's name in snake_case, as in JSON and in metrics.
func (d Drop) String() string {
	if d < NumDrops {
		return dropNames[d]
	}
	return fmt.Sprintf("drop(%d)", uint8(d))
}
