package sflow

import "github.com/vswitch/vswitch/port"

// Reason says why a packet was dropped (enum drop_reason).
type Reason uint32

// The reasons that a switch without routing has. The comments have their names in the
// specification, or in host-sflow's list of later ones.
const (
	ReasonIsolated        Reason = 8   // src_host_isolated
	ReasonProhibited      Reason = 13  // comm_admin_prohibited
	ReasonUnknown         Reason = 256 // unknown
	ReasonACL             Reason = 258 // acl
	ReasonNoBuffer        Reason = 259 // no_buffer_space
	ReasonShaping         Reason = 261 // traffic_shaping
	ReasonTooBig          Reason = 262 // pkt_too_big
	ReasonSourceMulticast Reason = 263 // src_mac_is_multicast
	ReasonTagMismatch     Reason = 264 // vlan_tag_mismatch
	ReasonVLANFilter      Reason = 265 // ingress_vlan_filter
	ReasonSpanningTree    Reason = 266 // ingress_spanning_tree_filter
	ReasonNoPort          Reason = 267 // port_list_is_empty
	ReasonLoopback        Reason = 268 // port_loopback_filter
	ReasonTunnelHeader    Reason = 282 // decap_error
	ReasonTunnel          Reason = 288 // unknown_tunnel
	ReasonReserved        Reason = 294 // dmac_is_reserved
	ReasonLocked          Reason = 304 // locked_port
	ReasonMalformed       Reason = 323 // unknown_parsing
	ReasonTooSmall        Reason = 324 // pkt_too_small
	ReasonNotReady        Reason = 331 // dev_ready
)

// reasons are those of the drops that have one; a drop that has none is unknown.
var reasons = [port.NumDrops]Reason{
	port.DropRunt:           ReasonTooSmall,
	port.DropOversize:       ReasonTooBig,
	port.DropBadOffload:     ReasonMalformed,
	port.DropBadSource:      ReasonSourceMulticast,
	port.DropReserved:       ReasonReserved,
	port.DropPortDown:       ReasonNotReady,
	port.DropBlocked:        ReasonSpanningTree,
	port.DropVLANTagged:     ReasonTagMismatch,
	port.DropVLANUntagged:   ReasonTagMismatch,
	port.DropVLANFiltered:   ReasonVLANFilter,
	port.DropLocked:         ReasonLocked,
	port.DropLearnLimit:     ReasonLocked,
	port.DropStormBroadcast: ReasonShaping,
	port.DropStormMulticast: ReasonShaping,
	port.DropStormUnicast:   ReasonShaping,
	port.DropPoliced:        ReasonShaping,
	port.DropIsolated:       ReasonIsolated,
	port.DropMirrorTarget:   ReasonProhibited,
	port.DropControlFull:    ReasonNoBuffer,
	port.DropSamePort:       ReasonLoopback,
	port.DropNoDestination:  ReasonNoPort,
	port.DropRxOverrun:      ReasonNoBuffer,
	port.DropUnknownVTEP:    ReasonTunnel,
	port.DropUnknownVNI:     ReasonTunnel,
	port.DropBadTunnel:      ReasonTunnelHeader,
	port.DropGuardMAC:       ReasonACL,
	port.DropGuardTag:       ReasonACL,
	port.DropGuardType:      ReasonACL,
	port.DropGuardOffload:   ReasonACL,
	port.DropGuardMalformed: ReasonACL,
	port.DropGuardExtHeader: ReasonACL,
	port.DropGuardARP:       ReasonACL,
	port.DropGuardIPv4:      ReasonACL,
	port.DropGuardIPv6:      ReasonACL,
	port.DropGuardND:        ReasonACL,
	port.DropGuardDHCP:      ReasonACL,
	port.DropGuardDHCPRate:  ReasonACL,
	port.DropGuardServer:    ReasonACL,
	port.DropGuardRouter:    ReasonACL,
	port.DropQueueFull:      ReasonNoBuffer,
	port.DropTooBig:         ReasonTooBig,
	port.DropNoCarrier:      ReasonNotReady,
	port.DropPortClosed:     ReasonNotReady,
	port.DropShaped:         ReasonShaping,
	port.DropStandby:        ReasonNotReady,
	port.DropNoVTEP:         ReasonTunnel,
	port.DropNoRoute:        ReasonTunnel,
}

// ReasonOf returns the reason that stands for a drop.
func ReasonOf(d port.Drop) Reason {
	if d < port.NumDrops && reasons[d] != 0 {
		return reasons[d]
	}
	return ReasonUnknown
}
