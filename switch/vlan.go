package vswitch

import (
	"encoding/binary"

	"github.com/vswitch/vswitch/port"
)

// vlanRules is a port.VLAN in the form that the stages need.
type vlanRules struct {
	pvid         uint16 // VLAN of frames without a recognised tag; 0: refused
	native       uint16 // the VLAN that leaves untagged; 0: none
	tpid         uint16 // the TPID of recognised tags; 0: none
	untaggedOnly bool
	vlans        *port.VLANSet // the VLANs the port carries
}

func resolveVLAN(v *port.VLAN) (vlanRules, error) {
	for _, vid := range []uint16{v.Access, v.QinQ, v.Native} {
		if vid > port.MaxVID {
			return vlanRules{}, port.CheckVID(int(vid))
		}
	}
	if err := v.Check(); err != nil {
		return vlanRules{}, err
	}
	carried := v.Carried()
	r := vlanRules{pvid: v.Untagged(), native: v.Untagged(), vlans: &carried}
	switch {
	case v.Transparent():
	case v.TrunkTPID != 0:
		r.tpid = uint16(v.TrunkTPID)
	default:
		r.tpid = port.TPIDCustomer
	}
	switch v.Accept {
	case port.AcceptTagged:
		r.pvid = 0
	case port.AcceptUntagged:
		r.untaggedOnly = true
	case "":
		r.untaggedOnly = v.Access != 0
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
