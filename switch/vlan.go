package vswitch

import (
	"encoding/binary"
	"fmt"

	"github.com/vswitch/vswitch/port"
)

// DefaultVLAN is the VLAN of a port without a configured one (802.1Q-2018 table 9-2: the
// default PVID).
const DefaultVLAN = 1

// VLANMode is how a port takes part in VLANs.
type VLANMode uint8

const (
	// Transparent: every frame belongs to one VLAN whatever its tag, and leaves with
	// the tag it came with. Such a port acts as on a bridge without VLANs, or, with a
	// service VLAN, as the customer edge of 802.1ad (clause 15.3).
	Transparent VLANMode = iota
	// Access: untagged frames of one VLAN.
	Access
	// Trunk: tagged frames of several VLANs, and untagged frames of the native VLAN.
	Trunk
)

// VLAN is a port's part in VLANs. The zero VLAN is Transparent in DefaultVLAN.
type VLAN struct {
	Mode VLANMode

	// VID is the VLAN of frames without a tag: the VLAN of an access or transparent
	// port (0: DefaultVLAN), or the native VLAN of a trunk (0: none, such frames are
	// refused).
	VID uint16

	// Trunk: the VLANs it carries tagged, in addition to the native VLAN.
	Allowed port.VLANSet

	// Trunk: tags have the TPID of S-tags (802.1ad).
	Service bool

	Accept Accept
}

// Accept says which frames a port accepts, by their tag (802.1Q-2018 clause 6.9: the
// acceptable frame types). A priority-tagged frame counts as untagged.
type Accept uint8

const (
	AcceptByMode Accept = iota // access ports accept untagged frames, others all
	AcceptAll                  // an access port also accepts frames tagged with its VLAN
	AcceptTagged               // a native VLAN is then untagged only on egress
	AcceptUntagged
)

// vlanRules is a VLAN in the form that the stages need.
type vlanRules struct {
	pvid         uint16 // VLAN of frames without a recognised tag; 0: refused
	native       uint16 // the VLAN that leaves untagged; 0: none
	tpid         uint16 // the TPID of recognised tags; 0: none
	untaggedOnly bool
	vlans        *port.VLANSet // the VLANs the port carries
}

func (v *VLAN) resolve() (vlanRules, error) {
	if v.VID > port.MaxVID {
		return vlanRules{}, port.CheckVID(int(v.VID))
	}
	r := vlanRules{pvid: v.VID, native: v.VID, vlans: new(port.VLANSet)}
	switch v.Mode {
	case Transparent, Access:
		if v.VID == 0 {
			r.pvid, r.native = DefaultVLAN, DefaultVLAN
		}
		if v.Mode == Access {
			r.tpid = port.TPIDCustomer
			r.untaggedOnly = v.Accept == AcceptByMode
		}
	case Trunk:
		*r.vlans = v.Allowed
		r.tpid = port.TPIDCustomer
		if v.Service {
			r.tpid = port.TPIDService
		}
		if v.VID == 0 && v.Allowed.Len() == 0 {
			return r, fmt.Errorf("a trunk needs a VLAN; name those it carries, such as 10,20-29")
		}
	default:
		return r, fmt.Errorf("no VLAN mode %d", v.Mode)
	}
	if r.native != 0 {
		r.vlans.Add(r.native)
	}
	switch v.Accept {
	case AcceptTagged:
		if v.Mode != Trunk {
			return r, fmt.Errorf("only a trunk can accept tagged frames alone")
		}
		r.pvid = 0
	case AcceptUntagged:
		r.untaggedOnly = true
	}
	return r, nil
}

// classify sets the frame's VLAN (802.1Q-2018 clause 6.9.1). It refuses a frame whose VLAN
// the port does not carry (clause 8.6.2: ingress filtering, always on).
func classify(f *port.Frame, from *member) port.Drop {
	vid := from.pvid
	f.Opaque = false
	if f.Tag.Present() {
		if f.Tag.TPID() != from.tpid {
			f.Opaque = true
		} else if v := f.Tag.VID(); v != 0 { // VID 0: a priority, no VLAN
			if from.flags&flagUntaggedOnly != 0 {
				return port.DropVLANTagged
			}
			vid = v
		}
	}
	if vid == 0 {
		return port.DropVLANUntagged
	}
	if !from.vlans.Has(vid) {
		return port.DropVLANFiltered
	}
	f.VLAN = vid
	return port.DropNone
}

// retag returns the outer tag with which f leaves through a port, and port.Push if that
// goes in front of the frame's own tag. It keeps priority and drop eligibility: a service tag
// inherits those of the customer tag behind it.
func retag(f *port.Frame, to *member) (tag port.Tag, flags port.OutFlags) {
	if f.VLAN != to.native {
		if f.Opaque {
			flags = port.Push
		}
		return port.MakeTag(to.tpid, f.Tag.TCI()&^0xfff|f.VLAN), flags
	}
	if f.Opaque {
		return f.Tag, 0
	}
	return 0, 0
}

// wouldHop reports whether f, leaving untagged, would expose a tag that the receiver takes
// for a VLAN tag: f's own opaque tag, or a second tag behind the one it came with.
// Refusing such frames defeats VLAN hopping by double tags.
func wouldHop(f *port.Frame, to *member) bool {
	if f.VLAN != to.native || !f.Tag.Present() || to.tpid == 0 {
		return false
	}
	if f.Opaque {
		return f.Tag.TPID() == to.tpid
	}
	return binary.BigEndian.Uint16(f.Data[12:]) == to.tpid
}
