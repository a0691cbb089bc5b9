package evpn

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/proto/evpn"
)

var routes = []feature.Route{
	{
		Method: "GET", Path: "/v1/evpn/neighbors", ID: "listEVPNNeighbors", Help: "The BGP neighbors of EVPN by address", Answer: []api.EVPNNeighbor{},
		Handle: func(i feature.Instance, _ *http.Request) (any, error) { return i.(*instance).list(), nil },
	},
	{
		Method: "POST", Path: "/v1/evpn/neighbors", ID: "addEVPNNeighbor", Help: "Exchange stations with a BGP neighbor",
		Request: api.AddEVPNNeighbor{}, Answer: api.EVPNNeighbor{}, Change: true,
		Handle: func(i feature.Instance, r *http.Request) (any, error) {
			req, err := feature.Body[api.AddEVPNNeighbor](r)
			if err != nil {
				return nil, err
			}
			return i.(*instance).add(req)
		},
	},
	{
		Method: "DELETE", Path: "/v1/evpn/neighbors/{address}", ID: "delEVPNNeighbor", Help: "End the exchange with a BGP neighbor", Change: true,
		Handle: func(i feature.Instance, r *http.Request) (any, error) {
			a, err := netip.ParseAddr(r.PathValue("address"))
			if err != nil {
				return nil, api.Errorf(api.CodeInvalid, "%q is not an IP address; write it as 192.0.2.2 or 2001:db8::2", r.PathValue("address"))
			}
			return nil, i.(*instance).remove(a)
		},
	},
	{
		Method: "GET", Path: "/v1/evpn/routes", ID: "listEVPNRoutes", Help: "The routes of the switch and of its neighbors", Answer: []api.EVPNRoute{},
		Serve: func(i feature.Instance, w http.ResponseWriter, r *http.Request) {
			serve(i.(*instance), w, r, i.(*instance).routes, compareRoutes)
		},
	},
	{
		Method: "GET", Path: "/v1/evpn/macs", ID: "listEVPNMACs", Help: "The stations that EVPN knows, by VNI and address", Answer: []api.EVPNMAC{},
		Serve: func(i feature.Instance, w http.ResponseWriter, r *http.Request) {
			serve(i.(*instance), w, r, i.(*instance).macs, compareMACs)
		},
	},
}

// serve answers with what list returns. There may be many, so they are sorted and written
// without the turn.
func serve[T any](i *instance, w http.ResponseWriter, r *http.Request, list func() []T, compare func(a, b T) int) {
	feature.ServeList(w, r, func() (all []T, err error) {
		if !i.host.Do(func() { all = append(all, list()...) }) {
			return nil, api.Errorf(api.CodeStopping, "the daemon is about to end")
		}
		slices.SortFunc(all, compare)
		return all, nil
	})
}

func compareMACs(a, b api.EVPNMAC) int {
	return cmp.Or(cmp.Compare(a.VNI, b.VNI), cmp.Compare(a.MAC, b.MAC))
}

func compareRoutes(a, b api.EVPNRoute) int {
	return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.VNI, b.VNI), cmp.Compare(a.MAC, b.MAC), a.IP.Compare(b.IP), a.VTEP.Compare(b.VTEP), a.Neighbor.Compare(b.Neighbor), cmp.Compare(a.RD, b.RD))
}

// macs returns the stations, in no order.
func (i *instance) macs() (all []api.EVPNMAC) {
	f := i.fabric
	if f == nil {
		return nil
	}
	names := make(map[uint16]string)
	for p := range i.host.Ports() {
		names[p.Number()] = p.Name()
	}
	for s := range f.table.Stations() {
		m := api.EVPNMAC{VNI: uint32(s.VNI), VLAN: f.vlans[s.VNI], MAC: s.MAC, VTEP: s.VTEP, Seq: s.Seq, Sticky: s.Sticky, Held: s.Held, IPs: s.IPs}
		if m.IPs == nil {
			m.IPs = []netip.Addr{}
		}
		if s.VTEP == f.tunnel.VTEP() {
			m.Port = names[s.Port]
		}
		all = append(all, m)
	}
	return all
}

// routes returns the own routes and those of the neighbors, in no order.
func (i *instance) routes() (all []api.EVPNRoute) {
	f := i.fabric
	if f == nil {
		return nil
	}
	for _, r := range f.speaker.Announced() {
		v := viewRoute(&r)
		v.Used = true
		all = append(all, v)
	}
	addresses := make(map[evpn.Peer]netip.Addr)
	for _, n := range i.neighbors {
		addresses[n.peer] = n.Address
	}
	for p := range f.table.Paths() {
		v := viewRoute(&p.Route)
		v.Neighbor, v.Stale, v.Used = addresses[p.Peer], p.Stale, p.Used
		all = append(all, v)
	}
	return all
}

func viewRoute(r *evpn.Route) api.EVPNRoute {
	v := api.EVPNRoute{
		Type: "mac", VNI: uint32(r.Targets[0]), MAC: r.MAC, IP: r.IP, VTEP: r.VTEP, RD: rdText(r.RD),
		Seq: r.Seq, Sticky: r.Sticky, Router: r.Router, Label: uint32(r.Label),
	}
	if r.Kind == evpn.Flood {
		v.Type = "flood"
	}
	return v
}

// rdText writes a route distinguisher as it is usual (RFC 4364 section 4.2).
func rdText(rd evpn.RD) string {
	switch binary.BigEndian.Uint16(rd[:]) {
	case 0:
		return fmt.Sprintf("%d:%d", binary.BigEndian.Uint16(rd[2:]), binary.BigEndian.Uint32(rd[4:]))
	case 1:
		return fmt.Sprintf("%v:%d", netip.AddrFrom4([4]byte(rd[2:])), binary.BigEndian.Uint16(rd[6:]))
	case 2:
		return fmt.Sprintf("%d:%d", binary.BigEndian.Uint32(rd[2:]), binary.BigEndian.Uint16(rd[6:]))
	}
	return fmt.Sprintf("%x", rd[:])
}
