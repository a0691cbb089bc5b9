// Package evpn decides where the stations of a switch that spans several hosts are: the MAC/IP
// and multicast routes of BGP EVPN (RFC 7432) over VXLAN (RFC 8365). It does no I/O. Routes of
// peers, local stations and the time go in; stations, flood lists, routes to announce and
// frames come out through Output. A Table belongs to one goroutine.
//
// Every host chooses alike for each (VNI, MAC): a sticky claim before others, then the highest
// sequence number, then the lowest VTEP address. A host that hears a station claims it with a
// higher sequence number than any other claim; a host whose claim is beaten withdraws it. All
// tables are bounded, see Limits.
package evpn

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/vswitch/vswitch/port"
)

// VNI is a VXLAN network identifier: 1 to 1<<24-1.
type VNI uint32

// MaxVNI is the highest VNI (RFC 7348 section 5).
const MaxVNI VNI = 1<<24 - 1

// Peer numbers a BGP neighbour. A path belongs to the peer that it came from.
type Peer uint32

// Kind is the type of a route.
type Kind uint32

const (
	MAC   Kind = 2 // MAC/IP advertisement (RFC 7432 section 7.2)
	Flood Kind = 3 // inclusive multicast Ethernet tag (section 7.3), for ingress replication
)

// RD is a route distinguisher, as on the wire.
type RD [8]byte

// Key identifies a route: the parts of the NLRI that RFC 7432 section 7 compares. It has no gaps, so
// that maps hash it in one piece.
type Key struct {
	RD   RD
	Kind Kind
	Tag  uint32
	MAC  port.MAC   // of a MAC route
	IP   netip.Addr // of a MAC route: none if invalid; of a flood route: its originator
}

// Refusal says why a table does not take a route.
type Refusal uint8

const (
	Taken       Refusal = iota
	OwnVTEP             // it leads to this host
	OtherFamily         // it leads to an IPv6 address, and this host has an IPv4 address; or the reverse
	NoHost              // it leads to an address that no host can have
	OwnMAC              // its station has the address of the switch itself
	NoStation           // no station can have its address
	Beyond              // the limits
)

// Targets are the VNIs in a route's targets. More than four are not looked at.
type Targets [4]VNI

// Route is one route of EVPN.
type Route struct {
	Key
	Targets Targets
	VTEP    netip.Addr // next hop; of a flood route: where copies go
	Seq     uint32     // MAC mobility (section 15)
	Sticky  bool       // the station must not move; so are default gateways (section 10.1)
	Router  bool       // the IPv6 neighbour is a router (RFC 9047)
	Label   VNI        // that its frames must have and no target names, so that it is not used; 0: there is none
}

// beats reports whether the claim of a is preferred to that of b, and equal claims are not.
func (a claim) beats(b claim) bool {
	return cmp.Or(compareBool(b.sticky, a.sticky), cmp.Compare(b.seq, a.seq), a.vtep.Compare(b.vtep)) < 0
}

// claim is what one host says of a station.
type claim struct {
	vtep   netip.Addr
	seq    uint32
	sticky bool
}

func (r *Route) claim() claim { return claim{r.VTEP, r.Seq, r.Sticky} }

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// At is where a station is.
type At struct {
	VTEP   netip.Addr // invalid: at no other host
	Pinned bool       // local frames with its address do not move it
}

// Output receives what a Table decides. Its methods must not call the Table.
type Output interface {
	// Announce and Withdraw change the routes of this host.
	Announce(Route)
	Withdraw(Key)

	// Station says at which other host a station is, or that it is at none.
	Station(VNI, port.MAC, At)

	// Flood says which other hosts get copies of frames to groups and unknown stations.
	Flood(VNI, []netip.Addr)

	// Send sends a frame to the local stations of a VNI: to one port, or to AllPorts.
	Send(vni VNI, to uint16, frame []byte)

	// Conflict reports a station that two hosts claim.
	Conflict(Conflict)

	// Refresh asks a peer to announce all its routes again, and reports whether it can.
	Refresh(Peer) bool
}

// AllPorts stands for all ports with local stations.
const AllPorts uint16 = 0xffff

// Conflict is a station that two hosts claim and that therefore stays at the other host.
type Conflict struct {
	VNI   VNI
	MAC   port.MAC
	Port  uint16        // where it is heard here
	VTEP  netip.Addr    // where it stays
	Held  time.Duration // for how long; 0: as long as the other host's claim is sticky
	Moves int           // how often it moved here within Window
}

// Limits bound what a Table remembers. What exceeds them is not taken, and counted. Where routes or stations are
// too many, those of the peer or the port that has most go first, so that it does not keep those of others out.
type Limits struct {
	Routes   int // of all peers
	VTEPs    int // other hosts that routes lead to
	Stations int // local ones
	IPs      int // addresses of one local station
}

// Config configures New. Zero limits and times take their defaults.
type Config struct {
	VTEP netip.Addr // this host's tunnel address
	MAC  port.MAC   // of frames that the switch itself sends
	Limits

	// RD returns the route distinguisher of a VNI's routes.
	RD func(VNI) RD

	// Hold is how long a duplicate station is held at the other host.
	Hold time.Duration

	// Sequences are sequence numbers of an earlier run, from Sequences. Reserved is its last
	// Reserved, if the run may have announced numbers that are not in Sequences; else 0.
	Sequences []Sequence
	Reserved  uint32
}

// Sequence is the sequence number that this host last announced for a station.
type Sequence struct {
	VNI VNI      `json:"vni"`
	MAC port.MAC `json:"mac"`
	Seq uint32   `json:"seq"`
}

const (
	// Window and Moves: a station that moves here so often within so long is a duplicate
	// (RFC 7432 section 15.1 has these defaults).
	Window = 180 * time.Second
	Moves  = 5

	// A station that was here for Settled and then left is at home here until it has stayed
	// elsewhere as long, and is no duplicate here before it has come back HomeMoves times. So
	// guests of some other hosts that claim it in turn are held there, and not the station here.
	Settled   = 300 * time.Second
	HomeMoves = 8 * Moves

	defaultHold = 180 * time.Second
	// MaxRoutes and MaxVTEPs are the limits that a Table has by default.
	MaxRoutes = 1 << 19
	MaxVTEPs  = 4095 // as tunnels know (package vxlan)

	defaultStations = 1 << 16
	defaultIPs      = 8

	// A port announces announceBurst stations at once, and announceRate a second beyond
	// them: a guest that makes up addresses does not flood the fabric with routes.
	announceBurst = 1024
	announceRate  = 256

	// reserveAhead is how far beyond what is announced numbers are reserved, so that they are
	// on disk long before they are announced; see Table.Reserved.
	reserveAhead = 8

	// maxReserved bounds what is reserved: a host that claims a station with an absurd number
	// must not bring those of all other stations near the highest.
	maxReserved = 1 << 24

	// A run that begins with Reserved waits so long for what its peers have before it
	// announces stations, and begins with that number so long: no peer keeps routes of the
	// earlier run for longer.
	reservedWait = 2 * time.Second
	reservedFor  = 10 * time.Minute

	// maxPaths bounds the routes of one station, and of one IP address, that are looked at:
	// each change compares them all.
	maxPaths = 1 << 10

	// Of a peer that is lost, so many routes are removed at once, and the rest a moment later:
	// the caller has other things to do.
	sweepBatch = 1 << 12
	sweepGap   = time.Millisecond

	// A peer of which routes were left out is asked for them again once a part of the limits is free, and no
	// sooner than refreshEvery after it was asked before.
	roomPart     = 16
	refreshEvery = time.Minute

	// maxSequences bounds the sequence numbers that are remembered of stations that are
	// no longer here.
	maxSequences = 1 << 14
)

// Stats count what a Table holds and has refused.
type Stats struct {
	Routes        int    // of peers
	Local         int    // stations here
	Remote        int    // stations at other hosts
	Pending       int    // local stations that wait to be announced
	RefusedRoutes uint64 // beyond the limits, or without sense
	Beyond        uint64 // of those, beyond Limits.Routes or Limits.VTEPs
	Unused        uint64 // routes that are kept and not used: their station has too many
	RefusedLocal  uint64 // beyond Limits.Stations or Limits.IPs
	LeftOut       uint64 // of those, beyond Limits.Stations
	Largest       uint16 // the port that had most stations when one was left out last
	Duplicates    uint64 // times a station was held as a duplicate
	Answered      uint64 // ARP requests and neighbour solicitations answered
	Sequences     uint64 // changes of what Sequences returns
}
