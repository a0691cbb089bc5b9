package port

import "fmt"

// Drop is the reason why a frame, or one copy of it, was not delivered. Each loss raises
// the counter of exactly one reason at the port that lost it: on input (no copy of the
// frame left the switch) or on output (this copy did not).
type Drop uint8

// The reasons. The comments say when each applies; drops says how users see them.
const (
	DropNone Drop = iota // not dropped

	// On input.
	DropRunt         // shorter than its header
	DropOversize     // longer than MaxFrame, or cut off by the receive buffer
	DropBadOffload   // an offload header that contradicts the frame
	DropUnsupported  // an offload packet sockets cannot express, or more than the switch accepts
	DropBadSource    // source address is zero or a group (802.3 clause 3.2.3.1)
	DropReserved     // to 01:80:c2:00:00:00-0f, which no bridge forwards (802.1Q-2018 table 8-1)
	DropPortDown     // came by a port that is not forwarding
	DropBlocked      // spanning tree keeps the port from forwarding
	DropVLANTagged   // tagged, on a port that takes untagged frames only
	DropVLANUntagged // untagged, on a port without a VLAN for those
	DropVLANFiltered // in a VLAN that the port does not carry (802.1Q-2018 clause 8.6.2)
	DropLocked       // from a station without an FDB entry at a locked port
	DropLearnLimit   // from a new station on a port at its learn limit
	DropStormBroadcast
	DropStormMulticast
	DropStormUnicast  // beyond the port's rate of broadcast, multicast, unknown unicast
	DropPoliced       // beyond the port's ingress rate
	DropIsolated      // from one isolated port to another, or from one tunnel to another
	DropMirrorTarget  // from or to the target port of a mirror
	DropConsumed      // taken by the switch: a protocol that it speaks
	DropControlFull   // for the switch, whose control queue is full
	DropSamePort      // its destination is behind its ingress port
	DropNoDestination // no other port can take it
	DropLocal         // to an address of the switch itself
	DropRxOverrun     // the device lost it before the switch could read it
	DropSecondPeer    // from a second machine while another uses the port
	DropUnknownVTEP   // through a tunnel from a host that is none of its peers in that network
	DropUnknownVNI    // in a virtual network that the tunnel does not carry
	DropStandby       // came by a member of an aggregate that does not carry frames
	DropBadTunnel     // its tunnel header is none that the tunnel understands

	// On input by a guarded port (internal/proto/guard).
	DropGuardMAC       // from a MAC address that the port may not use
	DropGuardTag       // with a VLAN tag that the port does not take off, or a second one
	DropGuardType      // of an EtherType that the port may not send
	DropGuardOffload   // to be segmented, or its checksum completed, elsewhere than in its TCP or UDP
	DropGuardMalformed // an ARP, IP, ND or DHCP packet that cannot be read
	DropGuardExtHeader // IPv6 extension headers or fragments that hide the upper layer
	DropGuardARP       // ARP that names a sender that the port does not have
	DropGuardIPv4      // from an IPv4 address that the port does not have
	DropGuardIPv6      // from an IPv6 address that the port does not have
	DropGuardND        // neighbour discovery for an address that the port does not have
	DropGuardDHCP      // a DHCP message in another's name, or out of place
	DropGuardDHCPRate  // more DHCP messages than a client sends
	DropGuardServer    // what only DHCP servers send
	DropGuardRouter    // what only routers send

	// On output.
	DropQueueFull  // the receiver is behind: its queue has no room
	DropTooBig     // longer than the output's MTU allows
	DropNoCarrier  // nobody holds the other end
	DropPortClosed // the port was closed while the frame was in flight
	DropMemoryGone // its sender took away the memory of its payload
	DropShaped     // the port's egress queue is full, or the frame was dropped from it
	DropNoVTEP     // no host is known that takes it from the tunnel
	DropNoRoute    // the kernel has no route to the host at the other end of the tunnel
	DropIOError    // the kernel refused it for another reason

	NumDrops // the number of reasons, DropNone among them
)

// Direction is the side of a port on which a frame was lost.
type Direction string

const (
	OnInput  Direction = "rx" // no copy of the frame left the switch
	OnOutput Direction = "tx" // this copy did not
)

// DropInfo describes a reason to users.
type DropInfo struct {
	Name      string // in snake_case, as in JSON and in metrics
	Direction Direction
	Words     string // what happened; DEV stands for the port's name
}

// drops is the only table of reasons.
var drops = [NumDrops]DropInfo{
	DropNone:           {"none", "", ""},
	DropRunt:           {"runt", OnInput, "shorter than an Ethernet header"},
	DropOversize:       {"oversize", OnInput, "longer than a frame can be"},
	DropBadOffload:     {"bad_offload", OnInput, "its offload header contradicts the frame"},
	DropUnsupported:    {"offload_unsupported", OnInput, "an offload that packet sockets cannot express; turn it off: `ethtool -K DEV lro off gro off`, or `ethtool -K ... gso off` at the sender"},
	DropBadSource:      {"bad_source", OnInput, "its source address is zero or a group address"},
	DropReserved:       {"reserved_address", OnInput, "to an address that bridges do not forward (01:80:c2:00:00:0x)"},
	DropPortDown:       {"port_down", OnInput, "the port was not forwarding"},
	DropBlocked:        {"stp_blocked", OnInput, "spanning tree keeps the port from forwarding"},
	DropVLANTagged:     {"vlan_tagged", OnInput, "tagged, on a port that takes untagged frames only"},
	DropVLANUntagged:   {"vlan_untagged", OnInput, "untagged, on a port without a VLAN for those"},
	DropVLANFiltered:   {"vlan_filtered", OnInput, "of a VLAN that the port does not carry"},
	DropLocked:         {"locked", OnInput, "from a station that the locked port does not know"},
	DropLearnLimit:     {"learn_limit", OnInput, "from a new station, on a port at its learn limit"},
	DropStormBroadcast: {"storm_broadcast", OnInput, "more broadcasts than the port's limit"},
	DropStormMulticast: {"storm_multicast", OnInput, "more multicasts than the port's limit"},
	DropStormUnicast:   {"storm_unknown_unicast", OnInput, "more frames to unknown stations than the port's limit"},
	DropPoliced:        {"policed", OnInput, "more than the port's ingress rate"},
	DropIsolated:       {"isolated", OnInput, "from one isolated port to another, or from one tunnel to another"},
	DropMirrorTarget:   {"mirror_target", OnInput, "from or to the target port of a mirror"},
	DropConsumed:       {"consumed", OnInput, "consumed by the switch itself, for a protocol that it speaks"},
	DropControlFull:    {"control_full", OnInput, "for the switch itself, whose queue was full"},
	DropSamePort:       {"same_port", OnInput, "its destination is behind the port it came by"},
	DropNoDestination:  {"no_destination", OnInput, "no other port could take it"},
	DropLocal:          {"local", OnInput, "to an address of the switch itself"},
	DropRxOverrun:      {"rx_overrun", OnInput, "arrived faster than the switch could read"},
	DropSecondPeer:     {"second_peer", OnInput, "from a second machine, while another has the port"},
	DropUnknownVTEP:    {"unknown_vtep", OnInput, "through the tunnel from a host that is no peer in its virtual network"},
	DropUnknownVNI:     {"unknown_vni", OnInput, "of a virtual network (VNI) that the tunnel does not carry"},
	DropStandby:        {"standby", OnInput, "by a member of the port that does not carry frames, such as a backup"},
	DropBadTunnel:      {"bad_tunnel", OnInput, "its tunnel header is not that of an Ethernet frame"},
	DropGuardMAC:       {"guard_mac", OnInput, "from a MAC address that the guarded port may not use"},
	DropGuardTag:       {"guard_tag", OnInput, "with a VLAN tag that the guarded port does not take off"},
	DropGuardType:      {"guard_ethertype", OnInput, "of an EtherType that the guarded port may not send (--guard-ethertypes)"},
	DropGuardOffload:   {"guard_offload", OnInput, "a checksum to be completed, or segments to be made, elsewhere than in the frame's own TCP or UDP"},
	DropGuardMalformed: {"guard_malformed", OnInput, "an ARP, IP, ND or DHCP packet that cannot be read"},
	DropGuardExtHeader: {"guard_ext_header", OnInput, "IPv6 extension headers or fragments that hide what follows them"},
	DropGuardARP:       {"guard_arp", OnInput, "ARP that names a sender that the guarded port does not have"},
	DropGuardIPv4:      {"guard_ipv4", OnInput, "from an IPv4 address that the guarded port does not have"},
	DropGuardIPv6:      {"guard_ipv6", OnInput, "from an IPv6 address that the guarded port does not have"},
	DropGuardND:        {"guard_nd", OnInput, "neighbour discovery for an address that the guarded port does not have"},
	DropGuardDHCP:      {"guard_dhcp", OnInput, "a DHCP message in another's name, or one that clients do not send"},
	DropGuardDHCPRate:  {"guard_dhcp_rate", OnInput, "more DHCP messages than a client sends"},
	DropGuardServer:    {"guard_dhcp_server", OnInput, "what only DHCP servers send (--guard-allow dhcp-server)"},
	DropGuardRouter:    {"guard_router", OnInput, "what only routers send (--guard-allow router)"},
	DropQueueFull:      {"queue_full", OnOutput, "the receiver was behind: its queue was full"},
	DropTooBig:         {"too_big", OnOutput, "longer than the port's MTU allows"},
	DropNoCarrier:      {"no_carrier", OnOutput, "nobody held the other end"},
	DropPortClosed:     {"port_closed", OnOutput, "the port was closed meanwhile"},
	DropMemoryGone:     {"memory_gone", OnOutput, "its sender removed the memory it was in"},
	DropShaped:         {"shaped", OnOutput, "more than the port's egress rate: its queue was full"},
	DropNoVTEP:         {"no_vtep", OnOutput, "the tunnel knows no host that takes it"},
	DropNoRoute:        {"no_route", OnOutput, "the host has no route to the other end of the tunnel"},
	DropIOError:        {"io_error", OnOutput, "the kernel refused it"},
}

// ByGuard reports whether the guard of the port refused the frame.
func (d Drop) ByGuard() bool { return d >= DropGuardMAC && d <= DropGuardRouter }

// Info returns the description of d for users.
func (d Drop) Info() DropInfo {
	if d < NumDrops {
		return drops[d]
	}
	return DropInfo{Name: fmt.Sprintf("drop(%d)", uint8(d))}
}

// String returns the reason's name in snake_case, as in JSON and metrics.
func (d Drop) String() string { return d.Info().Name }
