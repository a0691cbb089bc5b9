package stp

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/internal/feature/featuretest"
	"github.com/vswitch/vswitch/internal/proto/stp"
	"github.com/vswitch/vswitch/port"
)

func TestPortConfig(t *testing.T) {
	for name, c := range map[string]struct {
		station bool
		policy  port.Policy
		set     PortSettings
		want    stp.PortConfig
	}{
		"station":         {true, port.Policy{}, PortSettings{}, stp.PortConfig{Priority: 128, AdminEdge: true, AutoEdge: true, BPDUGuard: true}},
		"bridge":          {false, port.Policy{}, PortSettings{}, stp.PortConfig{Priority: 128, AutoEdge: true, Speed: 1e10}},
		"station, auto":   {true, port.Policy{Edge: "auto"}, PortSettings{BPDUGuard: "off"}, stp.PortConfig{Priority: 128, AutoEdge: true}},
		"station, off":    {true, port.Policy{Edge: "off"}, PortSettings{}, stp.PortConfig{Priority: 128, BPDUGuard: true}},
		"bridge, guarded": {false, port.Policy{Edge: "on"}, PortSettings{BPDUGuard: "on", RootGuard: true, BPDUFilter: true}, stp.PortConfig{Priority: 128, AdminEdge: true, AutoEdge: true, BPDUGuard: true, RootGuard: true, BPDUFilter: true, Speed: 1e10}},
		"numbers":         {false, port.Policy{}, PortSettings{Cost: 9, Priority: 32}, stp.PortConfig{PathCost: 9, Priority: 32, AutoEdge: true, Speed: 1e10}},
	} {
		spec := port.Spec{Name: "p0", Policy: c.policy, Sections: []any{c.set}}
		p := featuretest.New(t).Add(t, spec, c.station)
		p.LinkSpeed = 1e10
		if diff := cmp.Diff(c.want, portConfig(p)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestCheck(t *testing.T) {
	four, five := uint16(4096), uint16(5)
	for _, c := range []struct {
		set  Settings
		want string
	}{
		{Settings{}, ""},
		{Settings{STP: true, Priority: &four}, ""},
		{Settings{STP: true, Priority: &five}, "a multiple of 4096"},
		{Settings{Priority: &four}, "give --stp as well"},
	} {
		if err := c.set.Check(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.set, err, c.want)
		}
	}
	for priority, ok := range map[uint8]bool{0: true, 16: true, 240: true, 8: false, 17: false} {
		if err := (PortSettings{Priority: priority}).Check(nil); (err == nil) != ok {
			t.Errorf("priority %d: %v", priority, err)
		}
	}
}
