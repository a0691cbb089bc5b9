package api

import (
	"context"
	"net/http"
)

// VLANMembers lists the ports that carry a VLAN.
type VLANMembers struct {
	VLAN     uint16   `json:"vlan"`
	Untagged []string `json:"untagged" help:"ports that send its frames untagged"`
	Tagged   []string `json:"tagged"`
}

// VLANs returns the VLANs that ports carry, and VLAN 1, by number.
func (c *Client) VLANs(ctx context.Context) (vlans []VLANMembers, err error) {
	err = c.Do(ctx, http.MethodGet, "/v1/vlans", nil, &vlans)
	return vlans, err
}
