package daemon

import (
	"strings"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/port"
)

// attendedBy says which machine is attached to a port, and what removing the port would
// do to it; it is empty where none is. Behind a kind that does not tell, no machine is
// expected.
func (m *manager) attendedBy(p *managed) (who string) {
	if l, ok := p.dev.(port.Linked); ok && l.Link() && p.station() {
		return "its machine is attached and would lose its connection"
	}
	if k, ok := as[port.Attended](p.kind); ok {
		spec, trace := p.spec, p.trace
		m.off(func() { who = k.Attended(spec, trace) })
	}
	return who
}

// existing answers a request to add a port that is there: if the port is as the request
// says, the request is done.
func (m *manager) existing(p *managed, req addPort) (api.Port, error) {
	differs := func(how string) (api.Port, error) {
		return api.Port{}, fail(api.CodeExists, "port %s exists, but %s; change it with set-port, or remove it first with del-port", req.Name, how)
	}
	switch {
	case p.spec.Kind != req.Kind:
		return differs("its kind is " + p.spec.Kind + ", not " + req.Kind)
	case p.kind == nil:
		return api.Port{}, fail(api.CodeInvalid, "%w", p.unknownKind())
	case p.unfit != nil:
		return differs(p.unfit.why)
	}
	other, err := m.kinds.Differences(p.spec, req.settings)
	if err != nil {
		return api.Port{}, fail(api.CodeInvalid, "%w", err)
	}
	if len(other) > 0 {
		return differs(strings.Join(other, ", and "))
	}
	return m.describe(p), nil
}
