package api

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
)

// MDB is the multicast database of snooping (RFC 4541): which port gets which group.
type MDB struct {
	Groups   []Group      `json:"groups" help:"by VLAN, group and port"`
	Routers  []RouterPort `json:"routers" help:"by VLAN, family and port"`
	Queriers []Querier    `json:"queriers" help:"by VLAN and family"`

	// Unregistered says where groups without members go: flood or routers.
	Unregistered string          `json:"unregistered"`
	Messages     SnoopedMessages `json:"messages"`
}

// Group is one port's membership in one group.
type Group struct {
	VLAN  uint16     `json:"vlan"`
	Group netip.Addr `json:"group"`
	Port  string     `json:"port"`
	Type  string     `json:"type" help:"static, or learned from reports"`

	// The rest describes what hosts reported, also for a static group.
	Protocol string       `json:"protocol,omitempty" help:"igmpv1 to igmpv3, mldv1, mldv2"`
	Filter   string       `json:"filter,omitempty" help:"include or exclude the sources"`
	Sources  []netip.Addr `json:"sources,omitempty"`
	ExpiresS int64        `json:"expires_s,omitempty"`
}

// RouterPort is a port that leads to a multicast router; it gets all groups.
type RouterPort struct {
	VLAN     uint16 `json:"vlan"`
	Family   string `json:"family" help:"ipv4, ipv6"`
	Port     string `json:"port"`
	Type     string `json:"type" help:"static, or learned from a router"`
	ExpiresS int64  `json:"expires_s,omitempty" help:"if learned"`
}

// Querier is the querier of a VLAN.
type Querier struct {
	VLAN      uint16 `json:"vlan"`
	Family    string `json:"family"`
	Address   string `json:"address" help:"empty: there is none, and the VLAN floods"`
	Own       bool   `json:"own" help:"it is this switch"`
	Port      string `json:"port,omitempty"`
	Protocol  string `json:"protocol,omitempty"`
	Filtering bool   `json:"filtering" help:"the hosts had time to answer; until then the VLAN floods"`
	ExpiresS  int64  `json:"expires_s,omitempty"`
}

// SnoopedMessages counts the messages of hosts and routers.
type SnoopedMessages struct {
	Queries     uint64            `json:"queries"`
	Reports     uint64            `json:"reports"`
	Leaves      uint64            `json:"leaves"`
	QueriesSent uint64            `json:"queries_sent"`
	Dropped     map[string]uint64 `json:"dropped" help:"by reason, those above 0"`
}

// AddGroup requests a group for a port, whatever its hosts report.
type AddGroup struct {
	Group netip.Addr `json:"group"`
	Port  string     `json:"port"`
	VLAN  uint16     `json:"vlan,omitempty" help:"0 means 1"`
}

// MDB returns the multicast database of a switch with snooping.
func (c *Client) MDB(ctx context.Context) (mdb MDB, err error) {
	err = c.Do(ctx, http.MethodGet, "/v1/mdb", nil, &mdb)
	return mdb, err
}

// AddGroup adds a static group.
func (c *Client) AddGroup(ctx context.Context, req AddGroup) (g Group, err error) {
	err = c.Do(ctx, http.MethodPost, "/v1/mdb", req, &g)
	return g, err
}

// DelGroup removes a static group from a port. VLAN 0 means 1.
func (c *Client) DelGroup(ctx context.Context, group netip.Addr, port string, vlan uint16) error {
	path := "/v1/mdb/" + url.PathEscape(group.String()) + "/" + url.PathEscape(port)
	if vlan != 0 {
		path += "?vlan=" + strconv.Itoa(int(vlan))
	}
	return c.Do(ctx, http.MethodDelete, path, nil, nil)
}
