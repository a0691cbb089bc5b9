// Package stp has the switch take part in a spanning tree (RSTP, 802.1D-2004 clause 17): it
// runs the machines of internal/proto/stp over the ports. BPDUs, link states and seconds go
// in; port states and BPDUs come out. A port with a station behind it forwards at once, and a
// bridge that speaks there error-disables it.
package stp

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/port"
)

// Settings are the settings of the switch.
type Settings struct {
	STP      bool    `json:"stp,omitempty" help:"take part in a spanning tree (RSTP): ports to networks speak it, other ports are guarded against bridges"`
	Priority *uint16 `json:"stp_priority,omitempty" arg:"N" max:"61440" default:"32768" help:"bridge priority, in steps of 4096; the lowest becomes the root"`
}

const defaultPriority = 32768

// Check returns what is wrong with the settings and how to fix it.
func (s Settings) Check() error {
	switch {
	case s.Priority != nil && *s.Priority%4096 != 0:
		return fmt.Errorf("a switch's priority is a multiple of 4096 up to 61440, not %d", *s.Priority)
	case s.Priority != nil && !s.STP:
		return errors.New("--stp-priority is for a spanning tree; give --stp as well")
	}
	return nil
}

// AfterMerge implements setting.Merged: without a tree there is no priority.
func (s *Settings) AfterMerge(former any, given func(key string) bool) {
	if former.(Settings).STP && !s.STP && !given("stp_priority") {
		s.Priority = nil
	}
}

// PortSettings are the settings of a port. Whether a bridge is behind it is in port.Policy,
// since other features ask for it, too.
type PortSettings struct {
	BPDUGuard  port.OnOff `json:"bpdu_guard,omitempty" arg:"on|off" default:"off where a network is behind the port, else on" help:"spanning tree: error-disable the port when a bridge speaks"`
	RootGuard  bool       `json:"root_guard,omitempty" help:"spanning tree: never accept a root bridge behind the port"`
	BPDUFilter bool       `json:"bpdu_filter,omitempty" help:"spanning tree: neither send nor accept BPDUs"`
	Cost       uint32     `json:"stp_cost,omitempty" arg:"N" max:"200000000" default:"0" help:"spanning tree: path cost; 0 derives it from the speed"`
	Priority   uint8      `json:"stp_priority,omitempty" arg:"N" max:"240" default:"128" help:"spanning tree: priority of the port, in steps of 16"`
}

// Check implements port.Section.
func (s PortSettings) Check(*port.Spec) error {
	if s.Priority%16 != 0 {
		return fmt.Errorf("a port's priority is a multiple of 16 (802.1D-2004 clause 9.2.7), not %d", s.Priority)
	}
	return nil
}

// Feature describes the spanning tree.
var Feature = feature.Feature{
	Name:   "stp",
	Help:   "take part in a spanning tree",
	Off:    "spanning tree is off; turn it on with `vswitch set --stp=on`",
	Switch: Settings{},
	Port:   PortSettings{},
	On:     func(s any) bool { return s.(Settings).STP },
	New:    func(h feature.Host, s any) (feature.Instance, error) { return start(h, s.(Settings)) },
	Routes: []feature.Route{{
		Method: "GET", Path: "/v1/stp", ID: "getSTP", Help: "The spanning tree, of a switch that takes part in one", Answer: api.STP{},
		Handle: func(i feature.Instance, _ *http.Request) (any, error) { return i.(*tree).describe(), nil },
	}},
	Commands: []feature.Command{show},
}
