package api

import (
	"context"
	"net/http"
)

// STP describes the spanning tree as one switch sees it (802.1D-2004 clause 17). Bridge
// identifiers are priority and address in hexadecimal, as 8000.025400123456.
type STP struct {
	Bridge   string `json:"bridge"`
	Root     string `json:"root"`
	RootCost uint32 `json:"root_cost"`
	RootPort string `json:"root_port" help:"empty: this switch is the root"`

	HelloTimeS    int `json:"hello_time_s" help:"its own"`
	MaxAgeS       int `json:"max_age_s" help:"the root's, like the next"`
	ForwardDelayS int `json:"forward_delay_s"`

	TopologyChanges      uint64 `json:"topology_changes"`
	SinceTopologyChangeS uint64 `json:"since_topology_change_s" help:"since the start if there was none"`

	Ports []STPPort `json:"ports"`
}

// STPPort describes one port of it.
type STPPort struct {
	Port     string `json:"port"`
	Role     string `json:"role" help:"disabled, root, designated, alternate, backup"`
	State    string `json:"state" help:"discarding, learning, forwarding"`
	Cost     uint32 `json:"cost"`
	Priority uint8  `json:"priority"`
	Edge     bool   `json:"edge" help:"no bridge is heard there"`
	Protocol string `json:"protocol" help:"rstp, or stp if the neighbour supports only that"`

	// Blocked is what keeps the port from forwarding besides its role: bpdu_guard,
	// root_guard, or loop if it receives its own BPDUs.
	Blocked          string `json:"blocked,omitempty" help:"Sent by the designated port of the link, which may be this port."`
	DesignatedBridge string `json:"designated_bridge"`
	DesignatedPort   string `json:"designated_port" help:"priority and number in hexadecimal"`
	DesignatedCost   uint32 `json:"designated_cost"`

	RX      BPDUs  `json:"rx"`
	TX      BPDUs  `json:"tx"`
	Invalid uint64 `json:"invalid" help:"frames to the bridges' address that are no BPDU"`
}

// BPDUs counts frames of the protocol.
type BPDUs struct {
	Config uint64 `json:"config" help:"of STP"`
	TCN    uint64 `json:"tcn" help:"of STP"`
	RST    uint64 `json:"rst"`
}

// STP returns the spanning tree of a switch that runs one.
func (c *Client) STP(ctx context.Context) (tree STP, err error) {
	err = c.Do(ctx, http.MethodGet, "/v1/stp", nil, &tree)
	return tree, err
}
