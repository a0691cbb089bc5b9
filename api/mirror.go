package api

import (
	"context"
	"net/http"
	"net/url"
)

// Mirror copies frames of ports or VLANs to a port or into a VLAN: either To or ToVLAN. The
// original frames are forwarded unchanged.
type Mirror struct {
	Name      string   `json:"name" help:"of the mirror"`
	From      []string `json:"from,omitempty" help:"ports to copy from"`
	FromVLAN  string   `json:"from_vlan,omitempty" help:"VLANs to copy from on all ports, such as 10,20-29"`
	Direction string   `json:"direction,omitempty" help:"seen from the switch: in, out, both (or empty)"`
	To        string   `json:"to,omitempty" help:"a port, which takes no other part in switching"`
	ToVLAN    uint16   `json:"to_vlan,omitempty" help:"a VLAN, on every port that carries it tagged"`
	SnapLen   int      `json:"snaplen,omitempty" help:"bytes to copy of each frame; 0: all"`
	Filter    string   `json:"filter,omitempty" help:"frames to copy; empty: all"`
}

// Mirrors returns all mirrors by name.
func (c *Client) Mirrors(ctx context.Context) (mirrors []Mirror, err error) {
	err = c.Do(ctx, http.MethodGet, "/v1/mirrors", nil, &mirrors)
	return mirrors, err
}

// AddMirror adds a mirror.
func (c *Client) AddMirror(ctx context.Context, req Mirror) (m Mirror, err error) {
	err = c.Do(ctx, http.MethodPost, "/v1/mirrors", req, &m)
	return m, err
}

// DelMirror removes a mirror.
func (c *Client) DelMirror(ctx context.Context, name string) error {
	return c.Do(ctx, http.MethodDelete, "/v1/mirrors/"+url.PathEscape(name), nil, nil)
}
