package daemon

import (
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// vlans returns the VLANs that a port carries.
func (p *managed) vlans() port.VLANSet { return vlansOf(p.sw.Config().VLAN) }

func vlansOf(v vswitch.VLAN) port.VLANSet {
	set := port.VLANSet{}
	if v.Mode == vswitch.Trunk {
		set = v.Allowed
	} else if v.VID == 0 {
		v.VID = defaultVLAN
	}
	if v.VID != 0 {
		set.Add(v.VID)
	}
	return set
}
