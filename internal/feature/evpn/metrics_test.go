package evpn

import (
	"testing"

	"github.com/vswitch/vswitch/internal/bgp"
	"github.com/vswitch/vswitch/internal/feature"
)

// Each neighbor is counted in one state, and all states are reported.
func TestMetrics(t *testing.T) {
	r := newRig(t, Settings{})
	r.hear(flood(vtep2), route(there, vtep2, 0))
	states, routes := make(map[string]float64), -1.0
	r.do(func() {
		r.i.Collect(func(m *feature.Metric, value float64, labels ...string) {
			switch m {
			case &neighborCount:
				states[labels[0]] = value
			case &routeCount:
				routes = value
			}
		})
	})
	sum := 0.0
	for _, s := range bgp.States {
		n, is := states[string(s)]
		if !is {
			t.Errorf("no number of neighbors that are %s", s)
		}
		sum += n
	}
	if sum != 1 || len(states) != len(bgp.States) || routes != 2 {
		t.Errorf("neighbors %v, %v routes; want one neighbor with two routes", states, routes)
	}
}
