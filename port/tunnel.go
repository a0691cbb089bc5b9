package port

import (
	"iter"
	"net/netip"
	"strconv"
	"time"
)

// Encapsulation is how frames are put into packets between hosts, by its number as a tunnel type of
// BGP (IANA, BGP Tunnel Encapsulation Attribute Tunnel Types).
type Encapsulation uint16

// The encapsulations.
const (
	VXLAN  Encapsulation = 8  // RFC 7348
	Geneve Encapsulation = 19 // RFC 8926
)

func (e Encapsulation) String() string {
	switch e {
	case VXLAN:
		return "VXLAN"
	case Geneve:
		return "Geneve"
	}
	return "encapsulation " + strconv.Itoa(int(e))
}

// Tunnel is implemented by ports that lead to other hosts through an IP network. A host is known by the address of its tunnel endpoint, its VTEP. To the switch
// all hosts are behind one port, so no frame goes from one host to another. The tunnel itself
// knows which station is behind which VTEP: it learns that from received frames, or is told.
//
// What it is told counts until it is changed, but it belongs to the open port: a port that is
// opened anew knows nothing. VTEPs that the user named as peers are part of each flood list
// and need not be told. Any goroutine may call the methods; they never wait.
type Tunnel interface {
	Port

	// VTEP returns the tunnel's own address. It does not change.
	VTEP() netip.Addr

	// Encapsulation returns how the tunnel puts frames into packets. It does not change.
	Encapsulation() Encapsulation

	// VNIs returns the virtual networks that the tunnel carries, by VLAN. They change with
	// the port's settings; what was told about a network that is gone is forgotten.
	VNIs() []VNI

	// SetRemote says that a station of a virtual network is behind a VTEP. What frames tell
	// about the station no longer counts. The error says what is wrong with the arguments, or
	// that a table is full; nothing is changed then.
	SetRemote(vni uint32, station MAC, vtep netip.Addr) error

	// DeleteRemote forgets where a station is, whether told or learned.
	DeleteRemote(vni uint32, station MAC)

	// SetFlood sets the VTEPs that get a virtual network's frames to groups and to unknown
	// stations, in place of those set before. The errors are those of SetRemote; VTEPs
	// without a fault, and for which there is room, are set also then.
	SetFlood(vni uint32, vteps []netip.Addr) error

	// SetLearning sets whether the tunnel learns stations from frames, as it does at first.
	// Off, it forgets those that it has learned. On again, what it was told counts like what it has learned:
	// frames tell otherwise, and it ends with time.
	SetLearning(on bool)

	// Remotes yields the stations known to the tunnel, in no order. One that changes
	// meanwhile may be yielded in its earlier state.
	Remotes() iter.Seq[Remote]

	// MTU returns the length in bytes of the longest IP packet that fits through the tunnel
	// to every VTEP, in an untagged frame; 0: unknown. It follows the routes of the host.
	MTU() int
}

// VNI is a virtual network of a tunnel, by its network identifier, and the VLAN that
// is in it. VLAN 0 stands for all frames of the port, each with the tag it has there.
type VNI struct {
	VLAN uint16
	VNI  uint32
}

// Remote is a station behind a tunnel.
type Remote struct {
	VNI     uint32
	Station MAC
	VTEP    netip.Addr

	// Learned is true if frames told, else SetRemote did.
	Learned bool
	Age     time.Duration // since the last frame from a learned station, in whole seconds
}
