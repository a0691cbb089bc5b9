package snoop

import "github.com/vswitch/vswitch/internal/feature"

var memberships = feature.Metric{Name: "vswitch_mdb_groups",
	Help: "Memberships of ports in multicast groups."}

// Collect implements feature.Collected.
func (sn *snooping) Collect(add feature.Add) {
	if sn.core != nil {
		add(&memberships, float64(sn.core.Memberships()))
	}
}
