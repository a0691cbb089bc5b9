package daemon

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/owner"
	"github.com/vswitch/vswitch/port"
)

// takenGap is the time between checks of a device that somebody else uses, to catch what link
// events do not report.
const takenGap = 2 * time.Second

// takenBy returns who else uses the device of an open port and how to end that, or "" if nobody
// does. Such a port forwards nothing until it has its device to itself.
func (m *manager) takenBy(p *managed) string {
	upper := m.uppers[p.link.Index]
	if len(upper) == 0 || !exclusive(p.dev) {
		return p.held
	}
	u := upper[slices.Min(slices.Collect(maps.Keys(upper)))]
	return fmt.Sprintf("%s %s stands on %s and takes its frames; `ip link del %s` gives them back", u.Kind, u.Name, p.link.Name, u.Name)
}

func exclusive(dev port.Port) bool {
	x, ok := dev.(port.Exclusive)
	return ok && x.Exclusive()
}

// heldBy asks the system who else uses a port's device, as far as link events do not show it. It
// may be slow, so it is called without the turn.
func (m *manager) heldBy(dev port.Port, l link.Link) string {
	if why := owner.Held(m.links, l, m.name, exclusive(dev)); why != "" || !exclusive(dev) {
		return why
	}
	// While a switch is handed over, both processes may have a program at the device; the kernel
	// takes the former one's away a little after its end.
	if c, ok := dev.(port.Contested); ok && !m.handing.Load() && !m.taking.Load() {
		if err := c.Contested(); err != nil {
			return err.Error()
		}
	}
	return ""
}

// unprogrammed puts the programs of a port back at its device if somebody detached them. It returns
// why that failed. It may be slow, so it is called without the turn.
func (m *manager) unprogrammed(dev port.Port) string {
	p, ok := dev.(port.Programmed)
	if !ok || !bound(dev) || m.handing.Load() || m.taking.Load() {
		return ""
	}
	if err := p.Renew(); err != nil {
		return err.Error()
	}
	return ""
}

// stacked records interfaces that receive the frames of the one below them and returns that one's
// index, 0 if ev is about another kind.
func (m *manager) stacked(ev link.Event) int {
	lower := ev.Lower
	if lower == 0 {
		return 0
	}
	if ev.Gone {
		delete(m.uppers[lower], ev.Index)
		if len(m.uppers[lower]) == 0 {
			delete(m.uppers, lower)
		}
		return lower
	}
	if m.uppers[lower] == nil {
		m.uppers[lower] = make(map[int]link.Link)
	}
	m.uppers[lower][ev.Index] = ev.Link
	return lower
}
