package api

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"

	"github.com/vswitch/vswitch/port"
)

// AddEVPNNeighbor adds a BGP neighbor of EVPN.
type AddEVPNNeighbor struct {
	Address  netip.Addr `json:"address" help:"of the neighbor"`
	AS       uint32     `json:"as" help:"its autonomous system"`
	Password string     `json:"password,omitempty" help:"of TCP MD5 signatures"`
	Source   netip.Addr `json:"source,omitzero" help:"own address of the session; the system chooses one if it is not given"`
	Port     uint16     `json:"port,omitempty" help:"its TCP port; 0: 179"`
	BFD      bool       `json:"bfd,omitempty" help:"whether BFD watches it"`
	HoldS    int64      `json:"hold_s,omitempty" help:"seconds of silence after which it counts as dead; 0: 9"`
}

// EVPNNeighbor is a BGP neighbor of EVPN and its session.
type EVPNNeighbor struct {
	Address  netip.Addr `json:"address"`
	AS       uint32     `json:"as"`
	Password bool       `json:"password" help:"whether it has one"`
	Source   netip.Addr `json:"source,omitzero"`
	Port     uint16     `json:"port"`
	State    string     `json:"state" help:"idle, connect, opensent, openconfirm, established"`
	SinceS   int64      `json:"since_s" help:"seconds in this state"`
	RouterID netip.Addr `json:"router_id,omitzero" help:"while established"`
	HoldS    int64      `json:"hold_s" help:"hold time in seconds, as agreed while established"`
	RestartS int64      `json:"restart_s,omitempty" help:"for how many seconds its routes outlive its connection"`
	Routes   int        `json:"routes" help:"received and valid"`
	Received uint64     `json:"received" help:"update messages"`
	Sent     uint64     `json:"sent" help:"update messages"`
	BFD      string     `json:"bfd,omitempty" help:"state of its BFD session if it has one: down, init, up"`
	Problem  string     `json:"problem,omitempty" help:"why there is no session, or no BFD, or why routes are left out"`
}

// EVPNRoute is a route of EVPN.
type EVPNRoute struct {
	Type     string     `json:"type" help:"mac or flood"`
	VNI      uint32     `json:"vni" help:"0: none of its targets is a VNI"`
	MAC      port.MAC   `json:"mac,omitzero"`
	IP       netip.Addr `json:"ip,omitzero"`
	VTEP     netip.Addr `json:"vtep"`
	RD       string     `json:"rd" help:"route distinguisher"`
	Seq      uint32     `json:"seq,omitempty" help:"MAC mobility sequence number"`
	Sticky   bool       `json:"sticky,omitempty"`
	Router   bool       `json:"router,omitempty"`
	Neighbor netip.Addr `json:"neighbor,omitzero" help:"that announces it; not given: this switch does"`
	Stale    bool       `json:"stale,omitempty" help:"kept while the neighbor restarts"`
	Used     bool       `json:"used" help:"this switch has the VNI"`
	Label    uint32     `json:"label,omitempty" help:"VNI that frames to its host need and that none of its targets names: it is not used"`
}

// EVPNMAC is a station as EVPN knows it.
type EVPNMAC struct {
	VNI    uint32       `json:"vni"`
	VLAN   uint16       `json:"vlan"`
	MAC    port.MAC     `json:"mac"`
	Port   string       `json:"port,omitempty" help:"where it is, if it is here"`
	VTEP   netip.Addr   `json:"vtep" help:"of the host where it is"`
	Seq    uint32       `json:"seq,omitempty" help:"MAC mobility sequence number"`
	Sticky bool         `json:"sticky,omitempty" help:"it must not move"`
	Held   bool         `json:"held,omitempty" help:"a duplicate that stays there for a while"`
	IPs    []netip.Addr `json:"ips" help:"its known addresses"`
}

// EVPNNeighbors returns the BGP neighbors by address.
func (c *Client) EVPNNeighbors(ctx context.Context) (all []EVPNNeighbor, err error) {
	err = c.Do(ctx, http.MethodGet, "/v1/evpn/neighbors", nil, &all)
	return all, err
}

// AddEVPNNeighbor adds a BGP neighbor.
func (c *Client) AddEVPNNeighbor(ctx context.Context, req AddEVPNNeighbor) (n EVPNNeighbor, err error) {
	err = c.Do(ctx, http.MethodPost, "/v1/evpn/neighbors", req, &n)
	return n, err
}

// DelEVPNNeighbor removes a BGP neighbor.
func (c *Client) DelEVPNNeighbor(ctx context.Context, address netip.Addr) error {
	return c.Do(ctx, http.MethodDelete, "/v1/evpn/neighbors/"+url.PathEscape(address.String()), nil, nil)
}

// EVPNRoutes returns the routes of the switch and of its neighbors.
func (c *Client) EVPNRoutes(ctx context.Context) (all []EVPNRoute, err error) {
	err = c.Do(ctx, http.MethodGet, "/v1/evpn/routes", nil, &all)
	return all, err
}

// EVPNMACs returns the stations by VNI and address.
func (c *Client) EVPNMACs(ctx context.Context) (all []EVPNMAC, err error) {
	err = c.Do(ctx, http.MethodGet, "/v1/evpn/macs", nil, &all)
	return all, err
}
