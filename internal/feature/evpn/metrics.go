package evpn

import (
	"github.com/vswitch/vswitch/internal/bgp"
	"github.com/vswitch/vswitch/internal/feature"
)

// Neighbors are counted, since a label has no address.
var (
	neighborCount = feature.Metric{Name: "vswitch_evpn_neighbors", Labels: []string{"state"},
		Help: "BGP neighbors by the state of their sessions."}
	routeCount = feature.Metric{Name: "vswitch_evpn_routes",
		Help: "Valid routes that neighbors announce."}
)

// Collect implements feature.Collected.
func (i *instance) Collect(add feature.Add) {
	states, routes := make(map[bgp.State]int), 0
	for _, n := range i.list() {
		states[bgp.State(n.State)]++
		routes += n.Routes
	}
	for _, s := range bgp.States { // those of which there are none, too: alerts start from zero
		add(&neighborCount, float64(states[s]), string(s))
	}
	add(&routeCount, float64(routes))
}
