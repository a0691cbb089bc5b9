package daemon

import (
	"time"

	"github.com/vswitch/vswitch/api"
	vswitch "github.com/vswitch/vswitch/switch"
)

// A guard shuts a port down when it sees there what must not be: a bridge behind an
// edge port, more stations than allowed, the switch's own frames. The port keeps
// its device and passes nothing until its time of recovery, or until a user sets
// something on it. A restart of the daemon brings it back as well.

// errDisabled begins the reason of a port that a guard shut down.
const errDisabled = "err-disabled: "

// shut is called by a guard with why it shuts the port down.
func (m *manager) shut(p *managed, why string) {
	if p.shutBy != "" {
		return
	}
	p.shutBy, p.recovery = why, time.Time{}
	if m.recovery != 0 {
		p.recovery = time.Now().Add(m.recovery)
	}
	if p.dev != nil {
		m.settle(p)
	}
}

// unshut takes back what shut did; follow or settle does the rest.
func (p *managed) unshut() { p.shutBy, p.recovery = "", time.Time{} }

// recoverDue brings the ports back whose time has come.
func (m *manager) recoverDue(now time.Time) {
	for _, p := range m.sorted() {
		if p.recovery.IsZero() || p.recovery.After(now) {
			continue
		}
		p.unshut()
		if p.dev != nil {
			m.settle(p)
			p.changed = true // look at its interface anew
		}
	}
}

// limitHit shuts the port down on which a station too many was seen.
func (m *manager) limitHit(ev vswitch.LimitHit) {
	for _, p := range m.ports {
		if p.sw.Number() == ev.Port && p.state != api.StateDown && p.spec.LearnAction == "shutdown" && p.spec.LearnLimit != 0 {
			m.shut(p, "learn limit: "+ev.MAC.String()+" is a station too many")
		}
	}
}

// stormHit shuts the port down by which a storm came in.
func (m *manager) stormHit(ev vswitch.StormHit) {
	for _, p := range m.ports {
		if p.sw.Number() == ev.Port && p.state != api.StateDown && p.spec.StormAction == "shutdown" {
			m.shut(p, "storm control: "+ev.Why.String())
		}
	}
}
