package api

import "github.com/vswitch/vswitch/port"

// SetPort changes settings of a port; what is nil stays. Nothing to change brings
// back a port that a guard shut down, as any change does.
type SetPort struct {
	Owner     *string   `json:"owner,omitempty"`
	Group     *string   `json:"group,omitempty"`
	MTU       *int      `json:"mtu,omitempty"`
	Address   *[]string `json:"address,omitempty"`
	Netns     *string   `json:"netns,omitempty"`
	Exclusive *bool     `json:"exclusive,omitempty"`
	Poll      *string   `json:"poll,omitempty"`

	// A mode that is chosen by one of the first three replaces the former one
	// with all that belonged to it; all three of them 0 and empty is none.
	Access    *uint16 `json:"access,omitempty"`
	Trunk     *string `json:"trunk,omitempty"`
	QinQ      *uint16 `json:"qinq,omitempty"`
	Native    *uint16 `json:"native,omitempty"`
	TrunkTPID *string `json:"trunk_tpid,omitempty"`
	Accept    *string `json:"accept,omitempty"`

	Isolated       *bool      `json:"isolated,omitempty"`
	Locked         *bool      `json:"locked,omitempty"`
	NoLearning     *bool      `json:"no_learning,omitempty"`
	NoFlood        *[]string  `json:"no_flood,omitempty"`
	LearnLimit     *int       `json:"learn_limit,omitempty"`
	LearnAction    *string    `json:"learn_action,omitempty"`
	StormBroadcast *port.Rate `json:"storm_broadcast,omitempty"`
	StormMulticast *port.Rate `json:"storm_multicast,omitempty"`
	StormUnicast   *port.Rate `json:"storm_unicast,omitempty"`
	StormAction    *string    `json:"storm_action,omitempty"`
	RateIn         *port.Rate `json:"rate_in,omitempty"`
	RateOut        *port.Rate `json:"rate_out,omitempty"`

	Edge        *string `json:"stp_edge,omitempty"`
	BPDUGuard   *string `json:"bpdu_guard,omitempty"`
	RootGuard   *bool   `json:"root_guard,omitempty"`
	BPDUFilter  *bool   `json:"bpdu_filter,omitempty"`
	STPCost     *uint32 `json:"stp_cost,omitempty"`
	STPPriority *uint8  `json:"stp_priority,omitempty"`
	FastLeave   *bool   `json:"mcast_fast_leave,omitempty"`
	RouterPort  *bool   `json:"mcast_router,omitempty"`
	GroupLimit  *int    `json:"mcast_limit,omitempty"`
	RouterGuard *string `json:"mcast_router_guard,omitempty"`
}

// Apply returns spec with the changes made.
func (s SetPort) Apply(spec port.Spec) port.Spec {
	set(&spec.Owner, s.Owner)
	set(&spec.Group, s.Group)
	set(&spec.MTU, s.MTU)
	set(&spec.Address, s.Address)
	set(&spec.Netns, s.Netns)
	set(&spec.Exclusive, s.Exclusive)
	set(&spec.Poll, s.Poll)
	s.applyVLAN(&spec.Policy)
	set(&spec.Isolated, s.Isolated)
	set(&spec.Locked, s.Locked)
	set(&spec.NoLearning, s.NoLearning)
	set(&spec.NoFlood, s.NoFlood)
	set(&spec.LearnLimit, s.LearnLimit)
	set(&spec.LearnAction, s.LearnAction)
	set(&spec.StormBroadcast, s.StormBroadcast)
	set(&spec.StormMulticast, s.StormMulticast)
	set(&spec.StormUnicast, s.StormUnicast)
	set(&spec.StormAction, s.StormAction)
	set(&spec.RateIn, s.RateIn)
	set(&spec.RateOut, s.RateOut)
	set(&spec.Edge, s.Edge)
	set(&spec.BPDUGuard, s.BPDUGuard)
	set(&spec.RootGuard, s.RootGuard)
	set(&spec.BPDUFilter, s.BPDUFilter)
	set(&spec.STPCost, s.STPCost)
	set(&spec.STPPriority, s.STPPriority)
	set(&spec.FastLeave, s.FastLeave)
	set(&spec.RouterPort, s.RouterPort)
	set(&spec.GroupLimit, s.GroupLimit)
	set(&spec.RouterGuard, s.RouterGuard)
	return spec
}

// applyVLAN changes how a port takes part in VLANs. What belonged to the mode that
// goes must not turn up in the one that comes.
func (s SetPort) applyVLAN(p *port.Policy) {
	was := vlanMode(p)
	switch {
	case given(s.Access):
		p.Trunk, p.QinQ = "", 0
	case given(s.Trunk):
		p.Access, p.QinQ = 0, 0
	case given(s.QinQ):
		p.Access, p.Trunk = 0, ""
	}
	set(&p.Access, s.Access)
	set(&p.Trunk, s.Trunk)
	set(&p.QinQ, s.QinQ)
	if vlanMode(p) != was {
		p.Native, p.TrunkTPID, p.Accept = 0, "", ""
	}
	set(&p.Native, s.Native)
	set(&p.TrunkTPID, s.TrunkTPID)
	set(&p.Accept, s.Accept)
}

func vlanMode(p *port.Policy) [3]bool { return [3]bool{p.Access != 0, p.Trunk != "", p.QinQ != 0} }

// given tells whether a setting is there and is not to be taken back.
func given[T comparable](value *T) bool { return value != nil && *value != *new(T) }

func set[T any](field, value *T) {
	if value != nil {
		*field = *value
	}
}
