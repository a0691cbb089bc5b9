package daemon

import (
	"time"

	"github.com/vswitch/vswitch/api"
	vswitch "github.com/vswitch/vswitch/switch"
)

// A guard shuts a port down when it sees what must not happen there: a bridge behind an edge
// port, more stations than allowed, the switch's own frames. The port keeps its device and passes
// nothing until its recovery time, until a user changes a setting of it, or until the daemon
// restarts.

// errDisabled is the prefix of the reason of an error-disabled port.
const errDisabled = "err-disabled: "

// shut error-disables the port; why is the guard's reason.
func (m *manager) shut(p *managed, why string) {
	if p.shutBy != "" {
		return
	}
	p.shutBy, p.recovery = why, time.Time{}
	m.emit(api.Event{Type: api.EventPortDisabled, Port: p.spec.Name, Reason: why})
	if m.recovery != 0 {
		p.recovery = time.Now().Add(m.recovery)
	}
	if p.dev != nil {
		m.reconcile(p)
	}
}

// recoverPort enables a port that a guard has disabled; the caller then reconciles it.
func (m *manager) recoverPort(p *managed) {
	if p.shutBy != "" {
		m.emit(api.Event{Type: api.EventPortRecovered, Port: p.spec.Name})
	}
	p.shutBy, p.recovery = "", time.Time{}
}

// limitHit error-disables the port that exceeded its station limit.
func (m *manager) limitHit(ev vswitch.LimitHit) {
	for _, p := range m.ports {
		if p.sw.Number() == ev.Port && p.state != api.StateDown && p.spec.LearnAction == "shutdown" && p.spec.LearnLimit != 0 {
			m.shut(p, "learn limit: "+ev.MAC.String()+" is a station too many")
		}
	}
}

// stormHit error-disables the port that received a storm.
func (m *manager) stormHit(ev vswitch.StormHit) {
	for _, p := range m.ports {
		if p.sw.Number() == ev.Port && p.state != api.StateDown && p.spec.StormAction == "shutdown" {
			m.shut(p, "storm control: "+ev.Why.String())
		}
	}
}
