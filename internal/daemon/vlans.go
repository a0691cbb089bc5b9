package daemon

import (
	"github.com/vswitch/vswitch/api"
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

// listVLANs returns which ports carry which VLANs.
func (m *manager) listVLANs() []api.VLANMembers {
	var named port.VLANSet
	named.Add(defaultVLAN)
	ports := m.sorted()
	carried := make([]port.VLANSet, len(ports))
	for i, p := range ports {
		carried[i] = p.vlans()
		for j := range named {
			named[j] |= carried[i][j]
		}
	}
	all := make([]api.VLANMembers, 0, named.Len())
	for vid := range named.All() {
		v := api.VLANMembers{VLAN: vid, Untagged: []string{}, Tagged: []string{}}
		for i, p := range ports {
			switch c := p.sw.Config().VLAN; {
			case !carried[i].Has(vid):
			case c.Mode == vswitch.Trunk && c.VID != vid:
				v.Tagged = append(v.Tagged, p.spec.Name)
			default:
				v.Untagged = append(v.Untagged, p.spec.Name)
			}
		}
		all = append(all, v)
	}
	return all
}
