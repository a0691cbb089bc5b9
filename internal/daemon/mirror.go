package daemon

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/packet/pfilter"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// FilterGrammar describes the language of api.Mirror.Filter, for a command's help.
const FilterGrammar = pfilter.Grammar

// maxMirrorName is the longest name of a mirror.
const maxMirrorName = 32

// mirrorOf converts a mirror to the forwarding core's form.
func mirrorOf(a *api.Mirror) (vswitch.Mirror, error) {
	m := vswitch.Mirror{
		Name: a.Name, Ports: a.From, To: a.To, ToVLAN: a.ToVLAN, SnapLen: a.SnapLen,
		In: a.Direction != "out", Out: a.Direction != "in",
	}
	if !slices.Contains([]string{"", "in", "out", "both"}, a.Direction) {
		return m, errors.New("there is no direction " + a.Direction + "; use in, out or both")
	}
	var err error
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

// setMirrors replaces the core's mirrors; on error they are unchanged.
func (m *manager) setMirrors(mirrors []api.Mirror) error {
	var all []vswitch.Mirror
	for i := range mirrors {
		one, err := mirrorOf(&mirrors[i])
		if err != nil {
			return err
		}
		all = append(all, one)
	}
	return m.sw.SetMirrors(all)
}

// changeMirrors replaces the mirrors and keeps them on disk.
func (m *manager) changeMirrors(to []api.Mirror) error {
	if err := m.setMirrors(to); err != nil {
		return fail(api.CodeInvalid, "%w", err)
	}
	from := m.mirrors
	m.mirrors = to
	if err := m.save(); err != nil {
		m.mirrors = from
		if err := m.setMirrors(from); err != nil {
			m.log.Error("taking back a mirror that could not be kept", "error", err)
		}
		return fail(api.CodeFailed, "%w", err)
	}
	return nil
}

// listMirrors returns the mirrors by name.
func (m *manager) listMirrors() ([]api.Mirror, error) {
	return append([]api.Mirror{}, m.mirrors...), nil
}

func (m *manager) findMirror(name string) (at int, ok bool) {
	return slices.BinarySearchFunc(m.mirrors, name, func(a api.Mirror, name string) int { return cmp.Compare(a.Name, name) })
}

// addMirror checks that the ports exist, to catch typing errors. If a port is removed and
// added again later, it takes part again.
func (m *manager) addMirror(req api.Mirror) (api.Mirror, error) {
	req.Direction = cmp.Or(req.Direction, "both")
	if len(req.Name) > maxMirrorName || strings.ContainsFunc(req.Name, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return api.Mirror{}, fail(api.CodeInvalid, "a mirror's name has %d characters at most and no space", maxMirrorName)
	}
	at, exists := m.findMirror(req.Name)
	if exists {
		return api.Mirror{}, fail(api.CodeExists, "mirror %s exists; remove it first with `vswitch mirror del %s`", req.Name, req.Name)
	}
	ports := req.From
	if req.To != "" {
		ports = append(slices.Clone(ports), req.To)
	}
	for _, name := range ports {
		if _, err := m.find(name); err != nil {
			return api.Mirror{}, err
		}
	}
	if err := m.changeMirrors(slices.Insert(slices.Clone(m.mirrors), at, req)); err != nil {
		return api.Mirror{}, err
	}
	return req, nil
}

func (m *manager) delMirror(name string) error {
	at, ok := m.findMirror(name)
	if !ok {
		return fail(api.CodeNotFound, "there is no mirror %s; `vswitch mirror list` shows those there are", name)
	}
	return m.changeMirrors(slices.Delete(slices.Clone(m.mirrors), at, at+1))
}
