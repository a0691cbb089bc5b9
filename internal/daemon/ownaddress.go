package daemon

import (
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/api"
)

// ownAddress limits how often frames with the switch's own source address are logged.
type ownAddress struct{ told atomic.Int64 }

const ownAddressEvery = time.Minute

// allow reports whether a line at now may be logged.
func (o *ownAddress) allow(now time.Time) bool {
	told := o.told.Load()
	ago := time.Duration(now.UnixNano() - told)
	return ago.Abs() >= ownAddressEvery && o.told.CompareAndSwap(told, now.UnixNano())
}

// ownAddressSeen is called on the switch's goroutines when such a frame arrives by a port. A
// station that forges the address cannot be distinguished from a switch that has it.
func (m *manager) ownAddressSeen(number, vlan uint16) {
	if !m.seen.allow(time.Now()) {
		return
	}
	port := ""
	for _, p := range m.sw.Ports() {
		if p.Number() == number {
			port = p.Name()
		}
	}
	m.emit(api.Event{Type: api.EventFDBOwnAddress, Port: port, MAC: m.mac, VLAN: vlan})
	advice := "look for a loop behind the port, or for another switch with this address"
	if m.ids.path != "" {
		advice += "; for a new one stop vswitch, write {} into the identity file, and start it again"
	}
	m.log.Warn("a frame came in from the switch's own address", "mac", m.mac, "port", port, "vlan", vlan,
		"advice", advice, "identity", m.ids.path)
}
