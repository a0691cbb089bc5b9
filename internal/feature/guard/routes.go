package guard

import (
	"encoding/hex"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
	proto "github.com/vswitch/vswitch/internal/proto/guard"
	"github.com/vswitch/vswitch/port"
)

// Binding is an address that a guarded port may use.
type Binding struct {
	Port     string       `json:"port"`
	VLAN     uint16       `json:"vlan"` // 0: every VLAN of the port
	MAC      port.MAC     `json:"mac"`
	Address  string       `json:"address"` // or a prefix
	Source   proto.Source `json:"source"`
	State    string       `json:"state"`
	ExpiresS *int64       `json:"expires_s,omitempty"` // in seconds; absent: never
	Server   string       `json:"server,omitempty"`
	HeardS   *int64       `json:"heard_s,omitempty"` // seconds ago; absent: never, or it is not learned
}

// address names an address of a port.
type address struct {
	Address string   `json:"address"`
	MAC     port.MAC `json:"mac,omitzero"` // the zero MAC: the port's first
	VLAN    uint16   `json:"vlan,omitempty"`
}

// removed is how many bindings a call removed.
type removed struct {
	Removed int `json:"removed"`
}

// exported are the bindings of a port on their way to another switch.
type exported struct {
	Written int64       `json:"written"` // in seconds since 1970
	Entries []keptEntry `json:"entries"`
}

// question is a frame in hexadecimal digits.
type question struct {
	Frame string `json:"frame"`
}

// verdict is what becomes of a frame.
type verdict struct {
	Pass   bool   `json:"pass"`
	Drop   string `json:"drop,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// handle makes a route's Handle of a method for the port in its path.
func handle(f func(*guard, feature.Port, *http.Request) (any, error)) func(feature.Instance, *http.Request) (any, error) {
	return func(i feature.Instance, r *http.Request) (any, error) {
		g := i.(*guard)
		p, err := g.find(r.PathValue("port"))
		if err != nil {
			return nil, err
		}
		return f(g, p, r)
	}
}

// routes are the calls of the API.
var routes = []feature.Route{
	{
		Method: "GET", Path: "/v1/guard", Help: "List the addresses of all guarded ports", Answer: []Binding{},
		Handle: func(i feature.Instance, _ *http.Request) (any, error) { return i.(*guard).list(""), nil },
	}, {
		Method: "GET", Path: "/v1/guards", Help: "Count what happened to the addresses of guarded ports", Query: which{}, Answer: []Counters{},
		Handle: func(i feature.Instance, r *http.Request) (any, error) { return i.(*guard).counters(r) },
	}, {
		Method: "GET", Path: "/v1/guard/{port}", Help: "List the addresses of a guarded port", Answer: []Binding{},
		Handle: handle(func(g *guard, p feature.Port, _ *http.Request) (any, error) { return g.list(p.Name()), nil }),
	}, {
		Method: "POST", Path: "/v1/guard/{port}/add", Help: "Give a guarded port an address", Request: address{}, Change: true,
		Handle: handle((*guard).add),
	}, {
		Method: "POST", Path: "/v1/guard/{port}/del", Help: "Take a learned or added address from a guarded port", Request: address{}, Answer: removed{}, Change: true,
		Handle: handle((*guard).del),
	}, {
		Method: "POST", Path: "/v1/guard/{port}/flush", Help: "Take all learned addresses from a guarded port", Answer: removed{}, Change: true,
		Handle: handle(func(g *guard, p feature.Port, _ *http.Request) (any, error) {
			delete(g.lost, p.Number())
			return removed{g.table.Delete(p.Number(), netip.Addr{})}, nil
		}),
	}, {
		Method: "GET", Path: "/v1/guard/{port}/export", Help: "The learned and added addresses of a guarded port, for another switch", Answer: exported{},
		Handle: handle((*guard).export),
	}, {
		Method: "POST", Path: "/v1/guard/{port}/import", Help: "Give a guarded port the addresses that it had behind another switch", Request: exported{}, Answer: []Binding{}, Change: true,
		Handle: handle((*guard).imports),
	}, {
		Method: "POST", Path: "/v1/guard/{port}/why", Help: "What the guard would do with a frame from a port, without any effect", Request: question{}, Answer: verdict{},
		Handle: handle((*guard).why),
	},
}

// find returns a guarded port.
func (g *guard) find(name string) (feature.Port, error) {
	p, err := feature.FindPort(g.host, name)
	if err == nil && g.ports[p.Number()] == nil {
		return nil, api.Errorf(api.CodeInvalid, "port %s is not guarded; `vswitch set-port %s --guard on` guards it", name, name)
	}
	return p, err
}

// list returns the bindings of a port, or of all if name is empty.
func (g *guard) list(name string) []Binding {
	all := []Binding{}
	now := time.Now()
	for n, x := range g.ports {
		if name == "" || x.port.Name() == name {
			g.table.Listen(n)
		}
	}
	for _, b := range g.table.Bindings() {
		if name != "" && b.Port != name {
			continue
		}
		a := Binding{Port: b.Port, VLAN: b.VLAN, MAC: b.MAC, Address: b.Prefix.String(), Source: b.Source, State: stateOf(b.Bound)}
		if b.Prefix.IsSingleIP() {
			a.Address = b.Prefix.Addr().String()
		}
		if !b.Expiry.IsZero() {
			s := max(0, int64(b.Expiry.Sub(now).Seconds()))
			a.ExpiresS = &s
		}
		if b.Server.IsValid() {
			a.Server = b.Server.String()
		}
		if !b.Heard.IsZero() {
			s := max(0, int64(now.Sub(b.Heard).Seconds()))
			a.HeardS = &s
		}
		all = append(all, a)
	}
	return all
}

// read reads a request's address.
func (g *guard) read(p feature.Port, r *http.Request) (a address, ip netip.Addr, err error) {
	if a, err = feature.Body[address](r); err != nil {
		return a, ip, err
	}
	if ip, err = netip.ParseAddr(a.Address); err != nil || ip.Zone() != "" {
		return a, ip, api.Errorf(api.CodeInvalid, "%q is no address; write one such as 192.0.2.10 or 2001:db8::10", a.Address)
	}
	return a, ip.Unmap(), nil
}

func (g *guard) add(p feature.Port, r *http.Request) (any, error) {
	a, ip, err := g.read(p, r)
	if err != nil {
		return nil, err
	}
	c, _, err := g.configOf(p)
	if err != nil {
		return nil, api.Errorf(api.CodeFailed, "%w", err)
	}
	if a.MAC == 0 {
		a.MAC = c.MACs[0]
	}
	if a.VLAN == 0 {
		if c.VLANs.Len() != 1 {
			return nil, api.Errorf(api.CodeInvalid, "port %s carries several VLANs; name one with --vlan", p.Name())
		}
		for vid := range c.VLANs.All() {
			a.VLAN = vid
		}
	}
	if err := g.table.Add(p.Number(), a.VLAN, a.MAC, ip); err != nil {
		return nil, api.Errorf(api.CodeInvalid, "%w", err)
	}
	return nil, nil
}

func (g *guard) del(p feature.Port, r *http.Request) (any, error) {
	_, ip, err := g.read(p, r)
	if err != nil {
		return nil, err
	}
	delete(g.lost, p.Number())
	n := g.table.Delete(p.Number(), ip)
	if n == 0 {
		return nil, api.Errorf(api.CodeNotFound, "port %s has not learned %v, and nobody added it; what is in its settings goes with `set-port`", p.Name(), ip)
	}
	return removed{n}, nil
}

func (g *guard) export(p feature.Port, _ *http.Request) (any, error) {
	now := time.Now()
	e := exported{Written: now.Unix(), Entries: []keptEntry{}}
	for _, b := range g.table.Bindings() {
		if b.Port == p.Name() && b.Learned && b.Bound {
			e.Entries = append(e.Entries, keep(&b, now, now))
		}
	}
	return e, nil
}

func (g *guard) imports(p feature.Port, r *http.Request) (any, error) {
	e, err := feature.Body[exported](r)
	if err != nil {
		return nil, err
	}
	var all []proto.Binding
	for i := range e.Entries {
		// Leases last as long as they would have, whatever the clocks of the two hosts say.
		b, err := e.Entries[i].binding(left(e.Written, time.Now()))
		if err != nil {
			return nil, api.Errorf(api.CodeInvalid, "the bindings are not understood: %w", err)
		}
		all = append(all, b)
	}
	g.table.Restore(p.Number(), all...)
	if len(all) != 0 && !g.hasAny(p, all) {
		return nil, api.Errorf(api.CodeInvalid, "port %s may have none of these %d addresses: their MAC addresses or VLANs are not the port's, it does not learn such addresses, their time is over, or other ports have them", p.Name(), len(all))
	}
	return g.list(p.Name()), nil
}

// hasAny reports whether a port has any of some learned or added addresses.
func (g *guard) hasAny(p feature.Port, some []proto.Binding) bool {
	for _, b := range g.table.Bindings() {
		same := func(x proto.Binding) bool { return x.VLAN == b.VLAN && x.MAC == b.MAC && x.Prefix == b.Prefix }
		if b.Port == p.Name() && slices.ContainsFunc(some, same) {
			return true
		}
	}
	return false
}

// maxQuestion is the longest frame to ask about, in bytes.
const maxQuestion = 4096

func (g *guard) why(p feature.Port, r *http.Request) (any, error) {
	q, err := feature.Body[question](r)
	if err != nil {
		return nil, err
	}
	b, err := hex.DecodeString(strings.Map(func(c rune) rune {
		if strings.ContainsRune(" :\n\t", c) {
			return -1
		}
		return c
	}, q.Frame))
	if err != nil || len(b) > maxQuestion {
		return nil, api.Errorf(api.CodeInvalid, "that is no frame of up to %d bytes in hexadecimal digits", maxQuestion)
	}
	var f port.Frame
	if f.SetWire(b); f.Drop != port.DropNone {
		return answer(f.Drop), nil
	}
	return answer(g.ports[p.Number()].rules.Why(&f, p.Core().Classify(&f))), nil
}

func answer(why port.Drop) verdict {
	if why == port.DropNone {
		return verdict{Pass: true}
	}
	return verdict{Drop: why.String(), Reason: why.Info().Words}
}
