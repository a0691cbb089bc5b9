// Package mirror copies frames of ports or VLANs to a port (SPAN) or into a VLAN (RSPAN). The
// core copies; this feature keeps the mirrors that users ask for. They name ports, which may
// come and go.
package mirror

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/packet/pfilter"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Feature describes mirrors.
var Feature = feature.Feature{
	Name: "mirror",
	Key:  "mirrors",
	Help: "copy frames to a port or VLAN for inspection",
	New: func(h feature.Host, _ any) (feature.Instance, error) {
		return &mirrors{host: h, all: []api.Mirror{}}, nil
	},
	Items: &feature.Items{Zero: item{}, Help: "mirrors by name", Named: true},
	Routes: []feature.Route{
		{
			Method: "GET", Path: "/v1/mirrors", ID: "listMirrors", Help: "All mirrors by name", Answer: []api.Mirror{},
			Handle: func(i feature.Instance, _ *http.Request) (any, error) { return i.(*mirrors).all, nil },
		},
		{
			Method: "POST", Path: "/v1/mirrors", ID: "addMirror", Help: "Copy frames of ports or VLANs to a port or into a VLAN",
			Request: api.Mirror{}, Answer: api.Mirror{}, Change: true,
			Handle: func(i feature.Instance, r *http.Request) (any, error) {
				req, err := feature.Body[api.Mirror](r)
				if err != nil {
					return nil, err
				}
				return i.(*mirrors).add(req)
			},
		},
		{
			Method: "DELETE", Path: "/v1/mirrors/{name}", ID: "delMirror", Help: "Remove a mirror", Change: true,
			Handle: func(i feature.Instance, r *http.Request) (any, error) {
				return nil, i.(*mirrors).remove(r.PathValue("name"))
			},
		},
	},
	Commands: commands,
}

// mirrors are the mirrors of a switch, by name.
type mirrors struct {
	host feature.Host
	all  []api.Mirror // never changed in place: an answer may still be written
}

// Stop implements feature.Instance.
func (m *mirrors) Stop() { _ = m.host.Switch().SetMirrors(nil) }

// State implements feature.Kept.
func (m *mirrors) State() (json.RawMessage, error) {
	if len(m.all) == 0 {
		return nil, nil
	}
	kept := make([]item, len(m.all))
	for i, a := range m.all {
		kept[i] = itemOf(a)
	}
	return json.Marshal(kept)
}

// Restore implements feature.Kept. What this program does not understand is an error: the next save
// would lose it.
func (m *mirrors) Restore(b json.RawMessage) error {
	kept, err := feature.ReadItems[item](b)
	if err != nil {
		return err
	}
	all := []api.Mirror{}
	for _, i := range kept {
		a := i.mirror()
		if _, err := parse(&a); err != nil {
			return fmt.Errorf("mirror %s: %w", a.Name, err)
		}
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b api.Mirror) int { return cmp.Compare(a.Name, b.Name) })
	return m.set(all)
}

// set replaces the mirrors; on error they are unchanged.
func (m *mirrors) set(all []api.Mirror) error {
	var parsed []vswitch.Mirror
	for i := range all {
		one, err := parse(&all[i])
		if err != nil {
			return err
		}
		parsed = append(parsed, one)
	}
	if err := m.host.Switch().SetMirrors(parsed); err != nil {
		return err
	}
	m.all = all
	return nil
}

// parse converts a mirror to the core's form.
func parse(a *api.Mirror) (vswitch.Mirror, error) {
	m := vswitch.Mirror{
		Name: a.Name, Ports: a.From, To: a.To, ToVLAN: a.ToVLAN, SnapLen: a.SnapLen,
		In: a.Direction != "out", Out: a.Direction != "in",
	}
	if !slices.Contains([]string{"", "in", "out", "both"}, a.Direction) {
		return m, errors.New("there is no direction " + a.Direction + "; use in, out or both")
	}
	err := setting.Twice(a.From)
	if slices.Contains(a.From, "") {
		err = errors.New("a port needs a name")
	}
	if err != nil {
		return m, fmt.Errorf("from: %w", err)
	}
	if a.FromVLAN != "" {
		if m.VLANs, err = port.ParseVLANSet(a.FromVLAN); err != nil {
			return m, err
		}
	}
	if a.Filter != "" {
		filter, err := pfilter.Compile(a.Filter)
		if err != nil {
			return m, err
		}
		m.Filter = filter.Match
	}
	return m, nil
}

func (m *mirrors) find(name string) (at int, ok bool) {
	return slices.BinarySearchFunc(m.all, name, func(a api.Mirror, name string) int { return cmp.Compare(a.Name, name) })
}

// add checks that the ports exist, to catch typing errors. A port that is removed and added
// again later takes part again.
func (m *mirrors) add(a api.Mirror) (api.Mirror, error) {
	a.Direction = cmp.Or(a.Direction, "both")
	if err := checkName(a.Name); err != nil {
		return api.Mirror{}, api.Errorf(api.CodeInvalid, "%w", err)
	}
	at, exists := m.find(a.Name)
	if exists {
		return api.Mirror{}, api.Errorf(api.CodeExists, "mirror %s exists; remove it first with `vswitch mirror del %s`", a.Name, a.Name)
	}
	ports := a.From
	if a.To != "" {
		ports = append(slices.Clone(ports), a.To)
	}
	for _, name := range ports {
		if _, err := feature.FindPort(m.host, name); err != nil {
			return api.Mirror{}, err
		}
	}
	if err := m.set(slices.Insert(slices.Clone(m.all), at, a)); err != nil {
		return api.Mirror{}, api.Errorf(api.CodeInvalid, "%w", err)
	}
	return a, nil
}

func (m *mirrors) remove(name string) error {
	at, ok := m.find(name)
	if !ok {
		return api.Errorf(api.CodeNotFound, "there is no mirror %s; `vswitch mirror list` shows those there are", name)
	}
	return m.set(slices.Delete(slices.Clone(m.all), at, at+1))
}
