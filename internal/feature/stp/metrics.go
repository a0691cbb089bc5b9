package stp

import "github.com/vswitch/vswitch/internal/feature"

var topologyChanges = feature.Metric{Name: "vswitch_stp_topology_changes_total",
	Help: "Changes of the spanning tree's topology, as far as this bridge saw them."}

// Collect implements feature.Collected.
func (t *tree) Collect(add feature.Add) {
	add(&topologyChanges, float64(t.bridge.Status().TopologyChanges))
}
