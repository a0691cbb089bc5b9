package vswitch

import (
	"encoding/binary"
	"fmt"

	"github.com/vswitch/vswitch/port"
)

// DefaultVLAN is the VLAN of a port that was not told another (802.1Q-2018 table
// 9-2: the default PVID).
const DefaultVLAN = 1

// VLANMode is how a port takes part in VLANs.
type VLANMode uint8

const (
	// Transparent: every frame belongs to one VLAN whatever its tag, and
	// leaves with the tag it came with: a bridge that knows no VLANs, or
	// with a service VLAN the customer edge of 802.1ad (clause 15.3).
	Transparent VLANMode = iota
	// Access: untagged frames of one VLAN.
	Access
	// Trunk: tagged frames of several VLANs, and untagged ones of the native.
	Trunk
)

// VLAN is a port's part in VLANs. The zero VLAN is Transparent in DefaultVLAN.
type VLAN struct {
	Mode VLANMode

	// VID is the VLAN of frames without a tag: that of an access or a
	// transparent port (0: DefaultVLAN), or a trunk's native one (0: none,
	// such frames are refused).
	VID uint16

	// Trunk: the VLANs it carries tagged; a native one is carried as well.
	Allowed port.VLANSet

	// Trunk: the tags' TPID is that of 802.1ad's S-tags.
	Service bool

	Accept Accept
}

// Accept says which frames a port takes, by their tag (802.1Q-2018 clause 6.9: the
// acceptable frame types). A priority tag is none.
type Accept uint8

const (
	AcceptByMode Accept = iota // an access port untagged frames, others all
	AcceptAll                  // an access port also those tagged with its VLAN
	AcceptTagged               // a native VLAN then only leaves untagged
	AcceptUntagged
)

// vlanRules are a VLAN as the stages need it.
type vlanRules struct {
	pvid         uint16 // VLAN of frames without a tag that counts; 0: refused
	native       uint16 // the VLAN that leaves untagged; 0: none does
	tpid         uint16 // the TPID whose tags count; 0: none does
	untaggedOnly bool
	vlans        *port.VLANSet // those the port carries
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

// classify finds the frame's VLAN (802.1Q-2018 clause 6.9.1) and refuses it where
// the port does not carry that (clause 8.6.2: ingress filtering, always on).
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

// retag returns the outer tag with which f leaves by a port, and whether it goes
// in front of the frame's own. Priority and drop eligibility are kept, also those
// of a customer's tag in the service tag that goes in front of it.
func retag(f *port.Frame, to *member) (tag port.Tag, push bool) {
	if f.VLAN != to.native {
		return port.MakeTag(to.tpid, f.Tag.TCI()&^0xfff|f.VLAN), f.Opaque
	}
	if f.Opaque {
		return f.Tag, false
	}
	return 0, false
}

// wouldHop tells whether f, leaving a port without a VLAN's tag, would show there
// a tag that the receiver takes for one: its own opaque one, or one that stood
// behind the tag it came with. So a double tag leads nowhere.
func wouldHop(f *port.Frame, to *member) bool {
	if f.VLAN != to.native || !f.Tag.Present() || to.tpid == 0 {
		return false
	}
	if f.Opaque {
		return f.Tag.TPID() == to.tpid
	}
	return binary.BigEndian.Uint16(f.Data[12:]) == to.tpid
}
