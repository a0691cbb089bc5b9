package port

import (
	"fmt"
	"slices"
	"strings"
)

// Policy is what the switch does with a port's frames, whatever the port's kind.
// The zero Policy is that of a port that was told nothing.
type Policy struct {
	// At most one of these; none is transparent to tags in VLAN 1.
	Access uint16 `json:"access,omitempty"` // untagged frames of this VLAN
	Trunk  string `json:"trunk,omitempty"`  // tagged frames of these, as 10,20-29
	QinQ   uint16 `json:"qinq,omitempty"`   // all frames, under this service VLAN

	Native    uint16 `json:"native,omitempty"`     // trunk: the VLAN of untagged frames
	TrunkTPID string `json:"trunk_tpid,omitempty"` // trunk: 0x8100 (or empty) or 0x88a8
	Accept    string `json:"accept,omitempty"`     // all, tagged, untagged; empty: access untagged, others all

	Isolated   bool     `json:"isolated,omitempty"`
	Locked     bool     `json:"locked,omitempty"`
	NoLearning bool     `json:"no_learning,omitempty"`
	NoFlood    []string `json:"no_flood,omitempty"` // of broadcast, multicast, unicast

	LearnLimit  int    `json:"learn_limit,omitempty"`
	LearnAction string `json:"learn_action,omitempty"` // forward (or empty), protect, shutdown

	StormBroadcast Rate   `json:"storm_broadcast,omitzero"`
	StormMulticast Rate   `json:"storm_multicast,omitzero"`
	StormUnicast   Rate   `json:"storm_unicast,omitzero"` // unknown unicast
	StormAction    string `json:"storm_action,omitempty"` // drop (or empty), shutdown
	RateIn         Rate   `json:"rate_in,omitzero"`       // policed
	RateOut        Rate   `json:"rate_out,omitzero"`      // shaped

	Edge        string `json:"stp_edge,omitempty"`   // auto, on, off; empty: by the kind
	BPDUGuard   string `json:"bpdu_guard,omitempty"` // on, off; empty: by the kind
	RootGuard   bool   `json:"root_guard,omitempty"`
	BPDUFilter  bool   `json:"bpdu_filter,omitempty"`
	STPCost     uint32 `json:"stp_cost,omitempty"`     // 0: by the link's speed
	STPPriority uint8  `json:"stp_priority,omitempty"` // 0: 128; in steps of 16

	FastLeave  bool `json:"mcast_fast_leave,omitempty"`
	RouterPort bool `json:"mcast_router,omitempty"`
	GroupLimit int  `json:"mcast_limit,omitempty"`

	RouterGuard string `json:"mcast_router_guard,omitempty"` // on, off; auto (or empty): by the kind
}

// FloodClasses are the kinds of frames that NoFlood can name.
var FloodClasses = []string{"broadcast", "multicast", "unicast"}

// Check tells what contradicts itself in p, and how to mend it.
func (p *Policy) Check() error {
	modes := 0
	for _, vid := range []uint16{p.Access, p.QinQ, p.Native} {
		if vid != 0 {
			if err := CheckVID(int(vid)); err != nil {
				return err
			}
		}
	}
	for _, set := range []bool{p.Access != 0, p.Trunk != "", p.QinQ != 0} {
		if set {
			modes++
		}
	}
	if modes > 1 {
		return fmt.Errorf("a port is one of access, trunk and qinq; give one of them")
	}
	if p.Trunk != "" {
		if _, err := ParseVLANSet(p.Trunk); err != nil {
			return err
		}
	} else if p.Native != 0 || p.TrunkTPID != "" {
		return fmt.Errorf("a native VLAN and a TPID belong to a trunk; name the VLANs it carries, such as 10,20-29")
	}
	for _, c := range p.NoFlood {
		if !slices.Contains(FloodClasses, c) {
			return fmt.Errorf("%q is not flooded; name some of %s", c, strings.Join(FloodClasses, ", "))
		}
	}
	for _, c := range []struct {
		name, value string
		of          []string
	}{
		{"tag protocol identifier", p.TrunkTPID, []string{"0x8100", "0x88a8"}},
		{"choice of frames to accept", p.Accept, []string{"all", "tagged", "untagged"}},
		{"learn action", p.LearnAction, []string{"forward", "protect", "shutdown"}},
		{"storm action", p.StormAction, []string{"drop", "shutdown"}},
		{"edge setting", p.Edge, []string{"auto", "on", "off"}},
		{"BPDU guard setting", p.BPDUGuard, []string{"on", "off"}},
		{"router guard setting", p.RouterGuard, []string{"auto", "on", "off"}},
	} {
		if c.value != "" && !slices.Contains(c.of, c.value) {
			return fmt.Errorf("%q is no %s; use %s", c.value, c.name, strings.Join(c.of, ", "))
		}
	}
	switch {
	case p.Accept == "untagged" && p.Trunk != "" && p.Native == 0:
		return fmt.Errorf("a trunk that accepts untagged frames only needs a native VLAN for them")
	case p.Accept == "tagged" && p.Trunk == "":
		return fmt.Errorf("only a trunk can accept tagged frames alone; name the VLANs it carries")
	case p.LearnLimit < 0 || p.GroupLimit < 0:
		return fmt.Errorf("a limit below 0 makes no sense; use 0 for none")
	case p.RouterPort && p.RouterGuard == "on":
		return fmt.Errorf("a port that leads to a router is not guarded against routers; leave out one of --mcast-router and --mcast-router-guard")
	case p.STPPriority%16 != 0:
		return fmt.Errorf("a port's priority is a multiple of 16 (802.1D-2004 clause 9.2.7), not %d", p.STPPriority)
	case p.STPCost > 200_000_000:
		return fmt.Errorf("a path cost is 1 to 200000000 (802.1D-2004 table 17-3), not %d", p.STPCost)
	}
	return nil
}
